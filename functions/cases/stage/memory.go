package stage

import (
	"bytes"
	"maps"
	"slices"
	"strings"

	"github.com/perigee-iot/perigee/internal/store"
)

// memory is a store for one case: what functions/state needs of one, in a map.
type memory struct {
	keys map[string][]byte
	size int64 // of what the update under way has put and deleted
}

// update runs fn on a copy, which takes the place of what there was if fn returns no error.
func (m *memory) update(fn func(store.Tx) error) error {
	next := &memory{keys: maps.Clone(m.keys)}
	if next.keys == nil {
		next.keys = map[string][]byte{}
	}
	if err := fn(next); err != nil {
		return err
	}
	m.keys = next.keys
	return nil
}

// Get is that of store.Reader.
func (m *memory) Get(key []byte) ([]byte, bool, error) {
	v, ok := m.keys[string(key)]
	return v, ok, nil
}

// Scan is that of store.Reader.
func (m *memory) Scan(prefix, after []byte, fn func(key, value []byte) bool) error {
	for _, k := range slices.Sorted(maps.Keys(m.keys)) {
		if strings.HasPrefix(k, string(prefix)) && (after == nil || k > string(after)) && !fn([]byte(k), m.keys[k]) {
			return nil
		}
	}
	return nil
}

// Put is that of store.Tx.
func (m *memory) Put(key, value []byte) {
	m.size += int64(len(key) + len(value))
	m.keys[string(key)] = append([]byte{}, value...)
}

// PutNew is that of store.Tx.
func (m *memory) PutNew(key, value []byte) { m.Put(key, value) }

// Delete is that of store.Tx.
func (m *memory) Delete(key []byte) {
	m.size += int64(len(key))
	delete(m.keys, string(key))
}

// Size is that of store.Tx.
func (m *memory) Size() int64 { return m.size }

// Urgent does nothing: nothing waits for a disk here.
func (m *memory) Urgent() {}
func (m *memory) Soon()   {}

// OnJoin calls fn at once.
func (m *memory) OnJoin(fn func()) { fn() }

// OnDurable calls fn at once.
func (m *memory) OnDurable(fn func()) { fn() }

// OnFail never calls fn.
func (m *memory) OnFail(func(error)) {}

var _ store.Tx = (*memory)(nil)

// equal compares two values of which one may be absent.
func equal(a, b []byte) bool { return (a == nil) == (b == nil) && bytes.Equal(a, b) }
