package app

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/gateway/api"
)

// TestUsageOfRealInvocations: what a function costs is there at once, after a restart, and as advice.
func TestUsageOfRealInvocations(t *testing.T) {
	ctx := context.Background()
	s := newSite(t)
	s.function("echo", echoYAML+"limits: {state: 1KiB}\n", `return function(event)
  state.set("text", ("x"):rep(900))
  log.info("twelve bytes")
  return event.data
end`)
	a := s.open()
	for range 100 {
		invoke(t, a, "echo", `"seven"`)
	}
	check := func(a *api.Usage) {
		t.Helper()
		require.EqualValues(t, 100, a.Runs)
		require.Equal(t, map[string]int64{"ok": 100}, a.Outcomes)
		require.EqualValues(t, 700, a.In)
		require.EqualValues(t, 100*(len(`"seven"`)+len("text")+902), a.Out)
		require.EqualValues(t, len("text")+902+7, a.OutMax)
		require.Greater(t, a.CPU, time.Duration(0))
		require.GreaterOrEqual(t, a.Wall, a.WallMax)
		require.GreaterOrEqual(t, a.WallMax, a.WallP99)
		require.Greater(t, a.State, int64(900))
		require.Greater(t, a.Written, int64(90_000))
		require.Equal(t, int64(1), a.Effects)
		require.Equal(t, int64(13), a.Log, "a byte for the end of the line")
	}
	rows, err := a.Usage(ctx, api.UsageQuery{Function: "echo", Revisions: true, Since: time.Hour})
	require.NoError(t, err)
	require.Equal(t, 1, len(rows))
	require.Equal(t, 12, len(rows[0].Revision))
	check(&rows[0])
	top, err := a.Top(ctx)
	require.NoError(t, err)
	require.EqualValues(t, 100, top.Functions[0].Runs)
	require.Equal(t, rows[0].CPU, top.Functions[0].CPU)
	require.Equal(t, rows[0].Written, top.Functions[0].Written)
	_, err = a.Usage(ctx, api.UsageQuery{Function: "nobody"})
	require.True(t, api.IsCode(err, api.CodeNotFound))
	_, err = a.Advise(ctx, "nobody")
	require.True(t, api.IsCode(err, api.CodeNotFound))

	require.NoError(t, a.Stop(ctx))
	a = s.open()
	rows, err = a.Usage(ctx, api.UsageQuery{})
	require.NoError(t, err)
	require.Equal(t, 1, len(rows))
	check(&rows[0])
	for _, by := range []string{"hour", "day"} {
		rows, err = a.Usage(ctx, api.UsageQuery{By: by})
		require.NoError(t, err)
		runs := int64(0)
		for _, r := range rows { // two if an hour has just ended
			runs += r.Runs
		}
		require.EqualValues(t, 100, runs)
	}
	advice, err := a.Advise(ctx, "")
	require.NoError(t, err)
	require.EqualValues(t, 100, advice[0].Runs)
	fits := map[string]api.LimitAdvice{}
	for _, l := range advice[0].Limits {
		fits[l.Limit] = l
	}
	require.Equal(t, "tight", fits["state"].Fit)
	require.Equal(t, "64KiB", fits["state"].Suggest)
	require.Equal(t, "wide", fits["effects"].Fit)
}
