// Package yamlfile reads the YAML that people write: gateway.yaml, function.yaml and test cases.
//
// It is strict, because a key that is silently ignored is a setting that silently does not hold: unknown keys, keys
// given twice, several documents, tags and merge keys are refused. Every error is one line, "FILE:LINE:COL: what is
// wrong", with a hint where one can be guessed; several errors come as one error with a line each.
//
//	var c Config
//	root, err := yamlfile.Parse("gateway.yaml", data)  // syntax
//	err = root.Decode(&c)                              // keys and types
//	return root.At("store", "linger").Errorf("…")      // meaning, at the right line
//
// Decode fills structs (field names by the tag `yaml:"name"`, defaults are what stands in the struct before), maps with
// string keys, slices, pointers, scalars, any, everything with UnmarshalText (units.Duration), and two kinds of its own: a
// Node keeps its part of the file to be decoded later, when it is known into what; an Unmarshaler decides by
// itself, for values that have a short and a long form.
//
// Input is not trusted: its size, nesting, number of tokens and what aliases expand to are bounded.
package yamlfile

import (
	"errors"
	"fmt"
	"strings"
)

// MaxSize is the largest file that is read, in bytes.
const MaxSize = 1 << 20

// Bounds on what a file of MaxSize could otherwise cost; far above what anybody writes.
const (
	maxDepth  = 64      // nested maps and lists
	maxTokens = 1 << 15 // keys, values and punctuation
	maxNodes  = 1 << 17 // values visited in one Decode, aliases expanded
	maxErrors = 10      // errors reported at once
)

// Decode reads data, the content of the file called name, into a pointer. Name is only used in errors.
func Decode(name string, data []byte, into any) error {
	root, err := Parse(name, data)
	if err != nil {
		return err
	}
	return root.Decode(into)
}

// Error is one thing that is wrong with a file. Line and Col count from 1; Path is where in the document ("store.linger"), empty
// at its top.
type Error struct {
	File      string
	Line, Col int
	Path      string
	Err       error
}

// Error returns "FILE:LINE:COL: PATH: message" on one line.
func (e *Error) Error() string {
	where := fmt.Sprintf("%s:%d:%d: ", e.File, e.Line, e.Col)
	if e.Path != "" {
		where += e.Path + ": "
	}
	return where + strings.ReplaceAll(e.Err.Error(), "\n", " ")
}

// Unwrap returns what was wrong, without the place.
func (e *Error) Unwrap() error { return e.Err }

// placed gives err a place unless it has one already.
func (n Node) placed(err error) error {
	var e *Error
	if err == nil || errors.As(err, &e) {
		return err
	}
	return &Error{File: n.file, Line: n.line, Col: n.col, Path: n.path, Err: err}
}
