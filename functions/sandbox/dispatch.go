package sandbox

import (
	"time"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/functions/frame"
)

// dispatch hands waiting tasks to workers and adjusts the number of workers. It is called, with the lock held, after
// everything that may have changed either.
func (p *Pool) dispatch() {
	for {
		q, w := p.choose()
		if q == nil {
			break
		}
		t := p.take(q)
		if t.gone() {
			p.settle(t, killed("nobody waits for it any more"))
			continue
		}
		p.send(w, t)
	}
	p.grow()
	p.swap()
	p.relieve()
}

// gone says that nobody waits for a check any more.
func (t *task) gone() bool { return t.ctx != nil && t.ctx.Err() != nil }

// choose finds what has waited longest of all that a worker could take now, and the worker.
func (p *Pool) choose() (from *queue, to *proc) {
	if p.waiting == 0 {
		return nil, nil
	}
	p.queues(func(q *queue) {
		t := q.first()
		if from != nil && from.first().seq < t.seq {
			return
		}
		if w := p.pick(t); w != nil || t.gone() {
			from, to = q, w
		}
	})
	return from, to
}

// pick finds the worker for a task: an idle one, if it can be one that has the code and worked last (the others may then
// end); otherwise the one that holds least. One that has been running the same invocation for long gets nothing.
func (p *Pool) pick(t *task) *proc {
	var best *proc
	stains := !t.record.clean() && p.stainedNow() >= p.stainedMost()
	for _, w := range p.workers {
		if w.state != ready || w.slow || w.leaving || len(w.held) >= p.opts.Depth || !w.serves(t.owner) {
			continue
		}
		switch stained := w.stained(); {
		case p.opts.Max == 1: // there is no other
		case t.record.clean() && stained, // it would wait behind what may be slow
			!t.record.clean() && stained && len(w.held) > 1,
			!stained && stains:
			continue
		}
		if best == nil || better(w, best, t.Bundle.Digest) {
			best = w
		}
	}
	return best
}

// serves says whether tasks of this owner may run on a worker. One that has run nothing yet is free to become anybody's.
func (w *proc) serves(owner string) bool { return w.owner == owner || (w.owner == "" && !w.used) }

// stained says whether a worker holds a task whose record is not clean.
func (w *proc) stained() bool {
	for _, t := range w.held {
		if !t.record.clean() {
			return true
		}
	}
	return false
}

// stainedMost is how many workers may hold such tasks: all but the one in reserve.
func (p *Pool) stainedMost() int { return max(p.opts.Max-1, 1) }

func (p *Pool) stainedNow() (n int) {
	for _, w := range p.workers {
		if w.stained() {
			n++
		}
	}
	return n
}

// mustGo says whether a task that runs long has to make way: no worker is left for those with a clean record, and one waits.
func (p *Pool) mustGo() bool {
	if p.opts.Max == 1 || p.stainedNow() <= p.stainedMost() {
		return false
	}
	waits := false
	p.queues(func(q *queue) { waits = waits || q.first().record.clean() })
	return waits
}

func better(a, b *proc, digest string) bool {
	if len(a.held) != len(b.held) {
		return len(a.held) < len(b.held)
	}
	if a.owner != b.owner {
		return a.owner != ""
	}
	_, ahas := a.has[digest]
	_, bhas := b.has[digest]
	if ahas != bhas {
		return ahas
	}
	return len(a.held) == 0 && a.idleSince.After(b.idleSince)
}

// maxHas bounds what the pool remembers of a worker's code. A worker keeps about as much; what it has dropped, it asks for.
const maxHas = 64

// send puts a task's frames into a worker's outbox.
func (p *Pool) send(w *proc, t *task) {
	var err error
	switch digest := t.Bundle.Digest; {
	case t.check != nil:
		err = w.out.put(func(buf []byte) ([]byte, error) {
			return frame.AppendCheck(buf, t.id, digest, t.Bundle.Files, limitsOf(t.Bundle))
		})
	default:
		if _, ok := w.has[digest]; !ok {
			t.code = true
			if err = p.sendCode(w, t); err != nil {
				break
			}
		}
		err = w.out.put(func(buf []byte) ([]byte, error) { return frame.AppendRun(buf, t.Inv) })
	}
	if err != nil {
		p.settle(t, &functions.Outcome{Fault: &functions.Fault{Kind: functions.FaultError, Message: "handing it to a worker: " + err.Error()}})
		return
	}
	p.touch(w)
	w.used, w.owner = true, t.owner
	w.held = append(w.held, t)
	if len(w.held) == 1 {
		p.begin(w)
		w.busy, w.metered = w.began, 0
	}
}

func (p *Pool) sendCode(w *proc, t *task) error {
	digest := t.Bundle.Digest
	err := w.out.put(func(buf []byte) ([]byte, error) { return frame.AppendLoad(buf, digest, t.Bundle.Files) })
	if err != nil {
		return err
	}
	if len(w.has) >= maxHas {
		clear(w.has)
	}
	w.has[digest] = struct{}{}
	return nil
}

// touch has a worker's outbox written at the end of the turn.
func (p *Pool) touch(w *proc) {
	for _, d := range p.dirty {
		if d == w {
			return
		}
	}
	p.dirty = append(p.dirty, w)
}

// begin starts the clock of the first task that a worker holds.
func (p *Pool) begin(w *proc) {
	w.began, w.slow = time.Now(), false
	if !w.ticking {
		w.ticking = true
		w.timer.Reset(slowAfter)
	}
}

