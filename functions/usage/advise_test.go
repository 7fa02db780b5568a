package usage

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/perigee-iot/perigee/functions"
)

func advise(t require.TestingT, lim functions.Limits, r *Record) map[string]Advice {
	out := map[string]Advice{}
	for _, a := range Advise(lim, r) {
		require.NotContains(t, out, a.Limit)
		out[a.Limit] = a
	}
	return out
}

func TestAdvise(t *testing.T) {
	r := &Record{}
	for range 1000 {
		r.sample(&Sample{Wall: 4 * time.Millisecond, Out: 700, Effects: 3, Log: 100})
	}
	for range 30 {
		r.sample(&Sample{Wall: 60 * time.Millisecond, Memory: 3 << 20, Out: 3000, Effects: 20})
	}
	r.State = 4<<20 - 1000
	got := advise(t, functions.DefaultLimits(), r)
	require.Equal(t, Advice{Limit: "timeout", Now: "1s", P99: "60ms", Max: "60ms", Suggest: "500ms", Fit: FitWide, N: 1030}, got["timeout"])
	require.Equal(t, Advice{Limit: "effect_bytes", Now: "64KiB", P99: "3KiB", Max: "3KiB", Suggest: "16KiB", Fit: FitWide, N: 1030}, got["effect_bytes"])
	require.Equal(t, Advice{Limit: "effects", Now: "64", Max: "20", Suggest: "64", Fit: FitGood, N: 1030}, got["effects"])
	require.Equal(t, Advice{Limit: "state", Now: "4MiB", Max: "4MiB", Suggest: "8MiB", Fit: FitTight, Why: "the highest is 99 % of it", N: 1030}, got["state"])
	require.Equal(t, Advice{Limit: "memory", Now: "16MiB", P99: "3MiB", Max: "3MiB", Fit: FitUnknown, Why: "rests on 30 of the 100 invocations that are wanted", N: 30}, got["memory"])
	require.Equal(t, "1KiB", got["log_bytes"].Suggest)
	require.Equal(t, Advice{Limit: "rate", Now: "0", Max: "0/s", Suggest: "10/s", Fit: FitWide, N: 1030}, got["rate"])
	limited := functions.DefaultLimits()
	limited.Rate = 50
	r.PerSecond = 30
	require.Equal(t, FitGood, advise(t, limited, r)["rate"].Fit)
	r.PerSecond = 50
	require.Equal(t, "200/s", advise(t, limited, r)["rate"].Suggest)
	limited.Rate = 0.5
	require.Equal(t, FitUnknown, advise(t, limited, r)["rate"].Fit)
	require.Equal(t, "0.5", advise(t, limited, r)["rate"].Now)

	r.sample(&Sample{Wall: time.Second, Fault: functions.FaultTimeout})
	require.Equal(t, Advice{Limit: "timeout", Now: "1s", P99: "60ms", Max: "1s", Suggest: "2s", Fit: FitTight, Why: "hit by 1 of 1 031 invocations", N: 1031},
		func() Advice { a := advise(t, functions.DefaultLimits(), r)["timeout"]; a.P99 = "60ms"; return a }())
	lim := functions.DefaultLimits()
	lim.EffectBytes = functions.MaxEffectBytes
	r.sample(&Sample{Out: functions.MaxEffectBytes})
	require.Equal(t, "the highest is 100 % of it; it cannot be higher: do less in one invocation", advise(t, lim, r)["effect_bytes"].Why)
}

func TestAdviseOnLittle(t *testing.T) {
	r := &Record{}
	for _, a := range Advise(functions.DefaultLimits(), r) {
		require.Equal(t, FitUnknown, a.Fit)
		require.Empty(t, a.Suggest)
	}
	for range 200 {
		r.sample(&Sample{Wall: time.Millisecond})
	}
	require.Equal(t, "every one was too short to be measured", advise(t, functions.DefaultLimits(), r)["memory"].Why)
}

// TestAdviceCanBePasted: whatever was seen, what is suggested is a function.yaml that is accepted, and enough for what was seen unless
// nothing would be.
func TestAdviceCanBePasted(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		rec := drawRecord(r)
		for range Enough {
			rec.sample(&Sample{Wall: time.Duration(rapid.Int64Range(0, 1e10).Draw(r, "wall")), Memory: rapid.Int64Range(0, 1<<28).Draw(r, "memory"), Out: rapid.Int64Range(0, 1<<16).Draw(r, "out")})
		}
		yaml := "name: f\ntriggers: [{every: 1m}]\nlimits:\n  concurrency: 1\n"
		for _, a := range Advise(functions.DefaultLimits(), rec) {
			if a.Suggest != "" {
				yaml += fmt.Sprintf("  %s: %s\n", a.Limit, a.Suggest)
			}
		}
		spec, err := functions.ParseSpec("function.yaml", []byte(yaml), "f")
		require.NoError(r, err)
		require.GreaterOrEqual(r, spec.Limits.Timeout, min(time.Duration(rec.Walls.Max())*time.Microsecond, 10*time.Minute))
		require.GreaterOrEqual(r, int64(spec.Limits.EffectBytes), min(rec.Outs.Max(), functions.MaxEffectBytes))
		require.GreaterOrEqual(r, spec.Limits.State, min(rec.State, 256<<20))
	})
}
