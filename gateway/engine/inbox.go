package engine

import (
	"container/list"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/perigee-iot/perigee/internal/event"
	"github.com/perigee-iot/perigee/internal/store"
	"github.com/perigee-iot/perigee/internal/wire"
)

// The inbox holds events that wait for a function durably: Inbox / function / order → entry. An entry is written when
// an event's source cannot send it again, when it waits longer than an acknowledgement may be held, and when its
// invocation failed and will be tried again. It leaves in the update that has its outcome.

type (
	heldList = list.List
	heldNode = list.Element
)

// inboxVersion 2 has the revision of the last attempt.
const inboxVersion = 2

func inboxKey(fn string, order uint64) store.Key {
	return store.NewKey(store.Inbox).String(fn).Uint(order)
}

// encodeJob is a job's inbox entry.
func encodeJob(j *job) []byte {
	w := wire.NewWriter(make([]byte, 0, j.size+128))
	w.Byte(inboxVersion)
	w.String(j.key)
	w.Uint(uint64(j.attempt.Load()))
	w.Int(int64(j.due))
	w.Int(int64(j.since))
	w.String(j.failed)
	w.String(j.revision)
	w.Uint(uint64(len(j.params)))
	for k, v := range j.params {
		w.String(k)
		w.String(v)
	}
	j.ev.Encode(w)
	return w.Data()
}

// decodeJob fills a job from its entry.
func decodeJob(j *job, entry []byte) error {
	r := wire.NewReader(entry)
	v := r.Byte()
	if r.Err() == nil && v != 1 && v != inboxVersion {
		return fmt.Errorf("an inbox entry of version %d, this gateway reads version %d", v, inboxVersion)
	}
	j.key = r.String()
	j.attempt.Store(int32(r.Uint()))
	j.due = time.Duration(r.Int())
	j.since = time.Duration(r.Int())
	if j.failed = r.String(); v >= 2 {
		j.revision = r.String()
	}
	if n := r.Count(64); n > 0 {
		j.params = make(map[string]string, n)
		for range n {
			k := r.String()
			j.params[k] = r.String()
		}
	}
	ev, err := event.Decode(r)
	if err != nil {
		return err
	}
	ev.Data = append([]byte(nil), ev.Data...)
	j.ev = ev
	if j.size == 0 { // else it stays what it was counted with
		j.size = len(entry)
	}
	return r.Done()
}

// owns says that a job that was stored still has its entry: who takes that out has the right to the event's outcome. It returns
// errDropped if another has.
func owns(tx store.Tx, j *job) error {
	_, ok, err := tx.Get(inboxKey(j.fn.Name, j.order))
	if err == nil && !ok {
		err = errDropped
	}
	return err
}

// storeJobs gives jobs their inbox entries. more, if not nil, joins the same update. The sources are settled for these
// jobs once that is durable.
func (e *Engine) storeJobs(jobs []*job, more func(tx store.Tx) error) error {
	e.mu.Lock()
	room := e.makeRoom(jobs)
	e.mu.Unlock()
	err := e.update(func(tx store.Tx) error {
		if err := e.lose(tx, room); err != nil {
			return err
		}
		for _, j := range jobs {
			if !slices.Contains(room.newest, j) {
				e.putEntry(tx, j)
			}
		}
		if more != nil {
			return more(tx)
		}
		return nil
	})
	e.mu.Lock()
	for _, j := range jobs {
		if err != nil && !j.stored.Load() || j.done.Load() {
			j.fn.uncount(j)
		}
		e.trimSoon(j.fn, 0)
	}
	e.mu.Unlock()
	if err != nil {
		e.giveBack(room)
	}
	return err
}

// update is the store's Update that runs again if the group before it was dropped meanwhile: for what only looks at what there is now.
func (e *Engine) update(fn func(tx store.Tx) error) (err error) {
	for range updateTries {
		if err = e.st.Update(fn); !errors.Is(err, store.ErrDropped) {
			break
		}
	}
	return err
}

// updateTries is how many groups may be dropped, one after the other, before an update gives up.
const updateTries = 10

