package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"strings"
	"unicode/utf8"

	"github.com/perigee-iot/perigee/drivers"
	"github.com/perigee-iot/perigee/functions/rules"
	"github.com/perigee-iot/perigee/internal/event"
	"github.com/perigee-iot/perigee/internal/store"
)

// Offer takes an event from a source; it is the drivers.Emit of every source. It returns when the engine has taken
// charge; the event is accepted when its Ack is called.
func (e *Engine) Offer(ctx context.Context, d drivers.Delivery) error {
	ev := d.Event
	e.counts.received.Add(1)
	if d.Refused != "" {
		e.show(d)
		return nil
	}
	if why := e.unacceptable(ev); why != "" {
		e.refuse(d, why)
		return nil
	}
	if d.Mark != "" && d.Again && e.joins(d) {
		return nil
	}
	if d.Mark != "" && !d.Again {
		e.usedAnew(d.Mark)
	}
	if ev.Type == event.Message && ev.Chain == 0 && !e.opt.Broker.InProcess() {
		ev.Chain = e.echoes.chainOf(ev, e.clock.Now())
	}
	e.stamp(ev)
	life := e.lives.add(ev)
	if ev.Type == event.Reading {
		e.readings.set(ev)
	}
	jobs := e.match(ev, life)
	if d.Mark != "" && d.Again {
		jobs = e.withoutMarked(d, jobs)
	}
	return e.take(ctx, d, ev, life, jobs)
}

// joins says that a repeated delivery is still on its way here: it was sent again because the connection was lost, and
// its outcome will be acknowledged on the new one.
func (e *Engine) joins(d drivers.Delivery) bool {
	was := e.marked.get(d.Mark)
	if was == nil || was.digest != digest([]byte(d.Event.Topic), d.Event.Data) || !was.join(d.Ack) {
		return false
	}
	e.counts.duplicates.Add(1)
	return true
}

// unacceptable says why an event can never be accepted, "" if it can.
func (e *Engine) unacceptable(ev *event.Event) string {
	switch {
	case len(ev.Data) > e.opt.MaxPayload:
		return fmt.Sprintf("its payload has %d bytes, more than the %d that are allowed", len(ev.Data), e.opt.MaxPayload)
	case !utf8.ValidString(ev.Topic) || strings.ContainsRune(ev.Topic, 0):
		return "its topic is not valid UTF-8 text"
	}
	return ""
}

// refuse settles an event that can never be accepted, and says so where people look.
func (e *Engine) refuse(d drivers.Delivery, why string) {
	ev := d.Event
	e.stamp(ev)
	e.counts.refuse(why)
	life := e.lives.add(ev)
	life.refuse(why)
	e.log.Warn("an event was refused", "source", ev.Source, "subject", rules.Printable(ev.Subject, 120), "why", why)
	if d.Ack != nil {
		d.Ack(fmt.Errorf("%w: %s", drivers.ErrRefused, why))
	}
}

// show lets people see an event that its source has turned away, counted and settled.
func (e *Engine) show(d drivers.Delivery) {
	ev := *d.Event
	ev.Topic, ev.Subject = strings.ToValidUTF8(ev.Topic, "?"), strings.ToValidUTF8(ev.Subject, "?")
	e.stamp(&ev)
	e.lives.add(&ev).refuse(d.Refused)
}

// take makes jobs of what an event matched. From a source that can redeliver they wait in memory, and the source keeps
// the event; from one that cannot they are stored first, unless their outcome joins the same group.
func (e *Engine) take(ctx context.Context, d drivers.Delivery, ev *event.Event, life *life, jobs []*job) error {
	if len(jobs) == 0 {
		life.accept()
		if d.Ack != nil {
			d.Ack(nil)
		}
		return nil
	}
	from := &delivery{ack: d.Ack, mark: d.Mark, engine: e}
	from.left.Store(int32(len(jobs)))
	if d.Mark != "" {
		from.digest = digest([]byte(ev.Topic), ev.Data)
		e.marked.add(from)
	}
	for _, j := range jobs {
		j.from = from
	}
	if d.Ack == nil {
		if err := e.storeJobs(jobs, nil); err != nil {
			forget(jobs)
			e.losses.add("not stored", int64(len(jobs)))
			life.refuse(err.Error())
			e.log.Error("an event that cannot be sent again was lost", "source", ev.Source, "subject", ev.Subject, "error", err)
			return nil
		}
	}
	e.start(jobs)
	return e.waitForRoom(ctx)
}

// waitForRoom holds a source back while more is held in memory than may be, so that it cannot fill the memory with what
// the inbox has no room for.
func (e *Engine) waitForRoom(ctx context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.heldSize <= e.opt.MaxMemory {
		return nil
	}
	stop := context.AfterFunc(ctx, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.room.Broadcast()
	})
	defer stop()
	for e.heldSize > e.opt.MaxMemory && !e.stopping && ctx.Err() == nil {
		e.room.Wait()
	}
	return ctx.Err()
}

