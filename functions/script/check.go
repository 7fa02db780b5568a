package script

import (
	"context"
	"time"

	lua "github.com/yuin/gopher-lua"

	"github.com/perigee-iot/perigee/functions"
)

// checkHint goes with a check that took too long.
const checkHint = "what stands outside of the function that main.lua returns runs anew for each event: keep it short"

// Check compiles a bundle as Load does, and then runs the top level of main.lua under these limits, as each event will: a bundle whose main.lua
// raises an error there, does not end, or returns no function can never run. What main.lua does at its top level with state,
// devices or the like cannot be known without an event; the check ends there, and finds nothing wrong. Nothing is left of what
// it did. ctx carries the deadline. Check is not called while Run runs.
func (m *Machine) Check(ctx context.Context, digest string, files map[string][]byte, limits functions.Limits) *functions.Fault {
	if f := m.Load(digest, files); f != nil {
		return f
	}
	m.running.Lock()
	defer m.running.Unlock()
	r := newRun(m, &functions.Invocation{Revision: digest, Now: time.Now(), Limits: limits}, nil)
	r.checking = true
	m.now = r
	defer func() { m.now = nil }()
	f := r.do(ctx, m.program(digest)).Fault
	switch {
	case f == nil || f.Kind == unknowable:
		return nil
	case f.Kind == functions.FaultTimeout:
		f.Hint = checkHint
	}
	return f
}

// unknowable stands in the fault that ends a check where no more can be said.
const unknowable functions.FaultKind = "unknowable"

// ofAnEvent has functions that work for an event end a check, which has none.
func ofAnEvent(all map[string]builtin) map[string]builtin {
	for name, f := range all {
		all[name] = func(r *run, L *lua.LState) int {
			if r.checking {
				r.halt(L, &functions.Fault{Kind: unknowable, Traceback: []string{}})
			}
			return f(r, L)
		}
	}
	return all
}
