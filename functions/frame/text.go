package frame

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/perigee-iot/perigee/internal/wire"
)

// decoder is a wire.Reader that can also be told that something makes no sense. After the first error every read
// returns zero values.
type decoder struct {
	*wire.Reader
	err error
}

func decode(body []byte) *decoder { return &decoder{Reader: wire.NewReader(body)} }

func (d *decoder) breach(format string, args ...any) {
	if d.err == nil {
		d.err = fmt.Errorf("%w: %s", ErrBreach, fmt.Sprintf(format, args...))
	}
	d.Reader = wire.NewReader(nil)
}

// done returns the first error; t names what was decoded.
func (d *decoder) done(t Type) error {
	if d.err == nil {
		if err := d.Done(); err != nil {
			d.err = fmt.Errorf("%w: %w", ErrBreach, err)
		}
	}
	if d.err != nil {
		return fmt.Errorf("%s: %w", t, d.err)
	}
	return nil
}

// capped reads a string of at most limit bytes.
func (d *decoder) capped(limit int) string {
	s := d.String()
	if len(s) > limit {
		d.breach("a string of %d bytes, at most %d", len(s), limit)
		return ""
	}
	return s
}

// text reads a string for people, of at most limit bytes. What could steer a terminal, or is no text, is replaced, so
// that whoever keeps it can show and log it.
func (d *decoder) text(limit int) string {
	s := d.capped(limit)
	if plain(s) {
		return s
	}
	return clip(strings.Map(func(c rune) rune {
		if c == '\t' || c == '\n' || !unicode.IsControl(c) {
			return c
		}
		return utf8.RuneError
	}, s), limit)
}

// line reads a text that has no line breaks.
func (d *decoder) line(limit int) string {
	return strings.ReplaceAll(d.text(limit), "\n", " ")
}

// plain says whether s is printable ASCII, as nearly all text is.
func plain(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < ' ' && c != '\n' && c != '\t') || c >= 0x7f {
			return false
		}
	}
	return true
}

// clip shortens s to at most n bytes without cutting a character in two.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	const mark = "…"
	n -= len(mark)
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + mark
}
