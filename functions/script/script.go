// Package script runs the Lua of functions. It is the only importer of gopher-lua and runs in worker processes only: a
// script can still kill the process that runs it, in ways that no library inside that process prevents, so the process
// must be one that nobody misses.
//
// A Machine holds compiled bundles and runs one invocation at a time. What an invocation sees is made for it and thrown
// away after it: a new Lua state, new tables for globals and libraries, a random generator of its own. Only what cannot be changed
// from Lua is kept from one run to the next: compiled code and the Go functions of the libraries.
//
// Between parsing and compiling, the syntax tree is rewritten (rewrite.go): gopher-lua 1.1.2 miscompiles assignments
// to several targets, and reads 010 as octal. The same walk bounds the nesting, since compiling recurses, and
// collects the names of the globals in use, so that a run builds only those.
//
// Built-in functions that can run long or make much at once are replaced by ones that look at the deadline and at the
// limits while they work: the VM looks at the context only between its instructions.
//
// A script ends in one of these ways: it returns; it raises an error; or it is stopped (denied, over a limit, out of time, retry).
// What stops a script is kept in the run, not in the Lua error, and pcall, xpcall and coroutines hand it on, so that a
// script cannot catch it.
package script

import (
	"container/list"
	"context"
	"sync"

	lua "github.com/yuin/gopher-lua"

	"github.com/perigee-iot/perigee/functions"
)

// Options are a Machine's own limits; those of an invocation come with it. The zero value is ready to use.
type Options struct {
	MaxMemory  int64 // bytes that any invocation may use, whatever its own limit says; 64 MiB if 0
	MaxBundles int   // compiled bundles to keep; 64 if 0
}

const (
	defaultMaxMemory  = 64 << 20
	defaultMaxBundles = 64
)

// Machine compiles bundles and runs invocations. Load and Loaded may be called while Run runs, from other
// goroutines; Run itself is called for one invocation at a time.
type Machine struct {
	opts Options

	mu      sync.Mutex // guards bundles and recent
	bundles map[string]*list.Element
	recent  *list.List // of *program, the last used in front

	running sync.Mutex  // held for the length of a Run
	now     *run        // the run under way
	spare   *lua.LState // kept from the last run
	idle    int64       // bytes on the heap when nothing runs
	libs    libraries
	help    helpers
}

// helpers are what the libraries share, made once for a Machine.
type helpers struct {
	trampoline *lua.LFunction
	ipairsStep *lua.LFunction
	concat     *lua.LFunction
	fixed      *lua.LFunction // what __newindex of the metatable of strings is
	all        *lua.LFunction
	strings    *lua.LTable // metatable of strings, which no script can reach
	integers   *lua.LTable // and that of integers
	signal     *lua.FunctionProto
	signalUses []global
	signalHelp map[string]*lua.LFunction
}

// tuneVM bounds what a single instruction of the VM can allocate: t[67108862] = 1 would otherwise take a gigabyte. The library keeps this
// number in a package variable, so it is set once for the process.
var tuneVM = sync.OnceFunc(func() { lua.MaxArrayIndex = 1 << 20 })

// New makes a Machine.
func New(opts Options) *Machine {
	tuneVM()
	if opts.MaxMemory <= 0 {
		opts.MaxMemory = defaultMaxMemory
	}
	if opts.MaxBundles <= 0 {
		opts.MaxBundles = defaultMaxBundles
	}
	m := &Machine{opts: opts, bundles: map[string]*list.Element{}, recent: list.New()}
	m.libs = m.makeLibraries()
	m.help = m.makeHelpers()
	return m
}

func (m *Machine) makeHelpers() helpers {
	h := helpers{
		trampoline: m.wrap(trampoline),
		ipairsStep: m.wrap(ipairsStep),
		concat:     m.wrap(baseConcat),
		fixed:      m.wrap(fixedMetatable),
		all:        m.wrap(func(_ *run, L *lua.LState) int { return L.GetTop() }),
		signalHelp: map[string]*lua.LFunction{},
	}
	h.signal, h.signalUses = compileSignal()
	h.strings, h.integers = m.stringMetatable(), m.integerMetatable()
	for name, f := range ofAnEvent(signalHelp()) {
		h.signalHelp[name] = m.wrap(f)
	}
	return h
}

// Loaded says whether the bundle with this digest is compiled and kept.
func (m *Machine) Loaded(digest string) bool { return m.program(digest) != nil }

// Load compiles main.lua and lib/*.lua of a bundle and keeps the result under its digest. The files' other entries are
// ignored. It returns nil if all of it compiles, and otherwise a fault with the first error as its message and those of
// other files in its traceback.
func (m *Machine) Load(digest string, files map[string][]byte) (fault *functions.Fault) {
	defer func() {
		if v := recover(); v != nil {
			fault = panicFault(v)
		}
	}()
	p, fault := compileBundle(files)
	if fault != nil {
		return fault
	}
	p.digest = digest
	m.keep(p)
	if m.running.TryLock() {
		m.idle = idleHeap()
		m.running.Unlock()
	}
	return nil
}

// keep keeps a program, and forgets those that were not used for the longest time.
func (m *Machine) keep(p *program) {
	m.mu.Lock()
	defer m.mu.Unlock()
	digest := p.digest
	if e := m.bundles[digest]; e != nil {
		m.recent.Remove(e)
	}
	m.bundles[digest] = m.recent.PushFront(p)
	for m.recent.Len() > m.opts.MaxBundles {
		last := m.recent.Back()
		m.recent.Remove(last)
		delete(m.bundles, last.Value.(*program).digest)
	}
}

// program returns the compiled bundle, nil if it is not kept, and marks it as used.
func (m *Machine) program(digest string) *program {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.bundles[digest]
	if e == nil {
		return nil
	}
	m.recent.MoveToFront(e)
	return e.Value.(*program)
}

// Run runs one invocation to its end and returns what became of it; it never panics. Its bundle must be loaded.
// ctx carries the deadline. ask is called, from the goroutine that called Run, for each value that the script reads and that
// did not come with the invocation; it blocks until the gateway has answered.
func (m *Machine) Run(ctx context.Context, inv *functions.Invocation, ask func(functions.Read) functions.ReadAnswer) *functions.Outcome {
	m.running.Lock()
	defer m.running.Unlock()
	r := newRun(m, inv, ask)
	m.now = r
	defer func() { m.now = nil }()
	return r.do(ctx, m.program(inv.Revision))
}
