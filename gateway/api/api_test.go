package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/gateway/api"
	"github.com/perigee-iot/perigee/gateway/api/apitest"
	"github.com/perigee-iot/perigee/internal/backup"
)

// quiet is a log that nobody reads.
var quiet = slog.New(slog.DiscardHandler)

// socketPath is short, whatever the name of the test: a socket's path has a limit.
func socketPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "api")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "p.sock")
}

// serve answers for gw and returns a client, and what stops the server and waits for it.
func serve(t *testing.T, gw api.Gateway) (*api.Client, func()) {
	t.Helper()
	path := socketPath(t)
	ln, err := api.Listen(path)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- api.NewServer(gw, quiet).Serve(ctx, ln) }()
	c := api.Dial(path)
	stopped := false
	stop := func() {
		if !stopped {
			stopped = true
			cancel()
			require.NoError(t, <-served)
			c.Close()
		}
	}
	t.Cleanup(stop)
	return c, stop
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("waited in vain for:", what)
		}
	}
}

// asked is one request in both ways: to the gateway itself, and through client and server.
type asked struct {
	method string
	do     func(ctx context.Context, gw api.Gateway) (any, error)
}

func everyMethod() []asked {
	key := ""
	cellar := "cellar"
	collectLogs := func(q api.LogQuery) func(context.Context, api.Gateway) (any, error) {
		return func(ctx context.Context, gw api.Gateway) (any, error) {
			var out []api.LogLine
			err := gw.Logs(ctx, q, func(l api.LogLine) error { out = append(out, l); return nil })
			return out, err
		}
	}
	collectLives := func(q api.EventQuery) func(context.Context, api.Gateway) (any, error) {
		return func(ctx context.Context, gw api.Gateway) (any, error) {
			var out []api.Life
			err := gw.Events(ctx, q, func(l api.Life) error { out = append(out, l); return nil })
			return out, err
		}
	}
	record := func(q api.RecordQuery) func(context.Context, api.Gateway) (any, error) {
		return func(ctx context.Context, gw api.Gateway) (any, error) {
			var out []string
			err := gw.Record(ctx, q, func(l json.RawMessage) error { out = append(out, string(l)); return nil })
			return out, err
		}
	}
	nothing := func(f func(ctx context.Context, gw api.Gateway) error) func(context.Context, api.Gateway) (any, error) {
		return func(ctx context.Context, gw api.Gateway) (any, error) { return nil, f(ctx, gw) }
	}
	files := map[string][]byte{"function.yaml": []byte("description: ü\n"), "main.lua": {0xff, 0}}
	return []asked{
		{"Status", func(ctx context.Context, gw api.Gateway) (any, error) { return gw.Status(ctx) }},
		{"Reload", func(ctx context.Context, gw api.Gateway) (any, error) { return gw.Reload(ctx) }},
		{"Config", func(ctx context.Context, gw api.Gateway) (any, error) { return gw.Config(ctx) }},
		{"Backup", func(ctx context.Context, gw api.Gateway) (any, error) {
			var out bytes.Buffer
			if err := gw.Backup(ctx, &out); err != nil {
				return nil, err
			}
			return backup.Check(&out)
		}},
		{"Functions", func(ctx context.Context, gw api.Gateway) (any, error) { return gw.Functions(ctx) }},
		{"Function", func(ctx context.Context, gw api.Gateway) (any, error) { return gw.Function(ctx, "overheat") }},
		{"Function", func(ctx context.Context, gw api.Gateway) (any, error) { return gw.Function(ctx, "..") }},
		{"Function", func(ctx context.Context, gw api.Gateway) (any, error) { return gw.Function(ctx, ".") }},
		{"Function", func(ctx context.Context, gw api.Gateway) (any, error) { return gw.Function(ctx, "a/b?c#d%2Fü \n") }},
		{"Apply", func(ctx context.Context, gw api.Gateway) (any, error) {
			return gw.Apply(ctx, &api.ApplyRequest{Name: "new", Files: files, Take: true})
		}},
		{"Apply", func(ctx context.Context, gw api.Gateway) (any, error) {
			return gw.Apply(ctx, &api.ApplyRequest{Name: "quiet", Files: files, Dry: true})
		}},
		{"Pause", nothing(func(ctx context.Context, gw api.Gateway) error { return gw.Pause(ctx, "overheat", "too <warm> & ü") })},
		{"Resume", nothing(func(ctx context.Context, gw api.Gateway) error { return gw.Resume(ctx, "overheat") })},
		{"Invoke", func(ctx context.Context, gw api.Gateway) (any, error) {
			return gw.Invoke(ctx, "overheat", &api.InvokeRequest{Data: json.RawMessage(`{"n":9007199254740993}`), Topic: "a/b", Params: map[string]string{"room": "x"}, Key: &key})
		}},
		{"Invoke", func(ctx context.Context, gw api.Gateway) (any, error) {
			return gw.Invoke(ctx, "quiet", &api.InvokeRequest{})
		}},
		{"Logs", collectLogs(api.LogQuery{})},
		{"Logs", collectLogs(api.LogQuery{Function: "overheat", Limit: 1})},
		{"Logs", collectLogs(api.LogQuery{Function: "nobody"})},
		{"Events", collectLives(api.EventQuery{})},
		{"Events", collectLives(api.EventQuery{Topic: "zigbee2mqtt/#", Limit: 1})},
		{"Events", collectLives(api.EventQuery{Function: "overheat"})},
		{"Event", func(ctx context.Context, gw api.Gateway) (any, error) { return gw.Event(ctx, "01A") }},
		{"EventCase", func(ctx context.Context, gw api.Gateway) (any, error) { return gw.EventCase(ctx, "01A", "overheat") }},
		{"Record", record(api.RecordQuery{})},
		{"Record", record(api.RecordQuery{Function: "overheat", Key: &key, For: 90 * time.Second, Bytes: 3 << 29, Invocations: 7})},
		{"Record", record(api.RecordQuery{Function: "nobody"})},
		{"DeadLetters", func(ctx context.Context, gw api.Gateway) (any, error) { return gw.DeadLetters(ctx, api.DeadQuery{}) }},
		{"DeadLetters", func(ctx context.Context, gw api.Gateway) (any, error) {
			return gw.DeadLetters(ctx, api.DeadQuery{Function: "overheat", Revision: "000000000000", Limit: 3})
		}},
		{"DeadLetter", func(ctx context.Context, gw api.Gateway) (any, error) { return gw.DeadLetter(ctx, "d2") }},
		{"TryReplay", func(ctx context.Context, gw api.Gateway) (any, error) {
			return gw.TryReplay(ctx, "d1", []byte(`{"temperature":1}`))
		}},
		{"Replay", nothing(func(ctx context.Context, gw api.Gateway) error { return gw.Replay(ctx, "d1", nil) })},
		{"Replay", nothing(func(ctx context.Context, gw api.Gateway) error { return gw.Replay(ctx, "d2", []byte{}) })},
		{"TryReplay", func(ctx context.Context, gw api.Gateway) (any, error) { return gw.TryReplay(ctx, "nobody", nil) }},
		{"Drop", nothing(func(ctx context.Context, gw api.Gateway) error { return gw.Drop(ctx, "d2") })},
		{"State", func(ctx context.Context, gw api.Gateway) (any, error) {
			return gw.State(ctx, api.StateRef{Function: "overheat", Name: "hot", Key: &cellar})
		}},
		{"State", func(ctx context.Context, gw api.Gateway) (any, error) {
			return gw.State(ctx, api.StateRef{Function: "overheat", Shared: true})
		}},
		{"State", func(ctx context.Context, gw api.Gateway) (any, error) {
			return gw.State(ctx, api.StateRef{Function: "overheat", Key: &key})
		}},
		{"SetState", nothing(func(ctx context.Context, gw api.Gateway) error {
			return gw.SetState(ctx, api.StateRef{Function: "overheat", Name: "hot", Key: &cellar}, json.RawMessage(`null`))
		})},
		{"DeleteState", func(ctx context.Context, gw api.Gateway) (any, error) {
			return gw.DeleteState(ctx, api.StateRef{Function: "overheat", Name: "hot"})
		}},
		{"Devices", func(ctx context.Context, gw api.Gateway) (any, error) { return gw.Devices(ctx) }},
		{"Device", func(ctx context.Context, gw api.Gateway) (any, error) { return gw.Device(ctx, "cellar") }},
		{"WriteDevice", nothing(func(ctx context.Context, gw api.Gateway) error { return gw.WriteDevice(ctx, "fan", 21.5) })},
		{"WriteDevice", nothing(func(ctx context.Context, gw api.Gateway) error { return gw.WriteDevice(ctx, "fan", nil) })},
		{"WriteDevice", nothing(func(ctx context.Context, gw api.Gateway) error { return gw.WriteDevice(ctx, "no such", true) })},
		{"Usage", func(ctx context.Context, gw api.Gateway) (any, error) { return gw.Usage(ctx, api.UsageQuery{}) }},
		{"Usage", func(ctx context.Context, gw api.Gateway) (any, error) {
			return gw.Usage(ctx, api.UsageQuery{Function: "overheat", By: "day", Since: 90 * time.Minute, Revisions: true})
		}},
		{"Usage", func(ctx context.Context, gw api.Gateway) (any, error) {
			return gw.Usage(ctx, api.UsageQuery{Function: "nobody"})
		}},
		{"Advise", func(ctx context.Context, gw api.Gateway) (any, error) { return gw.Advise(ctx, "") }},
		{"Advise", func(ctx context.Context, gw api.Gateway) (any, error) { return gw.Advise(ctx, "quiet") }},
		{"Advise", func(ctx context.Context, gw api.Gateway) (any, error) { return gw.Advise(ctx, "nobody") }},
		{"Top", func(ctx context.Context, gw api.Gateway) (any, error) { return gw.Top(ctx) }},
		{"Uplinks", func(ctx context.Context, gw api.Gateway) (any, error) { return gw.Uplinks(ctx) }},
		{"Streams", func(ctx context.Context, gw api.Gateway) (any, error) { return gw.Streams(ctx) }},
		{"Remove", nothing(func(ctx context.Context, gw api.Gateway) error { return gw.Remove(ctx, "quiet", true) })},
		{"Remove", nothing(func(ctx context.Context, gw api.Gateway) error { return gw.Remove(ctx, "overheat", false) })},
	}
}

