package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/functions/recording"
	"github.com/perigee-iot/perigee/internal/event"
)

// taker takes a recording.
type taker struct {
	t     *testing.T
	ended chan error
	stop  context.CancelFunc

	mu    sync.Mutex
	lines []*recording.Line
}

func (r *rig) record(t *testing.T, o RecordOptions) *taker {
	t.Helper()
	k := &taker{t: t, ended: make(chan error, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	k.stop = cancel
	t.Cleanup(cancel)
	go func() { k.ended <- r.e.RecordWindow(ctx, o, k.take) }()
	r.wait("the recording to begin", func() bool { return k.count() > 0 })
	return k
}

func (k *taker) take(b []byte) error {
	l := new(recording.Line)
	if err := json.Unmarshal(b, l); err != nil {
		return err
	}
	k.mu.Lock()
	k.lines = append(k.lines, l)
	k.mu.Unlock()
	return nil
}

func (k *taker) count() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.lines)
}

// all waits for the end and returns the invocations and the last line.
func (k *taker) all() (list []*recording.Invocation, end *recording.End) {
	k.t.Helper()
	select {
	case err := <-k.ended:
		if !errors.Is(err, context.Canceled) {
			require.NoError(k.t, err)
		}
	case <-time.After(2 * time.Minute):
		k.t.Fatal("the recording does not end")
	}
	for _, l := range k.lines {
		if l.Invocation != nil {
			list = append(list, l.Invocation)
		}
		end = l.End
	}
	require.NotNil(k.t, end)
	return list, end
}

func TestARecordingHasWhatInvocationsDependOn(t *testing.T) {
	r := newRig(t)
	r.fn(counter, count)
	r.fn("name: other\ntriggers: [{mqtt: in/+}]\n", func(*functions.Invocation, func(functions.Read) functions.ReadAnswer) *functions.Outcome { return ok() })
	r.start()
	settled(t, r.message("in/a", "0", "", false)) // before it begins
	r.wait("its report", func() bool { r.e.records.mu.Lock(); defer r.e.records.mu.Unlock(); return len(r.e.records.list) == 2 })
	a := "in/a"
	one, all := r.record(t, RecordOptions{Function: "counter", Key: &a, Invocations: 2, Version: "1.2"}), r.record(t, RecordOptions{})
	require.ErrorContains(t, r.e.RecordWindow(context.Background(), RecordOptions{}, nil), "nothing is recorded: 2 others record already")
	for i, topic := range []string{"in/b", "in/a", "in/b", "in/a", "in/a"} {
		settled(t, r.message(topic, fmt.Sprintf(`{"i":%d}`, i), "", false))
	}
	list, end := one.all()
	require.Equal(t, recording.EndCount, end.Why)
	require.Equal(t, 2, end.Invocations)
	require.Equal(t, "1.2", one.lines[0].Begin.Perigee)
	require.Equal(t, "counter", one.lines[1].Function.Name)
	require.Len(t, list, 2)
	for i, inv := range list {
		require.Equal(t, "in/a", inv.Key)
		require.Equal(t, "state", inv.Reads[0].Kind)
		require.Equal(t, fmt.Sprint(i+1), string(inv.Reads[0].Bytes()))
		require.Equal(t, fmt.Sprintf(`{"i":%d}`, 2*i+1), string(inv.Event.Bytes()))
		require.Equal(t, "committed", inv.Outcome.What)
		require.Len(t, inv.Outcome.Effects, 3)
	}
	r.wait("the others", func() bool { return all.count() == 3+10 })
	all.stop()
	list, end = all.all()
	require.Len(t, list, 10)
	require.Equal(t, recording.EndGateway, end.Why)
	require.Zero(t, r.e.recorders.active.Load(), "nothing is left of them")
}

