package recording

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/functions/cases"
	"github.com/perigee-iot/perigee/functions/rules"
	"github.com/perigee-iot/perigee/internal/event"
)

func spec(t *testing.T, text string) *functions.Spec {
	t.Helper()
	s, err := functions.ParseSpec("function.yaml", []byte(text), "fn")
	require.NoError(t, err)
	return s
}

var at = time.Date(2026, 5, 4, 12, 30, 15, 123e6, time.UTC)

// happened is an invocation of every kind of read and effect.
func happened(t *testing.T) *cases.Record {
	call := &functions.HTTPCall{Method: "POST", Headers: []functions.HTTPHeader{{Name: "Authorization", Value: "Bearer tok/en+1"}}, Body: []byte(`{"a":1}`), Reply: "done", Timeout: time.Second}
	return &cases.Record{
		Bundle: &functions.Bundle{Spec: spec(t, "triggers: [{mqtt: 'in/{room}'}]\nkey: '{room}'\nenv: {on: 30, off: 28, name: x}\n")},
		Inv: &functions.Invocation{Function: "fn", Revision: "abc", Params: map[string]string{"room": "cellar"}, Key: "cellar", Attempt: 2, Now: at, NowOK: true, Seed: 1<<63 + 7,
			Event: &event.Event{ID: "01A", Source: "mqtt", Type: event.Message, Subject: "in/cellar", Topic: "in/cellar", Time: at, TimeOK: true, Seq: 4, Data: []byte(`{"t": 31}`)},
			Env:   []byte(`{"on":29,"off":28,"name":"tok/en+1 it"}`), Secrets: []functions.Secret{{Name: "token", Value: "tok/en+1"}},
			Hints: []functions.ReadAnswer{{Read: functions.Read{Kind: functions.ReadState, Name: "idle"}, Value: []byte("1")}, {Read: functions.Read{Kind: functions.ReadState, Name: "hot"}, Value: []byte("true")}}},
		Reads: []functions.ReadAnswer{
			{Read: functions.Read{Kind: functions.ReadState, Name: "hot"}, Value: []byte("true")},
			{Read: functions.Read{Kind: functions.ReadShared, Name: "none"}},
			{Read: functions.Read{Kind: functions.ReadStateKeys}, Value: []byte(`["hot"]`)},
			{Read: functions.Read{Kind: functions.ReadDevice, Name: "lamp"}, Err: "not connected"},
		},
		Outcome: &functions.Outcome{Result: []byte(`{"token":"tok\/en+1"}`), Logs: []functions.LogLine{{Level: "info", Text: "746F6B2F656E2B31"}}, Usage: functions.Usage{Wall: time.Millisecond}, Effects: []functions.Effect{
			{Kind: functions.SetState, Name: "hot", Value: []byte("false")}, {Kind: functions.DeleteState, Name: "x"}, {Kind: functions.IncrState, Name: "n", By: 1.5},
			{Kind: functions.SetShared, Name: "a", Value: []byte(`[1,2]`)}, {Kind: functions.DeleteShared, Name: "b"}, {Kind: functions.IncrShared, Name: "c", By: -1},
			{Kind: functions.SetTimer, Name: "t", For: time.Minute}, {Kind: functions.CancelTimer, Name: "u"},
			{Kind: functions.Publish, Name: "out/1", Value: []byte{0xff, 0}, QoS: 1, Retain: true, WithID: true, NotAfter: time.Second},
			{Kind: functions.WriteDevice, Name: "fan", Value: []byte("true"), For: time.Second}, {Kind: functions.Append, Name: "log", Value: []byte(`"x"`)},
			{Kind: functions.CallHTTP, Name: "https://a.example/x?k=tok%2Fen%2B1", Value: call.Encode(), NotAfter: time.Hour},
		}},
		Verdict: rules.Verdict{What: "committed"},
	}
}

