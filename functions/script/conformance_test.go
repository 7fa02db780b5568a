package script

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestLibrariesAsInReference(t *testing.T) {
	compare(t, []string{
		// numbers
		`print(tonumber("1e3"), tonumber("0x1F"), tonumber(" 12 "), tonumber("010"), "010" + 0, tonumber("1_000"), tonumber("0b11"), tonumber(""), tonumber("-"), tonumber("1e"))`,
		`print(tonumber("ff", 16), tonumber("zz", 36), tonumber("8", 8), tonumber("1.5"), tonumber("abc"), tonumber(nil), tonumber({}), tonumber(" 5 x"))`,
		`print("10" * "2", "3" - 1, -"2", "0x10" + 1, 10 .. 20, "7" % "4", 2 ^ "3", "9" / 3)`,
		`print(pcall(function() return "a" + 1 end) == false, pcall(function() return {} + 1 end) == false)`,
		`print(5 % 3, -5 % 3, 5 % -3, -5 % -3, 5.5 % 2, 1e15 % 7, 0 % 5)`,
		`print(math.floor(-1.5), math.ceil(-1.5), math.fmod(-7, 3), math.modf(3.7), math.modf(-3.7), math.max(1, 5, 3), math.min(2, 0, 1))`,
		`print(math.huge, -math.huge, math.huge == 1/0, math.pi, math.abs(-3), math.sqrt(16), math.pow(2, 10), math.ldexp(1, 4), math.frexp(8))`,
		`print(math.deg(math.pi), math.rad(180), math.atan2(1, 1), math.log(math.exp(1)), math.log10(1000))`,
		`print(tostring(12), tostring(-0.5), tostring(true), tostring(nil), tostring(0.1), tostring(100))`,
		`print(pcall(math.random, 0) == false, pcall(math.random, 5, 1) == false, math.random(1, 1))`,
		// strings
		`print(("x"):rep(3), ("x"):rep(0), ("x"):rep(-1), ("ab"):reverse(), ("aBc"):upper(), ("aBc"):lower(), #"abc", ("abc"):len())`,
		`print(("hello"):sub(2, 3), ("hello"):sub(-3), ("hello"):sub(2, -2), ("hello"):sub(0), ("hello"):sub(10), ("hello"):sub(3, 2), ("hello"):sub(-100, 2), ("hello"):sub(2, 100))`,
		`print(("hello"):byte(), ("hello"):byte(2), ("hello"):byte(-1), ("hello"):byte(1, 3), ("hello"):byte(10), ("hello"):byte(2, 1), string.char(72, 105), string.char())`,
		`print(("\200\201"):upper() == "\200\201", ("\0a\0"):len(), ("a\0b"):byte(2))`,
		`print(("hello world"):find("wor"), ("hello"):find("l"), ("hello"):find("xyz"), ("hello"):find(""), ("hello"):find("", 10), ("hello"):find("b", 10, true), ("a.b"):find(".", 1, true), ("hello"):find("l", -2))`,
		`print(("hello"):find("", 6), ("hello"):find("", 7), ("hello"):match("", 10), ("hello"):find("h", -100))`,
		`print(("key = value"):match("^(%w+)%s*=%s*(%w+)$"), ("2024-01-02"):match("(%d+)-(%d+)-(%d+)"), ("abc"):match("()b()"), ("abc"):match("%d"), ("  trim  "):match("^%s*(.-)%s*$"))`,
		`print(("THE (quick) fox"):find("%((%a+)%)"), ("f(a(b)c)d"):match("%b()"), ("THE (quick) fox"):gsub("%f[%a]%a+", "X"))`,
		`print(("abc"):gsub("", "-"), ("abc"):gsub(".", "%0%0"), ("hello world"):gsub("o", "0", 1), ("abc"):gsub("b", "%%"), ("abc"):gsub("(a)(b)", "%2%1"))`,
		`print(("hello world"):gsub("%w+", {hello = "HI"}), ("abc"):gsub("%w", function(c) if c == "b" then return "X" end end), ("a b"):gsub("%w", function() return false end))`,
		`print(("x=1,y=2"):gsub("(%w)=(%w)", "%2=%1"), ("abc"):gsub("^a", "X"), ("aaa"):gsub("^a", "X"), ("abc"):gsub("$", "!"), ("a.b.c"):gsub("%.", "/"))`,
		`for k, v in ("a=1, b=2"):gmatch("(%w+)=(%w+)") do print(k, v) end for w in ("one two"):gmatch("%a+") do print(w) end for p in ("abc"):gmatch("()") do print(p) end`,
		`print(("aaa"):match("a-"), ("aaa"):match("a-$"), ("aaab"):match("a-b"), ("[test]"):match("%[(.-)%]"), ("a-b"):match("[a%-]+"), ("]"):match("[]]"), ("^"):match("[%^]"), ("b"):match("[^a]"), ("a-z"):match("[a-]+"))`,
		`print(("0xFF"):match("^0[xX](%x+)$"), ("a\nb"):match("a.b"), ("tab\t"):match("%c"), ("x!"):match("%p"), ("\0"):match("%z"), ("aXb"):match("%u"), ("abc"):match("%A"))`,
		`print(("abcabc"):match("(abc)%1"), ("abab"):find("(ab)%1"), pcall(string.match, "a", "%1") == false, pcall(string.match, "a", "(a") == false, pcall(string.match, "a", "[a") == false, pcall(string.match, "a", "%") == false, pcall(string.match, "a", "a)") == false)`,
		`print(("  a"):find("^%s*"), (""):match(".*"), (""):gsub(".*", "x"), ("abc"):gsub(".*", "x"), ("a,b,,c"):gsub(",", ";"), ("abc"):gsub("x*", "-"))`,
		`print(string.format("%d %5d %-5d| %05d %+d % d", 3, 42, 42, 42, 7, 7), string.format("%x %X %#x %o", 255, 255, 255, 8), string.format("%5.2f|%-8.3f|%08.3f", 3.14159, 2.5, -1.5))`,
		`print(string.format("%g %g %g %g %g %g %g", 0.1, 1e20, 100000, 1e6, 1e-5, 123456789, 0), string.format("%.3g %.10g %G", 1234.5678, 0.1, 1e-10), string.format("%e %.2E", 12345.678, 0.00012))`,
		`print(string.format("%s %10s|%-10s|%.2s", "a", "b", "c", "defg"), string.format("%q", 'a "quoted"\nline\\'), string.format("%c%c", 72, 73), string.format("%%"), string.format("%i", 3.9), string.format("%d", "10"))`,
		`print(string.format("%5s|%5.1f|%g|%g", "é", 2.25, 1/0, -1/0), string.format("%.0f %.0f", 0.5, 1.5), string.format("%5.3d|%.0d|", 7, 0), string.format("%x", 3.7))`,
		`print(pcall(string.format, "%d", "abc") == false, pcall(string.format, "%d") == false, pcall(string.format, "%y", 1) == false, pcall(string.format, "%123d", 1) == false, pcall(string.rep) == false)`,
		// tables
		`local t = {1, 2, 3} table.insert(t, 4) table.insert(t, 1, 0) print(unpack(t)) print(table.remove(t), table.remove(t, 1), #t, table.concat(t, ","), table.concat(t, "-", 2, 3), table.concat({}), table.concat({1, 2}, ", ", 2))`,
		`local t = {5, 2, 8, 1} table.sort(t) print(unpack(t)) table.sort(t, function(a, b) return a > b end) print(unpack(t)) local s = {"b", "a", "C"} table.sort(s) print(unpack(s))`,
		`print(table.maxn({1, 2, [10] = 3}), table.maxn({}), #{1, 2, nil, 4} >= 2, table.getn({1, 2}), table.remove({}), next({}), select("#", unpack({}, 1, 3)), unpack({1, 2, 3}, 2), unpack({1, 2, 3}, -1, 1))`,
		`print(select("#"), select("#", nil, nil), select(2, "a", "b", "c"), select(-1, "a", "b"), pcall(select, 0) == false)`,
		`print(pcall(table.concat, {1, {}, 3}) == false, pcall(table.insert, {1}, 1, 2, 3) == false, pcall(table.sort, {1, "a"}) == false, pcall(unpack, {}, 1, 1e8) == false)`,
		`print(rawequal("a", "a"), rawget(setmetatable({}, {__index = function() return 1 end}), "x"), rawset({}, "a", 1).a, type(nil), type(print))`,
		`local t = {} for k, v in ipairs({1, 2, nil, 4}) do t[#t + 1] = k end print(#t)`,
		// errors and metatables
		`print(pcall(error, "x", 0)) print(pcall(error, {1}) == false, select(2, pcall(error, {code = 5})).code, pcall(error)) print(select(2, pcall(error, "m", 0)), pcall(assert, false, "msg")) print(pcall(assert, nil)) print(assert(1, 2, 3))`,
		`print(xpcall(function() error("a", 0) end, function(e) return e .. "!" end)) print(xpcall(function() return 1, 2 end, print)) print(pcall(function(...) return select("#", ...) end, nil, nil))`,
		`local t = setmetatable({}, {__index = function(t, k) return k .. "!" end, __call = function(self, a) return a * 2 end, __tostring = function() return "T" end, __len = function() return 7 end, __concat = function(a, b) return "C" end, __eq = function() return true end, __unm = function() return "neg" end}) print(t.x, t(4), tostring(t), t .. "x", "x" .. t, -t)`,
		`local mt = {__metatable = "locked"} local t = setmetatable({}, mt) print(getmetatable(t), pcall(setmetatable, t, {}) == false, getmetatable("").__index == string, pcall(setmetatable, 1, {}) == false)`,
		`local V = {} V.__index = V V.__add = function(a, b) return setmetatable({x = a.x + b.x}, V) end V.__lt = function(a, b) return a.x < b.x end V.__le = function(a, b) return a.x <= b.x end local a, b = setmetatable({x = 1}, V), setmetatable({x = 2}, V) print((a + b).x, a < b, a <= b, a > b)`,
		`local V = setmetatable({}, {__add = function(a, b) return "added" end, __sub = function() return "sub" end}) print("1" + V, V + "1", "x" + V, V - 1)`,
		// coroutines
		`local co = coroutine.create(function(a, b) local c = coroutine.yield(a + b) local d, e = coroutine.yield(c * 2) return d + e end) print(coroutine.resume(co, 1, 2)) print(coroutine.resume(co, 10)) print(coroutine.resume(co, 3, 4)) print(coroutine.resume(co) == false, coroutine.status(co))`,
		`local gen = coroutine.wrap(function() for i = 1, 3 do coroutine.yield(i) end end) print(gen(), gen(), gen())`,
		`local co = coroutine.create(function() error("oops", 0) end) print(coroutine.resume(co)) print(coroutine.status(co)) local w = coroutine.wrap(function() error({}) end) print(pcall(w) == false)`,
		`local co co = coroutine.create(function() print(coroutine.status(co), coroutine.running() == co) end) coroutine.resume(co) print(coroutine.running(), coroutine.status(co))`,
		`local function range(n) return coroutine.wrap(function() for i = 1, n do coroutine.yield(i) end end) end local s = 0 for i in range(10) do s = s + i end print(s)`,
		`local out = {} local a = coroutine.wrap(function() local b = coroutine.wrap(function() coroutine.yield(1) coroutine.yield(2) end) coroutine.yield(b()) coroutine.yield(b()) end) print(a(), a())`,
		`print(coroutine.resume(coroutine.create(function() return pcall(error, "e", 0) end)))`,
		// dates
		`print(os.date("!%Y-%m-%d %H:%M:%S", 86400), os.date("!%j %a %A %b %B %p %y %w", 1e9), os.date("!*t", 0).year, os.date("!%c", 0), os.date("!%U %W", 1e9), os.date("!%x %X", 1e9))`,
		// closures, goto-free control flow
		`local g local ok = pcall(function() local x = 1 g = function() x = x + 1 return x end error("e") end) local a, b, c = 1, 2, 3 print(ok, g(), g())`,
		`local ok, g = xpcall(function() local x = 1 return function() x = x + 1 return x end end, print) print(g(), g())`,
		`local t = {} for i = 1, 3 do t[i] = function() i = i + 1 return i end end print(t[1](), t[1](), t[2]())`,
		`local n = 0 for i = 10, 1, -3 do n = n + i end print(n) for i = 1, 0 do n = 0 end print(n) local i = 1 while true do i = i * 2 if i > 100 then break end end print(i)`,
		`local s = "" for k, v in pairs({10, 20, x = 1}) do s = s .. tostring(k) .. "=" .. v .. ";" end print(s)`,
		`local function f(...) local t = {...} return #t, ..., select("#", ...) end print(f(1, 2, 3)) print((f(1, 2)))`,
		`print(1 < 2, "a" < "b", "a" < "B", "" < "a", not nil, nil == false, 1 == "1", "abc" == "abc", 0 == -0)`,
		`print(#"\65\066\x", "a\
b", [[
x]], [==[a]]b]==])`,
		`print(2^53 == 2^53 + 1, 1e308 * 10 == math.huge)`,
	})
}

