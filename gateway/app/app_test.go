package app

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/functions/worker"
	"github.com/perigee-iot/perigee/gateway/api"
	"github.com/perigee-iot/perigee/gateway/config"
	"github.com/perigee-iot/perigee/internal/mosquittotest"
)

func TestMain(m *testing.M) {
	worker.MainIfWorker()
	os.Exit(m.Run())
}

// site is a gateway's directory: configuration, functions, data.
type site struct {
	t    *testing.T
	dir  string
	port int
}

func newSite(t *testing.T) *site {
	s := &site{t: t, dir: t.TempDir(), port: mosquittotest.FreePort(t)}
	s.config("")
	return s
}

func (s *site) write(name, text string) {
	s.t.Helper()
	file := filepath.Join(s.dir, name)
	require.NoError(s.t, os.MkdirAll(filepath.Dir(file), 0o755))
	require.NoError(s.t, os.WriteFile(file, []byte(text), 0o644))
}

// config writes gateway.yaml: what every test needs, and more.
func (s *site) config(more string) {
	s.write("gateway.yaml", fmt.Sprintf("id: gw\ndata_dir: data\nbroker: {listen: [\"tcp://127.0.0.1:%d\"]}\nstore: {durability: crash, min_free: 16MiB}\n%s", s.port, more))
}

func (s *site) function(name, yaml, lua string) {
	s.write("functions/"+name+"/function.yaml", yaml)
	s.write("functions/"+name+"/main.lua", lua)
}

func (s *site) load() (*config.Config, error) {
	c, err := config.Load(filepath.Join(s.dir, "gateway.yaml"), config.Overrides{})
	if err != nil {
		return nil, err
	}
	return c, c.Validate(KindNames())
}

func (s *site) options() Options {
	s.t.Helper()
	c, err := s.load()
	require.NoError(s.t, err)
	exe, err := os.Executable()
	require.NoError(s.t, err)
	return Options{Config: c, Load: s.load, Version: "0.1.0", Log: slog.New(slog.DiscardHandler), Worker: []string{exe, "worker"}}
}

// open makes and starts the gateway.
func (s *site) open() *App {
	s.t.Helper()
	a, err := New(s.options())
	require.NoError(s.t, err)
	s.t.Cleanup(func() { require.NoError(s.t, a.Stop(context.Background())) })
	require.NoError(s.t, a.Start(context.Background()))
	return a
}

const echo = "return function(event, ctx) return {got = event.data, on = ctx.env.on} end"

const echoYAML = "triggers: [{mqtt: in/+}]\nenv: {on: 30}\n"

func invoke(t *testing.T, a *App, name, data string) *api.Invoked {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	r, err := a.Invoke(ctx, name, &api.InvokeRequest{Data: json.RawMessage(data)})
	require.NoError(t, err)
	return r
}

func TestAFunctionOfTheDirectoryRuns(t *testing.T) {
	s := newSite(t)
	s.function("echo", echoYAML, echo)
	a := s.open()
	require.JSONEq(t, `{"got": {"a": 1}, "on": 30}`, string(invoke(t, a, "echo", `{"a": 1}`).Result))
	var st *api.Status
	require.Eventually(t, func() bool {
		var err error
		st, err = a.Status(context.Background())
		return err == nil && st.Ready
	}, 20*time.Second, 10*time.Millisecond)
	require.Equal(t, map[string]int{"active": 1}, st.Functions)
}

func TestStopIsSafeAtAnyTime(t *testing.T) {
	s := newSite(t)
	a, err := New(s.options())
	require.NoError(t, err)
	require.NoError(t, a.Stop(context.Background()), "before start")
	require.NoError(t, a.Stop(context.Background()), "twice")
	a = s.open()
	require.NoError(t, a.Stop(context.Background()))
	require.NoError(t, a.Stop(context.Background()))
	s.open() // everything was let go of
}

func TestTwoGatewaysInOneProcess(t *testing.T) {
	one, two := newSite(t), newSite(t)
	one.function("echo", echoYAML, echo)
	two.function("echo", echoYAML, echo)
	a, b := one.open(), two.open()
	require.Equal(t, "committed", invoke(t, a, "echo", "1").Outcome)
	require.Equal(t, "committed", invoke(t, b, "echo", "1").Outcome)
}

func TestAFailedStartLetsGoOfEverything(t *testing.T) {
	s := newSite(t)
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", s.port))
	require.NoError(t, err)
	a, err := New(s.options())
	require.NoError(t, err)
	err = a.Start(context.Background())
	require.ErrorContains(t, err, fmt.Sprintf("perigee run --broker tcp://127.0.0.1:%d", s.port))
	require.NoError(t, a.Stop(context.Background()))
	require.NoError(t, l.Close())
	s.open()
}

func TestADataDirectoryInUseIsNamed(t *testing.T) {
	s := newSite(t)
	s.open()
	_, err := New(s.options())
	require.ErrorContains(t, err, "another process")
	require.ErrorContains(t, err, filepath.Join(s.dir, "data"))
}

