package engine

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"sort"
	"sync/atomic"
	"time"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/functions/sandbox"
	"github.com/perigee-iot/perigee/functions/state"
	"github.com/perigee-iot/perigee/internal/event"
	"github.com/perigee-iot/perigee/internal/store"
)

// job is one event for one function, from its match to its durable outcome.
type job struct {
	fn     *function
	lane   *lane
	ev     *event.Event // nil: only in the inbox, loaded before it runs
	key    string
	params map[string]string
	size   int
	from   *delivery // nil once the source is settled for this function
	life   *life

	order    uint64       // place in the lane; the number of the inbox entry, once there is one
	attempt  atomic.Int32 // the last one begun; 0 before the first
	due      time.Duration
	since    time.Duration // when it was offered, on the gateway's clock
	held     *heldNode     // in Engine.held, while only in memory
	dedupe   string        // the value that tells it from others, "" if none does
	failed   string        // the fault of the last attempt, one line
	revision string        // on which that was
	gen      int64         // of its lane when it was dispatched
	conflict int           // how often it had to run again since what it read had changed
	waiter   func(*outcomeReport)
	appended []LifeRecord // by the outcome that is being committed

	inv     *functions.Invocation
	drops   int64                     // of the store, when the invocation began
	dep     *Deployment               // the revision it runs on, from its dispatch on
	reads   map[functions.Read]uint64 // shared values sent, with their versions
	answers []functions.ReadAnswer    // to what was asked; of those that have more than a record may, only some
	noted   int                       // bytes of all answers
	dropped atomic.Bool               // its entry was lost with a group, and who made it will make it again
	counted bool                      // in its function's share of the inbox; guarded by Engine.mu
	turned  bool                      // was turned away, since there was no room in the inbox; guarded by Engine.mu
	active  bool                      // taken out of its lane to run; guarded by Engine.mu
	stored  atomic.Bool               // has an inbox entry; changes with the update that makes or drops it
	done    atomic.Bool               // has an outcome; likewise
}

// lane is the events of one key of one function, in order. While its first event runs or waits for a retry, the others
// wait.
type lane struct {
	fn      *function
	key     string
	queue   []*job
	running *job // nil for a parallel lane, which counts in busy
	busy    int
	queued  bool // in fn.ready
	retry   *entry
	gen     atomic.Int64 // rises when an outcome was lost with a group of the store: what was dispatched before is stale
	redo    []*job       // those whose outcomes were lost or refused; while there are any, nothing is dispatched
	pending int          // outcomes that are being made, or are not durable yet
	refused error        // the disk has no room for its outcomes; nil since one was taken
}

// function is one active, paused or blocked function.
type function struct {
	Name        string
	State       State
	Reason      string
	dep         *Deployment
	lanes       map[string]*lane
	parked      map[*job]*entry // wait for their next attempt aside from the lanes, where others may overtake them
	ready       []*lane         // lanes that could run now, in turn
	queued      bool            // in Engine.ready
	running     int
	quick       int           // quick invocations in a row
	wall        time.Duration // that they take, lately
	alone       *job          // runs without company, since it met too many conflicts
	waiting     int           // jobs in lanes that do not run
	inbox       int64
	inboxN      int
	deads       int
	trimming    bool // trim will run
	targets     []*target
	parallel    bool
	hints       []functions.Read
	faultAt     time.Duration // when a fault was logged last
	faultsQuiet int           // faults since then
	deduped     *deduped
	seen        *retainedMemory
	stats       stats
	timers      map[timerID]*entry
	kills       kills
	bucket      bucket
	timersSet   atomic.Int64 // that the store has, with those that are not durable yet; changes with the update that sets one
}

// waitsFor says why a function does not run now, "" if it may. The engine's mu is held.
func (f *function) waitsFor() string {
	if f.State == Active {
		return ""
	}
	return fmt.Sprintf("%s is %s: %s", f.Name, f.State, f.Reason)
}

// limit is how many of a function's invocations may run at once. Without a limit of its own a function that has been
// quick may have several on their way to a worker, which saves round trips; one that is slow, or new, may not take
// every worker.
func (f *function) limit(slow int) int {
	switch n := f.dep.spec().Limits.Concurrency; {
	case n > 0:
		return n
	case f.quick >= quickAfter:
		return max(slow, min(quickMost, int(quickTogether/max(f.wall, 1))))
	}
	return slow
}

