package cases

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/functions/rules"
	"github.com/perigee-iot/perigee/internal/event"
)

const overheat = `
triggers:
  - mqtt: {topic: "zigbee2mqtt/{room}", has: [temperature]}
key: "{room}"
permissions: {devices: {write: [fan]}, publish: [alerts/#], streams: [alerts]}
env: {on: 30}
`

const button = `
triggers: [{device: button}, {every: 15m}, {state: meter/total}, {function: meter}, {gateway: [start]}]
permissions: {devices: {write: [fan]}, publish: [out/#]}
`

func spec(t testing.TB, text string) *functions.Spec {
	t.Helper()
	s, err := functions.ParseSpec("function.yaml", []byte(text), "overheat")
	require.NoError(t, err)
	return s
}

func TestWhatIsWrongIsSaidWithItsPlace(t *testing.T) {
	step := func(s string) string { return "- name: x\n  steps:\n    - " + s + "\n" }
	tests := []struct{ name, spec, file, want string }{
		{"no list", overheat, "name: x", "t.yaml:1:1: must be a list of cases"},
		{"no name", overheat, "- steps: [{after: 2m}]", "t.yaml:1:3: 1: a case needs a name"},
		{"twice", overheat, "- {name: x, steps: [{after: 2m}]}\n- {name: x, steps: [{after: 2m}]}", "t.yaml:2:4: 2.name: the case in line 1 has this name, too"},
		{"no steps", overheat, "- name: x", "t.yaml:1:3: 1: a case has 1 to 1000 steps"},
		{"unknown key", overheat, step("{after: 2m, expct: []}"), `unknown key "expct"; did you mean "expect"?`},
		{"no such setting", overheat, "- {name: x, given: {env: {onn: 3}}, steps: [{after: 2m}]}", `1.given.env: function overheat has no setting "onn"; did you mean "on"?`},
		{"type of a setting", overheat, "- {name: x, given: {env: {on: warm}}, steps: [{after: 2m}]}", "must be a number"},
		{"state without a key", overheat, "- {name: x, given: {state: {n: 1}}, steps: [{after: 2m}]}", "state and timers belong to a key: say which"},
		{"key without one", button, "- {name: x, given: {key: a}, steps: [{after: 2m}]}", "function overheat has no key"},
		{"reading", overheat, "- {name: x, given: {devices: {cellar: 21}}, steps: [{after: 2m}]}", "a reading is a map of fields"},
		{"time", overheat, "- {name: x, given: {now: noon}, steps: [{after: 2m}]}", `"noon" is no time; write one such as 2026-03-01T12:00:00Z`},
		{"seed", overheat, "- {name: x, given: {seed: -1}, steps: [{after: 2m}]}", "must be a whole number from 0"},
		{"topic", overheat, step("mqtt: {topic: foo/bar, data: {}}"), "t.yaml:3:7: 1.steps.1.mqtt: no trigger of function overheat takes mqtt foo/bar; its triggers are: mqtt zigbee2mqtt/{room}"},
		{"wildcard", overheat, step("mqtt: zigbee2mqtt/+"), "1.steps.1.mqtt:"},
		{"device", button, step("device: {name: lamp, data: {on: true}}"), "no trigger of function overheat takes device lamp; its triggers are: device button; every 15m; state meter/total; function meter; gateway start"},
		{"reading of a device", button, step("device: {name: button, data: 3}"), "a reading is a map of fields"},
		{"period", button, step("every: 10m"), "no trigger of function overheat takes every 10m"},
		{"state trigger", button, step("changed: {name: meter/n, data: 3}"), "takes state meter/n"},
		{"gateway", button, step("gateway: online"), "takes gateway online"},
		{"two causes", button, step("{every: 15m, gateway: start}"), `every and gateway in one step`},
		{"none", button, step("expect: []"), "nothing happens in this step"},
		{"data twice", overheat, step("{mqtt: {topic: zigbee2mqtt/a, data: 1}, data: 2}"), "either in it or beside it"},
		{"data and text", overheat, step("{mqtt: zigbee2mqtt/a, data: 1, text: a}"), "give one of data, text and base64"},
		{"base64", overheat, step("{mqtt: zigbee2mqtt/a, base64: '%'}"), "this is not base64"},
		{"data without an event", overheat, step("{after: 2m, data: 1}"), "data comes with an event"},
		{"key of a message", overheat, step("{mqtt: zigbee2mqtt/a, key: b}"), "the key follows from the event"},
		{"later", overheat, step("http: POST /valve"), `trigger "http" is not in this version`},
		{"expect no list", overheat, step("{after: 2m, expect: {}}"), "must be a list of effects"},
		{"two in one", overheat, step("{after: 2m, expect: [{device: fan, stream: alerts}]}"), "an effect is one of"},
		{"foreign field", overheat, step("{after: 2m, expect: [{device: fan, qos: 1}]}"), "qos does not belong to device"},
		{"state in expect", overheat, step("{after: 2m, expect: [{state: hot}]}"), "write state beside it"},
		{"not permitted", overheat, step("{after: 2m, expect: [{publish: other}]}"), "publish other is not in its permissions"},
		{"fault", overheat, step("{after: 2m, fault: {kind: bad}}"), `"bad" is no kind of fault`},
		{"log", overheat, step("{after: 2m, log: [{loud: x}]}"), "LEVEL: PART with a level of debug, info, warn, error"},
		{"timers", overheat, step("{after: 2m, timers: {dark: soon}}"), `"soon" is no duration`},
		{"skipped", overheat, step("{after: 2m, skipped: [x]}"), "must be true, false, or a part of the reason"},
		{"too long", overheat, step("after: 20000d"), "is longer than ten years"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse("t.yaml", []byte(tt.file), spec(t, tt.spec))
			require.ErrorContains(t, err, tt.want)
			require.NotContains(t, err.Error(), "nothing happens in this step\n", "one error does not cause another")
		})
	}
}

