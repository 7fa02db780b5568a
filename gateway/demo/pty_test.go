package demo

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/stretchr/testify/require"
	"golang.org/x/term"

	"github.com/perigee-iot/perigee/gateway/screen"
	"github.com/perigee-iot/perigee/gateway/screen/screentest"
)

// TestMain removes the binary that the tests have built.
func TestMain(m *testing.M) {
	code := m.Run()
	if built.dir != "" {
		_ = os.RemoveAll(built.dir)
	}
	os.Exit(code)
}

// built holds the directory of the binary, once a test has asked for it.
var built struct {
	once sync.Once
	dir  string
	err  error
}

// perigee returns the path of the real program: that in PERIGEE_BINARY, or one that is built now.
func perigee(t *testing.T) string {
	if p := os.Getenv("PERIGEE_BINARY"); p != "" {
		return p
	}
	built.once.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "perigee-demo-test"); built.err != nil {
			return
		}
		cmd := exec.Command("go", "build", "-o", built.dir, "./gateway/cmd/perigee")
		cmd.Dir = "../.."
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			built.err = fmt.Errorf("build perigee: %w\n%s", err, out)
		}
	})
	require.NoError(t, built.err)
	return filepath.Join(built.dir, "perigee")
}

// show is a demo on a terminal.
type show struct {
	*testing.T
	dir  string
	cmd  *exec.Cmd
	pty  *os.File // our end
	tty  *os.File // its end, kept open to see how it is left
	vt   *screentest.Terminal
	done chan struct{} // closed when all output has been taken
	exit chan error    // gets how it ended
	was  *term.State
}

func startShow(t *testing.T, cols, rows int, env ...string) *show {
	s := &show{T: t, dir: filepath.Join(t.TempDir(), "demo"), vt: screentest.New(cols, rows), done: make(chan struct{}), exit: make(chan error, 1)}
	var err error
	s.pty, s.tty, err = pty.Open()
	require.NoError(t, err)
	require.NoError(t, pty.Setsize(s.pty, &pty.Winsize{Cols: uint16(cols), Rows: uint16(rows)}))
	s.was = s.termios()
	s.cmd = exec.Command(perigee(t), "demo", "--dir", s.dir)
	s.cmd.Env = append(os.Environ(), append([]string{"TERM=xterm", "LC_ALL=C.UTF-8"}, env...)...)
	s.cmd.Stdin, s.cmd.Stdout, s.cmd.Stderr = s.tty, s.tty, s.tty
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	require.NoError(t, s.cmd.Start())
	go func() { defer close(s.done); _, _ = io.Copy(s.vt, s.pty) }()
	go func() { s.exit <- s.cmd.Wait() }()
	t.Cleanup(func() {
		_ = s.cmd.Process.Kill()
		s.tty.Close()
		s.pty.Close()
		<-s.done
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(s.dir, "gateway.log"))
			t.Logf("the screen was:\n%s\nafter it:\n%s\nthe gateway's log:\n%s", s.vt.Text(), s.vt.State().Plain, log)
		}
	})
	return s
}

func (s *show) termios() *term.State {
	t, err := term.GetState(int(s.tty.Fd()))
	require.NoError(s, err)
	return t
}

func (s *show) press(key string) {
	_, err := io.WriteString(s.pty, key)
	require.NoError(s, err)
}

// await waits until the screen has what re describes, and returns its groups.
func (s *show) await(re string) []string {
	s.Helper()
	var found []string
	r := regexp.MustCompile(re)
	require.Eventually(s, func() bool { found = r.FindStringSubmatch(s.vt.Text()); return found != nil }, 2*patience, 20*time.Millisecond, re)
	return found
}

func (s *show) resize(cols, rows uint16) {
	require.NoError(s, pty.Setsize(s.pty, &pty.Winsize{Cols: cols, Rows: rows}))
}

// grouped is a number for people.
const grouped = `(\d{1,3}(?: \d{3})*)`

