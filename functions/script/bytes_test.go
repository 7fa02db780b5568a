package script

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestBytes(t *testing.T) {
	for code, want := range map[string]string{
		// as string.pack of Lua 5.3 gives them
		`return bytes.hex(bytes.pack("<i2", -2))`:                                                  `"feff"`,
		`return bytes.hex(bytes.pack(">I2 I4 B", 258, 1, 255))`:                                    `"010200000001ff"`,
		`return bytes.hex(bytes.pack("<i3>i3", -1000, -1000))`:                                     `"18fcfffffc18"`,
		`return bytes.hex(bytes.pack("bBhHlLjJT", -1, 255, -2, 65535, -3, 1, -4, 2, 3))`:           `"fffffeffffff` + `fdffffffffffffff` + `0100000000000000` + `fcffffffffffffff` + `0200000000000000` + `0300000000000000"`,
		`return bytes.hex(bytes.pack(">f", 1.5) .. bytes.pack("<d", -2) .. bytes.pack("=n", 0.5))`: `"3fc0000000000000000000c0000000000000e03f"`,
		`return bytes.hex(bytes.pack(">s1 s2 z c5 x", "ab", "c", "de", "fg"))`:                     `"02616200016364650066670000` + `0000"`,
		`return bytes.hex(bytes.pack("<i", 1) .. bytes.pack("<I", 1))`:                             `"0100000001000000"`,
		`return {bytes.unpack("<i2", "\254\255")}`:                                                 `[-2,3]`,
		`return {bytes.unpack(">I2 I4 B", bytes.unhex("01 02 00:00:00-01 FF"))}`:                   `[258,1,255,8]`,
		`return {bytes.unpack("<i3>i3", bytes.unhex("18fcfffffc18"))}`:                             `[-1000,-1000,7]`,
		`return {bytes.unpack(">h", "xx\255\156", 3)}`:                                             `[-100,5]`,
		`return {bytes.unpack(">h", "xx\255\156", -2)}`:                                            `[-100,5]`,
		`return {bytes.unpack("", "abc", 4)}`:                                                      `[4]`,
		`return {bytes.unpack(">f", bytes.unhex("41c80000"))}`:                                     `[25,5]`,
		`return {bytes.unpack(">s1 z c2 xB", "\2ab" .. "cd\0" .. "ef" .. "\0\7")}`:                 `["ab","cd","ef",7,11]`,
		`return {bytes.unpack("<I8", ("\255"):rep(8))}`:                                            `[18446744073709551615,9]`,
		`return {bytes.unpack(">i8", "\127" .. ("\255"):rep(7))}`:                                  `[9223372036854775807,9]`,
		`return {bytes.unpack(">i8", "\128" .. ("\0"):rep(6) .. "\1")}`:                            `[-9223372036854775807,9]`,
		`return {bytes.unpack("<j", ("\255"):rep(8))}`:                                             `[-1,9]`,
		`local v = bytes.unpack("<I8", bytes.unhex("0102030405060708")) return {tostring(v), bytes.hex(bytes.pack(">I8", v)), bytes.hex(bytes.pack("<i8", v))}`: `["578437695752307201","0807060504030201","0102030405060708"]`,
		`return {bytes.size("<i3 I8 f d B x c10"), bytes.size("")}`:     `[35,0]`,
		`return {bytes.unhex("0g")}`:                                    `[null,"not hexadecimal"]`,
		`return {bytes.unhex("abc")}`:                                   `[null,"not hexadecimal"]`,
		`return {hash.crc16("123456789"), hash.crc16("\1\3\0\0\0\10")}`: `[19255,52677]`,
		// a payload of a LoRaWAN sensor: battery in mV, temperature in tenths, humidity in halves
		`local battery, t, h = bytes.unpack(">HhB", base64.decode("DOT/nHg=")) return {battery = battery, temperature = t / 10, humidity = h / 2}`: `{"battery":3300,"temperature":-10,"humidity":60}`,
	} {
		require.Equal(t, want, eval(t, code), code)
	}
}

