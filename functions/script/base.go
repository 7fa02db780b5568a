package script

import (
	"fmt"
	"math"
	"strings"

	lua "github.com/yuin/gopher-lua"
)

// baseFunctions are the functions without a table that Lua itself has, but for those that load code or reach behind the scenes:
// dofile, loadfile, load, loadstring, module, collectgarbage, newproxy, getfenv, setfenv and gcinfo are not there.
func baseFunctions() map[string]builtin {
	return map[string]builtin{
		"assert":       baseAssert,
		"error":        baseError,
		"getmetatable": baseGetMetatable,
		"ipairs":       baseIpairs,
		"next":         baseNext,
		"pairs":        basePairs,
		"pcall":        basePcall,
		"print":        basePrint,
		"rawequal":     func(_ *run, L *lua.LState) int { L.Push(lua.LBool(L.RawEqual(L.CheckAny(1), L.CheckAny(2)))); return 1 },
		"rawget":       func(_ *run, L *lua.LState) int { L.Push(L.CheckTable(1).RawGet(L.CheckAny(2))); return 1 },
		"rawset":       baseRawset,
		"require":      baseRequire,
		"select":       baseSelect,
		"setmetatable": baseSetMetatable,
		"tonumber":     baseTonumber,
		"tostring":     baseTostring,
		"type":         func(_ *run, L *lua.LState) int { L.Push(lua.LString(L.CheckAny(1).Type().String())); return 1 },
		"unpack":       baseUnpack,
		"xpcall":       baseXpcall,
	}
}

func baseAssert(_ *run, L *lua.LState) int {
	if lua.LVAsBool(L.CheckAny(1)) {
		return L.GetTop()
	}
	if L.GetTop() < 2 || L.Get(2) == lua.LNil {
		L.Error(lua.LString("assertion failed!"), 0)
	}
	L.Error(L.Get(2), 0)
	return 0
}

// baseError puts the position of the caller of the function that calls it, at level 2, where the library's own puts that of the function.
func baseError(_ *run, L *lua.LState) int {
	v := L.Get(1)
	level := optInt(L, 2, 1)
	if s, ok := plainText(v); ok && level > 0 && level < maxFrames {
		v = lua.LString(positionAt(L, level) + s)
	}
	L.Error(v, 0)
	return 0
}

// positionAt is "main.lua:12: " for the function at a level of the stack, 0 being the built-in function that asks; "" if that is not Lua.
func positionAt(L *lua.LState, level int) string {
	dbg, ok := L.GetStack(level)
	if !ok {
		return ""
	}
	if _, err := L.GetInfo("Sl", dbg, nil); err != nil || dbg.Source == "" || dbg.CurrentLine <= 0 {
		return ""
	}
	return fmt.Sprintf("%s:%d: ", dbg.Source, dbg.CurrentLine)
}

func baseGetMetatable(r *run, L *lua.LState) int {
	if L.CheckAny(1).Type() == lua.LTString {
		L.Push(r.stringFront())
		return 1
	}
	L.Push(L.GetMetatable(L.CheckAny(1)))
	return 1
}

func baseSetMetatable(_ *run, L *lua.LState) int {
	t := L.CheckTable(1)
	L.CheckAny(2)
	L.CheckTypes(2, lua.LTNil, lua.LTTable)
	if old, ok := t.Metatable.(*lua.LTable); ok && old.RawGetString("__metatable") != lua.LNil {
		L.RaiseError("cannot change a protected metatable")
	}
	L.SetMetatable(t, L.Get(2))
	L.SetTop(1)
	return 1
}

func baseRawset(_ *run, L *lua.LState) int {
	t := L.CheckTable(1)
	L.RawSet(t, L.CheckAny(2), L.CheckAny(3))
	L.SetTop(1)
	return 1
}

func baseNext(_ *run, L *lua.LState) int {
	t := L.CheckTable(1)
	k, v := t.Next(L.Get(2))
	for t == L.G.Global && (k == lua.LString(concatName) || k == lua.LString(allName)) { // no part of the language
		k, v = t.Next(k)
	}
	if k == lua.LNil {
		L.Push(lua.LNil)
		return 1
	}
	L.Push(k)
	L.Push(v)
	return 2
}

func basePairs(r *run, L *lua.LState) int {
	t := L.CheckTable(1)
	L.Push(r.m.libs["next"].call)
	L.Push(t)
	L.Push(lua.LNil)
	return 3
}

