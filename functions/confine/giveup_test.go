package confine_test

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/functions/confine"
	"github.com/perigee-iot/perigee/functions/frame"
	"github.com/perigee-iot/perigee/functions/sandbox"
)

// stumbleMain is a worker that its filter of system calls breaks, or seems to. Plan says what the first one does, what the second, and so on; how many there have been
// stands in a file.
func stumbleMain(plan []string, file string) int {
	f, err := os.OpenFile(file, os.O_APPEND|os.O_RDWR, 0)
	if err != nil {
		return 9
	}
	f.Write([]byte{'.'})
	starts, _ := os.ReadFile(file)
	does := plan[min(len(starts), len(plan))-1]
	spared := len(os.Args) > 5 && slices.Contains(strings.Split(os.Args[5], ","), confine.Seccomp)

	conn := os.NewFile(3, "gateway")
	send := func(b []byte, err error) {
		if err == nil {
			_, err = conn.Write(b)
		}
		if err != nil {
			os.Exit(8)
		}
	}
	layers := []frame.Layer{{Name: "other"}}
	if !spared {
		send(frame.AppendConfining(nil, confine.Seccomp))
		switch does {
		case "break":
			return 2
		case "killed":
			unix.Kill(os.Getpid(), unix.SIGKILL)
		case "starve":
			os.Stderr.WriteString("fatal error: runtime: out of memory\n")
			return 2
		}
		layers = append(layers, frame.Layer{Name: confine.Seccomp})
	}
	send(frame.AppendReady(nil, layers))
	frames := frame.NewReader(conn, frame.ToWorker)
	for {
		t, _, err := frames.Next()
		if err != nil {
			return 0
		}
		if t == frame.Run {
			return 3 // to make way for another
		}
	}
}

// log is a log to look at.
type log struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func stumble(t *testing.T, plan string) (*sandbox.Pool, *log) {
	t.Helper()
	file := filepath.Join(openDir(t), "starts")
	require.NoError(t, os.WriteFile(file, nil, 0o666))
	require.NoError(t, os.Chmod(file, 0o666))
	out := &log{}
	p, err := sandbox.New(sandbox.Options{Command: []string{"/proc/self/exe", "stumble", plan, file}, Warm: 1, Max: 1, Log: slog.New(slog.NewTextHandler(out, nil))})
	require.NoError(t, err)
	t.Cleanup(p.Close)
	return p, out
}

// TestBrokenLayerIsGivenUp: a filter with which no worker starts is switched off, and said to be.
func TestBrokenLayerIsGivenUp(t *testing.T) {
	p, out := stumble(t, "break")
	l := states(t, p)[confine.Seccomp]
	require.Equal(t, frame.Off, l.State)
	require.Contains(t, l.Why, "exit status 2")
	require.EqualValues(t, 3, p.Stats().Started)
	require.Equal(t, 1, strings.Count(out.String(), "breaks workers"), out)
	require.Equal(t, 1, strings.Count(out.String(), "level=WARN"), out)
	require.Contains(t, out.String(), "seccomp is off")
}

// TestLayerIsNotGivenUpForOtherReasons: one start that fails, or several for want of memory, prove nothing.
func TestLayerIsNotGivenUpForOtherReasons(t *testing.T) {
	for _, plan := range []string{"break,fine", "killed,killed,killed,fine", "starve,starve,starve,fine"} {
		p, out := stumble(t, plan)
		require.Equal(t, frame.On, states(t, p)[confine.Seccomp].State, plan)
		require.NotContains(t, out.String(), "breaks workers", plan)
	}
}

// TestFunctionCannotSwitchOffLayers: once a worker was ready, functions may have run, and no layer is given up any more.
func TestFunctionCannotSwitchOffLayers(t *testing.T) {
	p, out := stumble(t, "fine,break,break,break,fine")
	require.Equal(t, frame.On, states(t, p)[confine.Seccomp].State)
	require.NotNil(t, run(t, p, &functions.Bundle{Digest: "d"}, "").Fault)
	require.Eventually(t, func() bool { return p.Stats().Started == 5 }, time.Minute, time.Millisecond)
	require.Equal(t, frame.On, states(t, p)[confine.Seccomp].State)
	require.NotContains(t, out.String(), "breaks workers")
}
