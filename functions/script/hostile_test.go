package script

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/functions"
)

// hostileEnv makes this test binary run one script and print its outcome, as a worker would, so that a script which kills its process does
// not kill the tests.
const hostileEnv = "PERIGEE_TEST_HOSTILE"

// hostileTimeout is the script's time: short for those that are to run into it, and long for all others, since the machine may be slow.
const hostileTimeout = "PERIGEE_TEST_HOSTILE_TIMEOUT"

func TestMain(m *testing.M) {
	if os.Getenv(hostileEnv) != "" {
		debug.SetMaxStack(16 << 20)
		os.Exit(hostileChild())
	}
	if os.Getenv(misuseEnv) != "" {
		debug.SetMaxStack(16 << 20)
		os.Exit(misuseChild())
	}
	os.Exit(m.Run())
}

func hostileChild() int {
	source, err := os.ReadFile(os.Getenv(hostileEnv))
	if err != nil {
		return 3
	}
	m := New(Options{})
	inv := testInvocation()
	if d, err := time.ParseDuration(os.Getenv(hostileTimeout)); err == nil {
		inv.Limits.Timeout = d
	}
	var out *functions.Outcome
	if f := m.Load("r", map[string][]byte{"main.lua": source}); f != nil {
		out = &functions.Outcome{Fault: f}
	} else {
		out = runChild(m, inv)
	}
	if err := json.NewEncoder(os.Stdout).Encode(out); err != nil {
		return 4
	}
	return 0
}

// hostile runs a script in a child process, and fails if that dies.
func hostile(t *testing.T, main string, limit time.Duration) (out functions.Outcome, took time.Duration) {
	t.Helper()
	file := t.TempDir() + "/main.lua"
	require.NoError(t, os.WriteFile(file, []byte(main), 0o600))
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), hostileEnv+"="+file, hostileTimeout+"="+limit.String(),
		"GORACE=atexit_sleep_ms=0") // the race detector would wait a second at the end of each
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	text, err := cmd.Output()
	if err != nil {
		t.Fatalf("the process died: %v\n%.600s", err, stderr.String())
	}
	require.NoError(t, json.Unmarshal(text, &out))
	return out, out.Usage.Wall
}

// stopGrace is how long after its deadline a script may go on.
const stopGrace = 300 * time.Millisecond

