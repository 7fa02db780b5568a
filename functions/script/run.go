package script

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"syscall"
	"time"

	lua "github.com/yuin/gopher-lua"

	"github.com/perigee-iot/perigee/functions"
)

// The sizes of a state. A deeper Lua stack would need a deeper Go stack, since metamethods and pcall recurse, and workers
// bound theirs to 16 MiB.
const (
	callDepth        = 4000      // calls within calls, of one coroutine
	registryStart    = 1024      // values
	registryStep     = 8192      // smaller steps make growth quadratic
	registryMax      = 256 << 10 // values: 4 MiB on 64 bits
	hardStringLimit  = 16 << 20  // bytes of the longest string that a built-in function makes
	smallestMemory   = 1 << 20
	maxTimerDuration = 10 * 365 * 24 * time.Hour
)

// run is one invocation: what a script can reach, and what it has done so far.
type run struct {
	m      *Machine
	inv    *functions.Invocation
	limits functions.Limits
	prog   *program
	ask    func(functions.Read) functions.ReadAnswer
	ctx    context.Context
	L      *lua.LState // the main coroutine

	began       time.Time
	memory      int64 // the limit in force
	guard       guard
	random      *rand.Rand
	modules     map[string]lua.LValue
	arrays      *lua.LTable                // metatable that marks JSON arrays, if there are any
	strings     *lua.LTable                // the table string, if there is one
	integers    map[integer]*lua.LUserData // those there are
	stringsPart []string                   // of its members, those it has, if not all
	front       *lua.LTable                // what stands for the metatable of strings
	nested      int                        // coroutines that wait for the running one
	coroutines  int                        // made so far

	out       functions.Outcome
	effects   int // of effects, their bytes
	logBytes  int
	states    [2]overlay // of the key, and shared
	timers    map[string]int
	answers   map[functions.Read]functions.ReadAnswer
	signalEnv *lua.LTable // the environment of the library signal, if it is in use
	checking  bool        // there is no event: only the top level of main.lua runs
	signalled bool        // the event is an alarm's timer, and the function sees the event shown
	shown     armed

	stop  *functions.Fault    // why the script must end, if it must
	retry *functions.RetryAsk // the same
	trace []string            // of the last error raised
}

func newRun(m *Machine, inv *functions.Invocation, ask func(functions.Read) functions.ReadAnswer) *run {
	r := &run{m: m, inv: inv, ask: ask, began: time.Now()}
	r.limits = inv.Limits.OrDefault()
	r.memory = max(min(r.limits.Memory, m.opts.MaxMemory), smallestMemory)
	r.out.ID = inv.ID
	return r
}

// do runs the program and makes the outcome.
func (r *run) do(ctx context.Context, p *program) *functions.Outcome {
	if p == nil {
		r.out.Fault = &functions.Fault{Kind: functions.FaultError, Message: "the revision " + capped(r.inv.Revision, 80) + " is not loaded"}
		return &r.out
	}
	r.prog = p
	cpu := cpuTime()
	var cancel context.CancelFunc
	r.ctx, cancel = context.WithCancel(ctx)
	defer cancel()
	r.guard.start(r.m.idle, r.memory, cancel)
	fault := r.protected()
	r.out.Usage.Memory = r.guard.stop()
	r.finish(fault)
	r.out.Usage.Wall = time.Since(r.began)
	r.out.Usage.CPU = max(cpuTime()-cpu, 0)
	return &r.out
}

// finish leaves in the outcome what counts: of a failed invocation, or one that asks to be run again, no effects.
func (r *run) finish(fault *functions.Fault) {
	if r.retry != nil && r.stop == nil {
		fault, r.out.Retry = nil, r.retry
	}
	r.out.Fault = fault
	if fault != nil || r.out.Retry != nil {
		r.out.Effects, r.out.Result = nil, nil
	}
}

// protected runs the script; a Go panic, which no script should be able to cause, becomes a fault.
func (r *run) protected() (fault *functions.Fault) {
	defer func() {
		if v := recover(); v != nil {
			if r.stop != nil {
				fault = r.stop
				return
			}
			fault = panicFault(v)
		}
	}()
	r.L = r.m.takeState()
	r.L.SetContext(r.ctx)
	r.random = rand.New(rand.NewPCG(r.inv.Seed, 0x5045524947454521))
	// The whole of it is one protected call, of a Go function that loads the bundle and calls what it returns.
	r.L.Push(r.L.NewFunction(r.script))
	if err := r.L.PCall(0, 0, nil); err != nil {
		return r.errorFault(err)
	}
	if r.stop != nil {
		return r.stop
	}
	if r.coroutines == 0 {
		r.m.keepState(r.L)
	}
	return nil
}

// script runs main.lua and then the function that it returns, and encodes the result.
func (r *run) script(L *lua.LState) int {
	L.Panic = r.onPanic
	defer r.repanic(L)
	r.installGlobals()
	if r.ctx.Err() != nil {
		r.check(L)
	}
	L.Push(L.NewFunctionFromProto(r.prog.main))
	L.Call(0, 1)
	handler := L.Get(-1)
	if _, ok := handler.(*lua.LFunction); !ok {
		r.halt(L, &functions.Fault{Kind: functions.FaultError,
			Message:   fmt.Sprintf("main.lua:%d: main.lua must return a function, it returned %s", lastLine(r.prog.main), aType(handler)),
			Hint:      "write: return function(event, ctx) ... end",
			Traceback: []string{}})
	}
	if r.checking {
		return 0
	}
	L.Push(r.eventTable(L))
	L.Push(r.ctxTable(L))
	L.Call(2, 1)
	r.setResult(L, L.Get(-1))
	return 0
}

// lastLine is the line at which a file's code ends.
func lastLine(p *lua.FunctionProto) int {
	if n := len(p.DbgSourcePositions); n > 1 {
		return max(p.DbgSourcePositions[n-2], 1)
	}
	return 1
}

// setResult encodes what the function returned.
func (r *run) setResult(L *lua.LState, v lua.LValue) {
	if v == lua.LNil {
		return
	}
	text, err := encodeJSON(v, functions.MaxMeasured, r.checker(L))
	switch size := len(text) + r.effects; {
	case errors.Is(err, errTooLong):
		r.over(L, "main.lua: ", functions.OverResult(functions.MaxMeasured+1, r.limits.Result))
	case errors.As(err, &nestingError{}):
		r.over(L, "main.lua: ", functions.OverNesting("the result"))
	case err == nil && len(text) > r.limits.Result:
		r.over(L, "main.lua: ", functions.OverResult(len(text), r.limits.Result))
	case err == nil && size > r.limits.EffectBytes:
		r.over(L, "main.lua: ", functions.OverEffectBytes(size, r.limits.EffectBytes))
	case err != nil:
		r.halt(L, &functions.Fault{Kind: functions.FaultBadOutput, Message: "main.lua: the result: " + err.Error(),
			Hint: "a function returns what JSON can hold: tables, strings, numbers, booleans or nil", Traceback: []string{}})
	}
	r.out.Result = text
}

// cpuTime is what this process has used so far. A worker runs one invocation at a time, so that the difference is what one
// used, with its share of the garbage collection.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// aType is a value's type with its article, for messages.
func aType(v lua.LValue) string {
	if v == lua.LNil {
		return "nil"
	}
	return "a " + v.Type().String()
}