// number waits until the number after name is at least n, and returns it.
func (s *show) number(name string, n int) int {
	s.Helper()
	var got int
	require.Eventually(s, func() bool {
		if m := regexp.MustCompile(name + ` +` + grouped).FindStringSubmatch(s.vt.Text()); m != nil {
			got, _ = strconv.Atoi(strings.ReplaceAll(m[1], " ", ""))
		}
		return got >= n && got > 0 || n == 0
	}, 2*patience, 20*time.Millisecond, "%s at least %d", name, n)
	return got
}

// ended waits for the end and checks that the terminal is as it was. It returns what was printed after the view.
func (s *show) ended() string {
	s.Helper()
	select {
	case err := <-s.exit:
		require.NoError(s, err)
	case <-time.After(2 * patience):
		s.Fatal("the demo does not end")
	}
	// All that it has written is on its way through the terminal: what is written behind it comes out behind it.
	_, err := io.WriteString(s.tty, "the end")
	require.NoError(s, err)
	require.Eventually(s, func() bool {
		return strings.HasSuffix(s.vt.State().Plain, "the end")
	}, patience, time.Millisecond)
	left := s.vt.State()
	require.False(s, left.Alternate, "the alternate screen is left")
	require.True(s, left.Cursor, "the cursor is there")
	require.True(s, left.Wrap, "lines wrap")
	require.Empty(s, left.Strange)
	require.Equal(s, s.was, s.termios(), "the terminal's settings are as they were")
	return left.Plain
}

// TestEveryKey plays with the demo as a person would.
func TestEveryKey(t *testing.T) {
	s := startShow(t, 80, 60)
	s.resize(80, 24)
	s.await(`gateway running, pid \d+`)
	s.number("committed", 20)
	s.await(`cellar +\d+\.\d °C .*[▁▂▃▄▅▆▇█]`)
	s.await(`overheat +\d+ +100 +\d.* ms`)
	s.await(`cellar \d.* → overheat: hot`)
	s.await(`edit .*overheat/main.lua`)
	require.Regexp(t, `(?m)^ c cut the link .*\n\n{36}$`, s.vt.Text(), "the keys are in the 24th line")

	// More lines, so that none leaves the feed before a slow test has seen it.
	s.resize(80, 60)

	s.press("c")
	s.await(`link cut for`)
	s.await(`c mend the link`)
	s.await(`CLOUD .* [1-9]\d+ records wait`)
	s.press("k")
	s.await(`kills survived +1`)
	s.await(`the gateway is back as pid \d+`)
	before := s.number("committed", 0)
	s.press("c")
	s.await(`CLOUD  link up`)
	s.await(`the cloud has caught up`)
	s.number("committed", before+40)

	s.press("b")
	s.await(`lamp on`)
	s.press("x")
	s.await(`stopped an endless loop: timeout`)
	s.press("x")
	s.await(`stopped a memory bomb: `)
	s.await(`hostile +\d+ +0\.0`)

	main := filepath.Join(s.dir, "functions", "overheat", "main.lua")
	text, err := os.ReadFile(main)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(main, append([]byte("-- changed\n"), text...), 0o644))
	s.await(`overheat: new revision [0-9a-f]{8} is active`)
	require.NoError(t, os.WriteFile(main, []byte("return function( end\n"), 0o644))
	s.await(`overheat: main.lua:1: `)
	s.press("k")
	s.await(`kills survived +2`)

	s.press("q")
	out := s.ended()
	accepted := regexp.MustCompile(`accepted +` + grouped).FindStringSubmatch(out)
	require.NotNil(t, accepted, out)
	require.Regexp(t, `committed +`+accepted[1]+` `, out)
	require.Regexp(t, `lost +0 `, out)
	require.Regexp(t, `doubled +0 `, out)
	require.Regexp(t, `kills +2 `, out)
	for _, next := range []string{" new ", " cloud --listen tcp://127.0.0.1:", " run --config ", "overheat/main.lua"} {
		require.Contains(t, out, next)
	}
	require.NotContains(t, out, "\x1b")
	require.FileExists(t, main, "the directory stays")
	log, err := os.ReadFile(filepath.Join(s.dir, "gateway.log"))
	require.NoError(t, err)
	require.Contains(t, string(log), `msg="a function was removed" function=hostile`)
	require.NoFileExists(t, filepath.Join(s.dir, "data", "perigee.sock"), "the gateway was stopped in peace")
}

