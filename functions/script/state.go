package script

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"

	lua "github.com/yuin/gopher-lua"

	"github.com/perigee-iot/perigee/functions"
)

// space is where a value lives: with the key, or shared by all keys of the function.
type space int

const (
	keyState space = iota
	sharedState
)

// spaceKinds are the kinds of reads and effects of a space.
type spaceKinds struct {
	name             string
	get, keys        functions.ReadKind
	set, del, change functions.EffectKind
}

func (s space) kinds() spaceKinds {
	if s == sharedState {
		return spaceKinds{"shared", functions.ReadShared, functions.ReadSharedKeys, functions.SetShared, functions.DeleteShared, functions.IncrShared}
	}
	return spaceKinds{"state", functions.ReadState, functions.ReadStateKeys, functions.SetState, functions.DeleteState, functions.IncrState}
}

// overlay is what an invocation has written, by name: the index of the one effect that each name has.
type overlay map[string]int

func stateFunctions(s space) map[string]builtin {
	with := func(f func(*run, *lua.LState, space) int) builtin {
		return func(r *run, L *lua.LState) int {
			if s == keyState && r.inv.NoKey {
				r.haltf(L, functions.FaultError, "use shared.get and its like, or give the function a key", "this function has key: none, so it has no state of a key")
			}
			return f(r, L, s)
		}
	}
	return map[string]builtin{
		"get":    with(stateGet),
		"set":    with(stateSet),
		"incr":   with(stateIncr),
		"delete": with(stateDelete),
		"keys":   with(stateKeys),
	}
}

// read asks the gateway for a value: once, whatever the script does, so that it sees one version.
func (r *run) read(L *lua.LState, q functions.Read) functions.ReadAnswer {
	if a, ok := r.answers[q]; ok {
		return a
	}
	if n := r.limits.Reads; len(r.answers) >= n {
		r.over(L, "", functions.OverReads(n+1, n))
	}
	a, hinted := functions.ReadAnswer{}, false
	for _, h := range r.inv.Hints {
		if h.Read == q {
			a, hinted = h, true
			break
		}
	}
	if !hinted {
		r.check(L)
		a = r.ask(q)
		r.check(L)
	}
	if r.answers == nil {
		r.answers = map[functions.Read]functions.ReadAnswer{}
	}
	r.answers[q] = a
	r.out.Reads = append(r.out.Reads, q)
	return a
}

// decode is a stored value; nil if there is none.
func (r *run) decode(L *lua.LState, value []byte) lua.LValue {
	if value == nil {
		return lua.LNil
	}
	v, err := decodeJSON(L, value, r)
	if err != nil {
		L.RaiseError("a stored value is damaged: %s", err.Error())
	}
	return v
}

// current is the JSON of a value as this invocation sees it.
func (r *run) current(L *lua.LState, s space, name string) []byte {
	kinds := s.kinds()
	i, written := r.states[s][name]
	if !written {
		return r.stored(L, s, name)
	}
	switch e := &r.out.Effects[i]; e.Kind {
	case kinds.set:
		return e.Value
	case kinds.del:
		return nil
	default:
		before := r.stored(L, s, name)
		sum, ok := numberIn(before)
		if !ok {
			r.notNumber(L, kinds.name, name)
		}
		return r.encode(L, kinds.name, lua.LNumber(sum+e.By))
	}
}

// stored is the JSON of a value as it was before this invocation.
func (r *run) stored(L *lua.LState, s space, name string) []byte {
	a := r.read(L, functions.Read{Kind: s.kinds().get, Name: name})
	if a.Err != "" {
		L.RaiseError("%s.get: %s", s.kinds().name, capped(a.Err, 300))
	}
	return a.Value
}

// numberIn is the number that JSON holds; nothing counts as 0.
func numberIn(value []byte) (float64, bool) {
	if value == nil {
		return 0, true
	}
	return parseNumber(string(value))
}

func (r *run) notNumber(L *lua.LState, space, name string) {
	L.RaiseError("%s.incr: '%s' is no number", space, name)
}

func stateGet(r *run, L *lua.LState, s space) int {
	name := checkName(L, 1)
	v := r.decode(L, r.current(L, s, name))
	if v == lua.LNil {
		v = L.Get(2)
	}
	L.Push(v)
	return 1
}

