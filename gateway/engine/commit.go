package engine

import (
	"errors"
	"math/rand/v2"
	"time"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/functions/rules"
	"github.com/perigee-iot/perigee/functions/state"
	"github.com/perigee-iot/perigee/internal/event"
	"github.com/perigee-iot/perigee/internal/store"
	"github.com/perigee-iot/perigee/sync/outbox"
)

// errConflict: a shared value changed since the invocation read it. The event runs again, and that is no attempt.
var errConflict = errors.New("what it read has changed meanwhile")

// errDropped: the job has no entry any more. It was lost with a group of the store, and who made it makes it again; or another
// job of the same event, loaded from it, has taken it out.
var errDropped = errors.New("its entry is gone")

// errStale: a group was dropped since the invocation began, which may have read from it.
var errStale = errors.New("it may have read what was dropped")

// aloneAfter is how many conflicts an event may meet before it runs without company.
const aloneAfter = 3

// verdict is what becomes of a job after an invocation.
type verdict struct {
	what  string // "committed", "retry", "dead"
	fault *functions.Fault
	after time.Duration // retry: how long to wait
}

// outcomeReport is what somebody who waits for an invocation gets.
type outcomeReport struct {
	event   string
	verdict verdict
	outcome *functions.Outcome
	err     error // there is no outcome, and there will be none
}

// finish takes the outcome of an invocation from the pool and makes it durable: the effects of a success, the next
// attempt of what can pass by itself, a dead letter for the rest.
func (e *Engine) finish(j *job, o *functions.Outcome) {
	if o.Lost && o.Fault != nil {
		e.killed(j.fn, o.Fault)
	}
	v := e.judge(j, o)
	e.meter(j, o)
	e.settle(j, o, v)
}

func (e *Engine) settle(j *job, o *functions.Outcome, v verdict) {
	f := j.fn
	e.logs.outcome(f, j, o)
	e.mu.Lock()
	j.lane.pending++
	more := len(e.ready) > 0 // others wait for a worker: their outcomes follow soon
	e.mu.Unlock()
	if err := e.commit(j, o, &v, more); err != nil {
		e.uncommitted(j, err)
		return
	}
	e.mu.Lock()
	e.unhold(j)
	j.lane.refused = nil
	f.ran(o.Usage.Wall)
	if v.what == "committed" {
		f.remember(o.Reads)
	}
	e.mu.Unlock()
	e.report(j, o, v)
	e.mu.Lock()
	if v.what == "retry" {
		j.inv, j.reads, j.active = nil, nil, false
		f.count(j)
		e.requeue(j)
		e.retryFirst(j)
		e.holdAgain(j) // if its group has been dropped already
	} else {
		f.uncount(j)
	}
	e.finished(j)
	e.mu.Unlock()
	e.pump()
}

// judge decides what becomes of a job.
func (e *Engine) judge(j *job, o *functions.Outcome) verdict {
	if o.Fault == nil && o.Retry == nil {
		o.Fault = e.check(j.dep.spec(), o)
	} else if over := rules.CheckReport(j.dep.spec(), o); over != nil {
		o.Fault, o.Retry, o.Reads, o.Logs = over, nil, nil, nil
	}
	e.hide(o)
	retry, attempt := j.dep.spec().Retry, int(j.attempt.Load())
	v := rules.Judge(retry, attempt, o)
	if v.What == "retry" && v.After <= 0 {
		d := rules.Backoff(retry, attempt)
		v.After = d/2 + rand.N(d/2+1) // the upper half is left to chance, so that what failed together does not come again together
	}
	return verdict{what: v.What, fault: v.Fault, after: v.After}
}

