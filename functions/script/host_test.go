package script

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/internal/event"
)

// answers is a gateway that has these values, by kind and name.
type answers map[functions.Read]string

func (a answers) ask(q functions.Read) functions.ReadAnswer {
	if v, ok := a[q]; ok {
		if text, ok := strings.CutPrefix(v, "!"); ok {
			return functions.ReadAnswer{Read: q, Err: text}
		}
		return functions.ReadAnswer{Read: q, Value: []byte(v)}
	}
	return functions.ReadAnswer{Read: q}
}

func state(name string) functions.Read { return functions.Read{Kind: functions.ReadState, Name: name} }
func shared(name string) functions.Read {
	return functions.Read{Kind: functions.ReadShared, Name: name}
}

// body makes a main.lua of the body of its function.
func body(s string) string { return "return function(event, ctx)\n" + s + "\nend" }

// effectTexts are effects as short lines.
func effectTexts(out *functions.Outcome) []string {
	var lines []string
	for _, e := range out.Effects {
		s := fmt.Sprintf("%d %s %s", e.Kind, e.Name, e.Value)
		if e.By != 0 {
			s += fmt.Sprintf(" by %g", e.By)
		}
		if e.For != 0 {
			s += " for " + e.For.String()
		}
		if e.NotAfter != 0 {
			s += " not after " + e.NotAfter.String()
		}
		if e.QoS != 0 || e.Retain || e.WithID {
			s += fmt.Sprintf(" qos %d retain %v id %v", e.QoS, e.Retain, e.WithID)
		}
		lines = append(lines, s)
	}
	return lines
}

func TestEffects(t *testing.T) {
	have := answers{state("n"): "5", state("s"): `"text"`, shared("total"): "10",
		{Kind: functions.ReadStateKeys, Name: "k"}: `["k1","k2","k3"]`,
		{Kind: functions.ReadDevice, Name: "fan"}:  `{"on":true}`, {Kind: functions.ReadDevice, Name: "cellar"}: `{"temperature":21.5,"humidity":40}`}
	tests := []struct{ body, result, effects string }{
		{`return state.get("n", 0)`, `5`, ""},
		{`return state.get("none", 7)`, `7`, ""},
		{`state.set("x", {1, 2}) return state.get("x")`, `[1,2]`, "1 x [1,2]"},
		{`local v = {1} state.set("x", v) v[2] = 2 return state.get("x")`, `[1]`, "1 x [1]"},
		{`state.set("x", 1) state.set("x", 2) state.set("y", 3)`, ``, "1 x 2; 1 y 3"},
		{`state.set("x", nil)`, ``, "2 x "},
		{`state.delete("n") return state.get("n", "gone")`, `"gone"`, "2 n "},
		{`return state.incr("n")`, `6`, "10 n  by 1"},
		{`state.incr("n", 2) state.incr("n", 3) return state.get("n")`, `10`, "10 n  by 5"},
		{`state.set("n", 1) return state.incr("n", 2)`, `3`, "1 n 3"},
		{`state.delete("n") return state.incr("n", 2)`, `2`, "1 n 2"},
		{`state.incr("n") state.set("n", 0)`, ``, "1 n 0"},
		{`shared.incr("total", 5) return shared.get("total")`, `15`, "11 total  by 5"},
		{`return shared.incr("total", 5)`, ``, "11 total  by 5"},
		{`shared.set("a", true) shared.delete("b")`, ``, "3 a true; 4 b "},
		{`state.set("k0", 1) state.delete("k2") return state.keys("k")`, `["k0","k1","k3"]`, "1 k0 1; 2 k2 "},
		{`return state.keys("none")`, `{}`, ""},
		{`timer.set("t", "15m") timer.set("u", 90)`, ``, "5 t  for 15m0s; 5 u  for 1m30s"},
		{`timer.set("t", "1d") timer.cancel("t")`, ``, "6 t "},
		{`return {device.read("fan"), device.read("cellar").humidity}`, `[true,40]`, ""},
		{`device.write("fan", true, {["for"] = "10s", not_after = "5s"})`, ``, "8 fan true for 10s not after 5s"},
		{`device.write("fan", 0.5) device.write("fan", "low")`, ``, `8 fan 0.5; 8 fan "low"`},
		{`publish("alerts/a", {x = 1}) publish("alerts/b", "text") publish("alerts/c", 1.5) publish("alerts/d", true) publish("alerts/e")`, ``,
			`7 alerts/a {"x":1}; 7 alerts/b text; 7 alerts/c 1.5; 7 alerts/d true; 7 alerts/e `},
		{`publish("alerts/a", "", {qos = 1, retain = true, id = true, not_after = 3})`, ``, "7 alerts/a  not after 3s qos 1 retain true id true"},
		{`stream.append("alerts", {n = 1})`, ``, `9 alerts {"n":1}`},
	}
	m := New(Options{})
	for _, test := range tests {
		out := runWith(t, m, testInvocation(), body(test.body), have.ask)
		if out.Fault != nil {
			t.Errorf("%s: %s", test.body, out.Fault.Text())
			continue
		}
		require.Equal(t, test.result, string(out.Result), test.body)
		require.Equal(t, test.effects, strings.Join(effectTexts(out), "; "), test.body)
	}
}

