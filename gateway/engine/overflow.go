package engine

import (
	"time"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/internal/store"
)

// Each function has a share of the inbox, in bytes. When it is full, `inbox: {full: …}` of the function says who loses: drop-oldest and
// drop-newest each lose an event, with a count and a gap; block leaves the event with its sender, who waits. Whoever cannot wait (a
// device, a timer, another function) makes the oldest go, and an event that must be kept (a replay) does.

// full is what a function does when its share is full.
func (e *Engine) full(f *function) string {
	switch how := f.dep.spec().Inbox.Full; {
	case how != "":
		return how
	case e.opt.Broker.InProcess():
		return functions.Block
	}
	return functions.DropOldest
}

// share is what the waiting events of a function may take, in bytes.
func (f *function) share() int64 { return f.dep.spec().Inbox.Bytes }

// room is what has to go, so that jobs can be stored.
type room struct {
	oldest []*job // that are stored, and leave
	newest []*job // of the jobs themselves: they never get in
}

// makeRoom counts jobs into their functions' shares of the inbox, and finds what there is no room for. What it finds stands in no lane
// afterwards. The caller holds mu.
func (e *Engine) makeRoom(jobs []*job) (r room) {
	for _, j := range jobs {
		f := j.fn
		if e.turnsAway(f, j) {
			if j.turned = true; j.lane != nil {
				e.unqueue(j)
			}
			e.unhold(j)
			r.newest = append(r.newest, j)
			continue
		}
		f.count(j)
		r.oldest = append(r.oldest, e.over(f, j)...)
	}
	return r
}

// turnsAway says that a job has no place in the share of its function. What runs, and what somebody waits for, always has. The caller holds mu.
func (e *Engine) turnsAway(f *function, j *job) bool {
	return f.inbox+int64(j.size) > f.share() && e.full(f) == functions.DropNewest && j.from != nil && !j.active && !j.counted
}

// over takes the oldest waiting jobs of a function out of their lanes until what is left fits its share; keep stays. The caller holds mu.
func (e *Engine) over(f *function, keep *job) (out []*job) {
	for f.inbox > f.share() {
		old := f.oldestStored()
		if old == nil || old == keep {
			break
		}
		e.unqueue(old)
		f.uncount(old)
		out = append(out, old)
	}
	return out
}

// giveBack undoes what makeRoom did, since nothing came of it.
func (e *Engine) giveBack(r room) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, o := range r.oldest {
		o.done.Store(false)
		o.fn.count(o)
		e.enqueue(o)
		e.holdAgain(o) // if its entry was lost, too
		e.trimSoon(o.fn, e.opt.RedoAfter)
	}
	for _, j := range r.newest {
		j.done.Store(false)
		if j.turned = false; j.lane != nil { // else it has not been started yet, and whoever wanted it stored hears of it
			e.enqueue(j)
			e.holdAgain(j)
		}
	}
}

// lose ends jobs for which there is no room, in an update.
func (e *Engine) lose(tx store.Tx, r room) error {
	if len(r.oldest)+len(r.newest) == 0 {
		return nil
	}
	for _, o := range r.oldest {
		if o.stored.Load() {
			tx.Delete(inboxKey(o.fn.Name, o.order))
		} else { // its entry was in a group that has been dropped meanwhile
			e.turnAway(tx, o)
		}
		if err := e.putLoss(tx, o); err != nil {
			return err
		}
	}
	for _, j := range r.newest {
		if j.done.Load() {
			continue
		}
		e.turnAway(tx, j)
		if err := e.putLoss(tx, j); err != nil {
			return err
		}
	}
	tx.OnFail(func(error) {
		e.giveBack(r)
		for _, j := range r.newest {
			if j.lane == nil {
				e.Later(func() { e.start([]*job{j}) })
			}
		}
	})
	return nil
}

// turnAway settles the source of a job that has no entry and gets none.
func (e *Engine) turnAway(tx store.Tx, j *job) {
	e.marks.put(tx, j)
	tx.OnDurable(func() {
		j.fn.deduped.forget(j)
		j.from.settled()
	})
}

// putLoss notes that a job leaves without an outcome, since there is no room for it.
func (e *Engine) putLoss(tx store.Tx, j *job) error {
	tx.OnJoin(func() { j.done.Store(true) })
	tx.OnDurable(func() {
		e.losses.add(inboxFull, 1)
		j.life.outcome(j.fn, "dropped", "the function's share of the inbox is full")
	})
	return e.putGap(tx, j.fn, inboxFull)
}

// inboxFull is the cause of losses for want of room.
const inboxFull = "inbox full"

// trimSoon has a share that is too full brought back to its bound: events came at once, or from other functions, which are not asked about
// room; or the group was dropped that had room made. The caller holds mu.
func (e *Engine) trimSoon(f *function, after time.Duration) {
	if f.inbox > f.share() && !f.trimming && e.full(f) != functions.DropNewest { // which lets nothing in while there is no room
		f.trimming = true
		e.wheel.add(e.clock.Now()+after, func() { e.trim(f) })
	}
}

func (e *Engine) trim(f *function) {
	e.mu.Lock()
	f.trimming = false
	if e.fns[f.Name] != f {
		e.mu.Unlock()
		return
	}
	r := room{oldest: e.over(f, nil)}
	e.mu.Unlock()
	if len(r.oldest) == 0 {
		return
	}
	if err := e.update(func(tx store.Tx) error { return e.lose(tx, r) }); err != nil {
		e.giveBack(r)
		e.log.Debug("a share of the inbox stays too full for now", "function", f.Name, "error", err)
	}
}

func (f *function) oldestStored() *job {
	var oldest *job
	for _, l := range f.lanes {
		for _, j := range l.queue {
			if j.stored.Load() && (oldest == nil || j.order < oldest.order) {
				oldest = j
			}
			if j.stored.Load() {
				break // a lane is in order
			}
		}
	}
	return oldest
}

// mayspill says whether a held job may go to the inbox. An event for a function whose share is full and that says block stays with
// its sender, who is not acknowledged and waits: nothing is lost, and on the embedded broker nobody else waits. planned counts what is
// about to be spilled. The caller holds mu.
func (e *Engine) mayspill(j *job, planned map[*function]int64) bool {
	f := j.fn
	planned[f] += int64(j.size)
	switch over := f.inbox+planned[f] > f.share(); {
	case over && e.full(f) == functions.Block, over && e.full(f) == functions.DropNewest && j.active:
		planned[f] -= int64(j.size)
		return false
	}
	return true
}
