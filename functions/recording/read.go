package recording

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// Reader reads a recording line by line and checks it.
type Reader struct {
	in    *bufio.Reader
	begin *Begin
	line  int
	ended bool
	cut   bool
}

// NewReader reads the first line. An error says why this is no recording, or none that this version can read.
func NewReader(in io.Reader) (*Reader, error) {
	r := &Reader{in: bufio.NewReaderSize(in, 64<<10)}
	l, err := r.Next()
	switch {
	case errors.Is(err, io.EOF):
		return nil, errors.New("it is empty")
	case err != nil:
		return nil, fmt.Errorf("it is no recording: %w", err)
	}
	r.begin = l.Begin
	return r, nil
}

// Begin is the first line.
func (r *Reader) Begin() *Begin { return r.begin }

// Cut says, after io.EOF, that the recording has no end: whoever wrote it was killed or lost its connection. What was read is whole.
func (r *Reader) Cut() bool { return r.cut }

// Next reads a line; io.EOF after the last. Any other error names the line. A torn last line is left out.
func (r *Reader) Next() (*Line, error) {
	b, err := r.read()
	if errors.Is(err, io.EOF) && r.begin != nil {
		r.cut = !r.ended
		return nil, io.EOF
	}
	if err != nil {
		return nil, err
	}
	if r.ended {
		return nil, fmt.Errorf("line %d stands behind the end of the recording", r.line)
	}
	l := new(Line)
	if err := json.Unmarshal(b, l); err != nil {
		return nil, fmt.Errorf("line %d: %w", r.line, err)
	}
	if err := r.check(l); err != nil {
		return nil, fmt.Errorf("line %d: %w", r.line, err)
	}
	r.ended = l.End != nil
	return l, nil
}

// read reads one line of at most MaxLine bytes. A last line without its line break is not whole.
func (r *Reader) read() ([]byte, error) {
	var b []byte
	for {
		part, err := r.in.ReadSlice('\n')
		b = append(b, part...)
		switch {
		case len(b) > MaxLine:
			return nil, fmt.Errorf("line %d is longer than %d KiB", r.line+1, MaxLine>>10)
		case err == nil:
			r.line++
			return bytes.TrimSpace(b), nil
		case errors.Is(err, io.EOF):
			return nil, io.EOF
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, err
		}
	}
}

func (r *Reader) check(l *Line) error {
	set := 0
	for _, is := range []bool{l.Begin != nil, l.Function != nil, l.Invocation != nil, l.LeftOut != nil, l.End != nil} {
		if is {
			set++
		}
	}
	switch {
	case set != 1:
		return errors.New("it is none of begin, function, invocation, left_out and end")
	case (l.Begin != nil) != (r.begin == nil):
		return errors.New("begin is the first line, and no other is")
	case l.Begin != nil:
		return l.Begin.check()
	case l.Function != nil && (l.Function.Name == "" || l.Function.Revision == ""):
		return errors.New("a function has a name and a revision")
	case l.Invocation != nil:
		return l.Invocation.check()
	}
	return nil
}

func (b *Begin) check() error {
	switch {
	case b.Format != Format:
		return fmt.Errorf("its format is %.40q, not %q", b.Format, Format)
	case b.Version > Version:
		return fmt.Errorf("it is of version %d, and this program reads up to version %d: take a newer one", b.Version, Version)
	case b.Version < 1:
		return fmt.Errorf("there is no version %d", b.Version)
	}
	return nil
}

func (i *Invocation) check() error {
	if i.Function == "" || i.Revision == "" || i.Event.ID == "" || i.Event.Type == "" {
		return errors.New("an invocation has a function, a revision and an event with id and type")
	}
	if i.Attempt < 1 {
		return fmt.Errorf("attempt %d: the first is 1", i.Attempt)
	}
	if _, err := i.seed(); err != nil {
		return err
	}
	for k := range i.Reads {
		if _, err := i.Reads[k].answer(); err != nil {
			return fmt.Errorf("reads: %w", err)
		}
	}
	for k := range i.Outcome.Effects {
		if _, err := kindOf(effectKinds(), i.Outcome.Effects[k].Do); err != nil {
			return fmt.Errorf("effects: %w", err)
		}
	}
	switch o := i.Outcome; o.What {
	case "committed", "retry", "dead":
	default:
		return fmt.Errorf("the outcome %.40q is none of committed, retry and dead", o.What)
	}
	return nil
}

func (i *Invocation) seed() (uint64, error) {
	n, err := strconv.ParseUint(i.Seed, 16, 64)
	if err != nil {
		return 0, fmt.Errorf("the seed %.40q is no hexadecimal number of 64 bits", i.Seed)
	}
	return n, nil
}
