package engine

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/drivers"
	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/internal/store"
)

// down makes broker and fan fail until they are told otherwise.
func (r *rig) down(is bool) {
	var err error
	if is {
		err = fmt.Errorf("as if unplugged: %w", drivers.ErrNotConnected)
	}
	r.broker.mu.Lock()
	r.broker.fail = err
	r.broker.mu.Unlock()
	r.fan.mu.Lock()
	r.fan.fail = err
	r.fan.mu.Unlock()
}

// acting wants all kinds of actions.
func acting(notAfter time.Duration) body {
	return func(inv *functions.Invocation, _ func(functions.Read) functions.ReadAnswer) *functions.Outcome {
		return ok(
			functions.Effect{Kind: functions.Publish, Name: "out/x", Value: inv.Event.Data, NotAfter: notAfter},
			functions.Effect{Kind: functions.WriteDevice, Name: "fan", Value: inv.Event.Data, NotAfter: notAfter},
			functions.Effect{Kind: functions.WriteDevice, Name: "meter", Value: inv.Event.Data, NotAfter: notAfter})
	}
}

func (r *rig) topics() (list []string) {
	for _, m := range r.broker.published() {
		list = append(list, m.Topic)
	}
	return list
}

// After another boot the world has changed: devices are not written with what was decided before, be it by a publish. Publishes are.
func TestDeviceWritesOfAnEarlierBootAreDropped(t *testing.T) {
	dir, on := t.TempDir(), newBox(spring)
	r := timed(t, dir, on)
	r.fn(counter, acting(0))
	r.down(true)
	r.start()
	settled(t, r.message("in/a", "1", "1", false))
	r.wait("the journal", func() bool { return r.e.Counts().Actions == 3 })
	r.stop()

	r = timed(t, dir, on) // the same boot
	r.down(true)
	r.fn(counter, acting(0))
	r.start()
	require.EqualValues(t, 3, r.e.Counts().Actions)
	r.stop()

	r = timed(t, dir, on.boot())
	r.fn(counter, acting(0))
	r.start()
	r.wait("the journal to be empty", func() bool { return r.e.Counts().Actions == 0 })
	require.Equal(t, []string{"out/x"}, r.topics())
	require.Empty(t, r.fan.written())
	require.Equal(t, map[string]int64{"actions of an earlier boot or for a removed device": 2}, r.e.Counts().Losses)
}

// What is too late is dropped and counted, while its target is down, too.
func TestWhatIsTooLateIsNotCarriedOut(t *testing.T) {
	r := timed(t, t.TempDir(), newBox(spring))
	r.fn(counter, acting(time.Minute))
	r.down(true)
	r.start()
	settled(t, r.message("in/a", "1", "1", false))
	r.wait("the journal", func() bool { return r.e.Counts().Actions == 3 })
	r.pass(2 * time.Minute)
	r.down(false)
	settled(t, r.message("in/a", "2", "2", false))
	r.wait("the journal to be empty", func() bool { return r.e.Counts().Actions == 0 })
	require.Equal(t, []string{"out/x", "meter/1/set"}, r.topics())
	require.Equal(t, "2", string(r.broker.published()[0].Payload))
	require.Equal(t, []any{2.0}, r.fan.written())
	require.EqualValues(t, 3, r.e.Counts().Losses["actions after not_after"])
}

// Nobody knows how long the box was off but a clock that is right, before and after.
func TestNotAfterOverABootNeedsARightClock(t *testing.T) {
	for name, c := range map[string]struct {
		before, after bool
		late          bool // by the gateway's own clock
		sent          int
	}{
		"right before and after":      {before: true, after: true, sent: 0},
		"not known before":            {after: true, sent: 1},
		"not known after":             {before: true, sent: 1},
		"later by any clock":          {late: true, sent: 0},
		"right, and late beside that": {before: true, after: true, late: true, sent: 0},
	} {
		t.Run(name, func(t *testing.T) {
			dir, on := t.TempDir(), newBox(spring)
			on.ok = c.before
			r := timed(t, dir, on)
			r.fn(counter, acting(time.Minute))
			r.down(true)
			r.start()
			settled(t, r.message("in/a", "1", "1", false))
			r.wait("the journal", func() bool { return r.e.Counts().Actions == 3 })
			if c.late {
				r.e.Stop() // nothing looks any more
				r.pass(time.Hour)
			}
			r.stop()
			on = on.boot()
			on.at, on.ok = spring.Add(time.Hour), c.after
			r = timed(t, dir, on)
			r.fn(counter, acting(time.Minute))
			r.start()
			r.wait("the journal to be empty", func() bool { return r.e.Counts().Actions == 0 })
			require.Len(t, r.broker.published(), c.sent)
		})
	}
}