// commit makes one update of all that an invocation decided. Everything in memory follows when the group is durable. more says
// that other outcomes will follow soon: then a few share a group, which costs much less than one each.
func (e *Engine) commit(j *job, o *functions.Outcome, v *verdict, more bool) error {
	f := j.fn
	children := e.children(j, o, v)
	due := e.clock.Now() + v.after
	reflex := j.dep.spec().Durability == "none" // its effects are carried out at once
	var acts []*action
	var wrote int64
	err := e.st.Update(func(tx store.Tx) error {
		if j.dropped.Load() {
			return errDropped
		}
		if e.st.Drops() != j.drops || j.gen != j.lane.gen.Load() {
			return errStale
		}
		stored := j.stored.Load()
		if stored {
			if err := owns(tx, j); err != nil {
				return err
			}
		}
		if err := e.conflict(tx, j, o); err != nil {
			return err
		}
		acts = acts[:0]
		switch v.what {
		case "retry":
			e.putRetry(tx, j, due, v.fault)
		case "dead":
			e.putDead(tx, j, v)
		default:
			var err error
			if acts, err = e.apply(tx, j, o, children); err != nil {
				return err
			}
		}
		if v.what != "retry" && stored {
			tx.Delete(inboxKey(f.Name, j.order))
		}
		if !stored {
			e.marks.put(tx, j)
			f.deduped.put(tx, j, e.clock.Now())
		}
		for _, a := range acts {
			if !reflex {
				a.counted = e.plant.target(a.target)
			}
		}
		tx.OnJoin(func() {
			expect(acts)
			if v.what == "retry" {
				j.stored.Store(true)
			} else {
				j.done.Store(true)
			}
		})
		wrote = tx.Size()
		switch acting := len(acts) > 0 && !reflex; {
		case j.waiter != nil, acting && !more:
			tx.Urgent()
		case acting:
			tx.Soon()
		}
		tx.OnFail(func(error) {
			j.done.Store(false)
			if !stored {
				j.stored.Store(false) // else it is, unless the entry was in a group that was dropped, too
			}
			forgetChildren(children)
			e.came(acts)
			e.lost(j, v)
		})
		tx.OnDurable(func() {
			if !reflex {
				e.carryOut(acts)
			}
			e.came(acts)
			j.life.durable(j, v)
			e.durable(j, stored, children)
			if j.waiter != nil && v.what != "retry" {
				j.waiter(&outcomeReport{event: j.ev.ID, verdict: *v, outcome: o})
			}
		})
		return nil
	})
	if err != nil {
		forgetChildren(children)
		e.mu.Lock()
		e.unpend(j)
		e.mu.Unlock()
		return err
	}
	e.wrote(f, j.dep, wrote)
	if reflex {
		e.carryOut(acts)
	}
	return nil
}

// durable is called when a job's outcome will survive: now the world may know.
func (e *Engine) durable(j *job, stored bool, children []*child) {
	if !stored {
		j.from.settled()
	}
	e.counts.committed.Add(1)
	j.life.accept()
	var jobs []*job
	for _, c := range children {
		if c.stored {
			jobs = append(jobs, c.job)
		}
	}
	e.mu.Lock()
	e.unpend(j)
	for _, c := range jobs {
		c.fn.count(c)
		e.trimSoon(c.fn, 0)
	}
	e.mu.Unlock()
	if len(jobs) > 0 {
		e.wheel.add(0, func() { e.start(jobs) }) // not here: the store's committer must not wait for itself
	}
}

// lost is called when the group with a job's outcome was dropped. What was dispatched after it in its lane is stale.
func (e *Engine) lost(j *job, v *verdict) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if v.what == "retry" { // it waits for its next attempt already, and its source waits with it
		e.holdAgain(j)
	} else {
		j.lane.gen.Add(1)
		e.redo(j)
	}
	e.unpend(j)
}

// unpend counts an outcome off: it is durable, or came to nothing. The caller holds mu.
func (e *Engine) unpend(j *job) {
	j.lane.pending--
	e.dropLane(j.lane)
}

// conflict compares the versions of the shared values that were sent to an invocation with those of now. A fault from
// values that have changed is a conflict too.
func (e *Engine) conflict(tx store.Tx, j *job, o *functions.Outcome) error {
	used := map[functions.Read]bool{}
	for _, r := range o.Reads {
		used[r] = true
	}
	for r, was := range j.reads {
		if o.Fault == nil && !used[r] {
			continue // sent ahead, and not looked at
		}
		is, err := sharedVersion(tx, state.Shared(j.fn.Name), r)
		if err != nil {
			return err
		}
		if is != was {
			return errConflict
		}
	}
	return nil
}

