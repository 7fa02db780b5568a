package script

import (
	_ "embed"
	"encoding/json"

	lua "github.com/yuin/gopher-lua"

	"github.com/perigee-iot/perigee/functions"
)

// signalSource is the library signal: plain Lua, over what every function has.
//
//go:embed signal.lua
var signalSource []byte

// signalPrefix is what the names of the alarms' timers and state values start with.
const signalPrefix = "signal.alarm."

// signalChunk is the library's name in error positions. The brackets say that it is no file of the bundle.
const signalChunk = "[signal]"

// compileSignal compiles the library, and lists the globals it uses. Only a defect of ours can make that fail.
func compileSignal() (*lua.FunctionProto, []global) {
	used := names{}
	file, err := compileFile(signalChunk, signalSource, used)
	if err != nil {
		panic(err)
	}
	return file.proto, used.globals()
}

// signalTable loads the library for a run, with an environment of its own: the libraries it uses are not those that the script may have changed.
func (r *run) signalTable() lua.LValue {
	L := r.L
	env := L.CreateTable(0, 20)
	for _, g := range r.m.help.signalUses {
		if l := r.m.libs[g.name]; l != nil {
			env.RawSetString(g.name, r.open(l, g))
		}
	}
	env.RawSetString(concatName, r.m.help.concat)
	for name, f := range r.m.help.signalHelp {
		env.RawSetString(name, f)
	}
	env.RawSetString("signal_again", lua.LFalse)
	f := L.NewFunctionFromProto(r.m.help.signal)
	f.Env = env
	r.signalEnv = env
	L.Push(f)
	L.Call(0, 1)
	v := L.Get(-1)
	L.Pop(1)
	return v
}

// signalHelp are what the library needs beyond what scripts have.
func signalHelp() map[string]builtin {
	return map[string]builtin{
		"signal_seconds": func(_ *run, L *lua.LState) int {
			d, problem := toDuration(L.Get(1))
			if problem != "" {
				L.Error(lua.LString(positionAt(L, 2)+L.CheckString(2)+": "+problem), 0)
			}
			L.Push(lua.LNumber(d.Seconds()))
			return 1
		},
		"signal_event": signalEvent,
		"os_now":       func(r *run, L *lua.LState) int { L.Push(seconds(r.inv.Now)); return 1 },
	}
}

// maxArmed is the largest payload that an alarm keeps for its timer.
const maxArmed = 16 << 10

// armed is the event that an alarm's timer shows again, as it is kept in the alarm's state.
type armed struct {
	Data   []byte            `json:"data,omitempty"`
	Params map[string]string `json:"params,omitempty"`
	Topic  string            `json:"topic,omitempty"`
}

// signalEvent returns what to keep of the event under way, as a string.
func signalEvent(r *run, L *lua.LState) int {
	a := armed{Data: r.inv.Event.Data, Params: r.inv.Params, Topic: r.inv.Event.Topic}
	if r.signalled {
		a = r.shown
	}
	if len(a.Data) > maxArmed {
		L.RaiseError("signal.alarm: an event with more than %s cannot be held", sizeText(maxArmed))
	}
	text, err := json.Marshal(a)
	if err != nil {
		L.RaiseError("signal.alarm: keeping the event: %s", err.Error())
	}
	L.Push(lua.LString(text))
	return 1
}

// showAgain finds the event that set the timer which fired, if an alarm did. The function then sees that event, with event.timer
// set, and its alarm comes to the same question, with the time that it was to hold gone by.
func (r *run) showAgain(L *lua.LState, timer string) bool {
	if r.inv.NoKey {
		return false
	}
	answer := r.read(L, functions.Read{Kind: functions.ReadState, Name: timer})
	var state struct {
		Event string `json:"event"`
	}
	if answer.Value == nil || json.Unmarshal(answer.Value, &state) != nil || state.Event == "" {
		return false
	}
	if json.Unmarshal([]byte(state.Event), &r.shown) != nil {
		return false
	}
	r.signalled = true
	if r.signalEnv != nil {
		r.signalEnv.RawSetString("signal_again", lua.LTrue)
		r.signalEnv.RawSetString("signal_timer", lua.LString(timer))
	}
	return true
}
