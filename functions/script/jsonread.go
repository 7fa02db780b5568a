package script

import (
	"errors"
	"fmt"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"

	lua "github.com/yuin/gopher-lua"

	"github.com/perigee-iot/perigee/functions"
)

// maxJSONDepth bounds nesting in both directions.
const maxJSONDepth = functions.MaxNesting

// jsonReader turns JSON into Lua values without anything in between. Null is nil, an object is a table, and an array is a
// table with its length in n, which nils in it cannot shorten; it bears the mark by which the encoder knows it again.
type jsonReader struct {
	L     *lua.LState
	in    []byte
	pos   int
	depth int
	steps int
	parts jsonParts
}

// jsonParts is what a run has of its own for values that come from JSON.
type jsonParts interface {
	arrayMark() *lua.LTable     // the metatable of arrays
	integer(integer) lua.LValue // a whole number that is more than a Lua number can hold
	check(*lua.LState)          // called now and then; raises an error if time is up
}

// decodeJSON reads one JSON text; its error says what is wrong and at which byte.
func decodeJSON(L *lua.LState, in []byte, parts jsonParts) (lua.LValue, error) {
	d := &jsonReader{L: L, in: in, parts: parts}
	d.space()
	v, err := d.value()
	if err != nil {
		return lua.LNil, err
	}
	d.space()
	if d.pos < len(d.in) {
		return lua.LNil, d.errorf("something follows the value")
	}
	return v, nil
}

func (d *jsonReader) errorf(format string, args ...any) error {
	return fmt.Errorf("%s at byte %d", fmt.Sprintf(format, args...), d.pos+1)
}

func (d *jsonReader) space() {
	for d.pos < len(d.in) {
		switch d.in[d.pos] {
		case ' ', '\t', '\n', '\r':
			d.pos++
		default:
			return
		}
	}
}

// peek is the next byte, 0 at the end.
func (d *jsonReader) peek() byte {
	if d.pos < len(d.in) {
		return d.in[d.pos]
	}
	return 0
}

func (d *jsonReader) value() (lua.LValue, error) {
	if d.pos >= len(d.in) {
		return nil, d.errorf("the JSON ends too early")
	}
	if d.steps++; d.steps%stepsPerCheck == 0 {
		d.parts.check(d.L)
	}
	switch c := d.in[d.pos]; c {
	case '{':
		return d.nest(d.object)
	case '[':
		return d.nest(d.array)
	case '"':
		s, err := d.text()
		return lua.LString(s), err
	case 't':
		return lua.LTrue, d.word("true")
	case 'f':
		return lua.LFalse, d.word("false")
	case 'n':
		return lua.LNil, d.word("null")
	default:
		if c == '-' || c >= '0' && c <= '9' {
			return d.number()
		}
		return nil, d.errorf("no JSON value starts with %q", rune(c))
	}
}

func (d *jsonReader) nest(read func() (lua.LValue, error)) (lua.LValue, error) {
	d.depth++
	defer func() { d.depth-- }()
	if d.depth > maxJSONDepth {
		return nil, d.errorf("nested more than %d levels deep", maxJSONDepth)
	}
	d.pos++
	d.space()
	return read()
}

func (d *jsonReader) word(w string) error {
	if len(d.in)-d.pos < len(w) || string(d.in[d.pos:d.pos+len(w)]) != w {
		return d.errorf("expected %s", w)
	}
	d.pos += len(w)
	return nil
}

// fewMembers is how many members an object is expected to have: the library makes room for 32 where nothing is said.
const fewMembers = 8

func (d *jsonReader) object() (lua.LValue, error) {
	if d.peek() == '}' {
		d.pos++
		return d.L.CreateTable(0, 0), nil
	}
	t := d.L.CreateTable(0, fewMembers)
	for {
		if d.peek() != '"' {
			return nil, d.errorf("expected a name in quotes")
		}
		name, err := d.text()
		if err != nil {
			return nil, err
		}
		d.space()
		if d.peek() != ':' {
			return nil, d.errorf("expected ':'")
		}
		d.pos++
		d.space()
		v, err := d.value()
		if err != nil {
			return nil, err
		}
		t.RawSetString(name, v)
		more, err := d.more('}')
		if !more {
			return t, err
		}
	}
}

func (d *jsonReader) array() (lua.LValue, error) {
	t := d.L.CreateTable(0, 1)
	t.Metatable = d.parts.arrayMark()
	n := 0
	if d.peek() == ']' {
		d.pos++
		t.RawSetString("n", lua.LNumber(0))
		return t, nil
	}
	for {
		v, err := d.value()
		if err != nil {
			return nil, err
		}
		n++
		if v != lua.LNil {
			t.RawSetInt(n, v)
		}
		more, err := d.more(']')
		if !more {
			t.RawSetString("n", lua.LNumber(n))
			return t, err
		}
	}
}

