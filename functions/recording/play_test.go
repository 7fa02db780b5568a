package recording

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/functions/rules"
	"github.com/perigee-iot/perigee/internal/event"
)

// fakeRunner stands for the worker.
type fakeRunner struct {
	inv *functions.Invocation // the last
	do  func(inv *functions.Invocation, ask func(kind functions.ReadKind, name string) functions.ReadAnswer) *functions.Outcome
}

func (r *fakeRunner) Invoke(_ context.Context, b *functions.Bundle, inv *functions.Invocation, ask func(functions.Read) functions.ReadAnswer) (*functions.Outcome, rules.Verdict, error) {
	r.inv = inv
	if r.do == nil {
		return &functions.Outcome{}, rules.Verdict{What: "committed"}, nil
	}
	o := r.do(inv, func(kind functions.ReadKind, name string) functions.ReadAnswer {
		return ask(functions.Read{Kind: kind, Name: name})
	})
	if o == nil {
		return nil, rules.Verdict{}, errors.New("no worker")
	}
	return o, rules.Judge(b.Spec.Retry, inv.Attempt, o), nil
}

func player(t *testing.T, yaml string, r *fakeRunner, carry bool) *Player {
	t.Helper()
	p, err := NewPlayer(Options{Runner: r, Bundle: &functions.Bundle{Spec: spec(t, yaml), Digest: "new"}, Function: "fn", Gateway: "gw", Carry: carry})
	require.NoError(t, err)
	return p
}

// invocation is one of key "k" on topic "in/k" that read and did this.
func invocation(t *testing.T, reads, effects string) *Invocation {
	t.Helper()
	i := &Invocation{Function: "fn", Revision: "old", Key: "k", Attempt: 1, Seed: "2a", Params: map[string]string{"k": "k"}, Now: at,
		Event: Event{ID: "1", Source: "mqtt", Type: event.Message, Subject: "in/k", Topic: "in/k", Time: at, Payload: Payload{Data: json.RawMessage(`{"t":1}`)}}}
	require.NoError(t, json.Unmarshal([]byte("["+reads+"]"), &i.Reads))
	i.Outcome.What = "committed"
	require.NoError(t, json.Unmarshal([]byte("["+effects+"]"), &i.Outcome.Effects))
	require.NoError(t, i.check())
	return i
}

const keyed = "triggers: [{mqtt: 'in/{k}'}]\nkey: '{k}'\npermissions: {devices: {read: [lamp]}, secrets: [token]}\nenv: {on: 30}\n"

func TestThePlayerGivesWhatWasRecorded(t *testing.T) {
	r := &fakeRunner{}
	p := player(t, keyed, r, false)
	var got []string
	r.do = func(_ *functions.Invocation, ask func(functions.ReadKind, string) functions.ReadAnswer) *functions.Outcome {
		got = nil
		for _, q := range []functions.Read{{Kind: functions.ReadState, Name: "hot"}, {Kind: functions.ReadState, Name: "new"}, {Kind: functions.ReadShared, Name: "all"},
			{Kind: functions.ReadStateKeys, Name: "h"}, {Kind: functions.ReadSharedKeys}, {Kind: functions.ReadDevice, Name: "lamp"}, {Kind: functions.ReadDevice, Name: "door"}} {
			a := ask(q.Kind, q.Name)
			require.Equal(t, q, a.Read)
			got = append(got, strings.TrimSpace(fmt.Sprintf("%s %s", a.Value, a.Err)))
		}
		return &functions.Outcome{}
	}
	first := invocation(t, `{"kind":"state","name":"hot","data":true},{"kind":"state-keys","name":"","data":["hot","house","x"]},{"kind":"device","name":"lamp","data":{"on":1}}`,
		`{"do":"state.set","name":"hot","data":false},{"do":"state.set","name":"new","data":7},{"do":"shared.set","name":"all","data":[]}`)
	played, err := p.Play(context.Background(), first)
	require.NoError(t, err)
	require.Equal(t, []string{"true", "", "", `["hot","house"]`, "[]", `{"on":1}`, "not permitted"}, got)
	require.Equal(t, []string{"state new", "shared all", "shared-keys"}, played.Unknown)
	inv := r.inv
	require.Equal(t, uint64(42), inv.Seed)
	require.Equal(t, "new", inv.Revision)
	require.Equal(t, "gw", inv.Gateway)
	require.Equal(t, at, inv.Now)
	require.JSONEq(t, `{"on":30}`, string(inv.Env))
	require.Equal(t, []functions.Secret{{Name: "token", Value: Hidden}}, inv.Secrets)

	// What the recorded revision did is known later.
	played, err = p.Play(context.Background(), invocation(t, "", ""))
	require.NoError(t, err)
	require.Equal(t, []string{"false", "7", "[]", `["hot"]`, `["all"]`, `{"on":1}`, "not permitted"}, got)
	require.Equal(t, []string{"state-keys h", "shared-keys"}, played.Unknown, "there may be others")

	// What an invocation read goes before that: somebody else has changed it.
	_, err = p.Play(context.Background(), invocation(t, `{"kind":"state","name":"hot","data":5},{"kind":"state-keys","name":"","data":["hot"]},{"kind":"device","name":"lamp","error":"gone"}`, ""))
	require.NoError(t, err)
	require.Equal(t, []string{"5", "", "[]", `["hot"]`, `["all"]`, "gone", "not permitted"}, got)

	r.do = func(*functions.Invocation, func(functions.ReadKind, string) functions.ReadAnswer) *functions.Outcome {
		return nil
	}
	_, err = p.Play(context.Background(), first)
	require.EqualError(t, err, "no worker")
}

