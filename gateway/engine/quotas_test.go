package engine

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/internal/store"
)

func TestBucket(t *testing.T) {
	var b bucket
	now := 50 * time.Hour
	for range 1000 {
		require.Zero(t, b.take(0, now), "no rate, no limit")
	}
	for range 10 {
		require.Zero(t, b.take(10, now), "a second's worth at once")
	}
	wait := b.take(10, now)
	require.InDelta(t, 100*time.Millisecond, wait, float64(2*time.Millisecond))
	now += wait
	require.Zero(t, b.take(10, now))
	require.NotZero(t, b.take(10, now))

	b = bucket{}
	n := 0
	for end := now + time.Minute; now < end; now += time.Millisecond {
		if b.take(0.5, now) == 0 {
			n++
		}
	}
	require.InDelta(t, 31, n, 1, "one at first, and one every two seconds")
}

// TestRate: what comes faster than limits.rate waits and is not lost; its source is acknowledged, and others run on.
func TestRate(t *testing.T) {
	r := newRig(t)
	const yaml = "triggers: [{mqtt: in/+}]\nkey: \"{topic}\"\n"
	pass := func(*functions.Invocation, func(functions.Read) functions.ReadAnswer) *functions.Outcome { return ok() }
	r.fn("name: slow\n"+yaml+"limits: {rate: 20}\n", pass)
	r.fn("name: free\n"+yaml, pass)
	r.start()
	runs := func(name string) int64 {
		for _, f := range r.e.Functions() {
			if f.Name == name {
				return f.OK
			}
		}
		return 0
	}
	const n = 50
	begin := time.Now()
	var acks []<-chan error
	for i := range n {
		acks = append(acks, r.message(fmt.Sprintf("in/%d", i%5), "1", "", false))
	}
	for _, a := range acks {
		settled(t, a)
	}
	r.wait("the other to have run", func() bool { return runs("free") == n })
	r.wait("all to have run", func() bool { return runs("slow") == n })
	require.GreaterOrEqual(t, time.Since(begin), time.Second, "20 at once, and 20 a second")
	r.wait("an empty inbox", func() bool { return r.e.Counts().Inbox == 0 })
	require.Zero(t, r.e.Counts().Dead)
}

// TestStreamBytes: what would be over the day's quota of streams is a dead letter that names it, also after a restart; another
// day counts anew.
func TestStreamBytes(t *testing.T) {
	r := newRig(t)
	const yaml = "name: teller\ntriggers: [{mqtt: in/+}]\nkey: none\npermissions: {streams: [log]}\nlimits: {stream_bytes: 100}\n"
	say := func(inv *functions.Invocation, _ func(functions.Read) functions.ReadAnswer) *functions.Outcome {
		return ok(functions.Effect{Kind: functions.Append, Name: "log", Value: inv.Event.Data})
	}
	r.fn(yaml, say)
	r.start()
	dead := func() (last string) {
		list, err := r.e.DeadLetters("teller", "", 0)
		require.NoError(t, err)
		for _, d := range list {
			last = d.Fault.Message
		}
		return last
	}
	long := `"` + strings.Repeat("x", 60) + `"`
	settled(t, r.message("in/a", long, "", false))
	require.EqualValues(t, 0, r.e.Counts().Dead)
	settled(t, r.message("in/a", long, "", false))
	r.wait("a dead letter", func() bool { return r.e.Counts().Dead == 1 })
	require.Equal(t, "limits.stream_bytes: 124 bytes today, 100 are allowed", dead())
	settled(t, r.message("in/a", `"x"`, "", false))
	r.wait("what still fits", func() bool { return r.e.Counts().Committed == 3 })
	require.EqualValues(t, 1, r.e.Counts().Dead)

	r.stop()
	r = openRig(t, r.dir)
	r.fn(yaml, say)
	r.start()
	settled(t, r.message("in/a", long, "", false))
	r.wait("another one", func() bool { return r.e.Counts().Dead == 2 })
	require.NoError(t, r.st.View(func(s store.Reader) error {
		today := int64(r.e.clock.Now() / day)
		n, err := readStreamed(s, streamedKey("teller"), today)
		require.EqualValues(t, 65, n)
		require.NoError(t, err)
		n, err = readStreamed(s, streamedKey("teller"), today+1)
		require.Zero(t, n)
		return err
	}))
	require.NoError(t, r.e.Remove(t.Context(), "teller"))
	require.NoError(t, r.st.View(func(s store.Reader) error {
		_, there, err := s.Get(streamedKey("teller"))
		require.False(t, there)
		return err
	}))
}
