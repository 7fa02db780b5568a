package sandbox

import (
	"bytes"
	"fmt"
	"os"
	"time"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/functions/frame"
)

// state is how far a worker is in its life.
type state int

const (
	starting state = iota
	ready
	dying // killed, and not yet buried
)

// proc is one worker process. Pool.mu guards the fields from state on; what is above is set by the spawner before the
// reader begins.
type proc struct {
	pool    *Pool
	process *os.Process
	frames  *frame.Reader
	stderr  *os.File // what the process said at its end
	out     outbox
	shell   []frame.Layer // what is around it

	state     state
	launched  bool                // there is a process
	trying    string              // while it starts: the layer of confinement that it tries
	owner     string              // the revision whose tasks alone it runs, "" if it is shared
	used      bool                // it was sent something
	leaving   bool                // it gets nothing more: its place is wanted for another
	has       map[string]struct{} // digests of the code it was sent
	held      []*task             // in the order they were sent; the first one runs
	began     time.Time           // the first one, or the start of the process
	slow      bool                // the first one has been running for slowAfter
	revoking  bool                // an answer to a Revoke is due
	revoked   time.Time           // since then
	busy      time.Time           // since then it has not been idle
	metered   time.Duration       // how much of that its outcomes have claimed
	worked    bool                // it has given an outcome
	last      *record             // of what that was
	idleSince time.Time
	cause     cause            // why the pool killed it
	detail    string           // more about that
	fault     *functions.Fault // what that is for the task that ran, if it is more than killed
	timer     *time.Timer      // fires while something runs: see tick
	ticking   bool
}

func newProc(p *Pool) *proc {
	w := &proc{pool: p, has: map[string]struct{}{}}
	w.timer = time.AfterFunc(time.Hour, w.tick)
	w.timer.Stop()
	return w
}

// read handles the worker's frames until there are no more, and buries it.
func (w *proc) read() {
	err := w.readFrames()
	w.pool.bury(w, err)
}

// readFrames handles frames until there are no more. What several frames that have come together cause to be sent goes
// out in one write.
func (w *proc) readFrames() error {
	corked := false
	for {
		t, body, err := w.frames.Next()
		if err != nil {
			return err
		}
		if !corked && w.frames.More() {
			w.out.cork()
			corked = true
		}
		if err := w.handle(t, body); err != nil {
			return fmt.Errorf("%s: %w", t, err)
		}
		if corked && !w.frames.More() {
			w.out.uncork()
			corked = false
		}
	}
}

// handle acts on one frame. An error is a breach.
func (w *proc) handle(t frame.Type, body []byte) error {
	switch t {
	case frame.Ready:
		layers, err := frame.DecodeReady(body)
		if err != nil {
			return err
		}
		return w.becameReady(layers)
	case frame.Confining:
		layer, err := frame.DecodeConfining(body)
		if err != nil {
			return err
		}
		return w.tries(layer)
	case frame.Outcome:
		o, err := frame.DecodeOutcome(bytes.Clone(body)) // what is kept of it shares its memory
		if err != nil {
			return err
		}
		return w.settled(o)
	case frame.Checked:
		id, fault, err := frame.DecodeChecked(body)
		if err != nil {
			return err
		}
		if id&checkBit == 0 {
			return fmt.Errorf("%w: %d is no check", frame.ErrBreach, id)
		}
		return w.settled(&functions.Outcome{ID: id, Fault: fault})
	case frame.Ask:
		id, r, err := frame.DecodeAsk(body)
		if err != nil {
			return err
		}
		return w.asked(id, r)
	case frame.Need:
		digest, err := frame.DecodeNeed(body)
		if err != nil {
			return err
		}
		return w.needs(digest)
	case frame.Revoked:
		ids, err := frame.DecodeIDs(body)
		if err != nil {
			return err
		}
		return w.gaveBack(ids)
	}
	return fmt.Errorf("%w: unexpected", frame.ErrBreach)
}

func (w *proc) becameReady(layers []frame.Layer) error {
	p := w.pool
	p.mu.Lock()
	defer p.unlock()
	switch w.state {
	case dying:
		return nil
	case ready:
		return fmt.Errorf("%w: for the second time", frame.ErrBreach)
	}
	w.state = ready
	p.confined(w.shell, layers)
	p.rest(w)
	p.dispatch()
	return nil
}

// running returns the first task that w holds, if it has this id. The error says that the worker runs no such thing.
func (w *proc) running(id uint64) (*task, error) {
	if len(w.held) == 0 {
		return nil, fmt.Errorf("%w: of %d while nothing runs", frame.ErrBreach, id)
	}
	if t := w.held[0]; t.id != id {
		return nil, fmt.Errorf("%w: of %d while %d runs", frame.ErrBreach, id, t.id)
	}
	return w.held[0], nil
}

