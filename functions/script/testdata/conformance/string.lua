print(("abc"):len(), #"é", ("abc"):upper(), ("ABC"):lower(), ("aé"):upper() == "Aé", ("abc"):reverse(), (""):reverse(), ("x"):rep(5), ("ab"):rep(0), ("ab"):rep(-5), (""):rep(100), ("x"):rep(2.9))

print(("hello"):sub(1, 1), ("hello"):sub(-1), ("hello"):sub(2), ("hello"):sub(0), ("hello"):sub(3, -2), ("hello"):sub(-3, -2), ("hello"):sub(5, 2), ("hello"):sub(100), ("hello"):sub(-100), ("hello"):sub(2, 1e10), ("hello"):sub(-1e10, 2), ("hello"):sub("2", "3"), ("hello"):sub(1.9, 2.9))

print(("A"):byte(), ("ABC"):byte(2), ("ABC"):byte(-1), ("ABC"):byte(1, 3), ("ABC"):byte(10), ("ABC"):byte(0), ("ABC"):byte(0, 1), (""):byte(), ("\0\255"):byte(1, 2), ("ABC"):byte(2, 1), ("ABC"):byte(-2, -1))

print(string.char(), string.char(65), string.char(65, 66, 0, 255):byte(1, -1), pcall(string.char, 256) == false, pcall(string.char, -1) == false, pcall(string.char, "x") == false, string.char("65"), string.char(65.9))

print(("a,b,c"):find(","), ("a,b,c"):find(",", 3), ("a,b,c"):find(",", -1), ("abc"):find("b", 1, true), ("a.c"):find(".", 1, true), ("a.c"):find("%."), ("abc"):find(""), ("abc"):find("", 4), ("abc"):find("", 5), ("abc"):find("", 10), (""):find(""), (""):find("x"), ("abc"):find("c", -1), ("abc"):find("a", -1), ("abc"):find("a", -10), ("abc"):find("b", 0))

print(("hello world"):match("o"), ("hello"):match("l+"), ("hello"):match("(h)(e)"), ("hello"):match("x"), ("hello"):match("()ll()"), ("hello"):match("^h"), ("hello"):match("^e"), ("hello"):match("o$"), ("hello"):match("l$"), ("hello"):match(".-"), ("hello"):match(".*"), ("hello"):match("", 3), ("hello"):match("l", 4), ("key=val"):match("(%w+)=(%w+)"))

print(("%d"):match("%%d"), ("a+b"):match("a%+b"), ("a.b"):match("a%.b"), ("[x]"):match("%[x%]"), ("a-b"):match("a%-b"), ("a*b"):match("a%*b"), ("a?b"):match("a%?b"), ("^a"):match("%^a"), ("a$"):match("a%$"), ("a$b"):match("a$b"), ("a^b"):match("a^b"), ("(a)"):match("%(a%)"))

for _, c in ipairs{"a", "c", "d", "l", "p", "s", "u", "w", "x", "z"} do local s, n = "", 0 for i = 0, 127 do if string.char(i):match("%" .. c) then n = n + 1 s = s .. i .. " " end end print(c, n, s) local m = 0 for i = 0, 127 do if string.char(i):match("%" .. c:upper()) then m = m + 1 end end print(m) end

print(("abc"):match("[a-b]+"), ("abc"):match("[^a]+"), ("a]b"):match("[]]"), ("a]b"):match("[^]]+"), ("a-b"):match("[a-]+"), ("a-b"):match("[-a]+"), ("a^b"):match("[b^]+"), ("x5_"):match("[%w_]+"), ("a.b"):match("[%.a]+"), ("z"):match("[%a-z]"), ("-"):match("[%a-z]"), ("5"):match("[^%D]"), ("\0a"):match("[%z]") == "\0", ("é"):match("[\128-\255]+") == "é")

print(("aaa"):match("a?"), ("aaa"):match("a*"), ("aaa"):match("a+"), ("aaa"):match("a-"), ("aaab"):match("a-b"), ("aaa"):match("^a-$"), (""):match("a*"), ("b"):match("a+"), ("aXb"):match("a.b"), ("ab"):match("a.?b"), ("a\nb"):match("a.b") ~= nil)

print(("THE (quick) fox"):find("%((%a+)%)"), ("f(a(b)c)"):match("%b()"), ("x[[y]]z"):match("%b[]"), ("((a)"):match("%b()"), ("<<>>"):match("%b<>"), ("aab"):match("%bab"), ("abab"):match("(ab)%1"), ("abba"):match("(a)(b)%2%1"), ("hello"):match("(l)%1"), ("x=x"):match("(%w)=%1"), ("x=y"):match("(%w)=%1"))

print(("THE (quick) fox"):gsub("%f[%a]%a+", "w"), ("hello world"):find("%f[%w]%w+", 2), ("[[x]]"):match("%f[x]x"), ("x"):find("%f[%z]"), ("aXb"):gsub("%f[%u]", "|"))

print(("abc"):gsub("b", "x"), ("abc"):gsub("", "-"), ("abc"):gsub(".", "%0%0"), ("abc"):gsub("(a)(b)", "%2%1"), ("abc"):gsub("b", "%%"), ("hello"):gsub("l", "L", 1), ("hello"):gsub("l", "L", 0), ("hello"):gsub("l", "L", -1), ("hello"):gsub("x", "y"), ("abc"):gsub("%w", "%0,"), ("abc"):gsub("^a", "x"), ("aaa"):gsub("^a", "x"), ("abc"):gsub("c$", "x"), ("abc"):gsub("$", "x"))

print(("hello world"):gsub("%w+", "<%0>"), ("a b"):gsub("(%w) (%w)", "%2 %1"), ("x"):gsub("x", "%1"), ("x"):gsub("x", "a%%b"), ("x"):gsub("(x)", "%1%1"), pcall(string.gsub, "x", "x", "%2") == false, ("x y"):gsub("%s", ""), ("  x  "):gsub("^%s+", ""))

print(("abc"):gsub("%w", {a = "1", b = true}) == nil)

print(pcall(string.gsub, "abc", "%w", {a = "1", b = true}) == false, ("abc"):gsub("%w", {a = "1", b = false}), ("abc"):gsub("%w", {a = 1}), ("abc"):gsub("(%w)(%w)", {a = "x"}), ("$name is $age"):gsub("%$(%w+)", {name = "Bob", age = 5}))

print(("abc"):gsub("%w", function(c) return c:upper() end), ("abc"):gsub("%w", function() end), ("abc"):gsub("%w", function() return false end), ("abc"):gsub("(a)(b)", function(x, y) return y .. x end), ("abc"):gsub("%w", function() return 5 end), pcall(string.gsub, "abc", "%w", function() return {} end) == false, ("abc"):gsub("()", function(p) return p end))

print(pcall(string.gsub, "x", "x") == false, pcall(string.gsub, "x", "x", nil) == false, pcall(string.gsub, "x", "x", true) == false, ("x"):gsub("x", 5), ("x1"):gsub(1, 2))

local n = 0 print(("aaa"):gsub("a", function() n = n + 1 if n == 2 then return "b" end end)) print(n) print(pcall(string.gsub, "abc", ".", function(c) error("stop " .. c, 0) end))

for w in ("one two  three"):gmatch("%a+") do print(w) end for k, v in ("a=1,b=2"):gmatch("(%w)=(%w)") do print(k, v) end for p in ("ab"):gmatch("()") do print(p) end for x in ("abc"):gmatch("") do print(x) end for x in (""):gmatch("a*") do print("empty", x) end

for w in ("hello"):gmatch("^h") do print("anchor", w) end local it = ("a b"):gmatch("%a") print(it(), it(), it(), it()) for w in string.gfind("x y", "%a") do print(w) end

print(pcall(string.find, "a", "[a") == false, pcall(string.find, "a", "(a") == false, pcall(string.find, "a", "a)") == false, pcall(string.find, "a", "%") == false, pcall(string.find, "a", "%b") == false, pcall(string.find, "a", "%bx") == false, pcall(string.find, "a", "%f") == false, pcall(string.find, "a", "%1") == false, pcall(string.find, "a", "[%") == false, pcall(string.find, "a", "[]") == false, pcall(string.find, "a", "[^]") == false, pcall(string.find, "ab", "(a)%2") == false)

print(("a"):find("a-"), ("a"):find("*"), ("*"):find("*"), ("+"):find("+"), ("?a"):find("?"), ("-"):find("-"), ("a"):find("a]"), ("a]"):find("a]"), ("a}"):find("}"), ("a"):find("^"), (""):find("^$"), ("a"):find("^$"), ("a$"):find("$$"), ("x"):find("$"), ("^x"):find("^^"))

print(("x"):rep(32):match(("(x)"):rep(32)), pcall(string.match, ("x"):rep(33), ("(x)"):rep(33)) == false)

print(string.format("%d", 5), string.format("%5d|%-5d|%05d|%+d|% d", 5, 5, 5, 5, 5), string.format("%.3d", 5), string.format("%d", -5), string.format("%d", 2^31), string.format("%d", 3.99), string.format("%d", -3.99), string.format("%d", "42"), string.format("%i", 7), string.format("%u", 7), string.format("%d", 1e15))

print(string.format("%x %X %o", 255, 255, 8), string.format("%#x %#X %#o", 255, 255, 8), string.format("%08x", 255), string.format("%x", 2^32), string.format("%-8x|", 255), string.format("%.4x", 255), string.format("%x", 0), string.format("%#x", 0), string.format("%x", -1), string.format("%o", -1), string.format("%u", -1))

print(string.format("%f %f", 1, -1.5), string.format("%.2f %.0f %.10f", 1.005, 2.5, 1/3), string.format("%10.3f|%-10.3f|%010.3f|%+.1f", 3.14159, 3.14159, 3.14159, 3.14159), string.format("%#.0f", 3), string.format("% f", 1), string.format("%f", 1e15), string.format("%.3f", 1e20))

print(string.format("%e %E", 12345.678, 0.00012), string.format("%.0e %.2e", 12345, 12345), string.format("%12.2e|%-12.2e|", 1.5, 1.5), string.format("%g %g %g %g", 1, 1.5, 1e10, 1e-5), string.format("%g %g %g", 100000, 1000000, 0.0001), string.format("%.3g %.10g", 1234.5678, 1234.5678), string.format("%#g", 1), string.format("%G", 1e-10), string.format("%g", 0), string.format("%.17g", 0.1), string.format("%5g|%-5g|%05g", 1, 1, 1))

print(string.format("%g %f %e %d", 1/0, 1/0, 1/0, 0), string.format("%g %5.1f", -1/0, -1/0), string.format("%G %E", 1/0, -1/0), string.format("%+g % g", 1/0, 1/0), string.format("%10g|%-10g|", 1/0, 1/0))

print(string.format("%s %s %s", "a", 1, 1.5), string.format("%5s|%-5s|", "ab", "ab"), string.format("%.2s|%5.1s|", "abc", "abc"), string.format("%s%s", "", ""), string.format("%10s", "long string here"), string.format("%s", ("x"):rep(200)):len())

print(string.format("%q", 'a "b" \\ c'), string.format("%q", "line\nnext"), string.format("%q", "\r\0001\0x"), string.format("%q", ""), string.format("%q", "tab\t"), string.format("%q", "é"), pcall(string.format, "%q") == false)

print(string.format("%c%c%c", 72, 105, 33), string.format("%c", 0):len(), string.format("%5c|%-5c|", 65, 65), string.format("%%"), string.format("100%%"), string.format("%5%") , string.format("no directives"), string.format(""))

print(pcall(string.format) == false, pcall(string.format, "%d") == false, pcall(string.format, "%d", "x") == false, pcall(string.format, "%d", {}) == false, pcall(string.format, "%y", 1) == false, pcall(string.format, "%") == false, pcall(string.format, "%100d", 1) == false, pcall(string.format, "%.100d", 1) == false, pcall(string.format, "%0000000d", 1) == false, pcall(string.format, "%s") == false, pcall(string.format, "%c", "x") == false)

print(("x"):upper():lower():rep(2):sub(1, 1), ("%d items"):format(5), #("%5s"):format("é"), ("a"):byte() + 1, ("5"):rep(3) + 1, ("abc" .. 1):upper())

print(pcall(string.rep) == false, pcall(string.rep, "x") == false, pcall(string.rep, {}, 1) == false, pcall(string.sub) == false, pcall(string.sub, "x") == false, pcall(string.len) == false, pcall(string.upper) == false, pcall(string.byte) == false, pcall(string.find, "x") == false, pcall(string.reverse, nil) == false, string.len(12345), string.upper(5))

print(("\65\066\x"):byte(1, -1)) print("tab\tq", "nul\0x", "\\n", "\"", '\'', "a\
b")

local s = "" for i = 0, 255 do s = s .. string.char(i) end print(#s, s:byte(1), s:byte(256), s:upper():byte(98), s:lower():byte(66), s:reverse():byte(1), #s:rep(2), s:find("\255", 1, true), s:find("%z"))

print(("one;two;;four"):gsub(";;", ";nil;"), ("CSV,line,"):gsub("([^,]*),?", "<%1>"), ("a.b.c"):gsub("%.", "/"), ("path/to/file.txt"):match("([^/]+)%.(%w+)$"), ("2024-01-15T10:30:00Z"):match("(%d+)-(%d+)-(%d+)T(%d+):(%d+):(%d+)"))

print(("  trim me  "):match("^%s*(.-)%s*$") .. "|", ("camelCaseString"):gsub("%u", function(c) return "_" .. c:lower() end), ("%41%42"):gsub("%%(%x%x)", function(h) return string.char(tonumber(h, 16)) end), ("a b&c"):gsub("[^%w]", function(c) return ("%%%02X"):format(c:byte()) end))

print(("zigbee2mqtt/kitchen/set"):match("^zigbee2mqtt/([^/]+)/set$"), ("T:21.5C H:40%"):match("T:([%d.]+)C H:(%d+)%%"), ("+QMTRECV: 0,1,\"a/b\",\"23.5\""):match('"([^"]*)","([^"]*)"'), ("0x1F 0xZZ"):gsub("0x%x+", function(h) return tonumber(h) end))

print(("x"):find("x", 2), ("x"):find("x", 1e10), ("xx"):find("x", 2), ("xx"):find("x", 2.5), ("hello"):find("l", "3"), ("hello"):find(5), ("h5"):find(5))

print(("abc"):find("b", nil), ("abc"):find("b", nil, nil), ("a.c"):find(".", nil, true), ("abc"):match("b", nil), ("abc"):sub(2, nil), ("abc"):byte(nil))

print(tostring("x") == "x", ("x") .. ("y"), "a" .. 1 .. 2.5 .. "b", 1 .. "", "x" < "y", "abc" < "abd", "" == "", "a" ~= "b", #tostring(12345))
