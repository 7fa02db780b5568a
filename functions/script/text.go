package script

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	lua "github.com/yuin/gopher-lua"

	"github.com/perigee-iot/perigee/functions"
)

// stringFunctions are the library string, which works on bytes. Each of them is bounded by the run's memory.
func stringFunctions() map[string]builtin {
	return map[string]builtin{
		"byte":    stringByte,
		"char":    stringChar,
		"find":    stringFind,
		"format":  stringFormat,
		"gfind":   stringGmatch,
		"gmatch":  stringGmatch,
		"gsub":    stringGsub,
		"len":     func(_ *run, L *lua.LState) int { L.Push(lua.LNumber(len(checkString(L, 1)))); return 1 },
		"lower":   func(r *run, L *lua.LState) int { return mapBytes(r, L, 'A', 'Z') },
		"match":   stringMatch,
		"rep":     stringRep,
		"reverse": stringReverse,
		"sub":     stringSub,
		"upper":   func(r *run, L *lua.LState) int { return mapBytes(r, L, 'a', 'z') },
	}
}

// buffer builds a string, and stops the script when that outgrows the memory of the run.
type buffer struct {
	r     *run
	L     *lua.LState
	what  string
	b     []byte
	limit int
	next  int // length at which to look at the context again
}

// buffer makes an empty one; what is the function that builds, for the message.
func (r *run) buffer(L *lua.LState, what string) *buffer {
	return &buffer{r: r, L: L, what: what, limit: int(min(r.memory, hardStringLimit)), next: 64 << 10}
}

func (b *buffer) text(s string) {
	b.room(len(s))
	b.b = append(b.b, s...)
}

func (b *buffer) byte(c byte) {
	b.room(1)
	b.b = append(b.b, c)
}

// room makes sure that n more bytes are allowed.
func (b *buffer) room(n int) {
	if n > b.limit-len(b.b) {
		b.r.tooLong(b.L, b.what, b.limit)
	}
	if len(b.b) > b.next {
		b.next = len(b.b) + 64<<10
		b.r.check(b.L)
	}
}

func (b *buffer) value() lua.LString { return b.r.string(b.L, string(b.b)) }

// string is a string that a builtin has made. Large ones count for the memory at once.
func (r *run) string(L *lua.LState, s string) lua.LString {
	if len(s) >= countedString {
		r.guard.grew(len(s))
		r.check(L)
	}
	return lua.LString(s)
}

// countedString is the length from which a string counts at once. Shorter ones take so many instructions that the timer looks in time.
const countedString = 1 << 10

// tooLong stops the script because a string would not fit its memory.
func (r *run) tooLong(L *lua.LState, what string, limit int) {
	r.haltf(L, functions.FaultMemory, "raise limits.memory in function.yaml, or keep less at a time",
		"%s would make a string of more than %s", what, sizeText(int64(limit)))
}

// stringRange are the start and the end, counted from 0, that the arguments from, to of a string of n bytes mean.
func stringRange(from, to, n int) (int, int) {
	if from < 0 {
		from = max(n+from+1, 1)
	}
	if to < 0 {
		to = n + to + 1
	}
	from, to = max(from, 1), min(to, n)
	if from > to {
		return 0, 0
	}
	return from - 1, to
}

func stringSub(_ *run, L *lua.LState) int {
	s := checkString(L, 1)
	i, j := stringRange(checkInt(L, 2), optInt(L, 3, -1), len(s))
	L.Push(lua.LString(s[i:j]))
	return 1
}

func stringByte(_ *run, L *lua.LState) int {
	s := checkString(L, 1)
	from := optInt(L, 2, 1)
	i, j := stringRange(from, optInt(L, 3, from), len(s))
	if j-i > maxUnpack {
		L.RaiseError("string slice too long")
	}
	for _, c := range []byte(s[i:j]) {
		L.Push(lua.LNumber(c))
	}
	return j - i
}

