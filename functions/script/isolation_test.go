package script

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/functions"
)

// stain changes whatever a script can reach; trace looks for what another run has left. Both run in one Machine, in one program, so
// that only the event tells them apart.
const stain = `
local seen = {}
local function look(name, v) seen[#seen + 1] = name .. "=" .. tostring(v) end
local util = require "util"
return function(event)
  if event.data.stain then
    leaked = "global"
    _G.leaked2 = "global"
    string.leaked = "library"
    string.rep = nil
    string.format = function() return "mine" end
    getmetatable("").__index.leaked3 = "method"
    rawset(math, "pi", 3)
    math.randomseed(5)
    setmetatable(_G, {__index = function() return "from a metatable" end})
    pcall = nil
    util.n = 99
    state.get = function() return "mine" end
    signal.alarm = function() return "mine" end
    json.null = nil
    local mt = getmetatable(json.decode("[]"))
    mt.__index = function() return "array" end
    mt.leaked = 1
    getmetatable(log).__call = function() error("mine") end
    log.info = nil
    event.params.room, event.leaked = "leaked", true
    co = coroutine.wrap(function() while true do coroutine.yield(1) end end)
    co()
    return "stained"
  end
  look("leaked", leaked) look("leaked2", leaked2) look("string", string.leaked) look("method", ("x").leaked3)
  look("rep", type(string.rep)) look("format", string.format("%d", 1)) look("pi", math.pi > 3) look("random", math.random(1e6)) look("pcall", type(pcall))
  look("util", util.n) look("state", state.get("x")) look("alarm", type(signal.alarm("x", 1, {on = 5}))) look("null", type(json.null))
  look("array", json.decode("[]").x) look("mt", getmetatable(json.decode("[]")).leaked) look("room", event.params.room) look("event", event.leaked)
  look("co", co) look("seen", #seen)
  log("ok")
  return table.concat(seen, " ")
end`

func TestNothingCarriesOver(t *testing.T) {
	files := map[string][]byte{"main.lua": []byte(stain), "lib/util.lua": []byte("return {n = 1}")}
	look := func(m *Machine) string {
		inv := testInvocation()
		out := runLoaded(m, inv, noAnswers)
		require.Nil(t, out.Fault)
		require.Len(t, out.Logs, 1)
		return string(out.Result)
	}
	fresh := New(Options{})
	require.Nil(t, fresh.Load("r", files))
	want := look(fresh)
	require.Contains(t, want, "util=1")
	require.Contains(t, want, "leaked=nil")

	used := New(Options{})
	require.Nil(t, used.Load("r", files))
	for range 3 {
		inv := testInvocation()
		inv.Event.Data = []byte(`{"stain":true}`)
		out := runLoaded(used, inv, noAnswers)
		require.Nil(t, out.Fault)
		require.Equal(t, `"stained"`, string(out.Result))
		require.Equal(t, want, look(used))
	}
}

func TestSeedMakesRandomNumbersRepeat(t *testing.T) {
	m := New(Options{})
	code := body(`local t = {} for i = 1, 5 do t[i] = math.random(100) end return t`)
	inv := testInvocation()
	first := runWith(t, m, inv, code, noAnswers).Result
	require.Equal(t, first, runWith(t, m, inv, code, noAnswers).Result)
	inv.Seed++
	require.NotEqual(t, first, runWith(t, m, inv, code, noAnswers).Result)
}

func TestWhatIsNotThere(t *testing.T) {
	for _, name := range []string{"dofile", "loadfile", "load", "loadstring", "module", "_printregs", "collectgarbage", "newproxy", "getfenv", "setfenv", "gcinfo",
		"io", "debug", "package", "channel", "os.exit", "os.execute", "os.getenv", "os.remove", "os.rename", "os.tmpname", "os.setlocale", "os.setenv", "string.dump",
		"_GOPHER_LUA_VERSION"} {
		require.Equal(t, `"nil"`, eval(t, "return type("+name+")"), name)
		require.Equal(t, `"nil"`, eval(t, "local _ = _G return type("+name+")"), name)
	}
}

func TestGlobalsWithAndWithoutG(t *testing.T) {
	// Every global exists whether or not the bundle mentions _G, and _G names the same values.
	m := New(Options{})
	for name := range m.libs {
		require.NotEqual(t, `"nil"`, eval(t, "return type("+name+")"), name)
		require.Equal(t, "true", eval(t, fmt.Sprintf("return _G[%q] == %s", name, name)), name)
	}
	require.Equal(t, `["table","5.1"]`, eval(t, `return {type(signal), _VERSION:match("%d.%d")}`))
}