// The scripts below ran for long, or killed the process, with the library's own functions.
func TestHostileOneLiners(t *testing.T) {
	tests := []struct {
		name, body string
		kinds      []functions.FaultKind
	}{
		{"endless loop", `while true do end`, timeout},
		{"endless loop in pcall", `while true do pcall(function() while true do end end) end`, timeout},
		{"endless loop in xpcall's handler", `while true do xpcall(error, function() while true do end end) end`, timeout},
		{"endless coroutines", `while true do pcall(coroutine.wrap(function() while true do end end)) end`, timeout},
		{"pattern, exponential", `return (("a"):rep(40)):match(("a?"):rep(40) .. ("a"):rep(40))`, timeout},
		{"pattern, stars", `return (("a"):rep(100000)):match(("a*"):rep(30) .. "b")`, timeout},
		{"pattern, shortest", `return (("a"):rep(100000)):find(("a-"):rep(30) .. "b")`, timeout},
		{"pattern, gmatch", `for _ in (("a"):rep(100000)):gmatch(("a*"):rep(20) .. "b") do end`, timeout},
		{"pattern, gsub", `return (("a"):rep(100000)):gsub(("a*"):rep(20) .. "b", "")`, timeout},
		{"pattern, find that never does", `return (("a"):rep(1e6)):find(".*.*.*b")`, timeout},
		{"pattern, balanced", `return (("("):rep(1e6)):gsub("%b()", "")`, timeout},
		{"pattern, plain find", `local s, n = ("a"):rep(2e6), ("a"):rep(1e6) .. "b" while true do s:find(n, 1, true) end`, timeout},
		{"pattern, open brackets", `return ("a"):find(("("):rep(3e6))`, raised},
		{"pattern, many questions", `return ("a"):rep(1e5):find(("a?"):rep(1e5))`, raised},
		{"gsub that grows", `local s = "x" for i = 1, 40 do s = s:gsub("x", "xx") end return #s`, memoryOrTimeout},
		{"gsub of 100 kB", `return #(("x"):rep(1e5):gsub("x", "yy"))`, nil},
		{"rep", `return ("x"):rep(1e10)`, memory},
		{"rep, huge", `return ("x"):rep(1e300)`, memory},
		{"rep, repeated", `local t = {} for i = 1, 1e9 do t[i] = ("x"):rep(1e6) end`, memoryOrTimeout},
		{"doubling", `local s = "x" while true do s = s .. s end`, memoryOrTimeout},
		{"concat of big strings", `local s = ("x"):rep(8e6) local t = {} for i = 1, 1000 do t[i] = s end return #table.concat(t)`, memory},
		{"concat, separators", `return table.concat({}, ("x"):rep(1e6), 1, 1e300)`, raised},
		{"format width", `return ("%999999d"):format(1)`, raised},
		{"format, repeated", `local s = ("%99d"):rep(1e5) return #s:format(unpack({1}))`, raised},
		{"format of big strings", `local s = ("x"):rep(8e6) return ("%s%s%s%s"):format(s, s, s, s)`, memory},
		{"sparse table", `local t = {} t[67108862] = 1 return t[67108862]`, nil},
		{"sparse tables", `local a = {} for i = 1, 1e9 do local t = {} t[1048574] = 1 a[i] = t end`, memoryOrTimeout},
		{"growing table", `local t = {} for i = 1, 1e12 do t[i] = i end`, memoryOrTimeout},
		{"many tables", `local t = {} while true do t = {t} end`, memoryOrTimeout},
		{"string keys", `local t = {} for i = 1, 1e12 do t["k" .. i] = true end`, memoryOrTimeout},
		{"garbage", `local n = 0 for i = 1, 2e5 do local t = {i, i} n = n + #t end return n`, nil},
		{"unpack, huge", `return unpack({}, 1, 1e8)`, raised},
		{"unpack, overflow", `return unpack({}, -1e300, 1e300)`, raised},
		{"byte of a long string", `return (("x"):rep(1e6)):byte(1, -1)`, raised},
		{"recursion", `local function f() return 1 + f() end return f()`, raised},
		{"recursion by pcall", `local function f() return pcall(f), 1 end return f()`, nil},
		{"recursion by a metamethod", `local t = setmetatable({}, {}) getmetatable(t).__index = function(t, k) return t[k + 1] end return t[1]`, raised},
		{"recursion by tostring", `local t = setmetatable({}, {__tostring = function(t) return tostring(t) .. "" end}) return tostring(t)`, raised},
		{"recursion by gsub", `local function f() return (("x"):gsub("x", f)) end return f()`, raised},
		{"recursion by sort", `local function f() table.sort({2, 1}, f) return true end return f()`, raised},
		{"recursion by concat", `local t t = setmetatable({}, {__concat = function(a, b) return t .. b .. "" end}) return t .. "x"`, raised},
		{"tail calls", `local function f() return f() end return f()`, timeout},
		{"error after tail calls", `local function f(n) if n == 0 then error("x") end return f(n - 1) end return f(1e5)`, raised},
		{"pcall after tail calls", `local function f(n) if n == 0 then error("x") end return f(n - 1) end for i = 1, 1e9 do pcall(f, 1e4) end`, timeout},
		{"nested coroutines", `local function f(n) return coroutine.wrap(function() return f(n + 1) end)() end return f(1)`, raised},
		{"nested coroutines, each deep", `local function deep(n, f) if n == 0 then return f() end local t = setmetatable({}, {__index = function() return deep(n - 1, f) end}) return t.x, 1 end
			local function f() return coroutine.wrap(function() return deep(900, f) end)(), 1 end return f()`, raised},
		{"deep coroutine in a deep stack", `local function deep(n, f) return setmetatable({}, {__index = function(_, n) if n == 0 then return f() end return deep(n, f)[n - 1] + 1 end})[n] end
			return deep(1200, function() return coroutine.wrap(function() return deep(1200, function() return pcall(function() local function g() return 1 + g() end return g() end) and 1 or 2 end) end)() end)`, append(raised, "")},
		{"deep pcall in a coroutine in a deep stack", `local function p() return pcall(p), 1 end local function f() return coroutine.wrap(p)() end
			local t = setmetatable({}, {}) getmetatable(t).__index = function(t, k) if k == 1900 then return f() end return t[k + 1] end return t[1] and 1`, append(raised, "")},
		{"many coroutines", `local t = {} for i = 1, 1e9 do t[i] = coroutine.create(function() end) end`, append(memoryOrTimeout, raised...)},
		{"sort with a bad order", `local t = {} for i = 1, 1e5 do t[i] = i end table.sort(t, function() return true end) while true do table.sort(t) end`, timeout},
		{"long result", `return ("x"):rep(1e6)`, badOutput},
		{"result that holds itself", `local t = {} t.t = t return t`, badOutput},
		{"long error", `error(("x"):rep(5e6))`, raised},
		{"error with a table that holds itself", `local t = {} t.t = t error(t)`, raised},
		{"error in __tostring", `error(setmetatable({}, {__tostring = function() error("again") end}))`, raised},
		{"endless __tostring", `error(setmetatable({}, {__tostring = function() while true do end end}))`, append(timeout, raised...)},
		{"endless log", `while true do log(("x"):rep(1e6)) end`, badOutput},
		{"endless effects", `while true do publish("alerts/x", "y") end`, badOutput},
		{"endless state", `for i = 1, 1e9 do state.set("k", ("x"):rep(1000)) end`, timeout},
		{"endless reads", `for i = 1, 1e9 do state.get("k" .. i) end`, badOutput},
		{"json, deep", `return json.decode(("["):rep(1e6))`, nil},
		{"json, long", `local s = "[" .. ("{},"):rep(1e6) .. "1]" return json.decode(s) and 1`, append(memoryOrTimeout, "")},
		{"json, wide encode", `local t = {} for i = 1, 1e5 do t[i] = ("x"):rep(100) end local u = {} for i = 1, 100 do u[i] = t end return #json.encode(u)`, append(memoryOrTimeout, raised...)},
		{"iterate while growing", `local t = {1} for k in pairs(t) do t[#t + 1] = 1 end`, append(memoryOrTimeout, "")},
		{"json, tables that hold each other", `local t = {} for i = 1, 60 do t = {t, t, t, t} end return #json.encode(t)`, append(memoryOrTimeout, raised...)},
		{"json, decoded again and again", `local s = "[" .. ("1,"):rep(1e6) .. "1]" while true do json.decode(s) end`, memoryOrTimeout},
		{"hash of long strings", `local s = ("x"):rep(8e6) while true do hash.sha256(s) hash.crc16(s) end`, timeout},
		{"base64 of long strings", `local s = ("x"):rep(4e6) while true do base64.decode(base64.encode(s)) end`, memoryOrTimeout},
		{"digits", `local s = ("9"):rep(4e6) while true do tonumber(s) tonumber(s, 16) json.integer(s) end`, timeout},
		{"bytes.pack of many strings", `local t = {} for i = 1, 50 do t[i] = "" end return #bytes.pack(("c16777216"):rep(50), unpack(t))`, memory},
		{"bytes.unpack of nothing", `return bytes.unpack(("c0"):rep(1e5), "")`, raised},
		{"os.date of a long format", `return #os.date(("%c"):rep(2e6))`, memory},
		{"foreach without end", `table.foreach({1}, function() while true do end end)`, timeout},
		{"utf8 of long strings", `local s = ("é"):rep(2e6) while true do utf8.len(s) utf8.offset(s, -1e6) for _ in utf8.codes(s) do end end`, memoryOrTimeout},
		{"yield from everywhere", `local w w = coroutine.wrap(function() while true do pcall(coroutine.yield) pcall(table.sort, {2, 1}, coroutine.yield) end end) while true do w() end`, timeout},
		{"coroutines that resume each other", `local a, b a = coroutine.create(function() coroutine.resume(b) end) b = coroutine.create(function() coroutine.resume(a) end) for i = 1, 1e9 do coroutine.resume(a) end`, timeout},
		{"error objects within error objects", `local function f(n) local ok, e = pcall(error, {n}) error({e, f(n + 1)}) end f(1)`, raised},
		{"metatable of itself", `local t = {} setmetatable(t, t) t.__index = t return t.x`, append(timeout, raised...)},
		{"metatables in a circle", `local a, b = {}, {} setmetatable(a, {__index = b}) setmetatable(b, {__index = a}) return a.x`, append(timeout, raised...)},
		{"newindex in a circle", `local a, b = {}, {} setmetatable(a, {__newindex = b}) setmetatable(b, {__newindex = a}) a.x = 1`, append(timeout, raised...)},
		{"call in a circle", `local t = {} setmetatable(t, {__call = t}) t()`, append(timeout, raised...)},
		{"goto without end", `::again:: goto again`, timeout},
		{"concat in one instruction", `local s = ("x"):rep(4e6) local t = {} for i = 1, 50 do t[i] = s .. s .. s .. s .. s .. s .. s .. s .. i end`, memoryOrTimeout},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			limit := 30 * time.Second
			if slices.Contains(test.kinds, functions.FaultTimeout) {
				limit = 300 * time.Millisecond
			}
			out, took := hostile(t, "return function(event, ctx)\n"+test.body+"\nend", limit)
			for try := 0; took > limit+stopGrace && try < 3; try++ { // the machine may have been busy with something else
				out, took = hostile(t, "return function(event, ctx)\n"+test.body+"\nend", limit)
			}
			require.LessOrEqual(t, took, limit+stopGrace, "how soon it is stopped")
			kind := functions.FaultKind("")
			if out.Fault != nil {
				kind = out.Fault.Kind
				require.Less(t, len(out.Fault.Text()), 4000)
				require.LessOrEqual(t, len(out.Fault.Traceback), 10)
				require.NotContains(t, out.Fault.Text(), "internal error")
			}
			if test.kinds == nil {
				require.Nil(t, out.Fault)
			} else {
				require.Contains(t, test.kinds, kind, "%+v", out.Fault)
			}
			t.Logf("%v %v", took.Round(time.Millisecond), out.Fault)
		})
	}
}