func TestBothFormsOfACause(t *testing.T) {
	for _, text := range []string{
		"mqtt: {topic: zigbee2mqtt/cellar, data: {b: [1, 2.5, on], a: null}, retained: true}",
		"{mqtt: zigbee2mqtt/cellar, data: {b: [1, 2.5, on], a: null}, retained: true}",
		`{mqtt: zigbee2mqtt/cellar, text: '{"b":[1,2.5,"on"],"a":null}', retained: true}`,
		"{mqtt: zigbee2mqtt/cellar, base64: eyJiIjpbMSwyLjUsIm9uIl0sImEiOm51bGx9, retained: true}",
	} {
		list, err := Parse("t.yaml", []byte("- name: x\n  steps:\n    - "+text+"\n"), spec(t, overheat))
		require.NoError(t, err, text)
		c := list[0].Steps[0].Cause
		require.Equal(t, MQTT, c.Kind)
		require.Equal(t, "zigbee2mqtt/cellar", c.Name)
		require.Equal(t, `{"b":[1,2.5,"on"],"a":null}`, string(c.Data), "in the order of the file")
		require.True(t, c.Retained)
	}
}

// did is a step that committed these effects.
func did(effects ...functions.Effect) *Did {
	none := func(string) []byte { return nil }
	d := &Did{State: none, Shared: none}
	d.Runs = []Run{{Text: "it", Own: true, Outcome: &functions.Outcome{Effects: effects}, Verdict: rules.Verdict{What: "committed"}}}
	return d
}

func publish(topic, value string) functions.Effect {
	return functions.Effect{Kind: functions.Publish, Name: topic, Value: []byte(value)}
}

// failures are what a step says of what it caused, without its place.
func failures(t *testing.T, expect string, d *Did) string {
	t.Helper()
	list, err := Parse("t.yaml", []byte("- name: x\n  steps:\n    - {after: 2m, "+expect+"}\n"), spec(t, overheat))
	require.NoError(t, err)
	var b strings.Builder
	for _, f := range list[0].Steps[0].Expect.Check(d) {
		b.WriteString(f.Text() + "\n")
	}
	return b.String()
}