func TestModules(t *testing.T) {
	m := New(Options{})
	files := map[string][]byte{
		"main.lua":          []byte(`local a, b = require "lib.util", require "util" local c = require("deep.down") return function() return {a == b, a.double(4), c} end`),
		"lib/util.lua":      []byte(`local name = ... return {double = function(x) return x * 2 end, name = name}`),
		"lib/deep/down.lua": []byte(`return require("util").name`),
		"tests/x.lua":       []byte(`this is not Lua`),
	}
	require.Nil(t, m.Load("r", files))
	out := runLoaded(m, testInvocation(), noAnswers)
	require.Nil(t, out.Fault)
	require.Equal(t, `[true,8,"util"]`, string(out.Result))

	for main, want := range map[string]string{
		`require "socket" return function() end`:      "main.lua:1: no module 'socket': a function can require the files of its own lib/ only, and there is no lib/socket.lua",
		`require "../main" return function() end`:     "no module",
		`require "loop" return function() end`:        "lib/loop.lua:1: lib/loop.lua requires itself",
		`return function() require("broken").x() end`: "lib/broken.lua:2: attempt to index a nil value with 'y'",
	} {
		require.Nil(t, m.Load("r", map[string][]byte{"main.lua": []byte(main), "lib/loop.lua": []byte(`return require "loop"`),
			"lib/broken.lua": []byte("return {x = function()\nlocal n = nil; return n.y end}")}))
		out := runLoaded(m, testInvocation(), noAnswers)
		require.NotNil(t, out.Fault, main)
		require.Contains(t, out.Fault.Message, want)
	}
}

func TestFaults(t *testing.T) {
	for _, test := range []struct{ main, message, trace string }{
		{"return function(event)\n  local t = event.nothing\n  return t.x\nend", "main.lua:3: attempt to index a nil value with 'x'", "main.lua:3: in the function of line 1"},
		{"local function average(t)\n  return t.sum / t.n\nend\nreturn function()\n  local x = average({sum = 1})\n  return x\nend",
			"main.lua:2: attempt to perform arithmetic on a nil value (div of number and nil)", "main.lua:2: in function 'average'|main.lua:5: in the function of line 4"},
		{"return function() nothing() end", "main.lua:1: attempt to call a value that is no function", "main.lua:1: in the function of line 1"},
		{"return function() error({code = 5}) end", `main.lua:1: error {"code":5}`, "main.lua:1: in the function of line 1"},
		{"return function() error(setmetatable({}, {__tostring = function() return 'mine' end})) end", `main.lua:1: mine`, "main.lua:1: in the function of line 1"},
		{"return function() error() end", `main.lua:1: error with a value of type nil`, "main.lua:1: in the function of line 1"},
		{"return function() error('a\\nb') end", `main.lua:1: a b`, "main.lua:1: in the function of line 1"},
		{"return function() return nil .. 'x' end", `main.lua:1: attempt to concatenate a nil value`, "main.lua:1: in the function of line 1"},
		{"return function() return {} < {} end", `main.lua:1: attempt to compare table with table`, "main.lua:1: in the function of line 1"},
		{"return function() coroutine.wrap(function() error('in a coroutine') end)() end", `main.lua:1: in a coroutine`, ""},
		{"error('at the top')", `main.lua:1: at the top`, "main.lua:1: in the file"},
		{"return 5", "main.lua:1: main.lua must return a function, it returned a number", ""},
		{"local x = 1", "main.lua:1: main.lua must return a function, it returned nil", ""},
		{"", "main.lua:1: main.lua must return a function, it returned nil", ""},
	} {
		out := runMain(t, test.main)
		require.NotNil(t, out.Fault, test.main)
		require.Equal(t, functions.FaultError, out.Fault.Kind)
		message := strings.Replace(out.Fault.Message, "error with a nil", "nil", 1)
		require.Equal(t, test.message, message, test.main)
		if test.trace != "" {
			require.Equal(t, test.trace, strings.Join(out.Fault.Traceback, "|"), test.main)
		}
	}
}