var (
	timeout         = []functions.FaultKind{functions.FaultTimeout}
	memory          = []functions.FaultKind{functions.FaultMemory}
	memoryOrTimeout = []functions.FaultKind{functions.FaultMemory, functions.FaultTimeout}
	raised          = []functions.FaultKind{functions.FaultError}
	badOutput       = []functions.FaultKind{functions.FaultBadOutput}
)

// Sources that overflowed the stack of the parser or the compiler.
func TestHostileSources(t *testing.T) {
	n := 10000
	for name, source := range map[string]string{
		"tables":      "return " + strings.Repeat("{", n) + strings.Repeat("}", n),
		"not":         "return " + strings.Repeat("not ", n) + "1",
		"minus":       "return " + strings.Repeat("- ", n) + "1",
		"parentheses": "return " + strings.Repeat("(", n) + "1" + strings.Repeat(")", n),
		"concat":      "return " + strings.Repeat("'a'..", n) + "'a'",
		"power":       "return " + strings.Repeat("1^", n) + "1",
		"calls":       "f" + strings.Repeat("()", n),
		"sum":         "return " + strings.Repeat("1+", n) + "1",
		"and":         "return " + strings.Repeat("a and ", n) + "1",
		"fields":      "return a" + strings.Repeat(".a", n),
		"functions":   strings.Repeat("return function() ", 3000) + strings.Repeat(" end", 3000),
		"blocks":      strings.Repeat("do ", n) + strings.Repeat(" end", n),
		"elseif":      "if a then " + strings.Repeat("elseif a then ", 4000) + "end",
		"open tables": "return " + strings.Repeat("{", 60000),
		"open parens": "return " + strings.Repeat("(", 60000),
		"locals":      strings.Repeat("local a = 1 ", 5000),
		"targets":     strings.Repeat("a,", 5000) + "a = 1",
		"fields set":  strings.Repeat("a.b,", 5000) + "a = 1",
		"constants":   "return {" + strings.Repeat("1.5,", 15000) + "}",
		"labels":      strings.Repeat("::a::", 5000),
		"long string": "return [[" + strings.Repeat("x", 60000),
		"quotes":      strings.Repeat("'", 60001),
		"bytes":       strings.Repeat("\xff\x00", 30000),
		"too long":    strings.Repeat(" ", 70000),
	} {
		t.Run(name, func(t *testing.T) {
			out, _ := hostile(t, source, 30*time.Second)
			if out.Fault != nil {
				require.Regexp(t, `^main\.lua:\d+: `, out.Fault.Message)
				require.NotContains(t, out.Fault.Message, "\n")
			}
			t.Log(fmt.Sprint(out.Fault))
		})
	}
}

func runChild(m *Machine, inv *functions.Invocation) *functions.Outcome {
	ctx, cancel := context.WithTimeout(context.Background(), inv.Limits.Timeout)
	defer cancel()
	return m.Run(ctx, inv, noAnswers)
}
