package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/drivers"
	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/functions/bundle"
	"github.com/perigee-iot/perigee/functions/sandbox"
	"github.com/perigee-iot/perigee/functions/state"
	"github.com/perigee-iot/perigee/internal/event"
	"github.com/perigee-iot/perigee/internal/store"
	"github.com/perigee-iot/perigee/sync/outbox"
)

// body stands for a function's Lua.
type body func(inv *functions.Invocation, ask func(functions.Read) functions.ReadAnswer) *functions.Outcome

// fakePool runs bodies in goroutines, at most size at once.
type fakePool struct {
	size   int64
	busy   atomic.Int64
	onRoom func()
	wg     sync.WaitGroup

	mu     sync.Mutex
	bodies map[string]body
}

func (p *fakePool) Room() int { return int(p.size - p.busy.Load()) }

func (p *fakePool) Takes(*functions.Bundle) bool { return true }

func (p *fakePool) Submit(jobs ...sandbox.Job) {
	for _, j := range jobs {
		p.busy.Add(1)
		p.wg.Add(1)
		go func() {
			defer p.wg.Done()
			p.mu.Lock()
			b := p.bodies[j.Inv.Function]
			p.mu.Unlock()
			o := b(j.Inv, j.Ask)
			o.ID = j.Inv.ID
			p.busy.Add(-1)
			j.Done(o)
			p.onRoom()
		}()
	}
}

// fakeBroker keeps what is published, in process as the embedded one does.
type fakeBroker struct {
	inProcess bool

	mu      sync.Mutex
	sent    []drivers.Message
	filters []drivers.Filter
	fail    error // of the next publishes
	lose    int   // receipts that fail although the message was sent
}

func (b *fakeBroker) Run(ctx context.Context, _ drivers.Emit) error { <-ctx.Done(); return nil }
func (b *fakeBroker) Connected() bool                               { return true }
func (b *fakeBroker) InProcess() bool                               { return b.inProcess }
func (b *fakeBroker) Subscribe(_ context.Context, f []drivers.Filter) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.filters = f
	return nil
}

type receipt struct{ err error }

func (r receipt) Wait(context.Context) error { return r.err }

func (b *fakeBroker) Publish(_ context.Context, m drivers.Message) (drivers.Receipt, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fail != nil {
		return nil, b.fail
	}
	b.sent = append(b.sent, m)
	if b.lose > 0 {
		b.lose--
		return receipt{drivers.ErrNotConnected}, nil
	}
	return receipt{}, nil
}

func (b *fakeBroker) subscribed() []drivers.Filter {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]drivers.Filter(nil), b.filters...)
}

func (b *fakeBroker) published() []drivers.Message {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]drivers.Message(nil), b.sent...)
}

// relay is a device that remembers what was written to it.
type relay struct {
	mu     sync.Mutex
	values []any
	fail   error
	refuse any // what it will never take
}

func (r *relay) Write(_ context.Context, v any) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.refuse != nil && v == r.refuse {
		return drivers.ErrRefused
	}
	if r.fail == nil {
		r.values = append(r.values, v)
	}
	return r.fail
}

func (r *relay) written() []any {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]any(nil), r.values...)
}

// rig is an engine with fakes around it, on a store in a directory.
type rig struct {
	t      testing.TB
	dir    string
	st     *store.Store
	box    *outbox.Outbox
	pool   *fakePool
	broker *fakeBroker
	fan    *relay
	on     *box // the machine, if it is not the real one
	e      *Engine
	stop   func()
}

// box is the machine that a rig runs on. Its uptime goes on with real time, and by what is added to it; its wall clock shows what it is set to.
type box struct {
	mu    sync.Mutex
	start time.Time
	plus  time.Duration // of uptime, beyond real time
	at    time.Time     // when it booted, by its wall clock
	ok    bool          // the wall clock is synchronised
	id    string
}

func newBox(at time.Time) *box { return &box{start: time.Now(), at: at, id: "first"} }

func (b *box) now() (time.Time, time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	up := time.Since(b.start) + b.plus
	return b.at.Add(up).Round(0), up
}

func (b *box) synced() bool   { b.mu.Lock(); defer b.mu.Unlock(); return b.ok }
func (b *box) bootID() string { b.mu.Lock(); defer b.mu.Unlock(); return b.id }

// jump sets the wall clock by hand.
func (b *box) jump(d time.Duration) { b.mu.Lock(); defer b.mu.Unlock(); b.at = b.at.Add(d) }

// sync sets the wall clock so that the machine booted at, and says that it is right.
func (b *box) sync(at time.Time) { b.mu.Lock(); defer b.mu.Unlock(); b.at, b.ok = at, true }

// boot is the machine after a power cut: it has been up for nothing, and its clock has no battery.
func (b *box) boot() *box {
	b.mu.Lock()
	defer b.mu.Unlock()
	return &box{start: time.Now(), at: time.Unix(0, 0), id: b.id + " next"}
}

// pass lets time pass for a rig: for the machine, and all that waits for it.
func (r *rig) pass(d time.Duration) {
	r.on.mu.Lock()
	r.on.plus += d
	r.on.mu.Unlock()
	r.e.wheel.add(0, func() {})
}

func newRig(t testing.TB) *rig { return openRig(t, t.TempDir()) }

// openRig opens a rig on a directory, as after a restart.
func openRig(t testing.TB, dir string, change ...func(*Options)) *rig {
	t.Helper()
	return openRigOn(t, dir, store.Options{Linger: time.Millisecond, MinFree: 1}, change...)
}

// openRigOn is openRig on a store of its own kind.
func openRigOn(t testing.TB, dir string, so store.Options, change ...func(*Options)) *rig {
	t.Helper()
	return bootRig(t, dir, nil, so, change...)
}

