package script

import (
	"reflect"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/functions"
)

// loadBoth loads two programs into one Machine, which runs them one after the other.
func loadBoth(t *testing.T, first, second string) (*Machine, func(digest string) *functions.Outcome) {
	t.Helper()
	m := New(Options{})
	for digest, main := range map[string]string{"first": first, "second": second} {
		require.Nil(t, m.Load(digest, map[string][]byte{"main.lua": []byte(main)}))
	}
	return m, func(digest string) *functions.Outcome {
		inv := testInvocation()
		inv.Revision = digest
		inv.Limits.Timeout = time.Second
		return runLoaded(m, inv, noAnswers)
	}
}

func TestStateIsKeptOnlyWhenARunEndsWell(t *testing.T) {
	for main, kept := range map[string]bool{
		`return function() return {1, "a"} end`:                                    true,
		`return function() return pcall(error, "caught") end`:                      true,
		`return function() error("x") end`:                                         false,
		`return function() retry("later") end`:                                     false,
		`return function() while true do end end`:                                  false,
		`return function() coroutine.wrap(function() coroutine.yield() end)() end`: false,
		`local function deep(n) if n > 0 then return 1 + deep(n - 1) end return 0 end return function() return deep(900) end`: false,
		`return function() publish("secret/x", 1) end`: false,
	} {
		m, run := loadBoth(t, main, body(`return 1`))
		run("first")
		require.Equal(t, kept, m.spare != nil, main)
		require.Equal(t, "1", string(run("second").Result), main)
		require.NotNil(t, m.spare)
	}
}

// What a run left in registers is gone before the next one begins.
func TestRegistersAreWiped(t *testing.T) {
	m, run := loadBoth(t, body(`local a, b, c = "secret", {"secret"}, function() return a end return {a, b, c ~= nil}`), body(`return 1`))
	require.Nil(t, run("first").Fault)
	require.NotNil(t, m.spare)
	registers := reflect.ValueOf(m.spare).Elem().FieldByName("reg").Elem().FieldByName("array")
	require.Equal(t, registryStart, registers.Len())
	for i := range registers.Len() {
		require.True(t, registers.Index(i).IsNil(), "register %d", i)
	}
}

func TestFieldsThatAreNotNamedAreNotThere(t *testing.T) {
	for main, want := range map[string]string{
		// the methods of strings are those of the table string, whatever of it the bundle names
		`string.shout = function(s) return s:upper() .. "!" end return ("a"):shout() .. ("b"):rep(2)`: `"A!bb"`,
		`string.rep = nil return pcall(function() return ("b"):rep(2) end)`:                           `false`,
		`string.rep = function() return "mine" end return ("b"):rep(2) .. ("C"):lower()`:              `"minec"`,
		`return getmetatable("").__index == string and string.rep == ("").rep`:                        `true`,
		`return getmetatable("").__index.format("%d", 1) .. string.format("%d", 2)`:                   `"12"`,
		`local s = string return s.rep("a", 3)`:                                                       `"aaa"`,
		`return math.max(1, 2) + math.floor(math.pi)`:                                                 `5`,
		`local n = 0 for _ in pairs(math) do n = n + 1 end return n > 20 and math.pi > 3`:             `true`,
		`return (math["max"])(4, 3)`:                                                                  `4`,
		`local k = "max" return math[k](4, 3)`:                                                        `4`,
		`return rawget(math, "min")(4, 3)`:                                                            `3`,
		`log("called") log.info("named") return math.nothing == nil`:                                  `true`,
	} {
		require.Equal(t, want, eval(t, main), main)
	}
}

