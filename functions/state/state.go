// Package state keeps what functions remember: JSON values by name, in the store.
//
// A function has a state for each of its keys, and one shared state across keys. Both count towards one quota
// (limits.state). Values of a key cannot conflict, since the events of a key run one at a time. Shared values can, so each
// carries a version, and the set of shared names has one too: a reader remembers the versions it saw, and whoever commits
// compares them. Versions come from a counter that never goes back, so that a name deleted and made again has a new one.
//
// # The keys
//
// Everything is in the space store.State, below the function's name:
//
//	function "k" key name   a value of a key: JSON
//	function "s" name       a shared value: its version, eight bytes, and JSON
//	function "t"            the function's totals: count, bytes, digest, counter, version of the set of shared names
//
// In the space store.Stateful stands the name of each function that has totals.
//
// The totals are written in the transaction that changes a value. Their digest is over all values, so that [Verify] notices
// if the disk has lost some: state.get("n", 0) would quietly begin at 0 again.
package state

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/internal/store"
)

// MaxName and MaxKey bound names and keys, in bytes.
const (
	MaxName = functions.MaxValue
	MaxKey  = 1024
)

// ErrNotNumber is wrapped by the error of an Incr on a value that is no number.
var ErrNotNumber = errors.New("not a number")

// ErrBadValue is wrapped by the errors of writes that can never work: a value that is no JSON, a name that is empty or
// too long.
var ErrBadValue = errors.New("cannot be kept")

// Ref names one of the states of a function.
type Ref struct {
	Function string
	Key      string
	Shared   bool
}

// Keyed is the state of one key of a function.
func Keyed(function, key string) Ref { return Ref{Function: function, Key: key} }

// Shared is the state of a function across keys.
func Shared(function string) Ref { return Ref{Function: function, Shared: true} }

// Tags of a function's keys.
const (
	tagKeyed  = "k"
	tagShared = "s"
	tagTotals = "t"
)

func functionKey(function string) store.Key { return store.NewKey(store.State).String(function) }

// base is what the keys of a state's values begin with.
func (r Ref) base() store.Key {
	if r.Shared {
		return functionKey(r.Function).String(tagShared)
	}
	return functionKey(r.Function).String(tagKeyed).String(r.Key)
}

func (r Ref) check(name string) error {
	switch {
	case r.Function == "":
		return fmt.Errorf("state of no function %w", ErrBadValue)
	case name == "":
		return fmt.Errorf("a value without a name %w", ErrBadValue)
	case len(name) > MaxName:
		return fmt.Errorf("%.40q… %w: a name has at most %d bytes, this one %d", name, ErrBadValue, MaxName, len(name))
	case len(r.Key) > MaxKey:
		return fmt.Errorf("state of key %.40q… %w: a key has at most %d bytes, this one %d", r.Key, ErrBadValue, MaxKey, len(r.Key))
	}
	return nil
}

// split takes a stored value apart. The version of a keyed value is 0.
func (r Ref) split(stored []byte) (value []byte, version uint64, err error) {
	if !r.Shared {
		return stored, 0, nil
	}
	if len(stored) < 8 {
		return nil, 0, fmt.Errorf("shared state of function %s: %w: a value without its version", r.Function, store.ErrDamaged)
	}
	return stored[8:], binary.BigEndian.Uint64(stored), nil
}

// Get returns a value, as JSON, and whether it is there.
func Get(r store.Reader, ref Ref, name string) ([]byte, bool, error) {
	value, ok, _, err := read(r, ref, name)
	return value, ok, err
}

func read(r store.Reader, ref Ref, name string) (value []byte, ok bool, version uint64, err error) {
	stored, ok, err := r.Get(ref.base().String(name))
	if err != nil || !ok {
		return nil, false, 0, err
	}
	value, version, err = ref.split(stored)
	return value, err == nil, version, err
}

// Value is Get in a View of its own; the value is the caller's.
func Value(s *store.Store, ref Ref, name string) (value []byte, ok bool, err error) {
	err = s.View(func(r store.Reader) error {
		value, ok, err = Get(r, ref, name)
		value = bytes.Clone(value)
		return err
	})
	return value, ok, err
}