func stateSet(r *run, L *lua.LState, s space) int {
	kinds := s.kinds()
	name := checkName(L, 1)
	if L.GetTop() < 2 {
		L.ArgError(2, "value expected")
	}
	if L.Get(2) == lua.LNil {
		return stateDelete(r, L, s)
	}
	r.write(L, s, functions.Effect{Kind: kinds.set, Name: name, Value: r.encode(L, kinds.name+".set", L.Get(2))})
	return 0
}

func stateDelete(r *run, L *lua.LState, s space) int {
	r.write(L, s, functions.Effect{Kind: s.kinds().del, Name: checkName(L, 1)})
	return 0
}

// write keeps one effect for each name: a later one takes the place of an earlier one.
func (r *run) write(L *lua.LState, s space, e functions.Effect) {
	if i, ok := r.states[s][e.Name]; ok {
		r.replace(L, i, e)
		return
	}
	i := r.add(L, e)
	if r.states[s] == nil {
		r.states[s] = overlay{}
	}
	r.states[s][e.Name] = i
}

// stateIncr adds to a number. state.incr returns the new one. shared.incr returns nothing: it does not read, so that it never
// conflicts with what other events do.
func stateIncr(r *run, L *lua.LState, s space) int {
	kinds := s.kinds()
	name := checkName(L, 1)
	by := 1.0
	if L.Get(2) != lua.LNil {
		by = checkNumber(L, 2)
	}
	if math.IsNaN(by) || math.IsInf(by, 0) {
		L.ArgError(2, "a finite number expected")
	}
	now := 0.0
	if s == keyState {
		var ok bool
		if now, ok = numberIn(r.current(L, s, name)); !ok {
			r.notNumber(L, kinds.name, name)
		}
		now += by
	}
	r.add1(L, s, name, by)
	if s == sharedState {
		return 0
	}
	L.Push(lua.LNumber(now))
	return 1
}

// add1 makes the effect of an incr, on top of what was written before.
func (r *run) add1(L *lua.LState, s space, name string, by float64) {
	kinds := s.kinds()
	i, written := r.states[s][name]
	if !written {
		r.write(L, s, functions.Effect{Kind: kinds.change, Name: name, By: by})
		return
	}
	e := r.out.Effects[i]
	if e.Kind == kinds.change {
		if e.By += by; math.IsInf(e.By, 0) {
			r.haltf(L, functions.FaultBadOutput, "", "%s: the sum is infinite, which JSON does not have", kinds.name)
		}
		r.replace(L, i, e)
		return
	}
	before, ok := numberIn(e.Value)
	if !ok {
		r.notNumber(L, kinds.name, name)
	}
	r.replace(L, i, functions.Effect{Kind: kinds.set, Name: name, Value: r.encode(L, kinds.name+".incr", lua.LNumber(before+by))})
}

// stateKeys lists the names that start with a prefix, in order, with what this invocation has written.
func stateKeys(r *run, L *lua.LState, s space) int {
	kinds := s.kinds()
	prefix := optString(L, 1, "")
	if len(prefix) > functions.MaxValue {
		L.ArgError(1, fmt.Sprintf("a name has at most %d bytes", functions.MaxValue))
	}
	a := r.read(L, functions.Read{Kind: kinds.keys, Name: prefix})
	if a.Err != "" {
		L.RaiseError("%s.keys: %s", kinds.name, capped(a.Err, 300))
	}
	var names []string
	if a.Value != nil {
		if err := json.Unmarshal(a.Value, &names); err != nil {
			L.RaiseError("%s.keys: the list of names is damaged", kinds.name)
		}
	}
	names = slices.DeleteFunc(names, func(n string) bool {
		i, ok := r.states[s][n]
		return ok && r.out.Effects[i].Kind == kinds.del
	})
	for n, i := range r.states[s] {
		if r.out.Effects[i].Kind != kinds.del && strings.HasPrefix(n, prefix) {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	t := L.CreateTable(len(names), 0)
	for _, n := range slices.Compact(names) {
		t.Append(lua.LString(n))
	}
	L.Push(t)
	return 1
}