func baseIpairs(r *run, L *lua.LState) int {
	t := L.CheckTable(1)
	L.Push(r.m.help.ipairsStep)
	L.Push(t)
	L.Push(lua.LNumber(0))
	return 3
}

func ipairsStep(_ *run, L *lua.LState) int {
	i := L.CheckInt(2) + 1
	v := L.CheckTable(1).RawGetInt(i)
	if v == lua.LNil {
		return 0
	}
	L.Push(lua.LNumber(i))
	L.Push(v)
	return 2
}

// basePcall calls a function and catches its errors, but not what stops a script.
func basePcall(r *run, L *lua.LState) int {
	L.CheckAny(1)
	err := r.try(L, L.GetTop()-1)
	if err == nil {
		L.Insert(lua.LTrue, 1)
		return L.GetTop()
	}
	L.Push(lua.LFalse)
	L.Push(caught(err))
	return 2
}

// try calls the function that lies below n arguments, and leaves its results in their place. It returns the error, if there is one that a script
// may catch.
func (r *run) try(L *lua.LState, n int) error {
	L.Insert(r.m.help.trampoline, L.GetTop()-n)
	err := L.PCall(n+1, lua.MultRet, nil)
	if r.mustStop(L) {
		r.unwind(L)
	}
	return err
}

// trampoline calls its first argument with the others. It runs inside a protected call, which has replaced how errors are raised,
// and puts our own way back.
func trampoline(r *run, L *lua.LState) int {
	L.Panic = r.onPanic
	defer r.repanic(L)
	L.Call(L.GetTop()-1, lua.MultRet)
	return L.GetTop()
}

// caught is the error as a script gets it.
func caught(err error) lua.LValue {
	aerr, ok := err.(*lua.ApiError) //nolint:errorlint // PCall returns it bare
	if !ok {
		return lua.LString(err.Error())
	}
	if s, ok := aerr.Object.(lua.LString); ok {
		message, _ := plainer(string(s))
		return lua.LString(message)
	}
	return aerr.Object
}

func baseXpcall(r *run, L *lua.LState) int {
	handler := L.CheckAny(2)
	L.SetTop(1)
	err := r.try(L, 0)
	if err == nil {
		L.Insert(lua.LTrue, 1)
		return L.GetTop()
	}
	L.Push(handler)
	L.Push(caught(err))
	if err := r.try(L, 1); err != nil {
		L.Push(lua.LFalse)
		L.Push(caught(err))
		return 2
	}
	v := L.Get(1) // a handler has one result
	L.Push(lua.LFalse)
	L.Push(v)
	return 2
}

func baseSelect(_ *run, L *lua.LState) int {
	if s, ok := L.Get(1).(lua.LString); ok && s == "#" {
		L.Push(lua.LNumber(L.GetTop() - 1))
		return 1
	}
	n := checkInt(L, 1)
	count := L.GetTop() - 1
	switch {
	case n < 0 && -n <= count:
		return -n
	case n <= 0:
		L.ArgError(1, "index out of range")
	case n > count:
		return 0
	}
	return count - n + 1
}

func baseTonumber(_ *run, L *lua.LState) int {
	base := optInt(L, 2, 10)
	v := L.CheckAny(1)
	if base != 10 {
		if base < 2 || base > 36 {
			L.ArgError(2, "base out of range")
		}
		if n, ok := parseInBase(checkString(L, 1), base); ok {
			L.Push(lua.LNumber(n))
			return 1
		}
		L.Push(lua.LNil)
		return 1
	}
	if n, ok := toNumber(v); ok {
		L.Push(lua.LNumber(n))
		return 1
	}
	L.Push(lua.LNil)
	return 1
}

func baseTostring(r *run, L *lua.LState) int {
	L.Push(lua.LString(r.text(L, L.CheckAny(1))))
	return 1
}

// text is tostring: a value as text, by its metatable if that says how.
func (r *run) text(L *lua.LState, v lua.LValue) string {
	if s, ok := plainText(v); ok {
		return s
	}
	if f := L.GetMetaField(v, "__tostring"); f != lua.LNil {
		L.Push(f)
		L.Push(v)
		L.Call(1, 1)
		s, ok := plainText(L.Get(-1))
		L.Pop(1)
		if !ok {
			L.RaiseError("'__tostring' must return a string")
		}
		return s
	}
	return v.String()
}

// maxUnpack is how many values a built-in function returns at most; more would not fit the registers.
const maxUnpack = 8000

