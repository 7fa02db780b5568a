// Package sandbox runs invocations in worker processes, and believes nothing that they say.
//
// A Pool starts workers with demand, hands each a few invocations at a time so that it never waits for the next, and
// ends those that are idle for long. A worker runs what it holds one after another, in order. That order is what the
// pool judges by: the first invocation without an outcome is the one that runs, its deadline began with the outcome
// before it, and it is the one to blame if the worker dies. The others had not begun and go to another worker at no cost.
//
// Revisions have a record. What has none that is clean, since it was slow or has killed a worker, never occupies all
// workers: one is in reserve for the others. A revision that runs long in that one loses its clean record there and then,
// and if others wait it is stopped and begins anew in its turn; since nothing of an invocation has happened before its
// outcome, that costs only time. A function with secrets gets workers that have run nothing else and never will.
//
// Whatever a worker sends that an honest one would not (an unknown frame, the outcome of what it does not run, a
// question while nothing runs) is a breach: it is killed, and nothing of that frame is used. The running invocation begins
// anew elsewhere if the worker has run another before, which may have taken it over; it is to blame if it was the first.
// What the effects in an outcome may do is not judged here but by the engine.
//
// Locks: Pool.mu guards all that is decided, outbox.mu the bytes on the way to one worker; outbox.mu may be taken under
// Pool.mu. No callback is called under either. Nothing wakes up while nothing runs, but for one timer that ends idle
// workers.
package sandbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/functions/frame"
)

// Options shape a Pool. Zero values are the defaults, but for Warm, where 0 means that no worker is kept.
type Options struct {
	Command []string      // of a worker, without the memory limit that the pool appends; /proc/self/exe worker
	Max     int           // workers at most; 2
	Warm    int           // workers kept while idle
	Idle    time.Duration // after which a worker beyond Warm ends; 5 min
	Memory  int64         // bytes of RSS that a worker may use; 64 MiB
	Thrifty bool          // workers collect their garbage more often: for machines that have more time than memory
	Depth   int           // invocations that a worker holds, the running one included; 16
	Grace   time.Duration // beyond its timeout before an invocation's worker is killed; 150 ms
	Log     *slog.Logger  // slog.Default if nil
	OnRoom  func()        // Room was 0 and is not any more; called from a goroutine of the pool, or of a Submit
}

const maxDepth = 128

