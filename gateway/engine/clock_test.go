package engine

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/internal/store"
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
	r := newRig(t)
	c := r.e.clock
	c.base += 10 * time.Hour
	require.NoError(t, r.st.Update(func(tx store.Tx) error {
		c.bootS = "another boot"
		c.put(tx)
		return nil
	}))
	next, err := OpenClock(r.st, r.e.log)
	require.NoError(t, err)
	require.EqualValues(t, 2, next.Boot())
	require.InDelta(t, float64(10*time.Hour), float64(next.Now()), float64(time.Minute))
}
