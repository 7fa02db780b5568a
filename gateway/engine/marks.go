package engine

import (
	"fmt"
	"strings"
	"sync"

	"github.com/perigee-iot/perigee/drivers"
	"github.com/perigee-iot/perigee/internal/store"
)

// Marks against duplicates: a sender that has not seen our acknowledgement sends a message again and says so (MQTT:
// DUP). The update that makes a job durable also writes Marks / mark / function → digest of topic and payload; a
// repetition that finds it has been dealt with. A mark goes when the sender is known to have seen the acknowledgement,
// or has forgotten the session.

func markKey(mark, fn string) store.Key {
	return store.NewKey(store.Marks).String(mark).String(fn)
}

// marks knows which marks are in the store, so that dropping them needs no search. There are as many as senders may
// have acknowledgements under way.
type marks struct {
	mu sync.Mutex
	by map[string][]string // mark → functions
}

func openMarks(st *store.Store) (*marks, error) {
	m := &marks{by: map[string][]string{}}
	err := st.View(func(r store.Reader) error {
		return r.Scan(store.NewKey(store.Marks), nil, func(k, _ []byte) bool {
			f := store.Parse(k)
			mark, fn := f.String(), f.String()
			if f.Err() == nil {
				m.by[mark] = append(m.by[mark], fn)
			}
			return true
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read the marks of deliveries: %w", err)
	}
	return m, nil
}

// put marks a job's delivery for its function, in the update that makes the job durable.
func (m *marks) put(tx store.Tx, j *job) {
	if j.from == nil || j.from.mark == "" {
		return
	}
	tx.Put(markKey(j.from.mark, j.fn.Name), uint64Bytes(j.from.digest))
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, fn := range m.by[j.from.mark] {
		if fn == j.fn.Name {
			return
		}
	}
	m.by[j.from.mark] = append(m.by[j.from.mark], j.fn.Name)
}

// take removes marks from the index and returns their keys.
func (m *marks) take(list []string) (keys []store.Key) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, mark := range list {
		for _, fn := range m.by[mark] {
			keys = append(keys, markKey(mark, fn))
		}
		delete(m.by, mark)
	}
	return keys
}

// of lists the marks of a session.
func (m *marks) of(session string) (list []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for mark := range m.by {
		if strings.HasPrefix(mark, session+"\x00") {
			list = append(list, mark)
		}
	}
	return list
}

// forgetMost bounds the marks that one update drops.
const forgetMost = 256

// Forget drops marks of a session, or all of them: it is drivers.Marks.
func (e *Engine) Forget(session string, list []string) {
	if len(list) == 0 {
		list = e.marks.of(session)
		e.marked.forget(session)
	}
	for len(list) > 0 {
		n := min(len(list), forgetMost)
		keys := e.marks.take(list[:n])
		list = list[n:]
		if len(keys) == 0 {
			continue
		}
		err := e.st.Update(func(tx store.Tx) error {
			for _, k := range keys {
				tx.Delete(k)
			}
			return nil
		})
		if err != nil {
			e.log.Warn("marks of deliveries were not dropped; a later message with the same id and payload that is sent twice could be taken for one", "error", err)
			return
		}
	}
}

// usedAnew drops a mark whose packet id comes with a new message: the sender has seen the acknowledgement of the old one.
func (e *Engine) usedAnew(mark string) {
	e.marks.mu.Lock()
	_, known := e.marks.by[mark]
	e.marks.mu.Unlock()
	if known {
		session, _, _ := strings.Cut(mark, "\x00")
		e.Forget(session, []string{mark})
	}
}

// withoutMarked drops the jobs that a repeated delivery has had an outcome or an inbox entry for.
func (e *Engine) withoutMarked(d drivers.Delivery, jobs []*job) []*job {
	sum := uint64Bytes(digest([]byte(d.Event.Topic), d.Event.Data))
	rest := jobs[:0]
	err := e.st.View(func(r store.Reader) error {
		for _, j := range jobs {
			v, ok, err := r.Get(markKey(d.Mark, j.fn.Name))
			if err != nil {
				return err
			}
			if ok && string(v) == string(sum) {
				e.counts.duplicates.Add(1)
				j.life.outcome(j.fn, "duplicate", "its sender had not seen our acknowledgement")
				continue
			}
			rest = append(rest, j)
		}
		return nil
	})
	if err != nil {
		e.log.Error("the marks of repeated deliveries cannot be read; the event runs again", "error", err)
		return jobs
	}
	return rest
}