func TestBytesErrors(t *testing.T) {
	for code, want := range map[string]string{
		`bytes.pack("B", 256)`:               "bad argument #2 to pack (256 does not fit 1 bytes, unsigned)",
		`bytes.pack("B", -1)`:                "bad argument #2 to pack (-1 does not fit 1 bytes, unsigned)",
		`bytes.pack("b", 128)`:               "bad argument #2 to pack (128 does not fit 1 bytes, signed)",
		`bytes.pack("b", -129)`:              "bad argument #2 to pack (-129 does not fit 1 bytes, signed)",
		`bytes.pack("i8", 2^63)`:             "does not fit 8 bytes, signed",
		`bytes.pack("I8", 2^64)`:             "a whole number expected, got 18446744073709552000",
		`bytes.pack("h", 1.5)`:               "bad argument #2 to pack (a whole number expected, got 1.5)",
		`bytes.pack("h", 0/0)`:               "a whole number expected, got nan",
		`bytes.pack("h", 1/0)`:               "a whole number expected, got inf",
		`bytes.pack("h")`:                    "bad argument #2 to pack (number expected, got no value)",
		`bytes.pack("hh", 1, {})`:            "bad argument #3 to pack (number expected, got table)",
		`bytes.pack("c2", "abc")`:            "a string of 3 bytes does not fit 2",
		`bytes.pack("s1", ("x"):rep(256))`:   "a string of 256 bytes, whose length does not fit 1",
		`bytes.pack("z", "a\0b")`:            "has no zero in it",
		`bytes.pack("y", 1)`:                 "no option 'y' in a format",
		`bytes.pack("!4i", 1)`:               "no option '!' in a format",
		`bytes.pack("c", "x")`:               "'c' in a format needs a size",
		`bytes.pack("i9", 1)`:                "a size of 9 in a format; it is between 1 and 8",
		`bytes.pack("i0", 1)`:                "a size of 0",
		`bytes.pack("c99999999999999", "x")`: "it is between 1 and 16777216",
		`bytes.unpack("<i4", "abc")`:         "bad argument #2 to unpack (too short: 3 bytes from byte 1 on, 4 are needed)",
		`bytes.unpack("<i2i2", "abc")`:       "too short: 1 bytes from byte 3 on, 2 are needed",
		`bytes.unpack("s", ("\255"):rep(8))`: "too short: 8 bytes from byte 1 on, 16 are needed",
		`bytes.unpack("z", "abc")`:           "no zero from byte 1 on",
		`bytes.unpack("b", "abc", 5)`:        "the position is outside of the string",
		`bytes.unpack("b", "abc", -4)`:       "the position is outside of the string",
		`bytes.unpack(("c0"):rep(9000), "")`: "too many results to unpack",
		`bytes.size("s")`:                    "'s' and 'z' have no fixed size",
		`bytes.unpack(nil, "")`:              "bad argument #1 to unpack (string expected, got nil)",
		`bytes.hex({})`:                      "bad argument #1 to hex (string expected, got table)",
	} {
		out := runMain(t, body(code))
		require.NotNil(t, out.Fault, code)
		require.Contains(t, out.Fault.Message, want, code)
		require.True(t, strings.HasPrefix(out.Fault.Message, "main.lua:2: "), out.Fault.Message)
	}
}

// Whatever is packed comes out again, for every size and order.
func TestBytesRoundTrip(t *testing.T) {
	m := New(Options{})
	require.Nil(t, m.Load("r", map[string][]byte{"main.lua": []byte(`return function(event)
  local d = event.data
  local packed = bytes.pack(d.format, d.value)
  local v, next = bytes.unpack(d.format, packed)
  return {v = v, next = next, size = bytes.size(d.format), again = bytes.pack(d.format, v) == packed, same = v == d.value}
end`)}))
	rapid.Check(t, func(rt *rapid.T) {
		size := rapid.IntRange(1, 8).Draw(rt, "size")
		order := rapid.SampledFrom([]string{"<", ">"}).Draw(rt, "order")
		var kind, value string
		if rapid.Bool().Draw(rt, "signed") {
			low := int64(math.MinInt64) >> (64 - 8*size)
			kind, value = "i", fmt.Sprint(rapid.Int64Range(low, -(low+1)).Draw(rt, "value"))
		} else {
			kind, value = "I", fmt.Sprint(rapid.Uint64Range(0, math.MaxUint64>>(64-8*size)).Draw(rt, "value"))
		}
		inv := testInvocation()
		inv.Event.Data = fmt.Appendf(nil, `{"format":"%s%s%d","value":%s}`, order, kind, size, value)
		out := runLoaded(m, inv, noAnswers)
		require.Nil(rt, out.Fault)
		require.JSONEq(rt, fmt.Sprintf(`{"next":%d,"size":%d,"again":true,"same":true,"v":0}`, size+1, size), strings.Replace(string(out.Result), `"v":`+value, `"v":0`, 1))
		require.Contains(rt, string(out.Result), `"v":`+value)
	})
}

