// Package wire is the small binary encoding of what the gateway writes for itself: frames to and from workers, and
// events in the store. Integers are varints (encoding/binary), strings and bytes are a varint length and the bytes.
//
// A Reader believes nothing: a length beyond what is left, or beyond the reader's own limit, is an error before
// anything is allocated, and after the first error every read returns zero values, so that decoders are straight
// lines with one check at their end.
package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// ErrCorrupt is wrapped by every error of a Reader.
var ErrCorrupt = errors.New("corrupt encoding")

// Writer appends to a buffer. The zero value is ready; Reset keeps the memory for the next message.
type Writer struct{ buf []byte }

// NewWriter returns a Writer that appends to buf.
func NewWriter(buf []byte) *Writer { return &Writer{buf: buf} }

// Data returns what was written so far; it is valid until the next write.
func (w *Writer) Data() []byte { return w.buf }

// Reset empties the writer and keeps its memory.
func (w *Writer) Reset() { w.buf = w.buf[:0] }

// Uint writes an unsigned integer as a varint.
func (w *Writer) Uint(v uint64) { w.buf = binary.AppendUvarint(w.buf, v) }

// Int writes a signed integer as a zigzag varint.
func (w *Writer) Int(v int64) { w.buf = binary.AppendVarint(w.buf, v) }

// Byte writes one byte.
func (w *Writer) Byte(b byte) { w.buf = append(w.buf, b) }

// Bool writes one byte, 0 or 1.
func (w *Writer) Bool(b bool) {
	if b {
		w.Byte(1)
	} else {
		w.Byte(0)
	}
}

// Float writes the eight bytes of an IEEE 754 double, little endian.
func (w *Writer) Float(f float64) {
	w.buf = binary.LittleEndian.AppendUint64(w.buf, math.Float64bits(f))
}

// Bytes writes a length and the bytes. Nil and empty are told apart: nil is length 0, empty is length 1 of nothing,
// n bytes are length n+1.
func (w *Writer) Bytes(b []byte) {
	if b == nil {
		w.Uint(0)
		return
	}
	w.Uint(uint64(len(b)) + 1)
	w.buf = append(w.buf, b...)
}

// String writes a length and the string.
func (w *Writer) String(s string) {
	w.Uint(uint64(len(s)))
	w.buf = append(w.buf, s...)
}

// Reader reads what a Writer wrote. Byte slices that it returns share the input's memory.
type Reader struct {
	buf []byte
	err error
}

// NewReader reads from buf.
func NewReader(buf []byte) *Reader { return &Reader{buf: buf} }

// Err returns the first error, or nil.
func (r *Reader) Err() error { return r.err }

// Done returns the first error, or an error if anything is left unread.
func (r *Reader) Done() error {
	if r.err == nil && len(r.buf) > 0 {
		r.Fail("%d bytes too many", len(r.buf))
	}
	return r.err
}

// Left returns how many bytes have not been read.
func (r *Reader) Left() int { return len(r.buf) }

// Fail makes the reader fail, for decoders that find a value that cannot be. The first error stays.
func (r *Reader) Fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s", ErrCorrupt, fmt.Sprintf(format, args...))
	}
	r.buf = nil
}

// Uint reads an unsigned integer.
func (r *Reader) Uint() uint64 {
	v, n := binary.Uvarint(r.buf)
	if n <= 0 {
		r.Fail("bad integer")
		return 0
	}
	r.buf = r.buf[n:]
	return v
}

// Int reads a signed integer.
func (r *Reader) Int() int64 {
	v, n := binary.Varint(r.buf)
	if n <= 0 {
		r.Fail("bad integer")
		return 0
	}
	r.buf = r.buf[n:]
	return v
}

// Count reads the number of the elements that follow and refuses one above limit, or one for which the input is too
// short even at one byte an element.
func (r *Reader) Count(limit int) int {
	v := r.Uint()
	if v > uint64(limit) || v > uint64(len(r.buf)) {
		r.Fail("%d elements where at most %d are allowed", v, min(limit, len(r.buf)))
		return 0
	}
	return int(v)
}

// Byte reads one byte.
func (r *Reader) Byte() byte {
	if len(r.buf) == 0 {
		r.Fail("ends too early")
		return 0
	}
	b := r.buf[0]
	r.buf = r.buf[1:]
	return b
}

// Bool reads one byte that must be 0 or 1.
func (r *Reader) Bool() bool {
	b := r.Byte()
	if b > 1 {
		r.Fail("a boolean is %d", b)
	}
	return b == 1
}

// Float reads a double.
func (r *Reader) Float() float64 {
	if len(r.buf) < 8 {
		r.Fail("ends too early")
		return 0
	}
	f := math.Float64frombits(binary.LittleEndian.Uint64(r.buf))
	r.buf = r.buf[8:]
	return f
}

func (r *Reader) take(n uint64) []byte {
	if n > uint64(len(r.buf)) {
		r.Fail("a length of %d where %d bytes are left", n, len(r.buf))
		return nil
	}
	b := r.buf[:n:n]
	r.buf = r.buf[n:]
	return b
}

// Bytes reads a byte slice, nil if nil was written.
func (r *Reader) Bytes() []byte {
	n := r.Uint()
	if n == 0 {
		return nil
	}
	return r.take(n - 1)
}

// String reads a string.
func (r *Reader) String() string { return string(r.take(r.Uint())) }
