package sandbox

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/functions"
	library "github.com/perigee-iot/perigee/functions/bundle"
	"github.com/perigee-iot/perigee/functions/rules"
)

// TestLimits breaks every limit of an invocation twice: with Lua in a real worker, which finds it, and with a worker that
// does not care, so that the gateway does. Both faults have the same kind, name and value.
func TestLimits(t *testing.T) {
	limits := functions.Limits{Timeout: 60 * time.Millisecond, Memory: 2 << 20, Effects: 3, EffectBytes: 250, Result: 50, Reads: 4, LogBytes: 60}
	spec := &functions.Spec{Name: "f", Limits: limits}
	judged := func(o *functions.Outcome) *functions.Fault { // as the engine does
		if o.Fault != nil || o.Retry != nil {
			if f := rules.CheckReport(spec, o); f != nil {
				return f
			}
			return o.Fault
		}
		return rules.Check(spec, o, rules.Surroundings{})
	}
	bad := functions.FaultBadOutput
	for _, test := range []struct {
		lua, fake string
		kind      functions.FaultKind
		want      string // a regular expression
		wantFake  string // if it differs
	}{
		{`for _, n in ipairs{"a", "b", "c", "d"} do state.set(n, 1) end`, "effects", bad, `limits\.effects: 4 effects, 3 are allowed`, ""},
		{`state.set("a", ("x"):rep(298))`, "effect_bytes", bad, `limits\.effect_bytes: 301 bytes, 250 are allowed`, ""},
		{`return ("x"):rep(58)`, "result", bad, `limits\.result: 60 bytes, 50 are allowed`, ""},
		{`for i = 1, 5 do state.get("n" .. i) end`, "reads", bad, `limits\.reads: 5 reads, 4 are allowed`, ""},
		{"", "reads told", bad, `limits\.reads: 5 reads, 4 are allowed`, ""},
		{`log(("x"):rep(79))`, "log_bytes", bad, `limits\.log_bytes: 80 bytes, 60 are allowed`, ""},
		{`log(("x"):rep(79)) error("x")`, "log_bytes of a fault", bad, `limits\.log_bytes: 80 bytes, 60 are allowed`, ""},
		{`log(("x"):rep(79)) retry("x")`, "log_bytes of a retry", bad, `limits\.log_bytes: 80 bytes, 60 are allowed`, ""},
		{`local t = {} for i = 1, 70 do t = {t} end return t`, "nesting", bad, `limits\.nesting: the result has more than 64 levels, 64 are allowed`, ""},
		{`local t = {} for i = 1, 70 do t = {t} end state.set("a", t)`, "nesting of state", bad, `limits\.nesting: a value has more than 64 levels, 64 are allowed`, ""},
		{`while true do end`, "hang", functions.FaultTimeout, `limits\.timeout: [\d.]+m?s, 60ms are allowed`, ""},
		{`local t = {} for i = 1, 1e9 do t[i] = {i} for _ = 1, 300 do end end`, "hold", functions.FaultMemory, `limits\.memory: [\d.]+ MiB, 2\.0 MiB are allowed`,
			`workers\.memory: \d+ MiB, 64 MiB are allowed; its worker had to be killed`},
	} {
		t.Run(test.fake, func(t *testing.T) {
			if test.lua != "" {
				p := realPool(t, func(o *Options) { o.Grace = 10 * time.Second })
				o := run(t, p, "1", func(j *Job) {
					with(lua("return function() "+test.lua+" end"), 0)(j)
					j.Inv.Limits = limits
					j.Ask = func(r functions.Read) functions.ReadAnswer { return functions.ReadAnswer{Read: r} }
					if test.kind == functions.FaultMemory {
						j.Inv.Limits.Timeout = 20 * time.Second
					}
				})
				require.NotNil(t, o.Fault)
				require.Equal(t, test.kind, o.Fault.Kind, o.Fault)
				require.Regexp(t, `^main\.lua:(1:)? `+test.want+`$`, o.Fault.Message)
				require.False(t, o.Lost)
				require.Nil(t, rules.CheckReport(spec, o), "an honest outcome keeps its limits, failed or not")
			}
			data := "limit " + test.fake
			if test.fake == "hang" || test.fake == "hold" {
				data = test.fake
			}
			p := newPool(t, "honest", func(o *Options) { o.Grace = time.Millisecond })
			fault := judged(run(t, p, data, func(j *Job) {
				j.Inv.Limits = limits
				if test.kind == functions.FaultMemory {
					j.Inv.Limits.Timeout = 20 * time.Second
				}
			}))
			require.NotNil(t, fault)
			require.Equal(t, test.kind, fault.Kind, fault)
			want := test.want
			if test.wantFake != "" {
				want = test.wantFake
			}
			require.Regexp(t, `^`+want, fault.Message)
		})
	}
	t.Run("source", func(t *testing.T) {
		source := "return function() end -- " + strings.Repeat("x", functions.MaxSource)
		p := realPool(t, nil)
		f := p.Check(t.Context(), lua(source))
		require.NotNil(t, f)
		require.Regexp(t, `main\.lua:1: limits\.source: 65561 bytes, 65536 are allowed`, f.Message)
		_, err := library.FromFiles(map[string][]byte{"function.yaml": []byte("triggers: [{every: 1m}]"), "main.lua": []byte(source)}, "f")
		require.ErrorContains(t, err, "limits.source: more than 65536 bytes, 65536 are allowed")
	})
	t.Run("nesting of the source", func(t *testing.T) {
		p := realPool(t, nil)
		f := p.Check(t.Context(), lua("return "+strings.Repeat("{", 1500)+strings.Repeat("}", 1500)))
		require.NotNil(t, f)
		require.Regexp(t, `limits\.source: nested more than 1000 levels deep, 1000 are allowed`, f.Message)
	})
}

// TestMeter: outcomes that come together are each believed, but not that all took longer than the worker was at work.
func TestMeter(t *testing.T) {
	w := &proc{busy: time.Now().Add(-time.Second)}
	first := functions.Usage{Wall: 800 * time.Millisecond, CPU: 700 * time.Millisecond}
	w.meter(&first)
	require.Equal(t, functions.Usage{Wall: 800 * time.Millisecond, CPU: 700 * time.Millisecond}, first)
	second := functions.Usage{Wall: time.Hour, CPU: time.Hour}
	w.meter(&second)
	require.GreaterOrEqual(t, second.Wall, 200*time.Millisecond)
	require.Less(t, second.Wall, time.Minute)
	require.Equal(t, second.Wall, second.CPU)
}
