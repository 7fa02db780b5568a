package engine

import (
	"encoding/binary"
	"fmt"
	"maps"
	"sync"

	"github.com/perigee-iot/perigee/internal/store"
)

// losses counts accepted events that left without an outcome, by cause, over restarts. Counting never waits: the counts
// are written soon after.
type losses struct {
	st    *store.Store
	later func(fn func()) // runs fn soon, outside of any update and any lock

	mu      sync.Mutex
	n       map[string]int64
	changed map[string]bool // not written yet
}

func lossKey(cause string) store.Key { return store.NewKey(store.Meta).String("loss").String(cause) }

func openLosses(st *store.Store, later func(fn func())) (*losses, error) {
	l := &losses{st: st, later: later, n: map[string]int64{}, changed: map[string]bool{}}
	err := st.View(func(r store.Reader) error {
		return r.Scan(store.NewKey(store.Meta).String("loss"), nil, func(k, v []byte) bool {
			fields := store.Parse(k)
			_ = fields.String()
			if cause := fields.String(); fields.Err() == nil && len(v) == 8 {
				l.n[cause] = int64(binary.BigEndian.Uint64(v))
			}
			return true
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read the counts of losses: %w", err)
	}
	return l, nil
}

func (l *losses) add(cause string, n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.n[cause] += n
	if len(l.changed) == 0 {
		l.later(l.write)
	}
	l.changed[cause] = true
}

// write stores what has changed. If that is not possible now, the next loss tries again.
func (l *losses) write() {
	l.mu.Lock()
	now := map[string]int64{}
	for cause := range l.changed {
		now[cause] = l.n[cause]
	}
	clear(l.changed)
	l.mu.Unlock()
	_ = l.st.Update(func(tx store.Tx) error {
		for cause, n := range now {
			tx.Put(lossKey(cause), uint64Bytes(uint64(n)))
		}
		return nil
	})
}

func (l *losses) all() map[string]int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.n)
}
