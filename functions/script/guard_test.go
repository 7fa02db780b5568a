package script

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/functions"
)

// Large strings are counted when they are made: a hundred of them would else be there before the guard looks, and take the worker's process along.
func TestLargeStringsCountAtOnce(t *testing.T) {
	for _, made := range []string{`s .. i`, `("y"):rep(1000000)`, `s:upper()`, `s:gsub("x", "y", 3)`, `table.concat({s, i})`, `base64.encode(s)`, `("%s%d"):format(s, i)`} {
		out := runMain(t, "return function()\n"+`local t, s = {}, ("x"):rep(1000000) for i = 1, 200 do t[i] = `+made+` end return #t`+"\nend")
		require.NotNil(t, out.Fault, made)
		require.Equal(t, functions.FaultMemory, out.Fault.Kind, made)
		require.Contains(t, out.Fault.Message, "limits.memory: ", made)
		require.Less(t, out.Usage.Memory, int64(24<<20), "%s: %s", made, out.Fault.Message)
	}
	out := runMain(t, "return function()\n"+`local s for i = 1, 200 do s = ("x"):rep(1000000) .. i end return #s`+"\nend")
	require.Nil(t, out.Fault, "what is garbage does not count")
}

func TestWhatATableLogsIsCutAndNotLeftOut(t *testing.T) {
	out := runMain(t, "return function()\n"+`log({a = ("x"):rep(5000)})`+"\nend")
	require.Len(t, out.Logs, 1)
	require.True(t, strings.HasPrefix(out.Logs[0].Text, `{"a":"xxxx`), out.Logs[0].Text)
}

func TestTheMetatableOfStringsIsFixed(t *testing.T) {
	require.Equal(t, `"true"`, eval(t, `return tostring(getmetatable("").__index == string)`))
	require.Equal(t, `"false main.lua:2: the metatable of strings cannot be changed; change the table string, or use a function"`,
		eval(t, `local ok, why = pcall(function() getmetatable("").__add = 1 end) return tostring(ok) .. " " .. why`))
	require.Equal(t, `"false main.lua:2: the metatable of strings cannot be changed; change the table string, or use a function"`,
		eval(t, `local ok, why = pcall(function() getmetatable("").__index = 1 end) return tostring(ok) .. " " .. why`))
}

func TestGlobalsHaveNoneOfOurOwn(t *testing.T) {
	require.Equal(t, `0`, eval(t, `local n = 0 for k in pairs(_G) do if k:find("(", 1, true) then n = n + 1 end end return n`))
}

func TestWordsOfErrors(t *testing.T) {
	for code, want := range map[string]string{
		`local f = coroutine.wrap(function() end) f() f()`: "main.lua:2: cannot resume dead coroutine",
		`("x"):find("%")`:                                 "main.lua:2: malformed pattern (ends with '%')",
		`state.keys(("x"):rep(300))`:                      "main.lua:2: bad argument #1 to keys (a name has at most 200 bytes)",
		`shared.incr("n", 1e308) shared.incr("n", 1e308)`: "main.lua:2: shared: the sum is infinite, which JSON does not have",
		`publish("perigee/x", 1)`:                         "main.lua:2: functions may never publish under perigee/, which is the gateway's own: 'perigee/x'",
	} {
		out := runMain(t, "return function()\n"+code+"\nend")
		require.NotNil(t, out.Fault, code)
		require.Equal(t, want, out.Fault.Message, code)
	}
}
