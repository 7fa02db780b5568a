package engine

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/perigee-iot/perigee/drivers"
	"github.com/perigee-iot/perigee/internal/retry"
	"github.com/perigee-iot/perigee/internal/store"
)

// port is how a target is reached.
type port interface {
	// send carries an action out. The receipt, if there is one, tells later whether it arrived.
	send(ctx context.Context, a *action) (drivers.Receipt, error)
	// done says that it arrived, in the update that takes it out of the journal; nil if that is all.
	done(a *action) (jobs []*job)
}

// target carries out the actions for one receiver in their order. One that is down holds up only itself.
type target struct {
	engine   *Engine
	name     string
	port     port
	lazy     bool          // its goroutines start with its first action
	maxBytes int           // of what waits, 0: any
	back     retry.Backoff // of the goroutine that sends

	roomAgain atomic.Bool // the journal was full, and is not any more: the functions that wait for it are to be told

	mu      sync.Mutex
	queue   []*action
	undone  []*action // carried out, but still in the journal, in order; what finishes them again is in the wheel
	pending int       // in the journal: queued, in flight and undone
	bytes   int       // of those
	coming  int       // decided, but not durable yet
	behind  int       // bytes of those
	broken  bool
	stop    context.CancelFunc // nil before start
	lastErr string
	woken   chan struct{} // capacity 1
}

// window is how many actions may be on their way to a target at once.
const window = 512

func newTarget(e *Engine, name string, p port) *target {
	return &target{engine: e, name: name, port: p, woken: make(chan struct{}, 1), back: retry.Backoff{First: 100 * time.Millisecond, Max: 10 * time.Second}}
}

func (t *target) add(a *action) {
	t.mu.Lock()
	t.queue = append(t.queue, a)
	t.pending++
	t.bytes += len(a.value)
	t.mu.Unlock()
	t.wake()
}

func (t *target) wake() {
	select {
	case t.woken <- struct{}{}:
	default:
	}
}

// full says that the functions that may write to this target have to wait.
func (t *target) full() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.filled()
}

// filled is full for one who holds mu.
func (t *target) filled() bool {
	return t.pending+t.coming >= t.engine.opt.MaxJournal || t.maxBytes > 0 && t.bytes+t.behind >= t.maxBytes
}

// expect counts actions whose update joins its group: those that are decided next see that the journal is full.
func expect(acts []*action) {
	for _, a := range acts {
		if t := a.counted; t != nil {
			t.mu.Lock()
			t.coming++
			t.behind += len(a.value)
			t.mu.Unlock()
		}
	}
}

// came counts off what expect has counted: the targets have the actions, or their group was dropped.
func (e *Engine) came(acts []*action) {
	room := false
	for _, a := range acts {
		if t := a.counted; t != nil {
			t.mu.Lock()
			filled := t.filled()
			t.coming--
			t.behind -= len(a.value)
			room = room || filled && !t.filled()
			t.mu.Unlock()
		}
	}
	if room {
		e.Later(e.wakeAll)
	}
}

// idle says that nothing is left to do.
func (t *target) idle() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.pending == 0
}

// abandon stops a target whose device is not configured any more; what waited for it is dropped.
func (t *target) abandon() {
	if t.stop != nil {
		t.stop()
	}
	t.mu.Lock()
	left := t.queue
	t.queue = nil
	t.mu.Unlock()
	for _, a := range left {
		t.engine.losses.add("actions for a removed device", 1)
		t.void(a)
	}
}

type inFlight struct {
	action  *action
	receipt drivers.Receipt
}

// run sends actions until ctx ends: one goroutine sends, another waits for the receipts, in the same order.
func (t *target) run(ctx context.Context) {
	sent := make(chan inFlight, window)
	var confirmer sync.WaitGroup
	confirmer.Add(1)
	go func() {
		defer confirmer.Done()
		t.confirm(ctx, sent)
	}()
	defer confirmer.Wait()
	defer close(sent)
	for {
		a := t.take(ctx)
		if a == nil {
			return
		}
		if t.engine.expired(a) {
			t.late(a)
			continue
		}
		receipt, err := t.port.send(ctx, a)
		if err != nil && t.refused(err) && ctx.Err() == nil {
			t.refuse(a, err)
			continue
		}
		if err != nil {
			t.putBack(a)
			t.failed(err)
			a.acts("waiting", err.Error())
			if t.pause(ctx, a, err) != nil {
				return
			}
			continue
		}
		t.back.Reset()
		if receipt == nil {
			t.finish(a)
			continue
		}
		select {
		case sent <- inFlight{a, receipt}:
		case <-ctx.Done():
			return
		}
	}
}