// apply writes the effects of a success.
func (e *Engine) apply(tx store.Tx, j *job, o *functions.Outcome, children []*child) ([]*action, error) {
	f := j.fn
	var acts []*action
	j.appended = nil
	timers := timerChanges{f: f, limit: j.dep.spec().Limits.Timers}
	for i := range o.Effects {
		x := &o.Effects[i]
		switch x.Kind {
		case functions.SetTimer, functions.CancelTimer:
			if err := timers.put(e, tx, j, x); err != nil {
				return nil, err
			}
		case functions.Publish, functions.WriteDevice, functions.CallHTTP:
			a := e.newAction(j, x, i)
			tx.Put(a.journalKey(), a.encode())
			acts = append(acts, a)
		case functions.Append:
			ev := j.inv.Event
			rec := outbox.Record{EventID: ev.ID, Function: f.Name, Key: j.key, Time: ev.Time, TimeOK: ev.TimeOK, Boot: ev.Boot, Up: ev.Mono, Data: x.Value}
			seq, err := e.opt.Outbox.Append(tx, x.Name, rec)
			if err != nil {
				return nil, err
			}
			j.appendedTo(x.Name, seq)
		default:
			if err := state.Apply(tx, f.Name, j.key, x, j.dep.spec().Limits.State); err != nil {
				return nil, err
			}
		}
	}
	if err := timers.check(tx); err != nil {
		return nil, err
	}
	if err := e.streamed(tx, j, o); err != nil {
		return nil, err
	}
	if err := f.seen.put(tx, j); err != nil {
		return nil, err
	}
	for _, c := range children {
		if err := e.putChild(tx, c); err != nil {
			return nil, err
		}
	}
	return acts, nil
}

// uncommitted deals with an update that was refused.
func (e *Engine) uncommitted(j *job, err error) {
	var fault *functions.Fault
	switch {
	case errors.As(err, &fault):
		e.finishFault(j, fault)
	case errors.Is(err, errConflict):
		j.conflict++
		j.attempt.Add(-1)
		e.mu.Lock()
		if j.conflict >= aloneAfter && j.fn.alone == nil {
			j.fn.alone = j
		}
		e.mu.Unlock()
		j.fn.stats.conflicts.Add(1)
		e.again(j)
	case errors.Is(err, store.ErrTooBig):
		e.finishFault(j, rules.BadOutput("its effects are too much for one transaction of the store: return fewer or smaller ones"))
	case errors.Is(err, store.ErrFull) && j.waiter != nil:
		e.giveUp(j, err)
	case errors.Is(err, store.ErrFull), errors.Is(err, store.ErrDropped), errors.Is(err, errStale):
		if errors.Is(err, store.ErrFull) {
			e.refused(j, err)
		}
		e.mu.Lock()
		e.redo(j)
		e.finished(j)
		e.mu.Unlock()
	case !errors.Is(err, store.ErrClosed) && !errors.Is(err, store.ErrBroken) && !errors.Is(err, errDropped):
		// A value that state or a stream cannot take: a quota, a sum with what is no number, …
		e.finishFault(j, rules.BadOutput("%v", err))
	default:
		// The store is closed or broken: the gateway is ending, and what is not committed runs again after the next start.
		e.log.Debug("an outcome was not committed", "function", j.fn.Name, "error", err)
		e.mu.Lock()
		j.fn.uncount(j)
		e.finished(j)
		e.mu.Unlock()
	}
}

// refused notes that the disk has no room for the outcome of a job, and tells it those who look.
func (e *Engine) refused(j *job, why error) {
	e.mu.Lock()
	first := j.lane.refused == nil
	j.lane.refused = why
	e.mu.Unlock()
	j.life.change(first, func() {
		o := j.life.of(j.fn)
		o.What, o.Why = "waiting", why.Error()
	})
}

// finishFault commits a fault in place of an outcome that could not be applied.
func (e *Engine) finishFault(j *job, fault *functions.Fault) {
	fault = e.hideFault(fault)
	j.fn.stats.failed(fault)
	e.usage.Failed(j.fn.Name, j.dep.Bundle.Digest, fault.Kind)
	o := &functions.Outcome{ID: j.inv.ID, Fault: fault}
	e.settle(j, o, e.judge(j, o))
}

// putRetry stores a job for its next attempt.
func (e *Engine) putRetry(tx store.Tx, j *job, due time.Duration, fault *functions.Fault) {
	j.due = due
	j.failed, j.revision = rules.Printable(fault.Error(), 300), j.dep.Bundle.Digest
	tx.Put(inboxKey(j.fn.Name, j.order), encodeJob(j))
}

// retryFirst makes sure that a lane waits for the retry of its first job. The caller holds mu.
func (e *Engine) retryFirst(j *job) {
	if l := j.lane; l.running == j {
		l.running = nil // so that offerLane sees the queue's first, which is j again
	}
	e.offerLane(j.lane)
}

// report tells people what happened.
func (e *Engine) report(j *job, o *functions.Outcome, v verdict) {
	j.life.done(j, o, v)
	e.records.add(j, o, v)
	e.recorders.add(j, o, v)
	if v.fault != nil {
		e.counts.faults.Add(1)
		if v.what == "dead" && o.Fault == nil { // it asked to be run again, and will not be
			j.fn.stats.failed(v.fault)
		}
		e.reportFault(j, v)
	}
}