// putEntry writes the inbox entry of a job that has no outcome yet, in an update.
func (e *Engine) putEntry(tx store.Tx, j *job) {
	if j.done.Load() || j.stored.Load() {
		return
	}
	entry := encodeJob(j)
	tx.PutNew(inboxKey(j.fn.Name, j.order), entry)
	e.marks.put(tx, j)
	j.fn.deduped.put(tx, j, e.clock.Now())
	tx.OnJoin(func() { j.stored.Store(true) })
	tx.OnDurable(func() {
		j.from.settled()
		j.life.accept()
		e.mu.Lock()
		if !j.active && j.stored.Load() {
			j.ev = nil // loaded again before it runs
		}
		dep := j.fn.dep
		e.mu.Unlock()
		if !j.done.Load() { // else it was most likely never written
			e.wrote(j.fn, dep, int64(len(entry)))
		}
	})
	tx.OnFail(func(error) {
		j.stored.Store(false)
		e.mu.Lock()
		e.holdAgain(j)
		e.mu.Unlock()
	})
}

// holdAgain lists a job that is in memory only if its source waits for it. The caller holds mu.
func (e *Engine) holdAgain(j *job) {
	if j.from != nil && j.held == nil && !j.stored.Load() && !j.done.Load() && !j.dropped.Load() {
		e.hold(j)
	}
}

// unqueue takes a waiting job out of its lane. The caller holds mu.
func (e *Engine) unqueue(j *job) {
	l := j.lane
	for i, q := range l.queue {
		if q == j {
			l.queue = append(l.queue[:i], l.queue[i+1:]...)
			j.fn.waiting--
			if j.fn.alone == j {
				j.fn.alone = nil
			}
			break
		}
	}
	e.dropLane(l)
}

// hold lists a job whose source waits for its acknowledgement. The caller holds mu.
func (e *Engine) hold(j *job) {
	j.held = e.held.PushBack(j)
	e.heldSize += int64(j.size)
	if e.spillAt == nil {
		e.spillAt = e.wheel.add(e.clock.Now()+e.opt.SpillAfter, e.spillDue)
	}
}

// unhold removes it from that list. The caller holds mu.
func (e *Engine) unhold(j *job) {
	if j.held != nil {
		e.held.Remove(j.held)
		j.held = nil
		e.heldSize -= int64(j.size)
		if e.heldSize <= e.opt.MaxMemory {
			e.room.Broadcast()
		}
	}
}

// takeHeld takes the oldest held jobs off the list until at most limit bytes are held, but for those that may not be
// spilled now. The caller holds mu.
func (e *Engine) takeHeld(limit int64) (jobs []*job) {
	planned := map[*function]int64{}
	for n := e.held.Front(); n != nil && e.heldSize > limit && len(jobs) < spillMost; {
		j := n.Value.(*job)
		n = n.Next()
		if e.mayspill(j, planned) {
			e.unhold(j)
			jobs = append(jobs, j)
		}
	}
	return jobs
}

// spillDue stores what has been held long enough, and comes again while anything is held.
func (e *Engine) spillDue() {
	e.mu.Lock()
	now := e.clock.Now()
	var jobs []*job
	planned := map[*function]int64{}
	again := now + e.opt.SpillAfter
	for n := e.held.Front(); n != nil; {
		j := n.Value.(*job)
		n = n.Next()
		if due := j.since + e.opt.SpillAfter; due > now {
			again = due
			break
		}
		if len(jobs) == spillMost {
			again = now + time.Millisecond
			break
		}
		if e.mayspill(j, planned) {
			e.unhold(j)
			jobs = append(jobs, j)
		}
	}
	e.spillAt = nil
	if e.held.Len() > 0 {
		e.spillAt = e.wheel.add(again, e.spillDue)
	}
	e.mu.Unlock()
	e.spill(jobs)
}

// spillMost bounds one update of the inbox, in entries; spillBytes in bytes.
const (
	spillMost  = 64
	spillBytes = 128 << 10
)

