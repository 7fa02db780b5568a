package engine

import (
	"fmt"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/internal/store"
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

// A client that never uses a packet id anew before it has used all of them leaves no more marks than it can need.
func TestMarksOfASessionAreBounded(t *testing.T) {
	r := newRig(t)
	r.fn(counter, count)
	r.start()
	for i := range marksKept + 50 {
		settled(t, r.message("in/a", "1", fmt.Sprintf("m%d", i), false))
	}
	require.Len(t, r.e.marks.of("session"), marksKept)
	require.NotContains(t, r.e.marks.of("session"), "session\x00m49")
	require.Contains(t, r.e.marks.of("session"), "session\x00m50")
	stored := 0
	require.NoError(t, r.e.st.View(func(v store.Reader) error {
		return v.Scan(store.NewKey(store.Marks), nil, func(_, _ []byte) bool { stored++; return true })
	}))
	require.Equal(t, marksKept, stored)
	settled(t, r.message("in/a", "1", fmt.Sprintf("m%d", marksKept+49), true))
	require.Equal(t, fmt.Sprint(marksKept+50), r.state("counter", "in/a", "n"), "a repetition of the newest")
}

// Whatever comes and goes, the index holds the newest marks of each session, and the queue no more than that.
func TestMarksAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &marks{by: map[string]*markEntry{}, queue: map[string][]*markEntry{}}
		var model []string // oldest first, of one session
		for range rapid.IntRange(0, 3*marksKept).Draw(t, "steps") {
			mark := fmt.Sprintf("s\x00%d", rapid.IntRange(0, 2*marksKept).Draw(t, "mark"))
			at := slices.Index(model, mark)
			if rapid.IntRange(0, 9).Draw(t, "go") == 0 {
				if gone := m.take([]string{mark}); (len(gone) == 1) != (at >= 0) {
					t.Fatalf("%q: took %v", mark, gone)
				}
				if at >= 0 {
					model = slices.Delete(model, at, at+1)
				}
				continue
			}
			over := m.add(mark, "f")
			if at < 0 {
				model = append(model, mark)
			}
			for _, x := range over {
				if x.mark != model[0] {
					t.Fatalf("%q went before %q", x.mark, model[0])
				}
				model = model[1:]
			}
		}
		if len(m.by) != len(model) || len(m.queue["s"]) > marksKept {
			t.Fatalf("%d marks, %d in the queue, want %d", len(m.by), len(m.queue["s"]), len(model))
		}
		for _, mark := range model {
			if !m.has(markOf{mark, "f"}) {
				t.Fatalf("%q is missing", mark)
			}
		}
	})
}
