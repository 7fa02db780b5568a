package script

import (
	"strings"

	lua "github.com/yuin/gopher-lua"
)

// The pattern matcher behind find, match, gmatch and gsub. It means what the reference manual of Lua 5.1 says, with %f, and
// differs from the library's in that it never runs past the deadline: it backtracks, which for some patterns takes
// exponential time, but looks at the context as it goes.

const (
	maxCaptures     = 32
	maxPatternDepth = 1000 // parts of a pattern that wait for the rest to match
	stepsPerCheck   = 4096 // single comparisons between two looks at the context
	captureOpen     = -1
	capturePosition = -2
)

// capture is a part of the subject: where it starts, and its length or one of the marks above.
type capture struct{ start, len int }

// matcher matches one pattern against one subject.
type matcher struct {
	r        *run
	L        *lua.LState
	src, pat string
	level    int
	captures [maxCaptures]capture
	depth    int
	steps    int
}

func (m *matcher) fail(message string) { m.L.RaiseError("malformed pattern (%s)", message) }

// step counts a comparison and now and then looks at the context.
func (m *matcher) step() {
	m.steps++
	if m.steps%stepsPerCheck == 0 {
		m.r.check(m.L)
	}
}

// classEnd is the index after the single-character class that starts at p.
func (m *matcher) classEnd(p int) int {
	c := m.pat[p]
	p++
	switch c {
	case '%':
		if p >= len(m.pat) {
			m.fail("ends with '%'")
		}
		return p + 1
	case '[':
		return m.setEnd(p)
	}
	return p
}

// setEnd is the index after the ']' of a set whose inside starts at p.
func (m *matcher) setEnd(p int) int {
	if p < len(m.pat) && m.pat[p] == '^' {
		p++
	}
	for first := true; ; first = false {
		if p >= len(m.pat) {
			m.fail("missing ']'")
		}
		c := m.pat[p]
		p++
		if c == ']' && !first {
			return p
		}
		if c == '%' {
			p++
		}
	}
}

// inClass says whether c belongs to the class of a letter, as in %a.
func inClass(c, class byte) bool {
	var in bool
	switch class | 0x20 {
	case 'a':
		in = isLetter(c)
	case 'd':
		in = isDigit(c)
	case 'l':
		in = c >= 'a' && c <= 'z'
	case 'u':
		in = c >= 'A' && c <= 'Z'
	case 's':
		in = c == ' ' || c >= '\t' && c <= '\r'
	case 'w':
		in = isLetter(c) || isDigit(c)
	case 'x':
		in = isDigit(c) || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
	case 'p':
		in = c > ' ' && c < 0x7f && !isLetter(c) && !isDigit(c)
	case 'c':
		in = c < ' ' || c == 0x7f
	case 'z':
		in = c == 0
	default:
		return class == c
	}
	if class >= 'A' && class <= 'Z' {
		return !in
	}
	return in
}

func isLetter(c byte) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }
func isDigit(c byte) bool  { return c >= '0' && c <= '9' }

// inSet says whether c is in the set whose '[' is at p and whose ']' is before end.
func (m *matcher) inSet(c byte, p, end int) bool {
	p++
	in := true
	if m.pat[p] == '^' {
		in = false
		p++
	}
	for p < end-1 {
		switch {
		case m.pat[p] == '%' && p+1 < end-1:
			if inClass(c, m.pat[p+1]) {
				return in
			}
			p += 2
		case p+2 < end-1 && m.pat[p+1] == '-':
			if m.pat[p] <= c && c <= m.pat[p+2] {
				return in
			}
			p += 3
		default:
			if m.pat[p] == c {
				return in
			}
			p++
		}
	}
	return !in
}

// single says whether the character at s matches the class between p and end.
func (m *matcher) single(s, p, end int) bool {
	m.step()
	if s >= len(m.src) {
		return false
	}
	c := m.src[s]
	switch m.pat[p] {
	case '.':
		return true
	case '%':
		return inClass(c, m.pat[p+1])
	case '[':
		return m.inSet(c, p, end)
	}
	return m.pat[p] == c
}

// match matches the pattern from p against the subject from s. It returns where the match ends, -1 if there is none.
func (m *matcher) match(s, p int) int {
	m.depth++
	defer func() { m.depth-- }()
	if m.depth > maxPatternDepth {
		m.L.RaiseError("pattern too complex")
	}
	for p < len(m.pat) {
		m.step()
		switch m.pat[p] {
		case '(':
			if p+1 < len(m.pat) && m.pat[p+1] == ')' {
				return m.open(s, p+2, capturePosition)
			}
			return m.open(s, p+1, captureOpen)
		case ')':
			return m.close(s, p+1)
		case '$':
			if p+1 == len(m.pat) {
				if s == len(m.src) {
					return s
				}
				return -1
			}
		case '%':
			if next, end, ok := m.escape(s, p); ok {
				if next < 0 {
					return -1
				}
				s, p = next, end
				continue
			}
		}
		end := m.classEnd(p)
		var op byte
		if end < len(m.pat) {
			op = m.pat[end]
		}
		switch op {
		case '?':
			if m.single(s, p, end) {
				if e := m.match(s+1, end+1); e >= 0 {
					return e
				}
			}
			p = end + 1
		case '*':
			return m.longest(s, p, end)
		case '+':
			if !m.single(s, p, end) {
				return -1
			}
			return m.longest(s+1, p, end)
		case '-':
			return m.shortest(s, p, end)
		default:
			if !m.single(s, p, end) {
				return -1
			}
			s++
			p = end
		}
	}
	return s
}

