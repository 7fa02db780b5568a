package script

import (
	"math"
	"math/bits"
	"unicode/utf8"

	lua "github.com/yuin/gopher-lua"
)

// bitFunctions are the library bit32 of Lua 5.2: whole numbers of 32 bits, others taken modulo 2^32.
func bitFunctions() map[string]builtin {
	return map[string]builtin{
		"band":    fold(math.MaxUint32, func(a, b uint32) uint32 { return a & b }),
		"bor":     fold(0, func(a, b uint32) uint32 { return a | b }),
		"bxor":    fold(0, func(a, b uint32) uint32 { return a ^ b }),
		"bnot":    func(_ *run, L *lua.LState) int { return pushBits(L, ^checkBits(L, 1)) },
		"btest":   bitTest,
		"lshift":  func(_ *run, L *lua.LState) int { return pushBits(L, shift(checkBits(L, 1), checkInt(L, 2))) },
		"rshift":  func(_ *run, L *lua.LState) int { return pushBits(L, shift(checkBits(L, 1), -checkInt(L, 2))) },
		"arshift": bitArshift,
		"lrotate": func(_ *run, L *lua.LState) int {
			return pushBits(L, bits.RotateLeft32(checkBits(L, 1), checkInt(L, 2)%32))
		},
		"rrotate": func(_ *run, L *lua.LState) int {
			return pushBits(L, bits.RotateLeft32(checkBits(L, 1), -(checkInt(L, 2)%32)))
		},
		"extract": bitExtract,
		"replace": bitReplace,
	}
}

func checkBits(L *lua.LState, n int) uint32 {
	f := math.Mod(math.Floor(checkNumber(L, n)), 1<<32)
	if f < 0 {
		f += 1 << 32
	}
	if f != f {
		return 0
	}
	return uint32(f)
}

func pushBits(L *lua.LState, v uint32) int {
	L.Push(lua.LNumber(v))
	return 1
}

func fold(start uint32, f func(a, b uint32) uint32) builtin {
	return func(_ *run, L *lua.LState) int {
		v := start
		for i := 1; i <= L.GetTop(); i++ {
			v = f(v, checkBits(L, i))
		}
		return pushBits(L, v)
	}
}

func bitTest(_ *run, L *lua.LState) int {
	v := uint32(math.MaxUint32)
	for i := 1; i <= L.GetTop(); i++ {
		v &= checkBits(L, i)
	}
	L.Push(lua.LBool(v != 0))
	return 1
}

// shift shifts to the left, or for a negative n to the right.
func shift(v uint32, n int) uint32 {
	switch {
	case n >= 32 || n <= -32:
		return 0
	case n >= 0:
		return v << uint(n)
	}
	return v >> uint(-n)
}

func bitArshift(_ *run, L *lua.LState) int {
	v, n := checkBits(L, 1), checkInt(L, 2)
	if n < 0 {
		return pushBits(L, shift(v, -n))
	}
	return pushBits(L, uint32(int32(v)>>uint(min(n, 31))))
}

// field reads the arguments field and width at n, and returns the shift and the mask.
func field(L *lua.LState, n int) (at int, mask uint32) {
	at, width := checkInt(L, n), optInt(L, n+1, 1)
	if at < 0 || width < 1 || at > 31 || width > 32-at {
		L.ArgError(n, "trying to access bits that a number of 32 bits does not have")
	}
	return at, uint32(uint64(1)<<uint(width) - 1)
}

func bitExtract(_ *run, L *lua.LState) int {
	at, mask := field(L, 2)
	return pushBits(L, checkBits(L, 1)>>uint(at)&mask)
}

func bitReplace(_ *run, L *lua.LState) int {
	at, mask := field(L, 3)
	return pushBits(L, checkBits(L, 1)&^(mask<<uint(at))|(checkBits(L, 2)&mask)<<uint(at))
}

