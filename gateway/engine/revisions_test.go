package engine

import (
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/internal/store"
)

// The new revision's first attempt on a key waits for the one in flight, which ends on its own; also where the old revision ran its
// events in parallel.
func TestANewRevisionWaitsForWhatIsInFlight(t *testing.T) {
	for name, old := range map[string]string{
		"of its key":           "name: v\ntriggers: [{mqtt: in/+}]\nkey: \"{topic}\"\ndescription: old\n",
		"of one that had none": "name: v\ntriggers: [{mqtt: in/+}]\nkey: none\nlimits: {concurrency: 8}\n",
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			key := "key: \"{topic}\"\n"
			if name != "of its key" {
				key = ""
			}
			inside, on := make(chan struct{}, 8), make(chan struct{})
			ran := make(chan string, 8)
			b := func(inv *functions.Invocation, _ func(functions.Read) functions.ReadAnswer) *functions.Outcome {
				if string(inv.Event.Data) == "old" {
					inside <- struct{}{}
					<-on
				}
				ran <- string(inv.Event.Data) + inv.Revision[:4]
				return ok(functions.Effect{Kind: functions.IncrShared, Name: "n", By: 1})
			}
			before := r.fn(old, b).Digest[:4]
			r.start()
			first := r.message("in/a", "old", "", false)
			<-inside
			now := r.fn("name: v\ntriggers: [{mqtt: in/+}]\n"+key+"description: new\n", b).Digest[:4]
			second := r.message("in/a", "new", "", false)
			settled(t, second) // by the inbox
			require.Empty(t, ran)
			close(on)
			settled(t, first)
			require.Equal(t, []string{"old" + before, "new" + now}, []string{<-ran, <-ran})
		})
	}
}

// Attempts are counted over revisions and restarts, and each is made on the revision of its time.
func TestAttemptsCarryOverToANewRevision(t *testing.T) {
	dir, on := t.TempDir(), newBox(spring)
	yaml := counter + "retry: {attempts: 3, first: 1h, max: 1h}\n"
	var got []string
	var revisions []string
	b := func(inv *functions.Invocation, _ func(functions.Read) functions.ReadAnswer) *functions.Outcome {
		got = append(got, fmt.Sprint(inv.Attempt, " on ", slices.Index(revisions, inv.Revision)))
		return failing(functions.FaultTimeout)
	}
	r := timed(t, dir, on)
	revisions = append(revisions, r.fn(yaml, b).Digest)
	r.start()
	settled(t, r.message("in/a", "1", "", false))
	revisions = append(revisions, r.fn(yaml+"description: second\n", b).Digest)
	r.pass(time.Hour)
	r.wait("the second attempt", func() bool { return r.e.Counts().Faults == 2 })
	r.stop()
	r = timed(t, dir, on)
	revisions = append(revisions, r.fn(yaml+"description: third\n", b).Digest)
	r.start()
	r.pass(time.Hour)
	r.wait("the dead letter", func() bool { return r.e.Counts().Dead == 1 })
	require.Equal(t, []string{"1 on 0", "2 on 1", "3 on 2"}, got)
	dead, err := r.e.DeadLetters("counter", "", 0)
	require.NoError(t, err)
	require.Equal(t, revisions[2], dead[0].Revision)
	require.Equal(t, 3, dead[0].Attempts)
}

// A function that is removed while its event waits for another attempt leaves a dead letter that says on which revision the last one was.
func TestWhatIsRemovedKeepsTheRevisionOfItsLastAttempt(t *testing.T) {
	dir := t.TempDir()
	r := openRig(t, dir)
	yaml := counter + "retry: {first: 1h, max: 1h}\n"
	digest := r.fn(yaml, func(*functions.Invocation, func(functions.Read) functions.ReadAnswer) *functions.Outcome {
		return failing(functions.FaultTimeout)
	}).Digest
	r.start()
	settled(t, r.message("in/a", "1", "", false))
	r.stop()
	r = openRig(t, dir)
	r.fn(yaml+"description: new\n", count)
	require.NoError(t, r.e.Remove(t.Context(), "counter"))
	dead, err := r.e.DeadLetters("counter", "", 0)
	require.NoError(t, err)
	require.Len(t, dead, 1)
	require.Equal(t, "removed", dead[0].Reason)
	require.Equal(t, digest, dead[0].Revision)
	require.Equal(t, 1, dead[0].Attempts)
}

// What waits for a removed function becomes dead letters, if need be when the disk takes them.
func TestDeadLettersOfARemovedFunctionAreWrittenInTheEnd(t *testing.T) {
	var bad atomic.Bool
	so := store.Options{Linger: time.Millisecond, MinFree: 1, Fault: func() error {
		if bad.Load() {
			return errors.New("as if the disk had failed")
		}
		return nil
	}}
	r := openRigOn(t, t.TempDir(), so, func(o *Options) { o.RedoAfter = 10 * time.Millisecond })
	r.fn(counter, count)
	require.NoError(t, r.e.SetState(t.Context(), "counter", Paused, "by hand"))
	r.start()
	for i := range 3 {
		settled(t, r.message("in/a", fmt.Sprint(i), fmt.Sprint(i), false))
	}
	bad.Store(true)
	_ = r.e.Remove(t.Context(), "counter")
	dead, err := r.e.DeadLetters("counter", "", 0)
	require.NoError(t, err)
	require.Empty(t, dead)
	bad.Store(false)
	r.wait("the dead letters", func() bool {
		dead, err := r.e.DeadLetters("counter", "", 0)
		return err == nil && len(dead) == 3
	})
	r.fn(counter, count)
	require.Zero(t, r.e.Counts().Waiting, "nothing is left in the inbox")
}

// The same if the power went before: at the next start nobody knows the function any more.
func TestWhatARemovedFunctionLeftInTheInboxIsSwept(t *testing.T) {
	dir := t.TempDir()
	r := openRig(t, dir)
	r.fn(counter, count)
	r.fn("name: other\ntriggers: [{mqtt: in/+}]\n", count)
	for _, fn := range []string{"counter", "other"} {
		require.NoError(t, r.e.SetState(t.Context(), fn, Paused, "by hand"))
	}
	r.start()
	for i := range 3 {
		settled(t, r.message("in/a", fmt.Sprint(i), fmt.Sprint(i), false))
	}
	r.stop()
	r = openRig(t, dir)
	require.NoError(t, r.e.Sweep(func(fn string) bool { return fn == "other" }))
	r.start()
	dead, err := r.e.DeadLetters("counter", "", 0)
	require.NoError(t, err)
	require.Len(t, dead, 3)
	require.Equal(t, "removed", dead[0].Reason)
	var payloads []string
	for _, d := range dead {
		one, err := r.e.DeadLetter(d.ID) // a list has none
		require.NoError(t, err)
		payloads = append(payloads, string(one.Event.Data))
	}
	require.Equal(t, []string{"2", "1", "0"}, payloads, "newest first")
	r.fn(counter, count)
	require.Zero(t, r.e.Counts().Waiting)
	var h heard
	r.fn("name: other\ntriggers: [{mqtt: in/+}]\n", h.body)
	r.wait("the other function's", func() bool { return r.state("other", "", "n") == "3" })
}
