package script

import (
	"strconv"

	lua "github.com/yuin/gopher-lua"
)

// integer is a whole number of 64 bits that no Lua number can hold, which are exact up to 2^53: the identifier of a device, a time in
// nanoseconds. Lua has it as a userdata. It comes out of JSON and of bytes.unpack, and goes into JSON and bytes.pack, with all its digits;
// arithmetic makes a Lua number of it. A value that a Lua number can hold is never an integer, and a run has one
// userdata for each value, so that == and the keys of tables do what they should.
type integer struct {
	neg       bool
	magnitude uint64
}

// parseInteger reads a whole number of 64 bits, with a sign or without, as JSON writes it.
func parseInteger(text string) (i integer, ok bool) {
	digits := text
	if digits != "" && digits[0] == '-' {
		i.neg, digits = true, digits[1:]
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	if err != nil || i.neg && n > 1<<63 {
		return integer{}, false
	}
	i.magnitude = n
	return i, true
}

// fits says whether a Lua number can hold it.
func (i integer) fits() bool {
	f := float64(i.magnitude)
	return f < 1<<64 && uint64(f) == i.magnitude
}

func (i integer) float() float64 {
	if i.neg {
		return -float64(i.magnitude)
	}
	return float64(i.magnitude)
}

// bits are its lowest 64 bits, as two's complement.
func (i integer) bits() uint64 {
	if i.neg {
		return -i.magnitude
	}
	return i.magnitude
}

func (i integer) String() string {
	s := strconv.FormatUint(i.magnitude, 10)
	if i.neg {
		return "-" + s
	}
	return s
}

func (i integer) less(j integer) bool {
	switch {
	case i.neg != j.neg:
		return i.neg
	case i.neg:
		return i.magnitude > j.magnitude
	}
	return i.magnitude < j.magnitude
}

// asInteger is the integer that a value is, if it is one.
func asInteger(v lua.LValue) (integer, bool) {
	if u, ok := v.(*lua.LUserData); ok {
		i, ok := u.Value.(integer)
		return i, ok
	}
	return integer{}, false
}

// integer is i as Lua has it: a number if that can hold it.
func (r *run) integer(i integer) lua.LValue {
	if i.fits() {
		return lua.LNumber(i.float())
	}
	if u := r.integers[i]; u != nil {
		return u
	}
	if r.integers == nil {
		r.integers = map[integer]*lua.LUserData{}
	}
	u := &lua.LUserData{Value: i, Metatable: r.m.help.integers}
	r.integers[i] = u
	return u
}

// integerMetatable gives integers the arithmetic of numbers and an order among themselves. No script can reach it.
func (m *Machine) integerMetatable() *lua.LTable {
	mt := &lua.LTable{Metatable: lua.LNil}
	mt.RawSetString("__metatable", lua.LString("integer"))
	for _, op := range arithmetics() {
		mt.RawSetString(op.event, m.wrap(op.builtin))
	}
	order := func(f func(a, b integer) bool) *lua.LFunction {
		return m.wrap(func(_ *run, L *lua.LState) int {
			a, _ := asInteger(L.Get(1))
			b, _ := asInteger(L.Get(2))
			L.Push(lua.LBool(f(a, b)))
			return 1
		})
	}
	mt.RawSetString("__lt", order(integer.less))
	mt.RawSetString("__le", order(func(a, b integer) bool { return !b.less(a) }))
	return mt
}

// jsonInteger makes a whole number of 64 bits from its digits; nil and why if they are none.
func jsonInteger(r *run, L *lua.LState) int {
	v := L.CheckAny(1)
	if _, ok := asInteger(v); ok {
		L.Push(v)
		return 1
	}
	text, ok := plainText(v)
	if !ok {
		L.ArgError(1, "string expected, got "+argType(L, 1))
	}
	i, ok := parseInteger(text)
	if !ok {
		L.Push(lua.LNil)
		L.Push(lua.LString("not a whole number of 64 bits"))
		return 2
	}
	L.Push(r.integer(i))
	return 1
}