// utf8Functions are the library utf8 of Lua 5.3, as far as it makes sense without integers.
func utf8Functions() map[string]builtin {
	return map[string]builtin{"char": utf8Char, "codepoint": utf8Codepoint, "len": utf8Len, "offset": utf8Offset, "codes": utf8Codes}
}

func utf8Values(_ *run, t *lua.LTable) {
	t.RawSetString("charpattern", lua.LString("[%z\x01-\x7f\xc2-\xf4][\x80-\xbf]*"))
}

func utf8Char(_ *run, L *lua.LState) int {
	var b []byte
	for i := 1; i <= L.GetTop(); i++ {
		c := checkInt(L, i)
		if c < 0 || c > utf8.MaxRune {
			L.ArgError(i, "value out of range")
		}
		b = utf8.AppendRune(b, rune(c))
	}
	L.Push(lua.LString(b))
	return 1
}

// bytePosition is a position argument counted from 0.
func bytePosition(i, n int) int {
	if i < 0 {
		return n + i
	}
	return i - 1
}

func utf8Codepoint(_ *run, L *lua.LState) int {
	s := checkString(L, 1)
	first := optInt(L, 2, 1)
	i, j := bytePosition(first, len(s)), bytePosition(optInt(L, 3, first), len(s))
	if i < 0 || j >= len(s) {
		L.ArgError(2, "out of range")
	}
	n := 0
	for i <= j {
		c, size := utf8.DecodeRuneInString(s[i:])
		if c == utf8.RuneError && size <= 1 {
			L.RaiseError("invalid UTF-8 code")
		}
		if n++; n > maxUnpack {
			L.RaiseError("string slice too long")
		}
		L.Push(lua.LNumber(c))
		i += size
	}
	return n
}

func utf8Len(_ *run, L *lua.LState) int {
	s := checkString(L, 1)
	i, j := bytePosition(optInt(L, 2, 1), len(s)), bytePosition(optInt(L, 3, -1), len(s))
	if i < 0 || i > len(s) || j >= len(s) {
		L.ArgError(2, "position out of string")
	}
	n := 0
	for i <= j {
		c, size := utf8.DecodeRuneInString(s[i:])
		if c == utf8.RuneError && size <= 1 {
			L.Push(lua.LNil)
			L.Push(lua.LNumber(i + 1))
			return 2
		}
		i += size
		n++
	}
	L.Push(lua.LNumber(n))
	return 1
}

// utf8Offset is the byte at which character n starts, counted from byte i on.
func utf8Offset(_ *run, L *lua.LState) int {
	s, n := checkString(L, 1), checkInt(L, 2)
	start := 1
	if n <= 0 {
		start = len(s) + 1
	}
	i := bytePosition(optInt(L, 3, start), len(s))
	if i < 0 || i > len(s) {
		L.ArgError(3, "position out of range")
	}
	inside := func(i int) bool { return i < len(s) && s[i]&0xc0 == 0x80 }
	switch {
	case n == 0:
		for i > 0 && inside(i) {
			i--
		}
	case inside(i):
		L.RaiseError("initial position is a continuation byte")
	case n < 0:
		for ; n < 0 && i > 0; n++ {
			for i--; i > 0 && inside(i); i-- {
			}
		}
	default:
		for n--; n > 0 && i < len(s); n-- {
			for i++; inside(i); i++ {
			}
		}
	}
	if n != 0 {
		L.Push(lua.LNil)
	} else {
		L.Push(lua.LNumber(i + 1))
	}
	return 1
}

// utf8Codes returns an iterator over positions and characters.
func utf8Codes(_ *run, L *lua.LState) int {
	s := checkString(L, 1)
	i := 0
	L.Push(L.NewFunction(func(L *lua.LState) int {
		if i >= len(s) {
			return 0
		}
		c, size := utf8.DecodeRuneInString(s[i:])
		if c == utf8.RuneError && size <= 1 {
			L.RaiseError("invalid UTF-8 code")
		}
		L.Push(lua.LNumber(i + 1))
		L.Push(lua.LNumber(c))
		i += size
		return 2
	}))
	return 1
}