// settled takes what became of the running task.
func (w *proc) settled(o *functions.Outcome) error {
	p := w.pool
	p.mu.Lock()
	if w.state == dying {
		p.unlock()
		return nil
	}
	t, err := w.running(o.ID)
	if err != nil {
		p.unlock()
		return err
	}
	elapsed := time.Since(w.began)
	w.meter(&o.Usage)
	if !w.worked { // being ready proves nothing yet: a worker that then dies at once must not be started in a loop
		w.worked = true
		p.failures, p.stats.StartError = 0, ""
	}
	if !t.code || elapsed > overstay { // compiling is not its fault
		t.record.ran(elapsed)
	}
	w.last = t.record
	p.freed = p.freed || t.owner != "" || !t.record.clean()
	p.next(w)
	p.dispatch()
	o.Usage.Memory = min(o.Usage.Memory, p.opts.Memory)
	later := t.asking
	if later {
		t.late = o
	}
	p.unlock()
	if !later {
		t.tell(o)
	}
	return nil
}

// meter bounds what a worker says that an invocation took. Outcomes may come several at once, so that the time since the last one
// says little; but all together cannot have taken longer than the worker has been at work.
func (w *proc) meter(u *functions.Usage) {
	most := max(time.Since(w.busy)-w.metered, 0)
	u.Wall, u.CPU = min(u.Wall, most), min(u.CPU, most)
	w.metered += max(u.Wall, u.CPU)
}

// maxPending is how many bytes of answers may lie unread.
const maxPending = 8 << 20

func (w *proc) asked(id uint64, r functions.Read) error {
	p := w.pool
	p.mu.Lock()
	if w.state == dying {
		p.mu.Unlock()
		return nil
	}
	t, err := w.running(id)
	if err == nil {
		t.asks++
		switch {
		case t.check != nil:
			err = fmt.Errorf("%w: while it compiles", frame.ErrBreach)
		case t.asking:
			err = fmt.Errorf("%w: before the last one was answered", frame.ErrBreach)
		case t.asks > t.Inv.Limits.OrDefault().Reads: // an honest worker asks no more
			w.fault = functions.OverReads(t.asks, t.Inv.Limits.OrDefault().Reads)
			err = fmt.Errorf("%w: %s", frame.ErrBreach, w.fault.Message)
		case w.out.pending() > maxPending:
			err = fmt.Errorf("%w: the answers to earlier ones are not read", frame.ErrBreach)
		}
	}
	if err == nil {
		t.asking = t.Ask != nil
	}
	p.mu.Unlock()
	if err != nil {
		return err
	}
	if t.Ask == nil {
		w.answer(t, functions.ReadAnswer{Err: "there is nothing to read from"})
		return nil
	}
	p.wg.Go(func() {
		a := t.Ask(r)
		p.mu.Lock()
		t.asking = false
		late := t.late
		if t.again {
			t.again = false
			p.requeue([]*task{t})
			p.dispatch()
			p.unlock()
			return
		}
		p.mu.Unlock()
		if late != nil {
			t.tell(late)
			return
		}
		w.answer(t, a)
	})
	return nil
}

// answer sends the answer to what a task asked.
func (w *proc) answer(t *task, a functions.ReadAnswer) {
	err := w.out.put(func(buf []byte) ([]byte, error) { return frame.AppendAnswer(buf, t.id, a) })
	if err != nil {
		a = functions.ReadAnswer{Err: "the value is " + err.Error()}
		_ = w.out.put(func(buf []byte) ([]byte, error) { return frame.AppendAnswer(buf, t.id, a) }) // a short text fits
	}
	w.out.flush()
}

// needs sends the code of the running invocation, which the worker has dropped; once an invocation.
func (w *proc) needs(digest string) error {
	p := w.pool
	p.mu.Lock()
	defer p.unlock()
	if w.state == dying {
		return nil
	}
	if len(w.held) == 0 {
		return fmt.Errorf("%w: of code while nothing runs", frame.ErrBreach)
	}
	t := w.held[0]
	if t.check != nil || t.needed || t.Bundle.Digest != digest {
		return fmt.Errorf("%w: of code that the running invocation does not need", frame.ErrBreach)
	}
	t.needed, t.code = true, true
	if err := p.sendCode(w, t); err != nil {
		return err
	}
	p.touch(w)
	return nil
}

// gaveBack takes the tasks that a worker had not begun when it was asked for them.
func (w *proc) gaveBack(ids []uint64) error {
	p := w.pool
	p.mu.Lock()
	defer p.unlock()
	if w.state == dying {
		return nil
	}
	if !w.revoking {
		return fmt.Errorf("%w: without having been asked", frame.ErrBreach)
	}
	given := make(map[uint64]bool, len(ids))
	for _, id := range ids {
		given[id] = true
	}
	var back, kept []*task
	for _, t := range w.held {
		if t.revoking && given[t.id] {
			back = append(back, t)
			delete(given, t.id)
			continue
		}
		t.revoking = false
		kept = append(kept, t)
	}
	if len(given) > 0 {
		return fmt.Errorf("%w: what it was not asked for", frame.ErrBreach)
	}
	before := w.held
	w.held, w.revoking = kept, false
	switch {
	case len(before) == 0: // all had been run before the question came
	case len(kept) == 0:
		p.rest(w)
	case kept[0] != before[0]:
		p.begin(w)
	}
	p.requeue(back)
	p.dispatch()
	return nil
}