func TestOf(t *testing.T) {
	f, i := Of(happened(t), nil)
	require.Equal(t, &Function{Name: "fn", Revision: "abc", Settings: map[string]any{"on": 29.0, "name": "*** it"}}, f)
	b, err := Encode(&Line{Invocation: i})
	require.NoError(t, err)
	require.Equal(t, `{"invocation":{"function":"fn","revision":"abc","event":{"id":"01A","source":"mqtt","type":"message","subject":"in/cellar","time":"2026-05-04T12:30:15.123Z",`+
		`"time_ok":true,"seq":4,"topic":"in/cellar","text":"{\"t\": 31}"},"params":{"room":"cellar"},"key":"cellar","attempt":2,"now":"2026-05-04T12:30:15.123Z","now_ok":true,"seed":"8000000000000007",`+
		`"reads":[{"kind":"state","name":"hot","data":true},{"kind":"shared","name":"none"},{"kind":"state-keys","name":"","data":["hot"]},{"kind":"device","name":"lamp","error":"not connected"},`+
		`{"kind":"state","name":"idle","ignored":true,"data":1}],"outcome":{"what":"committed","effects":[{"do":"state.set","name":"hot","data":false},{"do":"state.delete","name":"x"},`+
		`{"do":"state.incr","name":"n","by":1.5},{"do":"shared.set","name":"a","data":[1,2]},{"do":"shared.delete","name":"b"},{"do":"shared.incr","name":"c","by":-1},`+
		`{"do":"timer.set","name":"t","for_ns":60000000000},{"do":"timer.cancel","name":"u"},{"do":"publish","name":"out/1","qos":1,"retain":true,"with_id":true,"not_after_ns":1000000000,"base64":"/wA="},`+
		`{"do":"device","name":"fan","for_ns":1000000000,"data":true},{"do":"stream","name":"log","data":"x"},{"do":"http","name":"https://a.example/x?k=***","not_after_ns":3600000000000,`+
		`"call":{"method":"POST","headers":["Authorization"],"reply":"done","timeout_ns":1000000000},"data":{"a":1}}],"result":{"token":"***"},"logs":[{"level":"info","text":"***"}]},"wall_ns":1000000}}`+"\n", string(b))
	back := read(t, `{"begin":{"format":"perigee-recording","version":1,"gateway":"g","at":"2026-05-04T12:30:00Z"}}`+"\n"+string(b))
	require.Equal(t, i, back[0].Invocation)

	failed := happened(t)
	failed.Verdict = rules.Verdict{What: "dead"}
	failed.Outcome.Fault = &functions.Fault{Kind: functions.FaultError, Message: "main.lua:3: tok/en+1", Traceback: []string{"tok/en+1"}}
	_, i = Of(failed, func(s string) string { return strings.ReplaceAll(s, "cellar", Hidden) })
	require.Empty(t, i.Outcome.Effects)
	require.Equal(t, &functions.Fault{Kind: functions.FaultError, Message: "main.lua:3: ***", Traceback: []string{"***"}}, i.Outcome.Fault)
	require.Equal(t, "in/***", i.Event.Topic)
	require.Equal(t, "***", i.Key)
	require.Equal(t, "main.lua:3: tok/en+1", failed.Outcome.Fault.Message, "others have it too")
}

// read reads a recording and returns its lines but the first.
func read(t *testing.T, text string) (list []*Line) {
	t.Helper()
	r, err := NewReader(strings.NewReader(text))
	require.NoError(t, err)
	for {
		l, err := r.Next()
		if errors.Is(err, io.EOF) {
			return list
		}
		require.NoError(t, err)
		list = append(list, l)
	}
}

const begin = `{"begin":{"format":"perigee-recording","version":1,"gateway":"g","at":"2026-05-04T12:30:00Z"}}` + "\n"

func TestWhatIsNoRecording(t *testing.T) {
	inv := func(more string) string {
		return begin + `{"invocation":{"function":"f","revision":"r","event":{"id":"1","type":"message"},"attempt":1,"seed":"1","outcome":{"what":"committed"}` + more + "}}\n"
	}
	for text, want := range map[string]string{
		"":                              "it is empty",
		"x\n":                           "it is no recording: line 1: invalid character 'x'",
		"{}\n":                          "it is no recording: line 1: it is none of begin, function",
		`{"end":{}}` + "\n":             "begin is the first line, and no other is",
		begin + begin:                   "line 2: begin is the first line, and no other is",
		begin + "{}\n":                  "line 2: it is none of",
		begin + "\n":                    "line 2: unexpected end of JSON input",
		begin + `{"end":{},"begin":{}}`: "",
		begin + `{"function":{"name":"x"}}` + "\n":                          "a function has a name and a revision",
		begin + `{"end":{"why":"time"}}` + "\n" + `{"end":{}}` + "\n":       "line 3 stands behind the end",
		strings.Replace(begin, "perigee-", "other-", 1):                     `its format is "other-recording", not "perigee-recording"`,
		strings.Replace(begin, `"version":1`, `"version":3`, 1):             "it is of version 3, and this program reads up to version 1",
		strings.Replace(begin, `"version":1`, `"version":0`, 1):             "there is no version 0",
		begin + `{"invocation":{}}` + "\n":                                  "an invocation has a function",
		inv(`,"attempt":0`):                                                 "attempt 0: the first is 1",
		inv(`,"seed":"xyz"`):                                                `the seed "xyz" is no hexadecimal number`,
		inv(`,"reads":[{"kind":"moon"}]`):                                   `reads: "moon" is no kind that this version knows`,
		inv(`,"outcome":{"what":"committed","effects":[{"do":"explode"}]}`): `effects: "explode" is no kind`,
		inv(`,"outcome":{"what":"done"}`):                                   `the outcome "done" is none of committed, retry and dead`,
		begin + `{"function":"` + strings.Repeat("x", MaxLine) + "\"}\n":    "line 2 is longer than 1024 KiB",
		inv(""): "",
	} {
		r, err := NewReader(strings.NewReader(text))
		for err == nil {
			_, err = r.Next()
		}
		if want == "" {
			require.ErrorIs(t, err, io.EOF, "%.80q", text)
			require.True(t, r.Cut())
		} else {
			require.ErrorContains(t, err, want, "%.80q", text)
		}
	}
}

