package doctest

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
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	patience = time.Minute            // for one command, on a machine that has much else to do
	again    = 100 * time.Millisecond // between two looks
)

// session is a shell in an empty folder, as a reader has one.
type session struct {
	t     *testing.T
	dir   string
	in    io.Writer
	out   *os.File // what the shell and all that it starts print
	ports *strings.Replacer
	rest  []byte // read and not looked at yet
}

// open starts a shell with perigee on its PATH. It ends with the test, and all that was started in it.
func open(t *testing.T, bin string) *session {
	dir, err := os.MkdirTemp("", "doc") // short, since it will have a socket in it
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	ports := freePorts(t, 2)
	r, w, err := os.Pipe()
	require.NoError(t, err)
	t.Cleanup(func() { r.Close() })

	sh := exec.Command("sh")
	sh.Dir = dir
	sh.Env = []string{"HOME=" + dir, "PATH=" + bin + ":" + os.Getenv("PATH"), "TZ=UTC", "TMPDIR=" + dir}
	sh.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	sh.Stdout, sh.Stderr = w, w
	in, err := sh.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, sh.Start())
	w.Close()
	s := &session{t: t, dir: dir, in: in, out: r, ports: strings.NewReplacer("1883", ports[0], "1884", ports[1])}
	t.Cleanup(func() { s.end(sh) })
	s.run("trap : TERM")
	return s
}

// end stops what the session started, and waits until it has ended.
func (s *session) end(sh *exec.Cmd) {
	_ = syscall.Kill(-sh.Process.Pid, syscall.SIGTERM) // the shell only notes it
	fmt.Fprint(s.in, "wait\nwait\nexit\n")
	kill := time.AfterFunc(patience, func() {
		s.t.Error("what the session started does not end")
		_ = syscall.Kill(-sh.Process.Pid, syscall.SIGKILL)
	})
	_ = sh.Wait()
	kill.Stop()
}

// play does what a block says.
func (s *session) play(b *block) {
	s.t.Helper()
	if b.file != "" {
		name := filepath.Join(s.dir, b.file)
		require.NoError(s.t, os.MkdirAll(filepath.Dir(name), 0o755))
		require.NoError(s.t, os.WriteFile(name, []byte(s.ports.Replace(b.text())), 0o644))
		return
	}
	if b.lang != "console" {
		return
	}
	commands := b.commands()
	for i, c := range commands {
		code := 0
		for _, w := range b.words {
			if n, ok := strings.CutPrefix(w, "exit="); ok && i == len(commands)-1 {
				code, _ = strconv.Atoi(n)
			}
		}
		s.command(c, code, b.has("retry"))
	}
}

func (s *session) command(c command, code int, retry bool) {
	s.t.Helper()
	want := pattern(s.ports.Replace(strings.Join(c.prints, "\n")))
	for deadline := time.Now().Add(patience); ; time.Sleep(again) {
		out, got := s.run(s.ports.Replace(c.line))
		if got == code && want.MatchString(squeeze(out)) {
			return
		}
		if !retry || time.Now().After(deadline) {
			s.t.Fatalf("$ %s\nprinted, with exit code %d:\n%s\nthe document says, with %d:\n%s\n%s", c.line, got, out, code, strings.Join(c.prints, "\n"), s.logs())
		}
	}
}

// logs is what the session has written into log files, for whoever looks for what went wrong.
func (s *session) logs() (text string) {
	files, _ := filepath.Glob(filepath.Join(s.dir, "*.log"))
	for _, f := range files {
		b, _ := os.ReadFile(f)
		text += fmt.Sprintf("\n%s:\n%s", filepath.Base(f), b[max(0, len(b)-4000):])
	}
	return text
}

const mark = "that-was-it"

// run gives the shell one command and returns what was printed until it was done, and its exit code.
func (s *session) run(line string) (out string, code int) {
	s.t.Helper()
	_, err := fmt.Fprintf(s.in, "%s\nprintf '%s %%d\\n' $?\n", line, mark)
	require.NoError(s.t, err, line)
	require.NoError(s.t, s.out.SetReadDeadline(time.Now().Add(patience)))
	buf := make([]byte, 4096)
	for {
		if at := bytes.Index(s.rest, []byte(mark+" ")); at >= 0 {
			if tail := s.rest[at+len(mark)+1:]; bytes.IndexByte(tail, '\n') >= 0 {
				end := bytes.IndexByte(tail, '\n')
				out = string(s.rest[:at])
				code, err = strconv.Atoi(string(tail[:end]))
				require.NoError(s.t, err)
				s.rest = tail[end+1:]
				return out, code
			}
		}
		n, err := s.out.Read(buf)
		if err != nil {
			s.t.Fatalf("$ %s\n%s\ndoes not end: %v%s", line, s.rest, err, s.logs())
		}
		s.rest = append(s.rest, buf[:n]...)
	}
}

// pattern makes an expression of what a document shows.
func pattern(shown string) *regexp.Regexp {
	var b strings.Builder
	for _, l := range strings.Split(strings.TrimSuffix(squeeze(shown), "\n"), "\n") {
		if l == "…" {
			b.WriteString(`(?:.*\n)*`)
			continue
		}
		b.WriteString(strings.ReplaceAll(regexp.QuoteMeta(l), "…", ".*") + `\n`)
	}
	return regexp.MustCompile(`^` + b.String() + `$`)
}

// squeeze makes one blank of several, drops those at the ends of lines and empty lines at the ends.
func squeeze(s string) string {
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		lines[i] = strings.Join(strings.Fields(l), " ")
	}
	return strings.Trim(strings.Join(lines, "\n"), "\n") + "\n"
}

func TestPattern(t *testing.T) {
	for _, c := range []struct {
		shown, printed string
		same           bool
	}{
		{"a  b", "a b\n", true},
		{"a b", "a c\n", false},
		{"in …µs", "in 12µs", true},
		{"a\n…\nz", "a\nb\nc\nz\n", true},
		{"a\n…\nz", "a\nz\n", true},
		{"a\n…", "a\n", true},
		{"", "", true},
		{"", "a\n", false},
		{"a…z", "a\nz", false},
	} {
		require.Equal(t, c.same, pattern(c.shown).MatchString(squeeze(c.printed)), "%q %q", c.shown, c.printed)
	}
}
