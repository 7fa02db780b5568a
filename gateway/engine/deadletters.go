package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/internal/event"
	"github.com/perigee-iot/perigee/internal/store"
	"github.com/perigee-iot/perigee/internal/wire"
)

// Dead letters stand in the store as DeadLetters / function / order → the event and why it failed for good.

// DeadLetter is an event whose function failed for good.
type DeadLetter struct {
	ID       string
	Function string
	Revision string
	Key      string
	Params   map[string]string
	Attempts int
	Since    time.Time
	SinceOK  bool          // the clock was synchronised, or has been later in the same boot
	boot     uint32        // of Since
	up       time.Duration // of the machine, then
	order    uint64        // rises from letter to letter
	Reason   string
	Fault    *functions.Fault
	Size     int          // of its payload, in bytes
	Event    *event.Event // without its payload in a list
}

// deadVersion 2 has the quality of Since.
const deadVersion = 2

// ErrNoDeadLetter is returned for an id that is not there (any more).
var ErrNoDeadLetter = errors.New("there is no such dead letter")

func deadKey(fn string, order uint64) store.Key {
	return store.NewKey(store.DeadLetters).String(fn).Uint(order)
}

// deadID is what people call a dead letter: function:number.
func deadID(fn string, order uint64) string { return fn + ":" + strconv.FormatUint(order, 36) }

func parseDeadID(id string) (fn string, order uint64, err error) {
	fn, num, ok := strings.Cut(id, ":")
	if ok {
		order, err = strconv.ParseUint(num, 36, 64)
	}
	if !ok || err != nil {
		return "", 0, fmt.Errorf("%w: %q", ErrNoDeadLetter, id)
	}
	return fn, order, nil
}

func (d *DeadLetter) encode() ([]byte, error) {
	fault, err := json.Marshal(d.Fault)
	if err != nil {
		return nil, fmt.Errorf("a fault is not JSON: %w", err)
	}
	w := wire.NewWriter(nil)
	w.Byte(deadVersion)
	w.String(d.Revision)
	w.String(d.Key)
	w.Uint(uint64(d.Attempts))
	w.Int(d.Since.UnixMilli())
	w.Bool(d.SinceOK)
	w.Uint(uint64(d.boot))
	w.Int(int64(d.up))
	w.String(d.Reason)
	w.Bytes(fault)
	w.Uint(uint64(len(d.Params)))
	for k, v := range d.Params {
		w.String(k)
		w.String(v)
	}
	d.Event.Encode(w)
	return w.Data(), nil
}

func decodeDead(key, value []byte) (*DeadLetter, error) {
	k := store.Parse(key)
	d := &DeadLetter{Function: k.String(), order: k.Uint()}
	d.ID = deadID(d.Function, d.order)
	r := wire.NewReader(value)
	v := r.Byte()
	if r.Err() == nil && v != 1 && v != deadVersion {
		return nil, fmt.Errorf("a dead letter of version %d, this gateway reads version %d", v, deadVersion)
	}
	d.Revision, d.Key, d.Attempts = r.String(), r.String(), int(r.Uint())
	d.Since = time.UnixMilli(r.Int()).UTC()
	if v >= 2 {
		d.SinceOK, d.boot, d.up = r.Bool(), uint32(r.Uint()), time.Duration(r.Int())
	}
	d.Reason = r.String()
	if err := json.Unmarshal(r.Bytes(), &d.Fault); err != nil && r.Err() == nil {
		return nil, fmt.Errorf("the fault of dead letter %s: %w", d.ID, err)
	}
	if n := r.Count(64); n > 0 {
		d.Params = make(map[string]string, n)
		for range n {
			p := r.String()
			d.Params[p] = r.String()
		}
	}
	ev, err := event.Decode(r)
	if err != nil {
		return nil, err
	}
	ev.Data = append([]byte(nil), ev.Data...)
	d.Event, d.Size = ev, len(ev.Data)
	return d, errors.Join(k.Err(), r.Done())
}

