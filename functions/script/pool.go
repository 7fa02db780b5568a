package script

import (
	"reflect"

	lua "github.com/yuin/gopher-lua"
)

// takeState returns a Lua state with nothing in it: the one of the last run, if that left nothing behind, or a new one. The tables that a script sees,
// the globals first of all, are new in either case; what is used again is the stack of calls and the registers, which
// are more than half of what a small run would allocate.
func (m *Machine) takeState() *lua.LState {
	L := m.spare
	m.spare = nil
	if L == nil {
		L = lua.NewState(lua.Options{SkipOpenLibs: true, CallStackSize: callDepth, MinimizeStackMemory: true,
			RegistrySize: registryStart, RegistryMaxSize: registryMax, RegistryGrowStep: registryStep})
		L.SetMetatable(lua.LString(""), m.help.strings)
	}
	globals := L.CreateTable(0, 8)
	L.G.Global, L.Env = globals, globals
	return L
}

// keepState keeps the state of a run that ended well and made no coroutines for the next run. What the script left in registers is
// overwritten.
func (m *Machine) keepState(L *lua.LState) {
	if registers(L) != registryStart {
		return
	}
	L.RemoveContext()
	L.SetTop(registryStart)
	L.SetTop(0)
	wipeFrames(L)
	L.G.Global, L.Env = nil, nil
	m.spare = L
}

// wipeFrames forgets the functions that were called last. Nothing can reach them, but with their upvalues and their globals they would stay in memory,
// and count as the next run's.
func wipeFrames(L *lua.LState) {
	segment := reflect.ValueOf(L).Elem().FieldByName("stack").Elem().Elem().FieldByName("segments").Index(0)
	reflect.NewAt(segment.Type().Elem(), segment.UnsafePointer()).Elem().SetZero()
}

// registers is how many registers a state has. They grow with the depth of calls and never shrink; the library does not tell.
func registers(L *lua.LState) int {
	return reflect.ValueOf(L).Elem().FieldByName("reg").Elem().FieldByName("array").Len()
}
