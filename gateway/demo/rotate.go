package demo

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"sync"
)

// rotate is a log file of bounded size: when it is full it becomes FILE.1, in the place of the one before. It remembers the last
// lines, for a sentence about why the gateway did not start.
type rotate struct {
	name string
	max  int64

	mu   sync.Mutex // guards what follows
	f    *os.File
	size int64
	tail []string
	part []byte // of a line
}

const (
	logBytes = 1 << 20 // of one log file
	tailLen  = 8       // lines remembered
	lineLen  = 500     // bytes of a remembered line
)

func newRotate(name string, limit int64) (*rotate, error) {
	r := &rotate{name: name, max: limit}
	return r, r.open()
}

func (r *rotate) open() error {
	f, err := os.OpenFile(r.name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("open the gateway's log: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return fmt.Errorf("open the gateway's log: %w", err)
	}
	r.f, r.size = f, info.Size()
	return nil
}

// Write implements io.Writer. It reports no errors: a log that cannot be written must not stop the gateway that writes it.
func (r *rotate) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.f != nil && r.size > 0 && r.size+int64(len(p)) > r.max {
		r.f.Close()
		r.f = nil
		if os.Rename(r.name, r.name+".1") == nil {
			_ = r.open() // without the file the lines are still remembered
		}
	}
	if r.f != nil {
		n, _ := r.f.Write(p)
		r.size += int64(n)
	}
	r.remember(p)
	return len(p), nil
}

func (r *rotate) remember(p []byte) {
	for len(p) > 0 {
		line, rest, whole := bytes.Cut(p, []byte("\n"))
		if room := lineLen - len(r.part); room > 0 {
			r.part = append(r.part, line[:min(len(line), room)]...)
		}
		if whole {
			if s := strings.TrimSpace(string(r.part)); s != "" {
				r.tail = append(r.tail, s)
			}
			r.tail = r.tail[max(0, len(r.tail)-tailLen):]
			r.part = r.part[:0]
		}
		p = rest
	}
}

// last returns the last line that says what went wrong, or else the last line.
func (r *rotate) last() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := len(r.tail) - 1; i >= 0; i-- {
		if line := r.tail[i]; strings.Contains(line, "level=ERROR") || strings.HasPrefix(line, "perigee: ") || strings.HasPrefix(line, "panic:") {
			return line
		}
	}
	if len(r.tail) == 0 {
		return ""
	}
	return r.tail[len(r.tail)-1]
}

// forget drops the remembered lines: a new process begins.
func (r *rotate) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tail, r.part = nil, nil
}

// Close closes the file.
func (r *rotate) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.f != nil {
		r.f.Close()
		r.f = nil
	}
}