// bootRig is openRigOn on a machine of its own; nil: the real one.
func bootRig(t testing.TB, dir string, on *box, so store.Options, change ...func(*Options)) *rig {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	so.Durability, so.Profile, so.Log = store.Crash, "small", log
	st, err := store.Open(dir, so)
	require.NoError(t, err)
	r := &rig{t: t, dir: dir, st: st, on: on, broker: &fakeBroker{inProcess: true}, fan: &relay{}}
	var m machine = newLinux()
	if on != nil {
		m = on
	}
	clock, err := openClock(st, log, m)
	require.NoError(t, err)
	r.box, err = outbox.Open(st, outbox.Options{Gateway: "gw", Log: log, Right: clock.Right})
	require.NoError(t, err)
	o := Options{Gateway: "gw", Store: st, Clock: clock, Outbox: r.box, Broker: r.broker, Log: log,
		Devices: drivers.Set{
			"fan":   {Name: "fan", Kind: "fake", Actuator: r.fan},
			"meter": {Name: "meter", Kind: "mqtt", Feed: &drivers.Feed{Topic: "meter/1/json", Field: "power", Write: "meter/1/set"}},
		}}
	for _, c := range change {
		c(&o)
	}
	r.e, err = New(o)
	require.NoError(t, err)
	r.pool = &fakePool{size: 8, onRoom: r.e.Pump, bodies: map[string]body{}}
	r.e.Use(r.pool)
	r.stop = sync.OnceFunc(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = r.e.Drain(ctx)
		r.e.Stop()
		r.pool.wg.Wait()
		require.NoError(t, st.Close())
	})
	t.Cleanup(r.stop)
	return r
}

func (r *rig) start() { r.e.Start(context.Background()) }

// fn installs a function.
func (r *rig) fn(yaml string, b body) *functions.Bundle {
	r.t.Helper()
	bn, err := r.install(yaml, b)
	require.NoError(r.t, err)
	return bn
}

// fnLater is fn while there is no connection to the broker yet.
func (r *rig) fnLater(yaml string, b body) {
	r.t.Helper()
	_, err := r.install(yaml, b)
	require.ErrorIs(r.t, err, drivers.ErrNotConnected)
}

func (r *rig) install(yaml string, b body) (*functions.Bundle, error) {
	r.t.Helper()
	bn, err := bundle.FromFiles(map[string][]byte{"function.yaml": []byte(yaml), "main.lua": []byte("return function() end")}, "")
	require.NoError(r.t, err)
	r.pool.mu.Lock()
	r.pool.bodies[bn.Spec.Name] = b
	r.pool.mu.Unlock()
	return bn, r.e.Install(context.Background(), &Deployment{Bundle: bn, Env: []byte("{}")}, Active, "")
}

// message offers an MQTT message as a source that can redeliver, and returns what tells how it was settled.
func (r *rig) message(topic, payload string, mark string, again bool) <-chan error {
	acked := make(chan error, 1)
	d := drivers.Delivery{Event: &event.Event{Source: "mqtt", Type: event.Message, Subject: topic, Topic: topic, Data: []byte(payload)},
		Ack: func(err error) { acked <- err }, Again: again}
	if mark != "" {
		d.Mark = "session\x00" + mark
	}
	require.NoError(r.t, r.e.Offer(context.Background(), d))
	return acked
}

func (r *rig) wait(what string, cond func() bool) {
	r.t.Helper()
	deadline := time.Now().Add(120 * time.Second)
	for !cond() {
		if time.Now().After(deadline) {
			r.t.Fatalf("waited too long: %s; counts %+v", what, r.e.Counts())
		}
		time.Sleep(time.Millisecond)
	}
}

func settled(t *testing.T, c <-chan error) {
	t.Helper()
	select {
	case err := <-c:
		require.NoError(t, err)
	case <-time.After(120 * time.Second):
		t.Fatal("the source was not acknowledged")
	}
}

func (r *rig) state(fn, key, name string) string {
	v, _, err := state.Value(r.st, state.Keyed(fn, key), name)
	require.NoError(r.t, err)
	return string(v)
}

func ok(effects ...functions.Effect) *functions.Outcome { return &functions.Outcome{Effects: effects} }

func failing(kind functions.FaultKind) *functions.Outcome {
	return &functions.Outcome{Fault: &functions.Fault{Kind: kind, Message: "main.lua:1: no"}}
}

const counter = "name: counter\ntriggers: [{mqtt: in/+}]\nkey: \"{topic}\"\npermissions: {publish: [out/#], streams: [log], devices: {write: [fan, meter]}}\n"

// count reads n, adds one, publishes and appends it.
func count(inv *functions.Invocation, ask func(functions.Read) functions.ReadAnswer) *functions.Outcome {
	n := 0
	read := functions.Read{Kind: functions.ReadState, Name: "n"}
	a := ask(read)
	for _, h := range inv.Hints {
		if h.Read == read {
			a = h
		}
	}
	if a.Value != nil {
		_ = json.Unmarshal(a.Value, &n)
	}
	n++
	v := []byte(fmt.Sprint(n))
	o := ok(
		functions.Effect{Kind: functions.SetState, Name: "n", Value: v},
		functions.Effect{Kind: functions.Publish, Name: "out/" + inv.Key, Value: v, QoS: 1},
		functions.Effect{Kind: functions.Append, Name: "log", Value: v},
	)
	o.Reads = []functions.Read{read}
	return o
}

