package engine

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/internal/event"
	"github.com/perigee-iot/perigee/internal/store"
)

// setter sets the timers that its payload names, and cancels those with a minus.
func setter(inv *functions.Invocation, _ func(functions.Read) functions.ReadAnswer) *functions.Outcome {
	o := ok()
	if inv.Event.Type == event.Timer {
		return o
	}
	for _, name := range strings.Fields(string(inv.Event.Data)) {
		x := functions.Effect{Kind: functions.SetTimer, Name: name, For: time.Hour}
		switch {
		case strings.HasPrefix(name, "-"):
			x = functions.Effect{Kind: functions.CancelTimer, Name: name[1:]}
		case strings.HasPrefix(name, "soon"):
			x.For = time.Millisecond
		}
		o.Effects = append(o.Effects, x)
	}
	return o
}

const fewTimers = "name: setter\ntriggers: [{mqtt: in/+}]\nkey: \"{topic}\"\nlimits: {timers: 3}\n"

func timersOf(t *testing.T, st *store.Store) (n int) {
	t.Helper()
	require.NoError(t, st.View(func(r store.Reader) error {
		return r.Scan(store.NewKey(store.Timers), nil, func(_, _ []byte) bool { n++; return true })
	}))
	return n
}

func TestAFunctionHasAsManyTimersAsItsLimitSays(t *testing.T) {
	r := newRig(t)
	r.fn(fewTimers, setter)
	r.start()
	for i, c := range []struct {
		key, set string
		left     int
		refused  bool
	}{
		{"a", "1 2", 2, false},
		{"b", "1", 3, false},
		{"b", "1", 3, false}, // the same anew
		{"b", "2", 3, true},
		{"b", "2 -1", 3, false}, // another in its place
		{"b", "-none", 3, false},
		{"a", "-1 -2 3 4", 3, false},
		{"c", "1 -1", 3, false},
		{"c", "1 2 3", 3, true},
		{"a", "-3 -4 -4", 1, false},
		{"c", "1 2 2", 3, false},
		{"d", "1", 3, true},
	} {
		settled(t, r.message("in/"+c.key, c.set, "", false))
		require.Equal(t, c.left, timersOf(t, r.st), "%d: %s of %s", i, c.set, c.key)
		dead, err := r.e.DeadLetters("setter", "", 0)
		require.NoError(t, err)
		require.Len(t, dead, map[bool]int{true: 1}[c.refused], "%d", i)
		for _, d := range dead {
			require.Equal(t, functions.FaultBadOutput, d.Fault.Kind)
			require.Regexp(t, `limits.timers: \d timers, 3 are allowed`, d.Fault.Message)
			require.NoError(t, r.e.Drop(d.ID))
		}
	}
	r.stop()
	r = openRig(t, r.dir)
	r.fn(fewTimers, setter)
	r.start()
	settled(t, r.message("in/d", "1", "", false))
	require.Equal(t, 3, timersOf(t, r.st), "the limit holds after a restart")

	// What fires makes room, and so does what is removed.
	settled(t, r.message("in/b", "-1 -2 soon", "", false))
	r.wait("a timer to fire", func() bool { return timersOf(t, r.st) == 2 })
	settled(t, r.message("in/d", "1", "", false))
	require.Equal(t, 3, timersOf(t, r.st))
	require.NoError(t, r.e.Remove(context.Background(), "setter"))
	r.fn(fewTimers, setter)
	settled(t, r.message("in/a", "1 2 3", "", false))
	require.Equal(t, 3, timersOf(t, r.st))
}

func TestTimersThatWereLostAreNotCounted(t *testing.T) {
	p := newPatient(t)
	p.fn(fewTimers, setter)
	p.start()
	p.flush()
	acked := p.message("in/a", "1 2", "", false)
	for range 3 {
		p.wait("two timers", func() bool { return timersOf(t, p.st) == 2 })
		p.dropped()
	}
	p.waitFlushing("them to stay", func() bool { return len(acked) == 1 })
	cancelled := p.message("in/a", "-1 -2", "", false)
	p.wait("no timers", func() bool { return timersOf(t, p.st) == 0 })
	p.dropped()
	p.waitFlushing("them to go", func() bool { return len(cancelled) == 1 })
	p.e.mu.Lock()
	defer p.e.mu.Unlock()
	require.Zero(t, p.e.fns["setter"].timersSet.Load())
}
