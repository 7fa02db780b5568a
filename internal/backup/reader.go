package backup

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
)

// Reader reads one file. It returns nothing that has not passed its frame's checksum, and io.EOF only after an end that fits
// everything before it: who wants to know that before anything is used reads the file twice.
type Reader struct {
	in     *bufio.Reader
	sum    hash.Hash
	seal   *sealer
	sealed bool // and no key was given: frames are checked, not opened
	frames uint64
	buf    []byte // what is left of the frame
	last   []byte // key
	have   Summary
	done   bool
}

// NewReader reads the beginning of a file. Key opens a sealed one; it is not looked at for a plain one.
func NewReader(r io.Reader, key []byte) (*Reader, error) {
	b, err := newReader(r)
	if err != nil || !b.sealed {
		return b, err
	}
	if key == nil {
		return nil, fmt.Errorf("%w: none was given", ErrKey)
	}
	b.sealed = false
	b.seal, err = newSealer(key, b.have.Salt)
	return b, err
}

func newReader(r io.Reader) (*Reader, error) {
	b := &Reader{in: bufio.NewReaderSize(r, frameBytes), sum: sha256.New()}
	head := make([]byte, headBytes)
	n, err := b.read(head)
	switch {
	case err != nil && !short(err):
		return nil, err
	case !bytes.HasPrefix(head[:n], []byte(magic)):
		return nil, ErrNotBackup
	case err != nil:
		return nil, damaged("it is cut off")
	case head[headBytes-2] != version || head[headBytes-1] != '\n':
		return nil, fmt.Errorf("%w: form %q", ErrNewer, head[len(magic):])
	}
	kind, payload, err := b.frame()
	if err != nil {
		return nil, err
	}
	if kind != frameHeader || json.Unmarshal(payload, &b.have.Header) != nil {
		return nil, damaged("it has no header")
	}
	b.sealed = b.have.Sealed()
	return b, nil
}

// Header says what the file is a backup of.
func (b *Reader) Header() Header { return b.have.Header }

// Summary returns what was read so far: all of it once Next has returned io.EOF.
func (b *Reader) Summary() Summary { return b.have }

// Next returns the next entry, valid until the call after, or io.EOF. Any other error is one of the file (ErrDamaged, ErrKey) or of
// reading it.
func (b *Reader) Next() (key, value []byte, err error) {
	for len(b.buf) == 0 {
		if err := b.next(); err != nil {
			return nil, nil, err
		}
	}
	if key, err = b.take(); err != nil {
		return nil, nil, err
	}
	if value, err = b.take(); err != nil {
		return nil, nil, err
	}
	if len(key) == 0 || bytes.Compare(key, b.last) <= 0 {
		return nil, nil, damaged("its keys are not in order")
	}
	b.last = append(b.last[:0], key...)
	b.have.Keys++
	b.have.Bytes += int64(len(key) + len(value))
	return key, value, nil
}

// take takes one length and as many bytes from the frame.
func (b *Reader) take() ([]byte, error) {
	n, used := binary.Uvarint(b.buf)
	if used <= 0 || n > uint64(len(b.buf)-used) {
		return nil, damaged("an entry is longer than its frame")
	}
	p := b.buf[used : used+int(n)]
	b.buf = b.buf[used+int(n):]
	return p, nil
}

// next reads the next frame of data, and opens it if there is a key. After the end frame it returns io.EOF.
func (b *Reader) next() error {
	if b.done {
		return io.EOF
	}
	digest := b.sum.Sum(nil)
	kind, payload, err := b.frame()
	switch {
	case err != nil:
		return err
	case kind == frameEnd:
		return b.finish(payload, digest)
	case kind != frameData || len(payload) == 0:
		return damaged("a frame of kind %q", kind)
	}
	b.frames++
	if b.seal != nil {
		if payload, err = b.seal.Open(payload[:0], b.seal.nonce(b.frames-1), payload, nil); err != nil {
			return b.notOpened()
		}
	}
	b.buf = payload
	return nil
}

// notOpened says why a frame cannot be opened, though its checksum is right: the first, since it has another key.
func (b *Reader) notOpened() error {
	if b.frames <= 1 {
		return ErrKey
	}
	return damaged("frame %d was sealed with another key", b.frames)
}

// finish compares what was read with what was written.
func (b *Reader) finish(payload, digest []byte) error {
	var e end
	if json.Unmarshal(payload, &e) != nil || e.Keys < 0 || e.Bytes < 0 {
		return damaged("its end cannot be read")
	}
	if !bytes.Equal(e.Digest, digest) {
		return damaged("its digest is another")
	}
	if b.seal != nil {
		if _, err := b.seal.Open(nil, b.seal.nonce(b.frames), e.Seal, digest); err != nil {
			return b.notOpened()
		}
	}
	if b.sealed { // nothing was opened that could be counted
		b.have.Keys, b.have.Bytes = e.Keys, e.Bytes
	}
	b.have.Spaces = e.Spaces
	if e.Keys != b.have.Keys || e.Bytes != b.have.Bytes {
		return damaged("it should have %d keys of %d bytes, and has %d of %d", e.Keys, e.Bytes, b.have.Keys, b.have.Bytes)
	}
	if n, err := io.Copy(io.Discard, io.LimitReader(b.in, 1)); err != nil || n > 0 {
		return orElse(err, damaged("something follows its end"))
	}
	b.done = true
	return io.EOF
}

func orElse(err, other error) error {
	if err != nil {
		return err
	}
	return other
}

// frame reads one frame and checks it. The length is believed up to a bound, and memory grows with what comes.
func (b *Reader) frame() (kind byte, payload []byte, err error) {
	head := make([]byte, 5)
	if _, err := b.read(head); err != nil {
		return 0, nil, cut(err)
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n > maxFrame || (head[0] != frameData && n > maxJSON) {
		return 0, nil, damaged("a frame of %d bytes", n)
	}
	var grown bytes.Buffer
	if _, err := io.CopyN(&grown, b.in, int64(n)); err != nil {
		return 0, nil, cut(err)
	}
	payload = grown.Bytes()
	b.sum.Write(payload)
	b.have.Size += int64(n)
	tail := make([]byte, 4)
	if _, err := b.read(tail); err != nil {
		return 0, nil, cut(err)
	}
	if crc32.Update(crc32.Checksum(head, crcTable()), crcTable(), payload) != binary.BigEndian.Uint32(tail) {
		return 0, nil, damaged("a checksum is wrong, before byte %d", b.have.Size)
	}
	return head[0], payload, nil
}

// read fills p.
func (b *Reader) read(p []byte) (int, error) {
	n, err := io.ReadFull(b.in, p)
	b.sum.Write(p[:n])
	b.have.Size += int64(n)
	return n, err
}

func short(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }

// cut names the end of a file where none should be.
func cut(err error) error {
	if short(err) {
		return damaged("it is cut off")
	}
	return err
}

// Check reads a whole file and returns what it holds, or what is wrong with it. It needs no key: a sealed file's frames are checked, not
// opened.
func Check(r io.Reader) (Summary, error) {
	b, err := newReader(r)
	if err != nil {
		return Summary{}, err
	}
	for {
		if b.sealed {
			err = b.next()
		} else {
			_, _, err = b.Next()
		}
		if errors.Is(err, io.EOF) {
			return b.have, nil
		}
		if err != nil {
			return Summary{}, err
		}
	}
}
