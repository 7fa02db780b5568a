local co = coroutine.create(function(a, b) print("start", a, b) local c = coroutine.yield(a + b) print("got", c) local d, e = coroutine.yield(c * 2) print("got", d, e) return d + e, "end" end) print(coroutine.resume(co, 1, 2)) print(coroutine.status(co)) print(coroutine.resume(co, 10)) print(coroutine.resume(co, 3, 4)) print(coroutine.status(co)) print(coroutine.resume(co))

local gen = coroutine.wrap(function() for i = 1, 3 do coroutine.yield(i, i * i) end return "last" end) print(gen()) print(gen()) print(gen()) print(gen()) print(pcall(gen) == false)

local co = coroutine.create(function() error("oops", 0) end) print(coroutine.resume(co)) print(coroutine.status(co)) print(coroutine.resume(co) == false)

local co = coroutine.create(function() error({code = 5}) end) local ok, e = coroutine.resume(co) print(ok, e.code) local w = coroutine.wrap(function() error("wrapped", 0) end) print(pcall(w))

print(coroutine.running(), coroutine.status(coroutine.create(function() end))) local co co = coroutine.create(function() print(coroutine.running() == co, coroutine.status(co)) end) coroutine.resume(co)

local co1, co2 co1 = coroutine.create(function() coroutine.resume(co2) end) co2 = coroutine.create(function() print(coroutine.status(co1), coroutine.status(co2)) end) coroutine.resume(co1) print(coroutine.status(co1), coroutine.status(co2))

local co = coroutine.wrap(function(...) local n = select("#", ...) while true do n = select("#", coroutine.yield(n)) end end) print(co(), co(1), co(nil, nil), co(1, 2, 3))

print(pcall(coroutine.create) == false, pcall(coroutine.create, 5) == false, pcall(coroutine.resume, 5) == false, pcall(coroutine.status) == false, pcall(coroutine.wrap, nil) == false, pcall(coroutine.yield, 1) == false)

local co co = coroutine.create(function() return coroutine.resume(co) end) print(coroutine.resume(co)) 

local function gen(n) return coroutine.wrap(function() for i = 1, n do coroutine.yield(i) end end) end local t = {} for i in gen(5) do t[#t + 1] = i end print(unpack(t))

local function tree(t) if t then tree(t.l) coroutine.yield(t.v) tree(t.r) end end local t = {v = 2, l = {v = 1}, r = {v = 3}} local out = {} for v in coroutine.wrap(function() tree(t) end) do out[#out + 1] = v end print(unpack(out))

local function producer() return coroutine.create(function() for i = 1, 3 do coroutine.yield("item" .. i) end end) end local function filter(p) return coroutine.create(function() while true do local ok, v = coroutine.resume(p) if not v then return end coroutine.yield(v:upper()) end end) end local f = filter(producer()) for i = 1, 4 do print(coroutine.resume(f)) end

local a = coroutine.wrap(function() local b = coroutine.wrap(function() local c = coroutine.wrap(function() coroutine.yield("deep") end) coroutine.yield(c()) end) coroutine.yield(b()) end) print(a())

local co = coroutine.create(function() local ok, e = pcall(error, "inside", 0) coroutine.yield(ok, e) return "after" end) print(coroutine.resume(co)) print(coroutine.resume(co))

local co = coroutine.create(function() return pcall(coroutine.yield, 1) end) local ok, a, b = coroutine.resume(co) print(ok, a)

local x = 0 local co = coroutine.wrap(function() while true do x = x + 1 coroutine.yield() end end) for i = 1, 5 do co() end print(x)

local t = setmetatable({}, {__index = function(t, k) return k end}) local co = coroutine.wrap(function() coroutine.yield(t.a) return t.b end) print(co(), co())

local cos = {} for i = 1, 50 do cos[i] = coroutine.create(function() local s = 0 while true do s = s + i coroutine.yield(s) end end) end local sum = 0 for r = 1, 3 do for i = 1, 50 do local _, v = coroutine.resume(cos[i]) sum = sum + v end end print(sum)

local co = coroutine.create(function(...) return ... end) print(coroutine.resume(co, 1, nil, 3)) print(coroutine.resume(coroutine.create(function() end))) print(coroutine.resume(coroutine.create(function() return nil end)))

local function f(n) if n == 0 then coroutine.yield("bottom") return 0 end return 1 + f(n - 1) end local co = coroutine.wrap(function() return f(50) end) print(co(), co())

local up = 1 local co = coroutine.wrap(function() up = up + 1 coroutine.yield() up = up * 10 end) co() print(up) up = 5 co() print(up)

local order = {} local function task(name, n) return coroutine.create(function() for i = 1, n do order[#order + 1] = name .. i coroutine.yield() end end) end local tasks = {task("a", 2), task("b", 3)} while #tasks > 0 do for i = #tasks, 1, -1 do coroutine.resume(tasks[i]) if coroutine.status(tasks[i]) == "dead" then table.remove(tasks, i) end end end print(table.concat(order, " "))