const (
	quickWall  = 5 * time.Millisecond // an invocation that is no longer than this is quick
	quickAfter = 16                   // so many in a row make its function quick
	quickMost  = 16                   // of such a function may be on their way at once
	// but no more than take this long together: so long others may have to wait behind them
	quickTogether = 10 * time.Millisecond
)

// ran notes how long an invocation took. The engine's mu is held.
func (f *function) ran(wall time.Duration) {
	f.wall += (wall - f.wall) / 8
	if wall > quickWall {
		f.quick = 0
	} else {
		f.quick++
	}
}

// enqueue puts a job into its lane. The caller holds mu.
func (e *Engine) enqueue(j *job) {
	f := j.fn
	l := f.lanes[j.key]
	if l == nil {
		l = &lane{fn: f, key: j.key}
		f.lanes[j.key] = l
	}
	j.lane = l
	if n := len(l.queue); n > 0 && l.queue[n-1].order > j.order {
		i := sort.Search(n, func(i int) bool { return l.queue[i].order > j.order })
		l.queue = append(l.queue, nil)
		copy(l.queue[i+1:], l.queue[i:])
		l.queue[i] = j
	} else {
		l.queue = append(l.queue, j)
	}
	f.waiting++
	e.offerLane(l)
}

// mayRun says whether a lane's first job may run now. If that is only a matter of time, it is offered again then. The
// caller holds mu.
func (e *Engine) mayRun(l *lane) bool {
	f := l.fn
	if len(l.queue) == 0 || len(l.redo) > 0 || (l.busy > 0 && !f.parallel) {
		return false
	}
	if f.State != Active || l.retry != nil {
		return false
	}
	if first := l.queue[0]; first.due > 0 && !f.parallel && first.due > e.clock.Now() {
		l.retry = e.wheel.add(first.due, func() { e.wakeLane(l) })
		return false
	}
	return true
}

// offerLane lists a lane as ready if its first job could run. The caller holds mu.
func (e *Engine) offerLane(l *lane) {
	f := l.fn
	if l.queued || !e.mayRun(l) {
		return
	}
	l.queued = true
	f.ready = append(f.ready, l)
	if !f.queued {
		f.queued = true
		e.ready = append(e.ready, f)
	}
}

// wakeLane is called when the first job of a lane is due for its next attempt.
func (e *Engine) wakeLane(l *lane) {
	e.mu.Lock()
	l.retry = nil
	e.offerLane(l)
	e.mu.Unlock()
	e.pump()
}

// pump hands ready jobs to workers while there is room. Any goroutine may call it; one at a time does the work.
func (e *Engine) pump() {
	e.mu.Lock()
	if e.pumping {
		e.pumpMore = true
		e.mu.Unlock()
		return
	}
	e.pumping = true
	for {
		e.pumpMore = false
		for e.pool != nil && e.started && !e.stopping && e.pool.Room() > 0 {
			j := e.next()
			if j == nil {
				break
			}
			e.mu.Unlock()
			e.submit(j)
			e.mu.Lock()
		}
		if !e.pumpMore {
			break
		}
	}
	e.pumping = false
	e.mu.Unlock()
}

// next takes the next job to run: functions take turns, and so do the lanes of one. The caller holds mu.
func (e *Engine) next() *job {
	for n := len(e.ready); n > 0; n-- {
		f := e.ready[0]
		e.ready = e.ready[1:]
		f.queued = false
		j := e.nextOf(f)
		if len(f.ready) > 0 {
			f.queued = true
			e.ready = append(e.ready, f)
		}
		if j != nil {
			return j
		}
	}
	return nil
}

