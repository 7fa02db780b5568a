package script

import (
	"encoding/hex"
	"fmt"
	"math"
	"strings"

	lua "github.com/yuin/gopher-lua"
)

// bytesFunctions are the library bytes: the binary payloads of sensors. The formats are those of string.pack in Lua 5.3, without alignment
// and without numbers of more than 8 bytes; sizes are the same on every board.
func bytesFunctions() map[string]builtin {
	return map[string]builtin{"pack": bytesPack, "unpack": bytesUnpack, "size": bytesSize, "hex": bytesHex, "unhex": bytesUnhex}
}

// item is one letter of a format.
type item struct {
	kind byte // 'i' signed, 'u' unsigned, 'f' float, 's' counted string, 'c' fixed string, 'z' string up to a zero, 'x' padding
	size int  // bytes: of the number, of the count of 's', of the string of 'c'
	big  bool // the most significant byte comes first
}

// formatReader reads the items of a format.
type formatReader struct {
	L      *lua.LState
	format string
	pos    int
	big    bool
}

// fixedItem is the item of a letter that takes no size.
func fixedItem(c byte) (it item, ok bool) {
	switch c {
	case 'b':
		return item{kind: 'i', size: 1}, true
	case 'B':
		return item{kind: 'u', size: 1}, true
	case 'h':
		return item{kind: 'i', size: 2}, true
	case 'H':
		return item{kind: 'u', size: 2}, true
	case 'l', 'j':
		return item{kind: 'i', size: 8}, true
	case 'L', 'J', 'T':
		return item{kind: 'u', size: 8}, true
	case 'f':
		return item{kind: 'f', size: 4}, true
	case 'd', 'n':
		return item{kind: 'f', size: 8}, true
	case 'z':
		return item{kind: 'z'}, true
	case 'x':
		return item{kind: 'x', size: 1}, true
	}
	return item{}, false
}

// next is the next item; ok is false at the end.
func (f *formatReader) next() (it item, ok bool) {
	for f.pos < len(f.format) {
		c := f.format[f.pos]
		f.pos++
		switch c {
		case ' ':
		case '<', '=':
			f.big = false
		case '>':
			f.big = true
		case 'i':
			return item{'i', f.size(4, 8), f.big}, true
		case 'I':
			return item{'u', f.size(4, 8), f.big}, true
		case 's':
			return item{'s', f.size(8, 8), f.big}, true
		case 'c':
			return item{'c', f.size(-1, hardStringLimit), f.big}, true
		default:
			it, ok := fixedItem(c)
			if !ok {
				f.L.ArgError(1, fmt.Sprintf("no option '%s' in a format; there are b B h H i I l L j J T f d n s z c x, and < > =", capped(string([]byte{c}), 4)))
			}
			it.big = f.big
			return it, true
		}
	}
	return item{}, false
}

// size reads the digits behind a letter; or is meant if there are none, and they must be there if that is negative.
func (f *formatReader) size(or, most int) int {
	start, n := f.pos, 0
	for f.pos < len(f.format) && isDigit(f.format[f.pos]) {
		n = min(n*10+int(f.format[f.pos]-'0'), hardStringLimit+1)
		f.pos++
	}
	switch {
	case f.pos == start && or < 0:
		f.L.ArgError(1, "'c' in a format needs a size")
	case f.pos == start:
		return or
	case n > most || n < 1 && or >= 0:
		f.L.ArgError(1, fmt.Sprintf("a size of %d in a format; it is between 1 and %d", n, most))
	}
	return n
}

func bytesPack(r *run, L *lua.LState) int {
	f := &formatReader{L: L, format: checkString(L, 1)}
	b := r.buffer(L, "bytes.pack")
	arg := 1
	for it, ok := f.next(); ok; it, ok = f.next() {
		if it.kind == 'x' {
			b.byte(0)
			continue
		}
		arg++
		it.pack(L, b, arg)
	}
	L.Push(b.value())
	return 1
}

func (it item) pack(L *lua.LState, b *buffer, arg int) {
	switch it.kind {
	case 'i', 'u':
		it.put(b, it.whole(L, arg))
	case 'f':
		v := checkNumber(L, arg)
		if it.size == 4 {
			it.put(b, uint64(math.Float32bits(float32(v))))
			return
		}
		it.put(b, math.Float64bits(v))
	case 's':
		s := checkString(L, arg)
		if it.size < 8 && uint64(len(s)) >= 1<<(8*it.size) {
			L.ArgError(arg, fmt.Sprintf("a string of %d bytes, whose length does not fit %d", len(s), it.size))
		}
		it.put(b, uint64(len(s)))
		b.text(s)
	case 'c':
		s := checkString(L, arg)
		if len(s) > it.size {
			L.ArgError(arg, fmt.Sprintf("a string of %d bytes does not fit %d", len(s), it.size))
		}
		b.text(s)
		b.room(it.size - len(s))
		b.b = append(b.b, make([]byte, it.size-len(s))...)
	case 'z':
		s := checkString(L, arg)
		if strings.IndexByte(s, 0) >= 0 {
			L.ArgError(arg, "a string for 'z' has no zero in it")
		}
		b.text(s)
		b.byte(0)
	}
}