func TestSyntaxErrors(t *testing.T) {
	m := New(Options{})
	for source, want := range map[string]string{
		"return function()\n  if x then\nend\n":   "main.lua:3: the file ends, but 'function' of line 1 is not closed",
		"return function()\n  local x = = 1\nend": "main.lua:2: syntax error near '='",
		"x = 'abc":                         "main.lua:1: unterminated string",
		"x = [[abc\n\n":                    "main.lua:1: unterminated multiline string at the end of the file",
		"local t = {\n1, 2\n":              "main.lua:2: the file ends, but '{' of line 1 is not closed",
		"goto nowhere":                     "no visible label 'nowhere'",
		"break":                            "main.lua:1: no loop to break",
		"return function() return ... end": "main.lua:1: cannot use '...' outside a vararg function",
		"local x = 5 ~ 3":                  "main.lua:1: invalid '~' token near '~'",
		"f() = 1":                          "main.lua:1: syntax error near '='",
		"x = 1 + ":                         "main.lua:1: the file ends in the middle of a statement",
		"\x1bLua":                          "main.lua:1: compiled Lua is not accepted, only source",
		"local a = 1\nlocal b = a b\n":     "main.lua:2: ",
		"--[[ open comment":                "main.lua:1: ",
	} {
		f := m.Load("bad", map[string][]byte{"main.lua": []byte(source)})
		require.NotNil(t, f, source)
		require.Equal(t, functions.FaultError, f.Kind)
		require.Contains(t, f.Message, want, source)
		require.False(t, m.Loaded("bad"))
	}
	f := m.Load("bad", map[string][]byte{"main.lua": []byte("x ="), "lib/a.lua": []byte("\ny = ]"), "lib/b.lua": []byte("return 1")})
	require.Equal(t, "main.lua:1: the file ends in the middle of a statement", f.Message)
	require.Equal(t, []string{"lib/a.lua:2: syntax error near ']'"}, f.Traceback)
	f = m.Load("bad", map[string][]byte{"function.yaml": nil})
	require.Contains(t, f.Message, "no main.lua")
	require.Nil(t, m.Load("ok", map[string][]byte{"main.lua": []byte("\xef\xbb\xbf#!/usr/bin/lua\nreturn function() end")}))
}

func TestBundlesAreKeptByDigest(t *testing.T) {
	m := New(Options{MaxBundles: 2})
	source := map[string][]byte{"main.lua": []byte("return function() end")}
	for _, d := range []string{"a", "b"} {
		require.Nil(t, m.Load(d, source))
	}
	require.True(t, m.Loaded("a"))
	require.Nil(t, m.Load("c", source))
	require.True(t, m.Loaded("a"))
	require.False(t, m.Loaded("b"))
	require.True(t, m.Loaded("c"))
	inv := testInvocation()
	inv.Revision = "b"
	require.Contains(t, runLoaded(m, inv, noAnswers).Fault.Message, "is not loaded")
}

func TestUsage(t *testing.T) {
	out := runMain(t, body(`local t = {} for i = 1, 200000 do t[i % 1000 + 1] = {i} end`))
	require.Nil(t, out.Fault)
	require.Positive(t, out.Usage.Wall)
	require.Positive(t, out.Usage.CPU)
}

// Loops that begin with a jump, and gotos back to one.
func TestJumpsToJumps(t *testing.T) {
	for code, want := range map[string]string{
		`local n = 0 ::top:: n = n + 1 if n < 3 then goto top end return n`:                                                           `3`,
		`local n = 0 goto middle ::top:: goto last ::middle:: n = n + 1 if n < 3 then goto top end ::last:: return n`:                 `1`,
		`local s = "" for i = 1, 3 do for j = 1, 3 do if j == 2 then goto continue end s = s .. i .. j ::continue:: end end return s`: `"111321233133"`,
		`local n = 0 for k in pairs{1, 2, 3} do goto continue n = n + 100 ::continue:: n = n + 1 end return n`:                        `3`,
		`local n = 0 while n < 3 do goto add ::add:: n = n + 1 end return n`:                                                          `3`,
		`local n = 0 repeat goto add ::add:: n = n + 1 until n > 2 return n`:                                                          `3`,
		`local n = 0 ::a:: do goto b end ::b:: n = n + 1 if n < 3 then goto a end return n`:                                           `3`,
		`local n = 0 ::a:: ::b:: goto c ::c:: n = n + 1 if n < 3 then goto b end if n < 5 then goto a end return n`:                   `5`,
		`do goto e end ::e:: return 1`: `1`,
	} {
		require.Equal(t, want, eval(t, code), code)
	}
}
