package script

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/functions"
)

// oracle is a lua5.1 that runs one program after the other: each is a line in hexadecimal, and so is what it printed.
type oracle struct {
	in  io.Writer
	out *bufio.Reader
}

func newOracle(t testing.TB) *oracle {
	path, err := exec.LookPath("lua5.1")
	if err != nil {
		return nil // the rest of a target needs none
	}
	script := filepath.Join(t.TempDir(), "oracle.lua")
	require.NoError(t, os.WriteFile(script, []byte(`
local globals = {} for k in pairs(_G) do globals[k] = true end
for line in io.lines() do
  local source = line:gsub("%x%x", function(h) return string.char(tonumber(h, 16)) end)
  local f, e = loadstring(source, "=main.lua")
  local ok, r
  if f then ok, r = pcall(f) else ok, r = false, "compile " .. e end
  if not ok then r = "ERROR " .. tostring(r) end
  for k in pairs(_G) do if not globals[k] then _G[k] = nil end end
  io.write((tostring(r):gsub(".", function(c) return ("%02x"):format(c:byte()) end)), "\n") io.flush()
end`), 0o600))
	cmd := exec.Command(path, script)
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = in.Close(); _ = cmd.Wait() })
	return &oracle{in, bufio.NewReader(out)}
}

// run returns what a program that ends with "return text" returns, or ERROR and why.
func (o *oracle) run(t testing.TB, program string) string {
	_, err := fmt.Fprintln(o.in, hex.EncodeToString([]byte(program)))
	require.NoError(t, err)
	line, err := o.out.ReadString('\n')
	require.NoError(t, err)
	text, err := hex.DecodeString(strings.TrimSpace(line))
	require.NoError(t, err)
	return string(text)
}

// fuzzRun runs a body on a Machine of its own and fails on what no script may bring about.
func fuzzRun(t testing.TB, m *Machine, main string, data []byte, timeout time.Duration) *functions.Outcome {
	if f := m.Load("r", map[string][]byte{"main.lua": []byte(main)}); f != nil {
		return &functions.Outcome{Fault: f}
	}
	inv := testInvocation()
	inv.Event.Data, inv.Limits.Timeout, inv.Limits.EffectBytes = data, timeout, 1<<20
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	began := time.Now()
	out := m.Run(ctx, inv, noAnswers)
	require.Less(t, time.Since(began), timeout+2*time.Second)
	if out.Fault != nil {
		require.NotContains(t, out.Fault.Text(), "internal error")
		require.NotContains(t, out.Fault.Text(), "runtime error")
	}
	return out
}

// patternProgram tries a pattern in every function that takes one. What is an error, and what not, is the same on both sides; its words are not.
const patternProgram = showPrelude + `
local function try(name, f, ...) local r = {pcall(f, ...)} if r[1] then print(name, unpack(r, 1, 6)) else print(name, "error") end end
try("find", string.find, s, p) try("match", string.match, s, p) try("from", string.find, s, p, 2) try("back", string.match, s, p, -2) try("plain", string.find, s, p, 1, true)
try("gsub", string.gsub, s, p, w) try("few", string.gsub, s, p, w, 2) try("table", string.gsub, s, p, {a = "x", b = 5, [""] = "e"})
try("function", string.gsub, s, p, function(...) if select("#", ...) > 1 then return (select("#", ...)) end end)
try("gmatch", function() local n, l = 0 for a, b in s:gmatch(p) do n, l = n + 1, a if n > 30 then break end end return n, l end)
`

