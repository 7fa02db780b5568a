package engine

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/functions"
)

func TestKills(t *testing.T) {
	var k kills
	now := 100 * time.Hour
	for range maxKills - 1 {
		require.False(t, k.add(now))
	}
	require.True(t, k.add(now), "too many at once")

	k = kills{}
	for range 20 * maxKills {
		require.False(t, k.add(now), "one now and then")
		now += killIsPast
	}

	k = kills{}
	n := 1
	for ; !k.add(now); n++ {
		now += killIsPast / 2
	}
	require.Equal(t, 2*maxKills-2, n, "twice as many as are forgotten")
}

// TestAFunctionThatKillsItsWorkersIsPaused: its events wait, nothing of them is lost, and it can be resumed.
func TestAFunctionThatKillsItsWorkersIsPaused(t *testing.T) {
	paused := make(chan string, 10)
	r := openRig(t, t.TempDir(), func(o *Options) {
		o.OnPause = func(function, revision, reason string) {
			require.NotEmpty(t, revision)
			paused <- function + ": " + reason
		}
	})
	kills := true
	lost := func() *functions.Outcome {
		o := failing(functions.FaultKilled)
		o.Lost = true
		return o
	}
	r.fn("name: killer\ntriggers: [{mqtt: in/+}]\nkey: none\nretry: {attempts: 3, first: 10ms, max: 10ms}\n",
		func(inv *functions.Invocation, _ func(functions.Read) functions.ReadAnswer) *functions.Outcome {
			if kills {
				return lost()
			}
			return ok()
		})
	r.fn("name: good\ntriggers: [{mqtt: in/+}]\nkey: none\n",
		func(*functions.Invocation, func(functions.Read) functions.ReadAnswer) *functions.Outcome { return ok() })
	r.start()
	info := func(name string) FunctionInfo {
		for _, f := range r.e.Functions() {
			if f.Name == name {
				return f
			}
		}
		return FunctionInfo{}
	}
	const events = 40
	var acks []<-chan error
	for range events {
		acks = append(acks, r.message("in/a", "1", "", false))
	}
	for _, a := range acks {
		settled(t, a)
	}
	select {
	case why := <-paused:
		require.Contains(t, why, "killer: it has cost 10 workers lately, the last one: killed: main.lua:1: no")
		require.Contains(t, why, "perigee functions resume killer")
	case <-time.After(120 * time.Second):
		t.Fatal("not paused")
	}
	f := info("killer")
	require.Equal(t, Paused, f.State)
	require.Contains(t, f.Reason, "workers")
	r.wait("what runs to end", func() bool {
		f := info("killer")
		return f.Waiting+f.Dead == events && info("good").OK == events
	})
	require.LessOrEqual(t, info("killer").Runs, int64(maxKills+8), "what was on its way when it was paused")
	require.Empty(t, paused)

	kills = false
	dead := info("killer").Dead
	require.NoError(t, r.e.SetState(context.Background(), "killer", Active, ""))
	r.wait("what waited to run", func() bool { return info("killer").OK == events-dead })
	require.Equal(t, Active, info("killer").State)
}