// TestARecordingIsBounded in time, in size, and in what one invocation read.
func TestARecordingIsBounded(t *testing.T) {
	r := newRig(t)
	r.fn(counter, count)
	large := strings.Repeat("x", maxRecordedBytes)
	r.fn("name: large\ntriggers: [{mqtt: large}]\n", func(_ *functions.Invocation, ask func(functions.Read) functions.ReadAnswer) *functions.Outcome {
		ask(functions.Read{Kind: functions.ReadState, Name: large}) // only the question counts here
		return ok()
	})
	r.start()
	_, end := r.record(t, RecordOptions{For: time.Millisecond}).all()
	require.Equal(t, recording.EndTime, end.Why)

	small, all := r.record(t, RecordOptions{Bytes: 3000}), r.record(t, RecordOptions{Invocations: 3})
	settled(t, r.message("in/a", "1", "", false))
	settled(t, r.message("large", "", "", false))
	r.wait("both to be reported", func() bool { return r.e.Counts().Committed == 2 && all.count() >= 4 })
	settled(t, r.message("in/a", `"`+large[:4000]+`"`, "", false))
	settled(t, r.message("in/a", "1", "", false))
	list, end := small.all()
	require.Equal(t, recording.EndSize, end.Why)
	require.Len(t, list, 1)
	list, end = all.all()
	require.Equal(t, recording.EndCount, end.Why)
	require.Len(t, list, 3)
	require.Equal(t, map[string]int{recording.TooLarge: 1}, end.LeftOut)
}

// TestASlowTakerMissesSome: what waits for one who records is bounded, and what was left out is counted and told once.
func TestASlowTakerMissesSome(t *testing.T) {
	l := &recorders{}
	j := &job{fn: &function{Name: "f"}, key: "k", dep: &Deployment{Bundle: &functions.Bundle{Spec: &functions.Spec{}}},
		inv: &functions.Invocation{Function: "f", Revision: "r", Event: &event.Event{Data: bytes.Repeat([]byte("x"), 200<<10)}}}
	v := verdict{what: "committed"}
	l.add(j, ok(), v) // nobody records
	require.Zero(t, l.wants())
	r, err := l.begin(RecordOptions{})
	require.NoError(t, err)
	other := "other"
	_, err = l.begin(RecordOptions{Key: &other})
	require.NoError(t, err)
	require.Equal(t, maxRecordedBytes, l.wants())
	const n = 30
	for range n {
		l.add(j, ok(), v)
	}
	require.LessOrEqual(t, r.bytes, maxRecorderBytes)
	require.Empty(t, l.list[1].queue)
	var lines []string
	w := &tape{recorder: r, secrets: noSecrets{}, functions: map[string]*recording.Function{}, left: map[string]int{}, emit: func(b []byte) error {
		lines = append(lines, string(b))
		return nil
	}}
	w.opt.Bytes = 100 << 20
	full, err := w.pass()
	require.NoError(t, err)
	require.Empty(t, full)
	require.Equal(t, 20, w.count)
	require.Equal(t, map[string]int{recording.TooFast: n - 20}, w.left)
	require.Equal(t, `{"left_out":{"invocations":{"too fast":10}}}`+"\n", lines[len(lines)-1])
	require.Zero(t, r.bytes)
	_, err = w.pass()
	require.NoError(t, err)
	require.Len(t, lines, 1+20+1, "it is told once")
}

// TestARecordingOfRetries has every attempt, with its number.
func TestARecordingOfRetries(t *testing.T) {
	r := newRig(t)
	r.fn("name: shaky\ntriggers: [{mqtt: in}]\nretry: {attempts: 3, first: 10ms}\n", func(inv *functions.Invocation, _ func(functions.Read) functions.ReadAnswer) *functions.Outcome {
		if inv.Attempt < 3 {
			return failing(functions.FaultTimeout)
		}
		return failing(functions.FaultError)
	})
	r.start()
	k := r.record(t, RecordOptions{Invocations: 3})
	settled(t, r.message("in", "1", "", false))
	list, _ := k.all()
	for i, want := range []string{"retry", "retry", "dead"} {
		require.Equal(t, want, list[i].Outcome.What)
		require.Equal(t, i+1, list[i].Attempt)
		require.Equal(t, list[0].Seed, list[i].Seed)
	}
}