func TestReads(t *testing.T) {
	asked := 0
	ask := func(q functions.Read) functions.ReadAnswer {
		asked++
		if q.Name == "far" {
			return functions.ReadAnswer{Read: q, Err: "not connected"}
		}
		return functions.ReadAnswer{Read: q, Value: []byte("1")}
	}
	inv := testInvocation()
	inv.Perms.ReadDevices = append(inv.Perms.ReadDevices, "far")
	inv.Hints = []functions.ReadAnswer{{Read: state("hinted"), Value: []byte("2")}, {Read: state("absent")}}
	out := runWith(t, New(Options{}), inv, body(`
local v, why = device.read("far")
return {state.get("a"), state.get("a"), state.get("hinted"), state.get("absent", 9), why}`), ask)
	require.Nil(t, out.Fault)
	require.JSONEq(t, `[1,1,2,9,"not connected"]`, string(out.Result))
	require.Equal(t, 2, asked)
	require.Equal(t, []functions.Read{{Kind: functions.ReadDevice, Name: "far"}, state("a"), state("hinted"), state("absent")}, out.Reads)
}

func TestDenied(t *testing.T) {
	m := New(Options{})
	for call, hint := range map[string]string{
		`publish("other/x", 1)`:        functions.PublishHint("other/x"),
		`device.write("heater", true)`: functions.WriteDeviceHint("heater"),
		`device.read("heater")`:        functions.ReadDeviceHint("heater"),
		`stream.append("log", 1)`:      functions.StreamHint("log"),
	} {
		for _, form := range []string{"%s", "pcall(function() %s end)", "xpcall(function() %s end, print)", "coroutine.wrap(function() %s end)()",
			"coroutine.resume(coroutine.create(function() pcall(function() %s end) end))", "table.sort({2, 1}, function() %s end)", "(('x'):gsub('x', function() %s end))"} {
			code := fmt.Sprintf(form, call)
			if strings.HasPrefix(code, "(") {
				code = "local _ = " + code
			}
			out := runWith(t, m, testInvocation(), body("publish('alerts/x', 1)\n"+code+"\nstate.set('reached', true)"), noAnswers)
			require.NotNil(t, out.Fault, code)
			require.Equal(t, functions.FaultDenied, out.Fault.Kind, code)
			require.Regexp(t, `^main\.lua:3: may not `, out.Fault.Message, code)
			require.Equal(t, hint, out.Fault.Hint)
			require.Empty(t, out.Effects)
		}
	}
}