// spill gives jobs their inbox entries, so that their sources can be acknowledged. If the store has no room they are
// held again: then it is the source that waits.
func (e *Engine) spill(jobs []*job) {
	for len(jobs) > 0 {
		n, size := 0, 0
		for n < len(jobs) && n < spillMost && (n == 0 || size+jobs[n].size < spillBytes) {
			size += jobs[n].size
			n++
		}
		part := jobs[:n]
		jobs = jobs[n:]
		err := e.storeJobs(part, nil)
		now := e.clock.Now()
		e.mu.Lock()
		for _, j := range part {
			if err != nil && !j.done.Load() && j.held == nil {
				j.since = now
				e.hold(j)
			}
		}
		say := err != nil && !errors.Is(err, store.ErrClosed) && (e.spillSaid == 0 || now-e.spillSaid > saidEvery)
		if say {
			e.spillSaid = now
		}
		e.mu.Unlock()
		if say {
			e.log.Warn("events that wait cannot be stored; their sources are held back", "events", len(part), "error", err)
		}
	}
}

// saidEvery is how often the log says that sources are held back: it may be what fills the disk.
const saidEvery = time.Minute

// loadJob reads a waiting job's event back before it runs. It returns errDropped if the job has no entry any more.
func (e *Engine) loadJob(j *job) error {
	return e.st.View(func(r store.Reader) error {
		v, ok, err := r.Get(inboxKey(j.fn.Name, j.order))
		if err != nil {
			return err
		}
		if !ok {
			return errDropped
		}
		return decodeJob(j, v)
	})
}

// lostEntry gives up a job whose entry cannot be read, which is counted as a loss, or is gone. Its key goes on.
func (e *Engine) lostEntry(j *job, err error) {
	if !errors.Is(err, errDropped) {
		e.log.Error("an event in the inbox cannot be read and is lost", "function", j.fn.Name, "order", j.order, "error", err)
		e.losses.add("damaged", 1)
		_ = e.st.Update(func(tx store.Tx) error {
			tx.Delete(inboxKey(j.fn.Name, j.order))
			return nil
		})
	}
	e.mu.Lock()
	j.fn.uncount(j)
	e.finished(j)
	e.mu.Unlock()
}

// loadInbox lists what waits for a function that is about to be installed. Events stay in the store until they run.
func (e *Engine) loadInbox(f *function) (jobs []*job, err error) {
	err = e.st.View(func(r store.Reader) error {
		return r.Scan(store.NewKey(store.Inbox).String(f.Name), nil, func(k, v []byte) bool {
			fields := store.Parse(k)
			_ = fields.String()
			j := &job{fn: f, order: fields.Uint()}
			if err := errors.Join(fields.Err(), decodeJob(j, v)); err != nil {
				e.log.Error("an event in the inbox cannot be read; it is left there", "function", f.Name, "error", err)
				e.losses.add("damaged", 1)
				return true
			}
			j.stored.Store(true)
			j.life = e.lives.add(j.ev)
			j.life.accept()
			j.life.outcome(f, "waiting", j.sinceBefore())
			j.ev = nil
			jobs = append(jobs, j)
			return true
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read the events that wait for function %q: %w", f.Name, err)
	}
	return jobs, nil
}

// requeue puts a job that waits for its next attempt where it belongs: at its place in the lane, or aside until it is
// due where others may overtake it. The caller holds mu.
func (e *Engine) requeue(j *job) {
	f := j.fn
	j.due = min(j.due, e.clock.Now()+f.dep.spec().Retry.Max) // the clock may have lost time with the power
	if j.due > 0 && (f.parallel || f.dep.spec().Retry.Overtake) {
		due := j.due
		j.due = 0
		f.parked[j] = e.wheel.add(due, func() {
			e.mu.Lock()
			if f.parked[j] == nil {
				e.mu.Unlock()
				return // the function was removed, and its events are dead letters
			}
			delete(f.parked, j)
			e.enqueue(j)
			e.mu.Unlock()
			e.pump()
		})
		return
	}
	e.enqueue(j)
}
