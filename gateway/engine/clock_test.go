package engine

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/internal/event"
	"github.com/perigee-iot/perigee/internal/store"
	"github.com/perigee-iot/perigee/internal/wire"
)

// TestNumbersAreTakenInsideUpdates: a store that takes one update at a time must not be asked for another from within.
func TestNumbersAreTakenInsideUpdates(t *testing.T) {
	r := newRig(t)
	r.start()
	was := r.e.seq.next()
	for range 8 {
		require.NoError(t, r.st.Update(func(store.Tx) error {
			for range sequenceBlock / 4 {
				n := r.e.seq.next()
				if n <= was {
					t.Fatalf("%d after %d", n, was)
				}
				was = n
			}
			return nil
		}))
		r.wait("the next block", func() bool {
			r.e.seq.mu.Lock()
			defer r.e.seq.mu.Unlock()
			return r.e.seq.until > r.e.seq.at
		})
	}
	r.stop()
	r = openRig(t, r.dir)
	require.Greater(t, r.e.seq.next(), was, "after a restart numbers go on")
}

func TestTheGatewaysClockGoesOnOverARestart(t *testing.T) {
	r := newRig(t)
	r.start()
	before := r.e.clock.Now()
	r.stop()
	r = openRig(t, r.dir)
	now := r.e.clock.Now()
	require.GreaterOrEqual(t, now, before)
	require.Less(t, now, before+time.Minute)
	require.EqualValues(t, 1, r.e.clock.Boot(), "the machine did not boot")
}

func TestAnotherBootGoesOnWhereTheClockWasStored(t *testing.T) {
	dir, on := t.TempDir(), newBox(time.Unix(0, 0))
	r := timed(t, dir, on)
	r.pass(10 * time.Hour)
	r.stop()
	r = timed(t, dir, on.boot())
	require.EqualValues(t, 2, r.e.clock.Boot())
	require.InDelta(t, float64(10*time.Hour), float64(r.e.clock.Now()), float64(time.Minute))
}

var spring = time.Date(2026, 3, 1, 6, 0, 0, 0, time.UTC)

const year = 365 * 24 * time.Hour

// timed is a rig on a machine of its own.
func timed(t *testing.T, dir string, on *box) *rig {
	return bootRig(t, dir, on, store.Options{Linger: time.Millisecond, MinFree: 1})
}

// A stamp that was made before the clock was right is corrected wherever it is used afterwards, over a restart and a boot too.
func TestStampsFromBeforeTheClockWasRightAreCorrected(t *testing.T) {
	dir, on := t.TempDir(), newBox(time.Unix(0, 0))
	r := timed(t, dir, on)
	got := make(chan *event.Event, 10)
	timely := func(inv *functions.Invocation, _ func(functions.Read) functions.ReadAnswer) *functions.Outcome {
		got <- inv.Event
		if string(inv.Event.Data) == "bad" {
			return failing(functions.FaultError)
		}
		return ok(functions.Effect{Kind: functions.Append, Name: "log", Value: []byte("1")})
	}
	r.fn(counter, timely)
	r.start()
	r.pass(time.Minute) // since 1970
	settled(t, r.message("in/a", "1", "1", false))
	settled(t, r.message("in/a", "bad", "2", false))
	early := <-got
	require.False(t, early.TimeOK)
	require.Equal(t, 1970, early.Time.Year())
	<-got
	require.NoError(t, r.e.SetState(t.Context(), "counter", Paused, "by hand"))
	settled(t, r.message("in/a", "2", "3", false))
	settled(t, r.message("in/a", "3", "4", false))

	on.sync(spring)
	right := func(at time.Time) { t.Helper(); require.WithinDuration(t, spring.Add(time.Minute), at, 30*time.Second) }
	r.wait("the clock to be asked again", func() bool { r.pass(clockAsk); _, ok := r.e.clock.Wall(); return ok })
	lives, _, _ := r.e.Lives(4, false)
	for _, l := range lives {
		require.True(t, l.TimeOK)
		right(l.Time)
	}
	lines, _, _ := r.e.Logs("counter", 1, false)
	right(lines[0].Time)
	dead, err := r.e.DeadLetters("counter", "", 0)
	require.NoError(t, err)
	require.True(t, dead[0].SinceOK)
	right(dead[0].Since)
	right(dead[0].Event.Time)
	require.NoError(t, r.e.SetState(t.Context(), "counter", Active, ""))
	ev := <-got
	require.True(t, ev.TimeOK)
	right(ev.Time)
	r.wait("the boot's time to be stored", func() bool {
		found := false
		require.NoError(t, r.st.View(func(s store.Reader) error { _, found, err = s.Get(bootsKey); return err }))
		return found
	})
	require.NoError(t, r.e.Replay(dead[0].ID, []byte("bad"))) // a dead letter again, with the time that it had
	<-got
	<-got
	r.wait("the dead letter", func() bool { return r.e.Counts().Dead == 1 && r.e.Counts().Waiting == 0 })
	r.stop()

	r = timed(t, dir, on.boot()) // in 1970, again
	_, known := r.e.clock.Wall()
	require.False(t, known)
	dead, err = r.e.DeadLetters("counter", "", 0)
	require.NoError(t, err)
	require.True(t, dead[0].Event.TimeOK)
	right(dead[0].Event.Time)
}

