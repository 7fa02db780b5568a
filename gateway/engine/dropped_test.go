package engine

import (
	"context"
	"encoding/json"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/perigee-iot/perigee/drivers"
	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/internal/event"
	"github.com/perigee-iot/perigee/internal/store"
)

// patient is a rig whose groups wait for flush, unless somebody waits for them, and are dropped while it fails.
type patient struct {
	*rig
	fails atomic.Bool
}

func newPatient(t *testing.T) *patient {
	p := &patient{}
	p.rig = openRigOn(t, t.TempDir(), store.Options{Linger: time.Hour, MinFree: 1, Fault: func() error {
		if p.fails.Load() {
			return errors.New("as if the disk had failed")
		}
		return nil
	}}, func(o *Options) { o.RedoAfter = 5 * time.Millisecond })
	t.Cleanup(func() { p.fails.Store(false); p.stop() })
	return p
}

func (p *patient) flush() { _ = p.st.Flush(context.Background()) }

// dropped has the open group dropped.
func (p *patient) dropped() {
	p.t.Helper()
	p.fails.Store(true)
	require.ErrorIs(p.t, p.st.Flush(context.Background()), store.ErrDropped)
	p.fails.Store(false)
}

// waitFlushing waits for cond while groups are written.
func (p *patient) waitFlushing(what string, cond func() bool) {
	p.t.Helper()
	p.wait(what, func() bool { p.flush(); return cond() })
}

// gate is a pool that takes nothing while it is shut.
type gate struct {
	*fakePool
	shut atomic.Bool
}

func (g *gate) Room() int {
	if g.shut.Load() {
		return 0
	}
	return g.fakePool.Room()
}

// enlist adds the event's payload to a list in state.
func enlist(inv *functions.Invocation, ask func(functions.Read) functions.ReadAnswer) *functions.Outcome {
	read := functions.Read{Kind: functions.ReadState, Name: "list"}
	var was []json.RawMessage
	if a := ask(read); a.Value != nil {
		_ = json.Unmarshal(a.Value, &was)
	}
	b, _ := json.Marshal(append(was, inv.Event.Data))
	o := ok(functions.Effect{Kind: functions.SetState, Name: "list", Value: b})
	o.Reads, o.Result = []functions.Read{read}, inv.Event.Data
	return o
}

const lister = "name: lister\ntriggers: [{mqtt: in/+}]\nkey: \"{topic}\"\n"

func TestWhatWaitsDoesNotOvertakeAnOutcomeThatIsLost(t *testing.T) {
	p := newPatient(t)
	g := &gate{fakePool: p.pool}
	p.e.Use(g)
	p.fn(lister, enlist)
	p.start()
	p.flush()
	first := p.message("in/a", "1", "", false)
	p.wait("the first to have an outcome", func() bool { return p.state("lister", "in/a", "list") == "[1]" && p.pool.busy.Load() == 0 })
	g.shut.Store(true)
	second := p.message("in/a", "2", "", false) // it is listed to run next
	p.dropped()
	g.shut.Store(false)
	p.e.Pump()
	p.waitFlushing("both outcomes", func() bool { return len(first) == 1 && len(second) == 1 })
	settled(t, first)
	settled(t, second)
	require.Equal(t, "[1,2]", p.state("lister", "in/a", "list"))
	require.Zero(t, p.e.Counts().Dead)
}

func TestALostOutcomeIsNoAttempt(t *testing.T) {
	p := newPatient(t)
	var attempts atomic.Int64
	p.fn(lister, func(inv *functions.Invocation, ask func(functions.Read) functions.ReadAnswer) *functions.Outcome {
		attempts.Store(int64(inv.Attempt))
		return enlist(inv, ask)
	})
	p.start()
	p.flush()
	acked := p.message("in/a", "1", "", false)
	for range 5 {
		p.wait("an outcome", func() bool { return p.state("lister", "in/a", "list") == "[1]" })
		p.dropped()
	}
	p.waitFlushing("an outcome that stays", func() bool { return len(acked) == 1 })
	require.EqualValues(t, 1, attempts.Load())
	require.Equal(t, "[1]", p.state("lister", "in/a", "list"))
}

