package backup

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
)

// Writer writes one file. After an error it is of no more use.
type Writer struct {
	out    *bufio.Writer
	sum    hash.Hash
	seal   *sealer // nil: plain
	name   func(first byte) string
	frames uint64 // of data
	buf    []byte // entries of the frame in the making
	last   []byte // key
	info   Summary
}

// NewWriter begins a file. With a key (32 bytes) its data is sealed; nil leaves it plain. Name says what keys with such a first byte belong
// to.
func NewWriter(w io.Writer, h Header, key []byte, name func(first byte) string) (*Writer, error) {
	b := &Writer{name: name, out: bufio.NewWriterSize(w, frameBytes), sum: sha256.New()}
	h.Salt = nil
	if key != nil {
		h.Salt = make([]byte, saltBytes)
		rand.Read(h.Salt)
		var err error
		if b.seal, err = newSealer(key, h.Salt); err != nil {
			return nil, err
		}
	}
	b.info = Summary{Header: h, Spaces: map[string]int64{}}
	if err := b.write(append([]byte(magic), version, '\n')); err != nil {
		return nil, err
	}
	return b, b.json(frameHeader, h)
}

// Add adds one entry. Keys must ascend, and one has at least a byte.
func (b *Writer) Add(key, value []byte) error {
	if len(key) == 0 || bytes.Compare(key, b.last) <= 0 {
		return fmt.Errorf("write a backup: key %q does not follow %q", key, b.last)
	}
	if len(key)+len(value) > maxFrame-64 {
		return fmt.Errorf("write a backup: key %.60q has %d bytes, at most %d fit", key, len(value), maxFrame-64)
	}
	if len(b.buf) > 0 && len(b.buf)+len(key)+len(value) > frameBytes {
		if err := b.flush(); err != nil {
			return err
		}
	}
	b.last = append(b.last[:0], key...)
	b.buf = binary.AppendUvarint(b.buf, uint64(len(key)))
	b.buf = append(b.buf, key...)
	b.buf = binary.AppendUvarint(b.buf, uint64(len(value)))
	b.buf = append(b.buf, value...)
	b.info.Keys++
	b.info.Bytes += int64(len(key) + len(value))
	b.info.Spaces[b.name(key[0])]++
	return nil
}

// Close writes the end and returns what the file holds. It does not close what it writes to.
func (b *Writer) Close() (Summary, error) {
	if err := b.flush(); err != nil {
		return Summary{}, err
	}
	e := end{Keys: b.info.Keys, Bytes: b.info.Bytes, Spaces: b.info.Spaces, Digest: b.sum.Sum(nil)}
	if b.seal != nil {
		e.Seal = b.seal.Seal(nil, b.seal.nonce(b.frames), nil, e.Digest)
	}
	if err := b.json(frameEnd, e); err != nil {
		return Summary{}, err
	}
	return b.info, b.out.Flush()
}

// flush closes the frame in the making.
func (b *Writer) flush() error {
	if len(b.buf) == 0 {
		return nil
	}
	payload := b.buf
	if b.seal != nil {
		payload = b.seal.Seal(nil, b.seal.nonce(b.frames), b.buf, nil)
	}
	b.frames++
	b.buf = b.buf[:0]
	return b.frame(frameData, payload)
}

func (b *Writer) json(kind byte, v any) error {
	payload, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return b.frame(kind, payload)
}

func (b *Writer) frame(kind byte, payload []byte) error {
	head := binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(payload)))
	sum := crc32.Update(crc32.Checksum(head, crcTable()), crcTable(), payload)
	for _, part := range [][]byte{head, payload, binary.BigEndian.AppendUint32(nil, sum)} {
		if err := b.write(part); err != nil {
			return err
		}
	}
	return nil
}

func (b *Writer) write(p []byte) error {
	b.sum.Write(p)
	b.info.Size += int64(len(p))
	_, err := b.out.Write(p)
	return err
}
