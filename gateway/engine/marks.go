package engine

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

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

// markOf is one mark for one function.
type markOf struct{ mark, fn string }

// take removes marks from the index and returns what the store has of them.
func (m *marks) take(list []string) (gone []markOf) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, mark := range list {
		for _, fn := range m.by[mark] {
			gone = append(gone, markOf{mark, fn})
		}
		delete(m.by, mark)
	}
	return gone
}

// has says whether a mark holds: what is only in the store is about to be deleted.
func (m *marks) has(x markOf) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Contains(m.by[x.mark], x.fn)
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

// Marks that no longer hold are deleted from the store little by little, so that no commit has to carry them all: in about
// a hundred updates, forgetEvery apart.
const (
	forgetLeast = 16
	forgetEvery = 10 * time.Millisecond
)

// Forget drops marks of a session, or all of them: it is drivers.Marks. They do not hold any more when it returns.
func (e *Engine) Forget(session string, list []string) {
	if len(list) == 0 {
		list = e.marks.of(session)
		e.marked.forget(session)
	}
	if gone := e.marks.take(list); len(gone) > 0 {
		e.deleteMarks(gone, max(forgetLeast, len(gone)/100))
	}
}

// deleteMarks deletes the first few marks from the store, and the others later. One that holds again by then, since its
// packet id was used anew, stays.
func (e *Engine) deleteMarks(gone []markOf, few int) {
	n := min(few, len(gone))
	err := e.st.Update(func(tx store.Tx) error {
		for _, x := range gone[:n] {
			if !e.marks.has(x) {
				tx.Delete(markKey(x.mark, x.fn))
			}
		}
		return nil
	})
	if err != nil {
		e.log.Warn("marks of deliveries were not deleted; after a restart a message with the same id and payload that is sent twice could be taken for one", "error", err)
		return
	}
	if rest := gone[n:]; len(rest) > 0 {
		e.wheel.add(e.clock.Now()+forgetEvery, func() { e.deleteMarks(rest, few) })
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
			if ok && e.marks.has(markOf{d.Mark, j.fn.Name}) && string(v) == string(sum) {
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
