package sim

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/drivers"
	"github.com/perigee-iot/perigee/drivers/drivertest"
	"github.com/perigee-iot/perigee/internal/yamlfile"
)

// house makes devices that know one another.
func house(t *testing.T, dir string, specs map[string]string) drivers.Set {
	t.Helper()
	set := drivers.Set{}
	env := drivers.Env{Dir: dir, Peer: func(name string) (*drivers.Device, bool) { d, ok := set[name]; return d, ok }}
	for name, spec := range specs {
		d, err := makeDevice(name, spec, env)
		require.NoError(t, err, spec)
		set[name] = d
	}
	return set
}

func makeDevice(name, spec string, env drivers.Env) (*drivers.Device, error) {
	root, err := yamlfile.Parse("gateway.yaml", []byte(spec))
	if err != nil {
		return nil, err
	}
	return Kind().New(name, root.Decode, env)
}

// collect runs a source for a while and returns its data.
func collect(t *testing.T, s drivers.Source, d time.Duration) []string {
	ctx, stop := context.WithTimeout(t.Context(), d)
	defer stop()
	var got []string
	require.NoError(t, s.Run(ctx, func(_ context.Context, d drivers.Delivery) error {
		got = append(got, string(d.Event.Data))
		return nil
	}))
	return got
}

func TestSuite(t *testing.T) {
	recording := filepath.Join(t.TempDir(), "day.csv")
	require.NoError(t, os.WriteFile(recording, []byte("temperature,contact\n1,true\n2,\n"), 0o644))
	for name, c := range map[string]struct {
		spec   string
		values []any
		poke   func(d *drivers.Device) func()
	}{
		"sensor":       {spec: "{wave: sine, min: 18, max: 34, period: 1s, every: 2ms, noise: 1}"},
		"cooled":       {spec: "{wave: random, max: 5, every: 2ms, cooled_by: x}"},
		"replay":       {spec: "{replay: " + recording + ", every: 2ms}"},
		"button":       {spec: "{button: {every: 2ms}}", values: nil},
		"quiet button": {spec: "{button: {}}", poke: func(d *drivers.Device) func() { return func() { _ = d.Actuator.Write(context.Background(), true) } }},
		"switch": {spec: "{switch: off}", values: []any{true, false, nil, true}, poke: func(d *drivers.Device) func() {
			on := false
			return func() { on = !on; _ = d.Actuator.Write(context.Background(), on) }
		}},
	} {
		t.Run(name, func(t *testing.T) {
			drivertest.Run(t, func(t *testing.T) drivertest.Subject {
				d := house(t, "", map[string]string{"x": c.spec})["x"]
				s := drivertest.Of(d)
				s.Values = c.values
				if c.poke != nil {
					s.Poke = c.poke(d)
				}
				return s
			})
		})
	}
}

func TestWaves(t *testing.T) {
	for spec, want := range map[string][]float64{
		"{wave: sine, min: 10, max: 20, period: 4s}":     {10, 15, 20, 15, 10},
		"{wave: triangle, min: 10, max: 20, period: 4s}": {10, 15, 20, 15, 10},
		"{wave: square, min: 10, max: 20, period: 4s}":   {10, 10, 20, 20, 10},
		"{wave: constant, min: 10}":                      {10, 10, 10, 10, 10},
		"{steps: [1, 2.5, 3]}":                           {1, 2.5, 3, 1, 2.5},
	} {
		synctest.Test(t, func(t *testing.T) {
			d := house(t, "", map[string]string{"x": spec})["x"]
			var wanted []string
			for _, v := range want {
				wanted = append(wanted, fmt.Sprintf(`{"temperature":%g}`, v))
			}
			require.Equal(t, wanted, collect(t, d.Source, 4500*time.Millisecond), spec)
		})
	}
}