// next is called when the first task of a worker is gone: the one behind it runs now, or none.
func (p *Pool) next(w *proc) {
	w.held[0] = nil
	w.held = w.held[1:]
	w.slow = false
	if len(w.held) > 0 {
		p.begin(w)
		return
	}
	w.held = nil
	p.rest(w)
}

// rest is called when a worker has nothing to do.
func (p *Pool) rest(w *proc) {
	w.idleSince = time.Now()
	w.slow = false
	w.timer.Stop()
	w.ticking = false
	if !p.shrinks && (len(p.workers) > p.opts.Warm || w.owner != "") && !p.closing {
		p.shrinks = true
		p.shrink.Reset(p.opts.Idle)
	}
}

// room is how many jobs with a clean record would begin soon, less those that wait already.
func (p *Pool) room() int {
	n := -len(p.clean.tasks)
	for _, w := range p.workers {
		switch {
		case w.state == dying || w.slow || w.leaving, p.opts.Max > 1 && w.stained():
		case w.owner == "", len(w.held) == 0: // another's own worker makes way once it is idle
			n += p.opts.Depth - len(w.held)
		}
	}
	if !p.retrying {
		n += p.opts.Depth * (p.opts.Max - len(p.workers))
	}
	return n
}

// grow starts workers: up to Warm, for tasks that wait, and when all workers have much before them.
func (p *Pool) grow() {
	if p.closing || p.retrying {
		return
	}
	shared, stained, coming, pressed, rescue := 0, 0, 0, true, false
	for _, w := range p.workers {
		if w.state == starting {
			coming++
		}
		if w.owner == "" {
			shared++
			if w.slow && w.stained() {
				stained++
			}
		}
		if w.state == starting || len(w.held) < max(2, p.opts.Depth/2) {
			pressed = false
		}
		rescue = rescue || (w.revocable() && len(p.movable(w)) > 0)
	}
	want := max(p.opts.Warm-shared, p.needed()-coming)
	if stained > 0 && stained == shared {
		want = max(want, 1) // the one in reserve, before anybody waits for it
	}
	if want < 1 && !p.confine.proven && len(p.workers) == 0 {
		want = 1 // to see how workers are confined, before there is something to run
	}
	if want < 1 && coming == 0 && len(p.workers) > 0 && (pressed || (rescue && !p.anyIdle())) {
		want = 1
	}
	for range min(want, p.opts.Max-len(p.workers)) {
		w := newProc(p)
		p.workers = append(p.workers, w)
		p.starts <- w
	}
}

// needed is how many more workers what waits could use now.
func (p *Pool) needed() (n int) {
	if p.waiting == 0 {
		return 0
	}
	spare := p.stainedMost() - p.stainedNow()
	p.queues(func(q *queue) {
		if q.first().record.clean() {
			n += (len(q.tasks) + p.opts.Depth - 1) / p.opts.Depth
		} else if spare > 0 {
			spare--
			n++
		}
	})
	return n
}

// swap makes room for a task that no worker of those that there are may ever take: another's is given nothing more, and
// ends when it is idle, so that one can be started in its place.
func (p *Pool) swap() {
	if p.waiting == 0 || len(p.workers) < p.opts.Max || p.closing {
		return
	}
	for _, w := range p.workers {
		switch {
		case w.state != ready || w.leaving && len(w.held) > 0:
			return // one is about to be free
		case w.leaving:
			p.kill(w, causeIdle)
			return
		}
	}
	var victim *proc
	p.queues(func(q *queue) {
		t := q.first()
		var other *proc
		for _, w := range p.workers {
			if w.serves(t.owner) && (p.opts.Max == 1 || !t.record.clean() || !w.stained()) {
				return
			}
			if !w.serves(t.owner) && !w.slow && (p.opts.Max == 1 || !w.stained()) && (other == nil || len(w.held) < len(other.held)) {
				other = w
			}
		}
		if victim == nil && (t.record.clean() || p.stainedNow() < p.stainedMost()) {
			victim = other
		}
	})
	if victim == nil {
		return
	}
	if victim.leaving = true; len(victim.held) == 0 {
		p.kill(victim, causeIdle)
	}
}

func (p *Pool) anyIdle() bool {
	for _, w := range p.workers {
		if w.state == ready && len(w.held) == 0 {
			return true
		}
	}
	return false
}

// revocable says whether tasks stand behind one that has been running for long.
func (w *proc) revocable() bool {
	return w.state == ready && w.slow && len(w.held) > 1 && !w.revoking
}

// movable are the tasks behind the running one that another worker may run.
func (p *Pool) movable(w *proc) []*task {
	spare := p.stainedNow() < p.stainedMost()
	var move []*task
	for _, t := range w.held[1:] {
		if t.record.clean() || spare {
			move = append(move, t)
		}
	}
	return move
}

// relieve takes back what stands behind a long-running task, if another worker is free for it or about to be, and what has
// a clean record in any case once the running one has none: it has a claim to the worker in reserve.
func (p *Pool) relieve() {
	free := p.anyIdle()
	for _, w := range p.workers {
		free = free || (w.state == starting && p.waiting == 0)
	}
	for _, w := range p.workers {
		if !w.revocable() {
			continue
		}
		if claim := p.opts.Max > 1 && !w.held[0].record.clean(); !free && !claim {
			continue
		}
		move := p.movable(w)
		if len(move) == 0 {
			continue
		}
		ids := make([]uint64, 0, len(move))
		for _, t := range move {
			t.revoking = true
			ids = append(ids, t.id)
		}
		if err := w.out.put(func(buf []byte) ([]byte, error) { return frame.AppendRevoke(buf, ids) }); err == nil {
			w.revoking, w.revoked = true, time.Now()
			p.touch(w)
		}
	}
}
