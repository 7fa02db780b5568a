package script

import (
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	lua "github.com/yuin/gopher-lua"

	"github.com/perigee-iot/perigee/internal/event"
)

// argument is a table for an argument of a function, with those fields that the bundle names: making all costs as much as running a small function.
type argument struct {
	t    *lua.LTable
	want global
}

func newArgument(L *lua.LState, want global, most int) argument {
	if !want.all {
		most = len(want.some)
	}
	return argument{L.CreateTable(0, most), want}
}

func (a argument) text(field, v string) {
	if a.want.uses(field) {
		a.t.RawSetString(field, lua.LString(v))
	}
}

func (a argument) set(field string, v func() lua.LValue) {
	if a.want.uses(field) {
		a.t.RawSetString(field, v())
	}
}

// eventTable makes the first argument of a function.
func (r *run) eventTable(L *lua.LState) *lua.LTable {
	e := r.inv.Event
	data, params, topic := e.Data, r.inv.Params, e.Topic
	if e.Type == event.Timer && strings.HasPrefix(e.Subject, signalPrefix) && r.showAgain(L, e.Subject) {
		data, params, topic = r.shown.Data, r.shown.Params, r.shown.Topic
	}
	a := newArgument(L, r.prog.event, 14)
	if data != nil {
		a.set("raw", func() lua.LValue { return lua.LString(data) })
		a.set("data", func() lua.LValue { return r.payload(L, data) })
	}
	a.set("params", func() lua.LValue { return paramsTable(L, params) })
	a.text("id", e.ID)
	a.text("type", e.Type)
	a.text("source", e.Source)
	a.text("subject", e.Subject)
	a.set("time", func() lua.LValue { return seconds(e.Time) })
	a.set("time_ok", func() lua.LValue { return lua.LBool(e.TimeOK) })
	a.set("retained", func() lua.LValue { return lua.LBool(e.Retained) })
	a.set("attempt", func() lua.LValue { return lua.LNumber(r.inv.Attempt) })
	if !r.inv.NoKey {
		a.text("key", r.inv.Key)
	}
	if topic != "" {
		a.text("topic", topic)
	}
	switch e.Type {
	case event.Timer:
		a.text("timer", e.Subject)
	case event.Reply:
		a.text("reply", e.Subject)
	case event.Reading:
		a.text("device", e.Subject)
	}
	return a.t
}

// payload is what JSON holds, nil if it is none.
func (r *run) payload(L *lua.LState, data []byte) lua.LValue {
	if v, err := decodeJSON(L, data, r); err == nil {
		return v
	}
	return lua.LNil
}

func paramsTable(L *lua.LState, params map[string]string) *lua.LTable {
	t := L.CreateTable(0, len(params))
	for _, k := range slices.Sorted(maps.Keys(params)) {
		t.RawSetString(k, lua.LString(params[k]))
	}
	return t
}

// ctxTable makes the second argument of a function.
func (r *run) ctxTable(L *lua.LState) *lua.LTable {
	a := newArgument(L, r.prog.ctx, 8)
	a.set("env", func() lua.LValue {
		if env, ok := r.payload(L, r.inv.Env).(*lua.LTable); ok {
			return env
		}
		return L.CreateTable(0, 0)
	})
	a.set("now", func() lua.LValue { return seconds(r.inv.Now) })
	a.set("now_ok", func() lua.LValue { return lua.LBool(r.inv.NowOK) })
	a.text("gateway", r.inv.Gateway)
	a.text("revision", r.inv.Revision)
	a.text("name", r.inv.Function)
	return a.t
}

// seconds is a time as Lua has it: seconds since the epoch, to the millisecond.
func seconds(t time.Time) lua.LNumber {
	return lua.LNumber(math.Round(float64(t.UnixMilli())) / 1000)
}