func TestReloadTakesOverWhatItCanAndNamesTheRest(t *testing.T) {
	s := newSite(t)
	s.function("fan", "triggers: [{mqtt: in/+}]\npermissions: {devices: {write: [fan]}}\nenv: {on: 30}\n",
		"return function(event, ctx) device.write('fan', true) return ctx.env.on end")
	a := s.open()
	ctx := context.Background()
	f, err := a.Function(ctx, "fan")
	require.NoError(t, err)
	require.Equal(t, "blocked", f.State)
	require.Equal(t, `needs device "fan"; add it under devices: in gateway.yaml`, f.Reason)

	s.config("devices: {fan: {sim: {switch: off}}}\nsettings: {fan: {on: 28}}\nworkers: {max: 3}\n")
	s.function("echo", echoYAML, echo)
	r, err := a.Reload(ctx)
	require.NoError(t, err)
	require.Contains(t, r.Changed, "device fan added")
	require.Contains(t, r.Changed, "function echo created")
	require.Contains(t, r.Changed, "function fan active")
	require.Equal(t, []string{"workers.max"}, r.Restart)
	require.Equal(t, "28", string(invoke(t, a, "fan", "1").Result))
	require.Eventually(t, func() bool {
		d, err := a.Device(ctx, "fan")
		return err == nil && d.Written == true
	}, 20*time.Second, 10*time.Millisecond)

	s.config("devices: {fan: {sim: {switch: off}}, cellar: {sim: {wave: sine, max: 9, cooled_by: fan}}}\n")
	_, err = a.Reload(ctx)
	require.NoError(t, err)
	s.config("devices: {cellar: {sim: {wave: sine, max: 9, cooled_by: fan}}}\n")
	_, err = a.Reload(ctx)
	require.ErrorContains(t, err, `there is no device "fan"`, "of a device that has not changed")
	s.config("devices: {fan: {sim: {switch: off}}}\nsettings: {fan: {on: 28}}\nworkers: {max: 3}\n")
	_, err = a.Reload(ctx)
	require.NoError(t, err)

	s.config("devices: {fan: {sim: {swich: off}}}\n")
	_, err = a.Reload(ctx)
	require.ErrorContains(t, err, "gateway.yaml:5:")
	require.Equal(t, "28", string(invoke(t, a, "fan", "1").Result), "the old configuration stays in force")

	s.config("")
	require.NoError(t, os.RemoveAll(filepath.Join(s.dir, "functions", "echo")))
	r, err = a.Reload(ctx)
	require.NoError(t, err)
	require.Contains(t, r.Changed, "device fan removed")
	require.Contains(t, r.Changed, "function echo removed")
	f, err = a.Function(ctx, "fan")
	require.NoError(t, err)
	require.Equal(t, "blocked", f.State)
}

func TestASettingOfTheWrongTypeChangesNothing(t *testing.T) {
	s := newSite(t)
	s.config("settings: {echo: {on: 28}}\n")
	s.function("echo", echoYAML, "return function(_, ctx) return ctx.env.on end")
	s.function("other", echoYAML, echo)
	a := s.open()
	ctx := context.Background()
	for text, want := range map[string]string{
		"settings:\n  echo: {on: warm}\n":                   `setting "on" of function echo must be a number`,
		"settings:\n  echo: {an: 3}\n  other: {on: true}\n": `has no setting "an"`,
	} {
		s.config("devices: {fan: {sim: {switch: off}}}\n" + text)
		_, err := a.Reload(ctx)
		require.ErrorContains(t, err, want)
		require.ErrorContains(t, err, "gateway.yaml:")
		require.True(t, api.IsCode(err, api.CodeBadRequest))
		require.Equal(t, "28", string(invoke(t, a, "echo", "1").Result), "the old one stays in force")
		_, err = a.Device(ctx, "fan")
		require.Error(t, err, "nothing else of the file was taken over")
	}

	// A new revision and its settings come together.
	s.config("settings: {echo: {on: warm}}\n")
	s.function("echo", "triggers: [{mqtt: in/+}]\nenv: {on: cold}\n", "return function(_, ctx) return ctx.env.on end")
	_, err := a.Reload(ctx)
	require.NoError(t, err)
	require.Equal(t, `"warm"`, string(invoke(t, a, "echo", "1").Result))
}

