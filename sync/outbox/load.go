package outbox

import (
	"fmt"
	"math"

	"github.com/perigee-iot/perigee/internal/store"
)

// load finds the streams: by their descriptions, and by their records in case a description was lost.
func (o *Outbox) load() error {
	names, broken := map[string]*meta{}, map[string]bool{}
	err := o.st.View(func(r store.Reader) error {
		err := r.Scan(metaPrefix(), nil, func(key, value []byte) bool {
			f := store.Parse(key)
			_ = f.String()
			name := f.String()
			m, err := decodeMeta(value)
			if err != nil {
				o.log.Error("a stream's description is damaged; it is made again from its records", "stream", name, "error", err)
				broken[name] = true
			} else {
				names[name] = m
			}
			return true
		})
		if err != nil {
			return err
		}
		return orphans(r, func(name string) {
			if names[name] == nil {
				broken[name] = true
			}
		})
	})
	if err != nil {
		return err
	}
	for name := range broken {
		m, err := o.rebuild(name)
		if err != nil {
			return fmt.Errorf("make the description of stream %s again: %w", name, err)
		}
		names[name] = m
	}
	for name, m := range names {
		s, err := o.stream(name)
		if err != nil {
			return err
		}
		s.head, s.edits = m.next, m.edits
		s.rewind()
	}
	return nil
}

// orphans calls fn for every stream that has records, hopping from one to the next.
func orphans(r store.Reader, fn func(name string)) error {
	prefix := store.NewKey(store.Streams).String("r")
	var from []byte
	for {
		found := false
		err := r.Scan(prefix, from, func(key, _ []byte) bool {
			f := store.Parse(key)
			_ = f.String()
			name := f.String()
			if f.Err() == nil {
				fn(name)
			}
			from, found = recordKey(name, math.MaxUint64), true
			return false
		})
		if err != nil || !found {
			return err
		}
	}
}

// rebuild makes a stream's description from its records. They are taken to belong to the present epoch, since nothing
// says otherwise; what it counted is lost.
func (o *Outbox) rebuild(name string) (*meta, error) {
	var m *meta
	err := o.update(func(tx store.Tx) error {
		m = &meta{first: 1, next: 1}
		m.current(o.gateway, o.st.Epoch())
		err := tx.Scan(recordPrefix(name), nil, func(key, value []byte) bool {
			p := position(key)
			if m.count == 0 {
				m.first = p
				if it, err := decodeItem(value); err == nil && it.gap != nil {
					m.first = max(it.gap.from, 1)
				}
			}
			if it, err := decodeItem(value); err == nil && it.gap != nil {
				m.edits = max(m.edits, it.gap.edit)
			}
			m.count++
			m.bytes += int64(len(key) + len(value))
			m.next = p + 1
			return true
		})
		if err != nil {
			return err
		}
		m.acked = m.first - 1
		tx.Put(metaKey(name), m.encode())
		return nil
	})
	return m, err
}
