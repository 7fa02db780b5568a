-- Each paragraph is a program of its own, run by us and by lua5.1; what they print must be the same.

print(1 + 2 * 3 - 4 / 2, 2 ^ 3 ^ 2, -2 ^ 2, not nil == true, not (1 == 2), 7 % 3 * 2, 1 .. 2 .. 3)

print(2 + 3 .. "", "a" .. 1 + 2, 1 .. -1, -3 % 5, -(3 % 5), 3 % -5, -3 % -5, 5 % 0.3 < 0.3, 2 ^ -1, 0 ^ 0)

print(1 < 2 == true, "a" < "b" and "b" < "c", 1 <= 1, 2 >= 3, "10" < "9", "" < "\0", "a" < "a\0b", "Z" < "a", "a\0a" < "a\0b")

print(nil and 1, false and 1, 1 and nil, 1 and 2, nil or 1, false or nil, 1 or 2, nil and nil or 3, false == nil, not 0, not "")

print(#"abc", #"", #"a\0b", #{1, 2, 3}, #{}, #{n = 1}, #{1, 2, nil}, -"2", - -2, -"0x10", not not 1)

print(0x10, 0xff, 0XAB, 1e2, 1E+2, 1e-2, .5, 3., 3.e1, 0x7fffffff, 1e0, 00012, 0.1e1)

print("a\tb\nc\\d\"e\'f\65\066\0679\a\b\f\v\r\z", 'x"y', "x'y", "\10", "\
next", [[long]], [[
first newline gone]], [==[a]]b]=]c]==], #[[

x]])

print("\x41", "\q", "\u", "\e", "\-")

-- comment
--[[ long
comment ]] print(1) --[==[ another ]] ]==] print(2) --

;

local a <const> = 1

local a, b, c = 1 print(a, b, c) local d, e = 1, 2, 3 print(d, e)

local a = 1 do local a = 2 print(a) end print(a) local a = a + 5 print(a)

local x = 5 local function f() return x end x = 6 print(f()) local x = 7 print(f(), x)

local function f(...) return ... end print(f(), f(1), f(1, nil), f(nil), (f(1, 2)), f(1, 2)) print({f(1, 2), f(3, 4)}[3] == nil)

