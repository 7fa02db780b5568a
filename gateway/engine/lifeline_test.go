package engine

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/drivers"
	"github.com/perigee-iot/perigee/functions"
)

const shaky = "name: shaky\ntriggers: [{mqtt: in}]\nretry: {attempts: 3, first: 10ms, max: 10ms}\npermissions: {publish: [out], streams: [log], devices: {write: [fan]}}\n"

// TestALifeHasEveryStep: attempts, the commit, each action until it is done, and records with their sequences.
func TestALifeHasEveryStep(t *testing.T) {
	r := newRig(t)
	r.fn(shaky, func(inv *functions.Invocation, _ func(functions.Read) functions.ReadAnswer) *functions.Outcome {
		if inv.Attempt < 3 {
			return failing(functions.FaultTimeout)
		}
		return ok(functions.Effect{Kind: functions.Publish, Name: "out", Value: []byte("1"), QoS: 1}, functions.Effect{Kind: functions.WriteDevice, Name: "fan", Value: []byte("true")},
			functions.Effect{Kind: functions.Append, Name: "log", Value: []byte("1")}, functions.Effect{Kind: functions.Append, Name: "log", Value: []byte("2")})
	})
	r.start()
	r.broker.mu.Lock()
	r.broker.fail = drivers.ErrNotConnected
	r.broker.mu.Unlock()
	settled(t, r.message("in", "1", "", false))
	past, _, _ := r.e.Lives(10, false)
	id := past[0].ID
	look := func() LifeOutcome {
		l, known := r.e.LifeOf(id)
		require.True(t, known)
		require.Len(t, l.Outcomes, 1)
		return l.Outcomes[0]
	}
	r.wait("the publish to fail", func() bool {
		o := look()
		return len(o.Actions) == 2 && o.Actions[0].Why != "" && o.Actions[1].What == "done"
	})
	o := look()
	require.Equal(t, "publish out", o.Actions[0].Action)
	require.Equal(t, "waiting", o.Actions[0].What)
	require.Contains(t, o.Actions[0].Why, "not connected")
	require.Equal(t, "device fan", o.Actions[1].Action)
	r.broker.mu.Lock()
	r.broker.fail = nil
	r.broker.mu.Unlock()
	r.wait("the publish", func() bool { return look().Actions[0].What == "done" })
	r.wait("the outcome to be told", func() bool { return look().What == "committed" })
	o = look()
	require.Equal(t, []LifeRecord{{"log", 1}, {"log", 2}}, o.Records)
	require.Positive(t, o.Durable)
	require.Equal(t, 3, o.Attempt)
	require.Len(t, o.Attempts, 2)
	require.Equal(t, "retry", o.Attempts[1].What)
	require.Equal(t, "timeout: main.lua:1: no", o.Attempts[1].Fault)
	require.Greater(t, o.At, o.Attempts[0].At)
	require.NotEqual(t, o.Actions[0].ID, o.Actions[1].ID)
	l, _ := r.e.LifeOf(id)
	require.Positive(t, l.Took)
}

// TestFaultsAreFoundAfterARestart: of dead letters, by their own id and by that of the event, and of what waits for another attempt.
func TestFaultsAreFoundAfterARestart(t *testing.T) {
	r := newRig(t)
	body := func(inv *functions.Invocation, _ func(functions.Read) functions.ReadAnswer) *functions.Outcome {
		if string(inv.Event.Data) == "bad" {
			return failing(functions.FaultError)
		}
		return failing(functions.FaultTimeout)
	}
	long := "name: shaky\ntriggers: [{mqtt: in}]\nretry: {attempts: 3, first: 1h, max: 1h}\n"
	r.fn(long, body)
	r.start()
	settled(t, r.message("in", "bad", "", false))
	settled(t, r.message("in", "later", "", false))
	past, _, _ := r.e.Lives(10, false)
	bad, later := past[0].ID, past[1].ID
	r.stop()

	r = openRig(t, r.dir)
	r.fn(long, body)
	r.start()
	letters, err := r.e.DeadLetters("", "", 0)
	require.NoError(t, err)
	for _, id := range []string{bad, letters[0].ID} {
		l, known := r.e.LifeOf(id)
		require.True(t, known)
		require.Equal(t, bad, l.ID)
		require.Equal(t, "bad", l.Preview)
		require.Equal(t, "dead", l.Outcomes[0].What)
		require.Equal(t, letters[0].ID, l.Outcomes[0].Letter)
		require.Equal(t, "main.lua:1: no", l.Outcomes[0].Fault.Message)
	}
	l, known := r.e.LifeOf(later)
	require.True(t, known)
	require.Contains(t, l.Outcomes[0].Why, "for attempt 2; the last one failed: timeout: main.lua:1: no")
	_, known = r.e.LifeOf("never")
	require.False(t, known)
}

// TestStepsAreBounded: a function may have many attempts and actions; the first and the last of them are remembered.
func TestStepsAreBounded(t *testing.T) {
	x := &life{ring: newRig(t).e.lives, began: time.Now()}
	f := &function{Name: "f"}
	j := &job{fn: f, dep: &Deployment{Bundle: &functions.Bundle{}}}
	for i := range 3 * maxSteps {
		j.attempt.Store(int32(i + 1))
		x.done(j, failing(functions.FaultTimeout), verdict{what: "retry", fault: &functions.Fault{Kind: functions.FaultTimeout}})
		(&action{id: string(rune('a' + i)), fn: "f", topic: "t", life: x}).acts("waiting", errors.New("no").Error())
		j.appendedTo("s", uint64(i))
	}
	o := x.snapshot().Outcomes[0]
	require.Len(t, o.Attempts, maxSteps)
	require.Equal(t, 1, o.Attempts[0].Number)
	require.Equal(t, 3*maxSteps, o.Attempts[maxSteps-1].Number)
	require.Len(t, o.Actions, maxSteps)
	require.Len(t, j.appended, maxSteps)
	(&action{fn: "f"}).acts("done", "") // of an earlier run
}
