package script

import (
	"context"
	"encoding/json"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	lua "github.com/yuin/gopher-lua"
	"pgregory.net/rapid"
)

// jsonState is a Lua state with nothing in it, and the run it belongs to.
func jsonState(t testing.TB) (*lua.LState, *run) {
	L := lua.NewState(lua.Options{SkipOpenLibs: true})
	t.Cleanup(L.Close)
	return L, &run{L: L, m: &Machine{}, ctx: context.Background()}
}

func TestJSONErrorsNameThePlace(t *testing.T) {
	L, mark := jsonState(t)
	for text, want := range map[string]string{
		``:                          "the JSON ends too early at byte 1",
		`{`:                         "expected a name in quotes at byte 2",
		`{"a" 1}`:                   "expected ':' at byte 6",
		`{"a":1,}`:                  "expected a name in quotes at byte 8",
		`[1,]`:                      "no JSON value starts with ']' at byte 4",
		`[1 2]`:                     "expected ',' or ']' at byte 4",
		`01`:                        "a malformed number at byte 3",
		`1.`:                        "a malformed number at byte 3",
		`-`:                         "a malformed number at byte 2",
		`1e`:                        "a malformed number at byte 3",
		`[-1e400]`:                  "a number beyond 1.8e308 at byte 8",
		`+1`:                        "no JSON value starts with '+' at byte 1",
		`nul`:                       "expected null at byte 1",
		`"abc`:                      "the string is not closed at byte 5",
		"\"a\nb\"":                  "a control character in a string at byte 3",
		`"\x"`:                      "an escape that JSON does not have at byte 4",
		`"\u12"`:                    `\u needs four hexadecimal digits at byte 4`,
		`1 2`:                       "something follows the value at byte 3",
		strings.Repeat("[", 65):     "nested more than 64 levels deep at byte 65",
		strings.Repeat(`{"a":`, 65): "nested more than 64 levels deep at byte 321",
	} {
		_, err := decodeJSON(L, []byte(text), mark)
		require.EqualError(t, err, want, text)
		require.False(t, readable([]byte(text)) && len(text) < 60, text)
	}
}

// readable says whether the standard library reads a text: it is JSON, and its numbers fit.
func readable(text []byte) bool {
	var v any
	return json.Unmarshal(text, &v) == nil
}

// What the standard library takes we take, and the other way round, but for depth; and what comes out means the same.
func FuzzJSON(f *testing.F) {
	for _, s := range []string{`{"a":[1,2.5,-3e10,null,true,"x\u00e9\n"]}`, `[]`, `{}`, `"\ud83d\ude00"`, `"\ud83d"`, `-0`, `1E400`, `{"n":3,"1":2}`, `[[],{}]`, ` 1 `, `[null]`, "\"\xff\""} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		L, mark := jsonState(t)
		v, err := decodeJSON(L, in, mark)
		if strings.Count(string(in), "[")+strings.Count(string(in), "{") < maxJSONDepth {
			require.Equal(t, readable(in), err == nil, "%q: %v", in, err)
		}
		if err != nil {
			return
		}
		out, err := encodeJSON(v, 1<<20, func() {})
		if err != nil {
			return // infinite numbers, strings that are not UTF-8
		}
		require.True(t, json.Valid(out), "%q gives %q", in, out)
		again, err := decodeJSON(L, out, mark)
		require.NoError(t, err)
		twice, err := encodeJSON(again, 1<<20, func() {})
		require.NoError(t, err)
		require.Equal(t, string(out), string(twice))
	})
}

// Values that Lua can hold survive the way to JSON and back.
func TestJSONKeepsValues(t *testing.T) {
	value := rapid.Custom(func(t *rapid.T) any { return drawValue(t, 3) })
	rapid.Check(t, func(rt *rapid.T) {
		L, mark := jsonState(t)
		in, err := json.Marshal(value.Draw(rt, "value"))
		require.NoError(rt, err)
		v, err := decodeJSON(L, in, mark)
		require.NoError(rt, err)
		out, err := encodeJSON(v, 1<<20, func() {})
		require.NoError(rt, err)
		require.JSONEq(rt, string(in), string(out))
	})
}