func TestSeedRepeats(t *testing.T) {
	run := func(name, spec string) (got []string) {
		synctest.Test(t, func(t *testing.T) {
			got = collect(t, house(t, "", map[string]string{name: spec})[name].Source, 30500*time.Millisecond)
		})
		return got
	}
	const seeded = "{wave: random, min: 0, max: 100, noise: 2, seed: 7, field: humidity}"
	require.Equal(t, run("x", seeded), run("x", seeded))
	require.NotEqual(t, run("x", seeded), run("y", seeded), "devices of one seed differ")
	require.NotEqual(t, run("x", "{wave: random, max: 100}"), run("x", "{wave: random, max: 100}"))
	require.Contains(t, run("x", seeded)[0], "humidity")
}

func TestCooledBy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set := house(t, "", map[string]string{
			"fan":    "{switch: off}",
			"cellar": "{wave: constant, min: 30, period: 10s, every: 1s, cooled_by: fan, cooling: 6}",
		})
		read := func() float64 {
			f, err := set["cellar"].Reader.Read(t.Context())
			require.NoError(t, err)
			return f["temperature"].(float64)
		}
		require.Equal(t, 30.0, read())
		require.NoError(t, set["fan"].Actuator.Write(t.Context(), true))
		var falling []float64
		for range 6 {
			time.Sleep(time.Second)
			falling = append(falling, read())
		}
		require.True(t, slices.IsSortedFunc(falling, func(a, b float64) int { return int(100 * (b - a)) }), "%v", falling)
		require.Less(t, falling[0], 28.0)
		require.InDelta(t, 24, falling[5], 0.1)
		require.NoError(t, set["fan"].Actuator.Write(t.Context(), false))
		time.Sleep(6 * time.Second)
		require.InDelta(t, 30, read(), 0.1)
	})
}

func TestIsOn(t *testing.T) {
	for want, all := range map[bool][]drivers.Fields{
		true:  {{"state": true}, {"state": "ON"}, {"value": 1.0}, {"on": true, "power": 0.0}},
		false: {{}, {"state": false, "power": 5.0}, {"state": "OFF"}, {"value": 0.0}, {"x": nil}},
	} {
		for _, f := range all {
			require.Equal(t, want, isOn(f), "%v", f)
		}
	}
}

func TestReplayKeepsTheRhythm(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "a.csv"), []byte(
		"time, temperature, action, contact\n# a comment\n2026-05-01T12:00:00Z,20,,true\n2026-05-01T12:00:05Z,21.5,single,\n2026-05-01T12:00:06Z,22,,false\n"), 0o644))
	synctest.Test(t, func(t *testing.T) {
		d := house(t, dir, map[string]string{"x": "{replay: a.csv, every: 2s}"})["x"]
		first, err := d.Reader.Read(t.Context())
		require.NoError(t, err)
		require.Equal(t, drivers.Fields{"temperature": 20.0, "contact": true}, first)
		var at []string
		begin := time.Now()
		ctx, stop := context.WithTimeout(t.Context(), 13500*time.Millisecond)
		defer stop()
		require.NoError(t, d.Source.Run(ctx, func(_ context.Context, d drivers.Delivery) error {
			at = append(at, fmt.Sprintf("%v %s", time.Since(begin), d.Event.Data))
			return nil
		}))
		require.Equal(t, []string{
			`0s {"contact":true,"temperature":20}`, `5s {"action":"single","temperature":21.5}`, `6s {"contact":false,"temperature":22}`,
			`8s {"contact":true,"temperature":20}`, `13s {"action":"single","temperature":21.5}`,
		}, at)
	})
}

