package script

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/functions"
)

// These tests compare what we run with what the reference implementation does: Debian's lua5.1.

// showPrelude gives both sides a print that writes every kind of value in the same way.
const showPrelude = `
local out = {}
local function show(v)
  if type(v) == "number" then
    if v ~= v then return "nan" end
    if v == math.floor(v) and v < 1e15 and v > -1e15 then return string.format("%d", v) end
    return string.format("%.10g", v)
  end
  if type(v) == "string" then return string.format("%q", v) end
  if type(v) == "table" or type(v) == "function" or type(v) == "thread" then return type(v) end
  return tostring(v)
end
local function print(...)
  local line = {}
  for i = 1, select("#", ...) do line[i] = show((select(i, ...))) end
  out[#out + 1] = table.concat(line, " ")
end
`

// reference runs each program with lua5.1 and returns what it printed. All of them go through one process.
func reference(t *testing.T, programs []string) []string {
	t.Helper()
	path, err := exec.LookPath("lua5.1")
	if err != nil {
		t.Skip("lua5.1 is not installed")
	}
	dir := t.TempDir()
	var b strings.Builder
	for i, p := range programs {
		name := filepath.Join(dir, fmt.Sprintf("%d.lua", i))
		require.NoError(t, os.WriteFile(name, []byte(showPrelude+p+"\nreturn table.concat(out, '\\n')"), 0o600))
		fmt.Fprintf(&b, "do local f, e = loadfile(%q); local ok, r = pcall(f or function() error(e) end); io.write(ok and r or 'ERROR '..tostring(r), '\\0') end\n", name)
	}
	main := filepath.Join(dir, "main.lua")
	require.NoError(t, os.WriteFile(main, []byte(b.String()), 0o600))
	text, err := exec.Command(path, main).Output()
	require.NoError(t, err)
	return strings.Split(string(text), "\x00")[:len(programs)]
}

// compare runs programs on both sides.
func compare(t *testing.T, programs []string) {
	t.Helper()
	want := reference(t, programs)
	m := New(Options{})
	for i, p := range programs {
		source := "return function()\n" + showPrelude + p + "\nreturn base64.encode(table.concat(out, '\\n'))\nend"
		out := &functions.Outcome{Fault: m.Load("r", map[string][]byte{"main.lua": []byte(source)})}
		if out.Fault == nil {
			out = runLoaded(m, testInvocation(), noAnswers)
		}
		if out.Fault != nil {
			if !strings.HasPrefix(want[i], "ERROR") {
				t.Errorf("%s\nfails here: %s\nreference: %s", p, out.Fault.Text(), want[i])
			}
			continue
		}
		var text []byte
		require.NoError(t, json.Unmarshal(out.Result, &text))
		if string(text) != want[i] {
			t.Errorf("%s\ngives     %q\nreference %q", p, text, want[i])
		}
	}
}

func TestAssignmentsAsInReference(t *testing.T) {
	compare(t, []string{
		`local a, b = 1, 2 a, b = b, a print(a, b)`,
		`a, b = 1, 2 a, b = b, a print(a, b)`,
		`local a, b, c = 1, 2, 3 a, b, c = c, a, b print(a, b, c)`,
		`local a, b = 0, 1 for _ = 1, 10 do a, b = b, a + b end print(a, b)`,
		`local t = {1, 2, 3} t[1], t[3] = t[3], t[1] print(t[1], t[2], t[3])`,
		`local i, t = 1, {} i, t[i] = i + 1, 20 print(i, t[1], t[2])`,
		`local t = {x = {y = 1}} t.x, t.x.y = {y = 5}, 7 print(t.x.y)`,
		`local t = {} local u = t t, t.x = {}, 3 print(u.x, t.x)`,
		`local function f() return 1, 2, 3 end local a, b, c, d a, b, c, d = f(), f() print(a, b, c, d)`,
		`local function f() return 1, 2, 3 end local a, b a, b = (f()) print(a, b)`,
		`local function f() return 1, 2, 3 end local a a = f(), f() print(a)`,
		`local function f(...) local a, b, c a, b, c = ... print(a, b, c) a, b, c = ..., 9 print(a, b, c) a, b = (...) print(a, b) end f(1, 2) f() f(4)`,
		`local a, b = 1 a, b = 2 print(a, b)`,
		`local a, b a, b = 1, 2, 3, 4 print(a, b)`,
		`local log = {} local function l(x) log[#log+1] = x return x end local t = setmetatable({}, {__newindex = function(t, k, v) log[#log+1] = "set" .. k rawset(t, k, v) end})
		 t[l(1)], t[l(2)], t[l(3)] = l(4), l(5), l(6) print(unpack(log))`,
		`local o = {n = 0} function o:next() self.n = self.n + 1 return self end o:next().a, o:next().b = o.n, o:next().n print(o.a, o.b, o.n)`,
		`local x = 1 local function f() local y = 2 x, y = y, x return y end print(f(), x)`,
		`local fs = {} for i = 1, 3 do local a, b = i, 0 a, b = b, a fs[i] = function() a, b = b, a return a, b end end for i = 1, 3 do print(fs[i]()) end`,
		`local i = 0 repeat local a, b = i, i + 1 a, b = b, a i = a until a >= 3 and b == 2 print(i)`,
		`local a = {} a.f, a.g = function() local x, y = 1, 2 x, y = y, x return x end, 4 print(a.f(), a.g)`,
		`local a, b = true, nil a, b = b and 1 or 2, a and 3 or 4 print(a, b)`,
		`local a, b = 5, 6 a, b = -a, not b print(a, b)`,
		`local t, i = {10, 20}, 1 t[i], i, t[i + 1] = i, t[i], i print(t[1], t[2], i)`,
		`local s = "x" s, t = s .. "y", s print(s, t)`,
		`local a, b, a = 1, 2, 3 print(a, b) a, b, a = 4, 5, 6 print(a, b)`,
		`do local a, b = 1, 2 a, b = b, a end local c, d = 3, 4 c, d = d, c print(c, d)`,
		`local function gcd(a, b) while b ~= 0 do a, b = b, a % b end return a end print(gcd(48, 18), gcd(17, 5))`,
		`local function rev(t) local i, j = 1, #t while i < j do t[i], t[j] = t[j], t[i] i, j = i + 1, j - 1 end return unpack(t) end print(rev{1, 2, 3, 4, 5})`,
		`for a, b in pairs{x = 1} do a, b = b, a print(a, b) end`,
		`local co = coroutine.wrap(function() local a, b = 1, 2 a, b = coroutine.yield(b, a) coroutine.yield(a, b) end) print(co()) print(co(7, 8))`,
		`local t = {} t.a, t.b, t["c d"], t[1], t[2.5] = 1, 2, 3, 4, 5 print(t.a, t.b, t["c d"], t[1], t[2.5])`,
		`local a, b = function() return 1 end, 2 a, b = a(), a print(a, b())`,
		`local v = 010 local w = 0x10 local x = 1e2 print(v, w, x, .5, 3., 0xff)`,
	})
}