// escape handles %b, %f and %1 to %9 at p: where the subject and the pattern go on. ok is false if it is a class.
func (m *matcher) escape(s, p int) (next, end int, ok bool) {
	if p+1 >= len(m.pat) {
		return 0, 0, false
	}
	switch c := m.pat[p+1]; {
	case c == 'b':
		return m.balanced(s, p+2), p + 4, true
	case c == 'f':
		return m.frontier(s, p+2)
	case isDigit(c):
		return m.back(s, c), p + 2, true
	}
	return 0, 0, false
}

// balanced matches %bxy, whose x is at p.
func (m *matcher) balanced(s, p int) int {
	if p+1 >= len(m.pat) {
		m.fail("missing arguments to '%b'")
	}
	if s >= len(m.src) || m.src[s] != m.pat[p] {
		return -1
	}
	open := 1
	for i := s + 1; i < len(m.src); i++ {
		m.step()
		switch m.src[i] {
		case m.pat[p+1]:
			if open--; open == 0 {
				return i + 1
			}
		case m.pat[p]:
			open++
		}
	}
	return -1
}

// frontier matches %f[set], whose '[' is at p: the place between a character outside of the set and one inside.
func (m *matcher) frontier(s, p int) (next, end int, ok bool) {
	if p >= len(m.pat) || m.pat[p] != '[' {
		m.fail("missing '[' after '%f'")
	}
	end = m.classEnd(p)
	var before, here byte
	if s > 0 {
		before = m.src[s-1]
	}
	if s < len(m.src) {
		here = m.src[s]
	}
	if m.inSet(before, p, end) || !m.inSet(here, p, end) {
		return -1, end, true
	}
	return s, end, true
}

// back matches what an earlier capture holds.
func (m *matcher) back(s int, digit byte) int {
	i := int(digit) - '1'
	if i < 0 || i >= m.level || m.captures[i].len == captureOpen {
		m.L.RaiseError("invalid capture index %%%c in a pattern", digit)
	}
	c := m.captures[i]
	if c.len < 0 {
		return -1
	}
	m.steps += c.len / 8
	if strings.HasPrefix(m.src[s:], m.src[c.start:c.start+c.len]) {
		return s + c.len
	}
	return -1
}

func (m *matcher) longest(s, p, end int) int {
	n := 0
	for m.single(s+n, p, end) {
		n++
	}
	for ; n >= 0; n-- {
		if e := m.match(s+n, end+1); e >= 0 {
			return e
		}
	}
	return -1
}

func (m *matcher) shortest(s, p, end int) int {
	for {
		if e := m.match(s, end+1); e >= 0 {
			return e
		}
		if !m.single(s, p, end) {
			return -1
		}
		s++
	}
}

func (m *matcher) open(s, p, what int) int {
	if m.level >= maxCaptures {
		m.L.RaiseError("too many captures in a pattern")
	}
	m.captures[m.level] = capture{s, what}
	m.level++
	e := m.match(s, p)
	if e < 0 {
		m.level--
	}
	return e
}

func (m *matcher) close(s, p int) int {
	i := m.level - 1
	for i >= 0 && m.captures[i].len != captureOpen {
		i--
	}
	if i < 0 {
		m.L.RaiseError("invalid pattern capture: ')' without '('")
	}
	m.captures[i].len = s - m.captures[i].start
	e := m.match(s, p)
	if e < 0 {
		m.captures[i].len = captureOpen
	}
	return e
}

// at tries the pattern at s, from the pattern's start.
func (m *matcher) at(s, p int) int {
	m.level = 0
	return m.match(s, p)
}

// value is capture i; i 0 of a pattern without captures is the whole match.
func (m *matcher) value(i, start, end int) lua.LValue {
	if i >= m.level {
		if i != 0 {
			m.L.RaiseError("invalid capture index %%%d", i+1)
		}
		return lua.LString(m.src[start:end])
	}
	c := m.captures[i]
	switch c.len {
	case captureOpen:
		m.L.RaiseError("unfinished capture in a pattern")
	case capturePosition:
		return lua.LNumber(c.start + 1)
	}
	return lua.LString(m.src[c.start : c.start+c.len])
}

// pushAll pushes the captures, or the whole match if there are none and whole is set, and says how many.
func (m *matcher) pushAll(start, end int, whole bool) int {
	n := m.level
	if n == 0 && whole {
		n = 1
	}
	for i := range n {
		m.L.Push(m.value(i, start, end))
	}
	return n
}
