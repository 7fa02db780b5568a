package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/mattn/go-isatty"
)

// printer writes for people and for programs.
type printer struct {
	io.Writer
	colour bool
}

func newPrinter(w io.Writer, colour *bool) *printer {
	p := &printer{Writer: w}
	if colour != nil {
		p.colour = *colour
		return p
	}
	f, ok := w.(*os.File)
	p.colour = ok && isatty.IsTerminal(f.Fd()) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	return p
}

func (p *printer) paint(code, s string) string {
	if !p.colour || s == "" {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

func (p *printer) good(s string) string { return p.paint("32", s) }
func (p *printer) bad(s string) string  { return p.paint("31", s) }
func (p *printer) warn(s string) string { return p.paint("33", s) }
func (p *printer) dim(s string) string  { return p.paint("2", s) }
func (p *printer) bold(s string) string { return p.paint("1", s) }

// state paints the state of a function, an outcome or a log level.
func (p *printer) state(s string) string {
	switch s {
	case "active", "committed", "ready", "connected":
		return p.good(s)
	case "dead", "error", "not ready", "not connected", "refused":
		return p.bad(s)
	case "paused", "blocked", "retry", "warn":
		return p.warn(s)
	case "skipped", "duplicate", "debug", "running", "waiting":
		return p.dim(s)
	}
	return s
}

func (p *printer) line(format string, args ...any) { fmt.Fprintf(p, format+"\n", args...) }

// json writes a value, indented.
func (p *printer) json(v any) error {
	e := json.NewEncoder(p)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// jsonLine writes a value on one line.
func (p *printer) jsonLine(v any) error {
	e := json.NewEncoder(p)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// table writes rows with aligned columns. The first row is the heading.
func (p *printer) table(rows [][]string) {
	var widths []int
	for _, r := range rows {
		for i, cell := range r {
			if i >= len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], visible(cell))
		}
	}
	for n, r := range rows {
		var b strings.Builder
		for i, cell := range r {
			b.WriteString(cell)
			if i < len(r)-1 {
				b.WriteString(strings.Repeat(" ", widths[i]-visible(cell)+2))
			}
		}
		s := strings.TrimRight(b.String(), " ")
		if n == 0 {
			s = p.bold(s)
		}
		p.line("%s", s)
	}
}

// visible is the width of text without its colours.
func visible(s string) int {
	n, escape := 0, false
	for _, r := range s {
		switch {
		case escape:
			escape = r != 'm'
		case r == 0x1b:
			escape = true
		default:
			n++
		}
	}
	return n
}

// safe takes out of foreign text what could move the cursor or change the terminal, and ends it after limit runes (0: none).
func safe(s string, limit int) string {
	var b strings.Builder
	n := 0
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		i += size
		if limit > 0 && n == limit {
			b.WriteRune('…')
			break
		}
		n++
		if (r == utf8.RuneError && size == 1) || (!unicode.IsPrint(r) && r != ' ') {
			r = '·'
		}
		b.WriteRune(r)
	}
	return b.String()
}

// paragraph is safeLines for a row of a list: the lines after the first are indented.
func paragraph(s string) string {
	return strings.ReplaceAll(safeLines(strings.TrimRight(s, "\n")), "\n", "\n    ")
}

// size writes bytes in the unit that leaves one to four digits.
func size(n int64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	f, unit := float64(n), ""
	for _, unit = range []string{"KiB", "MiB", "GiB", "TiB"} {
		f /= 1024
		if f < 1024 {
			break
		}
	}
	if f < 10 {
		return fmt.Sprintf("%.1f %s", f, unit)
	}
	return fmt.Sprintf("%.0f %s", f, unit)
}

// span writes a duration with two units at most: 3h25m, 1.2ms, 900µs.
func span(d time.Duration) string {
	switch {
	case d < 0:
		return "-" + span(-d)
	case d == 0:
		return "0"
	case d < time.Millisecond:
		return fmt.Sprintf("%dµs", d.Microseconds())
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.1fms", float64(d)/1e6)
	case d < time.Second:
		return fmt.Sprintf("%dms", d.Milliseconds())
	case d < 10*time.Second:
		return fmt.Sprintf("%.1fs", d.Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return two(d/time.Minute, "m", d%time.Minute/time.Second, "s")
	case d < 24*time.Hour:
		return two(d/time.Hour, "h", d%time.Hour/time.Minute, "m")
	default:
		return two(d/(24*time.Hour), "d", d%(24*time.Hour)/time.Hour, "h")
	}
}

func two(a time.Duration, ua string, b time.Duration, ub string) string {
	if b == 0 {
		return fmt.Sprintf("%d%s", int64(a), ua)
	}
	return fmt.Sprintf("%d%s%d%s", int64(a), ua, int64(b), ub)
}

// clock writes a time of day, with the date if that is not today.
func clock(t time.Time) string {
	t = t.Local()
	if now := time.Now(); t.YearDay() != now.YearDay() || t.Year() != now.Year() {
		return t.Format("2006-01-02 15:04:05")
	}
	return t.Format("15:04:05.000")
}

// plainJSON compacts JSON and writes whole numbers without an exponent, keeping the order of keys.
func plainJSON(raw []byte) ([]byte, error) {
	var c bytes.Buffer
	if err := json.Compact(&c, raw); err != nil {
		return nil, err
	}
	in, out := c.Bytes(), make([]byte, 0, c.Len())
	for i := 0; i < len(in); {
		switch b := in[i]; {
		case b == '"':
			end := i + 1
			for in[end] != '"' {
				if in[end] == '\\' {
					end++
				}
				end++
			}
			out = append(out, in[i:end+1]...)
			i = end + 1
		case b == '-' || b >= '0' && b <= '9':
			end := i + 1
			for end < len(in) && strings.IndexByte("0123456789+-.eE", in[end]) >= 0 {
				end++
			}
			out = append(out, plainNumber(string(in[i:end]))...)
			i = end
		default:
			out = append(out, b)
			i++
		}
	}
	return out, nil
}

func plainNumber(s string) string {
	if !strings.ContainsAny(s, ".eE") {
		return s
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || f >= 1<<63 || f <= -(1<<63) || f != float64(int64(f)) {
		return s
	}
	return strconv.FormatFloat(f, 'f', -1, 64)
}