func TestAnEventIsCommittedOnceAndThenAcknowledged(t *testing.T) {
	r := newRig(t)
	r.fn(counter, count)
	r.start()
	const n = 200
	var acks []<-chan error
	for i := range n {
		acks = append(acks, r.message(fmt.Sprintf("in/%d", i%3), "{}", fmt.Sprint(i), false))
	}
	for _, a := range acks {
		settled(t, a)
	}
	require.Equal(t, "67", r.state("counter", "in/0", "n"))
	require.Equal(t, "66", r.state("counter", "in/2", "n"))
	r.wait("publishes", func() bool { return len(r.broker.published()) == n })
	last := map[string]int{}
	ids := map[string]bool{}
	for _, m := range r.broker.published() {
		var v int
		require.NoError(t, json.Unmarshal(m.Payload, &v))
		require.Equal(t, last[m.Topic]+1, v, "in order per topic")
		last[m.Topic] = v
		ids[m.ID] = true
	}
	require.Len(t, ids, n)
	r.wait("the journal to be empty", func() bool { return r.e.Counts().Actions == 0 })
	s, err := r.box.Status()
	require.NoError(t, err)
	require.EqualValues(t, n, s[0].Waiting)
	r.wait("an empty inbox", func() bool { return r.e.Counts().Inbox == 0 })
}

func TestARepeatedDeliveryIsDroppedOnlyIfItsSenderCallsItOne(t *testing.T) {
	r := newRig(t)
	r.fn(counter, count)
	r.start()
	settled(t, r.message("in/a", "1", "7", false))
	settled(t, r.message("in/a", "1", "7", true)) // the acknowledgement was lost
	require.Equal(t, "1", r.state("counter", "in/a", "n"))
	settled(t, r.message("in/a", "1", "7", false)) // the id is used again
	require.Equal(t, "2", r.state("counter", "in/a", "n"))
	settled(t, r.message("in/a", "2", "7", true)) // another message under a mark that was never seen
	require.Equal(t, "3", r.state("counter", "in/a", "n"))
	r.e.Forget("session", []string{"session\x00" + "7"})
	settled(t, r.message("in/a", "2", "7", true))
	require.Equal(t, "4", r.state("counter", "in/a", "n"))
}

func TestMarksSurviveARestart(t *testing.T) {
	r := newRig(t)
	r.fn(counter, count)
	r.start()
	settled(t, r.message("in/a", "1", "7", false))
	r.stop()
	r = openRig(t, r.dir)
	r.fn(counter, count)
	r.start()
	settled(t, r.message("in/a", "1", "7", true))
	require.Equal(t, "1", r.state("counter", "in/a", "n"))
	r.e.Forget("session", nil)
	settled(t, r.message("in/a", "1", "7", true))
	require.Equal(t, "2", r.state("counter", "in/a", "n"))
}

func TestAPermanentFaultIsADeadLetterAtOnceAndTheKeyGoesOn(t *testing.T) {
	r := newRig(t)
	r.fn(counter, func(inv *functions.Invocation, ask func(functions.Read) functions.ReadAnswer) *functions.Outcome {
		if string(inv.Event.Data) == "bad" {
			return failing(functions.FaultError)
		}
		return count(inv, ask)
	})
	r.start()
	settled(t, r.message("in/a", "bad", "1", false))
	settled(t, r.message("in/a", "good", "2", false))
	require.Equal(t, "1", r.state("counter", "in/a", "n"))
	dead, err := r.e.DeadLetters("counter", "", 0)
	require.NoError(t, err)
	require.Len(t, dead, 1)
	require.Equal(t, "error", dead[0].Reason)
	require.Equal(t, 1, dead[0].Attempts)
	one, err := r.e.DeadLetter(dead[0].ID)
	require.NoError(t, err)
	require.Equal(t, "bad", string(one.Event.Data))

	require.NoError(t, r.e.Replay(dead[0].ID, []byte("good")))
	r.wait("the replay", func() bool { return r.state("counter", "in/a", "n") == "2" })
	r.wait("no dead letter left", func() bool { return r.e.Counts().Dead == 0 })
	require.ErrorIs(t, r.e.Drop(dead[0].ID), ErrNoDeadLetter)
}

func TestLaterEventsOfAKeyWaitForARetryAndOtherKeysDoNot(t *testing.T) {
	r := newRig(t)
	var fails atomic.Int64
	fails.Store(2)
	yaml := counter + "retry: {attempts: 3, first: 300ms, max: 1s}\n"
	var mu sync.Mutex
	var order []string
	r.fn(yaml, func(inv *functions.Invocation, ask func(functions.Read) functions.ReadAnswer) *functions.Outcome {
		if string(inv.Event.Data) == "poison" && fails.Add(-1) >= 0 {
			return failing(functions.FaultTimeout)
		}
		mu.Lock()
		order = append(order, inv.Key+":"+string(inv.Event.Data))
		mu.Unlock()
		return count(inv, ask)
	})
	r.start()
	a := r.message("in/a", "poison", "1", false)
	settled(t, a) // its retry is stored
	b := r.message("in/a", "after", "2", false)
	settled(t, r.message("in/b", "other", "3", false))
	settled(t, b)
	r.wait("both", func() bool { return r.state("counter", "in/a", "n") == "2" })
	mu.Lock()
	require.Equal(t, []string{"in/b:other", "in/a:poison", "in/a:after"}, order)
	mu.Unlock()
	r.wait("an empty inbox", func() bool { return r.e.Counts().Inbox == 0 })
}