// newFullRig is a rig on a disk that has no room: it takes only what deletes, and overwrites a little.
func newFullRig(t *testing.T) *rig {
	t.Helper()
	r := newRig(t)
	r.stop()
	var fs unix.Statfs_t
	require.NoError(t, unix.Statfs(r.dir, &fs))
	full := store.Options{Linger: time.Millisecond, MinFree: 4 * int64(fs.Bavail) * int64(fs.Bsize)} //nolint:unconvert // narrower on some machines
	return openRigOn(t, r.dir, full, func(o *Options) { o.RedoAfter = time.Millisecond })
}

func TestARefusedRetryKeepsItsSourceWaiting(t *testing.T) {
	r := newFullRig(t)
	var runs atomic.Int64
	const noMemory = "name: counter\ntriggers: [{mqtt: {topic: in/+, retained: always}}]\n" // an outcome without effects writes nothing
	r.fn(noMemory, func(*functions.Invocation, func(functions.Read) functions.ReadAnswer) *functions.Outcome {
		if runs.Add(1) <= 3 {
			return failing(functions.FaultTimeout) // its next attempt is to be stored, and the disk is full
		}
		return ok()
	})
	r.start()
	settled(t, r.message("in/a", "1", "", false))
	require.EqualValues(t, 4, runs.Load())
	require.Zero(t, r.e.Counts().Dead)
}

func TestAnInvocationIsReportedOnceItsOutcomeIsDurable(t *testing.T) {
	p := newPatient(t)
	p.fn(lister, enlist)
	p.start()
	p.flush()
	p.fails.Store(true)
	got := make(chan *Report, 1)
	go func() {
		report, err := p.e.Invoke(context.Background(), "lister", Request{Topic: "in/a", Data: []byte("1")})
		assertNoError(t, err)
		got <- report
	}()
	p.wait("an outcome to be lost", func() bool { return p.st.Drops() > 0 })
	require.Empty(t, got)
	p.fails.Store(false)
	require.Equal(t, "committed", (<-got).Outcome)
	require.Equal(t, "[1]", p.state("lister", "in/a", "list"))
}

