package engine

import (
	"fmt"
	"sync"
	"time"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/internal/event"
	"github.com/perigee-iot/perigee/internal/jsonscan"
	"github.com/perigee-iot/perigee/internal/store"
	"github.com/perigee-iot/perigee/internal/wire"
)

// A function with `dedupe: {by: data.id, window: 10m}` runs once on each value within the window. The value is noted in
// memory when an event matches, and in the store by the update that makes the event durable, as
// Dedupe / function / value → when its window ends, on the gateway's clock.

// deduped are the values that one function has seen, oldest first.
type deduped struct {
	mu    sync.Mutex
	until map[string]time.Duration
	queue []string // in the order in which their windows end, which is that of their arrival
}

// dedupeMost bounds the values remembered for one function; beyond it the oldest are forgotten early.
const dedupeMost = 20000

// dedupeSweep bounds how many old values one update removes.
const dedupeSweep = 4

func dedupeKey(fn, value string) store.Key {
	return store.NewKey(store.Dedupe).String(fn).String(value)
}

func loadDeduped(st *store.Store, fn string) (*deduped, error) {
	d := &deduped{until: map[string]time.Duration{}}
	err := st.View(func(r store.Reader) error {
		return r.Scan(store.NewKey(store.Dedupe).String(fn), nil, func(k, v []byte) bool {
			f := store.Parse(k)
			_ = f.String()
			value := f.String()
			w := wire.NewReader(v)
			if until := time.Duration(w.Int()); f.Err() == nil && w.Done() == nil {
				d.until[value] = until
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

// valueOf finds the value that an event is told from others by, "" if it has none: such events always run.
func valueOf(spec *functions.Spec, ev *event.Event) string {
	if spec.Dedupe == nil {
		return ""
	}
	vals, err := jsonscan.Fields(ev.Data, [][]string{spec.Dedupe.By})
	if err != nil {
		return ""
	}
	v, ok := vals[0].Key()
	if !ok || len(v) > maxKey {
		return ""
	}
	return v
}

// repeats says that a value was seen within its window, and notes it if not.
func (d *deduped) repeats(value string, now, window time.Duration) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	until, known := d.until[value]
	if known && now < until {
		return true
	}
	d.until[value] = now + window
	if !known {
		d.queue = append(d.queue, value)
	}
	return false
}

// put notes a job's value in the update that makes it durable, and removes some whose windows have ended.
func (d *deduped) put(tx store.Tx, j *job, now time.Duration) {
	if j.dedupe == "" {
		return
	}
	d.mu.Lock()
	until := d.until[j.dedupe]
	var old []string
	for len(old) < dedupeSweep && len(d.queue) > 0 {
		first := d.queue[0]
		if first == j.dedupe || (d.until[first] > now && len(d.queue) <= dedupeMost) {
			break
		}
		old = append(old, first)
		d.queue = d.queue[1:]
		delete(d.until, first)
	}
	d.mu.Unlock()
	for _, value := range old {
		tx.Delete(dedupeKey(j.fn.Name, value))
	}
	w := wire.NewWriter(nil)
	w.Int(int64(until))
	tx.Put(dedupeKey(j.fn.Name, j.dedupe), w.Data())
}
