package engine

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/functions/usage"
)

// TestUsage: every attempt counts once, as what it was judged to be, and is there after a restart.
func TestUsage(t *testing.T) {
	r := newRig(t)
	answers := map[string]*functions.Outcome{
		`"error"`:  failing(functions.FaultError),
		`"denied"`: ok(functions.Effect{Kind: functions.Publish, Name: "elsewhere"}),                                     // the gateway says so
		`"quota"`:  ok(functions.Effect{Kind: functions.Append, Name: "log", Value: make([]byte, 10)}),                   // is no JSON
		`"incr"`:   ok(functions.Effect{Kind: functions.IncrState, Name: "text", By: 1}),                                 // fails in the update
		`"text"`:   ok(functions.Effect{Kind: functions.SetState, Name: "text", Value: []byte(`"no number, 30 bytes"`)}), // 23 bytes with its name
	}
	b := r.fn(counter, func(inv *functions.Invocation, _ func(functions.Read) functions.ReadAnswer) *functions.Outcome {
		o := *answers[string(inv.Event.Data)]
		o.Usage = functions.Usage{Wall: 3 * time.Millisecond, CPU: 2 * time.Millisecond, Memory: 1 << 20}
		return &o
	})
	r.start()
	for _, what := range []string{`"text"`, `"incr"`, `"error"`, `"denied"`, `"quota"`} {
		settled(t, r.message("in/a", what, "", false))
	}
	check := func() {
		t.Helper()
		rows, err := r.e.Usage(usage.Query{Revisions: true})
		require.NoError(t, err)
		require.Equal(t, 1, len(rows))
		u := rows[0]
		require.Equal(t, b.Digest, u.Revision)
		require.EqualValues(t, 5, u.Runs())
		require.EqualValues(t, 1, u.Outcomes[0])
		require.EqualValues(t, 1, u.Count(functions.FaultError))
		require.EqualValues(t, 1, u.Count(functions.FaultDenied))
		require.EqualValues(t, 2, u.Count(functions.FaultBadOutput), "one of them found when it was to be applied")
		require.Equal(t, 15*time.Millisecond, u.Wall)
		require.Equal(t, 10*time.Millisecond, u.CPU)
		require.EqualValues(t, len(`"text""incr""error""denied""quota"`), u.In)
		require.EqualValues(t, 1024, u.Memories.Max())
		require.Greater(t, u.Written, int64(500), "state, dead letters and marks")
	}
	check()
	info := r.e.Functions()[0]
	require.EqualValues(t, 5, info.Runs)
	require.EqualValues(t, 1, info.OK)
	require.EqualValues(t, 1<<20, info.Memory)
	require.Equal(t, 15*time.Millisecond, info.Busy)
	require.Greater(t, info.Wrote, int64(500))
	require.Equal(t, map[string]int64{"error": 1, "denied": 1, "bad-output": 2}, info.Faults)
	r.stop()
	r = openRig(t, r.dir)
	check()
	rows, err := r.e.Usage(usage.Query{})
	require.NoError(t, err)
	require.Greater(t, rows[0].State, int64(20))
	before := r.st.Stats().Updates
	r.e.foldNow()
	require.Equal(t, before, r.st.Stats().Updates, "nothing is written when nothing ran")
}

// TestUsageOfWhatWaits: an event that had to go to the inbox was written for its function.
func TestUsageOfWhatWaits(t *testing.T) {
	r := newRig(t)
	r.fn(counter, count)
	require.NoError(t, r.e.SetState(context.Background(), "counter", Paused, "test"))
	r.start()
	settled(t, r.message("in/a", "0123456789", "", false))
	r.wait("the entry is counted", func() bool { return r.e.Functions()[0].Wrote > 10 })
}

func TestRecent(t *testing.T) {
	var r recent
	r.add(5, 10)
	r.add(5, 7)
	require.EqualValues(t, 10, r.highest(5))
	require.EqualValues(t, 10, r.highest(6))
	r.add(6, 3)
	require.EqualValues(t, 10, r.highest(6))
	require.EqualValues(t, 3, r.highest(7))
	require.Zero(t, r.highest(9))
}
