// Package backup is the form of a backup file: all keys and values of a store, in order, in frames with checksums, and at the
// end what they add up to. It knows neither Badger nor what the keys mean, so that a command can check a file without either.
//
// # The file
//
//	"perigee backup 1\n"
//	frame 'H'  JSON: Header
//	frame 'D'  entries: length of the key, key, length of the value, value; lengths are varints, keys ascend
//	…
//	frame 'E'  JSON: counts, and the SHA-256 of everything before this frame
//
// A frame is its type, the length of its payload in four bytes, the payload, and the CRC-32C of all three. A file that was cut off
// has no end frame, so that it is never taken for a whole one.
//
// With a key the payloads of D frames are sealed by AES-256-GCM, each with its number as nonce, under a key derived from that one and the
// salt in the header; the end frame then carries a seal over the digest. What a file is and whether it is whole can be told without the key.
package backup

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"
)

var (
	// ErrNotBackup: the file is something else.
	ErrNotBackup = errors.New("not a backup of perigee")
	// ErrNewer: the file was written by a version of Perigee that has another form of it.
	ErrNewer = errors.New("the backup has a newer form than this version reads")
	// ErrDamaged: the file is not as it was written: cut off, or changed.
	ErrDamaged = errors.New("the backup is damaged")
	// ErrKey: the file is sealed, and this is not its key.
	ErrKey = errors.New("the backup is encrypted, and this is not its key")
)

const (
	magic     = "perigee backup "
	version   = '1'
	headBytes = len(magic) + 2 // with the version and a line feed

	frameHeader = 'H'
	frameData   = 'D'
	frameEnd    = 'E'

	frameBytes = 64 << 10 // a frame of data is closed when it has as many
	maxFrame   = 16 << 20 // bytes of a payload that a reader takes: one value may be large
	maxJSON    = 64 << 10 // bytes of the header and of the end

	saltBytes = 16
)

// Header says what a file is a backup of.
type Header struct {
	Gateway string    `json:"gateway"`        // its id
	Version string    `json:"version"`        // of Perigee
	Schema  uint32    `json:"schema"`         // of the store
	Epoch   string    `json:"epoch"`          // of the store
	Created time.Time `json:"created"`        // by the machine's clock, which may have been wrong
	Salt    []byte    `json:"salt,omitempty"` // the file is sealed; the Writer makes it
}

// Sealed says whether it takes a key to read the data.
func (h Header) Sealed() bool { return len(h.Salt) > 0 }

// Summary is what a whole file holds.
type Summary struct {
	Header
	Keys   int64            // there are
	Bytes  int64            // of keys and values
	Spaces map[string]int64 // keys, by the name of what they belong to
	Size   int64            // of the file, in bytes
}

// end is the payload of the end frame.
type end struct {
	Keys   int64            `json:"keys"`
	Bytes  int64            `json:"bytes"`
	Spaces map[string]int64 `json:"spaces"`
	Digest []byte           `json:"sha256"`
	Seal   []byte           `json:"seal,omitempty"`
}

func crcTable() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// damaged makes an error that wraps ErrDamaged.
func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrDamaged, fmt.Sprintf(format, args...))
}

// sealer seals and opens the payloads of one file.
type sealer struct{ cipher.AEAD }

// newSealer derives a file's own key, so that a nonce never comes twice under one.
func newSealer(key, salt []byte) (*sealer, error) {
	own, err := hkdf.Key(sha256.New, key, salt, "perigee backup", 32)
	if err != nil {
		return nil, fmt.Errorf("derive the key of a backup: %w", err)
	}
	block, err := aes.NewCipher(own)
	if err != nil {
		return nil, fmt.Errorf("derive the key of a backup: %w", err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("derive the key of a backup: %w", err)
	}
	return &sealer{gcm}, nil
}

// nonce is the number of a frame.
func (s *sealer) nonce(n uint64) []byte {
	return binary.BigEndian.AppendUint64(make([]byte, s.NonceSize()-8, s.NonceSize()), n)
}
