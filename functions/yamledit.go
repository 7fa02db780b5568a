package functions

import (
	"slices"
	"strings"
)

// yamlEdit adds to lists in the text of a YAML file. It knows the forms in which people write permissions: maps and lists by indentation or in
// brackets. Whoever uses it reads the result and compares.
type yamlEdit struct {
	lines []string // with their ends
}

// add puts value at the end of the list at path, which is made if it is not there.
func (e *yamlEdit) add(path []string, value string) bool {
	return e.block(0, len(e.lines), 0, path, value)
}

// indentOf is how far a line is indented; false for one that is empty or a comment.
func indentOf(line string) (int, bool) {
	t := strings.TrimLeft(line, " ")
	if rest := strings.TrimSpace(t); rest == "" || rest[0] == '#' || rest == "---" {
		return 0, false
	}
	return len(line) - len(t), true
}

// end is the line behind the last one that belongs to what begins at from with more than this indent.
func (e *yamlEdit) end(from, to, indent int, dashes bool) int {
	last := from
	for i := from; i < to; i++ {
		n, ok := indentOf(e.lines[i])
		if !ok {
			continue
		}
		if n < indent || n == indent && (!dashes || !strings.HasPrefix(e.lines[i][n:], "-")) {
			break
		}
		last = i + 1
	}
	return last
}

// block adds within the lines from…to, whose keys are indented so far.
func (e *yamlEdit) block(from, to, indent int, path []string, value string) bool {
	key := path[0] + ":"
	for i := from; i < to; i++ {
		n, ok := indentOf(e.lines[i])
		if !ok || n != indent || !strings.HasPrefix(e.lines[i][n:], key) {
			continue
		}
		at := n + len(key)
		rest := strings.TrimLeft(e.lines[i][at:], " ")
		switch body := strings.TrimSpace(rest); {
		case body != "" && body[0] != '#':
			text := strings.Join(e.lines[i:to], "")
			pos := at + len(e.lines[i][at:]) - len(rest)
			done, ok := flow(text, pos, path[1:], value)
			if ok {
				e.lines = slices.Replace(e.lines, i, to, done)
				e.lines = strings.SplitAfter(strings.Join(e.lines, ""), "\n")
			}
			return ok
		default:
			return e.below(i, to, at, indent, path[1:], value)
		}
	}
	last := to
	for last > from {
		if _, ok := indentOf(e.lines[last-1]); ok {
			break
		}
		last--
	}
	if last > 0 && !strings.HasSuffix(e.lines[last-1], "\n") {
		e.lines[last-1] += "\n"
	}
	if len(path) > 1 && indent == 0 { // a new section, as people write it
		e.lines = slices.Insert(e.lines, last, path[0]+":\n", "  "+inFlow(path[1:], value)+"\n")
		return true
	}
	e.lines = slices.Insert(e.lines, last, strings.Repeat(" ", indent)+inFlow(path, value)+"\n")
	return true
}

// below adds to what stands in the lines below line i, whose key ends at column at.
func (e *yamlEdit) below(i, to, at, indent int, path []string, value string) bool {
	end := e.end(i+1, to, indent, len(path) == 0)
	if end == i+1 { // nothing: the value is null
		line := e.lines[i]
		e.lines[i] = line[:at] + " " + strings.TrimPrefix(inFlow(append([]string{""}, path...), value), ": ") + line[at:]
		return true
	}
	inner := -1
	for n := i + 1; n < end && inner < 0; n++ {
		if in, ok := indentOf(e.lines[n]); ok {
			inner = in
		}
	}
	if len(path) > 0 {
		return inner > indent && e.block(i+1, end, inner, path, value)
	}
	if !strings.HasSuffix(e.lines[end-1], "\n") {
		e.lines[end-1] += "\n"
	}
	e.lines = slices.Insert(e.lines, end, strings.Repeat(" ", inner)+"- "+value+"\n")
	return true
}

// inFlow writes a path and a list with one value: devices: {write: [fan]}.
func inFlow(path []string, value string) string {
	if len(path) == 1 {
		return path[0] + ": [" + value + "]"
	}
	s := "[" + value + "]"
	for _, key := range slices.Backward(path[1:]) {
		s = "{" + key + ": " + s + "}"
	}
	return path[0] + ": " + s
}

// flow adds within brackets that begin at pos.
func flow(text string, pos int, path []string, value string) (string, bool) {
	open := text[pos]
	end, keys := brackets(text, pos)
	if end < 0 || open != '[' && open != '{' || (open == '[') != (len(path) == 0) {
		return "", false
	}
	more := value
	if open == '{' {
		for key, at := range keys {
			if key == path[0] {
				if at >= end {
					return "", false
				}
				return flow(text, at, path[1:], value)
			}
		}
		more = inFlow(path, value)
	}
	before := strings.TrimRight(text[pos:end], " \n\t")
	at := pos + len(before)
	switch last := before[len(before)-1]; {
	case len(before) == 1: // empty
	case last == ',':
		more = " " + more
	default:
		more = ", " + more
	}
	return text[:at] + more + text[at:], true
}

// brackets finds the bracket that closes the one at pos, -1 if there is none, and where the values of the keys directly in it begin.
func brackets(text string, pos int) (end int, keys map[string]int) {
	keys = map[string]int{}
	depth, begin := 0, -1
	for i := pos; i < len(text); i++ {
		switch c := text[i]; c {
		case '[', '{':
			if depth++; depth == 1 {
				begin = i + 1
			}
		case ']', '}':
			if depth--; depth == 0 {
				return i, keys
			}
		case ',':
			if depth == 1 {
				begin = i + 1
			}
		case ':':
			if depth == 1 && begin >= 0 && i+1 < len(text) && strings.IndexByte(" \n", text[i+1]) >= 0 {
				at := i + 1
				for at < len(text) && strings.IndexByte(" \n", text[at]) >= 0 {
					at++
				}
				keys[strings.Trim(strings.TrimSpace(text[begin:i]), `"'`)] = at
				begin = -1
			}
		case '"', '\'':
			if i > 0 && strings.IndexByte(" \n[{,:", text[i-1]) < 0 {
				continue // within a word
			}
			for i++; i < len(text) && text[i] != c; i++ {
				if c == '"' && text[i] == '\\' {
					i++
				}
			}
		case '#':
			if i > 0 && strings.IndexByte(" \n", text[i-1]) >= 0 {
				for i+1 < len(text) && text[i+1] != '\n' {
					i++
				}
			}
		}
	}
	return -1, nil
}
