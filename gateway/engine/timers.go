package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/internal/event"
	"github.com/perigee-iot/perigee/internal/store"
	"github.com/perigee-iot/perigee/internal/wire"
)

// Timers stand in the store as Timers / function / key / name → due on the gateway's clock. When one is due, one update
// removes it and puts its event into the inbox, so that it fires exactly once.

type timerID struct{ key, name string }

// maxTimers bounds the timers of one function.
const maxTimers = 10000

func timerKey(fn string, id timerID) store.Key {
	return store.NewKey(store.Timers).String(fn).String(id.key).String(id.name)
}

// putTimer sets or cancels a timer in the update of its invocation.
func (e *Engine) putTimer(tx store.Tx, j *job, x *functions.Effect) error {
	f, id := j.fn, timerID{j.key, x.Name}
	if x.Kind == functions.CancelTimer {
		tx.Delete(timerKey(f.Name, id))
		tx.OnDurable(func() { e.disarm(f.Name, id) })
		return nil
	}
	due := e.clock.Now() + x.For
	w := wire.NewWriter(nil)
	w.Int(int64(due))
	w.Uint(uint64(j.ev.Chain))
	tx.Put(timerKey(f.Name, id), w.Data())
	tx.OnDurable(func() { e.arm(f.Name, id, due) })
	return nil
}

// arm schedules a durable timer.
func (e *Engine) arm(fn string, id timerID, due time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	f := e.fns[fn]
	if f == nil {
		return
	}
	e.wheel.cancel(f.timers[id])
	f.timers[id] = e.wheel.add(due, func() { e.fire(fn, id, due) })
}

func (e *Engine) disarm(fn string, id timerID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if f := e.fns[fn]; f != nil {
		e.wheel.cancel(f.timers[id])
		delete(f.timers, id)
	}
}

var errTimerGone = errors.New("the timer was set anew or cancelled")

// fire turns a timer that is due into an event.
func (e *Engine) fire(fn string, id timerID, due time.Duration) {
	e.mu.Lock()
	f := e.fns[fn]
	if f == nil {
		e.mu.Unlock()
		return
	}
	delete(f.timers, id)
	e.mu.Unlock()
	ev := &event.Event{Source: "timer/" + fn, Type: event.Timer, Subject: id.name, Data: []byte("null"), Key: id.key, HasKey: true}
	e.stamp(ev)
	j := &job{fn: f, ev: ev, key: id.key, size: 256 + len(id.name), life: e.lives.add(ev), order: e.seq.next(), since: e.clock.Now()}
	err := e.storeJobs([]*job{j}, func(tx store.Tx) error {
		v, ok, err := tx.Get(timerKey(fn, id))
		if err != nil {
			return err
		}
		r := wire.NewReader(v)
		if !ok || time.Duration(r.Int()) != due {
			return errTimerGone
		}
		tx.Delete(timerKey(fn, id))
		tx.OnFail(func(error) { // it still stands there, and fires again
			j.dropped.Store(true)
			e.arm(fn, id, due)
		})
		return nil
	})
	switch {
	case err == nil:
		e.counts.received.Add(1)
		e.start([]*job{j})
	case errors.Is(err, errTimerGone), errors.Is(err, store.ErrClosed), errors.Is(err, store.ErrBroken):
	default:
		e.log.Warn("a timer that is due cannot be stored as an event; it will be tried again", "function", fn, "timer", id.name, "error", err)
		e.mu.Lock()
		f.timers[id] = e.wheel.add(e.clock.Now()+e.opt.RedoAfter, func() { e.fire(fn, id, due) })
		e.mu.Unlock()
	}
}

// dropTimers deletes the timers of a removed function, a bounded number at a time. It returns when they are gone for good.
func (e *Engine) dropTimers(ctx context.Context, fn string) error {
	for dropped := 0; ; {
		n := 0
		err := e.update(func(tx store.Tx) error {
			n = 0
			return tx.Scan(store.NewKey(store.Timers).String(fn), nil, func(k, _ []byte) bool {
				tx.Delete(append([]byte(nil), k...))
				n++
				return n < timersAtOnce
			})
		})
		if err == nil && n == 0 {
			return nil
		}
		if err == nil {
			err = e.st.Flush(ctx)
		}
		if err == nil {
			continue
		}
		if dropped++; dropped == updateTries || !errors.Is(err, store.ErrDropped) {
			return fmt.Errorf("delete the timers of function %q: %w", fn, err)
		}
	}
}

// timersAtOnce is how many timers one update deletes.
const timersAtOnce = 256

// loadTimersOf schedules the stored timers of a function that has been installed.
func (e *Engine) loadTimersOf(fn string) error {
	type stored struct {
		id  timerID
		due time.Duration
	}
	var found []stored
	err := e.st.View(func(r store.Reader) error {
		return r.Scan(store.NewKey(store.Timers).String(fn), nil, func(k, v []byte) bool {
			fields := store.Parse(k)
			_ = fields.String()
			id := timerID{key: fields.String(), name: fields.String()}
			w := wire.NewReader(v)
			due := time.Duration(w.Int())
			if err := errors.Join(fields.Err(), w.Err()); err != nil {
				e.log.Error("a timer cannot be read and will not fire", "function", fn, "error", err)
				e.losses.add("damaged", 1)
				return true
			}
			found = append(found, stored{id, due})
			return len(found) < maxTimers
		})
	})
	if err != nil {
		return fmt.Errorf("read the timers of function %q: %w", fn, err)
	}
	for _, t := range found {
		e.arm(fn, t.id, t.due)
	}
	return nil
}