func stringChar(_ *run, L *lua.LState) int {
	b := make([]byte, L.GetTop())
	for i := range b {
		c := checkInt(L, i+1)
		if c < 0 || c > 255 {
			L.ArgError(i+1, "invalid value")
		}
		b[i] = byte(c)
	}
	L.Push(lua.LString(b))
	return 1
}

func stringRep(r *run, L *lua.LState) int {
	s, n := checkString(L, 1), checkInt(L, 2)
	limit := int(min(r.memory, hardStringLimit))
	if n <= 0 || s == "" {
		L.Push(lua.LString(""))
		return 1
	}
	if n > limit/len(s) {
		r.tooLong(L, "string.rep", limit)
	}
	L.Push(r.string(L, strings.Repeat(s, n)))
	return 1
}

func stringReverse(r *run, L *lua.LState) int {
	b := []byte(checkString(L, 1))
	slices.Reverse(b)
	L.Push(r.string(L, string(b)))
	return 1
}

// mapBytes changes the case of the letters from first to last, and nothing else: other bytes may be part of UTF-8, or of anything.
func mapBytes(r *run, L *lua.LState, first, last byte) int {
	b := []byte(checkString(L, 1))
	for i, c := range b {
		if c >= first && c <= last {
			b[i] = c ^ 0x20
		}
	}
	L.Push(r.string(L, string(b)))
	return 1
}

// directive is one % of a format.
type directive struct {
	flags        string
	width, prec  int
	hasPrec      bool
	verb         byte
	left, padded bool // '-' and '0' among the flags
}

func stringFormat(r *run, L *lua.LState) int {
	format := checkString(L, 1)
	b := r.buffer(L, "string.format")
	arg := 1
	for i := 0; i < len(format); i++ {
		if format[i] != '%' {
			b.byte(format[i])
			continue
		}
		i++
		if i < len(format) && format[i] == '%' {
			b.byte('%')
			continue
		}
		var d directive
		i = d.parse(L, format, i)
		arg++
		if arg > L.GetTop() {
			L.ArgError(arg, "no value")
		}
		d.write(r, L, b, arg)
	}
	L.Push(b.value())
	return 1
}

// parse reads a directive that starts at i, after its %, and returns the index of its last character.
func (d *directive) parse(L *lua.LState, format string, i int) int {
	start := i
	for i < len(format) && strings.IndexByte("-+ #0", format[i]) >= 0 {
		d.left = d.left || format[i] == '-'
		d.padded = d.padded || format[i] == '0'
		i++
	}
	d.flags = format[start:i]
	d.width, i = shortNumber(format, i)
	if i < len(format) && format[i] == '.' {
		d.hasPrec = true
		d.prec, i = shortNumber(format, i+1)
	}
	if len(d.flags) > 5 || i < len(format) && isDigit(format[i]) {
		L.RaiseError("invalid format (width or precision too long)")
	}
	if i >= len(format) {
		L.RaiseError("invalid format: it ends within a '%%'")
	}
	d.verb = format[i]
	return i
}

// shortNumber reads at most two digits, all that reference Lua allows for a width or a precision.
func shortNumber(s string, i int) (n, next int) {
	for j := 0; j < 2 && i < len(s) && isDigit(s[i]); j++ {
		n = n*10 + int(s[i]-'0')
		i++
	}
	return n, i
}

func (d *directive) write(r *run, L *lua.LState, b *buffer, arg int) {
	switch d.verb {
	case 'c':
		d.pad(b, string([]byte{byte(checkInt(L, arg))}))
	case 'd', 'i':
		if i, ok := asInteger(L.Get(arg)); ok {
			d.whole(b, i.String())
			return
		}
		d.whole(b, strconv.FormatInt(toInt64(checkNumber(L, arg)), 10))
	case 'u':
		d.whole(b, strconv.FormatUint(checkBits64(L, arg), 10))
	case 'o', 'x', 'X':
		d.unsigned(b, checkBits64(L, arg))
	case 'e', 'E', 'f', 'g', 'G':
		d.float(b, checkNumber(L, arg))
	case 'q':
		quote(b, checkString(L, arg))
	case 's':
		s := r.text(L, L.Get(arg))
		if d.hasPrec && d.prec < len(s) {
			s = s[:d.prec]
		}
		d.pad(b, s)
	default:
		L.RaiseError("invalid option '%%%c' to 'format'", d.verb)
	}
}