func TestEffectsAreComparedAsObjectsThatHaveMore(t *testing.T) {
	write := functions.Effect{Kind: functions.WriteDevice, Name: "fan", Value: []byte("true")}
	hot := publish("alerts/hot", `{"hot":true,"room":{"name":"cellar","n":0.30000000000000004},"list":[1,{"a":1,"b":2}]}`)
	hot.QoS, hot.Retain = 1, true
	pass := []string{
		"expect: [{device: fan}, {publish: alerts/hot}]",
		"expect: [{device: fan, write: true}, {publish: alerts/hot, data: {hot: true}, qos: 1, retain: true, id: false}]",
		"expect: [{device: fan}, {publish: alerts/hot, data: {room: {n: 0.3}, list: [1, {b: 2}], gone: null}}]",
	}
	for _, e := range pass {
		require.Empty(t, failures(t, e, did(write, hot)), e)
	}
	fail := []struct{ expect, want string }{
		{"expect: []", "expect\n  + device fan = true  (not expected)\n  + publish alerts/hot {"},
		{"expect: [{publish: alerts/hot}, {device: fan}]", "  - publish alerts/hot  (missing)\n  = device fan = true\n  + publish alerts/hot {"},
		{"expect: [{device: fan, write: false}, {publish: alerts/hot}]", "  ≠ device fan\n      expected  write  false\n      got       write  true\n  = publish alerts/hot {"},
		{"expect: [{device: fan}, {publish: alerts/hot, data: {room: {name: attic}, list: [1], x: 3}}]",
			"      expected  data.room.name  \"attic\"\n      got       data.room.name  \"cellar\"\n      expected  data.list       [1]\n      got       data.list       [1,{\"a\":1,\"b\":2}]\n" +
				"      expected  data.x          3\n      got       data.x          nothing\n"},
		{"expect: [{device: fan}, {publish: alerts/hot, qos: 0}]", "      expected  qos  0\n      got       qos  1\n"},
		{"expect: [{device: fan}, {publish: alerts/hot}, {stream: alerts}]", "  = publish alerts/hot {"},
		{"expect: [{device: fan}, {publish: alerts/hot, text: hot}]", `expected  text  "hot"`},
	}
	for _, tt := range fail {
		require.Contains(t, failures(t, tt.expect, did(write, hot)), tt.want, tt.expect)
	}
}

func TestWhatIsNotAnEffect(t *testing.T) {
	d := did()
	own := d.Runs[0].Outcome
	own.Result = []byte(`{"n":3}`)
	own.Logs = []functions.LogLine{{Level: "info", Text: "hello there"}, {Level: "warn", Text: "no data"}}
	d.State = func(name string) []byte { return map[string][]byte{"n": []byte("3"), "o": []byte(`{"a":1}`)}[name] }
	require.Empty(t, failures(t, "result: {n: 3}, log: [hello, {warn: no data}], state: {n: 3, gone: null, o: {a: 1}}, retry: false, skipped: false", d))
	require.Contains(t, failures(t, "result: null", d), "result\n      expected  null\n      got       {\"n\":3}\n")
	require.Contains(t, failures(t, "state: {n: 4, m: 1}", d), "state\n      expected  n  4\n      got       n  3\n      expected  m  1\n      got       m  nothing\n")
	require.Contains(t, failures(t, "log: [{error: no data}]", d), "log\n  - error \"no data\"  (missing)\n  + info hello there  (not expected)\n  + warn no data  (not expected)\n")
	require.Contains(t, failures(t, "fault: error", d), "fault\n      expected  error\n      got       none\n")
	require.Contains(t, failures(t, "retry: true", d), "retry\n      expected  true\n      got       no\n")
}

func TestAFaultThatNobodyExpectsFails(t *testing.T) {
	d := did()
	d.Runs[0].Outcome.Fault = &functions.Fault{Kind: functions.FaultError, Message: "main.lua:3: oh", Hint: "do this"}
	d.Runs[0].Verdict.What = "dead"
	require.Contains(t, failures(t, "log: []", d), "fault on it\n    error: main.lua:3: oh\n      hint: do this\n")
	require.Empty(t, failures(t, "fault: error, expect: []", d))
	require.Empty(t, failures(t, "fault: 'main.lua:3'", d))
	require.Empty(t, failures(t, "fault: {kind: error, message: do this}", d))
	require.Contains(t, failures(t, "fault: timeout", d), "expected  timeout\n      got       error: main.lua:3: oh\n")
}

func TestNothingRan(t *testing.T) {
	d := did()
	d.Runs, d.Skipped = nil, `has: the payload has no field "temperature"`
	require.Empty(t, failures(t, "expect: [], result: null, skipped: has", d))
	require.Contains(t, failures(t, "expect: [{stream: alerts}]", d), "- stream alerts  (missing)\n    nothing: the function did not run, has: the payload")
	require.Contains(t, failures(t, "result: {}", d), "got       nothing: the function did not run")
}