// refused says that trying an action again is of no use. It would hold up all that wait behind it for ever.
func (t *target) refused(err error) bool {
	return errors.Is(err, drivers.ErrRefused) || t.name == brokerTarget && !errors.Is(err, drivers.ErrNotConnected)
}

// refuse drops an action that its target will never take, and tells the function's log why.
func (t *target) refuse(a *action, why error) {
	what, cause := "a publish that the broker will never take was dropped", "publishes refused by the broker"
	if a.device && t.name != brokerTarget {
		what, cause = "a write that the device will never take was dropped", "writes refused by a device"
	}
	t.engine.log.Error(what, "function", a.fn, "event", a.event, "error", why)
	t.engine.mu.Lock()
	_, there := t.engine.fns[a.fn]
	t.engine.mu.Unlock()
	if there {
		t.engine.logs.note(a.fn, a.event, what+": "+why.Error())
	}
	t.engine.losses.add(cause, 1)
	t.void(a)
}

// pause waits before an action is tried again, but not longer than that is of use. What stands behind it meanwhile and is of no use any more is
// told so.
func (t *target) pause(ctx context.Context, a *action, why error) error {
	left := t.back.Next()
	if later, ok := errors.AsType[*laterError](why); ok {
		left = max(left, later.after)
	}
	if e := t.engine; a.deadline > 0 && a.boot == e.clock.Boot() {
		left = min(left, max(a.deadline-e.clock.Now(), 0)+time.Millisecond)
	}
	for left > 0 {
		wait := min(left, maxWebPause)
		left -= wait
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
		for _, b := range t.takeLate() {
			t.late(b)
		}
	}
	return nil
}

// takeLate takes the actions that are of no use any more out of the queue.
func (t *target) takeLate() (list []*action) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.queue = slices.DeleteFunc(t.queue, func(a *action) bool {
		late := t.engine.expired(a)
		if late {
			list = append(list, a)
		}
		return late
	})
	return list
}

// late ends an action whose not_after has passed.
func (t *target) late(a *action) {
	if p, ok := t.port.(*webPort); ok {
		p.expired(a)
		t.finish(a)
		return
	}
	t.engine.losses.add("actions after not_after", 1)
	t.void(a)
}

// take waits for the next action, and while receipts of a lost connection are being sorted out. Nil: ctx has ended.
func (t *target) take(ctx context.Context) *action {
	for {
		t.mu.Lock()
		if len(t.queue) > 0 && !t.broken {
			a := t.queue[0]
			t.queue[0] = nil
			t.queue = t.queue[1:]
			t.mu.Unlock()
			return a
		}
		t.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil
		case <-t.woken:
		}
	}
}

func (t *target) putBack(a ...*action) {
	t.mu.Lock()
	t.queue = append(a, t.queue...)
	t.mu.Unlock()
}

// confirm waits for receipts. When one fails, nothing more is sent until all that were on their way are back in the queue.
func (t *target) confirm(ctx context.Context, sent <-chan inFlight) {
	for f := range sent {
		err := f.receipt.Wait(ctx)
		if err == nil {
			t.finish(f.action)
			continue
		}
		if ctx.Err() != nil {
			return // they stay in the journal
		}
		t.mu.Lock()
		t.broken = true
		t.mu.Unlock()
		t.failed(err)
		back := []*action{f.action}
		for more := true; more; {
			select {
			case f, ok := <-sent:
				if !ok {
					return
				}
				if f.receipt.Wait(ctx) == nil {
					t.finish(f.action)
				} else {
					back = append(back, f.action)
				}
			default:
				more = false
			}
		}
		t.engine.counts.actionsRepeated.Add(int64(len(back)))
		t.putBack(back...)
		t.mu.Lock()
		t.broken = false
		t.mu.Unlock()
		t.wake()
	}
}

