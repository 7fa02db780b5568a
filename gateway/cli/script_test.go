package cli_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/functions/cases/stage"
	"github.com/perigee-iot/perigee/functions/worker"
	"github.com/perigee-iot/perigee/gateway/api"
	"github.com/perigee-iot/perigee/gateway/api/apitest"
	"github.com/perigee-iot/perigee/gateway/cli"
	"github.com/perigee-iot/perigee/gateway/config"
	"github.com/perigee-iot/perigee/internal/backup"
)

var update = flag.Bool("update", false, "write what the commands print into the scripts")

// TestMain makes the test's own binary the perigee command, for the scripts.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) != "perigee" {
		worker.MainIfWorker() // of a stage
	}
	testscript.Main(m, map[string]func(){
		"perigee": func() {
			ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
			code := program().Main(ctx, os.Args)
			stop()
			os.Exit(code)
		},
	})
}

// program is the command with parts that only say what they were told.
func program() *cli.Program {
	return cli.New(cli.Options{
		Version: "0.1.0",
		Kinds:   []string{"sim", "host", "mqtt"},
		Run: func(_ context.Context, o cli.RunOptions) error {
			fmt.Println("run", o.File, o.Config.DataDir, o.Config.Broker.URL, o.Config.Log.Level)
			return nil
		},
		Worker: func() int { return 7 },
		Layers: func(context.Context, *config.Config) ([]api.Layer, error) {
			return []api.Layer{{Name: "rlimits", State: api.LayerOn}, {Name: "seccomp", State: api.LayerOff, Why: "as told"}}, nil
		},
		Stage: func() (cli.Stage, error) { return stage.Open(nil) },
		Backup: func(ctx context.Context, c *config.Config, w io.Writer) error {
			fmt.Fprintln(os.Stderr, "from", c.DataDir)
			return apitest.New().Backup(ctx, w)
		},
		Restore: restore,
		Demo: func(_ context.Context, o cli.DemoOptions) error {
			fmt.Println("demo", o.Dir, o.For, o.Plain)
			return nil
		},
	})
}

// restore checks the file, as the real one does, and says that a store was there.
func restore(_ context.Context, c *config.Config, o cli.RestoreOptions) (*cli.Restored, error) {
	sum, err := backup.Check(o.File)
	if err != nil {
		return nil, err
	}
	if !o.Replace {
		return nil, errors.New("the data directory has a store: " + c.DataDir)
	}
	return &cli.Restored{Summary: sum, NewEpoch: "0123456789abcdef", Replaced: filepath.Join(c.DataDir, "replaced")}, nil
}

type fakeKey struct{}

// TestScripts runs each script in testdata against a gateway of its own, whose socket gateway.yaml names.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:           "testdata",
		UpdateScripts: *update,
		Setup: func(env *testscript.Env) error {
			dir, err := os.MkdirTemp("", "cli")
			if err != nil {
				return err
			}
			f := apitest.Sample()
			socket := filepath.Join(dir, "p.sock")
			stop, err := serve(f, socket)
			if err != nil {
				return err
			}
			env.Defer(func() { stop(); os.RemoveAll(dir) })
			env.Values[fakeKey{}] = &scripted{Fake: f, socket: socket, stop: stop}
			env.Setenv("SOCKET", socket)
			env.Setenv("TZ", "UTC")
			env.Setenv("GORACE", "atexit_sleep_ms=10") // a second at the end of every command otherwise
			env.Setenv("HOME", dir)
			env.Setenv("XDG_STATE_HOME", dir)
			return os.WriteFile(filepath.Join(env.WorkDir, "gateway.yaml"), []byte("id: gw-01\napi: {socket: "+socket+"}\n"), 0o600)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "asked": asked, "gateway": gatewayCommand, "await": await,
		},
	})
}

type scripted struct {
	*apitest.Fake
	socket string
	stop   func()
}

func serve(f *apitest.Fake, socket string) (stop func(), err error) {
	ln, err := api.Listen(socket)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- api.NewServer(f, slog.New(slog.DiscardHandler)).Serve(ctx, ln) }()
	stopped := false
	return func() {
		if !stopped {
			stopped = true
			cancel()
			<-served
		}
	}, nil
}

// exits CODE COMMAND…: the command ends with that code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND…")
	}
	code := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var e *exec.ExitError
		if !errors.As(err, &e) {
			ts.Fatalf("%v", err)
		}
		code = e.ExitCode()
	}
	if want, err := strconv.Atoi(args[0]); err != nil || code != want {
		ts.Fatalf("exit code %d, not %s", code, args[0])
	}
}

// asked TEXT: the gateway was asked for exactly that, last.
func asked(ts *testscript.TestScript, neg bool, args []string) {
	f := ts.Value(fakeKey{}).(*scripted)
	calls := f.Calls()
	last := ""
	if len(calls) > 0 {
		last = calls[len(calls)-1]
	}
	if (last == strings.Join(args, " ")) == neg {
		ts.Fatalf("asked last: %s\nall: %s", last, strings.Join(calls, "\n     "))
	}
}