// assignments writes random programs around assignments, over locals, upvalues, globals, fields and calls.
type assignments struct {
	rnd *rand.Rand
	b   strings.Builder
}

func (a *assignments) pick(s ...string) string { return s[a.rnd.IntN(len(s))] }

func (a *assignments) target() string {
	return a.pick("l1", "l2", "l3", "u1", "u2", "g1", "g2", "t.x", "t.y", "t[i]", "t[l1]", "s.x", "s[i]", "get().x", "t.t.x", "o:me().x", "i", "t", "s")
}

func (a *assignments) value(depth int) string {
	if depth > 2 || a.rnd.IntN(3) == 0 {
		return a.pick("l1", "l2", "l3", "u1", "u2", "g1", "g2", "t.x", "s.x", "t[i]", "i", "1", "2", "7", "nil", "true", "'a'", "(two())", "get().y")
	}
	switch a.rnd.IntN(9) {
	case 0:
		return "two()"
	case 1:
		return "..."
	case 2:
		return "num(" + a.value(depth+1) + ") + num(" + a.value(depth+1) + ")"
	case 3:
		return a.value(depth+1) + " and " + a.value(depth+1) + " or " + a.value(depth+1)
	case 4:
		return "not " + a.value(depth+1)
	case 5:
		return "tostr(" + a.value(depth+1) + ") .. tostr(" + a.value(depth+1) + ")"
	case 6:
		return "{x = " + a.value(depth+1) + ", y = 3, t = {x = " + a.value(depth+1) + "}}"
	case 7:
		// It changes no local of the function itself: when the reference reads a local that is a prefix or a key is not defined,
		// and it reads it late.
		return "(function() u1, u2 = u2, u1 return l2, l3 end)()"
	default:
		return a.value(depth+1) + " == " + a.value(depth+1)
	}
}

func (a *assignments) list(n int, item func() string) string {
	s := make([]string, n)
	for i := range s {
		s[i] = item()
	}
	return strings.Join(s, ", ")
}

func (a *assignments) program() string {
	a.b.Reset()
	a.b.WriteString(`
local u1, u2 = 1, 2
g1, g2 = 3, 4
local function two() u2, g1 = g1, u2 return u1, u2 end
local function num(v) return type(v) == "number" and v or 1 end
local function tostr(v) return type(v) == "table" and "T" or tostring(v):sub(1, 20) end
local base = {x = 1, y = 2, t = {x = 3}}
local function get() return base end
local o = {} function o:me() return self end
local function main(...)
local l1, l2, l3, i = 5, 6, 7, 1
local t, s = {x = 1, y = 2, t = {x = 3}, 10, 20}, {x = 8}
local function fix() if type(t) ~= "table" then t = {t = {}} end if type(t.t) ~= "table" then t.t = {} end
if type(s) ~= "table" then s = {} end if type(i) ~= "number" then i = 1 end if l1 == nil or l1 ~= l1 then l1 = 1 end end
`)
	for range 1 + a.rnd.IntN(5) {
		line := a.list(1+a.rnd.IntN(4), a.target) + " = " + a.list(1+a.rnd.IntN(4), func() string { return a.value(0) })
		if strings.HasPrefix(line, "get()") || strings.HasPrefix(line, "o:") {
			line = "local _ = 0; " + line
		}
		switch a.rnd.IntN(6) {
		case 0:
			line = "for k = 1, 2 do " + line + " fix() end"
		case 1:
			line = "do local l2, i = i, 2 " + line + " end"
		case 2:
			line = "if u1 then " + line + " else " + line + " end"
		case 3:
			line = "local l3, l2 = " + a.value(0) + ", " + a.value(0) + " " + line
		}
		a.b.WriteString(line + "\nfix()\nprint(l1, l2, l3, i, u1, u2, g1, g2, t.x, t.y, t[1], t[2], t.t.x, s.x, base.x, base.y, o.x)\n")
	}
	a.b.WriteString("end\nmain(11, 12, 13)\n")
	return a.b.String()
}

func TestRandomAssignmentsAsInReference(t *testing.T) {
	a := &assignments{rnd: rand.New(rand.NewPCG(1, 2))}
	programs := make([]string, 400)
	for i := range programs {
		programs[i] = a.program()
	}
	compare(t, programs)
}