func TestStateIsCarriedOn(t *testing.T) {
	// The new revision counts by two, and forgets x.
	counts := func(carry bool) (seen []string) {
		r := &fakeRunner{}
		p := player(t, keyed, r, carry)
		r.do = func(_ *functions.Invocation, ask func(functions.ReadKind, string) functions.ReadAnswer) *functions.Outcome {
			seen = append(seen, fmt.Sprintf("%s %s %s", ask(functions.ReadState, "n").Value, ask(functions.ReadState, "x").Value, ask(functions.ReadStateKeys, "").Value))
			return &functions.Outcome{Effects: []functions.Effect{{Kind: functions.IncrState, Name: "n", By: 2}, {Kind: functions.DeleteState, Name: "x"}, {Kind: functions.SetState, Name: "y", Value: []byte("1")}}}
		}
		for _, read := range []string{
			`{"kind":"state","name":"n"},{"kind":"state","name":"x","data":"a"},{"kind":"state-keys","name":"","data":["x"]}`,
			`{"kind":"state","name":"n","data":1},{"kind":"state","name":"x","data":"a"},{"kind":"state-keys","name":"","data":["n","x"]}`,
			`{"kind":"state","name":"n","data":2},{"kind":"state-keys","name":"","data":["n","x"]}`,
			`{"kind":"state","name":"n","data":50}`, // set by hand
		} {
			_, err := p.Play(context.Background(), invocation(t, read, `{"do":"state.incr","name":"n","by":1}`))
			require.NoError(t, err)
		}
		return seen
	}
	require.Equal(t, []string{` "a" ["x"]`, `1 "a" ["n","x"]`, `2 "a" ["n","x"]`, `50 "a" ["n","x"]`}, counts(false))
	require.Equal(t, []string{` "a" ["x"]`, `2  ["n","y"]`, `4  ["n","y"]`, `50  ["n","y"]`}, counts(true))
}

func TestWhichEventsAreForTheFunction(t *testing.T) {
	tests := []struct{ triggers, event, want string }{
		{"{mqtt: 'in/{k}'}", "", ""},
		{"{mqtt: other}", "", "it has no trigger for it"},
		{"{device: d}", "", "it has no trigger for it"},
		{"{mqtt: {topic: 'in/{k}', has: [u]}}", "", `has: the payload has no field "u"`},
		{"{mqtt: {topic: 'in/{k}', exclude: [in/k]}}", "", "excluded by in/k"},
		{"{mqtt: other}", `{"id":"1","type":"message","source":"invoke","topic":"in/k"}`, ""},
		{"{mqtt: other}", `{"id":"1","type":"timer","subject":"t","key":"k"}`, ""},
		{"{mqtt: other}", `{"id":"1","type":"reply","subject":"t","key":"k"}`, ""},
		{"{device: d}", `{"id":"1","type":"reading","subject":"d"}`, ""},
		{"{device: e}", `{"id":"1","type":"reading","subject":"d"}`, "it has no trigger for it"},
		{"{every: 15m}", `{"id":"1","type":"tick","data":{"every":900}}`, ""},
		{"{every: 10m}", `{"id":"1","type":"tick","data":{"every":900}}`, "it has no trigger for it"},
		{"{state: a/b}", `{"id":"1","type":"state","subject":"a/b"}`, ""},
		{"{function: a}", `{"id":"1","type":"result","subject":"a"}`, ""},
		{"{gateway: [start]}", `{"id":"1","type":"gateway","subject":"online"}`, "it has no trigger for it"},
		{"{gateway: [start]}", `{"id":"1","type":"strange","subject":"online"}`, "it has no trigger for it"},
	}
	for _, tt := range tests {
		i := invocation(t, "", "")
		if tt.event != "" {
			i.Event = Event{}
			require.NoError(t, json.Unmarshal([]byte(tt.event), &i.Event))
		}
		got, err := player(t, "triggers: ["+tt.triggers+"]\n", &fakeRunner{}, false).Play(context.Background(), i)
		require.NoError(t, err)
		require.Equal(t, tt.want, got.Skipped, "%+v", tt)
	}
}