func TestHTTPCallsAreCompared(t *testing.T) {
	const web = "triggers: [{mqtt: in}]\npermissions: {http: [\"https://a.example/*\"]}\n"
	call := functions.HTTPCall{Method: "PUT", Body: []byte(`{"n":1}`), Reply: "done", Timeout: 5 * time.Second, Headers: []functions.HTTPHeader{{Name: "X-A", Value: "b"}}}
	d := did(functions.Effect{Kind: functions.CallHTTP, Name: "https://a.example/x", Value: call.Encode(), NotAfter: time.Hour})
	check := func(more string) string {
		list, err := Parse("t.yaml", []byte(`[{name: x, steps: [{after: 1s, expect: [{http: "https://a.example/x"`+more+`}]}]}]`), spec(t, web))
		require.NoError(t, err)
		var b strings.Builder
		for _, f := range list[0].Steps[0].Expect.Check(d) {
			b.WriteString(f.Text())
		}
		return b.String()
	}
	require.Empty(t, check(""))
	require.Empty(t, check(`, method: PUT, data: {n: 1}, reply: done, timeout: 5s, not_after: 1h, headers: {x-a: b}`))
	require.Contains(t, check(`, method: POST, data: {n: 2}, headers: {x-b: c}`), "expected  method       POST\n      got       method       PUT")
	require.Contains(t, check(`, headers: {x-b: c}`), `got       headers.x-b  nothing`)
	_, err := Parse("t.yaml", []byte(`[{name: x, steps: [{after: 1s, expect: [{http: "https://b.example/x"}]}]}]`), spec(t, web))
	require.ErrorContains(t, err, "is not in its permissions")
	_, err = Parse("t.yaml", []byte(`[{name: x, given: {secrets: {a: b}}, steps: [{after: 1s}]}]`), spec(t, web))
	require.ErrorContains(t, err, "has no permission for this secret")
}

func TestSecretsAreNotWritten(t *testing.T) {
	s := spec(t, overheat)
	mask := func(s string) string { return strings.ReplaceAll(s, "hunter2", "[hidden]") }
	record := func(data string) *Record {
		return &Record{Bundle: &functions.Bundle{Spec: s}, Inv: &functions.Invocation{Gateway: "gw", Env: []byte(`{"on":30}`), Now: time.Unix(0, 0),
			Event: &event.Event{ID: "i", Type: event.Message, Topic: "zigbee2mqtt/a", Time: time.Unix(0, 0), Data: []byte(data)}},
			Outcome: &functions.Outcome{Result: []byte(`{"hunter2":["hunter2"]}`), Effects: []functions.Effect{publish("alerts/a", "say hunter2")}}, Verdict: rules.Verdict{What: "committed"}}
	}
	for _, data := range []string{`"hunter2"`, "hunter2", `{"a":"hunter2"}`} {
		text, err := record(data).File(mask)
		require.NoError(t, err)
		require.NotContains(t, string(text), "hunter2")
		require.Contains(t, string(text), "[hidden]")
	}
	own := record(`"hunter2"`)
	own.Inv.Secrets = []functions.Secret{{Name: "token", Value: "hunter2"}, {Name: "pin", Value: "17"}}
	own.Bundle.Spec = spec(t, strings.Replace(overheat, "streams: [alerts]", "streams: [alerts], secrets: [token, pin]", 1))
	text, err := own.File(nil)
	require.NoError(t, err)
	require.NotContains(t, string(text), "hunter2")
	require.Contains(t, string(text), "    secrets:\n      token: hidden\n      pin: hidden\n")
	require.Contains(t, string(text), `text: "say hidden"`, "as the function will say it in the case")
	_, err = record("\xffhunter2").File(mask)
	require.ErrorContains(t, err, "with a secret in them")
}

func FuzzParse(f *testing.F) {
	f.Add("- name: x\n  given: {env: {on: 3}, key: a, state: {n: 1}, timers: {t: 1m}}\n  steps:\n    - mqtt: {topic: zigbee2mqtt/a, data: {temperature: 3}}\n      expect: [{device: fan, write: true}]\n    - after: 2m\n")
	f.Add("- name: y\n  steps: [{timer: x, result: {a: [1, null]}, fault: {kind: error}, log: [a, {warn: b}], timers: {a: null}, skipped: has, retry: true}]\n")
	f.Add("- name: z\n  steps: [{invoke: {topic: a/b, params: {a: b}, key: c, base64: AA==, id: i}, state: {a: {b: 1}}}]\n")
	f.Fuzz(func(t *testing.T, text string) {
		list, err := Parse("t.yaml", []byte(text), spec(t, overheat))
		if err != nil {
			require.Contains(t, err.Error(), "t.yaml:")
			return
		}
		d := did(publish("alerts/a", `{"a":[1,{"b":null}]}`))
		d.Timer = nil
		d.Runs[0].Outcome.Logs = []functions.LogLine{{Level: "info", Text: "x"}}
		for _, c := range list {
			for _, s := range c.Steps {
				if s.Expect.timers.IsZero() {
					s.Expect.Check(d)
				}
			}
		}
	})
}