func (t *target) failed(err error) {
	t.mu.Lock()
	said := t.lastErr == err.Error()
	t.lastErr = err.Error()
	t.mu.Unlock()
	if !said {
		t.engine.log.Warn("an action was not carried out and will be repeated", "target", t.name, "error", err)
	}
}

// void takes an action that will not be carried out out of the journal.
func (t *target) void(a *action) {
	a.void = true
	t.finish(a)
}

// finish takes an action that has been carried out out of the journal, and stores the events that it makes. That rides in the
// next group: if the power goes before it, the action is done again with the same id. If the group is dropped or the disk is full, only
// this is done again, and what was carried out after it waits behind it.
func (t *target) finish(a *action) bool {
	e := t.engine
	var jobs []*job
	if !a.void {
		jobs = t.port.done(a)
	}
	err := e.storeJobs(jobs, func(tx store.Tx) error {
		if t.waitsBehind(a) {
			return errStale
		}
		tx.Delete(a.journalKey())
		tx.OnJoin(func() { t.finished(a) })
		tx.OnFail(func(error) {
			forget(jobs)
			t.unfinish(a, 1)
		})
		return nil
	})
	switch {
	case err == nil:
	case errors.Is(err, store.ErrClosed), errors.Is(err, store.ErrBroken):
		e.log.Debug("an action that is done is still in the journal", "target", t.name, "error", err)
		return false // the gateway is ending
	default:
		forget(jobs)
		t.unfinish(a, 0)
		return false
	}
	e.counts.actionsDone.Add(1)
	if a.void {
		a.acts("dropped", "it was of no use any more, or nobody takes it")
	} else {
		a.acts("done", "")
	}
	if len(jobs) > 0 {
		e.start(jobs)
	}
	if t.roomAgain.Swap(false) {
		e.wakeAll()
	}
	return true
}

// finished counts an action off when the update that takes it out of the journal has joined its group.
func (t *target) finished(a *action) {
	t.mu.Lock()
	defer t.mu.Unlock()
	filled := t.filled()
	t.pending--
	t.bytes -= len(a.value)
	if filled && !t.filled() {
		t.roomAgain.Store(true)
	}
	t.lastErr = ""
	if len(t.undone) > 0 && t.undone[0] == a {
		t.undone = t.undone[1:]
	}
}

// unfinish lists an action that was carried out and is still in the journal; back is 1 if it had been counted off.
func (t *target) unfinish(a *action, back int) {
	e := t.engine
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pending += back
	t.bytes += back * len(a.value)
	if slices.Contains(t.undone, a) {
		return // it is being tried again
	}
	if len(t.undone) == 0 {
		e.wheel.add(e.clock.Now()+e.opt.RedoAfter, t.finishAgain)
	}
	t.undone = append(t.undone, a)
	slices.SortStableFunc(t.undone, func(a, b *action) int { return cmp.Compare(a.order, b.order) })
}

// waitsBehind says that an earlier action than this has yet to leave the journal.
func (t *target) waitsBehind(a *action) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.undone) > 0 && t.undone[0].order < a.order
}

// finishAgain finishes what could not be finished before, in order.
func (t *target) finishAgain() {
	for {
		t.mu.Lock()
		if len(t.undone) == 0 {
			t.mu.Unlock()
			return
		}
		a := t.undone[0]
		t.mu.Unlock()
		if !t.finish(a) {
			break
		}
	}
	e := t.engine
	e.wheel.add(e.clock.Now()+e.opt.RedoAfter, t.finishAgain)
}

// wakeAll offers every lane again, after something that held functions up has gone.
func (e *Engine) wakeAll() {
	e.mu.Lock()
	for _, f := range e.fns {
		for _, l := range f.lanes {
			e.offerLane(l)
		}
		if len(f.ready) > 0 && !f.queued {
			f.queued = true
			e.ready = append(e.ready, f)
		}
	}
	e.mu.Unlock()
	e.pump()
}