// TestClientIsTheGateway asks one gateway directly and an equal one through client and server: answers, errors and what the gateway
// was told must be the same.
func TestClientIsTheGateway(t *testing.T) {
	direct, remote := apitest.Sample(), apitest.Sample()
	c, _ := serve(t, remote)
	seen := map[string]bool{}
	for i, a := range everyMethod() {
		seen[a.method] = true
		t.Run(fmt.Sprintf("%d %s", i, a.method), func(t *testing.T) {
			want, wantErr := a.do(t.Context(), direct)
			got, gotErr := a.do(t.Context(), c)
			if wantErr != nil {
				require.Equal(t, wantErr, gotErr)
				return
			}
			require.NoError(t, gotErr)
			require.Equal(t, want, got)
		})
	}
	require.Equal(t, direct.Calls(), remote.Calls())
	for _, m := range api.GatewayMethods() {
		require.True(t, seen[m], "no request of this test asks %s", m)
	}
}

func TestErrorsKeepCodeMessageAndHint(t *testing.T) {
	full := &api.Error{Code: api.CodeConflict, Message: "it is „busy“ 🛰\nright now", Hint: "wait & see"}
	f := apitest.Sample()
	c, _ := serve(t, f)
	for _, a := range everyMethod() {
		f.Fail(a.method, full)
		_, err := a.do(t.Context(), c)
		f.Fail(a.method, nil)
		var e *api.Error
		require.ErrorAs(t, err, &e, a.method)
		if e.Code == api.CodeConflict {
			require.Equal(t, full, e, a.method)
		} else {
			require.Equal(t, api.CodeNotFound, e.Code, a.method) // it named what does not exist, and that came first
		}
	}
	for give, want := range map[error]api.Error{
		errors.New("disk on fire"): {Code: api.CodeInternal, Message: "disk on fire"},
		fmt.Errorf("apply: %w", api.Errorf(api.CodeUnavailable, "disk full")): {Code: api.CodeUnavailable, Message: "apply: disk full"},
		context.Canceled:        {Code: api.CodeUnavailable, Message: "the gateway is stopping"},
		&api.Error{Code: "new"}: {Code: api.CodeInternal},
	} {
		f.Fail("Status", give)
		_, err := c.Status(t.Context())
		var e *api.Error
		require.ErrorAs(t, err, &e)
		if want.Message == "" { // an error without a message is not one that a gateway makes
			require.Equal(t, want.Code, e.Code)
			continue
		}
		require.Equal(t, want, *e)
	}
}

