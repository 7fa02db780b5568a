package store

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Key is a key in the making: a space followed by fields. Keys compare as their fields do, one after another, so that a
// scan over a prefix of fields comes in the order of the next one.
//
//	store.NewKey(store.Inbox).String("overheat").Uint(seq)
//
// Every method returns a new key and leaves its receiver as it was, so that prefixes can be shared.
type Key []byte

// A zero byte inside a string becomes escape, escaped; the end of a string is escape, terminator. The terminator is
// smaller than any other byte that may follow an escape, so a string sorts before the longer ones that begin with it.
const (
	escape     = 0x00
	terminator = 0x01
	escaped    = 0xff
)

// NewKey begins a key in space.
func NewKey(space Space) Key { return Key{byte(space)} }

// String adds a string field. It may hold any bytes; no string's field is the beginning of another's.
func (k Key) String(s string) Key {
	return append(k.Prefix(s), escape, terminator)
}

// Prefix adds the beginning of a string field: what all keys with a string that begins with s have in common. It is for
// scans and nothing can be added after it.
func (k Key) Prefix(s string) Key {
	out := make(Key, len(k), len(k)+len(s)+12)
	copy(out, k)
	for i := range len(s) {
		out = append(out, s[i])
		if s[i] == escape {
			out = append(out, escaped)
		}
	}
	return out
}

// Uint adds a number field of eight bytes, big endian.
func (k Key) Uint(u uint64) Key {
	out := make(Key, len(k), len(k)+16)
	copy(out, k)
	return binary.BigEndian.AppendUint64(out, u)
}

// ErrBadKey is wrapped by Fields.Err for a key that was not built by Key, or not with these fields.
var ErrBadKey = errors.New("not a key of this form")

// Fields takes a key apart, field after field. After the first error all of its methods return zero values, so that a
// decoder is a straight line with one check of Err at its end.
type Fields struct {
	rest  []byte
	space Space
	err   error
}

// Parse begins to take key apart.
func Parse(key []byte) *Fields {
	if len(key) == 0 {
		return &Fields{err: fmt.Errorf("%w: it is empty", ErrBadKey)}
	}
	return &Fields{space: Space(key[0]), rest: key[1:]}
}

// Space returns whose key it is.
func (f *Fields) Space() Space { return f.space }

// String takes a string field.
func (f *Fields) String() string {
	var out []byte
	for i := 0; i+1 < len(f.rest); i++ {
		if f.rest[i] != escape {
			out = append(out, f.rest[i])
			continue
		}
		i++
		switch f.rest[i] {
		case terminator:
			f.rest = f.rest[i+1:]
			return string(out)
		case escaped:
			out = append(out, escape)
		default:
			f.fail("a bad escape in a string")
			return ""
		}
	}
	f.fail("a string has no end")
	return ""
}

// Uint takes a number field.
func (f *Fields) Uint() uint64 {
	if len(f.rest) < 8 {
		f.fail("a number is too short")
		return 0
	}
	u := binary.BigEndian.Uint64(f.rest)
	f.rest = f.rest[8:]
	return u
}

// More says whether fields are left.
func (f *Fields) More() bool { return len(f.rest) > 0 }

// Err returns the first error, or nil.
func (f *Fields) Err() error { return f.err }

func (f *Fields) fail(what string) {
	if f.err == nil {
		f.err = fmt.Errorf("%w: %s", ErrBadKey, what)
	}
	f.rest = nil
}
