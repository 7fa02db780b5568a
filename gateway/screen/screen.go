// Package screen draws live views on a terminal: it takes the terminal and gives it back, writes only what changed, and knows
// what text may look like there: colours, UTF-8, the width of a character. What is drawn is a list of lines that a view makes anew each time.
package screen

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// Screen is the terminal while a view has it: raw, on the alternate screen, cursor hidden. Only lines that changed are
// written, all of them with one write, so that nothing flickers.
type Screen struct {
	in, out *os.File

	mu    sync.Mutex // guards what follows
	state *term.State
	shown []string // what is on it
	cols  int
	rows  int
}

// What is written to take the terminal and to give it back.
const (
	Enter = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J"
	Leave = "\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l"
)

// Open takes the terminal. Close gives it back.
func Open(in, out *os.File) (*Screen, error) {
	state, err := term.MakeRaw(int(in.Fd()))
	if err != nil {
		return nil, fmt.Errorf("take the terminal: %w", err)
	}
	s := &Screen{in: in, out: out, state: state}
	if _, err := io.WriteString(out, Enter); err != nil {
		s.Close()
		return nil, fmt.Errorf("draw on the terminal: %w", err)
	}
	return s, nil
}

// Terminal says whether both are terminals that can be drawn on, and returns them as files.
func Terminal(in, out any) (fin, fout *os.File, ok bool) {
	fin, ok1 := in.(*os.File)
	fout, ok2 := out.(*os.File)
	return fin, fout, ok1 && ok2 && !dumb() && term.IsTerminal(int(fin.Fd())) && term.IsTerminal(int(fout.Fd()))
}

// Close gives the terminal back as it was. It may be called again, and from any goroutine.
func (s *Screen) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state == nil {
		return
	}
	_, _ = io.WriteString(s.out, Leave) // the terminal may be gone
	_ = term.Restore(int(s.in.Fd()), s.state)
	s.state = nil
}

// Size is how large it is now; asking is so cheap that nobody needs to be told of changes.
func (s *Screen) Size() (cols, rows int) {
	cols, rows, err := term.GetSize(int(s.out.Fd()))
	if err != nil || cols <= 0 || rows <= 0 {
		return 80, 24
	}
	return min(cols, 500), min(rows, 300)
}

// Draw shows lines on a screen of that size, which each line but empty ones fills. After Close it does nothing.
func (s *Screen) Draw(lines []string, cols, rows int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state == nil {
		return nil
	}
	var b bytes.Buffer
	if cols != s.cols || rows != s.rows {
		s.shown, s.cols, s.rows = nil, cols, rows
		b.WriteString("\x1b[0m\x1b[2J")
	}
	for i, l := range lines {
		if i >= len(s.shown) || s.shown[i] != l {
			if l == "" { // any other is as wide as the screen
				l = "\x1b[2K"
			}
			fmt.Fprintf(&b, "\x1b[%d;1H%s", i+1, l)
		}
	}
	s.shown = lines
	if b.Len() == 0 {
		return nil
	}
	_, err := s.out.Write(b.Bytes())
	return err
}

// Key waits for a key until stop is closed. It returns 0 then, and at the end of the input.
func (s *Screen) Key(stop <-chan struct{}) byte {
	fd := int(s.in.Fd())
	for {
		select {
		case <-stop:
			return 0
		default:
		}
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, 100)
		if err != nil && err != unix.EINTR {
			return 0
		}
		if n <= 0 {
			continue
		}
		var buf [64]byte
		n, err = unix.Read(fd, buf[:])
		if n <= 0 || err != nil {
			return 0
		}
		if buf[0] == 0x1b && n > 1 {
			continue // an arrow, or what a mouse says
		}
		return buf[0]
	}
}