// TestOtherScreens: the view follows the size of its terminal, and does without colour and UTF-8 where it has to.
func TestOtherScreens(t *testing.T) {
	s := startShow(t, 100, 40, "NO_COLOR=1", "LC_ALL=C")
	s.await(`\* gateway running`)
	s.await(`cellar .*C +[_.:=+*#-]+ `)
	s.resize(60, 20)
	require.Eventually(t, func() bool {
		for _, l := range strings.Split(s.vt.Text(), "\n") {
			if len(l) > 60 {
				return false
			}
		}
		return strings.Contains(s.vt.Text(), "accepted")
	}, patience, 20*time.Millisecond)
	for _, r := range s.vt.Text() {
		require.Less(t, r, rune(128))
	}
	s.press("\x03") // Ctrl-C
	require.Contains(t, s.ended(), "accepted")
}

// TestSignalsGiveTheTerminalBack, whatever the signal.
func TestSignalsGiveTheTerminalBack(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT} {
		s := startShow(t, 80, 24)
		s.await(`gateway running`)
		require.NoError(t, s.cmd.Process.Signal(sig))
		require.Contains(t, s.ended(), "accepted")
	}
}

// TestPanicGivesTheTerminalBack, before it ends the process.
func TestPanicGivesTheTerminalBack(t *testing.T) {
	out, tty, err := pty.Open()
	require.NoError(t, err)
	defer out.Close()
	defer tty.Close()
	was, err := term.GetState(int(tty.Fd()))
	require.NoError(t, err)
	s, err := screen.Open(tty, tty)
	require.NoError(t, err)
	c := &crew{}
	c.show(s)
	require.PanicsWithValue(t, "oh", func() {
		defer c.restore()
		panic("oh")
	})
	now, err := term.GetState(int(tty.Fd()))
	require.NoError(t, err)
	require.Equal(t, was, now)
	got := make([]byte, len(screen.Enter+screen.Leave))
	_, err = io.ReadFull(out, got)
	require.NoError(t, err)
	require.Equal(t, screen.Enter+screen.Leave, string(got))
	require.NoError(t, s.Draw([]string{"too late"}, 80, 24))
	s.Close()
}

// TestPlainLog: without a terminal the demo writes lines, and ends in peace when it is told to or its time has come.
func TestPlainLog(t *testing.T) {
	t.Run("for some seconds", func(t *testing.T) {
		cmd := exec.Command(perigee(t), "demo", "--dir", filepath.Join(t.TempDir(), "d"), "--seconds", "10")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		require.Regexp(t, `(?m)^\d\d:\d\d:\d\d accepted=\d+ committed=\d+ lost=0 doubled=0 kills=0 waiting=\d+ repeats=0 gateway=running link=up$`, string(out))
		require.Regexp(t, `accepted +[1-9]`, string(out))
		require.NotContains(t, string(out), "\x1b")
	})
	t.Run("until SIGTERM", func(t *testing.T) {
		cmd := exec.Command(perigee(t), "demo", "--dir", filepath.Join(t.TempDir(), "d"))
		var out locked
		cmd.Stdout, cmd.Stderr = &out, &out
		require.NoError(t, cmd.Start())
		defer cmd.Process.Kill()
		require.Eventually(t, func() bool { return strings.Contains(out.String(), "gateway=running") }, 2*patience, 20*time.Millisecond)
		require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
		require.NoError(t, cmd.Wait())
		require.Contains(t, out.String(), "What next:")
	})
}

// locked is a buffer that can be read while it is written.
type locked struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *locked) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}
