package engine

import (
	"encoding/binary"
	"fmt"
	"sync"

	"github.com/perigee-iot/perigee/internal/event"
	"github.com/perigee-iot/perigee/internal/store"
)

// retainedMemory remembers the last payload of each topic that a function has committed, as a digest: a retained
// message comes again with every subscription, and is skipped if it brings nothing new.
type retainedMemory struct {
	mu   sync.Mutex
	last map[string]uint64
}

// seenTopics bounds the topics remembered for one function.
const seenTopics = 4096

func seenKey(fn, topic string) store.Key { return store.NewKey(store.Seen).String(fn).String(topic) }

func loadSeen(st *store.Store, fn string) (*retainedMemory, error) {
	m := &retainedMemory{last: map[string]uint64{}}
	err := st.View(func(r store.Reader) error {
		return r.Scan(store.NewKey(store.Seen).String(fn), nil, func(k, v []byte) bool {
			fields := store.Parse(k)
			_ = fields.String()
			if name := fields.String(); fields.Err() == nil && len(v) == 8 {
				m.last[name] = binary.BigEndian.Uint64(v)
			}
			return len(m.last) < seenTopics
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read which messages function %q has seen: %w", fn, err)
	}
	return m, nil
}

// same says whether an event's payload is the last that was committed for its topic.
func (m *retainedMemory) same(ev *event.Event) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	sum, ok := m.last[ev.Topic]
	return ok && sum == digest(ev.Data)
}

// put remembers a message, in the update that has its outcome.
func (m *retainedMemory) put(tx store.Tx, j *job) error {
	f, ev := j.fn, j.ev
	if ev.Type != event.Message || ev.Topic == "" || !j.dep.keepsSeen() {
		return nil
	}
	sum := digest(ev.Data)
	m.mu.Lock()
	was, known := m.last[ev.Topic]
	forget := ""
	if !known && len(m.last) >= seenTopics {
		for forget = range m.last { // any one: what is forgotten runs once more when it comes retained
			break
		}
	}
	m.mu.Unlock()
	if known && was == sum {
		return nil
	}
	if forget != "" {
		tx.Delete(seenKey(f.Name, forget))
	}
	tx.Put(seenKey(f.Name, ev.Topic), uint64Bytes(sum))
	tx.OnDurable(func() {
		m.mu.Lock()
		delete(m.last, forget)
		m.last[ev.Topic] = sum
		m.mu.Unlock()
	})
	return nil
}