func TestHintOfAWrappedErrorIsKept(t *testing.T) {
	f := apitest.New()
	f.Fail("Status", fmt.Errorf("look: %w", api.Errorf(api.CodeUnavailable, "no").WithHint("wait")))
	c, _ := serve(t, f)
	_, err := c.Status(t.Context())
	require.Equal(t, &api.Error{Code: api.CodeUnavailable, Message: "look: no", Hint: "wait"}, err)
}

func TestFollow(t *testing.T) {
	f := apitest.Sample()
	c, stop := serve(t, f)
	ctx, cancel := context.WithCancel(t.Context())
	got := make(chan api.LogLine, 10)
	ended := make(chan error, 1)
	go func() {
		ended <- c.Logs(ctx, api.LogQuery{Follow: true, Limit: 1}, func(l api.LogLine) error { got <- l; return nil })
	}()
	require.Equal(t, "nothing to do", (<-got).Text)
	for i := range 3 {
		f.Edit(func(d *apitest.Data) { *d.Logs = append(*d.Logs, api.LogLine{Text: fmt.Sprint(i)}) })
		require.Equal(t, fmt.Sprint(i), (<-got).Text, "a line comes as soon as it is there")
	}
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
	eventually(t, "the gateway's side to end with its client", func() bool { return f.Following() == 0 })

	go func() {
		ended <- c.Events(t.Context(), api.EventQuery{Follow: true}, func(api.Life) error { return nil })
	}()
	eventually(t, "the second list", func() bool { return f.Following() == 1 })
	stop()
	require.Equal(t, &api.Error{Code: api.CodeUnavailable, Message: "the gateway is stopping"}, <-ended)
	require.Zero(t, f.Following())
}