func TestLinesAreBounded(t *testing.T) {
	long := string(bytes.Repeat([]byte("x"), MaxLine))
	_, err := Encode(&Line{Function: &Function{Name: long}})
	require.ErrorIs(t, err, ErrTooLarge)
}

// TestPayloadsKeepTheirBytes, whatever they are, through a file and back.
func TestPayloadsKeepTheirBytes(t *testing.T) {
	check := func(t require.TestingT, b []byte) {
		p := payloadOf(b, &hider{})
		text, err := Encode(&Line{Invocation: &Invocation{Event: Event{Payload: p}}})
		require.NoError(t, err)
		var back Line
		require.NoError(t, json.Unmarshal(text, &back))
		got := back.Invocation.Event.Bytes()
		require.Equal(t, b == nil, got == nil)
		require.True(t, bytes.Equal(b, got), "%q is %q", b, got)
	}
	for _, s := range []string{"", "null", "{}", `{"a" : 1}`, `"<&>\u2028"`, "\"\u2028\"", "1e400", "\xff", "\"\xff\"", `"` + "\x00", " 1", "nul"} {
		check(t, []byte(s))
	}
	check(t, nil)
	rapid.Check(t, func(t *rapid.T) {
		check(t, append([]byte{}, rapid.OneOf(rapid.SliceOf(rapid.Byte()), rapid.Map(rapid.String(), func(s string) []byte {
			b, _ := json.Marshal(map[string]string{s: s})
			return b
		})).Draw(t, "payload")...))
	})
}

// TestSecretsAreHidden: in no form in which a function can easily pass a secret on does it come into a recording, and JSON stays JSON.
func TestSecretsAreHidden(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		secret := rapid.StringMatching(`[A-Za-z0-9/+"\\ü:<]{8,20}`).Draw(t, "secret")
		before, behind := rapid.StringMatching(`[a-z ]{0,5}`).Draw(t, "before"), rapid.StringMatching(`[a-z ]{0,5}`).Draw(t, "behind")
		h := newHider(nil, []functions.Secret{{Name: "s", Value: secret}})
		value, err := json.Marshal(map[string]any{"a": []string{before + secret + behind}, "n": 1})
		require.NoError(t, err)
		out := h.bytes(value)
		var back struct{ A []string }
		require.NoError(t, json.Unmarshal(out, &back), "%s", out)
		require.Equal(t, before+Hidden+behind, back.A[0])
		for _, form := range formsOf(secret) {
			require.NotContains(t, h.text(before+form+behind), form)
		}
	})
	h := newHider(nil, []functions.Secret{{Value: "12345"}, {Value: "abc"}})
	require.Equal(t, `{"pin" : "***","***": 7 , "abc":[12, "***"]}`, string(h.bytes([]byte(`{"pin" : 12345,"\u00312345": 7 , "abc":[12, "12345"]}`))))
	require.Equal(t, `"***"`, string(h.bytes([]byte(`12345`))))
	require.Equal(t, "x***y\xff", string(h.bytes([]byte("x12345y\xff"))))
	require.Equal(t, ` {"a": 1} `, string(h.bytes([]byte(` {"a": 1} `))), "what has none stays byte for byte")
	require.Equal(t, "***", newHider(func(string) string { return Hidden }, nil).text("anything"))
}

// FuzzRead: no file makes the reader fail in another way than by an error, and what it takes it can write and read again.
func FuzzRead(f *testing.F) {
	f.Add([]byte(begin + `{"function":{"name":"f","revision":"r","settings":{"a":1}}}` + "\n" + `{"end":{"why":"time"}}` + "\n"))
	f.Add([]byte(begin + `{"invocation":{"function":"f","revision":"r","event":{"id":"1","type":"message","data":null},"attempt":1,"seed":"1","reads":[{"kind":"state","name":"x","base64":"/w=="}],"outcome":{"what":"committed","effects":[{"do":"publish","name":"a","text":""}]}}}` + "\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := NewReader(bytes.NewReader(data))
		for err == nil {
			var l *Line
			if l, err = r.Next(); err != nil {
				break
			}
			text, encErr := Encode(l)
			if errors.Is(encErr, ErrTooLarge) {
				continue // escapes made it longer
			}
			require.NoError(t, encErr)
			var again Line
			require.NoError(t, json.Unmarshal(text, &again))
			twice, encErr := Encode(&again)
			require.NoError(t, encErr)
			require.Equal(t, string(text), string(twice))
			if l.Invocation != nil {
				Compare(&l.Invocation.Outcome, &Outcome{What: "committed"})
				require.True(t, Compare(&l.Invocation.Outcome, &l.Invocation.Outcome).Same())
			}
		}
	})
}
