// Package jsonscan looks up a few fields in a JSON payload without decoding the rest.
//
// The gateway looks into payloads that anybody may have sent (is there a temperature? which serial number?). So the scanner is
// bounded in size and depth, builds nothing of the document but the values asked for, and still reads all of it: what it accepts
// is exactly what encoding/json accepts, and of a field that is there twice the last one counts, as for the function later.
package jsonscan

import (
	"errors"
	"fmt"
	"math/bits"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

const (
	// MaxSize is the largest document that is scanned, in bytes.
	MaxSize = 1 << 20
	// MaxDepth is how deep objects and arrays may nest.
	MaxDepth = 128
	// MaxPaths is how many paths one scan can look for.
	MaxPaths = 64
)

// ErrTooLarge is wrapped by the errors about documents beyond MaxSize or MaxDepth.
var ErrTooLarge = errors.New("too large to look into")

// Kind is what a value is.
type Kind byte

const (
	Absent Kind = iota
	Null
	Bool
	Number
	String
	Object
	Array
)

// Value is what stands at a path.
type Value struct {
	Kind Kind
	// Text is a string decoded, "true" or "false", or a number in canonical form: 21, 21.0 and 2.1e1 are all "21", and no digit
	// is lost, so that serial numbers of 20 digits stay apart. Empty for the other kinds.
	Text string
}

// Key returns the text of a string, number or bool, and false for what cannot name anything.
func (v Value) Key() (string, bool) {
	return v.Text, v.Kind == String || v.Kind == Number || v.Kind == Bool
}

// Fields returns the value at each path, a list of object keys from the top. A document that is no object has none. The
// error says why data is not JSON, or wraps ErrTooLarge.
func Fields(data []byte, paths [][]string) ([]Value, error) {
	if len(data) > MaxSize {
		return nil, fmt.Errorf("payload of %d bytes is %w: at most %d", len(data), ErrTooLarge, MaxSize)
	}
	if len(paths) > MaxPaths {
		return nil, fmt.Errorf("%d paths, at most %d can be looked for at once", len(paths), MaxPaths)
	}
	s := scanner{data: data, paths: paths, out: make([]Value, len(paths))}
	all := uint64(1)<<len(paths) - 1
	for i, p := range paths {
		if len(p) == 0 {
			all &^= 1 << i // names nothing
		}
	}
	s.space()
	if err := s.value(0, all, 0); err != nil {
		return nil, err
	}
	s.space()
	if s.pos < len(data) {
		return nil, s.bad("more follows after the value")
	}
	return s.out, nil
}

type scanner struct {
	data  []byte
	pos   int
	paths [][]string
	out   []Value
}

func (s *scanner) bad(why string) error {
	return fmt.Errorf("payload is not JSON: at byte %d: %s", s.pos, why)
}

func (s *scanner) space() {
	for s.pos < len(s.data) {
		switch s.data[s.pos] {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return
		}
	}
}

// peek returns the next byte, 0 at the end.
func (s *scanner) peek() byte {
	if s.pos < len(s.data) {
		return s.data[s.pos]
	}
	return 0
}

// value reads one value. deeper are the paths that go on inside it, their first depth keys being behind us; here are those that end at it.
func (s *scanner) value(depth int, deeper, here uint64) error {
	if depth >= MaxDepth {
		return fmt.Errorf("payload is %w: it nests deeper than %d", ErrTooLarge, MaxDepth)
	}
	switch c := s.peek(); {
	case c == '{':
		s.set(here, Object, "")
		return s.object(depth, deeper)
	case c == '[':
		s.set(here, Array, "")
		return s.array(depth)
	case c == '"':
		raw, escaped, err := s.str()
		if err == nil && here != 0 {
			s.set(here, String, text(raw, escaped))
		}
		return err
	case c == '-' || (c >= '0' && c <= '9'):
		raw, err := s.number()
		if err == nil && here != 0 {
			s.set(here, Number, canonical(string(raw)))
		}
		return err
	case c == 't':
		s.set(here, Bool, "true")
		return s.word("true")
	case c == 'f':
		s.set(here, Bool, "false")
		return s.word("false")
	case c == 'n':
		s.set(here, Null, "")
		return s.word("null")
	}
	return s.bad("a value is missing")
}

func (s *scanner) set(which uint64, kind Kind, text string) {
	for ; which != 0; which &= which - 1 {
		s.out[bits.TrailingZeros64(which)] = Value{kind, text}
	}
}

func (s *scanner) word(w string) error {
	if !strings.HasPrefix(string(s.data[s.pos:min(len(s.data), s.pos+len(w))]), w) {
		return s.bad("a value is missing")
	}
	s.pos += len(w)
	return nil
}

func (s *scanner) object(depth int, active uint64) error {
	s.pos++
	s.space()
	if s.peek() == '}' {
		s.pos++
		return nil
	}
	for {
		if s.peek() != '"' {
			return s.bad("a key is missing")
		}
		raw, escaped, err := s.str()
		if err != nil {
			return err
		}
		deeper, here := s.follow(raw, escaped, depth, active)
		s.space()
		if s.peek() != ':' {
			return s.bad("a colon is missing")
		}
		s.pos++
		s.space()
		if err := s.value(depth+1, deeper, here); err != nil {
			return err
		}
		if done, err := s.next('}'); done || err != nil {
			return err
		}
	}
}

// follow divides the active paths whose next key this is. What an earlier field of the same name gave is forgotten.
func (s *scanner) follow(raw []byte, escaped bool, depth int, active uint64) (deeper, here uint64) {
	if active == 0 {
		return 0, 0
	}
	name := raw
	if escaped || !utf8.Valid(raw) {
		name = []byte(text(raw, escaped))
	}
	for rest := active; rest != 0; rest &= rest - 1 {
		i := bits.TrailingZeros64(rest)
		if s.paths[i][depth] != string(name) {
			continue
		}
		s.out[i] = Value{}
		if len(s.paths[i]) == depth+1 {
			here |= 1 << i
		} else {
			deeper |= 1 << i
		}
	}
	return deeper, here
}

func (s *scanner) array(depth int) error {
	s.pos++
	s.space()
	if s.peek() == ']' {
		s.pos++
		return nil
	}
	for {
		if err := s.value(depth+1, 0, 0); err != nil {
			return err
		}
		if done, err := s.next(']'); done || err != nil {
			return err
		}
	}
}

// next reads the comma between two elements, or the end.
func (s *scanner) next(end byte) (done bool, err error) {
	s.space()
	switch s.peek() {
	case end:
		s.pos++
		return true, nil
	case ',':
		s.pos++
		s.space()
		return false, nil
	}
	return false, s.bad(fmt.Sprintf("a comma or %q is missing", end))
}

// str reads a string and returns what stands between its quotes.
func (s *scanner) str() (raw []byte, escaped bool, err error) {
	s.pos++
	start := s.pos
	for s.pos < len(s.data) {
		switch c := s.data[s.pos]; {
		case c == '"':
			raw = s.data[start:s.pos]
			s.pos++
			return raw, escaped, nil
		case c < ' ':
			return nil, false, s.bad("a control character stands in a string")
		case c == '\\':
			escaped = true
			if err := s.escape(); err != nil {
				return nil, false, err
			}
		default:
			s.pos++
		}
	}
	return nil, false, s.bad("a string does not end")
}

func (s *scanner) escape() error {
	s.pos++
	switch s.peek() {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		s.pos++
		return nil
	case 'u':
		if s.pos+5 <= len(s.data) {
			if _, ok := hex4(s.data[s.pos+1:]); ok {
				s.pos += 5
				return nil
			}
		}
	}
	return s.bad("a string has a bad escape")
}

func hex4(b []byte) (rune, bool) {
	var r rune
	for _, c := range b[:4] {
		switch {
		case c >= '0' && c <= '9':
			r = r<<4 | rune(c-'0')
		case c >= 'a' && c <= 'f':
			r = r<<4 | rune(c-'a'+10)
		case c >= 'A' && c <= 'F':
			r = r<<4 | rune(c-'A'+10)
		default:
			return 0, false
		}
	}
	return r, true
}

// text decodes a string that str has checked; what is not UTF-8 becomes U+FFFD.
func text(raw []byte, escaped bool) string {
	if !escaped && utf8.Valid(raw) {
		return string(raw)
	}
	out := make([]byte, 0, len(raw))
	for i := 0; i < len(raw); {
		if raw[i] != '\\' {
			r, n := utf8.DecodeRune(raw[i:])
			out = utf8.AppendRune(out, r)
			i += n
			continue
		}
		if raw[i+1] != 'u' {
			out = append(out, plain(raw[i+1]))
			i += 2
			continue
		}
		r, _ := hex4(raw[i+2:])
		i += 6
		if utf16.IsSurrogate(r) {
			pair := rune(utf8.RuneError)
			if i+6 <= len(raw) && raw[i] == '\\' && raw[i+1] == 'u' {
				low, _ := hex4(raw[i+2:])
				pair = utf16.DecodeRune(r, low)
			}
			if r = pair; r != utf8.RuneError {
				i += 6
			}
		}
		out = utf8.AppendRune(out, r)
	}
	return string(out)
}

// plain is what a one-letter escape stands for.
func plain(c byte) byte {
	switch c {
	case 'b':
		return '\b'
	case 'f':
		return '\f'
	case 'n':
		return '\n'
	case 'r':
		return '\r'
	case 't':
		return '\t'
	}
	return c
}

// number reads a number: -?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?
func (s *scanner) number() ([]byte, error) {
	start := s.pos
	digits := func() bool {
		from := s.pos
		for c := s.peek(); c >= '0' && c <= '9'; c = s.peek() {
			s.pos++
		}
		return s.pos > from
	}
	if s.peek() == '-' {
		s.pos++
	}
	if s.peek() == '0' {
		s.pos++
	} else if !digits() {
		return nil, s.bad("a number has no digits")
	}
	if s.peek() == '.' {
		s.pos++
		if !digits() {
			return nil, s.bad("a number has no digits after its point")
		}
	}
	if c := s.peek(); c == 'e' || c == 'E' {
		s.pos++
		if c := s.peek(); c == '+' || c == '-' {
			s.pos++
		}
		if !digits() {
			return nil, s.bad("a number has no digits in its exponent")
		}
	}
	return s.data[start:s.pos], nil
}

// canonical writes equal numbers equally, exactly: plain decimals where they are not long, digits and an exponent beyond.
func canonical(n string) string {
	sign, n := "", strings.ToLower(n)
	if rest, ok := strings.CutPrefix(n, "-"); ok {
		sign, n = "-", rest
	}
	mantissa, exponent, _ := strings.Cut(n, "e")
	whole, frac, _ := strings.Cut(mantissa, ".")
	digits := strings.TrimLeft(whole+frac, "0")
	if digits == "" {
		return "0"
	}
	exp, err := strconv.Atoi(exponent)
	if exponent != "" && (err != nil || exp > 1e8 || exp < -1e8) {
		return sign + n // absurd; equal only if written equally
	}
	exp -= len(frac)
	trimmed := strings.TrimRight(digits, "0")
	exp += len(digits) - len(trimmed)
	digits = trimmed
	point := len(digits) + exp // where the point stands, from the left of digits
	switch {
	case exp >= 0 && point <= 40:
		return sign + digits + strings.Repeat("0", exp)
	case exp < 0 && point > 0:
		return sign + digits[:point] + "." + digits[point:]
	case exp < 0 && point > -20:
		return sign + "0." + strings.Repeat("0", -point) + digits
	}
	return sign + digits + "e" + strconv.Itoa(exp)
}