local function f(...) return ... end local t = {f(1, 2), f(3, 4)} print(#t, t[1], t[2], t[3]) local u = {f(1, 2), (f(3, 4))} print(#u)

local function f(...) local a, b = ... return select("#", ...), a, b end print(f()) print(f(1)) print(f(1, 2, 3)) print(f(nil, nil))

local function f(a, b, ...) return a, b, select("#", ...), ... end print(f()) print(f(1, 2, 3, nil)) print(f(1))

local function f(...) local t = {...} return #t, {n = select("#", ...), ...}.n end print(f(1, 2, 3))

local function f(a, ...) arg = 5 return a, arg end print(f(1, 2))

function f(a) return a end print(f(1), f(1, 2), f()) f = nil print(f)

local t = {} function t.f(a) return a end function t:g(a) return self == t, a end function t.x() end t.y = {} function t.y.z(b) return b end function t.y:w() return self == t.y end print(t.f(1), t:g(2), t.y.z(3), t.y:w())

local t = {f = function(self, x) return x end} print(t:f(1), t.f(nil, 2), t["f"](t, 3), (t).f(t, 4), t:f "s", t:f {1}[1], t:f [[long]])

local function f(s) return s end print(f"x", f'y', f[[z]], #f{1, 2}, f "a" .. "b", type(f{}))

local function f() return function(x) return function(y) return x + y end end end print(f()(1)(2))

local t = {1, 2, 3, x = 4, ["y z"] = 5, [20] = 6, [1.5] = 7, [true] = 8, 9; 10, } print(t[1], t[3], t[4], t[5], t.x, t["y z"], t[20], t[1.5], t[true])

local t = {[1] = "a", "b"} print(t[1]) local u = {"b", [1] = "a"} print(u[1])

local t = {} t[1] = 1 t[2] = 2 t[4] = 4 t["1"] = "s" t[-1] = "m" t[0] = "z" t[1e300] = "big" t[2^53] = "p" print(t[1], t["1"], t[-1], t[0], t[1.0], t[1e300], t[2^53])

local t = {} t[1] = nil print(#t) t[3] = 3 t[3] = nil print(next(t)) t.x = 1 t.x = nil print(next(t))

print(pcall(function() local t = {} t[nil] = 1 end) == false, pcall(function() local t = {} t[0/0] = 1 end) == false, ({})[nil], ({})[0/0])

if nil then print(1) elseif false then print(2) elseif 0 then print(3) else print(4) end if "" then print(5) end

local i = 0 while i < 3 do i = i + 1 if i == 2 then break end end print(i)

local i = 0 repeat local j = i i = i + 1 until j >= 3 print(i) repeat break until false print("out")

for i = 1, 3 do last = i end print(last) for i = 3, 1, -1 do print(i) end for i = 1, 2, 0.5 do print(i) end for i = 1, 0 do print("never") end

for i = 1, 3 do local j = i i = 10 print(j, i) end

print(pcall(function() for i = "a", 2 do end end) == false, pcall(function() for i = 1, {} do end end) == false, pcall(function() for i = 1, 2, nil do end end) == false)

for i = 1, math.huge do if i > 5 then break end print(i) end for i = -math.huge, 1 do print(i) break end

for i = 0.1, 0.35, 0.1 do print(i) end local n = 0 for i = 1, 1.999999 do n = n + 1 end print(n)

local n = 0 for i = 1, 3 do for j = 1, 3 do if j == 2 then break end n = n + 1 end end print(n)

local function iter(s, c) if c < s then return c + 1, c * 2 end end for a, b in iter, 3, 0 do print(a, b) end

for k, v in next, {10, 20} do print(k, v) end for i, v in ipairs({1, 2, nil, 4}) do print(i, v) end for k in pairs({}) do print(k) end

for a, b, c in function(s, c) if c == nil then return 1, 2, 3 end end do print(a, b, c) end

print(pcall(function() for i in 5 do end end) == false, pcall(function() for i in nil do end end) == false)

local fs = {} for i = 1, 3 do fs[i] = function() i = i + 1 return i end end print(fs[1](), fs[1](), fs[2](), fs[3]())

local fs = {} local i = 0 while i < 3 do i = i + 1 local j = i fs[i] = function() j = j + 10 return j end end print(fs[1](), fs[1](), fs[2]())

local function counter() local n = 0 return function() n = n + 1 return n end, function() return n end end local inc, get = counter() inc() inc() print(get()) local inc2, get2 = counter() print(inc2(), get(), get2())

local a = {} for i = 1, 10 do local x = i a[i] = {get = function() return x end, set = function(v) x = v end} end a[3].set(99) print(a[3].get(), a[4].get())

local function fact(n) return n <= 1 and 1 or n * fact(n - 1) end print(fact(10), fact(20)) local fib fib = function(n) if n < 2 then return n end return fib(n - 1) + fib(n - 2) end print(fib(15))

local function even(n) if n == 0 then return true end return odd(n - 1) end function odd(n) if n == 0 then return false end return even(n - 1) end print(even(10), odd(7))

local function loop(n) if n > 0 then return loop(n - 1) end return "done" end print(loop(100000))

local function sum(n) if n == 0 then return 0 end return n + sum(n - 1) end print(sum(150))

local s = 0 local function add(...) for i = 1, select("#", ...) do s = s + (select(i, ...)) end end add(1, 2, 3) add() print(s)

print((function(...) return select("#", ...) end)(unpack({1, nil, 3}, 1, 3)), (function() end)() == nil, (function() return end)() == nil, select("#", (function() end)()))

print(type(nil), type(1), type("x"), type({}), type(print), type(function() end), type(true), type(coroutine.create(function() end)))

local t = setmetatable({}, {__index = {x = 1}}) print(t.x, t.y, rawget(t, "x")) t.x = 2 print(t.x, getmetatable(t).__index.x)

local t = setmetatable({}, {__index = function(t, k) return k .. "?" end}) print(t.a, t[1], t[true] == nil)

local t = setmetatable({}, {__index = function(t, k) return tostring(k) .. "?" end}) print(t.a, t[1], t[true], rawget(t, "a"))

local log = {} local t = setmetatable({}, {__newindex = function(t, k, v) log[#log + 1] = k rawset(t, k, v) end}) t.a = 1 t.a = 2 t.b = 3 print(#log, t.a, t.b)

local store = {} local t = setmetatable({}, {__newindex = store}) t.a = 1 print(rawget(t, "a"), store.a)

local a = setmetatable({}, {__index = setmetatable({}, {__index = setmetatable({}, {__index = {deep = 5}})})}) print(a.deep, a.none)

local mt = {} for _, op in ipairs{"add", "sub", "mul", "div", "mod", "pow"} do mt["__" .. op] = function(a, b) return op .. type(a) .. type(b) end end local t = setmetatable({}, mt) print(t + 1, 1 - t, t * t, t / "x", "y" % t, t ^ nil, nil + t)

local t = setmetatable({}, {__unm = function(a) return type(a) end}) print(-t)

local t = setmetatable({}, {__concat = function(a, b) return type(a) .. "/" .. type(b) end}) print(t .. "x", "x" .. t, t .. t, 1 .. t, t .. 1, "a" .. "b" .. t, t .. "a" .. "b")

local mt = {__eq = function(a, b) return a.v == b.v end} local a, b, c = setmetatable({v = 1}, mt), setmetatable({v = 1}, mt), setmetatable({v = 2}, mt) print(a == b, a == c, a ~= b, a == 1, a ~= 1, rawequal(a, b)) local d = setmetatable({v = 1}, {__eq = mt.__eq}) print(a == d) local e = setmetatable({v = 1}, {__eq = function() return true end}) print(a == e)

local mt = {__lt = function(a, b) return a.v < b.v end} local a, b = setmetatable({v = 1}, mt), setmetatable({v = 2}, mt) print(a < b, b < a, a <= b, a > b, a >= b, b <= a)

local mt = {__lt = function(a, b) return true end, __le = function(a, b) return false end} local a, b = setmetatable({}, mt), setmetatable({}, mt) print(a < b, a <= b, a > b, a >= b)

print(pcall(function() return setmetatable({}, {__lt = function() return true end}) < 1 end) == false, pcall(function() return {} < {} end) == false, pcall(function() return 1 < "2" end) == false, pcall(function() return nil < 1 end) == false, pcall(function() return true < false end) == false)

local t = setmetatable({}, {__call = function(self, ...) return select("#", ...), ... end}) print(t(), t(1, 2)) print(pcall(t, 5))

local t = setmetatable({}, {__tostring = function(t) return "I am" end}) print(tostring(t), #tostring({}) > 6, tostring(print):match("^%a+"), tostring({}):match("^%a+"))

local t = setmetatable({}, {__metatable = "no"}) print(getmetatable(t), pcall(setmetatable, t, nil) == false) print(getmetatable("x").__index == string, getmetatable(5), getmetatable({}))

local t = setmetatable({}, {__mode = "k"}) t[{}] = 1 print(type(next(t))) local u = setmetatable({}, nil) print(getmetatable(u))

print(setmetatable({}, {}) ~= nil, pcall(setmetatable, {}) == false, pcall(setmetatable, {}, 1) == false, pcall(setmetatable, "x", {}) == false)

local t = setmetatable({1, 2, 3}, {__index = function(t, i) return i * 10 end}) print(t[1], t[4], #t) for i, v in ipairs(t) do print(i, v) end

local t = setmetatable({}, {__index = function(t, k) error("no " .. k, 0) end}) print(pcall(function() return t.x end))

print(pcall(error, "x")) print(pcall(error, "x", 0)) print(pcall(error, nil)) print(pcall(error, 5)) print(pcall(error, true)) print((select(2, pcall(error, {1})))[1])

print(pcall(function() error("msg", 0) end)) print(pcall(function() error() end)) print(select("#", pcall(error))) print(pcall(function() return 1, 2, nil end))

print(pcall(pcall, error, "x")) print(pcall(pcall) == false) print(pcall(nil) == false) print(pcall(5) == false) print(pcall(select, 2, "a", "b"))

print(xpcall(function() error("a", 0) end, function(m) return m .. "b", "c" end)) print(xpcall(function() return 1, 2 end, function() end)) print(xpcall(function() local x = nil; x() end, function(m) return type(m) end))

print(xpcall(error, function(m) return "handled", m end)) print(pcall(xpcall) == false)

print(select(2, xpcall(function() error({code = 7}) end, function(e) return e.code end)))

print(assert(1, 2, 3)) print(pcall(assert, false)) print(pcall(assert, nil, "m")) print(pcall(assert, false, {1}) == false) print(pcall(assert) == false) print(assert("s"))

local ok, e = pcall(function() local a = {} a.b.c = 1 end) print(ok, type(e)) local ok2, e2 = pcall(function() local a = "x" return a.b.c end) print(ok2) print(("x").y)

print(pcall(function() return 1 + nil end) == false, pcall(function() return {} .. "" end) == false, pcall(function() return #5 end) == false, pcall(function() return -{} end) == false, pcall(function() return nil .. "x" end) == false, pcall(function() return 2 ^ {} end) == false)

print(pcall(function() local x x() end) == false, pcall(function() ("x")() end) == false, pcall(function() nothing.x = 1 end) == false, pcall(function() nothing:m() end) == false, pcall(function() ({}):m() end) == false)

print("5" + 3, "5" * "2", 10 / "4", "0x10" + 0, " 5 " + 1, "1e1" + 0, pcall(function() return "5x" + 1 end) == false, pcall(function() return "" + 1 end) == false, "5" .. 3, -"5", "7" % 4, "2" ^ "3")

print(1 == 1.0, "1" == 1, 0 == -0, 1/0 == 1/0, 0/0 == 0/0, 0/0 ~= 0/0, {} == {}, nil == false, "a" == "a", print == print)

print(1e15, 123456789012, 0.1, -0.5, 1/3 * 3 == 1, 1e100, 2^31, 2^32, -2^31, 1e14 + 0.5)

print(10 % 3.5, -10 % 3.5, 10 % -3.5, 1e15 % 3, 5.5 % 1, -0.5 % 1, pcall(function() return 5 % 0 end))

print(tostring(1), tostring(-1), tostring(1.5), tostring("x"), tostring(nil), tostring(true), tostring(1e3), tostring(100000000000))

print(tonumber("10"), tonumber("0x1p4"), tonumber("1e"), tonumber("e1"), tonumber("."), tonumber("1."), tonumber(".1"), tonumber("+1"), tonumber("- 1"), tonumber("1 2"), tonumber("\t1\n"), tonumber("0x"), tonumber("0xg"), tonumber("1e+5"), tonumber("--1"))

print(tonumber("7", 8), tonumber("8", 8), tonumber("FF", 16), tonumber("0xFF", 16), tonumber("zz", 36), tonumber("1.5", 10), tonumber(" 11 ", 2), tonumber("", 10), tonumber("1e1", 16), tonumber(10, 2), tonumber("9", 36))

print(pcall(tonumber) == false, pcall(tonumber, "1", 1) == false, pcall(tonumber, "1", 37) == false, tonumber(true), tonumber({}), tonumber(print))

print(select("#"), select("#", 1, nil), select(1, "a", "b"), select(2, "a"), select(-2, 1, 2, 3), pcall(select, -5, 1) == false, pcall(select, 0) == false, pcall(select, "x") == false)

print(rawequal(1, 1), rawequal("a", "b"), rawequal({}, {}), rawget({5}, 1), rawset({}, 1, 2)[1], pcall(rawget, 1, 1) == false, pcall(rawset, {}) == false, pcall(rawset, {}, nil, 1) == false)

print(next({}), next({5}), next({5}, 1), type(next({x = 1})), pcall(next, 5) == false, pcall(next) == false)

print(unpack({1, 2, 3})) print(unpack({1, 2, 3}, 2)) print(unpack({1, 2, 3}, 2, 3)) print(unpack({}, 1, 2)) print(unpack({1}, 3)) print(unpack({1, 2}, 0, 1)) print(pcall(unpack) == false)

local t = {} for i = 1, 100 do t[i] = i end local n = 0 for k, v in pairs(t) do n = n + v t[k] = nil end print(n, next(t))

local t = {a = 1, b = 2, c = 3} for k in pairs(t) do t[k] = 5 end print(t.a, t.b, t.c)

local t = {} for i = 1, 10 do t[i] = i end for i = 1, 10 do t[i] = nil end print(#t, next(t)) t[1] = 1 print(#t)

local function f(n) if n == 0 then return end return n, f(n - 1) end print(f(5)) print(select("#", f(50)))

local x = (1 + 2) * 3 local y = (function() return 1, 2 end)() local z = ("abc"):upper() print(x, y, z)

local t = {n = 0} t.n = t.n + 1 t["n"] = t["n"] + 1 print(t.n) local a = {b = {c = {}}} a.b.c.d = 5 print(a.b["c"].d)

local a = {} local b = a b.x = 1 print(a.x, a == b) local function change(t) t.x = 2 t = {} t.x = 3 end change(a) print(a.x)

a = 1 local a = a + 1 print(a, _G.a) _G.b = 5 print(b) _G["c d"] = 6 print(_G["c d"]) print(_G._G == _G)

local s = "" for w in ("one two three"):gmatch("%a+") do s = w .. s end print(s) local n = select(2, ("aXbX"):gsub("X", "")) print(n)

print(({10, 20, 30})[2], ("abc"):sub(2, 2), (function() return {x = 1} end)().x, #("x" .. "y"), -(-1))

print(1 --[[inline]] + 2, "--not a comment")

local t = {f = function() return {g = function() return "chain" end} end} print(t.f().g(), t["f"]()["g"]())

local a, b = {}, {} a[1], b[1] = 1, 2 a, b = b, a print(a[1], b[1]) local t = {1, 2} t[1], t[2] = t[2], t[1] print(t[1], t[2])

local i = 1 local t = {} i, t[i] = i + 1, "x" print(i, t[1], t[2]) local x, y, z = (function() return 1, 2, 3 end)() print(x, y, z) x, y = 5 print(x, y)

local function v(...) return ... end local a, b, c, d = v(1, 2), v(3, 4) print(a, b, c, d) local e, f = v(), 7 print(e, f) print(v(1, 2), v(3, 4)) print((v(1, 2)), v(3, 4))

local r = {} for i = 1, 20 do r[#r + 1] = i % 15 == 0 and "FizzBuzz" or i % 3 == 0 and "Fizz" or i % 5 == 0 and "Buzz" or i end print(table.concat(r, " "))

local Animal = {} Animal.__index = Animal function Animal.new(n) return setmetatable({name = n}, Animal) end function Animal:speak() return self.name .. " speaks" end local Dog = setmetatable({}, {__index = Animal}) Dog.__index = Dog function Dog.new(n) local d = Animal.new(n) return setmetatable(d, Dog) end function Dog:bark() return self:speak() .. " woof" end print(Dog.new("Rex"):bark(), Animal.new("Cat"):speak(), Animal.new("x").bark)

local q = {first = 1, last = 0, items = {}} local function push(v) q.last = q.last + 1 q.items[q.last] = v end local function pop() local v = q.items[q.first] q.items[q.first] = nil q.first = q.first + 1 return v end push(1) push(2) print(pop()) push(3) print(pop(), pop(), pop())

local memo = setmetatable({}, {__mode = "v"}) local function fib(n) if memo[n] then return memo[n] end local r = n < 2 and n or fib(n - 1) + fib(n - 2) memo[n] = r return r end print(fib(60))

local sieve, primes = {}, {} for i = 2, 50 do if not sieve[i] then primes[#primes + 1] = i for j = i * i, 50, i do sieve[j] = true end end end print(unpack(primes))

local function perm(a, n, out) n = n or #a if n <= 1 then out[#out + 1] = table.concat(a) else for i = 1, n do a[n], a[i] = a[i], a[n] perm(a, n - 1, out) a[n], a[i] = a[i], a[n] end end end local out = {} perm({"a", "b", "c"}, nil, out) print(unpack(out))

local function hanoi(n, a, b, c) if n == 0 then return 0 end return hanoi(n - 1, a, c, b) + 1 + hanoi(n - 1, c, b, a) end print(hanoi(6, "a", "b", "c"))

local function map(t, f) local r = {} for i, v in ipairs(t) do r[i] = f(v) end return r end local function fold(t, f, a) for _, v in ipairs(t) do a = f(a, v) end return a end print(fold(map({1, 2, 3}, function(x) return x * x end), function(a, b) return a + b end, 0))

local x = 1 local function outer() local function inner() x = x + 1 return x end return inner end print(outer()(), outer()(), x)

local t = {} for i = 1, 300 do t["k" .. i] = i end local n = 0 for k, v in pairs(t) do n = n + v end print(n) for i = 1, 300 do t["k" .. i] = nil end print(next(t))

local a, b, c, d, e, f, g, h, i, j = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 local function all() return a + b + c + d + e + f + g + h + i + j end a = 100 print(all())

local t = {{1, 2}, {3, 4}} for i, row in ipairs(t) do for j, v in ipairs(row) do t[i][j] = v * 10 end end print(t[1][1], t[2][2]) local m = {} for i = 1, 3 do m[i] = {} for j = 1, 3 do m[i][j] = i * j end end print(m[2][3], m[3][3])

local ok, err = pcall(function() local function a() error("deep", 0) end local function b() a() end b() end) print(ok, err) local ok2, err2 = pcall(function() local ok, e = pcall(error, "inner", 0) error(e .. " outer", 0) end) print(err2)

local n = 0 for i = 1, 3 do local ok = pcall(function() if i == 2 then error() end n = n + i end) end print(n)

while true do if true then break end end repeat local x = 1 until x == 1 for i = 1, 2 do if i then break end end print("ok")

local function f() do return 1 end end print(f()) local function g(x) if x then return 1 else return 2 end end print(g(true), g(false)) local function h() while true do return 5 end end print(h())

local s = 0 for i = 10, 1, -3 do s = s * 100 + i end print(s) for i = 3, 1 do print("no") end for i = 1, 1 do print("once") end for i = -1, -3, -1 do print(i) end

return print("returned")

local n = 0 for v in pairs{1, 2} do n = n + 1 local u = (nil and {n}) or 5 if n > 5 then break end end print(n)

local n = 0 for v in pairs{1, 2} do u = nil and n or 1 n = n + 1 if n > 5 then break end end print(n, u)

local n = 0 while n < 3 do if nil then print("no") elseif false then print("no") else n = n + 1 end end print(n)

local n = 0 while n < 3 do while true do break end n = n + 1 end print(n) repeat while true do break end n = n + 1 until n > 5 print(n)

local n = 0 for v in pairs{1, 2, 3} do do do break end end n = n + 1 end print(n) for v in pairs{1, 2} do repeat break until n n = n + 1 end print(n)

local n = 0 for i, v in ipairs{1, 2, 3} do local x = true and v or 0 n = n + x end print(n) while (nil and n) or n < 20 do n = n + 5 end print(n)

local n = 0 while true do if n > 3 then break end n = n + 1 end print(n) while not nil do n = n + 1 if n > 9 then break end end print(n) while not 1 do print("no") end repeat n = n + 1 until not false print(n)

local function f() return 1, 2, 3 end print(nil or f()) print(true and f()) print(false and f()) print((nil or f())) local t = {nil or f(), 1 and f(), f()} print(#t) local function g(...) return nil or ... end print(g(4, 5)) print(not nil, not 1, not (nil and f()), nil == not 1)

if nil then print(1) else print(2) end if 1 then print(3) else print(4) end if not 1 then print(5) elseif "" then print(6) end if false then end if true then local x = 5 print(x) end

local function f(x) if true then return x end return 2 end print(f(1)) local function g(x) if nil then return x end return 2 end print(g(1)) local function h() while true do do return 5 end end end print(h())

for i = 1, 2 do if true then break end end for i = 1, 2 do for j = 1, 2 do do break end end print(i) end local n = 0 for k in pairs{a = 1, b = 2, c = 3} do repeat do break end until true n = n + 1 end print(n)
