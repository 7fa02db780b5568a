package engine

import (
	"context"
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/functions"
)

// TestDeadLettersAreTriedAndReplayed: a dry run does nothing, a replay says what it is, and a list has all without their payloads.
func TestDeadLettersAreTriedAndReplayed(t *testing.T) {
	r := newRig(t)
	r.fn("name: picky\ntriggers: [{mqtt: in/+}]\nkey: \"{topic}\"\n", func(inv *functions.Invocation, _ func(functions.Read) functions.ReadAnswer) *functions.Outcome {
		if string(inv.Event.Data) == "good" {
			return ok(functions.Effect{Kind: functions.SetState, Name: "n", Value: []byte("1")})
		}
		return failing(functions.FaultError)
	})
	r.start()
	const n = 120
	for i := range n {
		settled(t, r.message(fmt.Sprintf("in/%d", i%7), "bad", "", false))
	}
	list, err := r.e.DeadLetters("picky", "", math.MaxInt32)
	require.NoError(t, err)
	require.Len(t, list, n)
	require.Equal(t, 3, list[0].Size)
	require.Nil(t, list[0].Event.Data)
	short, err := r.e.DeadLetters("", list[0].Revision[:8], 0)
	require.NoError(t, err)
	require.Len(t, short, 100)

	d := list[0]
	got, err := r.e.DryReplay(context.Background(), d.ID, nil)
	require.NoError(t, err)
	require.Equal(t, "dead", got.Outcome)
	got, err = r.e.DryReplay(context.Background(), d.ID, []byte("good"))
	require.NoError(t, err)
	require.Equal(t, "committed", got.Outcome)
	require.Equal(t, []string{"state n = 1"}, got.Effects)
	require.Empty(t, r.state("picky", d.Key, "n"), "nothing was done")
	_, err = r.e.DeadLetter(d.ID)
	require.NoError(t, err, "it is still there")
	_, err = r.e.DryReplay(context.Background(), "picky:zz", nil)
	require.ErrorIs(t, err, ErrNoDeadLetter)
	_, err = r.e.DryReplay(context.Background(), d.ID, make([]byte, 1<<20))
	require.ErrorContains(t, err, "its payload has 1048576 bytes")

	require.ErrorContains(t, r.e.Replay(d.ID, make([]byte, 1<<20)), "its payload has 1048576 bytes")
	require.NoError(t, r.e.Replay(d.ID, []byte("good")))
	r.wait("the replay", func() bool { return r.state("picky", d.Key, "n") == "1" })
	life, known := r.e.Life(d.Event.ID)
	require.True(t, known)
	require.Equal(t, d.ID, life.Replayed)
	_, err = r.e.DeadLetter(d.ID)
	require.ErrorIs(t, err, ErrNoDeadLetter)
}
