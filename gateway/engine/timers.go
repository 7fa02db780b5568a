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

func timerKey(fn string, id timerID) store.Key {
	return store.NewKey(store.Timers).String(fn).String(id.key).String(id.name)
}

// timerChanges are what the effects of one invocation do to the number of its function's timers.
type timerChanges struct {
	f     *function
	limit int
	n     int64
}

// put sets or cancels a timer in the update of its invocation.
func (c *timerChanges) put(e *Engine, tx store.Tx, j *job, x *functions.Effect) error {
	f, id := c.f, timerID{j.key, x.Name}
	key := timerKey(f.Name, id)
	_, had, err := tx.Get(key)
	if err != nil {
		return fmt.Errorf("timer %q: %w", x.Name, err)
	}
	if x.Kind == functions.CancelTimer {
		if had {
			c.n--
		}
		tx.Delete(key)
		tx.OnDurable(func() { e.disarm(f.Name, id) })
		return nil
	}
	if !had {
		c.n++
	}
	due := e.clock.Now() + x.For
	w := wire.NewWriter(nil)
	w.Int(int64(due))
	w.Uint(uint64(j.ev.Chain))
	tx.Put(key, w.Data())
	tx.OnDurable(func() { e.arm(f.Name, id, due) })
	return nil
}

// check refuses more timers than the function may have. One that has too many, since the limit was lowered, may still set those anew.
func (c *timerChanges) check(tx store.Tx) error {
	if sum := c.f.timersSet.Load() + c.n; c.n > 0 && sum > int64(c.limit) {
		return functions.OverTimers(int(sum), c.limit)
	}
	c.f.countTimers(tx, c.n)
	return nil
}

// countTimers counts timers that an update sets, or fewer of them, with its fate.
func (f *function) countTimers(tx store.Tx, n int64) {
	if n != 0 {
		tx.OnJoin(func() { f.timersSet.Add(n) })
		tx.OnFail(func(error) { f.timersSet.Add(-n) })
	}
}

// arm schedules a durable timer.
func (e *Engine) arm(fn string, id timerID, due time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if f := e.fns[fn]; f != nil {
		e.armOf(f, id, due)
	}
}

// armOf is arm for one who holds mu.
func (e *Engine) armOf(f *function, id timerID, due time.Duration) {
	e.wheel.cancel(f.timers[id])
	f.timers[id] = e.wheel.add(due, func() { e.fire(f.Name, id, due) })
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
		f.countTimers(tx, -1)
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

// setTimer is a timer as the store has it.
type setTimer struct {
	id  timerID
	due time.Duration
}

// loadTimers reads the stored timers of a function that is about to be installed.
func (e *Engine) loadTimers(fn string) (found []setTimer, err error) {
	err = e.st.View(func(r store.Reader) error {
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
			found = append(found, setTimer{id, due})
			return len(found) < functions.MaxTimers
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read the timers of function %q: %w", fn, err)
	}
	return found, nil
}
