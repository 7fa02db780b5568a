package demo

import (
	"fmt"
	"math"
	"os"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/width"
)

// style is how text may look on this terminal.
type style struct {
	ascii  bool // no UTF-8
	colour bool
}

// The colours are few, and each has one meaning.
const (
	bold   = "\x1b[1m"
	dim    = "\x1b[2m"
	red    = "\x1b[31m"
	green  = "\x1b[32m"
	yellow = "\x1b[33m"
	cyan   = "\x1b[36m"
	turned = "\x1b[7m"
	reset  = "\x1b[0m"
)

// styleOf reads the environment: NO_COLOR, and the locale's encoding.
func styleOf(getenv func(string) string) style {
	s := style{ascii: true, colour: getenv("NO_COLOR") == ""}
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := getenv(name); v != "" {
			v = strings.ToLower(v)
			s.ascii = !strings.Contains(v, "utf-8") && !strings.Contains(v, "utf8")
			break
		}
	}
	return s
}

// dumb says whether a terminal cannot place its cursor.
func dumb() bool { t := os.Getenv("TERM"); return t == "" || t == "dumb" }

// paint colours text. The width does not change.
func (s style) paint(text string, codes ...string) string {
	if !s.colour || text == "" || len(codes) == 0 || codes[0] == "" {
		return text
	}
	return strings.Join(codes, "") + text + reset
}

// clean makes text safe to show: no control characters, nothing that a terminal without UTF-8 cannot show, nothing without width.
func (s style) clean(text string) string {
	var b strings.Builder
	for _, r := range text {
		switch {
		case r == '\t' || r == '\n':
			b.WriteByte(' ')
		case r < utf8.RuneSelf && unicode.IsPrint(r):
			b.WriteRune(r)
		case r < utf8.RuneSelf || r == utf8.RuneError:
			b.WriteByte('?')
		case s.ascii:
			b.WriteString(asciiOf(r))
		case unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf):
		case unicode.IsPrint(r):
			b.WriteRune(r)
		default:
			b.WriteByte('?')
		}
	}
	return b.String()
}

func asciiOf(r rune) string {
	switch r {
	case '→':
		return "->"
	case '…':
		return "~"
	case '·':
		return "-"
	case '°':
		return ""
	case '●':
		return "*"
	case '─':
		return "-"
	}
	return "?"
}

// cells is how many cells of a terminal clean text takes.
func cells(text string) (n int) {
	for _, r := range text {
		n += runeCells(r)
	}
	return n
}

func runeCells(r rune) int {
	if r < utf8.RuneSelf {
		return 1
	}
	switch width.LookupRune(r).Kind() {
	case width.EastAsianWide, width.EastAsianFullwidth:
		return 2
	}
	return 1
}

// fit cuts clean text to n cells and fills it up with blanks; a cut shows.
func (s style) fit(text string, n int) string {
	if n <= 0 {
		return ""
	}
	if c := cells(text); c <= n {
		return text + strings.Repeat(" ", n-c)
	}
	var b strings.Builder
	used := 0
	for _, r := range text {
		w := runeCells(r)
		if used+w > n-1 {
			break
		}
		b.WriteRune(r)
		used += w
	}
	return b.String() + s.clean("…") + strings.Repeat(" ", n-1-used)
}

// right is text at the right end of n cells.
func (s style) right(text string, n int) string {
	if c := cells(text); c < n {
		return strings.Repeat(" ", n-c) + text
	}
	return s.fit(text, n)
}

// spark draws the last n values between low and high.
func (s style) spark(values []float64, n int) string {
	levels := []rune("▁▂▃▄▅▆▇█")
	if s.ascii {
		levels = []rune("_.-:=+*#")
	}
	values = values[max(0, len(values)-n):]
	if len(values) == 0 {
		return strings.Repeat(" ", max(n, 0))
	}
	low, high := math.Inf(1), math.Inf(-1)
	for _, v := range values {
		low, high = min(low, v), max(high, v)
	}
	if span := high - low; span < 1 { // noise is not drawn as if it were a storm
		low -= (1 - span) / 2
		high = low + 1
	}
	var b strings.Builder
	b.WriteString(strings.Repeat(" ", n-len(values)))
	for _, v := range values {
		i := int((v - low) / (high - low) * float64(len(levels)))
		b.WriteRune(levels[min(max(i, 0), len(levels)-1)])
	}
	return b.String()
}

// brief writes a duration with about two digits: 340µs as 0.34 ms, 1m 23s, 2h 5m.
func brief(d time.Duration) string {
	switch {
	case d < 0:
		return "-"
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.2f ms", float64(d)/1e6)
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < 10*time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%.0f s", math.Floor(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm %ds", int(d.Minutes()), int(d.Seconds())%60)
	}
	return fmt.Sprintf("%dh %dm", int(d.Hours()), int(d.Minutes())%60)
}

// ratio writes a share in percent.
func ratio(part, whole int64) string {
	switch {
	case whole == 0:
		return "-"
	case part == whole:
		return "100"
	}
	return fmt.Sprintf("%.1f", min(99.9, 100*float64(part)/float64(whole)))
}
