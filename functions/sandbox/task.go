package sandbox

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/perigee-iot/perigee/functions"
)

// checkBit is set in the ids of checks, and in no invocation's.
const checkBit = 1 << 63

// task is a job, or a check, on its way. Its fields are guarded by Pool.mu.
type task struct {
	Job
	id    uint64
	seq   uint64 // its place in the order of submission
	since time.Time

	check chan *functions.Fault // of a check; has room for the answer
	ctx   context.Context       // of a check: whether anybody still waits

	code     bool // its code was sent with it, or for it
	needed   bool // the worker said that it lacks the code
	revoking bool // the worker was asked to give it back
	asks     int

	asking bool               // a call of Ask is under way
	late   *functions.Outcome // what to tell when it is over
}

// settled is a task with what became of it.
type settled struct {
	task    *task
	outcome *functions.Outcome
}

// tell hands an outcome to whoever submitted the task.
func (t *task) tell(o *functions.Outcome) {
	o.ID = t.id
	if t.check != nil {
		t.check <- o.Fault
		return
	}
	t.Done(o)
}

// settle ends a task with an outcome of the pool's own making.
func (p *Pool) settle(t *task, o *functions.Outcome) {
	if t.asking {
		t.late = o
		return
	}
	p.done = append(p.done, settled{t, o})
}

func killed(why string) *functions.Outcome {
	return &functions.Outcome{Fault: &functions.Fault{Kind: functions.FaultKilled, Message: why}}
}

// enqueue makes a task wait, at the end.
func (p *Pool) enqueue(t *task) {
	p.seq++
	t.seq = p.seq
	p.waiting = append(p.waiting, t)
}

// requeue makes tasks wait that a worker held and has not begun, in the place that they had.
func (p *Pool) requeue(tasks []*task) {
	for _, t := range tasks {
		p.stats.Moved++
		if p.closing {
			p.settle(t, killed("the gateway is stopping"))
			continue
		}
		t.code, t.needed, t.revoking = false, false, false
		i, _ := slices.BinarySearchFunc(p.waiting, t.seq, func(w *task, seq uint64) int { return cmp.Compare(w.seq, seq) })
		p.waiting = slices.Insert(p.waiting, i, t)
	}
}

const (
	defaultTimeout = time.Second     // of an invocation that comes without one
	codeTime       = 2 * time.Second // more, if code has to be sent and compiled first
	checkTime      = 5 * time.Second
)

// allowed is how long a task may run before its worker is killed.
func (p *Pool) allowed(t *task) time.Duration {
	if t.check != nil {
		return checkTime
	}
	limit := t.Inv.Limits.Timeout
	if limit <= 0 {
		limit = defaultTimeout
	}
	if t.code {
		limit += codeTime
	}
	return limit + p.opts.Grace
}