// gateway stop | start | not-ready | lossy | problem TEXT | log TEXT | event FUNCTION SUBJECT | following N: what happens at the gateway.
func gatewayCommand(ts *testscript.TestScript, _ bool, args []string) {
	f := ts.Value(fakeKey{}).(*scripted)
	switch args[0] {
	case "stop":
		f.stop()
	case "start":
		stop, err := serve(f.Fake, f.socket)
		ts.Check(err)
		ts.Defer(stop)
		f.stop = stop
	case "not-ready":
		f.Edit(func(d *apitest.Data) {
			d.Status.Ready, d.Status.Problems = false, []string{"the broker is not connected"}
		})
	case "lossy":
		at := time.Date(2026, 5, 4, 12, 30, 15, 0, time.UTC)
		f.Edit(func(d *apitest.Data) {
			d.Status.Losses, d.Status.Events.Repeated, d.Status.Broker.LostSessions = map[string]int64{"inbox full": 1200}, 2, 1
			d.Status.Gaps = []api.Gap{{Function: "overheat", Cause: "inbox full", Events: 1200, From: at, To: at.Add(time.Minute)}}
		})
	case "confined":
		f.Edit(func(d *apitest.Data) {
			d.Status.Workers.Layers = []api.Layer{{Name: "rlimits", State: api.LayerOn}, {Name: "landlock", State: args[1], Why: "as told"}}
		})
	case "blocked":
		f.Edit(func(d *apitest.Data) { d.Functions["quiet"].State, d.Functions["quiet"].Reason = "blocked", args[1] })
	case "problem":
		f.Edit(func(d *apitest.Data) { *d.Problems = append(*d.Problems, args[1]) })
	case "empty":
		f.Edit(func(d *apitest.Data) {
			clear(d.Functions)
			*d.Devices, *d.Dead, *d.Uplinks, *d.Streams, *d.Usage, *d.Advice = nil, nil, nil, nil, nil, nil
		})
	case "denied": // of a function of this origin; its folder is in functions/
		f.Edit(func(d *apitest.Data) {
			letter := func(kind functions.FaultKind, hint string) api.DeadLetter {
				return api.DeadLetter{ID: "d9", Function: "chatty", Fault: &functions.Fault{Kind: kind, Message: "main.lua:2: may not", Hint: hint}}
			}
			text := ts.ReadFile("functions/talk/function.yaml")
			d.Functions["chatty"] = &api.Function{Name: "chatty", State: "active", Origin: args[1], Revision: "1234", Dead: 2,
				Files: map[string]string{"function.yaml": text, "main.lua": "return function() end"}}
			*d.Dead = []api.DeadLetter{letter("denied", functions.WriteDeviceHint("fan")), letter("denied", functions.PublishHint("alerts/y")), letter("denied", functions.PublishHint("alerts/x")),
				letter("denied", functions.PublishHint("known")), letter("error", functions.PublishHint("no/denial")), letter("denied", "add to function.yaml: limits: {memory: 1GiB}")}
			*d.Logs = []api.LogLine{{Function: "chatty", Fault: &functions.Fault{Kind: "denied", Hint: functions.HTTPHint("https://api.example.com/v1")}}}
			*d.Config = json.RawMessage(`{"functions":{"dir":` + strconv.Quote(ts.MkAbs("functions")) + `}}`)
		})
	case "fail":
		f.Fail(args[1], api.Errorf(api.CodeUnavailable, "%s", args[2]))
	case "recording": // the lines of the next recordings are those of a file
		f.Edit(func(d *apitest.Data) {
			*d.Recording = strings.Split(strings.TrimSpace(ts.ReadFile(args[1])), "\n")
		})
	case "log":
		f.Edit(func(d *apitest.Data) {
			*d.Logs = append(*d.Logs, api.LogLine{Time: time.Now().Add(time.Minute), Function: args[1], Level: "info", Text: args[2]})
		})
	case "event":
		f.Edit(func(d *apitest.Data) {
			*d.Lives = append(*d.Lives, api.Life{ID: "new", Time: time.Now().Add(time.Minute), Subject: args[2], Accepted: true,
				Outcomes: []api.LifeOutcome{{Function: args[1], What: "dead", Attempt: 3, Fault: &functions.Fault{Kind: functions.FaultTimeout, Message: "longer than 1s"}}}})
		})
	case "following":
		n, err := strconv.Atoi(args[1])
		ts.Check(err)
		for end := time.Now().Add(20 * time.Second); f.Following() != n; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				ts.Fatalf("%d lists are followed, not %d", f.Following(), n)
			}
		}
	default:
		ts.Fatalf("gateway %s?", args[0])
	}
}

// await FILE TEXT: waits until the file has the text.
func await(ts *testscript.TestScript, _ bool, args []string) {
	var b []byte
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		b, _ = os.ReadFile(ts.MkAbs(args[0]))
		if bytes.Contains(b, []byte(args[1])) {
			return
		}
	}
	ts.Fatalf("%s never has %q:\n%s", args[0], args[1], b)
}
