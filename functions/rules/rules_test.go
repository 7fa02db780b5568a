package rules

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/internal/event"
)

func spec(t *testing.T, text string) *functions.Spec {
	t.Helper()
	s, err := functions.ParseSpec("function.yaml", []byte(text), "fn")
	require.NoError(t, err)
	return s
}

func anywhere() Surroundings {
	return Surroundings{Prefix: "perigee", Writable: func(name string) bool { return name != "sensor" }}
}

func TestCheck(t *testing.T) {
	s := spec(t, `
triggers: [{mqtt: in}]
permissions: {publish: [out/#, perigee/#], streams: [log], devices: {write: [fan, sensor]}, http: ["https://a.example/*"]}
limits: {effects: 2, effect_bytes: 1KiB}
`)
	good := []functions.Effect{
		{Kind: functions.SetState, Name: "n", Value: []byte("1")}, {Kind: functions.DeleteShared, Name: "n"}, {Kind: functions.IncrState, Name: "n", By: 1},
		{Kind: functions.SetTimer, Name: "t", For: time.Second}, {Kind: functions.CancelTimer, Name: "t"}, {Kind: functions.Append, Name: "log", Value: []byte("{}")},
		{Kind: functions.Publish, Name: "out/x", Value: []byte{0xff}, QoS: 2}, {Kind: functions.WriteDevice, Name: "fan", Value: []byte("true")},
	}
	for _, x := range good {
		require.Nil(t, Check(s, &functions.Outcome{Effects: []functions.Effect{x}}, anywhere()), Describe(&x))
	}
	bad := []struct {
		effect functions.Effect
		kind   functions.FaultKind
		want   string
	}{
		{functions.Effect{Kind: functions.SetState, Name: "n", Value: []byte("{")}, functions.FaultBadOutput, `the value of state "n" is not JSON`},
		{functions.Effect{Kind: functions.DeleteState}, functions.FaultBadOutput, "is no name for a state"},
		{functions.Effect{Kind: functions.DeleteState, Name: strings.Repeat("n", 201)}, functions.FaultBadOutput, "is no name for a state: 1 to 200 bytes of text"},
		{functions.Effect{Kind: functions.SetTimer, Name: "t"}, functions.FaultBadOutput, `timer "t" is set to 0s`},
		{functions.Effect{Kind: functions.SetTimer, Name: "t", For: 400 * 24 * time.Hour}, functions.FaultBadOutput, `timer "t" is set to`},
		{functions.Effect{Kind: functions.CancelTimer, Name: "a\x00"}, functions.FaultBadOutput, "is no name for a timer"},
		{functions.Effect{Kind: functions.Append, Name: "other", Value: []byte("1")}, functions.FaultDenied, `not permitted: append to stream "other"`},
		{functions.Effect{Kind: functions.Append, Name: "log", Value: []byte("x")}, functions.FaultBadOutput, "is not JSON"},
		{functions.Effect{Kind: functions.Publish, Name: "other"}, functions.FaultDenied, `not permitted: publish to "other"`},
		{functions.Effect{Kind: functions.Publish, Name: "perigee/gw/x"}, functions.FaultDenied, "functions may never publish under perigee/"},
		{functions.Effect{Kind: functions.Publish, Name: "out/+"}, functions.FaultDenied, "not permitted"},
		{functions.Effect{Kind: functions.Publish, Name: "out/x", QoS: 3}, functions.FaultBadOutput, "QoS 3"},
		{functions.Effect{Kind: functions.WriteDevice, Name: "lamp"}, functions.FaultDenied, `not permitted: write device "lamp"`},
		{functions.Effect{Kind: functions.WriteDevice, Name: "sensor"}, functions.FaultBadOutput, `device "sensor" cannot be written`},
		{functions.Effect{Kind: functions.WriteDevice, Name: "fan", Value: []byte("[1]")}, functions.FaultBadOutput, "a device takes true, false, a number or a text"},
		{functions.Effect{Kind: functions.CallHTTP, Name: "https://b.example/"}, functions.FaultDenied, "not permitted: call"},
		{functions.Effect{Kind: 99}, functions.FaultBadOutput, "unknown kind 99"},
	}
	for _, tt := range bad {
		f := Check(s, &functions.Outcome{Effects: []functions.Effect{tt.effect}}, anywhere())
		require.NotNil(t, f, tt.want)
		require.Equal(t, tt.kind, f.Kind, tt.want)
		require.Contains(t, f.Message, tt.want)
	}
	require.NotNil(t, Check(s, &functions.Outcome{Effects: good[:3]}, anywhere()), "too many")
	require.NotNil(t, Check(s, &functions.Outcome{Result: []byte(`"` + strings.Repeat("x", 2000) + `"`)}, anywhere()), "too much")
	require.NotNil(t, Check(s, &functions.Outcome{Result: []byte(`{`)}, anywhere()), "no JSON")

	none := spec(t, "triggers: [{mqtt: in}]\nkey: none\n")
	require.NotNil(t, Check(none, &functions.Outcome{Effects: good[:1]}, anywhere()))
	require.Nil(t, Check(none, &functions.Outcome{Effects: good[1:2]}, anywhere()))
}