func TestPositionsOfErrors(t *testing.T) {
	// Both files have the same lines, but not the same name.
	compare(t, []string{
		`local function line(e) return (tostring(e):gsub("^.-:(%d+): ", function(n) return n - 19 .. "@" end)) end
print(type(line))
local function f() error("one") end
local function g() error("two", 2) end
local function h() error("none", 0) end
print(select(2, pcall(f)):match("one$"), select(2, pcall(h)))
local a = select(2, pcall(function()
  f()
end)):match(":(%d+):")
local b = select(2, pcall(function()
  g()
end)):match(":(%d+):")
print(b - a)
local c = select(2, pcall(function()
  local x = nil
  return x.y
end)):match(":(%d+):")
print(c - b)`,
	})
}

// Random patterns over a few characters, valid or not, on short strings.
func TestRandomPatternsAsInReference(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	parts := []string{"a", "b", ".", "%a", "%d", "%s", "%S", "[ab]", "[^a]", "[a-c]", "[%w_]", "%b()", "%f[%w]", "(", ")", "()", "*", "+", "-", "?", "^", "$", "%1", "%", "]", "[", "%%", " "}
	subjects := []string{"", "a", "abc", "aabb", "a b c", "(a(b)c)", "ab12 cd", "aaa", "x=1, y=2", "a%b", "abab", "_a1"}
	pattern := func() string {
		var b strings.Builder
		for range 1 + rnd.IntN(6) {
			b.WriteString(parts[rnd.IntN(len(parts))])
		}
		return b.String()
	}
	var programs []string
	for range 60 {
		var b strings.Builder
		for range 25 {
			s, p := subjects[rnd.IntN(len(subjects))], pattern()
			fmt.Fprintf(&b, `do local s, p = %q, %q
local function try(f, ...) local r = {pcall(f, s, p, ...)} if r[1] then print(p, s, unpack(r)) else print(p, s, "error") end end
try(string.find) try(string.match) try(string.find, 2) try(string.gsub, "<%%0>") try(string.gsub, function(...) return select("#", ...) .. "" end, 2)
try(function(s, p) local n = 0 local l for a, b in s:gmatch(p) do n = n + 1 l = a if n > 20 then break end end return n, l end) end
`, s, p)
		}
		programs = append(programs, b.String())
	}
	compare(t, programs)
}