// nextOf takes the next job of one function, nil if it has to wait.
func (e *Engine) nextOf(f *function) *job {
	if f.State != Active || f.running >= f.limit(e.opt.Concurrency) {
		return nil
	}
	if f.alone != nil && f.running > 0 {
		return nil
	}
	if len(f.ready) == 0 || !e.pool.Takes(f.dep.Bundle) {
		return nil
	}
	for _, t := range f.targets {
		if t.full() {
			return nil
		}
	}
	for n := len(f.ready); n > 0; n-- {
		l := f.ready[0]
		f.ready = f.ready[1:]
		if f.alone != nil && f.alone.lane != l {
			f.ready = append(f.ready, l)
			continue
		}
		l.queued = false
		if !e.mayRun(l) {
			continue // since it was listed, an outcome before its first job was lost, or an earlier job came back
		}
		if e.limited(f) {
			l.queued = true
			f.ready = append(f.ready, l)
			return nil
		}
		j := l.queue[0]
		l.queue[0] = nil
		l.queue = l.queue[1:]
		f.waiting--
		f.running++
		l.busy++
		if !f.parallel {
			l.running = j
		}
		j.gen, j.active, j.dep = l.gen.Load(), true, f.dep
		e.offerLane(l) // a parallel lane may run on
		return j
	}
	return nil
}

// submit builds the invocation and hands it to the pool.
func (e *Engine) submit(j *job) {
	f := j.fn
	var err error
	if j.dropped.Load() {
		err = errDropped
	} else if j.ev == nil {
		err = e.loadJob(j)
	}
	if err != nil {
		e.lostEntry(j, err)
		return
	}
	dep, attempt := j.dep, int(j.attempt.Add(1))
	inv := e.invocation(j)
	j.inv = inv
	j.reads, j.answers, j.noted, j.drops = nil, nil, 0, e.st.Drops()
	e.mu.Lock()
	hints := f.hints
	e.mu.Unlock()
	if len(hints) > 0 {
		inv.Hints = make([]functions.ReadAnswer, 0, len(hints))
		for _, r := range hints {
			if a := e.answer(j, r); a.Err == "" {
				inv.Hints = append(inv.Hints, a)
			}
		}
	}
	j.life.running(f, attempt, dep.Bundle.Digest)
	e.pool.Submit(sandbox.Job{
		Inv:    inv,
		Bundle: dep.Bundle,
		Ask:    func(r functions.Read) functions.ReadAnswer { return e.note(j, e.answer(j, r)) },
		Done:   func(o *functions.Outcome) { e.finish(j, o) },
	})
}

// invocation is what a worker needs to know for the attempt of a job that has begun.
func (e *Engine) invocation(j *job) *functions.Invocation {
	f, dep := j.fn, j.dep
	now, ok := e.clock.Wall()
	return &functions.Invocation{
		ID:       e.nextInv.Add(1),
		Function: f.Name,
		Revision: dep.Bundle.Digest,
		Event:    e.clock.corrected(j.ev),
		Params:   j.params,
		Key:      j.key,
		NoKey:    dep.spec().Key.Kind == functions.KeyNone,
		Attempt:  int(j.attempt.Load()),
		Now:      now,
		NowOK:    ok,
		Seed:     seedOf(j.ev.ID, f.Name),
		Gateway:  e.opt.Gateway,
		Env:      dep.Env,
		Limits:   dep.spec().Limits,
		Perms:    dep.spec().Permissions,
		Secrets:  e.secretsOf(&dep.spec().Permissions),
	}
}

// answer reads what a function asks for, under its permissions. The worker that asks runs only this job, so that j.reads
// has one writer.
func (e *Engine) answer(j *job, r functions.Read) functions.ReadAnswer {
	a := functions.ReadAnswer{Read: r}
	f := j.fn
	var err error
	switch r.Kind {
	case functions.ReadState, functions.ReadStateKeys:
		if j.dep.spec().Key.Kind == functions.KeyNone {
			a.Err = "a function with key: none has no state of its own key"
			return a
		}
		err = e.st.View(func(s store.Reader) error {
			return state.Answer(s, state.Keyed(f.Name, j.key), r, &a)
		})
	case functions.ReadShared, functions.ReadSharedKeys:
		err = e.st.View(func(s store.Reader) error {
			ref := state.Shared(f.Name)
			version, err := sharedVersion(s, ref, r)
			if err != nil {
				return err
			}
			if j.reads == nil {
				j.reads = map[functions.Read]uint64{}
			}
			if _, again := j.reads[r]; !again {
				j.reads[r] = version
			}
			return state.Answer(s, ref, r, &a)
		})
	case functions.ReadDevice:
		if !j.dep.spec().Permissions.AllowsReadDevice(r.Name) {
			a.Err = "not permitted"
			return a
		}
		a.Value, err = e.readDevice(r.Name)
	default:
		a.Err = "unknown question"
	}
	if err != nil {
		a.Err = err.Error()
	}
	return a
}