// put adds the lowest bytes of v.
func (it item) put(b *buffer, v uint64) {
	b.room(it.size)
	for i := range it.size {
		shift := 8 * i
		if it.big {
			shift = 8 * (it.size - 1 - i)
		}
		b.b = append(b.b, byte(v>>shift))
	}
}

// whole is argument n as the bits of a whole number that fits.
func (it item) whole(L *lua.LState, n int) uint64 {
	i, ok := asInteger(L.Get(n))
	if !ok {
		f := checkNumber(L, n)
		if f != math.Trunc(f) || math.Abs(f) >= 1<<64 {
			L.ArgError(n, "a whole number expected, got "+numberText(f))
		}
		i = integer{f < 0, uint64(math.Abs(f))}
	}
	limit := uint64(1) << (8*it.size - 1) // the first that is too high for a signed one, and its lowest
	switch {
	case it.kind == 'i' && i.neg && i.magnitude > limit, it.kind == 'i' && !i.neg && i.magnitude >= limit,
		it.kind == 'u' && i.neg && i.magnitude > 0, it.kind == 'u' && it.size < 8 && i.magnitude >= 2*limit:
		sign := "signed"
		if it.kind == 'u' {
			sign = "unsigned"
		}
		L.ArgError(n, fmt.Sprintf("%s does not fit %d bytes, %s", i, it.size, sign))
	}
	return i.bits()
}

// bytesUnpack returns the values and the place after the last.
func bytesUnpack(r *run, L *lua.LState) int {
	f := &formatReader{L: L, format: checkString(L, 1)}
	s := checkString(L, 2)
	at := bytePosition(optInt(L, 3, 1), len(s))
	if at < 0 || at > len(s) {
		L.ArgError(3, "the position is outside of the string")
	}
	n := 0
	for it, ok := f.next(); ok; it, ok = f.next() {
		v, size := it.unpack(r, L, s[at:], at)
		at += size
		if it.kind == 'x' {
			continue
		}
		if n++; n >= maxUnpack {
			L.RaiseError("too many results to unpack")
		}
		L.Push(v)
	}
	L.Push(lua.LNumber(at + 1))
	return n + 1
}

// unpack reads one item from the start of s, which is at byte at of the whole, and says how many bytes it has.
func (it item) unpack(r *run, L *lua.LState, s string, at int) (v lua.LValue, size int) {
	need := func(n int) {
		if n > len(s) {
			L.ArgError(2, fmt.Sprintf("too short: %d bytes from byte %d on, %d are needed", len(s), at+1, n))
		}
	}
	if it.kind == 'z' {
		end := strings.IndexByte(s, 0)
		if end < 0 {
			L.ArgError(2, fmt.Sprintf("no zero from byte %d on, at which a string would end", at+1))
		}
		return lua.LString(s[:end]), end + 1
	}
	need(it.size)
	switch it.kind {
	case 'i', 'u':
		return r.integer(it.number(s)), it.size
	case 'f':
		bits := it.get(s)
		if it.size == 4 {
			return lua.LNumber(math.Float32frombits(uint32(bits))), it.size
		}
		return lua.LNumber(math.Float64frombits(bits)), it.size
	case 's':
		n := it.get(s)
		if n > uint64(len(s)-it.size) {
			n = uint64(len(s)) // more than there is
		}
		need(it.size + int(n))
		return lua.LString(s[it.size : it.size+int(n)]), it.size + int(n)
	}
	return lua.LString(s[:it.size]), it.size
}

// get reads the bytes of a number.
func (it item) get(s string) (v uint64) {
	for i := range it.size {
		at := it.size - 1 - i
		if it.big {
			at = i
		}
		v = v<<8 | uint64(s[at])
	}
	return v
}

func (it item) number(s string) integer {
	v := it.get(s)
	if it.kind == 'i' && v>>(8*it.size-1) != 0 {
		v |= ^uint64(0) << (8*it.size - 1) // the sign, up to the top
		return integer{true, -v}
	}
	return integer{false, v}
}

// bytesSize is how many bytes a format takes.
func bytesSize(_ *run, L *lua.LState) int {
	f := &formatReader{L: L, format: checkString(L, 1)}
	n := 0
	for it, ok := f.next(); ok; it, ok = f.next() {
		if it.kind == 's' || it.kind == 'z' {
			L.ArgError(1, "'s' and 'z' have no fixed size")
		}
		n += it.size
	}
	L.Push(lua.LNumber(n))
	return 1
}

func bytesHex(r *run, L *lua.LState) int {
	s := checkString(L, 1)
	b := r.buffer(L, "bytes.hex")
	b.room(2 * len(s))
	b.b = hex.AppendEncode(b.b, []byte(s))
	L.Push(b.value())
	return 1
}

// bytesUnhex takes small and capital letters, with blanks, colons and dashes between bytes or without. It returns nil and a message for what is none.
func bytesUnhex(_ *run, L *lua.LState) int {
	b, err := hex.DecodeString(strings.NewReplacer(" ", "", ":", "", "-", "").Replace(checkString(L, 1)))
	if err != nil {
		L.Push(lua.LNil)
		L.Push(lua.LString("not hexadecimal"))
		return 2
	}
	L.Push(lua.LString(b))
	return 1
}