func (o *Options) complete() error {
	if len(o.Command) == 0 {
		o.Command = []string{"/proc/self/exe", "worker"}
	}
	if o.Max == 0 {
		o.Max = 2
	}
	if o.Idle == 0 {
		o.Idle = 5 * time.Minute
	}
	if o.Memory == 0 {
		o.Memory = 64 << 20
	}
	if o.Depth == 0 {
		o.Depth = 16
	}
	if o.Grace == 0 {
		o.Grace = 150 * time.Millisecond
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	switch {
	case o.Max < 0:
		return fmt.Errorf("workers: max is %d, it must be at least 1", o.Max)
	case o.Warm < 0 || o.Warm > o.Max:
		return fmt.Errorf("workers: warm is %d, it must be between 0 and max, which is %d", o.Warm, o.Max)
	case o.Depth < 0 || o.Depth > maxDepth:
		return fmt.Errorf("workers: depth is %d, it must be between 1 and %d", o.Depth, maxDepth)
	case o.Memory < 0 || o.Idle < 0 || o.Grace < 0:
		return errors.New("workers: memory, idle and grace must not be negative")
	}
	return nil
}

// Job is an invocation to run, and whom to tell.
type Job struct {
	Inv    *functions.Invocation // its ID must differ from every other that is under way and be below 1<<63
	Bundle *functions.Bundle     // its code; the digest is the invocation's Revision

	// Ask answers what the function reads. It is called from a goroutine of the pool, one call at a time, and never
	// when or after Done is. While it blocks, the invocation's clock runs; it must end by itself.
	Ask func(functions.Read) functions.ReadAnswer

	// Done is called exactly once, from a goroutine of the pool, which reads no further frame of that worker meanwhile:
	// it must not block. It may call Submit.
	Done func(*functions.Outcome)
}

// maxWaiting bounds the jobs that the pool keeps beyond what its workers hold.
const maxWaiting = 4096

// Pool is a set of worker processes.
type Pool struct {
	opts   Options
	starts chan *proc     // to the spawner; as long as there can be workers, so that sending never blocks
	wg     sync.WaitGroup // readers, writers, callbacks
	thread sync.WaitGroup // the spawner

	mu       sync.Mutex // guards what follows, and the proc fields that say so
	workers  []*proc    // the starting, the ready and those about to die
	clean    queue      // of tasks that may share a worker, and whose record is clean
	stained  queue      // the same, and it is not
	own      map[string]*queue
	waiting  int // tasks in all queues
	records  map[string]*record
	refused  bool // Takes said no
	freed    bool // something that is not clean, or has a worker of its own, has made room since
	seq      uint64
	checks   uint64
	closing  bool
	noRoom   bool // OnRoom is owed
	shrink   *time.Timer
	shrinks  bool // shrink is armed
	failures int  // starts that failed, in a row
	retry    *time.Timer
	retrying bool // no worker is started before retry fires
	patience time.Duration
	revokes  time.Duration // revokeTime
	confine  confinement
	stats    Stats

	dirty []*proc   // have frames to be written, once the lock is free
	done  []settled // are to be told, likewise
}

// New makes a pool and starts its warm workers. It does not wait for them.
func New(opts Options) (*Pool, error) {
	if err := opts.complete(); err != nil {
		return nil, err
	}
	p := &Pool{opts: opts, starts: make(chan *proc, opts.Max), patience: patience, revokes: revokeTime,
		own: map[string]*queue{}, records: map[string]*record{}}
	p.shrink = time.AfterFunc(time.Hour, p.retire)
	p.shrink.Stop()
	p.retry = time.AfterFunc(time.Hour, p.startAgain)
	p.retry.Stop()
	p.thread.Go(p.spawn)
	p.mu.Lock()
	p.dispatch()
	p.unlock()
	return p, nil
}

// Submit takes jobs to be run, and returns without waiting. Several at once cost one write to a worker. They are taken
// even if there is no Room, up to a bound beyond which they fail as killed.
func (p *Pool) Submit(jobs ...Job) {
	now := time.Now()
	p.mu.Lock()
	for _, job := range jobs {
		t := &task{Job: job, id: job.Inv.ID, since: now, owner: owner(job.Bundle), record: p.recordOf(job.Bundle.Digest)}
		switch {
		case p.closing:
			go t.tell(killed("the gateway is stopping")) // Close may have returned: nobody is left to wait for it
		case p.waiting >= maxWaiting:
			p.settle(t, killed("too many invocations wait for a worker"))
		case job.Bundle.Digest != job.Inv.Revision:
			p.settle(t, &functions.Outcome{Fault: &functions.Fault{Kind: functions.FaultError,
				Message: fmt.Sprintf("revision %s was to run with the code of %s", job.Inv.Revision, job.Bundle.Digest)}})
		default:
			p.enqueue(t)
		}
	}
	p.dispatch()
	if !p.noRoom && p.room() <= 0 {
		p.noRoom = true
	}
	p.unlock()
}

// Room is how many more jobs of functions with a clean record would be taken without waiting for more than what the
// workers hold. After it was 0, Options.OnRoom is called when it is not any more.
func (p *Pool) Room() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := max(p.room(), 0)
	if n == 0 {
		p.noRoom = true
	}
	return n
}