// What was stamped in a boot whose clock never became right keeps its stamp, and says so.
func TestAStampThatNobodyCanCorrectStaysWhatItIs(t *testing.T) {
	dir, on := t.TempDir(), newBox(time.Unix(0, 0))
	r := timed(t, dir, on)
	r.fn(counter, count)
	r.start()
	require.NoError(t, r.e.SetState(t.Context(), "counter", Paused, "by hand"))
	settled(t, r.message("in/a", "1", "1", false))
	r.stop()
	on = on.boot()
	on.sync(spring)
	r = timed(t, dir, on)
	got := make(chan *event.Event, 1)
	r.fn(counter, func(inv *functions.Invocation, _ func(functions.Read) functions.ReadAnswer) *functions.Outcome {
		got <- inv.Event
		return ok()
	})
	r.start()
	ev := <-got
	require.False(t, ev.TimeOK)
	require.Equal(t, 1970, ev.Time.Year())
	require.EqualValues(t, 1, ev.Boot)
}

// The kernel's word is not taken for longer than the clock stands still: whoever sets it by hand makes it wrong at once.
func TestAClockThatJumpsIsAskedAtOnce(t *testing.T) {
	on := newBox(spring)
	on.ok = true
	r := timed(t, t.TempDir(), on)
	_, known := r.e.clock.Wall()
	require.True(t, known)
	on.mu.Lock()
	on.at, on.ok = on.at.Add(year), false
	on.mu.Unlock()
	_, known = r.e.clock.Wall()
	require.False(t, known)
	on.sync(spring)
	now, known := r.e.clock.Wall()
	require.True(t, known)
	require.WithinDuration(t, spring, now, time.Minute)
}

// A retry, a timer and a window wait for as long as they should, whatever the wall clock does meanwhile: by the gateway's clock nothing has jumped.
func TestTheWallClockJumpsWhileSomethingWaits(t *testing.T) {
	for name, by := range map[string]time.Duration{"a year on": year, "a year back": -year, "out of 1970": 56 * year} {
		t.Run(name, func(t *testing.T) {
			dir, on := t.TempDir(), newBox(spring)
			on.ok = true
			yaml := deduping + "retry: {attempts: 3, first: 1h, max: 1h}\n"
			var attempts atomic.Int64
			waiting := func(inv *functions.Invocation, ask func(functions.Read) functions.ReadAnswer) *functions.Outcome {
				switch {
				case inv.Event.Type == event.Timer:
					return count(inv, ask)
				case string(inv.Event.Data) == "retry":
					if attempts.Add(1) == 1 {
						return failing(functions.FaultTimeout)
					}
					return count(inv, ask)
				}
				return ok(functions.Effect{Kind: functions.SetTimer, Name: "t", For: time.Hour}, functions.Effect{Kind: functions.IncrState, Name: "ran", By: 1})
			}
			r := timed(t, dir, on)
			r.fn(yaml, waiting)
			r.start()
			settled(t, r.message("in/retry", "retry", "1", false))
			settled(t, r.message("in/timer", `{"id": 1}`, "2", false))
			same := func(mark, ran string) {
				t.Helper()
				settled(t, r.message("in/timer", `{"id": 1}`, mark, false))
				r.wait("the invocation", func() bool { return r.state("counter", "in/timer", "ran") == ran })
			}
			on.jump(by)
			r.pass(29 * time.Minute) // a retry may come after half its time
			same("3", "1")
			require.EqualValues(t, 1, attempts.Load())
			require.Empty(t, r.state("counter", "in/timer", "n"))
			r.stop()
			r = timed(t, dir, on) // the same boot: time went on while nobody looked
			r.fn(yaml, waiting)
			r.start()
			on.jump(-by)
			same("4", "1")
			require.EqualValues(t, 1, attempts.Load())
			r.pass(32 * time.Minute)
			r.wait("the retry and the timer", func() bool {
				return r.state("counter", "in/retry", "n") == "1" && r.state("counter", "in/timer", "n") == "1"
			})
			require.EqualValues(t, 2, attempts.Load())
			same("5", "2")
		})
	}
}

// After a power cut deadlines go on where the clock was stored last. Nothing waits for longer than its back-off's longest pause.
func TestDeadlinesSurviveAPowerCut(t *testing.T) {
	dir, on := t.TempDir(), newBox(spring)
	yaml := counter + "retry: {attempts: 3, first: 1h, max: 1h}\n"
	waiting := func(inv *functions.Invocation, ask func(functions.Read) functions.ReadAnswer) *functions.Outcome {
		if inv.Event.Type == event.Timer || inv.Attempt > 1 {
			return count(inv, ask)
		}
		o := failing(functions.FaultTimeout)
		if inv.Key == "in/timer" {
			o = ok(functions.Effect{Kind: functions.SetTimer, Name: "t", For: 15 * time.Minute})
		}
		return o
	}
	r := timed(t, dir, on)
	r.fn(yaml, waiting)
	r.start()
	settled(t, r.message("in/timer", "1", "1", false))
	settled(t, r.message("in/retry", "1", "2", false))
	r.pass(5 * time.Minute)
	r.wait("the clock to be stored", func() bool {
		var at time.Duration
		require.NoError(t, r.st.View(func(s store.Reader) error {
			v, _, err := s.Get(clockKey)
			w := wire.NewReader(v)
			_, _ = w.String(), w.Uint()
			at = time.Duration(w.Int())
			return err
		}))
		return at > 5*time.Minute
	})
	r.stop()
	r = timed(t, dir, on.boot())
	r.fn(yaml, waiting)
	r.start()
	r.pass(9 * time.Minute)
	require.Empty(t, r.state("counter", "in/timer", "n"))
	r.pass(90 * time.Second)
	r.wait("the timer", func() bool { return r.state("counter", "in/timer", "n") == "1" })
	r.pass(time.Hour)
	r.wait("the retry", func() bool { return r.state("counter", "in/retry", "n") == "1" })
}