func TestARecordIsWrittenAsPeopleWould(t *testing.T) {
	s := spec(t, overheat)
	at := time.Date(2026, 3, 1, 12, 0, 3, 250e6, time.UTC)
	r := &Record{
		Bundle: &functions.Bundle{Spec: s, Digest: strings.Repeat("ab", 32)},
		Inv: &functions.Invocation{Function: "overheat", Key: "cellar", Now: at, NowOK: true, Seed: 1<<64 - 1, Gateway: "gw-01", Attempt: 2, Env: []byte(`{"on":28}`),
			Event: &event.Event{ID: "01J9:7", Type: event.Message, Source: "mqtt", Subject: "zigbee2mqtt/cellar", Topic: "zigbee2mqtt/cellar", Time: at,
				Data: []byte(`{"temperature": 31.5, "text": "a: b"}`), Retained: true}},
		Reads: []functions.ReadAnswer{{Read: functions.Read{Kind: functions.ReadState, Name: "n"}, Value: []byte("3")}, {Read: functions.Read{Kind: functions.ReadState, Name: "gone"}},
			{Read: functions.Read{Kind: functions.ReadStateKeys}, Value: []byte(`["m","n"]`)}, {Read: functions.Read{Kind: functions.ReadDevice, Name: "fan"}, Value: []byte(`{"state":true}`)}},
		Outcome: &functions.Outcome{Result: []byte(`{"hot":true}`), Effects: []functions.Effect{
			{Kind: functions.SetState, Name: "n", Value: []byte("4")}, {Kind: functions.DeleteState, Name: "m"}, {Kind: functions.SetTimer, Name: "t", For: time.Minute},
			{Kind: functions.WriteDevice, Name: "fan", Value: []byte("true"), For: 10 * time.Second},
			{Kind: functions.Publish, Name: "alerts/hot", Value: []byte("it is\nhot"), QoS: 1, Retain: true, WithID: true},
		}},
		Verdict: rules.Verdict{What: "committed"},
	}
	text, err := r.File(nil)
	require.NoError(t, err)
	require.Equal(t, `# Event 01J9:7, as gateway gw-01 saw it; revision abababababab of function overheat ran on it.
- name: "message zigbee2mqtt/cellar of 2026-03-01 12:00:03"
  given:
    now: 2026-03-01T12:00:03.250Z
    gateway: gw-01
    seed: 18446744073709551615
    attempt: 1
    env: {"on": 28}
    key: cellar
    state:
      m: null
      "n": 3
    devices:
      fan: {state: true}
  steps:
    - mqtt: zigbee2mqtt/cellar
      retained: true
      id: "01J9:7"
      time: 2026-03-01T12:00:03.250Z
      data: {temperature: 31.5, text: "a: b"}
      expect:
        - {device: fan, write: true, for: 10s}
        - {publish: alerts/hot, text: "it is\nhot", qos: 1, retain: true, id: true}
      result: {hot: true}
      state:
        "n": 4
        m: null
`, string(text))
}

// Whatever a payload is, a case brings it again.
func TestPayloadsSurvive(t *testing.T) {
	s := spec(t, overheat)
	for _, payload := range []string{"", "x", "{}", `{"a":{"b":[1,2.5,-0.1,1e300,true,null,"x: y","on"]}}`, `{"yes":1,"n":2,"~":3,"":4}`, "12345678901234567890", "0.1000", "1E5", "null", `"a"`,
		"two\nlines", "\xff\x00\x01", "tab\there", `{"a":1,"a":2}`, `"é\u0000\u2028😀"`, " {\"a\" : 1} ", "# no comment", "- a\n- b", "{{", "\x7f", "\r\n", `["{x}", "a #b", "'", "\\"]`} {
		r := &Record{Bundle: &functions.Bundle{Spec: s}, Inv: &functions.Invocation{Gateway: "gw", Env: []byte(`{"on":30}`), Now: time.Unix(0, 0),
			Event: &event.Event{ID: "i", Type: event.Message, Topic: "zigbee2mqtt/a", Time: time.Unix(0, 0), Data: []byte(payload)}}, Outcome: &functions.Outcome{}, Verdict: rules.Verdict{What: "committed"}}
		text, err := r.File(nil)
		require.NoError(t, err, payload)
		list, err := Parse("t.yaml", text, s)
		require.NoError(t, err, string(text))
		got := list[0].Steps[0].Cause.Data
		if json.Valid([]byte(payload)) && string(got) != payload {
			var tight bytes.Buffer
			require.NoError(t, json.Compact(&tight, []byte(payload)))
			payload = tight.String()
		}
		require.Equal(t, payload, string(got), string(text))
	}
}