// Random formats of numbers.
func TestRandomFormatsAsInReference(t *testing.T) {
	rnd := rand.New(rand.NewPCG(7, 8))
	numbers := []string{"0", "1", "-1", "42", "-123456", "0.5", "-0.1", "1/3", "1e10", "1e-10", "123456789.125", "1e100", "2^31", "1/0", "-1/0", "100000", "1e15"}
	whole := []string{"0", "1", "-1", "42", "-123456", "255", "65535", "2^31"}
	var programs []string
	for range 40 {
		var b strings.Builder
		for range 25 {
			flags := []string{"", "-", "0", "+", " ", "-+", "+0", "#"}[rnd.IntN(8)]
			width := []string{"", "1", "5", "12"}[rnd.IntN(4)]
			prec := []string{"", ".0", ".", ".1", ".3", ".10"}[rnd.IntN(6)]
			verb := string("dioxXeEfgG"[rnd.IntN(10)])
			n := numbers[rnd.IntN(len(numbers))]
			if strings.Contains("dioxX", verb) {
				n = whole[rnd.IntN(len(whole))]
			} else if flags == "#" {
				flags = ""
			}
			if strings.Contains("oxX", verb) && (strings.HasPrefix(n, "-") || strings.ContainsAny(flags, "+ ")) {
				flags, n = "", "7"
			}
			fmt.Fprintf(&b, "print(%q, %q, string.format(%q, %s))\n", "%"+flags+width+prec+verb, n, "%"+flags+width+prec+verb, n)
		}
		programs = append(programs, b.String())
	}
	compare(t, programs)
}

