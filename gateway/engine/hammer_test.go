package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/drivers"
	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/functions/bundle"
	"github.com/perigee-iot/perigee/functions/state"
	"github.com/perigee-iot/perigee/internal/event"
	"github.com/perigee-iot/perigee/internal/store"
	"github.com/perigee-iot/perigee/sync/outbox"
)

const (
	tallyYAML  = "name: tally\ntriggers: [{mqtt: in/+}]\nkey: \"{topic}\"\nretry: {first: 10ms, max: 20ms}\npermissions: {publish: [out/#], streams: [log]}\n"
	frailYAML  = "name: frail\ntriggers: [{mqtt: in/+}]\nkey: none\nretry: {first: 10ms, max: 20ms}\n"
	comingYAML = "name: coming\ntriggers: [{mqtt: in/+}]\nkey: \"{topic}\"\nretry: {first: 10ms, max: 20ms, overtake: true}\n"
	heirYAML   = "name: heir\ntriggers: [{function: tally}]\nkey: data.key\n"
)

// numbered is what the sources send, and what tally returns.
type numbered struct {
	Key string `json:"key"`
	N   int    `json:"n"`
}

func stateInt(ask func(functions.Read) functions.ReadAnswer, kind functions.ReadKind, name string) (n int, read functions.Read) {
	read = functions.Read{Kind: kind, Name: name}
	if a := ask(read); a.Value != nil {
		_ = json.Unmarshal(a.Value, &n)
	}
	return n, read
}

// inOrder counts an event of its key, and notes when it is not the one after the last.
func inOrder(n int, ask func(functions.Read) functions.ReadAnswer) *functions.Outcome {
	last, read := stateInt(ask, functions.ReadState, "n")
	o := ok(functions.Effect{Kind: functions.SetState, Name: "n", Value: fmt.Append(nil, n)},
		functions.Effect{Kind: functions.IncrState, Name: "count", By: 1})
	if n != last+1 {
		o.Effects = append(o.Effects, functions.Effect{Kind: functions.IncrState, Name: "bad", By: 1})
	}
	o.Reads = []functions.Read{read}
	return o
}

// hammer is what goes on at once.
type hammer struct {
	*rig
	healed atomic.Bool  // frail does not fail any more
	every  atomic.Int64 // n: each n-th group is dropped; 0: none
	groups atomic.Int64
	drops  atomic.Int64
	ctx    context.Context
	wg     sync.WaitGroup
}

func newHammer(t *testing.T, d store.Durability) *hammer {
	h := &hammer{}
	log := slog.New(slog.DiscardHandler)
	fault := func() error {
		if n := h.every.Load(); n == 0 || h.groups.Add(1)%n != 0 {
			return nil
		}
		h.drops.Add(1)
		return errors.New("as if the disk had failed")
	}
	st, err := store.Open(t.TempDir(), store.Options{Durability: d, Linger: time.Millisecond, Profile: "small", MinFree: 1, Log: log, Fault: fault})
	require.NoError(t, err)
	r := &rig{t: t, st: st, broker: &fakeBroker{inProcess: true}}
	r.box, err = outbox.Open(st, outbox.Options{Gateway: "gw", Log: log})
	require.NoError(t, err)
	clock, err := OpenClock(st, log)
	require.NoError(t, err)
	r.e, err = New(Options{Gateway: "gw", Store: st, Clock: clock, Outbox: r.box, Broker: r.broker, Log: log, SpillAfter: 5 * time.Millisecond, RedoAfter: 5 * time.Millisecond,
		Concurrency: 4, MaxDead: 1 << 20})
	require.NoError(t, err)
	r.pool = &fakePool{size: 8, onRoom: r.e.Pump, bodies: map[string]body{}}
	r.e.Use(r.pool)
	h.rig = r
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 120*time.Second)
		defer cancel()
		require.NoError(t, r.e.Drain(ctx))
		r.e.Stop()
		r.pool.wg.Wait()
		require.NoError(t, st.Close())
	})
	return h
}