func TestAttemptsAreUsedUpAndCarryOverARestart(t *testing.T) {
	r := newRig(t)
	yaml := counter + "retry: {attempts: 3, first: 20ms, max: 1h}\n"
	var attempts atomic.Int64
	timeout := func(inv *functions.Invocation, _ func(functions.Read) functions.ReadAnswer) *functions.Outcome {
		attempts.Store(int64(inv.Attempt))
		o := failing(functions.FaultTimeout)
		return o
	}
	r.fn(yaml, timeout)
	r.start()
	settled(t, r.message("in/a", "x", "1", false))
	r.stop()
	r = openRig(t, r.dir)
	r.fn(yaml, timeout)
	r.start()
	r.wait("the dead letter", func() bool { return r.e.Counts().Dead == 1 })
	require.EqualValues(t, 3, attempts.Load())
	r.wait("an empty inbox", func() bool { return r.e.Counts().Inbox == 0 })
}

func TestASlowFunctionHoldsUpNeitherItsSourceNorOthers(t *testing.T) {
	r := newRig(t)
	release := make(chan struct{})
	r.fn("name: slow\ntriggers: [{mqtt: slow/+}]\n", func(*functions.Invocation, func(functions.Read) functions.ReadAnswer) *functions.Outcome {
		<-release
		return ok()
	})
	r.fn(counter, count)
	r.start()
	var acks []<-chan error
	for i := range 20 {
		acks = append(acks, r.message("slow/x", fmt.Sprint(i), fmt.Sprint(i), false))
	}
	for i := range 50 {
		settled(t, r.message("in/a", "1", fmt.Sprint(100+i), false))
	}
	for _, a := range acks {
		settled(t, a) // by the inbox, while the first still runs
	}
	r.wait("all of them in the inbox", func() bool { return r.e.Counts().Inbox == 20 })
	close(release)
	r.wait("the slow ones", func() bool { return r.e.Counts().Inbox == 0 && r.e.Counts().Waiting == 0 })
}

func TestWhatWaitsInTheInboxRunsAfterARestartInOrder(t *testing.T) {
	r := newRig(t)
	release := make(chan struct{})
	r.fn(counter, func(inv *functions.Invocation, ask func(functions.Read) functions.ReadAnswer) *functions.Outcome {
		<-release
		return failing(functions.FaultKilled) // the worker died with the gateway
	})
	r.start()
	var acks []<-chan error
	for i := range 10 {
		acks = append(acks, r.message("in/a", fmt.Sprint(i), fmt.Sprint(i), false))
	}
	for _, a := range acks {
		settled(t, a)
	}
	r.e.mu.Lock()
	r.e.stopping = true // nothing more is dispatched, as if the power went
	r.e.mu.Unlock()
	close(release)
	r.stop()

	r = openRig(t, r.dir)
	var mu sync.Mutex
	var got []string
	r.fn(counter, func(inv *functions.Invocation, ask func(functions.Read) functions.ReadAnswer) *functions.Outcome {
		mu.Lock()
		got = append(got, string(inv.Event.Data))
		mu.Unlock()
		return count(inv, ask)
	})
	r.start()
	r.wait("all", func() bool { return r.state("counter", "in/a", "n") == "10" })
	mu.Lock()
	require.Equal(t, []string{"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"}, got)
	mu.Unlock()
}

func TestWhatAFunctionMayNotIsADeadLetterAndNothingOfItHappens(t *testing.T) {
	for name, x := range map[string]functions.Effect{
		"publish":  {Kind: functions.Publish, Name: "forbidden/x", Value: []byte("1")},
		"prefix":   {Kind: functions.Publish, Name: "perigee/gw/status", Value: []byte("1")},
		"system":   {Kind: functions.Publish, Name: "$SYS/x", Value: []byte("1")},
		"wildcard": {Kind: functions.Publish, Name: "out/#", Value: []byte("1")},
		"stream":   {Kind: functions.Append, Name: "other", Value: []byte("1")},
		"device":   {Kind: functions.WriteDevice, Name: "meter2", Value: []byte("1")},
		"json":     {Kind: functions.SetState, Name: "a", Value: []byte("{")},
		"name":     {Kind: functions.SetState, Name: "", Value: []byte("1")},
		"timer":    {Kind: functions.SetTimer, Name: "t", For: -1},
		"unknown":  {Kind: 99},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.fn(counter, func(*functions.Invocation, func(functions.Read) functions.ReadAnswer) *functions.Outcome {
				return ok(functions.Effect{Kind: functions.SetState, Name: "before", Value: []byte("1")}, x)
			})
			r.start()
			settled(t, r.message("in/a", "1", "1", false))
			require.Equal(t, "", r.state("counter", "in/a", "before"))
			require.Empty(t, r.broker.published())
			dead, err := r.e.DeadLetters("", "", 0)
			require.NoError(t, err)
			require.Len(t, dead, 1)
		})
	}
}

func TestTimersFireOnceAndSurviveARestart(t *testing.T) {
	r := newRig(t)
	timers := func(inv *functions.Invocation, ask func(functions.Read) functions.ReadAnswer) *functions.Outcome {
		if inv.Event.Type == event.Timer {
			return count(inv, ask)
		}
		return ok(functions.Effect{Kind: functions.SetTimer, Name: "soon", For: 200 * time.Millisecond},
			functions.Effect{Kind: functions.SetTimer, Name: "never", For: time.Hour},
			functions.Effect{Kind: functions.CancelTimer, Name: "never"})
	}
	r.fn(counter, timers)
	r.start()
	settled(t, r.message("in/a", "1", "1", false))
	settled(t, r.message("in/a", "1", "2", false)) // sets it anew
	r.stop()
	r = openRig(t, r.dir)
	r.fn(counter, timers)
	r.start()
	r.wait("the timer", func() bool { return r.state("counter", "in/a", "n") == "1" })
	settled(t, r.message("in/b", "1", "3", false))
	r.wait("the other timer", func() bool { return r.state("counter", "in/b", "n") == "1" })
	require.Equal(t, "1", r.state("counter", "in/a", "n"))
}

