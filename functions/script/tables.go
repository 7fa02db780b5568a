package script

import (
	"sort"

	lua "github.com/yuin/gopher-lua"
)

// tableFunctions are the library table.
func tableFunctions() map[string]builtin {
	return map[string]builtin{
		"concat":   tableConcat,
		"foreach":  tableForeach,
		"foreachi": tableForeachi,
		"getn":     func(_ *run, L *lua.LState) int { L.Push(lua.LNumber(L.CheckTable(1).Len())); return 1 },
		"insert":   tableInsert,
		"maxn":     tableMaxn,
		"remove":   tableRemove,
		"sort":     tableSort,
		"unpack":   baseUnpack,
	}
}

func tableConcat(r *run, L *lua.LState) int {
	t := L.CheckTable(1)
	sep := optString(L, 2, "")
	from := optInt(L, 3, 1)
	to := optInt(L, 4, t.Len())
	b := r.buffer(L, "table.concat")
	for i := from; i <= to; i++ {
		v := t.RawGet(lua.LNumber(i))
		s, ok := plainText(v)
		if !ok {
			L.RaiseError("invalid value (%s) at index %d in table for 'concat'", aType(v), i)
		}
		b.text(s)
		if i == to {
			break // to may be the largest int
		}
		b.text(sep)
	}
	L.Push(b.value())
	return 1
}

// tableForeach calls a function with each key and value, until it returns something.
func tableForeach(_ *run, L *lua.LState) int {
	t, f := L.CheckTable(1), L.CheckFunction(2)
	for k, v := t.Next(lua.LNil); k != lua.LNil; k, v = t.Next(k) {
		if callEach(L, f, k, v) {
			return 1
		}
	}
	return 0
}

// tableForeachi does the same with the items from 1 on.
func tableForeachi(_ *run, L *lua.LState) int {
	t, f := L.CheckTable(1), L.CheckFunction(2)
	for i, n := 1, t.Len(); i <= n; i++ {
		if callEach(L, f, lua.LNumber(i), t.RawGetInt(i)) {
			return 1
		}
	}
	return 0
}

// callEach leaves what f returns on the stack, if that is not nil.
func callEach(L *lua.LState, f *lua.LFunction, k, v lua.LValue) bool {
	L.Push(f)
	L.Push(k)
	L.Push(v)
	L.Call(2, 1)
	if L.Get(-1) != lua.LNil {
		return true
	}
	L.Pop(1)
	return false
}

func tableInsert(_ *run, L *lua.LState) int {
	t := L.CheckTable(1)
	switch L.GetTop() {
	case 2:
		t.RawSetInt(t.Len()+1, L.Get(2))
	case 3:
		n := t.Len() + 1
		i := checkInt(L, 2)
		if i > n || i < 1 {
			if i < 1 || i >= lua.MaxArrayIndex {
				L.ArgError(2, "position out of bounds")
			}
			t.RawSetInt(i, L.Get(3))
			return 0
		}
		t.Insert(i, L.Get(3))
	default:
		L.RaiseError("wrong number of arguments to 'insert'")
	}
	return 0
}

func tableRemove(_ *run, L *lua.LState) int {
	t := L.CheckTable(1)
	n := t.Len()
	i := optInt(L, 2, n)
	if i < 1 || i > n {
		return 0
	}
	L.Push(t.Remove(i))
	return 1
}

func tableMaxn(_ *run, L *lua.LState) int {
	highest := lua.LNumber(0)
	t := L.CheckTable(1)
	for k, _ := t.Next(lua.LNil); k != lua.LNil; k, _ = t.Next(k) {
		if n, ok := k.(lua.LNumber); ok {
			highest = max(highest, n)
		}
	}
	L.Push(highest)
	return 1
}

// sorter sorts the items of a table; comparing may call Lua, which may raise an error or change the table.
type sorter struct {
	r    *run
	L    *lua.LState
	t    *lua.LTable
	n    int
	less *lua.LFunction
	ops  int
}

func (s *sorter) Len() int { return s.n }

func (s *sorter) Swap(i, j int) {
	a, b := s.t.RawGetInt(i+1), s.t.RawGetInt(j+1)
	s.t.RawSetInt(i+1, b)
	s.t.RawSetInt(j+1, a)
}

func (s *sorter) Less(i, j int) bool {
	if s.ops++; s.ops%stepsPerCheck == 0 {
		s.r.check(s.L)
	}
	a, b := s.t.RawGetInt(i+1), s.t.RawGetInt(j+1)
	if s.less == nil {
		return s.L.LessThan(a, b)
	}
	s.L.Push(s.less)
	s.L.Push(a)
	s.L.Push(b)
	s.L.Call(2, 1)
	v := s.L.Get(-1)
	s.L.Pop(1)
	return lua.LVAsBool(v)
}

func tableSort(r *run, L *lua.LState) int {
	t := L.CheckTable(1)
	s := &sorter{r: r, L: L, t: t, n: t.Len()}
	if L.Get(2) != lua.LNil {
		s.less = L.CheckFunction(2)
	}
	sort.Sort(s)
	return 0
}
