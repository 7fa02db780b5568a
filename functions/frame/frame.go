// Package frame is what the gateway and its workers say to each other over a socket pair.
//
// A frame is four bytes of length (little endian, of the body alone), one byte of type, and a body in the encoding of
// internal/wire. The gateway sends code (Load, Check), work (Run, Revoke) and answers (Answer); a worker sends Ready
// once, after Confining for each layer that could break it, Need when it lacks code, Ask while a function reads, and Outcome, Checked or Revoked when something is settled.
//
// The gateway trusts nothing in a worker's frames. A length is compared with the limit of its type before the body is
// read, a buffer grows only with what has really arrived, every count and string has a cap of its own, and a value that
// means nothing (an unknown kind, a number that is not finite) is an error like any other. The honest side keeps within
// the same caps: Append functions shorten what is only text for people, and answer ErrTooBig for the rest.
package frame

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/perigee-iot/perigee/internal/wire"
)

// Version is the version of the frames. Both ends are the same binary; it differs only if that promise is broken.
const Version = 1

// Type says what a frame is.
type Type byte

const (
	// To a worker.
	Load   Type = 1 // code to keep: a digest and files
	Run    Type = 2 // an invocation
	Answer Type = 3 // to an Ask
	Check  Type = 4 // code to compile only: an id, a digest and files
	Revoke Type = 5 // ids that the worker shall give back if it has not begun them

	// From a worker.
	Ready   Type = 65 // once, when it can take work
	Need    Type = 66 // the invocation that is next needs code that the worker has not got: a digest
	Outcome Type = 67 // of an invocation
	Ask     Type = 68 // a running function reads
	Checked Type = 69 // of a Check
	Revoked Type = 70 // the ids of a Revoke that it has given back

	Confining Type = 71 // before Ready: the layer of confinement that it is about to put on and to try
)

// String names the type as errors and logs do.
func (t Type) String() string {
	switch t {
	case Load:
		return "load"
	case Run:
		return "run"
	case Answer:
		return "answer"
	case Check:
		return "check"
	case Revoke:
		return "revoke"
	case Ready:
		return "ready"
	case Need:
		return "need"
	case Outcome:
		return "outcome"
	case Ask:
		return "ask"
	case Checked:
		return "checked"
	case Revoked:
		return "revoked"
	case Confining:
		return "confining"
	}
	return fmt.Sprintf("type %d", byte(t))
}

// The largest body of each type, in bytes. What a worker may send bounds what it can make the gateway hold.
const (
	maxCode    = 2 << 20
	maxRun     = 2 << 20
	maxAnswer  = 1 << 20
	maxOutcome = 512 << 10
	maxText    = 32 << 10
	maxAsk     = 8 << 10
	maxIDs     = 4 << 10
	maxReady   = 4 << 10
	maxNeed    = 256
)

// ToWorker is the limit of a body that a worker accepts, -1 for a type that is not for it.
func ToWorker(t Type) int {
	switch t {
	case Load, Check:
		return maxCode
	case Run:
		return maxRun
	case Answer:
		return maxAnswer
	case Revoke:
		return maxIDs
	}
	return -1
}

// FromWorker is the limit of a body that the gateway accepts, -1 for a type that is not for it.
func FromWorker(t Type) int {
	switch t {
	case Ready:
		return maxReady
	case Need, Confining:
		return maxNeed
	case Outcome:
		return maxOutcome
	case Ask:
		return maxAsk
	case Checked:
		return maxText
	case Revoked:
		return maxIDs
	}
	return -1
}

// ErrTooBig is wrapped by the errors of Append functions: the message does not fit a frame of its type.
var ErrTooBig = errors.New("too big for a frame")

// ErrBreach is wrapped by the errors of a Reader for a frame that nobody honest sends.
var ErrBreach = errors.New("breach of the frame protocol")

const headerSize = 5

// begin appends the header of a frame to buf; its length is filled in by end.
func begin(buf []byte, t Type) *wire.Writer {
	return wire.NewWriter(append(buf, 0, 0, 0, 0, byte(t)))
}

// end fills in the length of the frame that begins at start. A frame that is over its limit is taken back.
func end(w *wire.Writer, start, limit int) ([]byte, error) {
	buf := w.Data()
	n := len(buf) - start - headerSize
	if n > limit {
		return buf[:start], fmt.Errorf("%w: %d bytes of %s, at most %d", ErrTooBig, n, Type(buf[start+4]), limit)
	}
	binary.LittleEndian.PutUint32(buf[start:], uint32(n))
	return buf, nil
}

// Reader reads frames and reuses its memory.
type Reader struct {
	src   io.Reader
	limit func(Type) int
	buf   []byte // buf[:end] has been received; buf[:start] has been returned
	start int
	end   int
}

const (
	leastBuffer = 4 << 10
	keptBuffer  = 64 << 10 // a larger buffer is given up once it is empty
)

// NewReader reads frames from src; limit is ToWorker or FromWorker, after the side that reads.
func NewReader(src io.Reader, limit func(Type) int) *Reader {
	return &Reader{src: src, limit: limit}
}

// Next returns the next frame. The body is valid until the next call: what is kept of it must be copied. The error is
// io.EOF where the other end has closed between two frames.
func (r *Reader) Next() (Type, []byte, error) {
	if err := r.fill(headerSize); err != nil {
		return 0, nil, err
	}
	size, err := r.size()
	if err != nil {
		return 0, nil, err
	}
	if err := r.fill(headerSize + size); err != nil {
		return 0, nil, err
	}
	t := Type(r.buf[r.start+4])
	body := r.buf[r.start+headerSize : r.start+headerSize+size : r.start+headerSize+size]
	r.start += headerSize + size
	return t, body, nil
}

// More says whether the next frame has been received already, so that Next returns without waiting.
func (r *Reader) More() bool {
	if r.end-r.start < headerSize {
		return false
	}
	size, err := r.size()
	return err != nil || r.end-r.start >= headerSize+size
}

// size checks the header at start and returns the length of the body.
func (r *Reader) size() (int, error) {
	n, t := binary.LittleEndian.Uint32(r.buf[r.start:]), Type(r.buf[r.start+4])
	limit := r.limit(t)
	if limit < 0 {
		return 0, fmt.Errorf("%w: a frame of %s", ErrBreach, t)
	}
	if uint64(n) > uint64(limit) {
		return 0, fmt.Errorf("%w: %d bytes of %s, at most %d", ErrBreach, n, t, limit)
	}
	return int(n), nil
}

// fill reads until n bytes stand at start. The buffer doubles as bytes arrive: an announced length costs nothing.
func (r *Reader) fill(n int) error {
	if r.start == r.end {
		r.start, r.end = 0, 0
		if len(r.buf) > keptBuffer && n <= leastBuffer {
			r.buf = nil
		}
	}
	for r.end-r.start < n {
		if r.end == len(r.buf) {
			r.makeRoom()
		}
		m, err := r.src.Read(r.buf[r.end:])
		r.end += m
		if err != nil && r.end-r.start < n {
			if errors.Is(err, io.EOF) && r.end > r.start {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
	}
	return nil
}

// makeRoom moves what is unread to the front, into a larger buffer if it was there already.
func (r *Reader) makeRoom() {
	to := r.buf
	if r.start == 0 {
		to = make([]byte, max(leastBuffer, 2*len(r.buf)))
	}
	r.end = copy(to, r.buf[r.start:r.end])
	r.start, r.buf = 0, to
}
