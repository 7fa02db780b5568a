package demo

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/gateway/api"
)

// testChild is a child that runs a shell script, and the lines that it tells.
func testChild(t *testing.T, script string) (*child, *board) {
	log, err := newRotate(filepath.Join(t.TempDir(), "gateway.log"), logBytes)
	require.NoError(t, err)
	t.Cleanup(log.Close)
	b := &board{}
	client := api.Dial(filepath.Join(t.TempDir(), "none.sock"))
	return &child{program: "/bin/sh", args: []string{"-c", script}, log: log, client: client, tell: b.tell, retry: 10 * time.Millisecond}, b
}

func runChild(t *testing.T, c *child) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	wait.Go(func() { c.Run(ctx) })
	return func() { cancel(); wait.Wait() }
}

// TestChildThatDoesNotStart: it is tried again and again, and told of once, in a sentence.
func TestChildThatDoesNotStart(t *testing.T) {
	file := filepath.Join(t.TempDir(), "starts")
	c, b := testChild(t, "echo x >> "+file+"; echo 'time=1 level=ERROR msg=\"the port is taken\"' >&2; echo 'level=INFO msg=bye'; exit 1")
	stop := runChild(t, c)
	require.Eventually(t, func() bool { return c.status().Trouble != "" }, patience, time.Millisecond)
	require.Equal(t, `the gateway ended: "the port is taken"`, c.status().Trouble)
	require.Eventually(t, func() bool { return lines(t, file) >= 3 }, patience, time.Millisecond)
	stop()
	require.Len(t, b.take(), 1)
}

// TestChildThatSomebodyElseEnds: its last line of the log is not the reason.
func TestChildThatSomebodyElseEnds(t *testing.T) {
	for script, want := range map[string]string{
		"echo 'level=INFO msg=busy'; kill -9 $$":             "the gateway ended: signal: killed",
		"echo 'level=INFO msg=bye'; exit 0":                  "the gateway ended: it was told to stop",
		"echo \"perigee: /d/gateway.yaml:1: wrong\"; exit 2": "the gateway ended: gateway.yaml:1: wrong",
	} {
		c, _ := testChild(t, script)
		c.dir = "/d"
		stop := runChild(t, c)
		require.Eventually(t, func() bool { return c.status().Trouble != "" }, patience, time.Millisecond)
		require.Equal(t, want, c.status().Trouble)
		stop()
	}
}

func TestChildIsKilledAndComesBack(t *testing.T) {
	c, _ := testChild(t, "trap '' HUP; while :; do sleep 0.01; done")
	stop := runChild(t, c)
	var pid int
	running := func() bool { now := c.status().PID; ok := now != 0 && now != pid; return ok }
	require.Eventually(t, running, patience, time.Millisecond)
	pid = c.status().PID
	require.NoError(t, c.kill())
	require.Eventually(t, running, patience, time.Millisecond, "another process")
	require.Empty(t, c.status().Trouble, "a kill by hand is no trouble")
	require.Zero(t, c.status().Kills, "it has not said that it is ready")
	c.ready(c.status().PID)
	require.Equal(t, 1, c.status().Kills)
	stop()
	require.Zero(t, c.status().PID)
	require.Error(t, c.kill())
}

func TestSentenceOfALogLine(t *testing.T) {
	require.Equal(t, `no such file`, plainLog("perigee: no such file"))
	require.Equal(t, `"x y" part=store`, plainLog(`time=1 level=ERROR msg="x y" part=store`))
	require.Equal(t, `panic: oh`, plainLog(`panic: oh`))
}

func lines(t *testing.T, file string) int {
	data, err := os.ReadFile(file)
	require.NoError(t, err)
	return bytes.Count(data, []byte("\n"))
}