// A target that is down holds up only itself, and at its bound only the functions that may write to it.
func TestAFullJournalHoldsUpThoseWhoWriteToIt(t *testing.T) {
	r := openRig(t, t.TempDir(), func(o *Options) { o.MaxJournal = 3 })
	var ran atomic.Int64
	r.fn("name: windy\nkey: \"{topic}\"\ntriggers: [{mqtt: in/+}]\npermissions: {devices: {write: [fan]}}\n",
		func(inv *functions.Invocation, _ func(functions.Read) functions.ReadAnswer) *functions.Outcome {
			ran.Add(1)
			return ok(functions.Effect{Kind: functions.WriteDevice, Name: "fan", Value: inv.Event.Data})
		})
	r.fn(strings.Replace(counter, ", devices: {write: [fan, meter]}", "", 1), count)
	r.fan.fail = errors.New("stuck")
	r.start()
	const n = 20
	for i := range n {
		r.message("in/a", fmt.Sprint(i), "", false)
	}
	r.wait("the other function and its publishes", func() bool { return r.state("counter", "in/a", "n") == fmt.Sprint(n) && len(r.broker.published()) == n })
	require.LessOrEqual(t, ran.Load(), int64(4), "those that were decided while there was room")
	require.LessOrEqual(t, r.e.Counts().Actions, int64(4))
	r.fan.mu.Lock()
	r.fan.fail = nil
	r.fan.mu.Unlock()
	r.wait("all", func() bool { return len(r.fan.written()) == n })
	for i, v := range r.fan.written() {
		require.Equal(t, float64(i), v, "in order")
	}
	require.Empty(t, r.e.Counts().Losses)
}

// A value that a device will never take is dropped, and holds up nobody's writes.
func TestWhatADeviceRefusesIsDropped(t *testing.T) {
	r := newRig(t)
	r.fn("name: windy\ntriggers: [{mqtt: in/+}]\npermissions: {devices: {write: [fan]}}\n",
		func(inv *functions.Invocation, _ func(functions.Read) functions.ReadAnswer) *functions.Outcome {
			return ok(functions.Effect{Kind: functions.WriteDevice, Name: "fan", Value: inv.Event.Data})
		})
	long := strings.Repeat("x", 5000)
	r.fan.refuse = long
	r.start()
	r.message("in/a", "1", "", false)
	r.message("in/a", `"`+long+`"`, "", false)
	r.message("in/a", "2", "", false)
	r.wait("the others", func() bool { return len(r.fan.written()) == 2 && r.e.Counts().Actions == 0 })
	require.Equal(t, []any{1.0, 2.0}, r.fan.written())
	require.Equal(t, map[string]int64{"writes refused by a device": 1}, r.e.Counts().Losses)
	lines, _, _ := r.e.Logs("windy", 10, false)
	require.Len(t, lines, 1)
	require.Equal(t, "error", lines[0].Level)
	require.Equal(t, `a write that the device will never take was dropped: write `+long[:80]+` to device "fan": refused`, lines[0].Text)
}

// What may have arrived is sent again under its id, and counted.
func TestRepeatedActionsAreCounted(t *testing.T) {
	r := newRig(t)
	r.fn(counter, count)
	r.broker.lose = 3
	r.start()
	for range 10 {
		settled(t, r.message("in/a", "1", "", false))
	}
	r.wait("the journal to be empty", func() bool { return r.e.Counts().Actions == 0 })
	ids := map[string]bool{}
	for _, m := range r.broker.published() {
		ids[m.ID] = true
	}
	require.Len(t, ids, 10)
	require.EqualValues(t, len(r.broker.published())-10, r.e.Counts().Repeated)
}

// An action of a version before the present one is read.
func TestOldJournalEntriesAreRead(t *testing.T) {
	a := &action{id: "x", target: deviceTarget("fan"), order: 7, fn: "f", value: []byte("1"), boot: 3, device: true}
	b := a.encode()
	b = append([]byte{1}, b[1:len(b)-1]...)
	got, err := decodeAction(a.journalKey(), b)
	require.NoError(t, err)
	require.Equal(t, a, got)
	a.target, a.device = brokerTarget, false
	b = append([]byte{1}, a.encode()[1:]...)
	got, err = decodeAction(a.journalKey(), b[:len(b)-1])
	require.NoError(t, err)
	require.False(t, got.device)
	_, err = decodeAction(store.NewKey(store.Journal).String("x").Uint(1), []byte{9})
	require.ErrorContains(t, err, "version 9")
}
