package store

import (
	"bytes"
	"slices"
	"strings"
)

// reader reads through the overlays down to the disk.
type reader struct {
	s       *Store
	staging *overlay // of an update; nil for a view
}

// View calls fn with a Reader that sees everything that was updated, durable or not. Each Get sees the present moment
// and each Scan one moment. fn may take its time: it holds up nobody.
func (s *Store) View(fn func(r Reader) error) error {
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		return ErrClosed
	}
	s.views++
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.views--
		s.changed.Broadcast()
		s.mu.Unlock()
	}()
	return fn(&reader{s: s})
}

func (r *reader) Get(key []byte) ([]byte, bool, error) {
	if r.staging != nil {
		if e, ok := r.staging.entries[string(key)]; ok {
			return e.value, !e.deleted, nil
		}
	}
	return r.below(key)
}

// below reads under the update's own writes.
func (r *reader) below(key []byte) ([]byte, bool, error) {
	s := r.s
	s.mu.Lock()
	for _, g := range []*group{s.open, s.sealed} {
		if g == nil {
			continue
		}
		if e, ok := g.entries[string(key)]; ok {
			s.mu.Unlock()
			return e.value, !e.deleted, nil
		}
	}
	if value, ok := s.recent.get(key); ok {
		s.mu.Unlock()
		return value, true, nil
	}
	snap := s.snap.hold()
	s.mu.Unlock()
	defer snap.release()
	return snap.get(key)
}

func (r *reader) Scan(prefix, after []byte, fn func(key, value []byte) bool) error {
	s := r.s
	over := map[string]entry{}
	if r.staging != nil {
		r.staging.collect(string(prefix), string(after), over)
	}
	s.mu.Lock()
	s.open.collect(string(prefix), string(after), over)
	if s.sealed != nil {
		s.sealed.collect(string(prefix), string(after), over)
	}
	snap := s.snap.hold()
	s.mu.Unlock()
	defer snap.release()
	return merge(over, snap, prefix, after, fn)
}

// merge walks the overlay's entries and the disk's keys side by side. Where both have a key, the overlay's counts.
func merge(over map[string]entry, snap *snapshot, prefix, after []byte, fn func(key, value []byte) bool) error {
	keys := make([]string, 0, len(over))
	for key := range over {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, strings.Compare)
	more := true
	// upTo hands out the overlay's entries that come before key, nil being the end of everything.
	upTo := func(key []byte) {
		for more && len(keys) > 0 && (key == nil || keys[0] < string(key)) {
			if e := over[keys[0]]; !e.deleted {
				more = fn([]byte(keys[0]), e.value)
			}
			keys = keys[1:]
		}
	}
	err := snap.scan(prefix, after, func(key []byte, value func() ([]byte, error)) (bool, error) {
		upTo(key)
		if !more {
			return false, nil
		}
		if _, hidden := over[string(key)]; hidden {
			return true, nil
		}
		v, err := value()
		if err != nil {
			return false, err
		}
		more = fn(bytes.Clone(key), v)
		return more, nil
	})
	if err != nil {
		return err
	}
	upTo(nil)
	return nil
}
