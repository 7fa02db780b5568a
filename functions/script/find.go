package script

import (
	"strings"

	lua "github.com/yuin/gopher-lua"
)

// specialsInSearch are the characters that make a pattern more than a plain text.
const specialsInSearch = "^$*+?.([%-"

// startIndex is the place that a position argument means, counted from 0 and within the string or one past it.
func startIndex(init, n int) int {
	switch {
	case init > 0:
		return min(init-1, n)
	case init == 0:
		return 0
	case init < -n:
		return 0
	}
	return n + init
}

func stringFind(r *run, L *lua.LState) int  { return find(r, L, true) }
func stringMatch(r *run, L *lua.LState) int { return find(r, L, false) }

func find(r *run, L *lua.LState, positions bool) int {
	src, pat := checkString(L, 1), checkString(L, 2)
	s := startIndex(optInt(L, 3, 1), len(src))
	if positions && (lua.LVAsBool(L.Get(4)) || !strings.ContainsAny(pat, specialsInSearch)) {
		i := strings.Index(src[s:], pat)
		if i < 0 {
			L.Push(lua.LNil)
			return 1
		}
		L.Push(lua.LNumber(s + i + 1))
		L.Push(lua.LNumber(s + i + len(pat)))
		return 2
	}
	m := &matcher{r: r, L: L, src: src, pat: pat}
	p := 0
	anchored := strings.HasPrefix(pat, "^")
	if anchored {
		p = 1
	}
	for ; s <= len(src); s++ {
		if e := m.at(s, p); e >= 0 {
			if !positions {
				return m.pushAll(s, e, true)
			}
			L.Push(lua.LNumber(s + 1))
			L.Push(lua.LNumber(e))
			return 2 + m.pushAll(s, e, false)
		}
		if anchored {
			break
		}
	}
	L.Push(lua.LNil)
	return 1
}

// stringGmatch returns an iterator; its place in the subject is in the closure, made for each call.
func stringGmatch(r *run, L *lua.LState) int {
	src, pat := checkString(L, 1), checkString(L, 2)
	s := 0
	L.Push(L.NewFunction(func(L *lua.LState) int {
		m := &matcher{r: r, L: L, src: src, pat: pat}
		for ; s <= len(src); s++ {
			e := m.at(s, 0)
			if e < 0 {
				continue
			}
			start := s
			s = e
			if e == start {
				s++
			}
			return m.pushAll(start, e, true)
		}
		return 0
	}))
	return 1
}

func stringGsub(r *run, L *lua.LState) int {
	src, pat := checkString(L, 1), checkString(L, 2)
	with := L.Get(3)
	if !isText(with) && with.Type() != lua.LTTable && with.Type() != lua.LTFunction {
		L.ArgError(3, "string/function/table expected, got "+argType(L, 3))
	}
	limit := optInt(L, 4, len(src)+1)
	m := &matcher{r: r, L: L, src: src, pat: pat}
	p := 0
	anchored := strings.HasPrefix(pat, "^")
	if anchored {
		p = 1
	}
	b := r.buffer(L, "string.gsub")
	n := 0
	for s := 0; n < limit; {
		e := m.at(s, p)
		if e >= 0 {
			n++
			m.replacement(b, with, s, e)
		}
		switch {
		case e > s:
			s = e
		case s < len(src):
			b.byte(src[s])
			s++
		default:
			s = len(src) + 1
		}
		if s > len(src) || anchored {
			if s < len(src) {
				b.text(src[s:])
			}
			L.Push(b.value())
			L.Push(lua.LNumber(n))
			return 2
		}
		if n >= limit {
			b.text(src[s:])
		}
	}
	if n == 0 {
		b.text(src)
	}
	L.Push(b.value())
	L.Push(lua.LNumber(n))
	return 2
}

// replacement adds what a match is replaced by.
func (m *matcher) replacement(b *buffer, with lua.LValue, start, end int) {
	var v lua.LValue
	switch with := with.(type) {
	case *lua.LTable:
		v = m.L.GetTable(with, m.value(0, start, end))
	case *lua.LFunction:
		// The callback can use this matcher's stack of captures no more: its values are on the Lua stack by then.
		m.L.Push(with)
		n := m.pushAll(start, end, true)
		m.L.Call(n, 1)
		v = m.L.Get(-1)
		m.L.Pop(1)
	default:
		t, _ := plainText(with)
		m.template(b, t, start, end)
		return
	}
	s, ok := plainText(v)
	switch {
	case ok:
		b.text(s)
	case lua.LVAsBool(v):
		m.L.RaiseError("invalid replacement value (%s)", aType(v))
	default:
		b.text(m.src[start:end])
	}
}

// template adds a replacement text, in which %0 to %9 stand for captures.
func (m *matcher) template(b *buffer, t string, start, end int) {
	for i := 0; i < len(t); i++ {
		if t[i] != '%' {
			b.byte(t[i])
			continue
		}
		i++
		switch {
		case i >= len(t):
			b.byte('%')
		case t[i] == '0':
			b.text(m.src[start:end])
		case isDigit(t[i]):
			s, _ := plainText(m.value(int(t[i]-'1'), start, end))
			b.text(s)
		default:
			b.byte(t[i])
		}
	}
}
