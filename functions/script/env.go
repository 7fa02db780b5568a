package script

import (
	lua "github.com/yuin/gopher-lua"
)

// builtin is a function that Lua can call: it takes its arguments from L, pushes its results and returns how many they are.
type builtin func(r *run, L *lua.LState) int

// library is what one global name stands for: a table of functions and values, or, with call alone, a function.
type library struct {
	call    *lua.LFunction // the global itself, or what calling the table does
	names   []string       // in order, of members
	members []*lua.LFunction
	values  func(r *run, t *lua.LTable) // more members, made for each run
}

// libraries are all globals by name. They are made once for a Machine and never change; scripts get tables of their own.
type libraries map[string]*library

// makeLibraries lists everything that a script can call. This is the place to look for what exists.
func (m *Machine) makeLibraries() libraries {
	libs := libraries{}
	for name, f := range baseFunctions() {
		libs[name] = &library{call: m.wrap(f)}
	}
	for name, f := range hostFunctions() {
		libs[name] = &library{call: m.wrap(f)}
	}
	m.table(libs, "string", stringFunctions(), nil)
	m.table(libs, "table", tableFunctions(), nil)
	m.table(libs, "math", mathFunctions(), mathValues)
	m.table(libs, "os", osFunctions(), nil)
	m.table(libs, "coroutine", coroutineFunctions(), nil)
	m.table(libs, "json", jsonFunctions(), jsonValues)
	m.table(libs, "base64", base64Functions(), nil)
	m.table(libs, "hash", hashFunctions(), nil)
	m.table(libs, "bit32", bitFunctions(), nil)
	m.table(libs, "utf8", utf8Functions(), utf8Values)
	m.table(libs, "state", stateFunctions(keyState), nil)
	m.table(libs, "shared", stateFunctions(sharedState), nil)
	m.table(libs, "timer", timerFunctions(), nil)
	m.table(libs, "device", deviceFunctions(), nil)
	m.table(libs, "stream", streamFunctions(), nil)
	m.table(libs, "log", logFunctions(), nil)
	libs["log"].call = m.wrap(logCall)
	return libs
}

func (m *Machine) table(libs libraries, name string, functions map[string]builtin, values func(*run, *lua.LTable)) {
	l := &library{values: values}
	for n, f := range functions {
		l.names = append(l.names, n)
		l.members = append(l.members, m.wrap(f))
	}
	libs[name] = l
}

// wrap makes a Lua function that works for whichever run is under way. It has no upvalues and Lua cannot change it, so
// that runs share it.
func (m *Machine) wrap(f builtin) *lua.LFunction {
	return &lua.LFunction{IsG: true, GFunction: func(L *lua.LState) int { return f(m.now, L) }}
}

// isTable says whether the global is a table.
func (l *library) isTable() bool { return l.names != nil }

// installGlobals makes the globals of a run: those whose names occur in the bundle. A name that does not occur cannot be reached, unless
// _G does, for which all are made.
func (r *run) installGlobals() {
	r.arrays.RawSetString(arrayMark, lua.LTrue)
	r.L.G.Global.RawSetString(concatName, r.m.help.concat)
	all := false
	for _, name := range r.prog.globals {
		all = all || name == "_G"
	}
	if all {
		for name := range r.m.libs {
			r.install(name)
		}
		r.install("signal")
		r.L.G.Global.RawSetString("_G", r.L.G.Global)
	} else {
		for _, name := range r.prog.globals {
			r.install(name)
		}
	}
	r.installStringMethods()
}

// install makes one global, if we have one of that name.
func (r *run) install(name string) {
	if name == "signal" {
		r.L.G.Global.RawSetString(name, r.signalTable())
		return
	}
	if name == "_VERSION" {
		r.L.G.Global.RawSetString(name, lua.LString("Lua 5.1"))
		return
	}
	l := r.m.libs[name]
	if l == nil || r.L.G.Global.RawGetString(name) != lua.LNil {
		return
	}
	if !l.isTable() {
		r.L.G.Global.RawSetString(name, l.call)
		return
	}
	r.L.G.Global.RawSetString(name, r.openLibrary(l))
}

func (r *run) openLibrary(l *library) *lua.LTable {
	t := r.L.CreateTable(0, len(l.names))
	for i, n := range l.names {
		t.RawSetString(n, l.members[i])
	}
	if l.values != nil {
		l.values(r, t)
	}
	if l.call != nil {
		mt := r.L.CreateTable(0, 1)
		mt.RawSetString("__call", l.call)
		t.Metatable = mt
	}
	return t
}

// installStringMethods gives strings their methods, and arithmetic that reads numbers as Lua does. The metatable belongs to the run, and a
// script sees only a copy of what it holds.
func (r *run) installStringMethods() {
	str, ok := r.L.G.Global.RawGetString("string").(*lua.LTable)
	if !ok {
		str = r.openLibrary(r.m.libs["string"])
	}
	mt := r.L.CreateTable(0, 8)
	mt.RawSetString("__index", str)
	for event, f := range r.m.help.operators {
		mt.RawSetString(event, f)
	}
	front := r.L.CreateTable(0, 1)
	front.RawSetString("__index", str)
	mt.RawSetString("__metatable", front)
	r.L.SetMetatable(lua.LString(""), mt)
}