// TestAnotherKeyHasOtherState: the answers that were recorded are about the key that the event had then.
func TestAnotherKeyHasOtherState(t *testing.T) {
	r := &fakeRunner{do: func(_ *functions.Invocation, ask func(functions.ReadKind, string) functions.ReadAnswer) *functions.Outcome {
		return &functions.Outcome{Result: fmt.Appendf(nil, `["%s","%s"]`, ask(functions.ReadState, "n").Value, ask(functions.ReadShared, "m").Value)}
	}}
	got, err := player(t, "triggers: [{mqtt: 'in/{k}'}]\nkey: data.t\n", r, false).Play(context.Background(),
		invocation(t, `{"kind":"state","name":"n","data":1},{"kind":"shared","name":"m","data":2}`, ""))
	require.NoError(t, err)
	require.Equal(t, "1", got.Key)
	require.Equal(t, `["","2"]`, string(got.Outcome.Result))
	require.Equal(t, []string{"state n"}, got.Unknown)

	got, err = player(t, "triggers: [{mqtt: 'in/{k}'}]\nkey: none\n", &fakeRunner{do: func(_ *functions.Invocation, ask func(functions.ReadKind, string) functions.ReadAnswer) *functions.Outcome {
		return &functions.Outcome{Fault: &functions.Fault{Kind: functions.FaultError, Message: ask(functions.ReadState, "n").Err}}
	}}, false).Play(context.Background(), invocation(t, "", ""))
	require.NoError(t, err)
	require.Equal(t, "a function with key: none has no state of its own key", got.Outcome.Fault.Message)
}

func TestSettings(t *testing.T) {
	r := &fakeRunner{}
	p, err := NewPlayer(Options{Runner: r, Bundle: &functions.Bundle{Spec: spec(t, "triggers: [{mqtt: 'in/{k}'}]\nenv: {on: 30, off: 28, name: x}\n")}, Function: "fn", Override: map[string]any{"off": 20.0}})
	require.NoError(t, err)
	foreign, err := p.Settings(map[string]any{"on": 29.0, "off": 27.0, "name": 5.0, "gone": true})
	require.NoError(t, err)
	require.Equal(t, []string{"gone", "name"}, foreign)
	_, err = p.Play(context.Background(), invocation(t, "", ""))
	require.NoError(t, err)
	require.JSONEq(t, `{"on":29,"off":20,"name":"x"}`, string(r.inv.Env))
	_, err = NewPlayer(Options{Runner: r, Bundle: &functions.Bundle{Spec: spec(t, "triggers: [{mqtt: a}]\n")}, Override: map[string]any{"off": 20.0}})
	require.ErrorContains(t, err, `function fn has no setting "off"`)
}

func TestChoose(t *testing.T) {
	for _, tt := range []struct {
		recorded   []string
		name, want string
	}{
		{[]string{"a", "b"}, "b", "b"}, {[]string{"a"}, "a-2", "a"},
		{[]string{"a", "b"}, "c", `the recording does not have the function "c"; it has: a, b`}, {nil, "c", "the recording does not have the function: it has no invocation at all"},
	} {
		got, err := Choose(tt.recorded, tt.name)
		if err != nil {
			require.ErrorIs(t, err, ErrNoFunction)
			got = err.Error()
		}
		require.Equal(t, tt.want, got)
	}
}
