package sandbox

import (
	"context"
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

	owner  string // the revision whose own worker it needs, "" if it may share one
	record *record

	check chan *functions.Fault // of a check; has room for the answer
	ctx   context.Context       // of a check: whether anybody still waits

	code     bool // its code was sent with it, or for it
	needed   bool // the worker said that it lacks the code
	revoking bool // the worker was asked to give it back
	asks     int
	breaches int // workers that broke the protocol while they ran it, and may have been taken over before

	asking bool               // a call of Ask is under way
	late   *functions.Outcome // what to tell when it is over
	again  bool               // it is to wait for a worker anew when that is over
}

// owner is what a bundle's tasks need a worker of their own for, "" if they may share one. A new revision gets new ones.
func owner(b *functions.Bundle) string {
	if b.Spec != nil && len(b.Spec.Permissions.Secrets) > 0 {
		return b.Digest
	}
	return ""
}

// limitsOf are a bundle's limits; the default's, if it has none.
func limitsOf(b *functions.Bundle) functions.Limits {
	if b.Spec == nil {
		return functions.Limits{}
	}
	return b.Spec.Limits
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
	p.wait(t)
}

// requeue makes tasks wait that a worker held and has not begun, in the place that they had.
func (p *Pool) requeue(tasks []*task) {
	for _, t := range tasks {
		p.stats.Moved++
		if p.closing {
			p.settle(t, killed("the gateway is stopping"))
			continue
		}
		t.code, t.needed, t.revoking, t.asks = false, false, false, 0
		p.wait(t)
	}
}

const (
	codeTime  = 2 * time.Second // more, if code has to be sent and compiled first
	checkTime = 5 * time.Second // to compile, and for the top level of main.lua, which the worker ends after 2 s
)

// timeout is how long a task may run by itself.
func (t *task) timeout() time.Duration {
	if t.check != nil {
		return checkTime
	}
	return t.Inv.Limits.OrDefault().Timeout
}

// allowed is how long a task may run before its worker is killed.
func (p *Pool) allowed(t *task) time.Duration {
	if t.check != nil {
		return checkTime
	}
	limit := t.timeout()
	if t.code {
		limit += codeTime
	}
	return limit + p.opts.Grace
}