// more reads what follows a member: a comma, or the end.
func (d *jsonReader) more(end byte) (bool, error) {
	d.space()
	switch d.peek() {
	case ',':
		d.pos++
		d.space()
		return true, nil
	case end:
		d.pos++
		return false, nil
	}
	return false, d.errorf("expected ',' or '%c'", end)
}

func (d *jsonReader) number() (lua.LValue, error) {
	start := d.pos
	if d.peek() == '-' {
		d.pos++
	}
	whole := d.digits()
	if whole == 0 || whole > 1 && d.in[d.pos-whole] == '0' {
		return nil, d.errorf("a malformed number")
	}
	simple := true
	if d.peek() == '.' {
		d.pos++
		simple = false
		if d.digits() == 0 {
			return nil, d.errorf("a malformed number")
		}
	}
	if c := d.peek(); c == 'e' || c == 'E' {
		d.pos++
		simple = false
		if c := d.peek(); c == '+' || c == '-' {
			d.pos++
		}
		if d.digits() == 0 {
			return nil, d.errorf("a malformed number")
		}
	}
	text := d.in[start:d.pos]
	if simple && len(text) < 16 {
		return lua.LNumber(smallInt(text)), nil
	}
	if i, ok := parseInteger(string(text)); simple && ok {
		return d.parts.integer(i), nil
	}
	f, err := strconv.ParseFloat(string(text), 64)
	if errors.Is(err, strconv.ErrRange) { // too small is 0, and no error
		return nil, d.errorf("a number beyond 1.8e308")
	} else if err != nil {
		return nil, d.errorf("a malformed number")
	}
	return lua.LNumber(f), nil
}

// digits skips digits and says how many there were.
func (d *jsonReader) digits() int {
	start := d.pos
	for d.pos < len(d.in) && d.in[d.pos] >= '0' && d.in[d.pos] <= '9' {
		d.pos++
	}
	return d.pos - start
}

// smallInt reads a whole number of fewer than 16 digits, which a double holds exactly.
func smallInt(text []byte) float64 {
	neg := text[0] == '-'
	if neg {
		text = text[1:]
	}
	n := int64(0)
	for _, c := range text {
		n = n*10 + int64(c-'0')
	}
	if neg {
		return -float64(n)
	}
	return float64(n)
}

// text reads a string in quotes.
func (d *jsonReader) text() (string, error) {
	d.pos++
	start := d.pos
	for d.pos < len(d.in) {
		switch c := d.in[d.pos]; {
		case c == '"':
			s := string(d.in[start:d.pos])
			d.pos++
			return s, nil
		case c == '\\':
			return d.escapedText(append([]byte(nil), d.in[start:d.pos]...))
		case c < 0x20:
			return "", d.errorf("a control character in a string")
		}
		d.pos++
	}
	return "", d.errorf("the string is not closed")
}

// escapedText reads the rest of a string that has escapes; buf is what came before.
func (d *jsonReader) escapedText(buf []byte) (string, error) {
	for d.pos < len(d.in) {
		c := d.in[d.pos]
		d.pos++
		switch {
		case c == '"':
			return string(buf), nil
		case c < 0x20:
			return "", d.errorf("a control character in a string")
		case c != '\\':
			buf = append(buf, c)
			continue
		}
		esc := d.peek()
		d.pos++
		switch esc {
		case '"', '\\', '/':
			buf = append(buf, esc)
		case 'b':
			buf = append(buf, '\b')
		case 'f':
			buf = append(buf, '\f')
		case 'n':
			buf = append(buf, '\n')
		case 'r':
			buf = append(buf, '\r')
		case 't':
			buf = append(buf, '\t')
		case 'u':
			c, err := d.unicode()
			if err != nil {
				return "", err
			}
			buf = utf8.AppendRune(buf, c)
		default:
			return "", d.errorf("an escape that JSON does not have")
		}
	}
	return "", d.errorf("the string is not closed")
}

// unicode reads the digits of \u, and the second half of a surrogate pair.
func (d *jsonReader) unicode() (rune, error) {
	first, err := d.hex4()
	if err != nil || !utf16.IsSurrogate(first) {
		return first, err
	}
	if d.pos+1 < len(d.in) && d.in[d.pos] == '\\' && d.in[d.pos+1] == 'u' {
		back := d.pos
		d.pos += 2
		second, err := d.hex4()
		if err != nil {
			return 0, err
		}
		if c := utf16.DecodeRune(first, second); c != utf8.RuneError {
			return c, nil
		}
		d.pos = back
	}
	return utf8.RuneError, nil
}

func (d *jsonReader) hex4() (rune, error) {
	if len(d.in)-d.pos < 4 {
		return 0, d.errorf("\\u needs four hexadecimal digits")
	}
	n, err := strconv.ParseUint(string(d.in[d.pos:d.pos+4]), 16, 16)
	if err != nil {
		return 0, d.errorf("\\u needs four hexadecimal digits")
	}
	d.pos += 4
	return rune(n), nil
}