// faultLogEvery is how often one function's faults are logged; all of them are counted, and stand in the function's own log.
const faultLogEvery = time.Second

func (e *Engine) reportFault(j *job, v verdict) {
	f := j.fn
	e.mu.Lock()
	now := e.clock.Now()
	quiet := f.faultAt != 0 && now-f.faultAt < faultLogEvery
	more := f.faultsQuiet
	if quiet {
		f.faultsQuiet++
	} else {
		f.faultAt, f.faultsQuiet = now, 0
	}
	e.mu.Unlock()
	if quiet {
		return
	}
	args := []any{"function", f.Name, "key", j.key, "event", j.ev.ID, "fault", rules.Printable(v.fault.Error(), 300), "attempt", j.attempt.Load()}
	if more > 0 {
		args = append(args, "faults_not_logged", more)
	}
	if v.what == "dead" {
		e.log.Warn("an event failed for good and is a dead letter now", args...)
	} else {
		e.log.Info("an attempt failed and will be repeated", append(args, "in", v.after.Round(time.Millisecond))...)
	}
}

// child is an event that an outcome causes for another function: its result, or a state value that changed.
type child struct {
	job    *job
	state  string // name of the state value; "" for the result
	before []byte // its value before
	stored bool
	noRoom bool // in its function's share of the inbox
}

// children makes the jobs of the functions that an outcome triggers, before the update that decides whether they exist.
func (e *Engine) children(j *job, o *functions.Outcome, v *verdict) []*child {
	if v.what != "committed" {
		return nil
	}
	f := j.fn
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.routes.follows(f.Name) {
		return nil
	}
	var out []*child
	make1 := func(ev *event.Event, name string) {
		e.stamp(ev)
		life := e.lives.add(ev)
		e.routes.match(ev, func(r *route, params map[string]string, _ *event.Event) {
			if c := e.jobFor(r, ev, params, life); c != nil {
				out = append(out, &child{job: c, state: name, noRoom: e.full(c.fn) == functions.DropNewest && c.fn.inbox+int64(c.size) > c.fn.share()})
			}
		})
	}
	source := "function/" + f.Name
	if o.Result != nil {
		make1(after(j.inv.Event, event.Event{Source: source, Type: event.Result, Subject: f.Name, Data: o.Result}), "")
	}
	names := map[string]bool{}
	for i := range o.Effects {
		x := &o.Effects[i]
		switch x.Kind {
		case functions.SetState, functions.IncrState, functions.DeleteState:
			if !names[x.Name] && e.routes.watches(f.Name, x.Name) {
				names[x.Name] = true
				make1(after(j.inv.Event, event.Event{Source: source, Type: event.State, Subject: f.Name + "/" + x.Name, Key: j.key}), x.Name)
			}
		}
	}
	// The values before are read now: the key's events run one at a time, so nobody else changes them meanwhile.
	for _, c := range out {
		if c.state != "" {
			c.before, _, _ = state.Value(e.st, state.Keyed(f.Name, j.key), c.state)
			c.job.params = map[string]string{"key": j.key, "name": c.state}
		}
	}
	return out
}

// after makes an event that was caused by another at the time of that.
func after(cause *event.Event, ev event.Event) *event.Event {
	ev.Time, ev.TimeOK, ev.Boot, ev.Mono = cause.Time, cause.TimeOK, cause.Boot, cause.Mono
	ev.Chain = cause.Chain + 1
	return &ev
}

// forgetChildren takes back what was noted of events that will be caused anew.
func forgetChildren(children []*child) {
	for _, c := range children {
		forget([]*job{c.job})
	}
}

// putChild stores the job of a caused event, unless the value it is about did not change.
func (e *Engine) putChild(tx store.Tx, c *child) error {
	c.stored = false
	if c.state != "" {
		ref := state.Keyed(c.job.ev.Source[len("function/"):], c.job.params["key"])
		now, ok, err := state.Get(tx, ref, c.state)
		if err != nil {
			return err
		}
		if string(now) == string(c.before) {
			return nil
		}
		ev := *c.job.ev
		ev.Data = []byte("null")
		if ok {
			ev.Data = append([]byte(nil), now...)
		}
		c.job.ev = &ev
	}
	if c.noRoom {
		return e.putLoss(tx, c.job)
	}
	tx.PutNew(inboxKey(c.job.fn.Name, c.job.order), encodeJob(c.job))
	c.job.stored.Store(true)
	c.stored = true
	return nil
}
