package script

import (
	"maps"
	"slices"

	lua "github.com/yuin/gopher-lua"
)

// builtin is a function that Lua can call: it takes its arguments from L, pushes its results and returns how many they are.
type builtin func(r *run, L *lua.LState) int

// library is what one global name stands for: a table of functions and values, or, with call alone, a function.
type library struct {
	call    *lua.LFunction // the global itself, or what calling the table does
	members map[string]*lua.LFunction
	names   []string                    // of the members, in order: pairs gives the same order to every run
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
	for name, f := range ofAnEvent(hostFunctions()) {
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
	m.table(libs, "bytes", bytesFunctions(), nil)
	m.table(libs, "bit32", bitFunctions(), nil)
	m.table(libs, "utf8", utf8Functions(), utf8Values)
	m.table(libs, "state", ofAnEvent(stateFunctions(keyState)), nil)
	m.table(libs, "shared", ofAnEvent(stateFunctions(sharedState)), nil)
	m.table(libs, "timer", ofAnEvent(timerFunctions()), nil)
	m.table(libs, "device", ofAnEvent(deviceFunctions()), nil)
	m.table(libs, "stream", ofAnEvent(streamFunctions()), nil)
	m.table(libs, "http", ofAnEvent(httpFunctions()), nil)
	m.table(libs, "secret", ofAnEvent(secretFunctions()), nil)
	m.table(libs, "log", logFunctions(), nil)
	libs["log"].call = m.wrap(logCall)
	return libs
}

func (m *Machine) table(libs libraries, name string, functions map[string]builtin, values func(*run, *lua.LTable)) {
	l := &library{members: map[string]*lua.LFunction{}, values: values}
	for n, f := range functions {
		l.members[n] = m.wrap(f)
	}
	l.names = slices.Sorted(maps.Keys(functions))
	libs[name] = l
}

// wrap makes a Lua function that works for whichever run is under way. It has no upvalues and Lua cannot change it, so
// that runs share it.
func (m *Machine) wrap(f builtin) *lua.LFunction {
	return &lua.LFunction{IsG: true, GFunction: func(L *lua.LState) int { return f(m.now, L) }}
}

// installGlobals makes the globals of a run: those whose names occur in the bundle, with the fields that occur behind them. What does not occur
// cannot be reached, unless _G does, for which all is made.
func (r *run) installGlobals() {
	r.L.G.Global.RawSetString(concatName, r.m.help.concat)
	for _, g := range r.prog.globals {
		if g.name == "_G" {
			r.installAll()
			return
		}
	}
	for _, g := range r.prog.globals {
		r.install(g)
	}
}

func (r *run) installAll() {
	for _, name := range slices.Sorted(maps.Keys(r.m.libs)) {
		r.install(global{name: name, all: true})
	}
	r.install(global{name: "signal"})
	r.install(global{name: "_VERSION"})
	r.L.G.Global.RawSetString("_G", r.L.G.Global)
}

// install makes one global, if we have one of that name.
func (r *run) install(g global) {
	var v lua.LValue
	switch l := r.m.libs[g.name]; {
	case g.name == "signal":
		v = r.signalTable()
	case g.name == allName:
		v = r.m.help.all
	case g.name == "_VERSION":
		v = lua.LString("Lua 5.1")
	case l == nil:
		return
	case g.name == "string":
		r.strings, r.stringsPart = r.open(l, g).(*lua.LTable), g.some
		v = r.strings
	default:
		v = r.open(l, g)
	}
	r.L.G.Global.RawSetString(g.name, v)
}

// open makes what a global stands for.
func (r *run) open(l *library, g global) lua.LValue {
	if l.members == nil {
		return l.call
	}
	t := r.L.CreateTable(0, len(g.some))
	values := g.all
	for _, n := range g.some {
		if f := l.members[n]; f != nil {
			t.RawSetString(n, f)
		} else {
			values = true
		}
	}
	if g.all {
		for _, n := range l.names {
			t.RawSetString(n, l.members[n])
		}
	}
	if values && l.values != nil {
		l.values(r, t)
	}
	if l.call != nil {
		mt := r.L.CreateTable(0, 1)
		mt.RawSetString("__call", l.call)
		t.Metatable = mt
	}
	return t
}

// stringMetatable gives strings their methods, and arithmetic that reads numbers as Lua does. No script can reach it, so that runs share it.
func (m *Machine) stringMetatable() *lua.LTable {
	mt := &lua.LTable{Metatable: lua.LNil}
	mt.RawSetString("__index", m.wrap(stringMethod))
	for _, op := range arithmetics() {
		mt.RawSetString(op.event, m.wrap(op.builtin))
	}
	return mt
}

// stringMethod finds a method of strings in the run's own table string.
func stringMethod(r *run, L *lua.LState) int {
	L.Push(L.GetTable(r.stringTable(), L.Get(2)))
	return 1
}

// stringTable is the run's own table string with all that is in it. Most runs get on without.
func (r *run) stringTable() *lua.LTable {
	l := r.m.libs["string"]
	if r.strings == nil {
		r.strings = r.L.CreateTable(0, len(l.members))
	} else if r.stringsPart == nil {
		return r.strings
	}
	for _, n := range l.names {
		if !slices.Contains(r.stringsPart, n) { // what the script can name it may have changed
			r.strings.RawSetString(n, l.members[n])
		}
	}
	r.stringsPart = nil
	return r.strings
}

// stringFront is what a script sees as the metatable of strings: it can be read, and not be set.
func (r *run) stringFront() *lua.LTable {
	if r.front == nil {
		fields, mt := r.L.CreateTable(0, 1), r.L.CreateTable(0, 2)
		fields.RawSetString("__index", r.stringTable())
		mt.RawSetString("__index", fields)
		mt.RawSetString("__newindex", r.m.help.fixed)
		r.front = r.L.CreateTable(0, 0)
		r.front.Metatable = mt
	}
	return r.front
}

// fixedMetatable is what happens when a script sets a field of the metatable of strings.
func fixedMetatable(_ *run, L *lua.LState) int {
	L.RaiseError("the metatable of strings cannot be changed; change the table string, or use a function")
	return 0
}
