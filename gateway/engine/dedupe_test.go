package engine

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const deduping = counter + "dedupe: {by: data.id, window: 1h}\n"

func TestAValueRunsOnceWithinItsWindow(t *testing.T) {
	r := newRig(t)
	r.fn(deduping, count)
	r.start()
	settled(t, r.message("in/a", `{"id": 1}`, "1", false))
	settled(t, r.message("in/a", `{"id": 1.0}`, "2", false))
	settled(t, r.message("in/a", `{"id": 2}`, "3", false))
	settled(t, r.message("in/a", `{}`, "4", false)) // without the value it always runs
	settled(t, r.message("in/a", `{}`, "5", false))
	require.Equal(t, "4", r.state("counter", "in/a", "n"))
	r.stop()
	r = openRig(t, r.dir)
	r.fn(deduping, count)
	r.start()
	settled(t, r.message("in/a", `{"id": 2}`, "6", false))
	settled(t, r.message("in/a", `{"id": 3}`, "7", false))
	require.Equal(t, "5", r.state("counter", "in/a", "n"))
}

func TestWindowsEndAndTheirValuesAreForgotten(t *testing.T) {
	d := &deduped{until: map[string]sighting{}}
	require.False(t, d.repeats("a", 1, 0, time.Minute))
	require.True(t, d.repeats("a", 2, 59*time.Second, time.Minute))
	require.False(t, d.repeats("a", 3, time.Minute, time.Minute))
	require.False(t, d.repeats("b", 4, time.Minute, time.Minute))
	d.forget(&job{dedupe: "b", order: 3})
	require.True(t, d.repeats("b", 5, time.Minute, time.Minute))
	d.forget(&job{dedupe: "b", order: 4})
	require.False(t, d.repeats("b", 6, time.Minute, time.Minute))
	require.Len(t, d.queue, 2)
}
