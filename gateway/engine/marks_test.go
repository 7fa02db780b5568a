package engine

import (
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/functions"
)

// A packet id that comes again with a new message ends the mark of the old one at once: a repetition of the new one, if its outcome
// is lost, must not be taken for the old one.
func TestAMarkGoesWhenItsIDIsUsedAnew(t *testing.T) {
	r := newRig(t)
	var hold atomic.Bool
	release := make(chan struct{})
	r.fn(counter, func(inv *functions.Invocation, ask func(functions.Read) functions.ReadAnswer) *functions.Outcome {
		if hold.Load() {
			<-release
		}
		return count(inv, ask)
	})
	r.start()
	settled(t, r.message("in/a", "1", "m1", false))
	require.Len(t, r.e.marks.of("session"), 1)
	hold.Store(true)
	again := r.message("in/a", "1", "m1", false)
	require.Empty(t, r.e.marks.of("session"))
	close(release)
	settled(t, again)
	require.Len(t, r.e.marks.of("session"), 1)
	require.Equal(t, "2", r.state("counter", "in/a", "n"))
}
