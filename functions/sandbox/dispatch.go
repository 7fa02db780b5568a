package sandbox

import (
	"time"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/functions/frame"
)

// dispatch hands waiting tasks to workers and adjusts the number of workers. It is called, with the lock held, after
// everything that may have changed either.
func (p *Pool) dispatch() {
	for len(p.waiting) > 0 {
		t := p.waiting[0]
		if t.ctx != nil && t.ctx.Err() != nil {
			p.pop()
			p.settle(t, killed("nobody waits for it any more"))
			continue
		}
		w := p.pick(t.Bundle.Digest)
		if w == nil {
			break
		}
		p.pop()
		p.send(w, t)
	}
	p.grow()
	p.relieve()
}

func (p *Pool) pop() {
	p.waiting[0] = nil
	p.waiting = p.waiting[1:]
	if len(p.waiting) == 0 {
		p.waiting = nil
	}
}

// pick finds the worker for the next task: an idle one, if it can be one that has the code and worked last (the others
// may then end); otherwise the one that holds least. One that has been running the same invocation for long gets nothing.
func (p *Pool) pick(digest string) *proc {
	var best *proc
	for _, w := range p.workers {
		if w.state != ready || w.slow || len(w.held) >= p.opts.Depth {
			continue
		}
		if best == nil || better(w, best, digest) {
			best = w
		}
	}
	return best
}

func better(a, b *proc, digest string) bool {
	if len(a.held) != len(b.held) {
		return len(a.held) < len(b.held)
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
		err = w.out.put(func(buf []byte) ([]byte, error) { return frame.AppendCheck(buf, t.id, digest, t.Bundle.Files) })
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
	w.held = append(w.held, t)
	if len(w.held) == 1 {
		p.begin(w)
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
	if !p.shrinks && len(p.workers) > p.opts.Warm && !p.closing {
		p.shrinks = true
		p.shrink.Reset(p.opts.Idle)
	}
}

// room is how many jobs would begin soon, less those that wait already.
func (p *Pool) room() int {
	n := -len(p.waiting)
	for _, w := range p.workers {
		if w.state == starting || (w.state == ready && !w.slow) {
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
	coming, pressed, rescue := 0, len(p.workers) > 0, false
	for _, w := range p.workers {
		switch {
		case w.state == starting:
			coming++
			pressed = false
		case len(w.held) < max(2, p.opts.Depth/2):
			pressed = false
		}
		rescue = rescue || w.revocable()
	}
	want := max(p.opts.Warm-len(p.workers), (len(p.waiting)+p.opts.Depth-1)/p.opts.Depth-coming)
	if want < 1 && (pressed || (rescue && coming == 0 && !p.anyIdle())) {
		want = 1
	}
	for range min(want, p.opts.Max-len(p.workers)) {
		w := newProc(p)
		p.workers = append(p.workers, w)
		p.starts <- w
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

// relieve takes back what stands behind a long-running task, if another worker is free for it or about to be.
func (p *Pool) relieve() {
	if len(p.waiting) > 0 {
		return // a free worker has enough to do with these
	}
	free := p.anyIdle()
	for _, w := range p.workers {
		free = free || w.state == starting
	}
	if !free {
		return
	}
	for _, w := range p.workers {
		if !w.revocable() {
			continue
		}
		ids := make([]uint64, 0, len(w.held)-1)
		for _, t := range w.held[1:] {
			t.revoking = true
			ids = append(ids, t.id)
		}
		if err := w.out.put(func(buf []byte) ([]byte, error) { return frame.AppendRevoke(buf, ids) }); err == nil {
			w.revoking = true
			p.touch(w)
		}
	}
}