func TestWhatIsWrongWithAFunctionChangesNothing(t *testing.T) {
	s := newSite(t)
	s.function("echo", echoYAML, echo)
	a := s.open()
	ctx := context.Background()
	for what, files := range map[string]map[string]string{
		"function echo was not changed": {"function.yaml": "name: echo\n" + echoYAML, "main.lua": "return 1 +"},
		"main.lua:2":                    {"function.yaml": "name: echo\n" + echoYAML, "main.lua": "return function(event)\n  if x = 1 then end\nend"},
		"trigers":                       {"function.yaml": "trigers: []\n", "main.lua": echo},
		"it returned a number":          {"function.yaml": "name: echo\n" + echoYAML, "main.lua": "return 5"},
		"it returned nil":               {"function.yaml": "name: echo\n" + echoYAML, "main.lua": ""},
		"main.lua:1: boo":               {"function.yaml": "name: echo\n" + echoYAML, "main.lua": "error('boo')"},
		"no module 'nolib'":             {"function.yaml": "name: echo\n" + echoYAML, "main.lua": "local n = require 'nolib' return function() end"},
		"limits.timeout":                {"function.yaml": "name: echo\n" + echoYAML + "limits: {timeout: 100ms}\n", "main.lua": "while true do end"},
	} {
		r := &api.ApplyRequest{Name: "echo", Files: map[string][]byte{}, Take: true}
		for name, text := range files {
			r.Files[name] = []byte(text)
		}
		_, err := a.Apply(ctx, r)
		require.ErrorContains(t, err, what)
		require.True(t, api.IsCode(err, api.CodeBadRequest), "%v", err)
		require.NotContains(t, err.Error(), "nothing was changed", "of several, others may have been")
	}
	s.function("echo", echoYAML, "return 1 +")
	s.function("broken", "triggers: 1\n", echo)
	_, err := a.Reload(ctx)
	require.NoError(t, err)
	st, err := a.Status(ctx)
	require.NoError(t, err)
	require.Len(t, st.Problems, 2)
	require.Equal(t, "committed", invoke(t, a, "echo", "1").Outcome, "the old revision runs on")
}

func TestApplyWarnsOfATriggerThatNothingPulls(t *testing.T) {
	s := newSite(t)
	s.function("echo", echoYAML, echo)
	a := s.open()
	for yaml, want := range map[string]string{
		"triggers: [{function: eco}]\n":                       `it waits for the function "eco", which this gateway does not have; did you mean "echo"?`,
		"triggers: [{state: stranger-thing/n}]\n":             `it waits for the function "stranger-thing", which this gateway does not have yet: apply that too`,
		"triggers: [{function: echo}]\n":                      "",
		echoYAML + "limits: {memory: 32MiB}\n":                "",
		echoYAML + "limits: {memory: 33MiB}\n":                "limits.memory: it gets 32MiB, half of what a worker of this gateway may use (see workers.memory in the configuration)",
		echoYAML + "permissions: {publish: [x, perigee/#]}\n": "permissions.publish: perigee/# has no effect, functions may never publish under the gateway's own topics (perigee/#)",
	} {
		r, err := a.Apply(context.Background(), &api.ApplyRequest{Name: "after", Dry: true,
			Files: map[string][]byte{"function.yaml": []byte("name: after\n" + yaml), "main.lua": []byte(echo)}})
		require.NoError(t, err)
		require.Equal(t, want, strings.Join(r.Warnings, "; "))
	}
}

func TestOriginsKeepTheirNames(t *testing.T) {
	s := newSite(t)
	s.function("echo", echoYAML, echo)
	a := s.open()
	ctx := context.Background()
	r := &api.ApplyRequest{Files: map[string][]byte{"function.yaml": []byte("name: echo\n" + echoYAML), "main.lua": []byte("return function() return 2 end")}}
	_, err := a.Apply(ctx, r)
	require.True(t, api.IsCode(err, api.CodeConflict), "%v", err)
	r.Take = true
	got, err := a.Apply(ctx, r)
	require.NoError(t, err)
	require.Equal(t, "changed", got.Action)
	_, err = a.Reload(ctx) // the directory does not take it back
	require.NoError(t, err)
	require.Equal(t, "2", string(invoke(t, a, "echo", "1").Result))
}

func TestPausesSurviveARestart(t *testing.T) {
	s := newSite(t)
	s.function("echo", echoYAML, echo)
	a := s.open()
	ctx := context.Background()
	require.NoError(t, a.Pause(ctx, "echo", "while I look"))
	require.NoError(t, a.Stop(ctx))
	a = s.open()
	f, err := a.Function(ctx, "echo")
	require.NoError(t, err)
	require.Equal(t, "paused", f.State)
	require.Equal(t, "while I look", f.Reason)
	require.NoError(t, a.Resume(ctx, "echo"))
	require.Equal(t, "committed", invoke(t, a, "echo", "1").Outcome)
}

func TestSystemdIsTold(t *testing.T) {
	s := newSite(t)
	sock := filepath.Join(s.dir, "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: sock, Net: "unixgram"})
	require.NoError(t, err)
	defer c.Close()
	t.Setenv("NOTIFY_SOCKET", sock)
	next := func() string {
		buf := make([]byte, 256)
		require.NoError(t, c.SetReadDeadline(time.Now().Add(20*time.Second)))
		n, err := c.Read(buf)
		require.NoError(t, err)
		return strings.SplitN(string(buf[:n]), "\n", 2)[0]
	}
	ctx, cancel := context.WithCancel(context.Background())
	reload := make(chan os.Signal, 1)
	done := make(chan error, 1)
	o := s.options()
	go func() { done <- Run(ctx, o, reload) }()
	require.Equal(t, "READY=1", next())
	reload <- os.Interrupt
	require.Equal(t, "RELOADING=1", next())
	require.Equal(t, "READY=1", next())
	cancel()
	require.Equal(t, "STOPPING=1", next())
	require.NoError(t, <-done)
}