// finished takes a job out of its lane and lets the next one run. The caller holds mu.
func (e *Engine) finished(j *job) {
	f, l := j.fn, j.lane
	f.running--
	l.busy--
	if l.running == j {
		l.running = nil
	}
	if f.alone == j {
		f.alone = nil
	}
	e.offerLane(l)
	e.dropLane(l)
	if len(f.ready) > 0 && !f.queued {
		f.queued = true
		e.ready = append(e.ready, f)
	}
}

// dropLane forgets a lane in which nothing is left. The caller holds mu.
func (e *Engine) dropLane(l *lane) {
	if l.busy == 0 && l.pending == 0 && len(l.queue) == 0 && len(l.redo) == 0 {
		if l.fn.lanes[l.key] == l {
			delete(l.fn.lanes, l.key)
		}
	}
}

// again puts a job that ran back to the front of its lane.
func (e *Engine) again(j *job) {
	e.mu.Lock()
	f, l := j.fn, j.lane
	j.inv, j.reads, j.active = nil, nil, false
	l.queue = append([]*job{j}, l.queue...)
	f.waiting++
	alone := f.alone == j
	e.finished(j)
	if alone {
		f.alone = j
	}
	e.mu.Unlock()
	e.pump()
}

// redo is called when the outcome of a job was refused, or lost with its group. That was no attempt. Its lane is rewound to there
// after a pause: nothing is dispatched until what runs has ended, and then the job and all that came back with it stand in
// the queue in their order. The caller holds mu.
func (e *Engine) redo(j *job) {
	j.attempt.Add(-1)
	l := j.lane
	if len(l.redo) == 0 {
		e.wheel.add(e.clock.Now()+e.opt.RedoAfter, func() { e.redoLane(l) })
	}
	l.redo = append(l.redo, j)
}

func (e *Engine) redoLane(l *lane) {
	e.mu.Lock()
	if l.busy > 0 || l.pending > 0 { // those may be dropped, too, and come before these
		e.wheel.add(e.clock.Now()+e.opt.RedoAfter, func() { e.redoLane(l) })
		e.mu.Unlock()
		return
	}
	jobs := l.redo
	l.redo = nil
	l.fn.waiting += len(jobs)
	for _, j := range jobs {
		j.inv, j.reads, j.active = nil, nil, false
		e.holdAgain(j)
		if j.stored.Load() {
			l.fn.count(j)
		}
	}
	l.queue = append(jobs, l.queue...)
	sort.SliceStable(l.queue, func(a, b int) bool { return l.queue[a].order < l.queue[b].order })
	e.offerLane(l)
	e.mu.Unlock()
	e.pump()
}

// count takes a job into its function's share of the inbox. The caller holds mu, as for uncount.
func (f *function) count(j *job) {
	if !j.counted {
		j.counted = true
		f.inbox += int64(j.size)
		f.inboxN++
	}
}

func (f *function) uncount(j *job) {
	if j.counted {
		j.counted = false
		f.inbox -= int64(j.size)
		f.inboxN--
	}
}

// remember takes what an invocation read as what the next one will want. The engine's mu is held.
func (f *function) remember(reads []functions.Read) {
	if len(reads) > maxHints {
		reads = reads[:maxHints]
	}
	if !slices.Equal(f.hints, reads) {
		f.hints = reads
	}
}

// maxHints bounds the values that are sent ahead with an invocation.
const maxHints = 8

// seedOf gives every attempt of an event in a function the same random numbers.
func seedOf(id, fn string) uint64 { return digest([]byte(id), []byte(fn)) }

// readDevice answers device.read from the last reading, or by asking the device.
func (e *Engine) readDevice(name string) ([]byte, error) {
	fields, err := e.ReadDevice(context.Background(), name)
	if err != nil {
		return nil, err
	}
	return encodeFields(fields)
}

func sharedVersion(s store.Reader, ref state.Ref, r functions.Read) (uint64, error) {
	if r.Kind == functions.ReadSharedKeys {
		return state.SetVersion(s, ref)
	}
	return state.Version(s, ref, r.Name)
}

func uint64Bytes(v uint64) []byte { return binary.BigEndian.AppendUint64(nil, v) }

// Pump lets what waits run: the pool calls it when it has room again.
func (e *Engine) Pump() { e.pump() }
