package script

import (
	"crypto/hmac"
	"crypto/md5" //nolint:gosec // devices use it for checks, not for secrecy
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"hash"
	"hash/crc32"
	"strings"

	lua "github.com/yuin/gopher-lua"
)

func jsonFunctions() map[string]builtin {
	return map[string]builtin{"decode": jsonDecode, "encode": jsonEncode, "array": jsonArray, "integer": jsonInteger}
}

// jsonValues adds json.null. It is made for each run, since a userdata can be compared and has a metatable.
func jsonValues(_ *run, t *lua.LTable) {
	t.RawSetString("null", &lua.LUserData{Value: jsonNull{}, Metatable: lua.LNil})
}

// jsonDecode returns the value, or nil and what is wrong.
func jsonDecode(r *run, L *lua.LState) int {
	v, err := decodeJSON(L, []byte(checkString(L, 1)), r)
	if err != nil {
		L.Push(lua.LNil)
		L.Push(lua.LString(err.Error()))
		return 2
	}
	L.Push(v)
	return 1
}

func jsonEncode(r *run, L *lua.LState) int {
	text, err := encodeJSON(L.CheckAny(1), int(min(r.memory, hardStringLimit)), r.checker(L))
	if err != nil {
		L.RaiseError("json.encode: %s", err.Error())
	}
	L.Push(r.string(L, string(text)))
	return 1
}

// arrayMark is the run's metatable of arrays.
func (r *run) arrayMark() *lua.LTable {
	if r.arrays == nil {
		r.arrays = r.L.CreateTable(0, 1)
		r.arrays.RawSetString(arrayMark, lua.LTrue)
	}
	return r.arrays
}

// jsonArray marks a table, or a new one, as an array, so that it is one even when it is empty.
func jsonArray(r *run, L *lua.LState) int {
	t := L.OptTable(1, nil)
	if t == nil {
		t = L.CreateTable(0, 0)
	}
	t.Metatable = r.arrayMark()
	L.Push(t)
	return 1
}

func base64Functions() map[string]builtin {
	return map[string]builtin{"encode": base64Encode, "decode": base64Decode}
}

func base64Encode(r *run, L *lua.LState) int {
	L.Push(r.string(L, base64.StdEncoding.EncodeToString([]byte(checkString(L, 1)))))
	return 1
}

// base64Decode takes both alphabets, with padding and without. It returns nil and a message for what is neither.
func base64Decode(_ *run, L *lua.LState) int {
	s := strings.TrimRight(strings.NewReplacer("-", "+", "_", "/", "\n", "", "\r", "").Replace(checkString(L, 1)), "=")
	b, err := base64.RawStdEncoding.DecodeString(s)
	if err != nil {
		L.Push(lua.LNil)
		L.Push(lua.LString("not base64"))
		return 2
	}
	L.Push(lua.LString(b))
	return 1
}

func hashFunctions() map[string]builtin {
	sum := func(f func() hash.Hash) builtin {
		return func(r *run, L *lua.LState) int { return r.hash(L, f(), 1) }
	}
	return map[string]builtin{
		"sha256": sum(sha256.New),
		"sha1":   sum(sha1.New),
		"md5":    sum(md5.New),
		"crc32": func(r *run, L *lua.LState) int {
			crc := uint32(0)
			r.pieces(L, checkString(L, 1), func(b []byte) { crc = crc32.Update(crc, crc32.IEEETable, b) })
			L.Push(lua.LNumber(crc))
			return 1
		},
		"crc16": func(r *run, L *lua.LState) int {
			crc := uint16(0xffff)
			r.pieces(L, checkString(L, 1), func(b []byte) { crc = crc16(crc, b) })
			L.Push(lua.LNumber(crc))
			return 1
		},
		"hmac_sha256": func(r *run, L *lua.LState) int {
			return r.hash(L, hmac.New(sha256.New, []byte(checkString(L, 1))), 2)
		},
	}
}

// hash pushes the sum of argument n, in hexadecimal.
func (r *run) hash(L *lua.LState, h hash.Hash, n int) int {
	r.pieces(L, checkString(L, n), func(b []byte) { h.Write(b) })
	L.Push(lua.LString(hex.EncodeToString(h.Sum(nil))))
	return 1
}

// piece is how much is worked on between two looks at the context: a board is slow.
const piece = 64 << 10

// pieces hands a text on bit by bit, and looks at the context between them.
func (r *run) pieces(L *lua.LState, s string, f func([]byte)) {
	for len(s) > piece {
		f([]byte(s[:piece]))
		s = s[piece:]
		r.check(L)
	}
	f([]byte(s))
}

// crc16 is the checksum of Modbus: polynomial 0x8005 reflected, begun with 0xffff.
func crc16(crc uint16, b []byte) uint16 {
	for _, c := range b {
		crc ^= uint16(c)
		for range 8 {
			low := crc & 1
			crc >>= 1
			if low != 0 {
				crc ^= 0xa001
			}
		}
	}
	return crc
}