// checkBits64 are the 64 bits of a whole number, of a negative one its two's complement.
func checkBits64(L *lua.LState, arg int) uint64 {
	if i, ok := asInteger(L.Get(arg)); ok {
		return i.bits()
	}
	f := checkNumber(L, arg)
	if f >= 1<<63 && f < 1<<64 {
		return uint64(f)
	}
	return uint64(toInt64(f))
}

// toInt64 cuts off the fraction; what does not fit becomes the nearest that does.
func toInt64(f float64) int64 {
	switch {
	case math.IsNaN(f):
		return 0
	case f >= math.MaxInt64:
		return math.MaxInt64
	case f <= math.MinInt64:
		return math.MinInt64
	}
	return int64(f)
}

// pad adds a text, filled up with blanks to the width in bytes.
func (d *directive) pad(b *buffer, s string) {
	fill := strings.Repeat(" ", max(d.width-len(s), 0))
	if d.left {
		s, fill = s+fill, ""
	}
	b.text(fill + s)
}

// whole adds a whole number with its sign, at least as many digits as the precision says, and zeros for the width.
func (d *directive) whole(b *buffer, s string) {
	sign := ""
	if s[0] == '-' {
		sign, s = "-", s[1:]
	} else if strings.Contains(d.flags, "+") {
		sign = "+"
	} else if strings.Contains(d.flags, " ") {
		sign = " "
	}
	d.digits(b, sign, s)
}

// digits adds a prefix and digits under the rules for whole numbers.
func (d *directive) digits(b *buffer, prefix, s string) {
	least := d.prec
	switch {
	case d.hasPrec && d.prec == 0 && s == "0":
		s = ""
	case !d.hasPrec && d.padded && !d.left:
		least = d.width - len(prefix)
	}
	if len(s) < least {
		s = strings.Repeat("0", least-len(s)) + s
	}
	d.pad(b, prefix+s)
}

func (d *directive) unsigned(b *buffer, n uint64) {
	alternate := strings.Contains(d.flags, "#") && n != 0
	prefix := ""
	base := 16
	if d.verb == 'o' {
		base = 8
	}
	s := strconv.FormatUint(n, base)
	switch {
	case alternate && d.verb == 'o':
		s = "0" + s // counts as a digit
	case alternate:
		prefix = "0" + string(rune(d.verb))
	case d.verb == 'o' && strings.Contains(d.flags, "#") && d.hasPrec && d.prec == 0:
		d.prec = 1 // the 0 that is the prefix
	}
	if d.verb == 'X' {
		s = strings.ToUpper(s)
	}
	d.digits(b, prefix, s)
}

func (d *directive) float(b *buffer, f float64) {
	if math.IsInf(f, 0) || math.IsNaN(f) {
		s := strings.TrimPrefix(numberText(f), "-")
		if d.verb < 'a' {
			s = strings.ToUpper(s)
		}
		if math.IsInf(f, -1) {
			s = "-" + s
		} else if strings.Contains(d.flags, "+") {
			s = "+" + s
		} else if strings.Contains(d.flags, " ") {
			s = " " + s
		}
		d.pad(b, s)
		return
	}
	prec := 6
	if d.hasPrec {
		prec = d.prec
	}
	if (d.verb == 'g' || d.verb == 'G') && prec == 0 {
		prec = 1
	}
	b.text(fmt.Sprintf("%"+d.flags+"*.*"+string(rune(d.verb)), d.width, prec, f))
}

// quote adds a string as Lua source that reads back the same.
func quote(b *buffer, s string) {
	b.byte('"')
	for i := range len(s) {
		switch c := s[i]; c {
		case '"', '\\', '\n':
			b.byte('\\')
			b.byte(c)
		case '\r':
			b.text(`\r`)
		case 0:
			b.text(`\000`)
		default:
			b.byte(c)
		}
	}
	b.byte('"')
}