// Hundreds of small programs, in testdata/conformance: a file for each part, a paragraph for each program.
func TestConformance(t *testing.T) {
	files, err := filepath.Glob("testdata/conformance/*.lua")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".lua"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			programs := strings.Split(strings.TrimSpace(string(text)), "\n\n")
			compare(t, programs)
			t.Log(len(programs), "programs")
		})
	}
}

// Table constructors of all lengths around those at which the compiler stores items, with all kinds of ends.
func TestConstructorsAsInReference(t *testing.T) {
	var programs []string
	for _, n := range []int{0, 1, 2, 48, 49, 50, 51, 99, 100, 101, 149, 150, 151, 500, 25499, 25500, 25548, 25551, 25600, 25601, 30000} {
		items := strings.Repeat("1,", n)
		var b strings.Builder
		b.WriteString("local function f(...) return 'a', 'b', 'c' end local function g() end local function look(t, n) print(#t, t[1], t[2], t[n], t[n + 1], t[n + 2], t[n + 3], t[n + 4], t.x, t.y, t.a, t[50], t[51]) end\nlocal function all(...)\n")
		for _, end := range []string{"", "7", "f()", "(f())", "x = f()", "x = 5", "[f()] = f()", "...", "(...)", "x = ...", "f(), 8", "x = 1, f()", "x = f(), y = f()", "x = f(), 9", "g()",
			"x = f(), y = f(), 9, ...", "{1, x = f()}", "x = {f(), f()}", "f(), f()", "x = 1, 2, 3, 4, y = f()"} {
			if n > 1000 && len(end) > 8 {
				continue
			}
			fmt.Fprintf(&b, "do look({%s%s}, %d) end\n", items, end, n)
			if n > 1000 { // a program each: a file has a limit
				programs = append(programs, b.String()+"end all('p', 'q')")
				b.Reset()
				b.WriteString("local function f(...) return 'a', 'b', 'c' end local function g() end local function look(t, n) print(#t, t[1], t[2], t[n], t[n + 1], t[n + 2], t[n + 3], t[n + 4], t.x, t.y, t.a, t[50], t[51]) end\nlocal function all(...)\n")
			}
		}
		programs = append(programs, b.String()+"end all('p', 'q')")
	}
	compare(t, programs)
	require.Contains(t, New(Options{}).Load("r", map[string][]byte{"main.lua": []byte("return {" + strings.Repeat("1,", 25550) + "f()}")}).Message,
		"main.lua:1: a table with 25550 items and a call at its end cannot be compiled; add an item")
}
