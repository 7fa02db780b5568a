package engine

import (
	"fmt"
	"sync"
	"time"

	"github.com/perigee-iot/perigee/internal/store"
	"github.com/perigee-iot/perigee/internal/wire"
)

// A function with `dedupe: {by: data.id, window: 10m}` runs once on each value within the window. The value is noted in
// memory when an event matches, and in the store by the update that makes the event durable, as
// Dedupe / function / value → when its window ends, on the gateway's clock.

// deduped are the values that one function has seen, oldest first.
type deduped struct {
	mu    sync.Mutex
	until map[string]sighting
	queue []string // in the order in which their windows end, which is that of their arrival
}

// sighting is a value that was seen.
type sighting struct {
	until time.Duration // when its window ends
	order uint64        // of the job that it was seen with; 0: before the gateway's start
}

// dedupeMost bounds the values remembered for one function; beyond it the oldest are forgotten early.
const dedupeMost = 20000

// dedupeSweep bounds how many old values one update removes.
const dedupeSweep = 4

func dedupeKey(fn, value string) store.Key {
	return store.NewKey(store.Dedupe).String(fn).String(value)
}

func loadDeduped(st *store.Store, fn string) (*deduped, error) {
	d := &deduped{until: map[string]sighting{}}
	err := st.View(func(r store.Reader) error {
		return r.Scan(store.NewKey(store.Dedupe).String(fn), nil, func(k, v []byte) bool {
			f := store.Parse(k)
			_ = f.String()
			value := f.String()
			w := wire.NewReader(v)
			if until := time.Duration(w.Int()); f.Err() == nil && w.Done() == nil {
				d.until[value] = sighting{until: until}
				d.queue = append(d.queue, value)
			}
			return true
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read what function %q has seen: %w", fn, err)
	}
	return d, nil
}

// repeats says that a value was seen within its window, and notes it for the job of that order if not.
func (d *deduped) repeats(value string, order uint64, now, window time.Duration) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	was, known := d.until[value]
	if known && now < was.until {
		return true
	}
	d.until[value] = sighting{now + window, order}
	if !known {
		d.queue = append(d.queue, value)
	}
	return false
}

// windowsOpen says that a window of a function may not have ended yet.
func (e *Engine) windowsOpen() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := e.clock.Now()
	for _, f := range e.fns {
		if f.deduped.open(now) {
			return true
		}
	}
	return false
}

func (d *deduped) open(now time.Duration) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.queue) > 0 && d.until[d.queue[len(d.queue)-1]].until > now
}

// forget takes back what was noted with a job that came to nothing: its event comes again as another job.
func (d *deduped) forget(j *job) {
	if j.dedupe == "" {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.until[j.dedupe].order == j.order {
		d.until[j.dedupe] = sighting{} // it keeps its place in the queue
	}
}

// put notes a job's value in the update that makes it durable, and removes some whose windows have ended.
func (d *deduped) put(tx store.Tx, j *job, now time.Duration) {
	if j.dedupe == "" {
		return
	}
	until, old := d.sweep(j.dedupe, now)
	for _, s := range old {
		tx.Delete(dedupeKey(j.fn.Name, s.value))
	}
	tx.OnJoin(func() { d.remove(old) })
	w := wire.NewWriter(nil)
	w.Int(int64(until))
	tx.Put(dedupeKey(j.fn.Name, j.dedupe), w.Data())
}

type seenValue struct {
	value string
	sighting
}

// sweep returns when a value's window ends, and a few values that are to be forgotten, none of them this one.
func (d *deduped) sweep(value string, now time.Duration) (until time.Duration, old []seenValue) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, first := range d.queue[:min(len(d.queue), dedupeSweep)] {
		s := d.until[first]
		if first == value || (s.until > now && len(d.queue)-i <= dedupeMost) {
			break
		}
		old = append(old, seenValue{first, s})
	}
	return d.until[value].until, old
}

// remove forgets what sweep returned, but for what has been seen again since. Only the writer calls it.
func (d *deduped) remove(old []seenValue) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.queue = d.queue[len(old):]
	for _, s := range old {
		if d.until[s.value] == s.sighting {
			delete(d.until, s.value)
		} else {
			d.queue = append(d.queue, s.value)
		}
	}
}
