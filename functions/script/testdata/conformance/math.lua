print(math.abs(-5), math.abs(5.5), math.ceil(1.2), math.ceil(-1.2), math.floor(1.8), math.floor(-1.2), math.sqrt(2), math.exp(1), math.log(10), math.log10(1000))

print(math.sin(1), math.cos(1), math.tan(1), math.asin(0.5), math.acos(0.5), math.atan(1), math.atan2(1, 2), math.atan2(-1, -1), math.sinh(1), math.cosh(1), math.tanh(1))

print(math.max(1), math.max(1, 2, 3), math.max(-1, -2), math.min(1, 2, 3), math.min(3), pcall(math.max) == false, pcall(math.min) == false, math.max("10", 9), math.max(1/0, 5), math.min(-1/0, 5))

print(math.fmod(7, 3), math.fmod(-7, 3), math.fmod(7, -3), math.fmod(5.5, 2), math.mod(7, 3), math.fmod(1, math.huge))

print(math.modf(3.7), math.modf(-3.7), math.modf(5), math.modf(0.5)) print(math.modf(1/0)) print(math.modf(-1/0))

print(math.frexp(8), math.frexp(0.1), math.frexp(-3), math.frexp(0), math.ldexp(0.5, 4), math.ldexp(1, -1), math.ldexp(1, 1000) > 1e300)

print(math.pow(2, 10), math.pow(2, 0.5), math.pow(-2, 2), math.deg(math.pi), math.rad(180), math.pi, math.huge)

print(math.floor(2^31 + 0.5), math.floor(-2^31 - 0.5), math.floor(1e15 + 0.5), math.ceil(1e15 - 0.5), math.floor(math.huge), math.floor(-0.5), math.ceil(0.5), math.floor("3.7"))

for i = 1, 50 do local a, b, c = math.random(), math.random(6), math.random(3, 5) if not (a >= 0 and a < 1 and b >= 1 and b <= 6 and b % 1 == 0 and c >= 3 and c <= 5) then print("bad", a, b, c) end end print("ok")

math.randomseed(1) local a, b = math.random(), math.random(100) math.randomseed(1) print(a == math.random(), b == math.random(100)) print(math.random(1), math.random(5, 5), pcall(math.random, 0) == false, pcall(math.random, 2, 1) == false, pcall(math.random, 1, 2, 3) == false)

print(pcall(math.abs) == false, pcall(math.abs, "x") == false, pcall(math.floor, {}) == false, pcall(math.floor, nil) == false, math.abs("-5"), math.abs(-0) == 0, math.sqrt("16"))

print(math.sqrt(-1) ~= math.sqrt(-1), math.log(0), math.log(-1) ~= math.log(-1), math.exp(1000), math.exp(-1000), math.fmod(1, 0) ~= math.fmod(1, 0), math.acos(2) ~= math.acos(2))

print(1e308 * 10, -1e308 * 10, 5 / 0, -5 / 0, 0 / 5, 2^1023 * 2, 2^-1080, 1/3, 100 / 3, 2^0.5, 10^2, 10^-2, (-8)^(1/3) ~= (-8)^(1/3))

print(7 - 10, 3 * -4, 10 / 4, 2^10, 7 % 4, 1e3 + 1e-3, 0.1 + 0.2 == 0.3, 1 - 0.9 == 0.1, 3 * 1.1)