func TestRetry(t *testing.T) {
	out := runMain(t, body(`pcall(function() publish("alerts/x", 1) retry("not yet", "30s") end) publish("alerts/y", 1)`))
	require.Nil(t, out.Fault)
	require.Equal(t, &functions.RetryAsk{Why: "not yet", After: 30 * time.Second}, out.Retry)
	require.Empty(t, out.Effects)
	require.Nil(t, out.Result)
}

func TestNoKeyHasNoState(t *testing.T) {
	inv := testInvocation()
	inv.NoKey = true
	for _, code := range []string{`state.get("x")`, `state.set("x", 1)`, `state.keys()`, `signal.alarm("a", 1, {on = 2})`} {
		out := runWith(t, New(Options{}), inv, body(code), noAnswers)
		require.NotNil(t, out.Fault, code)
		require.Contains(t, out.Fault.Message, "main.lua:2: this function has key: none")
		require.Contains(t, out.Fault.Hint, "shared")
	}
}

func TestBadCalls(t *testing.T) {
	m := New(Options{})
	for code, want := range map[string]string{
		`publish("alerts/+", 1)`:                        "bad-output: main.lua:2: publish: topic ",
		`publish("", 1)`:                                "publish: topic ",
		`publish("$SYS/x", 1)`:                          "topics under $ belong to the broker",
		`publish("alerts/x", print)`:                    "bad-output: main.lua:2: publish: the value is a function, which JSON does not have",
		`publish("alerts/x", {a = {b = 0/0}})`:          "publish: .a.b is not a number (NaN), which JSON does not have",
		`publish("alerts/x", 1, {qso = 1})`:             "no option is called 'qso'; there are: qos, retain, not_after, id",
		`publish("alerts/x", 1, {qos = 3})`:             "qos is 0, 1 or 2",
		`publish("alerts/x", 1, {not_after = "soon"})`:  "'soon' is no duration",
		`device.write("fan", {})`:                       "a boolean, a number or a string expected, got table",
		`timer.set("t")`:                                "a duration is a text like",
		`timer.set("t", 0)`:                             "longer than 0",
		`timer.set("", 1)`:                              "a name is not empty",
		`state.set("x")`:                                "value expected",
		`state.set("x", {[1.5] = 1})`:                   "state.set: the value has the key 1.5",
		`state.set("x", {1, 2, a = 3})`:                 "both list items and named fields",
		`state.set("x", {[true] = 1})`:                  "has a boolean as a key",
		`state.set("x", "\255")`:                        "is a string that is not UTF-8",
		`state.set("s", "a") state.incr("s")`:           "state.incr: 's' is no number",
		`return {a = {1, 1/0}}`:                         "bad-output: main.lua: the result: .a[2] is infinite",
		`return print`:                                  "the result: the value is a function",
		`signal.alarm("x", 1)`:                          "signal.alarm: on must be a number, got nil",
		`signal.alarm("x", 1, {on = 1, of = 2})`:        "main.lua:2: no option is called 'of'",
		`signal.alarm("x", 1, {on = 1, hold = "long"})`: "main.lua:2: signal.alarm: hold: 'long' is no duration",
		`json.encode({print})`:                          "json.encode: [1] is a function",
	} {
		out := runWith(t, m, testInvocation(), body(code), noAnswers)
		require.NotNil(t, out.Fault, code)
		require.Contains(t, out.Fault.Error(), want, code)
	}
}

func TestLogs(t *testing.T) {
	inv := testInvocation()
	inv.Limits.LogBytes = 100
	out := runWith(t, New(Options{}), inv, body(`log.warn("a", 1, {x = 2}) log("b") print("c", nil) log.error("e") log.debug(("x"):rep(90)) log.info("f")`), noAnswers)
	require.Equal(t, []functions.LogLine{{Level: "warn", Text: `a 1 {"x":2}`}, {Level: "info", Text: "b"}, {Level: "info", Text: "c\tnil"},
		{Level: "error", Text: "e"}}, out.Logs)
	require.Equal(t, "main.lua:2: limits.log_bytes: 113 bytes, 100 are allowed", out.Fault.Message)
}

