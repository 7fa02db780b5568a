local t = {1, 2, 3} table.insert(t, 4) table.insert(t, 1, 0) table.insert(t, 3, 9) print(unpack(t)) table.insert(t, #t + 1, "end") print(t[#t])

local t = {} table.insert(t, "a") table.insert(t, 1, "b") print(t[1], t[2]) print(pcall(table.insert, t) == false, pcall(table.insert, nil, 1) == false, pcall(table.insert, t, "x", 1) == false)

local t = {1, 2, 3} print(table.remove(t), table.remove(t, 1), #t, table.remove(t, 1), table.remove(t), #t, table.remove(t, 1))

local t = {"a", "b", "c"} print(table.remove(t, 2), t[1], t[2], t[3], #t) print(table.remove({}), table.remove({}, 5), select("#", table.remove({})))

print(table.concat({}), table.concat({1}), table.concat({1, 2, 3}), table.concat({1, 2, 3}, ","), table.concat({1, 2, 3}, ", ", 2), table.concat({1, 2, 3}, "-", 2, 2), table.concat({1, 2, 3}, "-", 3, 2), table.concat({"a", 1.5, "b"}, " "))

print(pcall(table.concat, {1, nil, 3}, ",", 1, 3) == false, pcall(table.concat, {{}}) == false, pcall(table.concat, {true}) == false, pcall(table.concat) == false, table.concat({1, 2}, 5), pcall(table.concat, {}, {}) == false)

local t = {3, 1, 2} table.sort(t) print(unpack(t)) table.sort(t, function(a, b) return a > b end) print(unpack(t)) local u = {"b", "a", "C", "A", ""} table.sort(u) print(unpack(u)) table.sort({}) table.sort({1})

local t = {5, 3, 5, 1, 3, 3} table.sort(t) print(unpack(t)) local t = {} for i = 1, 200 do t[i] = (i * 7919) % 211 end table.sort(t) local ok = true for i = 2, #t do ok = ok and t[i - 1] <= t[i] end print(ok)

print(pcall(table.sort, {1, "x"}) == false, pcall(table.sort, {{}, {}}) == false, pcall(table.sort, {1, 2}, 5) == false, pcall(table.sort) == false)

local t = {{n = 2}, {n = 1}, {n = 3}} table.sort(t, function(a, b) return a.n < b.n end) print(t[1].n, t[2].n, t[3].n) print(pcall(table.sort, {3, 2, 1}, function() error("stop", 0) end))

local mt = {__lt = function(a, b) return a.v < b.v end} local t = {} for i, v in ipairs{3, 1, 2} do t[i] = setmetatable({v = v}, mt) end table.sort(t) print(t[1].v, t[2].v, t[3].v)

print(table.maxn({}), table.maxn({1, 2}), table.maxn({[10] = 1}), table.maxn({[1.5] = 1}), table.maxn({x = 1}), table.maxn({[-1] = 1}), pcall(table.maxn) == false)

print(table.getn({}), table.getn({1, 2, 3})) local n = 0 table.foreachi({1, 2, 3}, function(i, v) n = n + i * v end) print(n) print(table.foreachi({5, 6, 7}, function(i, v) if v == 6 then return i end end))

local n = 0 table.foreach({1, x = 2}, function(k, v) n = n + v end) print(n) print(table.foreach({a = 1}, function(k, v) return k end)) print(pcall(table.foreach, {}) == false)

local t = {1, 2, 3, 4} table.remove(t, 2) print(unpack(t)) table.insert(t, 2, "x") print(unpack(t)) while #t > 0 do table.remove(t, 1) end print(#t)

local t = setmetatable({}, {__index = function() return "x" end}) print(pcall(table.concat, t, ",", 1, 2) == false, #t)

local t = {n = 5} print(#t, t.n) t[1] = 1 print(#t) local u = {1, 2, 3} u[#u + 1] = 4 u[#u + 1] = 5 print(#u) u[#u] = nil print(#u)