func TestActionsThatMayNotHaveArrivedAreRepeatedWithTheSameID(t *testing.T) {
	r := newRig(t)
	r.fn(counter, count)
	r.broker.lose = 3
	r.start()
	for i := range 10 {
		settled(t, r.message("in/a", "1", fmt.Sprint(i), false))
	}
	r.wait("the journal to be empty", func() bool { return r.e.Counts().Actions == 0 })
	var got []int
	seen := map[string]bool{}
	for _, m := range r.broker.published() {
		if !seen[m.ID] {
			seen[m.ID] = true
			var v int
			require.NoError(t, json.Unmarshal(m.Payload, &v))
			got = append(got, v)
		}
	}
	require.Equal(t, []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, got)
	require.Greater(t, len(r.broker.published()), 10)
}

func TestActionsSurviveARestartAndKeepTheirIDs(t *testing.T) {
	r := newRig(t)
	r.fn(counter, count)
	r.broker.fail = drivers.ErrNotConnected
	r.start()
	settled(t, r.message("in/a", "1", "1", false))
	r.wait("the action", func() bool { return r.e.Counts().Actions == 1 })
	r.stop()
	r = openRig(t, r.dir)
	r.fn(counter, count)
	r.start()
	r.wait("the publish", func() bool { return len(r.broker.published()) == 1 })
	require.Len(t, r.broker.published()[0].ID, 32)
}

func TestADeviceIsWrittenAndAPulseEnds(t *testing.T) {
	r := newRig(t)
	r.fn(counter, func(inv *functions.Invocation, _ func(functions.Read) functions.ReadAnswer) *functions.Outcome {
		if string(inv.Event.Data) == "pulse" {
			return ok(functions.Effect{Kind: functions.WriteDevice, Name: "fan", Value: []byte("true"), For: 20 * time.Millisecond})
		}
		return ok(functions.Effect{Kind: functions.WriteDevice, Name: "fan", Value: []byte("1.5")},
			functions.Effect{Kind: functions.WriteDevice, Name: "meter", Value: []byte(`"ON"`)})
	})
	r.start()
	settled(t, r.message("in/a", "x", "1", false))
	r.wait("the writes", func() bool { return len(r.fan.written()) == 1 && len(r.broker.published()) == 1 })
	require.Equal(t, "meter/1/set", r.broker.published()[0].Topic)
	require.Equal(t, "ON", string(r.broker.published()[0].Payload))
	settled(t, r.message("in/a", "pulse", "2", false))
	r.wait("the pulse's end", func() bool { return len(r.fan.written()) == 3 })
	require.Equal(t, []any{1.5, true, false}, r.fan.written())
	r.wait("the journal to be empty", func() bool { return r.e.Counts().Actions == 0 })
}

func TestAMessageIsAlsoTheReadingOfADevice(t *testing.T) {
	r := newRig(t)
	got := make(chan string, 10)
	r.fn("name: watch\ntriggers: [{device: meter}]\npermissions: {devices: {read: [meter]}}\n", func(inv *functions.Invocation, ask func(functions.Read) functions.ReadAnswer) *functions.Outcome {
		got <- string(inv.Event.Data) + inv.Event.Subject + string(ask(functions.Read{Kind: functions.ReadDevice, Name: "meter"}).Value)
		return ok()
	})
	r.start()
	settled(t, r.message("meter/1/json", `{"power": 12.50, "other": 1}`, "1", false))
	require.Equal(t, `{"power":12.5}meter{"power":12.5}`, <-got)
	settled(t, r.message("meter/1/json", `not json`, "2", false))
	require.Empty(t, got)
}

func TestResultsAndStateTriggerOtherFunctions(t *testing.T) {
	r := newRig(t)
	got := make(chan string, 10)
	hear := func(inv *functions.Invocation, _ func(functions.Read) functions.ReadAnswer) *functions.Outcome {
		got <- inv.Function + " " + inv.Event.Type + " " + string(inv.Event.Data)
		return ok()
	}
	r.fn("name: first\ntriggers: [{mqtt: in/+}]\n", func(inv *functions.Invocation, _ func(functions.Read) functions.ReadAnswer) *functions.Outcome {
		o := ok(functions.Effect{Kind: functions.SetState, Name: "hot", Value: inv.Event.Data})
		o.Result = []byte(`{"r":1}`)
		return o
	})
	r.fn("name: second\ntriggers: [{function: first}]\n", hear)
	r.fn("name: third\ntriggers: [{state: first/hot}]\n", hear)
	r.start()
	settled(t, r.message("in/a", "true", "1", false))
	require.ElementsMatch(t, []string{`second result {"r":1}`, `third state true`}, []string{<-got, <-got})
	settled(t, r.message("in/a", "true", "2", false)) // the state does not change
	require.Equal(t, `second result {"r":1}`, <-got)
	settled(t, r.message("in/a", "false", "3", false))
	require.ElementsMatch(t, []string{`second result {"r":1}`, `third state false`}, []string{<-got, <-got})
	r.wait("all done", func() bool { c := r.e.Counts(); return c.Inbox == 0 && c.Waiting == 0 })
}