func assertNoError(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

func TestACausedEventIsNoDuplicateOfTheOneThatWasLost(t *testing.T) {
	p := newPatient(t)
	p.fn(lister, enlist)
	p.fn("name: heir\ntriggers: [{function: lister}]\nkey: data.id\ndedupe: {by: data.id, window: 1h}\n", enlist)
	p.start()
	p.flush()
	acked := p.message("in/a", `{"id":"x"}`, "", false)
	p.wait("an outcome", func() bool { return p.state("lister", "in/a", "list") != "" })
	p.dropped()
	p.waitFlushing("the heir to run", func() bool { return p.state("heir", "x", "list") == `[{"id":"x"}]` })
	settled(t, acked)
	require.Zero(t, p.e.Counts().Duplicates)
	p.message("in/b", `{"id":"x"}`, "", false)
	p.waitFlushing("the second to be a duplicate", func() bool { return p.e.Counts().Duplicates == 1 })
}

func TestAPublishThatWasCarriedOutIsNotRepeatedWhenItsEventIsLost(t *testing.T) {
	p := newPatient(t)
	p.fn("name: teller\ntriggers: [{mqtt: in/+}]\npermissions: {publish: [out/x]}\n", func(inv *functions.Invocation, _ func(functions.Read) functions.ReadAnswer) *functions.Outcome {
		return ok(functions.Effect{Kind: functions.Publish, Name: "out/x", Value: inv.Event.Data, QoS: 1})
	})
	p.fn("name: hearer\ntriggers: [{mqtt: out/x}]\n", enlist)
	p.start()
	p.flush()
	p.message("in/a", "1", "", false)
	p.message("in/a", "2", "", false)
	p.wait("both to be published and out of the journal", func() bool { return len(p.broker.published()) == 2 && p.e.Counts().Actions == 0 })
	p.dropped()
	p.message("in/a", "3", "", false) // and what is carried out meanwhile waits behind them
	p.waitFlushing("all to be heard", func() bool { return p.state("hearer", "", "list") == "[1,2,3]" })
	require.Len(t, p.broker.published(), 3)
	p.waitFlushing("the journal to be empty", func() bool { return p.e.Counts().Actions == 0 })
	left := 0
	require.NoError(t, p.st.View(func(r store.Reader) error {
		return r.Scan(store.NewKey(store.Journal), nil, func(_, _ []byte) bool { left++; return true })
	}))
	require.Zero(t, left)
}

func TestAPublishThatComesTooLateTriggersNothing(t *testing.T) {
	r := newRig(t)
	r.fn("name: teller\ntriggers: [{mqtt: in/+}]\npermissions: {publish: [out/x]}\n", func(inv *functions.Invocation, _ func(functions.Read) functions.ReadAnswer) *functions.Outcome {
		x := functions.Effect{Kind: functions.Publish, Name: "out/x", Value: inv.Event.Data}
		if string(x.Value) == "1" {
			x.NotAfter = 1
		}
		return ok(x)
	})
	r.fn("name: hearer\ntriggers: [{mqtt: out/x}]\n", enlist)
	r.start()
	settled(t, r.message("in/a", "1", "", false))
	settled(t, r.message("in/a", "2", "", false))
	r.wait("one to be heard", func() bool { return r.state("hearer", "", "list") != "" })
	require.Equal(t, "[2]", r.state("hearer", "", "list"))
	require.Len(t, r.broker.published(), 1)
	require.EqualValues(t, 1, r.e.Counts().Losses["actions after not_after"])
}

func TestWhatIsLoadedFromTheInboxLeavesTheShareAsItCame(t *testing.T) {
	r := newRig(t)
	r.fn(lister, enlist)
	r.start()
	ctx := context.Background()
	require.NoError(t, r.e.SetState(ctx, "lister", Paused, "for a test"))
	ev := &event.Event{Source: "device/a", Type: event.Message, Subject: "in/a", Topic: "in/a", Data: []byte("1")}
	require.NoError(t, r.e.Offer(ctx, drivers.Delivery{Event: ev}))
	share := func() (bytes int64, n int, inMemory bool) {
		r.e.mu.Lock()
		defer r.e.mu.Unlock()
		f := r.e.fns["lister"]
		return f.inbox, f.inboxN, len(f.lanes["in/a"].queue) > 0 && f.lanes["in/a"].queue[0].ev != nil
	}
	r.wait("the event to be in the store only", func() bool { _, n, in := share(); return n == 1 && !in })
	require.NoError(t, r.e.SetState(ctx, "lister", Active, ""))
	r.wait("its outcome", func() bool { return r.state("lister", "in/a", "list") == "[1]" })
	r.wait("nothing to be counted", func() bool {
		r.e.mu.Lock()
		defer r.e.mu.Unlock()
		f := r.e.fns["lister"]
		return f.inboxN == 0 && f.running == 0
	})
	r.e.mu.Lock()
	defer r.e.mu.Unlock()
	require.Zero(t, r.e.fns["lister"].inbox)
}

func TestTheTimersOfARemovedFunctionGoHoweverManyTheyAre(t *testing.T) {
	p := newPatient(t)
	const n = 3*timersAtOnce + 1
	for i := range n {
		require.NoError(t, p.st.Update(func(tx store.Tx) error {
			tx.Put(timerKey("lister", timerID{"k", string(rune('a' + i))}), nil)
			return nil
		}))
	}
	p.fn(lister, enlist)
	require.NoError(t, p.e.Remove(context.Background(), "lister"))
	require.NoError(t, p.st.View(func(r store.Reader) error {
		return r.Scan(store.NewKey(store.Timers), nil, func(k, _ []byte) bool { t.Errorf("%q is left", k); return true })
	}))
}