// What a run left is garbage as soon as it is over: it does not count as memory of the next one, which may be another function's.
func TestGarbageOfARunIsNotTheNextOnes(t *testing.T) {
	for name, first := range map[string]string{
		"globals":      `big = {} for i = 1, 200 do big[i] = ("x"):rep(60000) end return 1`,
		"deep globals": `local function deep(n) if n > 0 then return 1 + deep(n - 1) end big = {} for i = 1, 200 do big[i] = ("x"):rep(60000) end return 0 end return deep(60)`,
		"upvalues":     `local big = {} local function fill(n) if n > 0 then return 1 + fill(n - 1) end for i = 1, 200 do big[i] = ("x"):rep(60000) end return 0 end return fill(5)`,
		"raised":       `big = {} for i = 1, 200 do big[i] = ("x"):rep(60000) end error("x")`,
		"coroutine":    `big = {} for i = 1, 200 do big[i] = ("x"):rep(60000) end coroutine.wrap(function() coroutine.yield(big) end)() return 1`,
	} {
		t.Run(name, func(t *testing.T) {
			m, run := loadBoth(t, body(first), body(`local t = {} for i = 1, 150 do t[i] = ("y"):rep(60000) end local s = os.clock() while os.clock() - s < 0.03 do end return #t`))
			run("first")
			require.Equal(t, name != "raised" && name != "coroutine", m.spare != nil)
			out := run("second")
			require.Nil(t, out.Fault)
			require.Equal(t, "150", string(out.Result))
		})
	}
}

// Only the fields of event and ctx that a bundle names are made; no bundle can tell.
func TestArgumentsAreAsIfTheyWereWhole(t *testing.T) {
	lib := `return {kind = function(e) return e.type end, count = function(event) local n = 0 for _ in pairs(event) do n = n + 1 end return n end, topic = function(event) return event.topic end}`
	for _, code := range []string{
		`return {event.data.temperature, event.params.room, ctx.env.on}`,
		`return event["topic"]`,
		`local k = "topic" return event[k]`,
		`return event`,
		`return {ctx}`,
		`local e = event return {e.id, e.source, e.retained, event.attempt}`,
		`local n = 0 for k in pairs(event) do n = n + 1 end return n`,
		`return require("util").kind(event)`,
		`return require("util").count(event)`,
		`return require("util").topic(event) .. event.id`,
		`return (function(event) return event.raw end)(event)`,
		`return (function(event) return event.nothing end)({nothing = 5})`,
		`local function f(ctx) return ctx.now end return f(ctx)`,
		`event.topic = "mine" return event.topic .. event.source`,
		`event.mine = 5 return {event.mine, rawget(event, "topic")}`,
		`event = {topic = "mine"} return event.topic`,
		`do local event = {key = "inner"} key = event.key end return {key, event.key}`,
		`return {event.time, event.time_ok, ctx.now_ok, ctx.gateway, ctx.revision, ctx.name}`,
		`return next(event) ~= nil`,
		`return type(event) .. type(ctx)`,
		`return 5`,
	} {
		var results []string
		for _, main := range []string{
			"return function(event, ctx)\n" + code + "\nend",
			"local f = function(event, ctx)\n" + code + "\nend return f",
			"return function(...)\nlocal event, ctx = ... " + code + "\nend",
		} {
			m := New(Options{})
			require.Nil(t, m.Load("r", map[string][]byte{"main.lua": []byte(main), "lib/util.lua": []byte(lib)}))
			out := runLoaded(m, testInvocation(), noAnswers)
			require.Nil(t, out.Fault, code)
			results = append(results, string(out.Result))
		}
		require.Equal(t, results[1], results[0], code)
		require.Equal(t, results[2], results[0], code)
	}
	require.Equal(t, `[0,"nil"]`, string(runMain(t, `return function(event) return {select("#"), type(ctx)} end`).Result))
	require.Equal(t, `"nil"`, string(runMain(t, `return function() return type(event) end`).Result))
	require.Equal(t, `{"on":30,"off":28}`, string(runMain(t, `return function(event, event) return event.env end`).Result))
	require.Equal(t, `[2,"e1",42]`, string(runMain(t, `return function(...) local e = ... return {select("#", ...), e.id, 42} end`).Result))
}