// TestNothingRunsBeforeStart: what waited in the inbox could otherwise have an outcome before the functions that it triggers are there.
func TestNothingRunsBeforeStart(t *testing.T) {
	r := newRig(t)
	got := make(chan string, 10)
	first := func(r *rig) {
		r.fn("name: first\ntriggers: [{mqtt: in/+}]\n", func(inv *functions.Invocation, _ func(functions.Read) functions.ReadAnswer) *functions.Outcome {
			got <- "first"
			return ok(functions.Effect{Kind: functions.SetState, Name: "hot", Value: inv.Event.Data})
		})
	}
	first(r)
	e := &event.Event{Source: "mqtt", Type: event.Message, Subject: "in/a", Topic: "in/a", Data: []byte("true")}
	require.NoError(t, r.e.Offer(context.Background(), drivers.Delivery{Event: e}))
	r.stop()
	require.Empty(t, got)

	r = openRig(t, r.dir)
	first(r)
	r.e.Pump() // as when a worker is there
	r.pool.wg.Wait()
	require.Empty(t, got)
	r.fn("name: third\ntriggers: [{state: first/hot}]\n", func(inv *functions.Invocation, _ func(functions.Read) functions.ReadAnswer) *functions.Outcome {
		got <- "third " + string(inv.Event.Data)
		return ok()
	})
	r.start()
	r.wait("both to run", func() bool { return len(got) == 2 })
	require.Equal(t, []string{"first", "third true"}, []string{<-got, <-got})
}

func TestACircleEnds(t *testing.T) {
	r := newRig(t)
	var runs atomic.Int64
	r.fn("name: loop\ntriggers: [{mqtt: loop/x}]\npermissions: {publish: [loop/x]}\n", func(*functions.Invocation, func(functions.Read) functions.ReadAnswer) *functions.Outcome {
		runs.Add(1)
		return ok(functions.Effect{Kind: functions.Publish, Name: "loop/x", Value: []byte("1")})
	})
	r.start()
	settled(t, r.message("loop/x", "1", "1", false))
	r.wait("the end", func() bool { return r.e.Counts().Losses["chain"] == 1 })
	require.EqualValues(t, 17, runs.Load())
}

func TestCirclesOfResultsAndStateEnd(t *testing.T) {
	r := newRig(t)
	var results, states atomic.Int64
	r.fn("name: ping\ntriggers: [{mqtt: in/x}, {function: pong}]\n", func(*functions.Invocation, func(functions.Read) functions.ReadAnswer) *functions.Outcome {
		results.Add(1)
		return &functions.Outcome{Result: []byte("1")}
	})
	r.fn("name: pong\ntriggers: [{function: ping}]\n", func(*functions.Invocation, func(functions.Read) functions.ReadAnswer) *functions.Outcome {
		results.Add(1)
		return &functions.Outcome{Result: []byte("1")}
	})
	r.fn("name: self\ntriggers: [{mqtt: in/x}, {state: self/n}]\n", func(*functions.Invocation, func(functions.Read) functions.ReadAnswer) *functions.Outcome {
		return ok(functions.Effect{Kind: functions.SetState, Name: "n", Value: []byte(fmt.Sprint(states.Add(1)))})
	})
	r.start()
	settled(t, r.message("in/x", "1", "1", false))
	r.wait("both ends", func() bool { return r.e.Counts().Losses["chain"] == 2 })
	require.EqualValues(t, 17, results.Load())
	require.EqualValues(t, 17, states.Load())
	past, _, _ := r.e.Lives(100, false)
	require.Contains(t, fmt.Sprintf("%+v", past), "functions that start one another went round more than 16 times")
}

// Another broker does not carry the length of a chain: a message that comes back is known by what it is.
func TestACircleThroughAnotherBrokerEnds(t *testing.T) {
	r := newRig(t)
	r.broker.inProcess = false
	var runs atomic.Int64
	r.fn("name: loop\ntriggers: [{mqtt: loop/x}]\npermissions: {publish: [loop/x]}\n", func(*functions.Invocation, func(functions.Read) functions.ReadAnswer) *functions.Outcome {
		runs.Add(1)
		return ok(functions.Effect{Kind: functions.Publish, Name: "loop/x", Value: []byte("1")})
	})
	r.start()
	settled(t, r.message("loop/x", "1", "", false))
	for n := 1; r.e.Counts().Losses["chain"] == 0; n++ {
		r.wait("a publish", func() bool { return len(r.broker.published()) == n })
		settled(t, r.message("loop/x", "1", "", false)) // as the broker sends it
	}
	require.EqualValues(t, 17, runs.Load())
	settled(t, r.message("loop/y", "1", "", false))
}

func TestSharedStateRunsAgainOnAConflict(t *testing.T) {
	r := newRig(t)
	const n, from = 60, 4
	r.fn("name: sum\ntriggers: [{mqtt: in/+}]\nkey: none\nlimits: {concurrency: 8}\n", func(inv *functions.Invocation, ask func(functions.Read) functions.ReadAnswer) *functions.Outcome {
		read := functions.Read{Kind: functions.ReadShared, Name: "total"}
		v := 0
		if a := ask(read); a.Value != nil {
			_ = json.Unmarshal(a.Value, &v)
		}
		time.Sleep(time.Millisecond)
		o := ok(functions.Effect{Kind: functions.SetShared, Name: "total", Value: []byte(fmt.Sprint(v + 1))})
		o.Reads = []functions.Read{read}
		return o
	})
	r.start()
	var acks []<-chan error
	for i := range n {
		acks = append(acks, r.message(fmt.Sprintf("in/%d", i%from), "1", fmt.Sprint(i), false))
	}
	for _, a := range acks {
		settled(t, a)
	}
	r.wait("all", func() bool { c := r.e.Counts(); return c.Committed == n })
	v, _, err := state.Value(r.st, state.Shared("sum"), "total")
	require.NoError(t, err)
	require.Equal(t, fmt.Sprint(n), string(v))
	require.Greater(t, r.e.fns["sum"].stats.conflicts.Load(), int64(0))
}

