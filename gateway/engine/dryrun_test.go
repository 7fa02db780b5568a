package engine

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/internal/store"
)

// everything is all keys and values of a store but those that say how time goes on.
func everything(t *testing.T, st *store.Store) map[string]string {
	all := map[string]string{}
	require.NoError(t, st.Flush(context.Background()))
	require.NoError(t, st.View(func(r store.Reader) error {
		for space := range 256 {
			if space == int(store.Meta) {
				continue
			}
			if err := r.Scan([]byte{byte(space)}, nil, func(k, v []byte) bool {
				all[string(k)] = string(v)
				return true
			}); err != nil {
				return err
			}
		}
		return nil
	}))
	return all
}

func TestADryRunDoesNothing(t *testing.T) {
	r := newRig(t)
	r.fn(counter, count)
	r.start()
	settled(t, r.message("in/a", "1", "", false))
	r.wait("the publish to be done", func() bool { return len(r.broker.published()) == 1 && r.e.Counts().Actions == 0 })
	before, counts := everything(t, r.st), r.e.Counts()
	lives, _, _ := r.e.Lives(10, false)

	got, err := r.e.DryRun(context.Background(), "counter", Request{Topic: "in/a", Data: []byte("1")})
	require.NoError(t, err)
	require.Equal(t, "committed", got.Outcome)
	require.Equal(t, []string{"state n = 2", "publish out/in/a 2", "stream log"}, got.Effects, "on the state of now")
	again, err := r.e.DryRun(context.Background(), "counter", Request{Topic: "in/a", Data: []byte("1")})
	require.NoError(t, err)
	require.Equal(t, got.Effects, again.Effects)

	require.Equal(t, before, everything(t, r.st))
	require.Equal(t, counts, r.e.Counts())
	after, _, _ := r.e.Lives(10, false)
	require.Equal(t, lives, after)
	require.Len(t, r.broker.published(), 1)
	for _, f := range r.e.Functions() {
		require.EqualValues(t, 1, f.Runs)
	}
}

func TestADryRunIsJudged(t *testing.T) {
	r := newRig(t)
	outcome := &functions.Outcome{}
	r.fn(counter+"limits: {state: 64B}\n", func(*functions.Invocation, func(functions.Read) functions.ReadAnswer) *functions.Outcome {
		o := *outcome
		return &o
	})
	r.start()
	try := func(o *functions.Outcome) *Report {
		outcome = o
		got, err := r.e.DryRun(context.Background(), "counter", Request{Topic: "in/a", Data: []byte("1")})
		require.NoError(t, err)
		return got
	}
	got := try(ok(functions.Effect{Kind: functions.Publish, Name: "other"}))
	require.Equal(t, "dead", got.Outcome)
	require.Equal(t, functions.FaultDenied, got.Fault.Kind)
	require.Empty(t, got.Effects)
	require.ErrorContains(t, try(ok(functions.Effect{Kind: functions.SetState, Name: "n", Value: []byte(`"0123456789012345678901234567890123456789012345678901234567890123456789"`)})).Fault, "limits.state")
	require.Equal(t, "retry", try(&functions.Outcome{Retry: &functions.RetryAsk{Why: "busy"}}).Outcome)
	require.Equal(t, "retry", try(failing(functions.FaultTimeout)).Outcome)
	require.Zero(t, r.e.Counts().Dead)

	_, err := r.e.DryRun(context.Background(), "nobody", Request{})
	require.ErrorContains(t, err, `there is no function "nobody"`)
}