func TestIntegers(t *testing.T) {
	for code, want := range map[string]string{
		`return json.decode("[9007199254740993,-9007199254740993,9223372036854775807,-9223372036854775808,18446744073709551615]")`:                                                                                           `[9007199254740993,-9007199254740993,9223372036854775807,-9223372036854775808,18446744073709551615]`,
		`return json.decode("[9007199254740992,9007199254740994,1152921504606846976,18446744073709551616,1e30]")`:                                                                                                            `[9007199254740992,9007199254740994,1152921504606846976,18446744073709552000,1e+30]`,
		`return type(json.decode("9007199254740992")) .. type(json.decode("9007199254740993")) .. type(json.decode("18446744073709551616"))`:                                                                                 `"numberuserdatanumber"`,
		`local a = json.decode("9007199254740993") return {tostring(a), a .. "", "x/" .. a, ("%s %d %5.2s|"):format(a, a, a), ("%x"):format(a)}`:                                                                             `["9007199254740993","9007199254740993","x/9007199254740993","9007199254740993 9007199254740993    90|","20000000000001"]`,
		`local a, b = json.decode("9007199254740993"), json.decode(" 9007199254740993 ") return {a == b, rawequal(a, b), ({[a] = 5})[b], a == json.integer("9007199254740993")}`:                                             `[true,true,5,true]`,
		`local a, b = json.integer("9007199254740993"), json.integer("9007199254740995") return {a == b, a < b, a <= b, a > b, a >= a, a < a}`:                                                                               `[false,true,true,false,true,false]`,
		`local a, b = json.integer("-9007199254740993"), json.integer("18446744073709551615") return {a < b, b < a, a <= a, json.integer("-9007199254740995") < a}`:                                                          `[true,false,true,true]`,
		`local a = json.integer("9007199254740993") return {a + 0 == 2^53, a - 1 < a + 5, a / 2, -a, a % 10, 1 + a == a + 1, "1" + a > 5, a * a > 1, 2 ^ (a / a), tonumber(a) == 2^53, math.floor(a) == 2^53}`:               `[true,true,4503599627370496,-9007199254740992,2,true,true,true,2,true,true]`,
		`return {json.integer("5"), json.integer(5), json.integer("-0"), json.integer("007"), json.integer("1e3") == nil, json.integer("+5") == nil, json.integer("18446744073709551616") == nil, json.integer(1.5) == nil}`: `[5,5,0,7,true,true,true,true]`,
		`return {select(2, json.integer("x"))}`:                                                                                  `["not a whole number of 64 bits"]`,
		`return getmetatable(json.integer("9007199254740993"))`:                                                                  `"integer"`,
		`return pcall(setmetatable, json.integer("9007199254740993"), {})`:                                                       `false`,
		`return table.concat({json.integer("9007199254740993"), 1}, ",") .. (("x"):gsub("x", json.integer("9007199254740993")))`: `"9007199254740993,19007199254740993"`,
		`state.set("id", json.integer("9007199254740993")) return state.get("id")`:                                               `9007199254740993`,
		`state.set("id", json.integer("9007199254740993")) return state.get("id") == json.integer("9007199254740993")`:           `true`,
		`return json.encode({id = json.integer("-9223372036854775808")})`:                                                        `"{\"id\":-9223372036854775808}"`,
		`return {bytes.hex(bytes.pack(">I8", json.integer("18446744073709551615")))}`:                                            `["ffffffffffffffff"]`,
	} {
		require.Equal(t, want, eval(t, code), code)
	}
	out := runMain(t, body(`return json.integer("9007199254740993") < 5`))
	require.Equal(t, "main.lua:2: attempt to compare userdata with number", out.Fault.Message)
	require.Contains(t, out.Fault.Hint, "tonumber(value)")
}

// Every whole number of 64 bits goes through Lua unchanged, and what a Lua number can hold is one.
func TestIntegersRoundTrip(t *testing.T) {
	m := New(Options{})
	require.Nil(t, m.Load("r", map[string][]byte{"main.lua": []byte(`return function(event) return {event.data, type(event.data)} end`)}))
	rapid.Check(t, func(rt *rapid.T) {
		text := fmt.Sprint(rapid.Int64().Draw(rt, "n"))
		if rapid.Bool().Draw(rt, "unsigned") {
			text = fmt.Sprint(rapid.Uint64().Draw(rt, "u"))
		}
		inv := testInvocation()
		inv.Event.Data = []byte(text)
		var got []json.RawMessage
		require.NoError(rt, json.Unmarshal(runLoaded(m, inv, noAnswers).Result, &got))
		require.Equal(rt, text, string(got[0]))
		var f float64
		require.NoError(rt, json.Unmarshal([]byte(text), &f))
		exact := fmt.Sprintf("%.0f", f) == text
		require.Equal(rt, map[bool]string{true: `"number"`, false: `"userdata"`}[exact], string(got[1]), text)
	})
}