func TestAPausedFunctionsEventsCollectAndARemovedOnesAreDeadLetters(t *testing.T) {
	r := newRig(t)
	r.fn(counter, count)
	r.start()
	require.NoError(t, r.e.SetState(context.Background(), "counter", Paused, "by hand"))
	for i := range 5 {
		settled(t, r.message("in/a", "1", fmt.Sprint(i), false))
	}
	require.EqualValues(t, 5, r.e.Counts().Inbox)
	require.NoError(t, r.e.SetState(context.Background(), "counter", Active, ""))
	r.wait("they run", func() bool { return r.state("counter", "in/a", "n") == "5" })
	require.NoError(t, r.e.SetState(context.Background(), "counter", Paused, "by hand"))
	a := r.message("in/a", "1", "9", false)
	settled(t, a)
	require.NoError(t, r.e.Remove(context.Background(), "counter"))
	dead, err := r.e.DeadLetters("counter", "", 0)
	require.NoError(t, err)
	require.Len(t, dead, 1)
	require.Equal(t, "removed", dead[0].Reason)
	settled(t, r.message("in/a", "1", "10", false)) // matches nothing any more
	require.Empty(t, r.broker.filters[:0])
}

func TestRetainedMessagesThatBringNothingNewAreSkipped(t *testing.T) {
	r := newRig(t)
	r.fn(counter, count)
	r.start()
	retained := func(payload string) {
		require.NoError(t, r.e.Offer(context.Background(), drivers.Delivery{Event: &event.Event{Source: "mqtt", Type: event.Message,
			Subject: "in/a", Topic: "in/a", Data: []byte(payload), Retained: true}}))
	}
	settled(t, r.message("in/a", "1", "1", false))
	retained("1")
	retained("2")
	r.wait("the new one", func() bool { return r.state("counter", "in/a", "n") == "2" })
	r.wait("all done", func() bool { return r.e.Counts().Committed == 2 })
	retained("2")
	require.EqualValues(t, 0, r.e.Counts().Waiting)
	require.Equal(t, "2", r.state("counter", "in/a", "n"))
}

func TestWhatCanNeverBeAcceptedIsRefusedAndSettled(t *testing.T) {
	r := newRig(t)
	r.fn(counter, count)
	r.start()
	require.ErrorIs(t, <-r.message("in/a", string(make([]byte, 300<<10)), "1", false), drivers.ErrRefused)
	require.ErrorIs(t, <-r.message("in/\xff", "1", "2", false), drivers.ErrRefused)
	require.Equal(t, map[string]int64{"too large": 1, "topic not UTF-8": 1}, r.e.Counts().Refused)
	settled(t, r.message("in/a", "1", "3", false))
}

func TestSkippedFunctionsSayWhy(t *testing.T) {
	r := newRig(t)
	r.fn("name: warm\ntriggers: [{mqtt: {topic: \"in/{room}\", has: [temperature], exclude: [in/attic]}}]\n", func(*functions.Invocation, func(functions.Read) functions.ReadAnswer) *functions.Outcome {
		return ok()
	})
	r.start()
	for payload, why := range map[string]string{
		`{"humidity": 1}`: `has: the payload has no field "temperature"`,
		`nonsense`:        `has: the payload is not a JSON object`,
	} {
		settled(t, r.message("in/cellar", payload, "", false))
		lives, _, _ := r.e.Lives(1, false)
		require.Equal(t, "skipped", lives[0].Outcomes[0].What)
		require.Equal(t, why, lives[0].Outcomes[0].Why)
	}
	settled(t, r.message("in/attic", `{"temperature": 1}`, "", false))
	lives, _, _ := r.e.Lives(1, false)
	require.Equal(t, "excluded by in/attic", lives[0].Outcomes[0].Why)
}

func TestADeviceSaysThatItsMessageWasNoReading(t *testing.T) {
	r := newRig(t)
	r.start()
	settled(t, r.message("meter/1/json", "garbage", "", false))
	_, err := r.e.ReadDevice(t.Context(), "meter")
	require.EqualError(t, err, `device "meter" has said nothing that can be read: the payload has no field "power" with a plain value`)
	settled(t, r.message("meter/1/json", `{"power": 3}`, "", false))
	require.Empty(t, r.e.Unread("meter"))
	settled(t, r.message("meter/1/json", `{"x": 3}`, "", false))
	require.Equal(t, `the payload has no field "power" with a plain value`, r.e.Unread("meter"))
	require.False(t, r.e.readings.unread("meter", "again", r.e.clock.Now()), "within a minute it is not logged again")
	f, err := r.e.ReadDevice(t.Context(), "meter")
	require.NoError(t, err)
	require.Equal(t, drivers.Fields{"power": 3.0}, f)
}

func TestABlockedFunctionSaysWhyItDidNotRun(t *testing.T) {
	r := newRig(t)
	never := func(*functions.Invocation, func(functions.Read) functions.ReadAnswer) *functions.Outcome {
		t.Error("it ran")
		return ok()
	}
	r.fn("name: door\ntriggers: [{mqtt: bl/1}, {device: meter}, {every: 1s}, {function: other}]\n", never)
	require.NoError(t, r.e.SetState(t.Context(), "door", Blocked, `needs device "nothere"`))
	r.start()
	require.Contains(t, r.broker.subscribed(), drivers.Filter{Topic: "bl/1", QoS: 1, Watched: true})
	require.Empty(t, r.e.Ticks())
	for topic, payload := range map[string]string{"bl/1": "1", "meter/1/json": `{"power": 1}`} {
		settled(t, r.message(topic, payload, "", false))
		lives, _, _ := r.e.Lives(1, false)
		require.Equal(t, []LifeOutcome{{Function: "door", What: "skipped", Why: `blocked: needs device "nothere"`}}, lives[0].Outcomes)
	}
	r.fn("name: both\ntriggers: [{mqtt: bl/1}]\n", count)
	require.Contains(t, r.broker.subscribed(), drivers.Filter{Topic: "bl/1", QoS: 1})
}

