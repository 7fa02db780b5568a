package app

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/functions/bundle"
	"github.com/perigee-iot/perigee/functions/cases/stage"
	"github.com/perigee-iot/perigee/functions/recording"
	"github.com/perigee-iot/perigee/gateway/api"
)

// recorded is what Record passed on, as a file has it.
func recorded(ctx context.Context, t *testing.T, a *App, q api.RecordQuery, during func()) *bytes.Buffer {
	t.Helper()
	var file bytes.Buffer
	begun, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- a.Record(ctx, q, func(l json.RawMessage) error {
			if file.Len() == 0 {
				close(begun)
			}
			file.Write(append(l, '\n'))
			return nil
		})
	}()
	select {
	case <-begun:
	case err := <-ended:
		t.Fatal(err)
	}
	during()
	require.NoError(t, <-ended)
	return &file
}

// played runs a bundle on a recording of one function and returns what is different, one text an invocation.
func played(ctx context.Context, t *testing.T, on *stage.Stage, file []byte, function string, b *functions.Bundle, carry bool) (differ []string, unknown int, all int) {
	t.Helper()
	r, err := recording.NewReader(bytes.NewReader(file))
	require.NoError(t, err)
	p, err := recording.NewPlayer(recording.Options{Runner: on, Bundle: b, Function: function, Gateway: r.Begin().Gateway, Carry: carry})
	require.NoError(t, err)
	for {
		l, err := r.Next()
		if errors.Is(err, io.EOF) {
			require.False(t, r.Cut())
			return differ, unknown, all
		}
		require.NoError(t, err)
		switch {
		case l.Function != nil && l.Function.Name == function:
			foreign, err := p.Settings(l.Function.Settings)
			require.NoError(t, err)
			require.Empty(t, foreign)
		case l.Invocation != nil && l.Invocation.Function == function:
			all++
			got, err := p.Play(ctx, l.Invocation)
			require.NoError(t, err)
			if len(got.Unknown) > 0 {
				unknown++
			}
			if c := recording.Compare(&l.Invocation.Outcome, &got.Outcome); got.Skipped != "" || !c.Same() {
				text, err := json.Marshal(c)
				require.NoError(t, err)
				differ = append(differ, l.Invocation.Event.Type+" "+got.Skipped+string(text))
			}
		}
	}
}

// TestWhatHappenedIsRecordedAndReplayed: events of every kind run again far from the gateway exactly as they did, with and without their own
// state, and a changed revision shows where it differs.
func TestWhatHappenedIsRecordedAndReplayed(t *testing.T) {
	s := newSite(t)
	s.config("devices: {button: {sim: {button: {}}}, lamp: {sim: {switch: off}}}\nsettings: {meter: {step: 2}}\nsecrets: {token: {file: token}}\n")
	s.write("token", "s3cr\"t/+ ü")
	require.NoError(t, os.Chmod(filepath.Join(s.dir, "token"), 0o600))
	const yaml = `
triggers: [{mqtt: "meter/{id}"}, {device: button}, {every: 200ms}]
permissions: {publish: [out/#], streams: [log], devices: {read: [lamp], write: [lamp]}, secrets: [token], http: ["http://127.0.0.1:9/*"]}
env: {step: 1}
`
	const lua = `
return function(event, ctx)
  if event.raw == "die" then error("as asked") end
  if event.raw == "later" and event.attempt < 3 then retry("not yet", 0.01) end
  local n = state.get("n", 0) + ctx.env.step
  state.set("n", n)
  state.incr("runs")
  shared.incr("all")
  shared.set("seen." .. event.type, {at = ctx.now, id = event.id, r = math.random(1000000)})
  if event.type == "message" then timer.set("soon", 0.02) end
  publish("out/" .. event.type, {n = n, data = event.data, lamp = device.read("lamp"), keys = json.array(state.keys()), at = event.time}, {qos = 1})
  publish("out/token", "it is " .. secret.get("token"))
  state.set("token", {secret.get("token")})
  http.post("http://127.0.0.1:9/x", {t = secret.get("token")}, {headers = {Authorization = "Bearer " .. secret.get("token")}, not_after = "1s"})
  stream.append("log", {event.type, event.params.id or "none"})
  log.info("n is " .. n .. secret.get("token") .. " " .. base64.encode("user:" .. secret.get("token")))
  return {n = n, text = event.raw}
end`
	s.function("meter", yaml, lua)
	a := s.open()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	file := recorded(ctx, t, a, api.RecordQuery{Function: "meter", Invocations: 25}, func() {
		for _, data := range []string{`{"kWh": 1.50, "list": [1, 2.5e3, "on", null, true]}`, `"plain"`, "die", "later", `12345678901234567890`} {
			_, err := a.Invoke(ctx, "meter", &api.InvokeRequest{Data: json.RawMessage(data), Topic: "meter/7"})
			require.NoError(t, err)
		}
		require.NoError(t, a.WriteDevice(ctx, "button", true))
	})
	text := file.String()
	require.Contains(t, text, `"what":"committed"`)
	for _, form := range []string{"s3cr", `ü`, "dXNlcjpzM2Ny"} {
		require.NotContains(t, text, form)
	}
	require.Contains(t, text, `"settings":{"step":2}`)
	require.Contains(t, text, `"why":"count"`)

	on, err := stage.Open(s.options().Worker)
	require.NoError(t, err)
	defer on.Close()
	b, err := bundle.Load(filepath.Join(s.dir, "functions", "meter"))
	require.NoError(t, err)
	for _, carry := range []bool{false, true} {
		differ, unknown, all := played(ctx, t, on, file.Bytes(), "meter", b, carry)
		require.Equal(t, 25, all)
		require.Empty(t, differ)
		require.Zero(t, unknown)
	}
	other, err := bundle.FromFiles(map[string][]byte{"function.yaml": []byte(strings.Replace(yaml, "{every: 200ms}", "{every: 1h}", 1)),
		"main.lua": []byte(strings.Replace(lua, `+ ctx.env.step`, `+ ctx.env.step * (event.type == "message" and 2 or 1)`, 1))}, "meter")
	require.NoError(t, err)
	differ, _, _ := played(ctx, t, on, file.Bytes(), "meter", other, false)
	require.NotEmpty(t, differ)
	for _, d := range differ {
		require.True(t, strings.HasPrefix(d, "message ") || strings.HasPrefix(d, "tick it has no trigger for it"), d)
	}
	carried, _, _ := played(ctx, t, on, file.Bytes(), "meter", other, true)
	require.Greater(t, len(carried), len(differ), "what follows from a difference differs, too")
}

func TestRecordingsThatCannotBegin(t *testing.T) {
	s := newSite(t)
	s.config("")
	a := s.open()
	none := func(json.RawMessage) error { return nil }
	for want, q := range map[string]api.RecordQuery{
		`there is no function "x"`:   {Function: "x"},
		"it can take up to 24h0m0s":  {For: 25 * time.Hour},
		"it can have up to 1024 MiB": {Bytes: 2 << 30},
	} {
		require.ErrorContains(t, a.Record(context.Background(), q, none), want)
	}
}
