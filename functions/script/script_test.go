package script

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/internal/event"
)

// testInvocation is an invocation that may do anything that the tests do.
func testInvocation() *functions.Invocation {
	return &functions.Invocation{
		ID: 7, Function: "test", Revision: "r", Attempt: 1, Seed: 42, Gateway: "gw-01",
		Now: time.Date(2026, 3, 1, 12, 30, 15, 500e6, time.UTC), NowOK: true,
		Event: &event.Event{ID: "e1", Source: "mqtt", Type: event.Message, Subject: "t/1", Topic: "t/1",
			Time: time.Date(2026, 3, 1, 12, 30, 15, 250e6, time.UTC), TimeOK: true, Data: []byte(`{"temperature":31}`)},
		Params: map[string]string{"room": "cellar"},
		Env:    []byte(`{"on":30,"off":28}`),
		Limits: functions.Limits{Timeout: 5 * time.Second, Memory: 16 << 20},
		Perms: functions.Permissions{ReadDevices: []string{"fan", "cellar"}, WriteDevices: []string{"fan"},
			Publish: []string{"alerts/#"}, Streams: []string{"alerts"}},
	}
}

// noAnswers is a gateway that has nothing.
func noAnswers(q functions.Read) functions.ReadAnswer { return functions.ReadAnswer{Read: q} }

// runWith runs main.lua for an invocation.
func runWith(t testing.TB, m *Machine, inv *functions.Invocation, main string, ask func(functions.Read) functions.ReadAnswer) *functions.Outcome {
	t.Helper()
	require.Nil(t, m.Load(inv.Revision, map[string][]byte{"main.lua": []byte(main)}))
	ctx, cancel := context.WithTimeout(context.Background(), inv.Limits.Timeout)
	defer cancel()
	return m.Run(ctx, inv, ask)
}

// run runs a main.lua with nothing special.
func runMain(t testing.TB, main string) *functions.Outcome {
	t.Helper()
	return runWith(t, New(Options{}), testInvocation(), main, noAnswers)
}

// eval runs the body of a function and returns its result as JSON.
func eval(t testing.TB, body string) string {
	t.Helper()
	out := runMain(t, "return function(event, ctx)\n"+body+"\nend")
	if out.Fault != nil {
		t.Fatalf("%s\n%s", out.Fault.Text(), body)
	}
	return string(out.Result)
}

func TestResultOfAFunction(t *testing.T) {
	out := runMain(t, `return function(event, ctx) return {hot = event.data.temperature > ctx.env.on, room = event.params.room} end`)
	require.Nil(t, out.Fault)
	require.JSONEq(t, `{"hot":true,"room":"cellar"}`, string(out.Result))
	require.Equal(t, uint64(7), out.ID)
}

const overheat = `
return function(event, ctx)
  local t = event.data.temperature
  local hot, turned = signal.alarm("hot", t, {on = ctx.env.on, off = ctx.env.off, hold = "2m"})
  if turned then
    device.write("fan", hot)
    publish("alerts/overheat", {room = event.params.room, hot = hot, temperature = t})
    stream.append("alerts", {room = event.params.room, hot = hot, temperature = t})
  end
  return {hot = hot}
end
`

func TestOverheat(t *testing.T) {
	m := New(Options{})
	state := newFakeState()
	inv := testInvocation()
	out := runWith(t, m, inv, overheat, state.answer)
	require.Nil(t, out.Fault)
	require.JSONEq(t, `{"hot":false}`, string(out.Result))
	state.apply(out)
	require.Equal(t, 2*time.Minute, state.timers["signal.alarm.hot"])

	inv.Event = &event.Event{ID: "e2", Source: "timer/test", Type: event.Timer, Subject: "signal.alarm.hot"}
	inv.Params = nil
	out = runWith(t, m, inv, overheat, state.answer)
	require.Nil(t, out.Fault)
	require.JSONEq(t, `{"hot":true}`, string(out.Result))
	var acts []functions.Effect
	for _, e := range out.Effects {
		if e.Kind != functions.SetState {
			acts = append(acts, e)
		}
	}
	require.Len(t, acts, 3)
	require.Equal(t, functions.Effect{Kind: functions.WriteDevice, Name: "fan", Value: []byte("true")}, acts[0])
	require.JSONEq(t, `{"room":"cellar","hot":true,"temperature":31}`, string(acts[1].Value))
	require.Equal(t, functions.Append, acts[2].Kind)
}

// fakeState is a gateway's state for one key.
type fakeState struct {
	values map[string][]byte
	timers map[string]time.Duration
}

func newFakeState() *fakeState {
	return &fakeState{values: map[string][]byte{}, timers: map[string]time.Duration{}}
}

func (s *fakeState) answer(q functions.Read) functions.ReadAnswer {
	return functions.ReadAnswer{Read: q, Value: s.values[q.Name]}
}

func (s *fakeState) apply(out *functions.Outcome) {
	for _, e := range out.Effects {
		switch e.Kind {
		case functions.SetState:
			s.values[e.Name] = e.Value
		case functions.DeleteState:
			delete(s.values, e.Name)
		case functions.SetTimer:
			s.timers[e.Name] = e.For
		case functions.CancelTimer:
			delete(s.timers, e.Name)
		}
	}
}

func BenchmarkEmptyFunction(b *testing.B) {
	benchmark(b, `return function() end`)
}

func BenchmarkSmallFunction(b *testing.B) {
	benchmark(b, `return function(event, ctx)
  local n = state.get("n", 0) + 1
  state.set("n", n)
  publish("alerts/n", {n = n, t = event.data.temperature})
end`)
}

func benchmark(b *testing.B, main string) {
	m := New(Options{})
	inv := testInvocation()
	if f := m.Load(inv.Revision, map[string][]byte{"main.lua": []byte(main)}); f != nil {
		b.Fatal(f)
	}
	b.ReportAllocs()
	for b.Loop() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		if out := m.Run(ctx, inv, noAnswers); out.Fault != nil {
			b.Fatal(out.Fault.Text())
		}
		cancel()
	}
}

// runLoaded runs an invocation of a bundle that is loaded.
func runLoaded(m *Machine, inv *functions.Invocation, ask func(functions.Read) functions.ReadAnswer) *functions.Outcome {
	ctx, cancel := context.WithTimeout(context.Background(), inv.Limits.Timeout)
	defer cancel()
	return m.Run(ctx, inv, ask)
}