// drawValue draws anything without a null within an object, which Lua cannot keep.
func drawValue(t *rapid.T, depth int) any {
	switch n := rapid.IntRange(0, 5).Draw(t, "kind"); {
	case n == 0 && depth > 0:
		return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) any { return drawValue(t, depth-1) }), 0, 4).Draw(t, "list")
	case n == 1 && depth > 0:
		m := rapid.MapOfN(rapid.String(), rapid.Custom(func(t *rapid.T) any { return drawValue(t, depth-1) }), 0, 4).Draw(t, "object")
		for k, v := range m {
			if v == nil {
				delete(m, k)
			}
		}
		return m
	case n == 2:
		return rapid.Bool().Draw(t, "bool")
	case n == 3:
		f := rapid.Float64().Draw(t, "number")
		if math.IsInf(f, 0) || math.IsNaN(f) {
			return 0.5
		}
		return f
	case n == 4:
		return rapid.String().Draw(t, "text")
	}
	return nil
}

func TestJSONInLua(t *testing.T) {
	for code, want := range map[string]string{
		`return json.encode({})`:                                                          `"{}"`,
		`return json.encode(json.array())`:                                                `"[]"`,
		`return json.encode(json.array({n = 2}))`:                                         `"[null,null]"`,
		`return json.encode({1, nil, 3})`:                                                 `"[1,null,3]"`,
		`return json.encode({1, 2, n = 3})`:                                               `"[1,2,null]"`,
		`return json.encode({n = 5})`:                                                     `"{\"n\":5}"`,
		`return json.encode({a = json.null})`:                                             `"{\"a\":null}"`,
		`return json.encode(1e15)`:                                                        `"1000000000000000"`,
		`return json.encode(0.1)`:                                                         `"0.1"`,
		`return json.encode("\1\"\\\n/")`:                                                 `"\"\\u0001\\\"\\\\\\n/\""`,
		`local t = json.decode("[1,2]") t[3] = 5 return t`:                                `[1,2,5]`,
		`local t = json.decode("[1,null,2,null]") return t.n`:                             `4`,
		`return {json.decode("{")}`:                                                       `[null,"expected a name in quotes at byte 2"]`,
		`return select(2, pcall(json.encode, {[100] = 1}))`:                               `"main.lua:2: json.encode: the value is a list with 1 items and 99 holes; use strings as keys"`,
		`return base64.encode("\0\255") .. base64.decode("aGk") .. base64.decode("aGk=")`: `"AP8=hihi"`,
		`return {base64.decode("!")}`:                                                     `[null,"not base64"]`,
		`return hash.sha256("abc"):sub(1, 8) .. hash.md5(""):sub(1, 8) .. hash.sha1(""):sub(1, 8)`: `"ba7816bfd41d8cd9da39a3ee"`,
		`return {hash.crc32("123456789"), hash.hmac_sha256("key", "x"):len()}`:                     `[3421780262,64]`,
		`return {bit32.band(12, 10), bit32.bor(12, 10), bit32.bxor(12, 10), bit32.bnot(0), bit32.lshift(1, 31), bit32.rshift(-1, 28), bit32.arshift(-16, 2), bit32.extract(0xf0, 4, 4), bit32.replace(0, 5, 4, 4), bit32.lrotate(0x80000001, 1), bit32.btest(1, 2)}`: `[8,14,6,4294967295,2147483648,15,4294967292,15,80,3,false]`,
		`local t = {} for p, c in utf8.codes("aé😀") do t[#t + 1] = p .. ":" .. c end return {t, utf8.len("aé😀"), utf8.char(233, 128512), utf8.codepoint("é"), utf8.offset("aé😀", 3), {utf8.len("\255")}}`:                                                            `[["1:97","2:233","4:128512"],3,"é😀",233,4,[null,1]]`,
	} {
		require.Equal(t, want, eval(t, code), code)
	}
}

// TestFractionsHaveNoExponent: only what would be mostly zeros has one, in JSON and in text.
func TestFractionsHaveNoExponent(t *testing.T) {
	for code, want := range map[string]string{
		"1795325409.337": "1795325409.337", "1234567.5": "1234567.5", "-1234567.25": "-1234567.25", "0.00001": "0.00001", "0.1 + 0.2": "0.30000000000000004",
		"1e-7": "1e-07", "1e20": "100000000000000000000", "1e21": "1e+21", "2^53": "9007199254740992", "5e-324": "5e-324",
	} {
		require.Equal(t, want, eval(t, "return "+code), code)
		require.Equal(t, `"`+want+`"`, eval(t, "return tostring("+code+")"), code)
	}
}