// deploy installs a function while everything runs; the body stays.
func (h *hammer) deploy(yaml string) {
	bn, err := bundle.FromFiles(map[string][]byte{"function.yaml": []byte(yaml), "main.lua": fmt.Appendf(nil, "return function() end -- %d", rand.Int())}, "")
	if err == nil {
		err = h.e.Install(context.Background(), &Deployment{Bundle: bn, Env: []byte("{}")}, Active, "")
	}
	if err != nil {
		h.t.Error(err)
	}
}

// often does something every few milliseconds until the sources are done.
func (h *hammer) often(fn func()) {
	h.wg.Go(func() {
		for h.ctx.Err() == nil {
			fn()
			time.Sleep(time.Duration(1+rand.IntN(20)) * time.Millisecond)
		}
	})
}

// source offers n events of one key, some of them waiting for their acknowledgement at once.
func (h *hammer) source(key string, n int) {
	window := make(chan struct{}, 40)
	for i := 1; i <= n; i++ {
		window <- struct{}{}
		data, _ := json.Marshal(numbered{key, i})
		d := drivers.Delivery{Mark: drivers.Mark(key, uint16(i)), Ack: func(error) { <-window },
			Event: &event.Event{Source: "mqtt", Type: event.Message, Subject: "in/" + key, Topic: "in/" + key, Data: data}}
		if err := h.e.Offer(context.Background(), d); err != nil {
			h.t.Error(err)
		}
	}
	for range cap(window) {
		window <- struct{}{} // all are acknowledged
	}
}

func (h *hammer) replayAll(fn string) {
	letters, err := h.e.DeadLetters(fn, "", 0)
	if err != nil {
		h.t.Error(err)
	}
	for _, l := range letters {
		if err := h.e.Replay(l.ID, nil); err != nil && !errors.Is(err, ErrNoDeadLetter) && !errors.Is(err, store.ErrDropped) {
			h.t.Error(err)
		}
	}
}

// Everything at once: events, faults and retries, results that lead on, pauses, new revisions, a function that comes and goes,
// replays, and groups of the store that are dropped. In the end every event is in state once, in order, and acknowledged.
func TestHammer(t *testing.T) {
	for name, c := range map[string]struct {
		durability store.Durability
		every      int64
	}{
		"no group is dropped":         {store.Crash, 0},
		"groups are dropped":          {store.Crash, 7},
		"groups are dropped in power": {store.Power, 5},
		"many groups are dropped":     {store.Crash, 3},
	} {
		t.Run(name, func(t *testing.T) { runHammer(t, c.durability, c.every) })
	}
}

