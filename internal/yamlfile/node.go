package yamlfile

import (
	"fmt"
	"strconv"
)

// Kind is what a value is.
type Kind int

const (
	Null   Kind = iota // nothing, ~ or null; also what is absent
	Scalar             // text, a number, true or false
	Map
	List
)

// String names the kind as errors do.
func (k Kind) String() string {
	switch k {
	case Scalar:
		return "a single value"
	case Map:
		return "a map"
	case List:
		return "a list"
	}
	return "nothing"
}

// Node is a part of a file that knows its place. As the type of a field it keeps that part to be decoded later. The
// zero Node is an absent part: it decodes into anything and changes nothing.
type Node struct {
	file      string
	line, col int // of the key, for the value of a map
	path      string
	v         *value
}

// Unmarshaler is implemented by types that read their part of a file themselves. Errors that are not from n's own methods get
// n's place.
type Unmarshaler interface {
	UnmarshalNode(n Node) error
}

// Decode fills into, which is a pointer, from this part of the file.
func (n Node) Decode(into any) error { return decode(n, into) }

// Kind says what the part is; Null for the zero Node.
func (n Node) Kind() Kind {
	if n.v == nil {
		return Null
	}
	return n.v.kind
}

// IsZero says whether the part is absent, as opposed to null.
func (n Node) IsZero() bool { return n.v == nil }

// Line returns the line of the part, from 1; of a map's value it is the line of the key. 0 for the zero Node.
func (n Node) Line() int { return n.line }

// Path returns the keys that lead here, with points between: "devices.fan".
func (n Node) Path() string { return n.path }

// Value returns the string, bool, int64 or float64 of a Scalar and nil for all others.
func (n Node) Value() any {
	if n.Kind() != Scalar {
		return nil
	}
	return n.v.scalar
}

// Text returns a Scalar as it was written, without quotes, and "" for all others.
func (n Node) Text() string {
	if n.Kind() != Scalar {
		return ""
	}
	return n.v.text
}

// Keys returns the keys of a Map in the order of the file.
func (n Node) Keys() []string {
	if n.Kind() != Map {
		return nil
	}
	keys := make([]string, len(n.v.keys))
	for i, k := range n.v.keys {
		keys[i] = k.name
	}
	return keys
}

// Items returns the elements of a List, or the values of a Map in the order of Keys.
func (n Node) Items() []Node {
	if n.v == nil {
		return nil
	}
	items := make([]Node, len(n.v.items))
	for i := range items {
		items[i] = n.item(i)
	}
	return items
}

// At follows keys (and for lists, indexes from 0) and returns the part they lead to. Where the file does not go so far it
// returns the last part that is there, so that an error about a default still has a line.
func (n Node) At(path ...string) Node {
	for _, step := range path {
		next, ok := n.Child(step)
		if !ok {
			return n
		}
		n = next
	}
	return n
}

// Child returns the value of a key, or the element of a list by its index from 0, and whether it is there.
func (n Node) Child(step string) (Node, bool) {
	if n.v == nil {
		return Node{}, false
	}
	switch n.v.kind {
	case Map:
		for i, k := range n.v.keys {
			if k.name == step {
				return n.item(i), true
			}
		}
	case List:
		if i, err := strconv.Atoi(step); err == nil && i >= 0 && i < len(n.v.items) {
			return n.item(i), true
		}
	}
	return Node{}, false
}

// item returns the i-th value of a map or list.
func (n Node) item(i int) Node {
	v := n.v.items[i]
	child := Node{file: n.file, line: v.line, col: v.col, v: v}
	if n.v.kind == Map {
		k := n.v.keys[i]
		child.line, child.col, child.path = k.line, k.col, k.name
	} else {
		child.path = strconv.Itoa(i + 1)
	}
	if n.path != "" {
		child.path = n.path + "." + child.path
	}
	return child
}

// Errorf returns an error with the place of this part: "FILE:LINE:COL: PATH: …".
func (n Node) Errorf(format string, args ...any) error {
	return &Error{File: n.file, Line: n.line, Col: n.col, Path: n.path, Err: fmt.Errorf(format, args...)}
}

// Wrap gives err the place of this part, unless it has a place already.
func (n Node) Wrap(err error) error { return n.placed(err) }