// start puts jobs into their lanes, and lists those whose source waits for them.
func (e *Engine) start(jobs []*job) {
	var spill, orphans []*job
	e.mu.Lock()
	for _, j := range jobs {
		if j.turned {
			continue
		}
		if f := e.fns[j.fn.Name]; f == nil {
			orphans = append(orphans, j)
			continue
		} else if f != j.fn {
			e.adopt(j, f)
		}
		e.enqueue(j)
		e.holdAgain(j)
		if why := j.fn.waitsFor(); why != "" {
			j.life.outcome(j.fn, "waiting", why)
		} else {
			j.life.queued(j)
		}
	}
	if e.heldSize > e.opt.MaxMemory {
		spill = e.takeHeld(e.opt.MaxMemory / 2)
	}
	e.mu.Unlock()
	for _, j := range orphans {
		err := e.orphan(j, func() { e.orphanLater(j) })
		if errors.Is(err, store.ErrFull) || errors.Is(err, store.ErrDropped) {
			e.orphanLater(j)
		}
	}
	e.spill(spill)
	e.pump()
}

// adopt gives a job that was made for a function that has gone since to the one of its name that is there now. The caller holds mu.
func (e *Engine) adopt(j *job, f *function) {
	if j.counted {
		j.fn.uncount(j)
		f.count(j)
	}
	j.fn = f
}

// match finds the functions that an event is for, and makes a job for each. Those that stand near it but do not run get
// their reason into the event's life.
func (e *Engine) match(ev *event.Event, life *life) []*job {
	e.mu.Lock()
	defer e.mu.Unlock()
	var jobs []*job
	e.routes.match(ev, func(r *route, params map[string]string, derived *event.Event) {
		of := ev
		if derived != nil {
			of = derived
			e.stamp(of)
			e.readings.set(of)
		}
		if r.fn == nil {
			if r.missing != "" && e.readings.unread(r.device, r.missing, e.clock.Now()) {
				e.log.Warn("a message of a device brings no reading", "device", r.device, "topic", rules.Printable(ev.Topic, 120), "why", r.missing,
					"hint", "see devices."+r.device+" in gateway.yaml: its topic and its field")
			}
			return // a device without functions: the reading was all
		}
		if j := e.jobFor(r, of, params, life); j != nil {
			jobs = append(jobs, j)
		}
	})
	return jobs
}

// jobFor makes the job of one function for an event, or says in its life why not. The caller holds mu.
func (e *Engine) jobFor(r *route, ev *event.Event, params map[string]string, life *life) *job {
	f := r.fn
	for _, j := range life.matched {
		if j == f.Name {
			return nil // two of its triggers match: it still runs once
		}
	}
	if why := r.skips(ev, f); why != "" {
		life.skip(f, why)
		return nil
	}
	key, err := rules.KeyOf(f.dep.spec(), ev, params)
	if err != nil {
		life.skip(f, err.Error())
		return nil
	}
	value, order := rules.DedupeValue(f.dep.spec(), ev), e.seq.next()
	if value != "" && f.deduped.repeats(value, order, e.clock.Now(), f.dep.spec().Dedupe.Window) {
		e.counts.duplicates.Add(1)
		life.outcome(f, "duplicate", fmt.Sprintf("dedupe: the value %q was seen within %v", rules.Printable(value, 40), f.dep.spec().Dedupe.Window))
		return nil
	}
	if e.endless(ev, f, life) {
		return nil
	}
	life.matched = append(life.matched, f.Name)
	return &job{fn: f, ev: ev, key: key, params: params, dedupe: value, size: len(ev.Data) + len(ev.Topic) + 256, life: life,
		order: order, since: e.clock.Now()}
}

// endless says that an event would make a chain of functions longer than it may be.
func (e *Engine) endless(ev *event.Event, f *function, life *life) bool {
	if int(ev.Chain) <= e.opt.MaxChain {
		return false
	}
	e.losses.add("chain", 1)
	life.skip(f, fmt.Sprintf("functions that start one another went round more than %d times", e.opt.MaxChain))
	return true
}

// forget says that jobs came to nothing before they were anything: their events come again as other jobs, or are lost.
func forget(jobs []*job) {
	for _, j := range jobs {
		j.dropped.Store(true)
		j.fn.deduped.forget(j)
	}
}

// digest is a 64-bit FNV-1a over parts and their lengths. It tells apart what one sender sends; it is no defence against forgery.
func digest(parts ...[]byte) uint64 {
	h := fnv.New64a()
	for _, p := range parts {
		h.Write(uint64Bytes(uint64(len(p))))
		h.Write(p)
	}
	return h.Sum64()
}

// encodeFields is a reading as JSON, as functions see it.
func encodeFields(f drivers.Fields) ([]byte, error) {
	b, err := json.Marshal(f)
	if err != nil {
		return nil, fmt.Errorf("a reading is not JSON: %w", err)
	}
	return b, nil
}