func baseUnpack(_ *run, L *lua.LState) int {
	t := L.CheckTable(1)
	from := optInt(L, 2, 1)
	to := optInt(L, 3, t.Len())
	if from > to {
		return 0
	}
	if n := uint64(int64(to)) - uint64(int64(from)); n >= maxUnpack {
		L.RaiseError("too many results to unpack")
	}
	n := to - from + 1
	for i := range n {
		L.Push(t.RawGet(lua.LNumber(from + i)))
	}
	return n
}

// basePrint logs, since a function has no terminal.
func basePrint(r *run, L *lua.LState) int {
	var b strings.Builder
	for i := 1; i <= L.GetTop() && b.Len() <= maxLogLine; i++ {
		if i > 1 {
			b.WriteByte('\t')
		}
		s := r.text(L, L.Get(i))
		b.WriteString(s[:min(len(s), maxLogLine+1)])
	}
	r.log(L, "info", b.String())
	return 0
}

// baseRequire loads a file of the bundle's lib/, once in a run.
func baseRequire(r *run, L *lua.LState) int {
	asked := L.CheckString(1)
	name := strings.TrimPrefix(strings.ReplaceAll(asked, "/", "."), "lib.")
	if v, ok := r.modules[name]; ok {
		if v == nil {
			L.RaiseError("lib/%s.lua requires itself, perhaps through another file", strings.ReplaceAll(name, ".", "/"))
		}
		L.Push(v)
		return 1
	}
	proto := r.prog.modules[name]
	if proto == nil {
		L.RaiseError("no module '%s': a function can require the files of its own lib/ only, and there is no lib/%s.lua",
			capped(asked, 60), capped(strings.ReplaceAll(name, ".", "/"), 60))
	}
	if r.modules == nil {
		r.modules = map[string]lua.LValue{}
	}
	r.modules[name] = nil
	L.Push(L.NewFunctionFromProto(proto))
	L.Push(lua.LString(name))
	L.Call(1, 1)
	v := L.Get(-1)
	if v == lua.LNil {
		v = lua.LTrue
	}
	r.modules[name] = v
	L.Push(v)
	return 1
}

// toNumber is a value as a number, if it is one or reads as one.
func toNumber(v lua.LValue) (float64, bool) {
	switch v := v.(type) {
	case lua.LNumber:
		return float64(v), true
	case lua.LString:
		return parseNumber(string(v))
	}
	if i, ok := asInteger(v); ok {
		return i.float(), true
	}
	return 0, false
}

// checkNumber is argument n, which must be a number or read as one.
func checkNumber(L *lua.LState, n int) float64 {
	v := L.Get(n)
	if f, ok := toNumber(v); ok {
		return f
	}
	L.ArgError(n, "number expected, got "+argType(L, n))
	return 0
}

// argType is the type of an argument, as messages name it.
func argType(L *lua.LState, n int) string {
	if n > L.GetTop() {
		return "no value"
	}
	return L.Get(n).Type().String()
}

// checkInt is argument n as a whole number; a fraction is cut off, and what is beyond an int becomes the nearest one.
func checkInt(L *lua.LState, n int) int { return toInt(checkNumber(L, n)) }

func optInt(L *lua.LState, n, or int) int {
	if L.Get(n) == lua.LNil {
		return or
	}
	return checkInt(L, n)
}

func toInt(f float64) int {
	switch {
	case f != f:
		return 0
	case f >= math.MaxInt32 && f >= float64(math.MaxInt):
		return math.MaxInt
	case f <= float64(math.MinInt):
		return math.MinInt
	}
	return int(f)
}

// plainText is a string, a number or an integer as text. ok is false for anything else.
func plainText(v lua.LValue) (s string, ok bool) {
	switch v := v.(type) {
	case lua.LString:
		return string(v), true
	case lua.LNumber:
		return numberText(float64(v)), true
	}
	if i, ok := asInteger(v); ok {
		return i.String(), true
	}
	return "", false
}

// isText says whether a value can stand where a text is expected.
func isText(v lua.LValue) bool {
	if lua.LVCanConvToString(v) {
		return true
	}
	_, ok := asInteger(v)
	return ok
}

// checkString is argument n, which must be a string or a number.
func checkString(L *lua.LState, n int) string {
	if s, ok := plainText(L.Get(n)); ok {
		return s
	}
	L.ArgError(n, "string expected, got "+argType(L, n))
	return ""
}

func optString(L *lua.LState, n int, or string) string {
	if L.Get(n) == lua.LNil {
		return or
	}
	return checkString(L, n)
}
