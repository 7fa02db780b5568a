for _, f in ipairs{"%a", "%A", "%b", "%B", "%c", "%d", "%H", "%I", "%j", "%m", "%M", "%p", "%S", "%U", "%w", "%W", "%x", "%X", "%y", "%Y", "%%", "%D", "%e", "%F", "%G", "%h", "%n", "%R", "%r", "%t", "%T", "%u", "%V", "%s", "%g", "%C"} do for _, t in ipairs{0, 86399, 951782400, 1e9, 1234567890, 1735689599, 1735689600, 2^31} do print(f, t, os.date("!" .. f, t)) end end

local t = os.date("!*t", 1e9) print(t.year, t.month, t.day, t.hour, t.min, t.sec, t.wday, t.yday, t.isdst) local n = 0 for k in pairs(t) do n = n + 1 end print(n) local z = os.date("!*t", 0) print(z.year, z.yday, z.wday)

print(os.time{year = 2001, month = 9, day = 9, hour = 1, min = 46, sec = 40}, os.time{year = 1970, month = 1, day = 1, hour = 0}, os.time{year = 2024, month = 2, day = 29}, os.time{year = 2024, month = 14, day = -3, hour = 30, min = 100, sec = -5}, os.time{year = "2020", month = "1", day = "1"})

print(pcall(os.time, {}) == false, pcall(os.time, {year = 2000}) == false, pcall(os.time, {year = 2000, month = 1}) == false, pcall(os.time, 5) == false, type(os.time()), os.time() > 1.6e9, os.time() % 1 == 0)

print(type(os.clock()), os.clock() >= 0, os.difftime(10, 5), os.difftime(5), type(os.date()), #os.date("!%c", 0), os.date("!", 0), os.date("!plain", 0))

local t = os.date("!*t", 1234567890) print(os.time(t) == 1234567890, os.date("!%Y-%m-%dT%H:%M:%SZ", 1234567890), os.date("!%c", 1e9), os.date("!%x %X %p", 1e9))

for d = 0, 400, 7 do local t = 1.6e9 + d * 86400 print(os.date("!%U %W %V %G %j %u %w %a", t)) end

for d = -5, 5 do print(os.date("!%Y %j %U %W %V %G %g", 1735689600 + d * 86400), os.date("!%V %G", 1609459200 + d * 86400)) end
