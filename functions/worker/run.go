package worker

import (
	"context"
	"errors"
	"runtime/debug"
	"time"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/functions/frame"
)

// bigInvocation is the memory of an invocation after which an idle worker gives memory back to the machine.
const bigInvocation = 8 << 20

// defaultTimeout is that of an invocation which comes without one.
const defaultTimeout = time.Second

// maxBroken bounds how many faults of code that does not compile are remembered.
const maxBroken = 16

// run takes from the queue for ever; only an error of the socket ends it.
func (w *worker) run() error {
	broken := map[string]*functions.Fault{} // code that did not compile, by digest
	for {
		it := w.next()
		var err error
		switch {
		case it.load != nil:
			w.load(it.load, broken)
		case it.check != nil:
			f := w.check(it.check)
			err = w.send(func(buf []byte) ([]byte, error) { return frame.AppendChecked(buf, it.check.ID, f) })
		default:
			err = w.invoke(it.run, broken)
		}
		if err != nil {
			return err
		}
	}
}

// maxTopLevel is how long the top level of a main.lua may take when it is checked, whatever its function's limit is.
const maxTopLevel = 2 * time.Second

func (w *worker) check(c *frame.Code) *functions.Fault {
	limits := c.Limits.OrDefault()
	limits.Timeout = min(limits.Timeout, maxTopLevel)
	ctx, cancel := context.WithTimeout(context.Background(), limits.Timeout)
	defer cancel()
	return w.machine.Check(ctx, c.Digest, c.Files, limits)
}

func (w *worker) load(c *frame.Code, broken map[string]*functions.Fault) {
	f := w.machine.Load(c.Digest, c.Files)
	if f == nil {
		delete(broken, c.Digest)
		return
	}
	if len(broken) >= maxBroken {
		clear(broken)
	}
	broken[c.Digest] = f
}

// invoke runs one invocation and sends its outcome, whatever it is.
func (w *worker) invoke(inv *functions.Invocation, broken map[string]*functions.Fault) error {
	if !w.machine.Loaded(inv.Revision) && broken[inv.Revision] == nil {
		if err := w.send(func(buf []byte) ([]byte, error) { return frame.AppendNeed(buf, inv.Revision) }); err != nil {
			return err
		}
		w.load(w.code(inv.Revision), broken)
	}
	var o *functions.Outcome
	if f := broken[inv.Revision]; f != nil {
		o = &functions.Outcome{Fault: f}
	} else {
		o = w.timed(inv)
	}
	o.ID = inv.ID
	tell := w.send
	if o.Fault == nil && o.Usage.Wall < keepFor && w.follows(inv.Revision) {
		tell = w.keep
	}
	err := tell(func(buf []byte) ([]byte, error) { return frame.AppendOutcome(buf, o) })
	if errors.Is(err, frame.ErrTooBig) {
		bad := &functions.Outcome{ID: inv.ID, Logs: o.Logs, Usage: o.Usage, Fault: &functions.Fault{
			Kind: functions.FaultBadOutput, Message: err.Error(), Hint: "return less, or spread it over several events"}}
		err = w.send(func(buf []byte) ([]byte, error) { return frame.AppendOutcome(buf, bad) })
	}
	if o.Usage.Memory > bigInvocation && w.idle() {
		debug.FreeOSMemory()
	}
	return err
}

// timed runs one invocation under its deadline.
func (w *worker) timed(inv *functions.Invocation) *functions.Outcome {
	timeout := inv.Limits.Timeout
	if timeout <= 0 {
		timeout = defaultTimeout
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return w.machine.Run(ctx, inv, func(r functions.Read) functions.ReadAnswer { return w.ask(ctx, inv.ID, r) })
}

// follows says whether the next to run is of this revision, too. If another's were, and it killed the worker, an outcome that
// was kept would be missing, and the wrong function blamed.
func (w *worker) follows(revision string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.queue) > 0 && w.queue[0].run != nil && w.queue[0].run.Revision == revision
}

func (w *worker) idle() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.queue) == 0
}

// ask puts a question of the running invocation to the gateway and waits for the answer, or for the deadline: an answer
// that comes later is dropped. If the socket fails here, the process is about to end.
func (w *worker) ask(ctx context.Context, id uint64, r functions.Read) functions.ReadAnswer {
	if err := ctx.Err(); err != nil {
		return functions.ReadAnswer{Read: r, Err: err.Error()}
	}
	if err := w.send(func(buf []byte) ([]byte, error) { return frame.AppendAsk(buf, id, r) }); err != nil {
		return functions.ReadAnswer{Read: r, Err: err.Error()}
	}
	for {
		select {
		case a := <-w.answers:
			if a.id != id {
				continue // of an earlier invocation
			}
			a.Read = r
			return a.ReadAnswer
		case <-ctx.Done():
			return functions.ReadAnswer{Read: r, Err: ctx.Err().Error()}
		}
	}
}
