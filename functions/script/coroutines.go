package script

import (
	"reflect"
	"runtime"
	"strings"

	lua "github.com/yuin/gopher-lua"
)

const (
	maxCoroutines = 1000 // made by one invocation
	maxNested     = 100  // coroutines that wait for each other
	maxGoCalls    = 4000 // calls on the Go stack when one more coroutine is resumed from within another
)

// coroutineFunctions are the library coroutine: the one of gopher-lua, with bounds on how many there are and how deep they nest, and which hands on
// what stops a script.
func coroutineFunctions() map[string]builtin {
	create, resume := libraryCoroutine("create"), libraryCoroutine("resume")
	return map[string]builtin{
		"create": func(r *run, L *lua.LState) int { return r.newCoroutine(L, create) },
		"resume": func(r *run, L *lua.LState) int { return r.resume(L, resume) },
		"wrap": func(r *run, L *lua.LState) int {
			r.newCoroutine(L, create)
			thread := L.Get(-1)
			L.Push(L.NewFunction(func(L *lua.LState) int {
				L.Insert(thread, 1)
				return r.wrapped(L, resume)
			}))
			return 1
		},
		"yield":   coroutineYield,
		"status":  func(_ *run, L *lua.LState) int { L.Push(lua.LString(L.Status(L.CheckThread(1)))); return 1 },
		"running": coroutineRunning,
	}
}

// libraryCoroutine takes a function out of the library's own, which reach into the state where we cannot.
func libraryCoroutine(name string) lua.LGFunction {
	L := lua.NewState(lua.Options{SkipOpenLibs: true, RegistrySize: 256})
	defer L.Close()
	lua.OpenCoroutine(L)
	return L.Get(-1).(*lua.LTable).RawGetString(name).(*lua.LFunction).GFunction
}

func (r *run) newCoroutine(L *lua.LState, create lua.LGFunction) int {
	f := L.CheckFunction(1)
	if f.IsG {
		L.ArgError(1, "a Lua function expected")
	}
	if r.coroutines++; r.coroutines > maxCoroutines {
		L.RaiseError("more than %d coroutines in one invocation", maxCoroutines)
	}
	return create(L)
}

// resume runs a coroutine on top of the Go stack of the one that resumes it.
func (r *run) resume(L *lua.LState, resume lua.LGFunction) int {
	L.CheckThread(1)
	if r.nested >= maxNested || r.nested > 0 && stackDeeperThan(maxGoCalls) {
		L.RaiseError("stack overflow: coroutines wait for each other too deep")
	}
	thread := L.CheckThread(1)
	for waits := L.Parent; waits != nil; waits = waits.Parent {
		if waits == thread { // the library would go on in the middle of it
			L.Push(lua.LFalse)
			L.Push(lua.LString("cannot resume normal coroutine"))
			return 2
		}
	}
	if n := wantedOf(thread); n >= 0 {
		L.SetTop(1 + n)
	}
	r.nested++
	n := resume(L)
	r.nested--
	r.check(L)
	if n == 2 && L.Get(-2) == lua.LFalse {
		switch L.Get(-1) { // in the words of reference Lua
		case lua.LString("can not resume a dead thread"):
			L.Pop(1)
			L.Push(lua.LString(deadCoroutine))
		case lua.LString("can not resume a running thread"):
			L.Pop(1)
			L.Push(lua.LString("cannot resume running coroutine"))
		}
	}
	return n
}

const deadCoroutine = "cannot resume dead coroutine"

// stackDeeperThan says whether the Go stack has more than n calls.
func stackDeeperThan(n int) bool {
	var pc [1]uintptr
	return runtime.Callers(n, pc[:]) > 0
}

// wrapped is resume for coroutine.wrap: an error goes on to the caller.
func (r *run) wrapped(L *lua.LState, resume lua.LGFunction) int {
	n := r.resume(L, resume)
	if n > 0 && L.Get(-n) == lua.LFalse {
		v := L.Get(-n + 1)
		if v == lua.LString(deadCoroutine) {
			if where := L.Where(1); where != "" && !strings.HasPrefix(where, "[") { // called by Lua: reference Lua tells the line
				v = lua.LString(where + " " + deadCoroutine)
			}
		}
		L.Error(v, 0)
	}
	return n - 1
}

// coroutineYield checks that nothing but Lua lies between the coroutine's start and here: a yield out of pcall, sort, gsub or a metamethod would
// leave their Go part behind, and the coroutine could not go on.
func coroutineYield(_ *run, L *lua.LState) int {
	if i, ok := lastInstruction(L, 1); ok && i.op() == lua.OP_TAILCALL {
		L.RaiseError("to return what yield returns, call it by that name: return coroutine.yield(...)")
	}
	if !yieldable() {
		L.RaiseError("attempt to yield across a metamethod, an iterator or a built-in function like pcall, or outside of a coroutine")
	}
	return -1
}

// yieldable looks at the Go stack, since the library does not tell: the innermost loop of the VM must be the one in which a coroutine runs.
func yieldable() bool {
	var pcs [16]uintptr
	inLoop := false
	for _, pc := range pcs[:runtime.Callers(3, pcs[:])] {
		name := ""
		if f := runtime.FuncForPC(pc - 1); f != nil {
			name = f.Name()
		}
		if inLoop {
			return strings.HasSuffix(name, "gopher-lua.threadRun")
		}
		inLoop = strings.HasSuffix(name, "gopher-lua.mainLoopWithContext")
	}
	return false
}

// wantedOf is how many values a coroutine that is suspended in a call of yield takes from it, -1 for as many as there are. The library hands it
// all that it is resumed with, and none where there are none, whatever stood in those registers.
func wantedOf(thread *lua.LState) int {
	if i, ok := lastInstruction(thread, 0); ok && i.op() == lua.OP_CALL {
		return i.c() - 1
	}
	return -1
}

// lastInstruction is the one at which the Lua function stands that is so many levels above the top of the stack. The library does not tell.
func lastInstruction(L *lua.LState, level int) (instruction, bool) {
	frame := reflect.ValueOf(L).Elem().FieldByName("currentFrame")
	for ; level > 0 && !frame.IsNil(); level-- {
		frame = frame.Elem().FieldByName("Parent")
	}
	if frame.IsNil() {
		return 0, false
	}
	proto := frame.Elem().FieldByName("Fn").Elem().FieldByName("Proto")
	pc := int(frame.Elem().FieldByName("Pc").Int())
	if proto.IsNil() || pc < 1 {
		return 0, false
	}
	return instruction(proto.Elem().FieldByName("Code").Index(pc - 1).Uint()), true
}

func coroutineRunning(r *run, L *lua.LState) int {
	if L == r.L {
		L.Push(lua.LNil)
	} else {
		L.Push(L)
	}
	return 1
}