func TestEventAndContext(t *testing.T) {
	inv := testInvocation()
	inv.Key, inv.Attempt = "cellar", 2
	m := New(Options{})
	out := runWith(t, m, inv, body(`return {event, ctx}`), noAnswers)
	require.Nil(t, out.Fault)
	require.JSONEq(t, `[{"raw":"{\"temperature\":31}","data":{"temperature":31},"params":{"room":"cellar"},"id":"e1","type":"message","source":"mqtt",
		"subject":"t/1","time":1772368215.25,"time_ok":true,"retained":false,"attempt":2,"key":"cellar","topic":"t/1"},
		{"env":{"on":30,"off":28},"now":1772368215.5,"now_ok":true,"gateway":"gw-01","revision":"r","name":"test"}]`, string(out.Result))

	for data, want := range map[string]string{`[1,null,3,null]`: `[1,null,3,null]`, `null`: `"nil"`, `not JSON`: `"nil"`, `21.5`: `21.5`, `"x"`: `"x"`, `{"a":null,"b":[]}`: `{"b":[]}`,
		`[]`: `[]`, `{}`: `{}`, `9007199254740993`: `9007199254740993`, `1e3`: `1000`, `"\u00e9\ud83d\ude00"`: `"é😀"`, `{"n":5}`: `{"n":5}`} {
		inv.Event = &event.Event{Type: event.Message, Data: []byte(data)}
		out := runWith(t, m, inv, body(`if event.data == nil then return "nil" end return event.data`), noAnswers)
		require.Nil(t, out.Fault, data)
		require.Equal(t, want, string(out.Result), data)
	}

	inv.Event = &event.Event{Type: event.Reading, Subject: "cellar", Data: []byte(`{"temperature":20}`)}
	require.Equal(t, `["cellar",20]`, string(runWith(t, m, inv, body(`return {event.device, event.data.temperature}`), noAnswers).Result))
	inv.Event = &event.Event{Type: event.Timer, Subject: "check"}
	require.Equal(t, `["check","nil"]`, string(runWith(t, m, inv, body(`return {event.timer, type(event.data)}`), noAnswers).Result))
}

func TestLimitsOfEffects(t *testing.T) {
	inv := testInvocation()
	inv.Limits.Effects, inv.Limits.EffectBytes = 2, 30
	m := New(Options{})
	out := runWith(t, m, inv, body(`for i = 1, 3 do publish("alerts/x", i) end`), noAnswers)
	require.Contains(t, out.Fault.Error(), "bad-output: main.lua:2: limits.effects: 3 effects, 2 are allowed")
	out = runWith(t, m, inv, body(`publish("alerts/x", ("x"):rep(100))`), noAnswers)
	require.Contains(t, out.Fault.Error(), "bad-output: main.lua:2: limits.effect_bytes: 108 bytes, 30 are allowed")
	out = runWith(t, m, inv, body(`for i = 1, 100 do state.set("x", i) end`), noAnswers)
	require.Nil(t, out.Fault)
	out = runWith(t, m, inv, body(`return ("x"):rep(29)`), noAnswers)
	require.Contains(t, out.Fault.Error(), "bad-output: main.lua: limits.result: 31 bytes, 30 are allowed")
}

func TestDeadlineWhileAsking(t *testing.T) {
	m := New(Options{})
	inv := testInvocation()
	require.Nil(t, m.Load("r", map[string][]byte{"main.lua": []byte(body(`pcall(state.get, "x") return 1`))}))
	ctx, cancel := context.WithCancel(context.Background())
	out := m.Run(ctx, inv, func(q functions.Read) functions.ReadAnswer {
		cancel()
		return functions.ReadAnswer{Read: q}
	})
	require.Equal(t, functions.FaultTimeout, out.Fault.Kind)
	require.Contains(t, out.Fault.Message, "main.lua:2: limits.timeout: 5s, 5s are allowed")
}