func TestFollowEndsWithTheErrorOfTheGateway(t *testing.T) {
	f := apitest.Sample()
	c, _ := serve(t, f)
	ended := make(chan error, 1)
	first := make(chan struct{}, 10)
	go func() {
		ended <- c.Logs(t.Context(), api.LogQuery{Follow: true}, func(api.LogLine) error { first <- struct{}{}; return nil })
	}()
	<-first
	want := &api.Error{Code: api.CodeUnavailable, Message: "zu langsam: „x“ 🛰", Hint: "read faster"}
	f.Fail("Logs", want)
	f.Edit(func(*apitest.Data) {})
	require.Equal(t, want, <-ended)
}

func TestFollowEndsWithAnErrorOfEmit(t *testing.T) {
	f := apitest.Sample()
	c, _ := serve(t, f)
	enough := errors.New("enough")
	require.ErrorIs(t, c.Logs(t.Context(), api.LogQuery{Follow: true}, func(api.LogLine) error { return enough }), enough)
	eventually(t, "the gateway's side to end", func() bool { return f.Following() == 0 })
}

func TestNobodyAnswers(t *testing.T) {
	path := socketPath(t)
	_, err := api.Dial(path).Status(t.Context())
	require.Equal(t, &api.Error{Code: api.CodeNoGateway, Message: "no gateway answers at " + path + ": is it running?", Hint: "start it with: perigee run"}, err)

	ln, err := net.Listen("unix", path)
	require.NoError(t, err)
	ln.(*net.UnixListener).SetUnlinkOnClose(false)
	ln.Close()
	_, err = api.Dial(path).Status(t.Context())
	require.True(t, api.IsCode(err, api.CodeNoGateway), "%v", err)
	require.ErrorContains(t, err, "is it running?")

	file := filepath.Join(filepath.Dir(path), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	_, err = api.Dial(file).Status(t.Context())
	require.True(t, api.IsCode(err, api.CodeNoGateway), "%v", err)

	_, err = api.Dial(strings.Repeat("x", 200)).Status(t.Context())
	require.ErrorContains(t, err, "is not a gateway's socket")
}

func TestAnswersThatAreNotAGateways(t *testing.T) {
	path := socketPath(t)
	ln, err := net.Listen("unix", path)
	require.NoError(t, err)
	defer ln.Close()
	answers := make(chan string, 4)
	go func() {
		for a := range answers {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			conn.Read(make([]byte, 4096))
			io.WriteString(conn, a)
			conn.Close()
		}
	}()
	defer close(answers)
	for _, tc := range [][2]string{
		{"", "the connection to the gateway at " + path + " broke"},
		{"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\n<html", "is not understood"},
		{"HTTP/1.1 302 Found\r\nLocation: http://evil/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", "is not a gateway that this program knows"},
		{"HTTP/1.1 200 OK\r\nContent-Length: 50\r\nConnection: close\r\n\r\n{", "broke"},
	} {
		answers <- tc[0]
		c := api.Dial(path)
		_, err := c.Status(t.Context())
		require.ErrorContains(t, err, tc[1], "%q", tc[0])
		c.Close()
	}
}
