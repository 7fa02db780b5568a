package script

import (
	"math"
	"math/rand/v2"

	lua "github.com/yuin/gopher-lua"
)

// mathFunctions are the library math. Its random numbers come from the invocation's seed, so that another attempt gets the same.
func mathFunctions() map[string]builtin {
	f := map[string]builtin{
		"abs": unary(math.Abs), "acos": unary(math.Acos), "asin": unary(math.Asin), "atan": unary(math.Atan),
		"ceil": unary(math.Ceil), "cos": unary(math.Cos), "cosh": unary(math.Cosh), "exp": unary(math.Exp),
		"floor": unary(math.Floor), "log10": unary(math.Log10), "sin": unary(math.Sin), "sinh": unary(math.Sinh),
		"sqrt": unary(math.Sqrt), "tan": unary(math.Tan), "tanh": unary(math.Tanh),
		"deg":   unary(func(x float64) float64 { return x / (math.Pi / 180) }),
		"rad":   unary(func(x float64) float64 { return x * (math.Pi / 180) }),
		"atan2": binary(math.Atan2), "fmod": binary(math.Mod), "mod": binary(math.Mod), "pow": binary(math.Pow),
	}
	f["ldexp"] = binary(func(m, e float64) float64 { return math.Ldexp(m, toInt(e)) })
	f["frexp"] = func(_ *run, L *lua.LState) int {
		m, e := math.Frexp(checkNumber(L, 1))
		L.Push(lua.LNumber(m))
		L.Push(lua.LNumber(e))
		return 2
	}
	f["modf"] = mathModf
	f["log"] = mathLog
	f["max"] = func(_ *run, L *lua.LState) int { return extreme(L, func(a, b float64) bool { return a > b }) }
	f["min"] = func(_ *run, L *lua.LState) int { return extreme(L, func(a, b float64) bool { return a < b }) }
	f["random"] = mathRandom
	f["randomseed"] = mathRandomseed
	return f
}

func mathValues(_ *run, t *lua.LTable) {
	t.RawSetString("pi", lua.LNumber(math.Pi))
	t.RawSetString("huge", lua.LNumber(math.Inf(1)))
}

func unary(f func(float64) float64) builtin {
	return func(_ *run, L *lua.LState) int {
		L.Push(lua.LNumber(f(checkNumber(L, 1))))
		return 1
	}
}

func binary(f func(a, b float64) float64) builtin {
	return func(_ *run, L *lua.LState) int {
		L.Push(lua.LNumber(f(checkNumber(L, 1), checkNumber(L, 2))))
		return 1
	}
}

func mathModf(_ *run, L *lua.LState) int {
	x := checkNumber(L, 1)
	whole, part := math.Modf(x)
	if math.IsInf(x, 0) {
		whole, part = x, 0
	}
	L.Push(lua.LNumber(whole))
	L.Push(lua.LNumber(part))
	return 2
}

// mathLog takes a base as well, as later versions of Lua do.
func mathLog(_ *run, L *lua.LState) int {
	x := math.Log(checkNumber(L, 1))
	if L.Get(2) != lua.LNil {
		x /= math.Log(checkNumber(L, 2))
	}
	L.Push(lua.LNumber(x))
	return 1
}

func extreme(L *lua.LState, better func(a, b float64) bool) int {
	best := checkNumber(L, 1)
	for i := 2; i <= L.GetTop(); i++ {
		if v := checkNumber(L, i); better(v, best) {
			best = v
		}
	}
	L.Push(lua.LNumber(best))
	return 1
}

func mathRandom(r *run, L *lua.LState) int {
	x := r.random.Float64()
	if L.GetTop() == 0 {
		L.Push(lua.LNumber(x))
		return 1
	}
	if L.GetTop() > 2 {
		L.RaiseError("wrong number of arguments")
	}
	low, high := 1.0, math.Floor(checkNumber(L, 1))
	if L.GetTop() > 1 {
		low, high = high, math.Floor(checkNumber(L, 2))
	}
	if !(low <= high) {
		L.ArgError(min(L.GetTop(), 2), "interval is empty")
	}
	L.Push(lua.LNumber(math.Floor(x*(high-low+1)) + low))
	return 1
}

func mathRandomseed(r *run, L *lua.LState) int {
	r.random = rand.New(rand.NewPCG(math.Float64bits(checkNumber(L, 1)), 0))
	return 0
}
