package cli_test

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/stretchr/testify/require"
	"golang.org/x/term"

	"github.com/perigee-iot/perigee/gateway/api"
	"github.com/perigee-iot/perigee/gateway/api/apitest"
	"github.com/perigee-iot/perigee/gateway/screen/screentest"
)

// topShow is "perigee top" on a terminal.
type topShow struct {
	*testing.T
	pty, tty *os.File
	vt       *screentest.Terminal
	cmd      *exec.Cmd
	exit     chan error
	was      *term.State
}

func startTop(t *testing.T, f *apitest.Fake, cols, rows int, env ...string) (*topShow, func()) {
	dir, err := os.MkdirTemp("", "top")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "p.sock")
	stop, err := serve(f, socket)
	require.NoError(t, err)
	t.Cleanup(stop)
	self, err := os.Executable()
	require.NoError(t, err)
	s := &topShow{T: t, vt: screentest.New(cols, rows), exit: make(chan error, 1)}
	s.pty, s.tty, err = pty.Open()
	require.NoError(t, err)
	require.NoError(t, pty.Setsize(s.pty, &pty.Winsize{Cols: uint16(cols), Rows: uint16(rows)}))
	s.was = s.termios()
	s.cmd = &exec.Cmd{Path: self, Args: []string{"perigee", "top", "--every", "100ms", "--socket", socket},
		Env:   append(os.Environ(), append([]string{"TERM=xterm", "LC_ALL=C.UTF-8", "GORACE=atexit_sleep_ms=10"}, env...)...),
		Stdin: s.tty, Stdout: s.tty, Stderr: s.tty, SysProcAttr: &syscall.SysProcAttr{Setsid: true, Setctty: true}}
	require.NoError(t, s.cmd.Start())
	done := make(chan struct{})
	go func() { defer close(done); _, _ = io.Copy(s.vt, s.pty) }()
	go func() { s.exit <- s.cmd.Wait() }()
	t.Cleanup(func() {
		_ = s.cmd.Process.Kill()
		s.tty.Close()
		s.pty.Close()
		<-done
		if t.Failed() {
			t.Logf("the screen was:\n%s", s.vt.Text())
		}
	})
	return s, stop
}

func (s *topShow) termios() *term.State {
	t, err := term.GetState(int(s.tty.Fd()))
	require.NoError(s, err)
	return t
}

func (s *topShow) await(re string) {
	s.Helper()
	r := regexp.MustCompile(re)
	require.Eventually(s, func() bool { return r.MatchString(s.vt.Text()) }, 30*time.Second, 10*time.Millisecond, re)
}

func (s *topShow) press(key string) {
	_, err := io.WriteString(s.pty, key)
	require.NoError(s, err)
}

// ended waits for a good end, with the terminal as it was.
func (s *topShow) ended() {
	s.Helper()
	select {
	case err := <-s.exit:
		require.NoError(s, err)
	case <-time.After(30 * time.Second):
		s.Fatal("top does not end")
	}
	_, err := io.WriteString(s.tty, "the end")
	require.NoError(s, err)
	require.Eventually(s, func() bool { return strings.HasSuffix(s.vt.State().Plain, "the end") }, 30*time.Second, time.Millisecond)
	require.Equal(s, screentest.State{Cursor: true, Wrap: true, Plain: "the end"}, s.vt.State())
	require.Equal(s, s.was, s.termios(), "the terminal's settings are as they were")
}

func TestTopOnATerminal(t *testing.T) {
	f := apitest.Sample()
	s, stop := startTop(t, f, 100, 24)
	s.await(`PERIGEE top  gw-01  up 3h`)
	s.await(`FUNCTION +CPU %▾ `)
	s.await(`overheat +2\.6 +40 +\d.* 4\.2ms +3\.0 M +5 +20 K`)
	s.await(`overheat[^\n]*\n quiet \(paused\)`)
	s.press("n")
	s.await(`FUNCTION▾ `)
	s.press("m")
	s.await(`MEMORY▾ `)
	require.NoError(t, pty.Setsize(s.pty, &pty.Winsize{Cols: 60, Rows: 12}))
	require.Eventually(t, func() bool {
		lines := strings.Split(s.vt.Text(), "\n")
		return !strings.Contains(s.vt.Text(), "FLASH/s") && strings.Contains(lines[11], "sort by")
	}, 30*time.Second, 10*time.Millisecond, "what has no room is left out, and the keys are in the last line")
	f.Fail("Top", api.Errorf("unavailable", "the gateway ends"))
	s.await(`(?m)^ the gateway ends`)
	f.Fail("Top", nil)
	s.await(`40 runs/s`)
	stop()
	s.await(`(?m)^ no gateway`)
	s.press("q")
	s.ended()
}

func TestTopOnAPlainTerminal(t *testing.T) {
	s, _ := startTop(t, apitest.Sample(), 80, 10, "NO_COLOR=1", "LC_ALL=C")
	s.await(`FUNCTION +CPU %\* `)
	for _, r := range s.vt.Text() {
		require.Less(t, r, rune(128))
	}
	require.NoError(t, s.cmd.Process.Signal(os.Interrupt))
	s.ended()
}