// putDead makes a dead letter of a job, in the update that ends it.
func (e *Engine) putDead(tx store.Tx, j *job, v *verdict) {
	reason := string(v.fault.Kind)
	if v.fault.Kind == functions.FaultError && v.what == "dead" && strings.HasPrefix(v.fault.Message, "it asked to be run again") {
		reason = "asked"
	}
	e.writeDead(tx, j, reason, v.fault)
}

func (e *Engine) writeDead(tx store.Tx, j *job, reason string, fault *functions.Fault) {
	f := j.fn
	now, up, known := e.clock.look()
	revision := j.revision // "": it never ran
	if j.dep != nil {
		revision = j.dep.Bundle.Digest
	}
	d := &DeadLetter{Revision: revision, Key: j.key, Params: j.params, Attempts: int(j.attempt.Load()), Since: now, Reason: reason, Fault: fault, Event: j.ev,
		SinceOK: known, boot: e.clock.Boot(), up: up}
	b, err := d.encode()
	if err != nil {
		d.Fault = &functions.Fault{Kind: functions.FaultError, Message: "a fault that cannot be kept"}
		b, _ = d.encode()
	}
	tx.Put(deadKey(f.Name, j.order), b)
	tx.OnDurable(func() { e.countDead(f) })
}

// countDead counts a new dead letter and drops the oldest above the bound.
func (e *Engine) countDead(f *function) {
	e.mu.Lock()
	f.deads++
	over := f.deads > e.opt.MaxDead
	e.mu.Unlock()
	if over {
		e.wheel.add(0, func() { e.trimDead(f) })
	}
}

func (e *Engine) trimDead(f *function) {
	err := e.st.Update(func(tx store.Tx) error {
		return tx.Scan(store.NewKey(store.DeadLetters).String(f.Name), nil, func(k, _ []byte) bool {
			tx.Delete(append([]byte(nil), k...))
			return false
		})
	})
	if err != nil {
		return
	}
	e.losses.add("too many dead letters", 1)
	e.mu.Lock()
	f.deads--
	e.mu.Unlock()
}

// DeadLetters lists dead letters, newest first, at most limit (0: 100) of one function or of all, without payloads.
func (e *Engine) DeadLetters(fn, revision string, limit int) ([]*DeadLetter, error) {
	if limit <= 0 {
		limit = 100
	}
	prefix := store.NewKey(store.DeadLetters)
	if fn != "" {
		prefix = prefix.String(fn)
	}
	var out []*DeadLetter
	err := e.st.View(func(r store.Reader) error {
		return r.Scan(prefix, nil, func(k, v []byte) bool {
			d, err := decodeDead(k, v)
			if err != nil {
				e.log.Error("a dead letter cannot be read", "error", err)
				return true
			}
			if revision == "" || strings.HasPrefix(d.Revision, revision) {
				d.Event.Data = nil // all of them might be more than the memory
				out = append(out, d)
			}
			return true
		})
	})
	sort.Slice(out, func(a, b int) bool { return out[a].order > out[b].order })
	out = out[:min(len(out), limit)]
	for _, d := range out {
		e.correct(d)
	}
	return out, err
}

// correct gives a dead letter the times that are known to be right by now.
func (e *Engine) correct(d *DeadLetter) {
	d.Since, d.SinceOK = e.clock.right(d.Since, d.SinceOK, d.boot, d.up)
	d.Event = e.clock.corrected(d.Event)
}

// DeadLetter returns one.
func (e *Engine) DeadLetter(id string) (*DeadLetter, error) {
	fn, order, err := parseDeadID(id)
	if err != nil {
		return nil, err
	}
	var d *DeadLetter
	err = e.st.View(func(r store.Reader) error {
		k := deadKey(fn, order)
		v, ok, err := r.Get(k)
		if err == nil && !ok {
			err = fmt.Errorf("%w: %q", ErrNoDeadLetter, id)
		}
		if err == nil {
			d, err = decodeDead(k, v)
		}
		if err == nil {
			e.correct(d)
		}
		return err
	})
	return d, err
}

