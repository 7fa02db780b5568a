package script

import (
	"crypto/hmac"
	"crypto/md5" //nolint:gosec // devices use it for checks, not for secrecy
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
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
	text, err := encodeJSON(L.CheckAny(1), int(min(r.memory, hardStringLimit)))
	if err != nil {
		L.RaiseError("json.encode: %s", err.Error())
	}
	L.Push(lua.LString(text))
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

func base64Encode(_ *run, L *lua.LState) int {
	L.Push(lua.LString(base64.StdEncoding.EncodeToString([]byte(checkString(L, 1)))))
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
	sum := func(f func([]byte) []byte) builtin {
		return func(_ *run, L *lua.LState) int {
			L.Push(lua.LString(hex.EncodeToString(f([]byte(checkString(L, 1))))))
			return 1
		}
	}
	return map[string]builtin{
		"sha256": sum(func(b []byte) []byte { s := sha256.Sum256(b); return s[:] }),
		"sha1":   sum(func(b []byte) []byte { s := sha1.Sum(b); return s[:] }), //nolint:gosec // as md5
		"md5":    sum(func(b []byte) []byte { s := md5.Sum(b); return s[:] }),  //nolint:gosec // as above
		"crc32": func(_ *run, L *lua.LState) int {
			L.Push(lua.LNumber(crc32.ChecksumIEEE([]byte(checkString(L, 1)))))
			return 1
		},
		"crc16": func(_ *run, L *lua.LState) int {
			L.Push(lua.LNumber(crc16([]byte(checkString(L, 1)))))
			return 1
		},
		"hmac_sha256": func(_ *run, L *lua.LState) int {
			h := hmac.New(sha256.New, []byte(checkString(L, 1)))
			h.Write([]byte(checkString(L, 2)))
			L.Push(lua.LString(hex.EncodeToString(h.Sum(nil))))
			return 1
		},
	}
}

// crc16 is the checksum of Modbus: polynomial 0x8005 reflected, from 0xffff.
func crc16(b []byte) uint16 {
	crc := uint16(0xffff)
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
