package script

import (
	"math"
	"strings"

	lua "github.com/yuin/gopher-lua"
)

// baseConcat is the operator .., see rewriter.concat.
func baseConcat(r *run, L *lua.LState) int {
	n := L.GetTop()
	texts := 0
	for i := 1; i <= n; i++ {
		if isText(L.Get(i)) {
			texts++
		}
	}
	if texts == n {
		return r.join(L, n)
	}
	// Somebody's metamethod, or a mistake: two at a time, from the right.
	right := L.Get(n)
	for i := n - 1; i >= 1; i-- {
		left := L.Get(i)
		L.SetTop(n)
		if isText(left) && isText(right) {
			b := r.buffer(L, "..")
			b.text(r.text(L, left))
			b.text(r.text(L, right))
			right = b.value()
			continue
		}
		f := L.GetMetaField(left, "__concat")
		if f == lua.LNil {
			f = L.GetMetaField(right, "__concat")
		}
		if f == lua.LNil {
			bad := right
			if isText(right) {
				bad = left
			}
			L.RaiseError("attempt to concatenate a %s value", bad.Type())
		}
		L.Push(f)
		L.Push(left)
		L.Push(right)
		L.Call(2, 1)
		right = L.Get(-1)
	}
	L.Push(right)
	return 1
}

// join concatenates the first n arguments, all strings or numbers.
func (r *run) join(L *lua.LState, n int) int {
	size := 0
	limit := int(min(r.memory, hardStringLimit))
	for i := 1; i <= n; i++ {
		if v, ok := L.Get(i).(lua.LString); ok {
			size += len(v)
		} else {
			size += 8 // of a number, about
		}
		if size > limit {
			r.tooLong(L, "..", limit)
		}
	}
	var b strings.Builder
	b.Grow(size)
	for i := 1; i <= n; i++ {
		s, _ := plainText(L.Get(i))
		b.WriteString(s)
	}
	L.Push(r.string(L, b.String()))
	return 1
}

// arithmetic is one operator on strings that read as numbers.
type arithmetic struct {
	event, verb string
	do          func(a, b float64) float64
}

// arithmetics are the operators of what reads as a number: strings, for which the library would make 8 of "010" + 0, and integers.
func arithmetics() []arithmetic {
	return []arithmetic{
		{"__add", "add", func(a, b float64) float64 { return a + b }},
		{"__sub", "subtract", func(a, b float64) float64 { return a - b }},
		{"__mul", "multiply", func(a, b float64) float64 { return a * b }},
		{"__div", "divide", func(a, b float64) float64 { return a / b }},
		{"__mod", "divide", modulo},
		{"__pow", "raise", math.Pow},
		{"__unm", "negate", func(a, _ float64) float64 { return -a }},
	}
}

func modulo(a, b float64) float64 {
	v := math.Mod(a, b)
	if v != 0 && (v < 0) != (b < 0) {
		v += b
	}
	return v
}

// builtin makes the operator a function. A table on the other side may know better.
func (op arithmetic) builtin(_ *run, L *lua.LState) int {
	a, aok := toNumber(L.Get(1))
	b, bok := toNumber(L.Get(2))
	if op.event == "__unm" {
		b, bok = 0, true
	}
	if aok && bok {
		L.Push(lua.LNumber(op.do(a, b)))
		return 1
	}
	for i := 1; i <= 2; i++ {
		if t, ok := L.Get(i).(*lua.LTable); ok {
			if f := L.GetMetaField(t, op.event); f != lua.LNil {
				L.Push(f)
				L.Push(L.Get(1))
				L.Push(L.Get(2))
				L.Call(2, 1)
				return 1
			}
		}
	}
	bad := L.Get(1)
	if aok {
		bad = L.Get(2)
	}
	if s, ok := bad.(lua.LString); ok {
		L.RaiseError("attempt to perform arithmetic on a string that is no number ('%s')", capped(string(s), 40))
	}
	L.RaiseError("attempt to perform arithmetic on a %s value", bad.Type())
	return 0
}
