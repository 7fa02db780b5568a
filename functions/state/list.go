package state

import (
	"errors"
	"fmt"

	"github.com/perigee-iot/perigee/internal/store"
)

// Entry is one value.
type Entry struct {
	Ref
	Name    string
	Value   []byte // JSON
	Version uint64 // of a shared value
}

// parse takes the key of a value apart.
func parse(key []byte) (Entry, error) {
	f := store.Parse(key)
	e := Entry{Ref: Ref{Function: f.String()}}
	switch tag := f.String(); tag {
	case tagKeyed:
		e.Key = f.String()
	case tagShared:
		e.Shared = true
	default:
		return e, fmt.Errorf("state key %q: %w", key, store.ErrBadKey)
	}
	e.Name = f.String()
	if err := f.Err(); err != nil {
		return e, fmt.Errorf("state key %q: %w", key, err)
	}
	return e, nil
}

// Each calls fn for every value in one state of a function, in the order of names, until fn returns false.
func Each(r store.Reader, ref Ref, fn func(Entry) bool) error { return each(r, ref.base(), fn) }

// EachOf calls fn for every value of a function, of all keys and then shared, until fn returns false.
func EachOf(r store.Reader, function string, fn func(Entry) bool) error {
	more := true
	for _, tag := range []string{tagKeyed, tagShared} {
		err := each(r, functionKey(function).String(tag), func(e Entry) bool {
			more = fn(e)
			return more
		})
		if err != nil || !more {
			return err
		}
	}
	return nil
}

func each(r store.Reader, prefix store.Key, fn func(Entry) bool) error {
	var bad error
	err := r.Scan(prefix, nil, func(key, stored []byte) bool {
		e, err := parse(key)
		if err == nil {
			e.Value, e.Version, err = e.split(stored)
		}
		if err != nil {
			bad = err
			return false
		}
		return fn(e)
	})
	return errors.Join(err, bad)
}

// Purge removes at most limit values (0: 1,000) of a function and returns how many are left to remove, so that a large
// state goes in several updates. The counter of versions stays: an invocation may still be under way that read something.
func Purge(tx store.Tx, function string, limit int) (left int64, err error) {
	if limit <= 0 {
		limit = 1000
	}
	t, err := readTotals(tx, function)
	if err != nil {
		t = totals{absent: true} // it goes anyway
	}
	type pair struct{ key, stored []byte }
	var gone []pair
	more := false
	for _, tag := range []string{tagKeyed, tagShared} {
		err := tx.Scan(functionKey(function).String(tag), nil, func(key, stored []byte) bool {
			if more = len(gone) == limit; more {
				return false
			}
			gone = append(gone, pair{key, stored})
			return true
		})
		if err != nil {
			return 0, err
		}
	}
	for _, p := range gone {
		tx.Delete(p.key)
		t.remove(p.key, p.stored)
	}
	t.counter++
	t.set = t.counter
	if !more {
		t.count, t.bytes, t.digest = 0, 0, 0
	}
	if len(gone) > 0 || more {
		t.put(tx, function)
	}
	if more {
		return max(t.count, 1), nil
	}
	return 0, nil
}
