package api

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf16"
)

// encode makes one line of JSON, with <, > and & as they are: people read it.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// asciiJSON makes encoded JSON fit for an HTTP header: one line of ASCII.
func asciiJSON(b []byte) string {
	var out strings.Builder
	for _, r := range string(bytes.TrimSpace(b)) {
		switch {
		case r < 0x7f:
			out.WriteRune(r)
		case r > 0xffff:
			hi, lo := utf16.EncodeRune(r)
			fmt.Fprintf(&out, `\u%04x\u%04x`, hi, lo)
		default:
			fmt.Fprintf(&out, `\u%04x`, r)
		}
	}
	return out.String()
}

// errLongLine is what a lineReader returns for a line above maxLine.
var errLongLine = errors.New("the line is too long")

// lineReader reads a list of lines, each bounded.
type lineReader struct{ in *bufio.Scanner }

func newLineReader(r io.Reader) *lineReader {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 0, 16<<10), maxLine)
	return &lineReader{s}
}

// next returns a line, valid until the next call, or io.EOF after the last.
func (l *lineReader) next() ([]byte, error) {
	if l.in.Scan() {
		return l.in.Bytes(), nil
	}
	switch err := l.in.Err(); {
	case err == nil:
		return nil, io.EOF
	case errors.Is(err, bufio.ErrTooLong):
		return nil, errLongLine
	default:
		return nil, err
	}
}
