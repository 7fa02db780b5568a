package sandbox

import (
	"cmp"
	"slices"
	"time"
)

// queue is tasks that wait for a worker, in the order of their seq: those that may share a worker and have a clean
// record, those that may share one and have none, or those of one revision that gets workers of its own.
type queue struct {
	owner string // the revision with workers of its own, "" for those that share
	tasks []*task
}

func (q *queue) first() *task { return q.tasks[0] }

func (q *queue) pop() *task {
	t := q.tasks[0]
	q.tasks[0] = nil
	if q.tasks = q.tasks[1:]; len(q.tasks) == 0 {
		q.tasks = nil
	}
	return t
}

func (q *queue) insert(t *task) {
	if n := len(q.tasks); n == 0 || q.tasks[n-1].seq < t.seq {
		q.tasks = append(q.tasks, t)
		return
	}
	i, _ := slices.BinarySearchFunc(q.tasks, t.seq, func(w *task, seq uint64) int { return cmp.Compare(w.seq, seq) })
	q.tasks = slices.Insert(q.tasks, i, t)
}

// queueOf finds the queue that a task belongs into now.
func (p *Pool) queueOf(t *task) *queue {
	switch {
	case t.owner != "":
		q := p.own[t.owner]
		if q == nil {
			q = &queue{owner: t.owner}
			p.own[t.owner] = q
		}
		return q
	case t.record.clean():
		return &p.clean
	}
	return &p.stained
}

func (p *Pool) wait(t *task) {
	p.waiting++
	p.queueOf(t).insert(t)
}

// take takes the first task out of a queue.
func (p *Pool) take(q *queue) *task {
	p.waiting--
	t := q.pop()
	if q.owner != "" && len(q.tasks) == 0 {
		delete(p.own, q.owner)
	}
	return t
}

// queues calls f for each queue in which something waits, after what has changed its record has gone where it belongs.
func (p *Pool) queues(f func(q *queue)) {
	for len(p.clean.tasks) > 0 && !p.clean.first().record.clean() {
		p.stained.insert(p.clean.pop())
	}
	for len(p.stained.tasks) > 0 && p.stained.first().record.clean() {
		p.clean.insert(p.stained.pop())
	}
	for _, q := range []*queue{&p.clean, &p.stained} {
		if len(q.tasks) > 0 {
			f(q)
		}
	}
	for _, q := range p.own {
		f(q)
	}
}

// takeAll empties every queue of the tasks that end says.
func (p *Pool) takeAll(end func(*task) bool) (taken []*task) {
	p.queues(func(q *queue) {
		kept := q.tasks[:0]
		for _, t := range q.tasks {
			if end(t) {
				taken = append(taken, t)
				continue
			}
			kept = append(kept, t)
		}
		clear(q.tasks[len(kept):])
		if q.tasks = kept; len(kept) == 0 && q.owner != "" {
			delete(p.own, q.owner)
		}
	})
	p.waiting -= len(taken)
	slices.SortFunc(taken, func(a, b *task) int { return cmp.Compare(a.seq, b.seq) })
	return taken
}

// What makes a record. It is kept by revision, so that a new one begins anew.
const (
	tidy       = 25 * time.Millisecond  // an invocation that is no longer is no burden
	overstay   = 100 * time.Millisecond // one that runs for this long has no clean record, whatever it did before
	cleanAt    = 16                     // the credit that makes a record clean; what is new has it
	mostCredit = 64                     // so that one that was always tidy may once be late
	lateCosts  = 16
	maxRecords = 4096 // remembered; then all begin anew
)

// record is how a revision has behaved: invocations that were over soon add to its credit, long ones take from it, and
// one that killed its worker leaves nothing.
type record struct{ credit int }

func (r *record) clean() bool { return r.credit >= cleanAt }
func (r *record) stain()      { r.credit = 0 }

func (r *record) ran(wall time.Duration) {
	if wall <= tidy {
		r.credit = min(r.credit+1, mostCredit)
		return
	}
	r.credit = max(r.credit-lateCosts, 0)
}

// recordOf finds the record of a revision.
func (p *Pool) recordOf(digest string) *record {
	r := p.records[digest]
	if r == nil {
		if len(p.records) >= maxRecords {
			clear(p.records)
		}
		r = &record{credit: cleanAt}
		p.records[digest] = r
	}
	return r
}