func TestRecordingErrors(t *testing.T) {
	for text, want := range map[string]string{
		"":                                       "first line must name the fields",
		"a,b\n":                                  "no readings",
		"a,b\n1\n":                               "wrong number of fields",
		"time,a\nyesterday,1\n":                  `line 2: "yesterday" is no time`,
		"a\n" + strings.Repeat("1\n", maxRows+1): "too long",
		strings.Repeat("a,", 100) + "a\n":        "101 columns",
	} {
		_, err := parseRecording(strings.NewReader(text), time.Second)
		require.ErrorContains(t, err, want)
	}
	dir := t.TempDir()
	_, err := makeDevice("x", "{replay: absent.csv}", drivers.Env{Dir: dir})
	require.ErrorIs(t, err, os.ErrNotExist)
	require.ErrorContains(t, err, "relative to the folder of the configuration")
	_, err = makeDevice("x", "{replay: .}", drivers.Env{Dir: dir})
	require.ErrorContains(t, err, "is no file")

	file := filepath.Join(dir, "gone.csv")
	require.NoError(t, os.WriteFile(file, []byte("a\n1\n"), 0o600))
	d := house(t, dir, map[string]string{"x": "{replay: gone.csv}"})["x"]
	require.NoError(t, os.Remove(file))
	err = d.Source.Run(t.Context(), nil)
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = d.Reader.Read(t.Context())
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestButton(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := house(t, "", map[string]string{"b": "{button: {every: 10s}}"})["b"]
		for _, v := range []any{true, "double", 1.0, false, nil} {
			require.NoError(t, b.Actuator.Write(t.Context(), v))
		}
		require.Equal(t, []string{`{"action":"single"}`, `{"action":"double"}`, `{"action":"single"}`, `{"action":"single"}`}, collect(t, b.Source, 11*time.Second))
		for range maxPresses {
			require.NoError(t, b.Actuator.Write(t.Context(), true))
		}
		require.ErrorContains(t, b.Actuator.Write(t.Context(), true), "16 presses wait already")
	})
}

func TestSwitch(t *testing.T) {
	d := house(t, "", map[string]string{"fan": "{switch: on}"})["fan"]
	state := func() any {
		f, err := d.Reader.Read(t.Context())
		require.NoError(t, err)
		return f["state"]
	}
	require.Equal(t, true, state())
	require.NoError(t, d.Actuator.Write(t.Context(), false))
	require.Equal(t, false, state())
	require.NoError(t, d.Actuator.Write(t.Context(), nil))
	require.Equal(t, true, state())
	err := d.Actuator.Write(t.Context(), 1.0)
	require.ErrorIs(t, err, drivers.ErrRefused)
	require.ErrorContains(t, err, "takes true or false")
}

func TestBadConfigurations(t *testing.T) {
	for spec, want := range map[string]string{
		"{}":                           "a simulated device is a wave, a replay, a button or a switch",
		"{wave: sin}":                  `wave "sin" is unknown; did you mean "sine"?`,
		"{wave: sawtooth}":             `wave "sawtooth" is unknown; there are sine,`,
		"{wave: sine, button: {}}":     "wave and button in one simulated device",
		"{wave: sine, min: 5, max: 1}": "max 1 is below min 5",
		"{wave: steps}":                "belong together",
		"{wave: sine, steps: [1]}":     "belong together",
		"{wave: sine, period: 0s}":     "a period of 0 is too short",
		"{wave: sine, every: 0s}":      "every 0 is too often",
		"{wave: sine, noise: -1}":      "cannot be negative",
		"{wave: sine, cooling: 1}":     "cooling needs cooled_by",
		"{wave: sine, field: ''}":      "field is empty",
		"{wave: sine, waves: 1}":       `gateway.yaml:1:14: unknown key "waves"; did you mean "wave"?`,
		"{switch: maybe}":              "gateway.yaml:1:2: switch: must be on or off",
		"{switch: }":                   "must be on or off",
		"{button: {every: 1ns}}":       "every 1ns is too often",
		"{button: {evry: 1s}}":         `did you mean "every"?`,
		"{wave: sine, min: .nan}":      "must be a number",
	} {
		_, err := makeDevice("x", spec, drivers.Env{})
		require.ErrorContains(t, err, want, spec)
	}
}