// Takes says whether a job of this revision would begin as soon as Room promises. Of what has no clean record, or has
// workers of its own, only a few jobs are to wait here, lest they wait in front of others. After it was false,
// Options.OnRoom is called when it may not be any more.
func (p *Pool) Takes(b *functions.Bundle) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	most, waiting := maxWaiting, 0
	if o := owner(b); o != "" {
		most = p.opts.Depth
		if q := p.own[o]; q != nil {
			waiting = len(q.tasks)
		}
	}
	if r := p.records[b.Digest]; r != nil && !r.clean() {
		most = min(most, p.stainedMost())
		if owner(b) == "" {
			waiting = len(p.stained.tasks)
		}
	}
	if waiting < most {
		return true
	}
	p.refused = true
	return false
}

// Check compiles a bundle in a worker and runs the top level of its main.lua: nil if it can run. A fault "killed" or "timeout" says that no answer was to be had.
func (p *Pool) Check(ctx context.Context, b *functions.Bundle) *functions.Fault {
	answer := make(chan *functions.Fault, 1)
	t := &task{Job: Job{Bundle: b}, check: answer, ctx: ctx, since: time.Now(),
		record: &record{credit: cleanAt}}
	p.mu.Lock()
	p.checks++
	t.id = checkBit | p.checks
	switch {
	case p.closing:
		t.tell(killed("the gateway is stopping"))
	case p.waiting >= maxWaiting:
		t.tell(killed("too many invocations wait for a worker"))
	default:
		p.enqueue(t)
		p.dispatch()
	}
	p.unlock()
	select {
	case f := <-answer:
		return f
	case <-ctx.Done():
		return &functions.Fault{Kind: functions.FaultTimeout, Message: "compiling: " + context.Cause(ctx).Error()}
	}
}

// Stats is what a pool does and has seen since it was made.
type Stats struct {
	Running int // worker processes, those that start included
	Busy    int // of them, the ones that run something
	Max     int
	Waiting int // jobs that no worker holds yet

	Started       uint64 // workers
	Killed        uint64 // of them, killed by the pool for one of the next three
	Timeouts      uint64 // over an invocation's time
	Memory        uint64 // over Options.Memory
	Breaches      uint64 // broke the protocol
	Crashes       uint64 // died by themselves, or were killed by another
	StartFailures uint64
	Moved         uint64 // jobs that went from one worker to another before they had begun
	Evicted       uint64 // jobs that ran long in the last worker that others had, and began anew elsewhere

	StartError string        // why the last start failed; empty once a worker has done something
	Layers     []frame.Layer // how the last worker that became ready is confined
}

// Stats returns the pool's figures of this moment.
func (p *Pool) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.stats
	s.Max, s.Running, s.Waiting = p.opts.Max, len(p.workers), p.waiting
	s.Layers = slices.Clone(s.Layers)
	for _, w := range p.workers {
		if len(w.held) > 0 {
			s.Busy++
		}
	}
	return s
}

// Close kills the workers and waits for everything. Jobs without an outcome are told that they were killed.
func (p *Pool) Close() {
	p.mu.Lock()
	if !p.closing {
		p.closing = true
		close(p.starts)
		p.shrink.Stop()
		p.retry.Stop()
		for _, t := range p.takeAll(func(*task) bool { return true }) {
			p.settle(t, killed("the gateway is stopping"))
		}
		for _, w := range p.workers {
			p.kill(w, causeStop)
		}
	}
	p.unlock()
	p.thread.Wait()
	p.wg.Wait()
}

// unlock ends a turn of the pool: it lets go of the lock and then does what the turn decided.
func (p *Pool) unlock() {
	dirty, done := p.dirty, p.done
	p.dirty, p.done = nil, nil
	room := p.noRoom && !p.closing && p.room() > 0
	if room {
		p.noRoom = false
	}
	if p.refused && p.freed && !p.closing {
		p.refused, room = false, true
	}
	p.freed = false
	if len(done) > 0 {
		p.wg.Go(func() {
			for _, s := range done {
				s.task.tell(s.outcome)
			}
		})
	}
	p.mu.Unlock()
	for _, w := range dirty {
		w.out.flush()
	}
	if room && p.opts.OnRoom != nil {
		p.opts.OnRoom()
	}
}