func runHammer(t *testing.T, d store.Durability, every int64) {
	h := newHammer(t, d)
	fault := func(inv *functions.Invocation, one int, n int) bool { return inv.Attempt == 1 && n%one == 0 }
	number := func(inv *functions.Invocation) (v numbered) {
		_ = json.Unmarshal(inv.Event.Data, &v)
		return v
	}
	h.pool.bodies["tally"] = func(inv *functions.Invocation, ask func(functions.Read) functions.ReadAnswer) *functions.Outcome {
		v := number(inv)
		if fault(inv, 13, v.N) {
			return failing(functions.FaultTimeout)
		}
		o := inOrder(v.N, ask)
		o.Effects = append(o.Effects, functions.Effect{Kind: functions.Publish, Name: "out/x", Value: []byte("1"), QoS: 1},
			functions.Effect{Kind: functions.Append, Name: "log", Value: inv.Event.Data})
		o.Result = inv.Event.Data
		return o
	}
	h.pool.bodies["heir"] = func(inv *functions.Invocation, ask func(functions.Read) functions.ReadAnswer) *functions.Outcome {
		return inOrder(number(inv).N, ask)
	}
	h.pool.bodies["frail"] = func(inv *functions.Invocation, ask func(functions.Read) functions.ReadAnswer) *functions.Outcome {
		if v := number(inv); v.N%11 == 0 && !h.healed.Load() {
			return failing(functions.FaultError)
		} else if fault(inv, 17, v.N) {
			return failing(functions.FaultKilled)
		}
		count, read := stateInt(ask, functions.ReadShared, "count") // and not IncrShared, so that it meets conflicts
		o := ok(functions.Effect{Kind: functions.SetShared, Name: "count", Value: fmt.Append(nil, count+1)})
		o.Reads = []functions.Read{read}
		return o
	}
	h.pool.bodies["coming"] = func(inv *functions.Invocation, ask func(functions.Read) functions.ReadAnswer) *functions.Outcome {
		if fault(inv, 3, number(inv).N) {
			return failing(functions.FaultTimeout)
		}
		seen, read := stateInt(ask, functions.ReadState, fmt.Sprint(number(inv).N))
		o := ok(functions.Effect{Kind: functions.SetState, Name: read.Name, Value: fmt.Append(nil, seen+1)})
		o.Reads = []functions.Read{read}
		if seen > 0 {
			o.Effects = append(o.Effects, functions.Effect{Kind: functions.IncrState, Name: "bad", By: 1})
		}
		return o
	}
	for _, yaml := range []string{tallyYAML, frailYAML, comingYAML, heirYAML} {
		h.deploy(yaml)
	}
	h.start()
	h.every.Store(every)

	const keys, each = 6, 300
	ctx, cancel := context.WithCancel(context.Background())
	h.ctx = ctx
	for _, name := range []string{"tally", "frail", "heir"} {
		h.often(func() {
			_ = h.e.SetState(context.Background(), name, Paused, "hammer")
			time.Sleep(time.Duration(rand.IntN(10)) * time.Millisecond)
			_ = h.e.SetState(context.Background(), name, Active, "")
		})
	}
	h.often(func() { h.deploy([]string{tallyYAML, frailYAML, heirYAML}[rand.IntN(3)]) })
	h.often(func() {
		if err := h.e.Remove(context.Background(), "coming"); err != nil && !errors.Is(err, store.ErrDropped) {
			t.Error(err)
		}
		h.deploy(comingYAML)
		h.replayAll("coming")
	})
	h.often(func() { h.replayAll("frail") })
	var sources sync.WaitGroup
	for k := range keys {
		sources.Go(func() { h.source(fmt.Sprint("k", k), each) })
	}
	done := make(chan struct{})
	go func() { sources.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(2 * time.Minute):
		t.Errorf("sources still wait for acknowledgements: %+v", h.e.Counts())
	}
	cancel()
	h.wg.Wait()
	h.healed.Store(true)
	h.every.Store(0)
	h.wait("nothing to be left", func() bool {
		h.replayAll("frail")
		h.replayAll("coming")
		c := h.e.Counts()
		return c.Waiting == 0 && c.Inbox == 0 && c.Actions == 0 && !h.deadOf("frail") && !h.deadOf("coming")
	})
	t.Logf("%d events, %d groups dropped, counts %+v", keys*each, h.drops.Load(), h.e.Counts())
	for k := range keys {
		key := fmt.Sprint("k", k)
		for _, fn := range []string{"tally", "heir"} {
			at := key
			if fn == "tally" {
				at = "in/" + key
			}
			h.wait(fn+" to have all of "+key, func() bool { return h.state(fn, at, "n") == fmt.Sprint(each) })
			require.Empty(t, h.state(fn, at, "bad"), "%s of %s: out of order, twice or lost; count %s", fn, key, h.state(fn, at, "count"))
			require.Equal(t, fmt.Sprint(each), h.state(fn, at, "count"))
		}
		for n := range each {
			if h.state("coming", "in/"+key, fmt.Sprint(n+1)) != "" {
				require.Equal(t, "1", h.state("coming", "in/"+key, fmt.Sprint(n+1)), "coming, event %d of %s; twice: %s", n+1, key, h.state("coming", "in/"+key, "bad"))
			}
		}
	}
	require.Equal(t, fmt.Sprint(keys*each), h.shared("frail", "count"))
	require.Empty(t, h.e.Counts().Losses)
}

func (h *hammer) deadOf(fn string) bool {
	letters, err := h.e.DeadLetters(fn, "", 1)
	require.NoError(h.t, err)
	return len(letters) > 0
}

func (h *hammer) shared(fn, name string) string {
	v, _, err := state.Value(h.st, state.Shared(fn), name)
	require.NoError(h.t, err)
	return string(v)
}