func TestSkips(t *testing.T) {
	m := &functions.MQTTTrigger{Topic: "a/#", Exclude: []string{"a/b/+"}, Has: []string{"t", "u"}, Retained: "changed"}
	tests := []struct {
		topic, data string
		retained    bool
		known       bool
		want        string
	}{
		{"a/x", `{"t":1,"u":null}`, false, false, ""},
		{"a/b/c", `{"t":1,"u":2}`, false, false, "excluded by a/b/+"},
		{"a/x", `{"t":1}`, false, false, `has: the payload has no field "u"`},
		{"a/x", `[1`, false, false, "has: the payload is not a JSON object"},
		{"a/x", `{"t":1,"u":2}`, true, true, "retained, and the same as the last one"},
		{"a/x", `{"t":1,"u":2}`, true, false, ""},
	}
	for _, tt := range tests {
		ev := &event.Event{Topic: tt.topic, Data: []byte(tt.data), Retained: tt.retained}
		require.Equal(t, tt.want, Skips(m, ev, func() bool { return tt.known }), "%+v", tt)
	}
	ev := &event.Event{Topic: "a", Retained: true}
	require.Contains(t, Skips(&functions.MQTTTrigger{Retained: "never"}, ev, func() bool { return false }), "retained: never")
	require.Empty(t, Skips(&functions.MQTTTrigger{Retained: "always"}, ev, func() bool { return true }))
}

func TestKeys(t *testing.T) {
	of := func(key string, ev *event.Event) string {
		k, err := KeyOf(spec(t, "triggers: [{mqtt: \"a/{room}\"}]\nkey: "+key+"\n"), ev, map[string]string{"room": "cellar"})
		require.NoError(t, err)
		return k
	}
	ev := &event.Event{Topic: "a/cellar", Data: []byte(`{"id":{"n":7}}`)}
	require.Equal(t, "cellar", of(`"{room}"`, ev))
	require.Equal(t, "a/cellar", of(`"{topic}"`, ev))
	require.Equal(t, "7", of("data.id.n", ev))
	require.Equal(t, "", of("data.id", ev), "an object names nothing")
	require.Equal(t, "", of("none", ev))
	require.Equal(t, "fixed", of(`"{room}"`, &event.Event{Key: "fixed", HasKey: true}))
	_, err := KeyOf(spec(t, "triggers: [{mqtt: \"a/#\"}]\nkey: \"{topic}\"\n"), &event.Event{Topic: strings.Repeat("x", MaxKey+1)}, nil)
	require.ErrorContains(t, err, "its key has 257 bytes")

	s := spec(t, "triggers: [{mqtt: a}]\ndedupe: {by: data.id}\n")
	require.Equal(t, "7", DedupeValue(s, &event.Event{Data: []byte(`{"id":7.0}`)}))
	require.Empty(t, DedupeValue(s, &event.Event{Data: []byte(`{}`)}))
	require.Empty(t, DedupeValue(s, &event.Event{Data: []byte(`x`)}))
}

func TestJudge(t *testing.T) {
	r := functions.Retry{Attempts: 3, First: time.Second, Max: 5 * time.Second}
	fault := func(k functions.FaultKind) *functions.Outcome {
		return &functions.Outcome{Fault: &functions.Fault{Kind: k}}
	}
	require.Equal(t, "committed", Judge(r, 1, &functions.Outcome{}).What)
	require.Equal(t, "retry", Judge(r, 2, fault(functions.FaultTimeout)).What)
	require.Equal(t, "dead", Judge(r, 3, fault(functions.FaultTimeout)).What)
	require.Equal(t, "dead", Judge(r, 1, fault(functions.FaultError)).What)
	asked := &functions.Outcome{Retry: &functions.RetryAsk{Why: "busy", After: time.Hour}}
	v := Judge(r, 1, asked)
	require.Equal(t, "retry", v.What)
	require.Equal(t, 5*time.Second, v.After, "no longer than retry.max")
	require.Contains(t, v.Fault.Message, "busy")
	require.Equal(t, "dead", Judge(r, 3, asked).What)
	for attempt, want := range map[int]time.Duration{1: time.Second, 2: 2 * time.Second, 3: 4 * time.Second, 4: 5 * time.Second, 60: 5 * time.Second} {
		require.Equal(t, want, Backoff(r, attempt))
	}
}