// Replay runs a dead letter again, outside of the order of its key; data, if not nil, replaces its payload. In one
// update the letter goes and its event is in the inbox.
func (e *Engine) Replay(id string, data []byte) error {
	d, err := e.DeadLetter(id)
	if err != nil {
		return err
	}
	f, ev, err := e.replayed(d, data)
	if err != nil {
		return err
	}
	e.stampReplay(ev)
	life := e.lives.add(ev)
	life.change(false, func() { life.Replayed = id })
	j := &job{fn: f, ev: ev, key: d.Key, params: d.Params, size: len(ev.Data) + len(ev.Topic) + 256, life: life,
		order: e.seq.next(), since: e.clock.Now()}
	_, order, _ := parseDeadID(id)
	if err := e.removeDead(d.Function, order, id, j); err != nil {
		life.refuse(err.Error())
		return err
	}
	life.accept()
	e.log.Info("a dead letter is replayed, outside the order of its key", "function", d.Function, "letter", id, "event", ev.ID, "payload_changed", data != nil)
	e.start([]*job{j})
	return nil
}

// replayed is the function and the event of a dead letter's replay.
func (e *Engine) replayed(d *DeadLetter, data []byte) (*function, *event.Event, error) {
	e.mu.Lock()
	f := e.fns[d.Function]
	e.mu.Unlock()
	if f == nil {
		return nil, nil, fmt.Errorf("function %q is not deployed, so that its dead letters cannot be replayed", d.Function)
	}
	ev := *d.Event
	if data != nil {
		ev.Data = data
	}
	if why := e.unacceptable(&ev); why != "" {
		return nil, nil, errors.New(why)
	}
	return f, &ev, nil
}

// DryReplay runs a dead letter on the state of now and says what it would do; data, if not nil, replaces its payload. Nothing is done, and the
// letter stays.
func (e *Engine) DryReplay(ctx context.Context, id string, data []byte) (*Report, error) {
	d, err := e.DeadLetter(id)
	if err != nil {
		return nil, err
	}
	f, ev, err := e.replayed(d, data)
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	dep := f.dep
	e.mu.Unlock()
	j := &job{fn: f, dep: dep, ev: ev, key: d.Key, params: d.Params}
	j.attempt.Add(1)
	o, err := e.try(ctx, j)
	if err != nil {
		return nil, err
	}
	return (&outcomeReport{event: ev.ID, verdict: e.tried(j, o), outcome: o}).report(e.opt.Secrets), nil
}

// Drop forgets a dead letter.
func (e *Engine) Drop(id string) error {
	fn, order, err := parseDeadID(id)
	if err != nil {
		return err
	}
	return e.removeDead(fn, order, id, nil)
}

// removeDead deletes a dead letter and stores the job that takes its place, if there is one.
func (e *Engine) removeDead(fn string, order uint64, id string, j *job) error {
	remove := func(tx store.Tx) error {
		k := deadKey(fn, order)
		_, ok, err := tx.Get(k)
		if err != nil {
			return err
		}
		if !ok {
			return fmt.Errorf("%w: %q", ErrNoDeadLetter, id)
		}
		tx.Delete(k)
		tx.Urgent()
		if j != nil {
			tx.OnFail(func(error) { j.dropped.Store(true) }) // the letter is still there
		}
		tx.OnDurable(func() {
			e.mu.Lock()
			if f := e.fns[fn]; f != nil {
				f.deads--
			}
			e.mu.Unlock()
		})
		return nil
	}
	if j != nil {
		return e.storeJobs([]*job{j}, remove)
	}
	return e.st.Update(remove)
}

// stampReplay gives a replayed event a sequence number of its own; it keeps its id, time and payload.
func (e *Engine) stampReplay(ev *event.Event) {
	ev.Seq = e.seq.next()
}
