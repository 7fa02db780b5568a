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

// eventTable makes the first argument of a function.
func (r *run) eventTable(L *lua.LState) *lua.LTable {
	e := r.inv.Event
	t := L.CreateTable(0, 14)
	data, params, topic := e.Data, r.inv.Params, e.Topic
	if e.Type == event.Timer && strings.HasPrefix(e.Subject, signalPrefix) && r.showAgain(L, e.Subject) {
		data, params, topic = r.shown.Data, r.shown.Params, r.shown.Topic
	}
	if data != nil {
		t.RawSetString("raw", lua.LString(data))
		if v, err := decodeJSON(L, data, r); err == nil {
			t.RawSetString("data", v)
		}
	}
	p := L.CreateTable(0, len(params))
	for _, k := range slices.Sorted(maps.Keys(params)) {
		p.RawSetString(k, lua.LString(params[k]))
	}
	t.RawSetString("params", p)
	t.RawSetString("id", lua.LString(e.ID))
	t.RawSetString("type", lua.LString(e.Type))
	t.RawSetString("source", lua.LString(e.Source))
	t.RawSetString("subject", lua.LString(e.Subject))
	t.RawSetString("time", seconds(e.Time))
	t.RawSetString("time_ok", lua.LBool(e.TimeOK))
	t.RawSetString("retained", lua.LBool(e.Retained))
	t.RawSetString("attempt", lua.LNumber(r.inv.Attempt))
	if !r.inv.NoKey {
		t.RawSetString("key", lua.LString(r.inv.Key))
	}
	if topic != "" {
		t.RawSetString("topic", lua.LString(topic))
	}
	switch e.Type {
	case event.Timer:
		t.RawSetString("timer", lua.LString(e.Subject))
	case event.Reading:
		t.RawSetString("device", lua.LString(e.Subject))
	}
	return t
}

// ctxTable makes the second argument of a function.
func (r *run) ctxTable(L *lua.LState) *lua.LTable {
	t := L.CreateTable(0, 8)
	env := lua.LNil
	if len(r.inv.Env) > 0 {
		if v, err := decodeJSON(L, r.inv.Env, r); err == nil {
			env = v
		}
	}
	if _, ok := env.(*lua.LTable); !ok {
		env = L.CreateTable(0, 0)
	}
	t.RawSetString("env", env)
	t.RawSetString("now", seconds(r.inv.Now))
	t.RawSetString("now_ok", lua.LBool(r.inv.NowOK))
	t.RawSetString("gateway", lua.LString(r.inv.Gateway))
	t.RawSetString("revision", lua.LString(r.inv.Revision))
	t.RawSetString("name", lua.LString(r.inv.Function))
	return t
}

// seconds is a time as Lua has it: seconds since the epoch, to the millisecond.
func seconds(t time.Time) lua.LNumber {
	return lua.LNumber(math.Round(float64(t.UnixMilli())) / 1000)
}