// Version returns the version of a shared value: when it was last written. 0 is an absent one.
func Version(r store.Reader, ref Ref, name string) (uint64, error) {
	_, _, version, err := read(r, ref, name)
	return version, err
}

// SetVersion returns the version of the set of shared names: when one was last added or removed. Keys depends on it.
func SetVersion(r store.Reader, ref Ref) (uint64, error) {
	t, err := readTotals(r, ref.Function)
	return t.set, err
}

// Keys returns the names in a state that begin with prefix, in order, at most limit of them (0: all). It is never nil.
func Keys(r store.Reader, ref Ref, prefix string, limit int) ([]string, error) {
	names := []string{}
	var bad error
	base := ref.base()
	err := r.Scan(base.Prefix(prefix), nil, func(key, _ []byte) bool {
		e, err := parse(key)
		if err != nil {
			bad = err
			return false
		}
		names = append(names, e.Name)
		return limit == 0 || len(names) < limit
	})
	return names, errors.Join(err, bad)
}

// Set writes a value, which must be JSON. It returns a *QuotaError if the function would have more than limit bytes (0: no limit).
func Set(tx store.Tx, ref Ref, name string, value []byte, limit int64) error {
	if err := ref.check(name); err != nil {
		return err
	}
	if !json.Valid(value) {
		return fmt.Errorf("state %q of function %s %w: it is not JSON", name, ref.Function, ErrBadValue)
	}
	return write(tx, ref, name, value, limit)
}

// Delete removes a value. Removing an absent one is fine.
func Delete(tx store.Tx, ref Ref, name string) error { return write(tx, ref, name, nil, 0) }

// Incr adds by to a number, an absent one counting as 0. It returns an error that wraps ErrNotNumber if what is there is
// something else, or if the sum is no number that JSON has.
func Incr(tx store.Tx, ref Ref, name string, by float64, limit int64) error {
	if err := ref.check(name); err != nil {
		return err
	}
	old, ok, err := Get(tx, ref, name)
	if err != nil {
		return err
	}
	var n float64
	// A JSON null would leave n as it is.
	if ok && (bytes.Equal(old, []byte("null")) || json.Unmarshal(old, &n) != nil) {
		return fmt.Errorf("state %q of function %s is %.40s: %w", name, ref.Function, old, ErrNotNumber)
	}
	n += by
	if math.IsNaN(n) || math.IsInf(n, 0) {
		return fmt.Errorf("state %q of function %s plus %g: %w", name, ref.Function, by, ErrNotNumber)
	}
	value, err := json.Marshal(n)
	if err != nil {
		return err
	}
	return write(tx, ref, name, value, limit)
}

// write sets a value, or removes it if value is nil, and keeps the totals.
func write(tx store.Tx, ref Ref, name string, value []byte, limit int64) error {
	key := ref.base().String(name)
	old, had, err := tx.Get(key)
	if err != nil {
		return err
	}
	if value == nil && !had {
		return nil
	}
	t, err := readTotals(tx, ref.Function)
	if err != nil {
		return err
	}
	if ref.Shared {
		t.counter++
		if had != (value != nil) {
			t.set = t.counter
		}
	}
	before := t.bytes
	if had {
		t.remove(key, old)
	}
	if value == nil {
		tx.Delete(key)
		t.put(tx, ref.Function)
		return nil
	}
	stored := value
	if ref.Shared {
		stored = append(binary.BigEndian.AppendUint64(nil, t.counter), value...)
	}
	t.add(key, stored)
	// A function that is over its quota already, since the limit was lowered, may still shrink.
	if limit > 0 && t.bytes > limit && t.bytes > before {
		return &QuotaError{Function: ref.Function, Limit: limit, Have: before, Need: t.bytes}
	}
	tx.Put(key, stored)
	t.put(tx, ref.Function)
	return nil
}

// QuotaError is a write that would take a function's state over its limit.
type QuotaError struct {
	Function string
	Limit    int64 // bytes that it may have: limits.state
	Have     int64 // bytes that it has
	Need     int64 // bytes that it would have
}

// Error names the limit and what to do.
func (e *QuotaError) Error() string {
	return functions.OverLimit("state", fmt.Sprintf("%d bytes", e.Need), strconv.FormatInt(e.Limit, 10)) +
		": delete some, or raise limits.state in function.yaml"
}
