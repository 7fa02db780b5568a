// Package screentest has a terminal for tests of what draws on one.
package screentest

import (
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"
)

// Terminal understands what package screen writes, and keeps the screen that a person would see. What it does not understand it
// notes, so that a test can fail on it.
type Terminal struct {
	mu       sync.Mutex
	cols     int
	cells    [][]rune
	row, col int
	alt      bool // the alternate screen
	cursor   bool // visible
	wrap     bool
	plain    string // what was written to the ordinary screen
	rest     []byte // of a sequence that is not complete
	strange  []string
}

// New returns a terminal of that many columns and rows.
func New(cols, rows int) *Terminal {
	t := &Terminal{cols: cols, cells: make([][]rune, rows), cursor: true, wrap: true}
	t.clear()
	return t
}

func (t *Terminal) clear() {
	for i := range t.cells {
		t.cells[i] = []rune(strings.Repeat(" ", t.cols))
	}
}

// Write takes output.
func (t *Terminal) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	b := append(t.rest, p...)
	for len(b) > 0 {
		n := t.step(b)
		if n == 0 {
			break
		}
		b = b[n:]
	}
	t.rest = append([]byte(nil), b...)
	return len(p), nil
}

// step takes one character or sequence and returns its length, 0 if it is not complete.
func (t *Terminal) step(b []byte) int {
	if b[0] == 0x1b {
		return t.escape(b)
	}
	if !utf8.FullRune(b) {
		return 0
	}
	r, n := utf8.DecodeRune(b)
	switch {
	case !t.alt:
		t.plain += string(r)
	case r < ' ':
		t.strange = append(t.strange, strconv.QuoteRune(r))
	case t.row < len(t.cells) && t.col < t.cols:
		t.cells[t.row][t.col] = r
		t.col++
	default:
		t.strange = append(t.strange, "outside: "+string(r))
	}
	return n
}

func (t *Terminal) escape(b []byte) int {
	if len(b) < 2 {
		return 0
	}
	if b[1] != '[' {
		t.strange = append(t.strange, strconv.Quote(string(b[:2])))
		return 2
	}
	end := 2
	for end < len(b) && (b[end] < '@' || b[end] > '~') {
		end++
	}
	if end == len(b) {
		return 0
	}
	args := string(b[2:end])
	switch seq := args + string(b[end]); {
	case seq == "?1049h", seq == "?1049l":
		t.alt = seq == "?1049h"
	case seq == "?25l", seq == "?25h":
		t.cursor = seq == "?25h"
	case seq == "?7l", seq == "?7h":
		t.wrap = seq == "?7h"
	case seq == "2J":
		t.clear()
	case seq == "2K":
		t.cells[t.row] = []rune(strings.Repeat(" ", t.cols))
	case b[end] == 'H':
		row, col, _ := strings.Cut(args, ";")
		t.row, _ = strconv.Atoi(row)
		t.col, _ = strconv.Atoi(col)
		t.row, t.col = t.row-1, t.col-1
	case b[end] == 'm':
	default:
		t.strange = append(t.strange, seq)
	}
	return end + 1
}

// Text is the screen, without blanks at the ends of lines.
func (t *Terminal) Text() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var b strings.Builder
	for _, l := range t.cells {
		b.WriteString(strings.TrimRight(string(l), " ") + "\n")
	}
	return b.String()
}

// State is how a program has left a terminal.
type State struct {
	Alternate bool // the alternate screen is shown
	Cursor    bool // visible
	Wrap      bool
	Plain     string   // what was written to the ordinary screen
	Strange   []string // what was not understood
}

// State returns what the terminal is like now.
func (t *Terminal) State() State {
	t.mu.Lock()
	defer t.mu.Unlock()
	return State{Alternate: t.alt, Cursor: t.cursor, Wrap: t.wrap, Plain: t.plain, Strange: append([]string(nil), t.strange...)}
}