func TestWhatAnEventWaitsForIsSaid(t *testing.T) {
	r := newRig(t)
	hold := make(chan struct{})
	r.fn("name: slow\nkey: \"{topic}\"\ntriggers: [{mqtt: in/#}]\n", func(*functions.Invocation, func(functions.Read) functions.ReadAnswer) *functions.Outcome {
		<-hold
		return ok()
	})
	r.start()
	first, second := r.message("in/a", "1", "", false), r.message("in/a", "2", "", false)
	lives, _, _ := r.e.Lives(2, false)
	require.Equal(t, "running", lives[0].Outcomes[0].What)
	require.Empty(t, lives[0].Outcomes[0].Why)
	require.Equal(t, []LifeOutcome{{Function: "slow", What: "waiting", Why: "for earlier events of its key"}}, lives[1].Outcomes)
	close(hold)
	settled(t, first)
	settled(t, second)
	lives, _, _ = r.e.Lives(1, false)
	require.Equal(t, "committed", lives[0].Outcomes[0].What)
	require.Empty(t, lives[0].Outcomes[0].Why)
}

func TestAnEventThatCannotBeSentAgainIsStoredOrCommitted(t *testing.T) {
	r := newRig(t)
	hold := make(chan struct{})
	r.fn("name: edge\ntriggers: [{device: fan}]\n", func(*functions.Invocation, func(functions.Read) functions.ReadAnswer) *functions.Outcome {
		<-hold
		return failing(functions.FaultKilled)
	})
	r.start()
	require.NoError(t, r.e.Offer(context.Background(), drivers.Delivery{Event: &event.Event{Source: "device/fan", Type: event.Reading, Subject: "fan", Data: []byte(`{"a":1}`)}}))
	require.EqualValues(t, 1, r.e.Counts().Inbox)
	r.e.mu.Lock()
	r.e.stopping = true
	r.e.mu.Unlock()
	close(hold)
	r.stop()
	r = openRig(t, r.dir)
	done := make(chan struct{})
	r.fn("name: edge\ntriggers: [{device: fan}]\n", func(*functions.Invocation, func(functions.Read) functions.ReadAnswer) *functions.Outcome {
		close(done)
		return ok()
	})
	r.start()
	<-done
}

func TestADeviceThatIsOnlyWrittenSubscribesToNothing(t *testing.T) {
	r := openRig(t, t.TempDir(), func(o *Options) {
		o.Devices["valve"] = &drivers.Device{Name: "valve", Kind: "mqtt", Feed: &drivers.Feed{Write: "valve/set"}}
	})
	r.fn(counter, count)
	require.Equal(t, []drivers.Filter{{Topic: "in/+", QoS: 1}, {Topic: "meter/1/json", QoS: 1}}, r.broker.filters)
}

func TestWhatWaitsOrBringsNoReadingSaysWhy(t *testing.T) {
	r := newRig(t)
	r.fn(counter, count)
	r.fn("name: watch\ntriggers: [{device: meter}]\n", count)
	r.start()
	settled(t, r.message("meter/1/json", `{"other": 1}`, "1", false))
	lives, _, _ := r.e.Lives(1, false)
	require.Equal(t, `device meter: the payload has no field "power" with a plain value`, lives[0].Outcomes[0].Why)
	require.NoError(t, r.e.SetState(context.Background(), "counter", Paused, "by hand"))
	settled(t, r.message("in/a", "1", "2", false))
	lives, _, _ = r.e.Lives(1, false)
	require.Equal(t, "waiting", lives[0].Outcomes[0].What)
	require.Equal(t, "counter is paused: by hand", lives[0].Outcomes[0].Why)
}

func TestTheLogOfAllFunctionsIsOneInOrder(t *testing.T) {
	r := newRig(t)
	l := r.e.logs
	for i, fn := range []string{"b", "a", "b"} {
		l.add(LogLine{Function: fn, up: time.Duration(i)})
	}
	past, _, _ := r.e.Logs("", 10, false)
	require.Equal(t, []string{"b", "a", "b"}, []string{past[0].Function, past[1].Function, past[2].Function})
}

func TestWhatItsSourceRefusedIsShown(t *testing.T) {
	r := newRig(t)
	ev := &event.Event{Source: "mqtt", Type: event.Message, Topic: "in/\xff", Subject: "in/\xff"}
	require.NoError(t, r.e.Offer(t.Context(), drivers.Delivery{Event: ev, Refused: "its payload is too large"}))
	past, _, _ := r.e.Lives(10, false)
	require.Len(t, past, 1)
	require.Equal(t, "in/?", past[0].Subject)
	require.Equal(t, "its payload is too large", past[0].Refused)
	require.Empty(t, r.e.Counts().Refused, "its source has counted it")
}

func TestARetryThatIsUsedUpCountsAsAFault(t *testing.T) {
	r := newRig(t)
	r.fn("name: asks\ntriggers: [{mqtt: in/#}]\nretry: {attempts: 2, first: 10ms}\n", func(*functions.Invocation, func(functions.Read) functions.ReadAnswer) *functions.Outcome {
		return &functions.Outcome{Retry: &functions.RetryAsk{Why: "busy"}}
	})
	r.start()
	settled(t, r.message("in/a", "1", "", false))
	r.wait("the dead letter", func() bool { return r.e.Functions()[0].Dead == 1 })
	f := r.e.Functions()[0]
	require.EqualValues(t, 2, f.Runs)
	require.Equal(t, map[string]int64{"error": 1}, f.Faults)
	require.Equal(t, "it asked to be run again: busy", f.LastFault.Message)
}
