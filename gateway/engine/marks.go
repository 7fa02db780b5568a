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

// marksKept is how many marks of a session are kept: the newest. A sender would have to be further behind in reading our acknowledgements
// to need an older one. The embedded broker lets no client of MQTT 5 have as many messages under way; other clients that send without waiting for
// acknowledgements can.
const marksKept = 1024

// marks knows which marks are in the store, so that dropping them needs no search.
type marks struct {
	mu    sync.Mutex
	by    map[string]*markEntry
	queue map[string][]*markEntry // session → its marks, oldest first; those that are gone stay until they are the oldest
}

// markEntry is a mark that holds.
type markEntry struct {
	mark string
	fns  []string
	gone bool
}

func openMarks(st *store.Store) (*marks, error) {
	m := &marks{by: map[string]*markEntry{}, queue: map[string][]*markEntry{}}
	err := st.View(func(r store.Reader) error {
		return r.Scan(store.NewKey(store.Marks), nil, func(k, _ []byte) bool {
			f := store.Parse(k)
			mark, fn := f.String(), f.String()
			if f.Err() == nil {
				m.add(mark, fn)
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
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, x := range m.add(j.from.mark, j.fn.Name) {
		tx.Delete(markKey(x.mark, x.fn))
	}
	tx.Put(markKey(j.from.mark, j.fn.Name), uint64Bytes(j.from.digest))
}

// add notes a mark for a function, and returns what is one too many for its session. The caller holds mu, if anybody else knows of m.
func (m *marks) add(mark, fn string) (over []markOf) {
	if x := m.by[mark]; x != nil {
		if !slices.Contains(x.fns, fn) {
			x.fns = append(x.fns, fn)
		}
		return nil
	}
	session, _, _ := strings.Cut(mark, "\x00")
	x := &markEntry{mark: mark, fns: []string{fn}}
	m.by[mark] = x
	q := append(m.queue[session], x)
	for len(q) > marksKept || q[0].gone {
		if old := q[0]; !old.gone {
			for _, fn := range old.fns {
				over = append(over, markOf{old.mark, fn})
			}
			delete(m.by, old.mark)
		}
		q[0] = nil
		q = q[1:]
	}
	m.queue[session] = q
	return over
}

// markOf is one mark for one function.
type markOf struct{ mark, fn string }

// take removes marks from the index and returns what the store has of them.
func (m *marks) take(list []string) (gone []markOf) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, mark := range list {
		x := m.by[mark]
		if x == nil {
			continue
		}
		for _, fn := range x.fns {
			gone = append(gone, markOf{mark, fn})
		}
		x.gone = true
		delete(m.by, mark)
		m.trim(mark)
	}
	return gone
}

// trim forgets the oldest marks of a mark's session that are gone.
func (m *marks) trim(mark string) {
	session, _, _ := strings.Cut(mark, "\x00")
	q := m.queue[session]
	for len(q) > 0 && q[0].gone {
		q[0] = nil
		q = q[1:]
	}
	if m.queue[session] = q; len(q) == 0 {
		delete(m.queue, session)
	}
}

// has says whether a mark holds: what is only in the store is about to be deleted.
func (m *marks) has(x markOf) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	is := m.by[x.mark]
	return is != nil && slices.Contains(is.fns, x.fn)
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
