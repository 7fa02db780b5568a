package script

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"unicode/utf8"

	lua "github.com/yuin/gopher-lua"
)

// jsonWriter turns Lua values into JSON. Its errors name the place, like ".readings[3].value".
type jsonWriter struct {
	out   []byte
	limit int
	path  []byte
	depth int
	steps int
	check func() // called now and then
}

// jsonNull is what json.null is in Lua: null where a nil would leave the field out.
type jsonNull struct{}

// encodeJSON writes v as JSON of at most limit bytes. check is called now and then, and may raise an error: a few tables that hold each other are
// many values.
func encodeJSON(v lua.LValue, limit int, check func()) ([]byte, error) {
	w := &jsonWriter{limit: limit, check: check}
	if err := w.value(v); err != nil {
		return nil, err
	}
	if len(w.out) > limit {
		return nil, w.tooLong()
	}
	return w.out, nil
}

func (w *jsonWriter) errorf(format string, args ...any) error {
	text := fmt.Sprintf(format, args...)
	if len(w.path) == 0 {
		return fmt.Errorf("the value %s", text)
	}
	return fmt.Errorf("%s %s", capped(string(w.path), 200), text)
}

var errTooLong = errors.New("the value as JSON has more than the")

func (w *jsonWriter) tooLong() error {
	return fmt.Errorf("%w %s that are left", errTooLong, sizeText(int64(max(w.limit, 0))))
}

// nestingError is the error of a value that is nested too deep.
type nestingError struct{ error }

func (w *jsonWriter) value(v lua.LValue) error {
	if len(w.out) > w.limit {
		return w.tooLong()
	}
	if w.steps++; w.steps%stepsPerCheck == 0 {
		w.check()
	}
	switch v := v.(type) {
	case *lua.LNilType:
		w.out = append(w.out, "null"...)
	case lua.LBool:
		w.out = strconv.AppendBool(w.out, bool(v))
	case lua.LNumber:
		return w.number(float64(v))
	case lua.LString:
		return w.text(string(v))
	case *lua.LTable:
		return w.table(v)
	case *lua.LUserData:
		switch of := v.Value.(type) {
		case jsonNull:
			w.out = append(w.out, "null"...)
		case integer:
			w.out = append(w.out, of.String()...)
		default:
			return w.errorf("is a userdata, which JSON does not have")
		}
	default:
		return w.errorf("is a %s, which JSON does not have", v.Type())
	}
	return nil
}

func (w *jsonWriter) number(f float64) error {
	switch {
	case math.IsNaN(f):
		return w.errorf("is not a number (NaN), which JSON does not have")
	case math.IsInf(f, 0):
		return w.errorf("is infinite, which JSON does not have")
	default:
		w.out = appendNumber(w.out, f)
	}
	return nil
}

const hexDigits = "0123456789abcdef"

func (w *jsonWriter) text(s string) error {
	if len(s) > w.limit-len(w.out) {
		return w.tooLong()
	}
	w.out = append(w.out, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= 0x20 && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && n == 1 {
				return w.errorf("is a string that is not UTF-8; base64.encode makes text of any bytes")
			}
			i += n
			continue
		}
		w.out = append(w.out, s[start:i]...)
		switch c {
		case '"', '\\':
			w.out = append(w.out, '\\', c)
		case '\n':
			w.out = append(w.out, '\\', 'n')
		case '\r':
			w.out = append(w.out, '\\', 'r')
		case '\t':
			w.out = append(w.out, '\\', 't')
		default:
			w.out = append(w.out, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
		i++
		start = i
	}
	w.out = append(append(w.out, s[start:]...), '"')
	return nil
}

// table writes an array or an object, whichever the table is.
func (w *jsonWriter) table(t *lua.LTable) error {
	w.depth++
	defer func() { w.depth-- }()
	if w.depth > maxJSONDepth {
		return nestingError{w.errorf("is nested more than %d levels deep, or holds itself", maxJSONDepth)}
	}
	n, list, err := w.shape(t)
	if err != nil {
		return err
	}
	if list {
		return w.list(t, n)
	}
	return w.fields(t)
}

// shape says whether a table is an array, and of what length. It is one if it came from one, was made by json.array, or
// has items from 1 on and nothing else but, perhaps, n.
func (w *jsonWriter) shape(t *lua.LTable) (n int, list bool, err error) {
	items, names, n := 0, 0, 0
	var odd lua.LValue
	for k, _ := t.Next(lua.LNil); k != lua.LNil; k, _ = t.Next(k) {
		switch key := k.(type) {
		case lua.LNumber:
			if i := int(key); lua.LNumber(i) == key && i >= 1 && i <= lua.MaxArrayIndex {
				items++
				n = max(n, i)
				continue
			}
			odd = k
		case lua.LString:
			if key != "n" {
				names++
			}
		default:
			odd = k
		}
	}
	size, hasSize := t.RawGetString("n").(lua.LNumber)
	marked := isArrayMark(t.Metatable)
	switch {
	case odd != nil && odd.Type() == lua.LTNumber:
		return 0, false, w.errorf("has the key %s; a list counts from 1, an object has strings", numberText(float64(odd.(lua.LNumber))))
	case odd != nil:
		return 0, false, w.errorf("has a %s as a key; JSON has strings only", odd.Type())
	case items == 0 && !marked:
		return 0, false, nil
	case names > 0 && items > 0:
		return 0, false, w.errorf("has both list items and named fields; JSON has either")
	case names > 0:
		return 0, false, nil
	}
	if whole := int(size); hasSize && lua.LNumber(whole) == size && whole >= n && (marked || whole-items <= maxHoles+items) {
		return whole, true, nil
	}
	if n-items > maxHoles+items {
		return 0, false, w.errorf("is a list with %d items and %d holes; use strings as keys", items, n-items)
	}
	return n, true, nil
}

// maxHoles is how many nulls a list may have beyond as many as it has items.
const maxHoles = 64

// arrayMark is the key by which the metatable of arrays is known. No script can have it as a key by chance.
const arrayMark = "\x00array"

func isArrayMark(mt lua.LValue) bool {
	t, ok := mt.(*lua.LTable)
	return ok && t.RawGetString(arrayMark) == lua.LTrue
}

func (w *jsonWriter) list(t *lua.LTable, n int) error {
	w.out = append(w.out, '[')
	for i := 1; i <= n; i++ {
		if i > 1 {
			w.out = append(w.out, ',')
		}
		mark := len(w.path)
		w.path = append(strconv.AppendInt(append(w.path, '['), int64(i), 10), ']')
		if err := w.value(t.RawGet(lua.LNumber(i))); err != nil {
			return err
		}
		w.path = w.path[:mark]
	}
	w.out = append(w.out, ']')
	return nil
}

func (w *jsonWriter) fields(t *lua.LTable) error {
	w.out = append(w.out, '{')
	first := true
	for k, v := t.Next(lua.LNil); k != lua.LNil; k, v = t.Next(k) {
		if !first {
			w.out = append(w.out, ',')
		}
		first = false
		mark := len(w.path)
		w.path = append(append(w.path, '.'), string(k.(lua.LString))...)
		if err := w.text(string(k.(lua.LString))); err != nil {
			return err
		}
		w.out = append(w.out, ':')
		if err := w.value(v); err != nil {
			return err
		}
		w.path = w.path[:mark]
	}
	w.out = append(w.out, '}')
	return nil
}
