package screen

import (
	"math"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/width"
)

// Style is how text may look on this terminal.
type Style struct {
	ASCII  bool // no UTF-8
	Colour bool
}

// The colours are few, and each has one meaning.
const (
	Bold   = "\x1b[1m"
	Dim    = "\x1b[2m"
	Red    = "\x1b[31m"
	Green  = "\x1b[32m"
	Yellow = "\x1b[33m"
	Cyan   = "\x1b[36m"
	Turned = "\x1b[7m"
	reset  = "\x1b[0m"
)

// StyleOf reads the environment: NO_COLOR, and the locale's encoding.
func StyleOf(getenv func(string) string) Style {
	s := Style{ASCII: true, Colour: getenv("NO_COLOR") == ""}
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := getenv(name); v != "" {
			v = strings.ToLower(v)
			s.ASCII = !strings.Contains(v, "utf-8") && !strings.Contains(v, "utf8")
			break
		}
	}
	return s
}

// dumb says whether a terminal cannot place its cursor.
func dumb() bool { t := os.Getenv("TERM"); return t == "" || t == "dumb" }

// Paint colours text. The width does not change.
func (s Style) Paint(text string, codes ...string) string {
	if !s.Colour || text == "" || len(codes) == 0 || codes[0] == "" {
		return text
	}
	return strings.Join(codes, "") + text + reset
}

// Clean makes text safe to show: no control characters, nothing that a terminal without UTF-8 cannot show, nothing without width.
func (s Style) Clean(text string) string {
	var b strings.Builder
	for _, r := range text {
		switch {
		case r == '\t' || r == '\n':
			b.WriteByte(' ')
		case r < utf8.RuneSelf && unicode.IsPrint(r):
			b.WriteRune(r)
		case r < utf8.RuneSelf || r == utf8.RuneError:
			b.WriteByte('?')
		case s.ASCII:
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

// Cells is how many cells of a terminal clean text takes.
func Cells(text string) (n int) {
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

// Fit cuts clean text to n cells and fills it up with blanks; a cut shows.
func (s Style) Fit(text string, n int) string {
	if n <= 0 {
		return ""
	}
	if c := Cells(text); c <= n {
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
	return b.String() + s.Clean("…") + strings.Repeat(" ", n-1-used)
}

// Right is text at the right end of n cells.
func (s Style) Right(text string, n int) string {
	if c := Cells(text); c < n {
		return strings.Repeat(" ", n-c) + text
	}
	return s.Fit(text, n)
}

// Spark draws the last n values between low and high.
func (s Style) Spark(values []float64, n int) string {
	levels := []rune("▁▂▃▄▅▆▇█")
	if s.ASCII {
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