// Any pattern on any subject does what it does in reference Lua, and ends in time where that would not.
func FuzzPattern(f *testing.F) {
	for _, s := range [][3]string{{"hello world", "(%w+) (%w+)", "%2 %1"}, {"f(a(b)c)", "%b()", "%0"}, {"THE fox", "%f[%a]%a+", "<%0>"}, {"aaa", "a-a*a?a+", "%%"}, {"x=1, y=2", "(%w)=(%w)", "%1"}, {"abab", "(ab)%1", "x"},
		{"a\x00b", "[%z-a]", "\x00"}, {"]", "[]]", ""}, {"é", "[\xc3-\xff]+", "%"}, {"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "a?a?a?a?a?a?aaaaaa", ""}, {"()", "%(()%)", "%1"}, {"abc", "^.-$", "[%0]"}, {"", "", ""}, {"a", "[^", "%9"}} {
		f.Add(s[0], s[1], s[2])
	}
	o := newOracle(f)
	m := New(Options{})
	f.Fuzz(func(t *testing.T, s, p, w string) {
		if len(s) > 5000 || len(p) > 500 || len(w) > 100 {
			return
		}
		quoted := func(s string) string {
			var b strings.Builder
			for _, c := range []byte(s) {
				fmt.Fprintf(&b, `\%03d`, c)
			}
			return `"` + b.String() + `"`
		}
		head := fmt.Sprintf("local s, p, w = %s, %s, %s\n", quoted(s), quoted(p), quoted(w))
		timeout, comparable := 100*time.Millisecond, o != nil && len(s) <= 16 && len(p) <= 12 // else it could take for ever there
		if comparable {
			timeout = 5 * time.Second // it is to end, on a machine that is busy too
		}
		out := fuzzRun(t, m, "return function()\n"+head+patternProgram+"\nreturn base64.encode(table.concat(out, '\\n')) end", nil, timeout)
		if !comparable {
			return
		}
		if strings.Contains(p, "\x00") || strings.HasSuffix(strings.ReplaceAll(w, "%%", ""), "%") {
			return // reference Lua reads a pattern up to a zero, and takes a zero for what is missing
		}
		require.Nil(t, out.Fault)
		var got []byte
		require.NoError(t, json.Unmarshal(out.Result, &got))
		require.Equal(t, o.run(t, head+patternProgram+"\nreturn table.concat(out, '\\n')"), string(got))
	})
}

// Any source either compiles and runs within its limits, or has an error with a line.
func FuzzCompile(f *testing.F) {
	for _, s := range []string{overheat, stain, walker, string(signalSource), "x = ", "return {" + strings.Repeat("1,", 50) + "f()}", "local a <const> = 1", "goto a ::a::", "a.b, c[1], d = f(), ...", "for i in f do end", "return function(...) return ... end",
		"return function(event) return event.data end", "::a:: do goto a end", "[==[", "--[[", "0x", "'\\", "a .. b .. c", "f{}''[[]]:g()"} {
		f.Add(s)
	}
	for _, file := range []string{"language", "string", "coroutine", "table"} {
		text, err := os.ReadFile("testdata/conformance/" + file + ".lua")
		if err != nil {
			f.Fatal(err)
		}
		for _, p := range strings.Split(string(text), "\n\n") {
			f.Add("return function() " + p + "\nend")
		}
	}
	m := New(Options{})
	form := regexp.MustCompile(`^main\.lua:\d+: `)
	f.Fuzz(func(t *testing.T, source string) {
		out := fuzzRun(t, m, source, []byte(`{"a":[1,2]}`), 20*time.Millisecond)
		if fault := out.Fault; fault != nil && fault.Kind == functions.FaultError {
			require.NotContains(t, fault.Message, "\n")
			require.NotContains(t, fault.Message, "cannot be compiled")
			if !m.Loaded("r") {
				require.Regexp(t, form, fault.Message)
			}
		}
	})
}

// Programs made from bytes do what they do in reference Lua: assignments, calls, loops, closures and table constructors in all combinations.
func FuzzPrograms(f *testing.F) {
	for i := range 60 {
		seed := make([]byte, 300)
		for j := range seed {
			seed[j] = byte((i*7919 + j*j*31 + j*i) >> (j % 5))
		}
		f.Add(seed)
	}
	o := newOracle(f)
	m := New(Options{})
	f.Fuzz(func(t *testing.T, choices []byte) {
		if len(choices) > 2000 {
			return
		}
		g := &programs{choices: choices}
		program := g.program()
		out := fuzzRun(t, m, "return function()\n"+program+"\nreturn base64.encode(table.concat(out, '\\n')) end", nil, 3*time.Second)
		if o == nil {
			return
		}
		want := o.run(t, program+"\nreturn table.concat(out, '\\n')")
		if strings.Contains(want, "ERROR compile") {
			require.NotNil(t, out.Fault, "%s\nreference: %s", program, want)
			return
		}
		require.Nil(t, out.Fault, program)
		var got []byte
		require.NoError(t, json.Unmarshal(out.Result, &got))
		require.Equal(t, want, string(got), program)
	})
}

// programs writes a program, choosing by one byte after the other.
type programs struct {
	choices []byte
	b       strings.Builder
	depth   int
	loops   int // around the statement
	varargs bool
}

func (g *programs) choose(n int) int {
	if len(g.choices) == 0 {
		return 0
	}
	c := int(g.choices[0])
	g.choices = g.choices[1:]
	return c % n
}

func (g *programs) pick(s ...string) string { return s[g.choose(len(s))] }

func (g *programs) program() string {
	g.b.WriteString(showPrelude)
	g.b.WriteString(`
local function n(v) v = tonumber(v) or 1 return v % 97 + 1 end
local function s(v) return type(v) == "table" and "T" or tostring(v):sub(1, 9) end
local function tab(v) return type(v) == "table" and v or {v, x = v} end
local function two(...) return ..., 2 end
local function three(a) return a, 2, 3 end
local function none() end
local function make() local c = 0 return function(d) c = c + n(d) return c end, function() return c end end
local a, b, c, t, u = 1, "x", nil, {1, 2, x = 3}, {}
local add, get = make()
`)
	g.b.WriteString("print(pcall(function(...)\n")
	g.varargs = true
	for len(g.choices) > 0 && g.b.Len() < 20000 {
		g.statement()
	}
	g.b.WriteString("return a, b, c, tab(t).x, tab(t)[1], tab(t)[2], tab(u).x, tab(u)[1]\nend, 7, nil, 'v'))\nprint(a, b, c, tab(t).x, tab(t)[1], tab(t)[2], tab(t)[50], tab(t)[51], tab(u).x, tab(u)[1], get())")
	return g.b.String()
}

func (g *programs) line(format string, args ...any) { fmt.Fprintf(&g.b, format+"\n", args...) }

func (g *programs) name() string { return g.pick("a", "b", "c", "t", "u") }

func (g *programs) target() string {
	return g.pick("a", "b", "c", "tab(t).x", "tab(u)[1]", "tab(t)[n(a)]", "g1", "tab(u).y", "tab(t)[2]", "t", "u")
}

func (g *programs) list(least, most int, item func() string) string {
	parts := make([]string, least+g.choose(most-least+1))
	for i := range parts {
		parts[i] = item()
	}
	return strings.Join(parts, ", ")
}

func (g *programs) block() {
	g.depth++
	for range 1 + g.choose(3) {
		g.statement()
	}
	g.depth--
}

func (g *programs) statement() {
	if g.depth > 4 {
		g.line("print(%s)", g.expr(0))
		return
	}
	switch g.choose(16) {
	case 0:
		g.line("local %s = %s", g.list(1, 3, g.name), g.list(1, 3, g.any))
	case 1, 2:
		target := g.list(1, 3, g.target)
		g.line("%s = %s", target, g.list(1, 3, g.any))
	case 3:
		g.line("print(%s)", g.list(1, 4, g.any))
	case 4:
		g.line("if %s then", g.expr(0))
		g.block()
		if g.choose(2) == 1 {
			g.line("elseif %s then", g.expr(0))
			g.block()
			g.line("else")
			g.block()
		}
		g.line("end")
	case 5:
		g.loop(fmt.Sprintf("for i = %d, %d, %s do", g.choose(4), g.choose(5), g.pick("1", "2", "-1", "0.5")), "end")
	case 6:
		g.loop(g.pick("for k, v in ipairs(tab(t)) do", "for v in ('a b'):gmatch('%a') do", "for k, v in next, {10, 20} do", "for k, v in ipairs{"+g.list(0, 3, g.any)+"} do"), "end")
	case 7:
		g.line("do local w = 0 while w < %d do w = w + 1", g.choose(4))
		g.loops++
		g.block()
		g.loops--
		g.line("end end")
	case 8:
		g.line("do local w = 0 repeat w = w + 1 local r = %s", g.expr(0))
		g.loops++
		g.block()
		g.loops--
		g.line("until w > 2 or r end")
	case 9:
		g.line("do")
		g.block()
		g.line("end")
	case 10:
		outer := g.loops
		g.loops = 0
		g.line("local function f%s", g.pick("(...)", "(p, ...)"))
		g.block()
		g.line("return %s end print(f(%s))", g.list(0, 3, g.any), g.list(0, 3, g.any))
		g.loops = outer
	case 11:
		if g.loops > 0 {
			g.line("if %s then break end", g.expr(0))
		}
	case 12:
		g.line("print(add(%s), get())", g.expr(0))
	case 13:
		g.line("local co = coroutine.wrap(function(...) local x, y = coroutine.yield(%s) print(x, y) return %s end) print(co(%s)) print(co(%s))", g.list(0, 3, g.any), g.list(0, 2, g.any), g.list(0, 2, g.any), g.list(0, 3, g.any))
	case 14:
		g.line("%s = {%s%s}", g.pick("t", "u"), strings.Repeat("1,", []int{0, 1, 48, 49, 50, 51, 100}[g.choose(7)]), g.list(0, 3, g.field))
	case 15:
		g.line("print(pcall(function(...) return %s end, 1, 2))", g.list(0, 3, g.any))
	}
}

func (g *programs) loop(head, end string) {
	g.line("%s", head)
	g.loops++
	g.block()
	g.loops--
	g.line("%s", end)
}

func (g *programs) field() string {
	return g.pick("", "x = ", "[1] = ", "[two('y')] = ") + g.any()
}

func (g *programs) any() string { return g.expr(0) }

// expr is an expression that cannot fail, with values that both sides write alike.
func (g *programs) expr(depth int) string {
	if depth > 3 {
		return g.pick("a", "b", "c", "1", "nil")
	}
	e := func() string { return g.expr(depth + 1) }
	switch g.choose(20) {
	case 0:
		return g.pick("1", "2", "10", "-3", "0", "0x10", "'s'", "\"\"", "nil", "true", "false", "[[q]]")
	case 1:
		return g.name()
	case 2:
		return "n(" + e() + ") " + g.pick("+", "-", "*", "%") + " n(" + e() + ")"
	case 3:
		return "s(" + e() + ") .. s(" + e() + ")" + g.pick("", " .. 'z'", " .. s(a) .. 1")
	case 4:
		return "(" + e() + ") " + g.pick("and", "or") + " (" + e() + ")"
	case 5:
		return "not (" + e() + ")"
	case 6:
		return "n(" + e() + ") " + g.pick("<", "<=", ">", ">=", "==", "~=") + " n(" + e() + ")"
	case 7:
		return g.pick("two", "three", "none", "add", "n", "s") + "(" + e() + ")"
	case 8:
		return "two(" + g.list(0, 3, e) + ")"
	case 9:
		return "(" + g.pick("two", "three", "none") + "(" + e() + "))"
	case 10:
		return "..."
	case 11:
		return "select('#', " + g.list(1, 3, e) + ")"
	case 12:
		return "tab(" + e() + ")" + g.pick(".x", "[1]", "[2]", ".y")
	case 13:
		return "({" + g.list(0, 4, g.field) + "})" + g.pick(".x", "[1]", "[2]", "[3]", ".y")
	case 14:
		return "(function(...) return " + g.list(0, 3, e) + " end)(" + g.list(0, 2, e) + ")"
	case 15:
		return "(-n(" + e() + ") - 1)" // not -0, which has a text of its own there
	case 16:
		return "#s(" + e() + ")"
	case 17:
		return "(s(" + e() + ")):" + g.pick("upper()", "rep(2)", "sub(1, 2)", "len()", "byte(1, 2)")
	case 18:
		return e() + " == " + g.pick("nil", "a", "1", "'x'")
	default:
		return "(" + e() + ")"
	}
}
