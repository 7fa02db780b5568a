package script

import (
	"runtime"

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
	r.nested++
	n := resume(L)
	r.nested--
	r.check(L)
	if n == 2 && L.Get(-2) == lua.LFalse {
		switch L.Get(-1) { // in the words of reference Lua
		case lua.LString("can not resume a dead thread"):
			L.Pop(1)
			L.Push(lua.LString("cannot resume dead coroutine"))
		case lua.LString("can not resume a running thread"):
			L.Pop(1)
			L.Push(lua.LString("cannot resume running coroutine"))
		}
	}
	return n
}

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
		L.Error(v, 0)
	}
	return n - 1
}

// coroutineYield checks that nothing but Lua lies between the coroutine's start and here: a yield out of pcall, sort or gsub would leave their Go
// part behind.
func coroutineYield(_ *run, L *lua.LState) int {
	for level := 1; ; level++ {
		dbg, ok := L.GetStack(level)
		if !ok {
			return -1
		}
		if _, err := L.GetInfo("S", dbg, nil); err == nil && dbg.What == "G" {
			L.RaiseError("attempt to yield across a call of a built-in function, like pcall")
		}
	}
}

func coroutineRunning(r *run, L *lua.LState) int {
	if L == r.L {
		L.Push(lua.LNil)
	} else {
		L.Push(L)
	}
	return 1
}
