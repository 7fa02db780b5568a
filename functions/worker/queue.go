package worker

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/functions/frame"
)

// worker is one conversation with the gateway.
type worker struct {
	conn    io.ReadWriter
	machine machine

	writing sync.Mutex // guards the four below and the order of what is written
	out     []byte     // frames that are not written yet
	late    *time.Timer
	armed   bool  // late is about to fire
	broken  error // of a write that nobody waited for

	mu    sync.Mutex // guards queue
	queue []item
	wake  chan struct{} // has a value when the queue may have grown

	answers chan answer // to the ask that the running invocation waits for

	release func()      // gives memory back to the machine
	rest    *time.Timer // runs unless the worker rests
	busy    bool        // something was taken from the queue since the timer was set
	resting bool
}

// item is one queued frame; exactly one part is set.
type item struct {
	run   *functions.Invocation
	load  *frame.Code
	check *frame.Code
}

type answer struct {
	id uint64
	functions.ReadAnswer
}

// read takes frames until the socket closes.
func (w *worker) read() error {
	frames := frame.NewReader(w.conn, frame.ToWorker)
	for {
		t, body, err := frames.Next()
		if err != nil {
			return err
		}
		if err := w.take(t, body); err != nil {
			return err
		}
	}
}

// take queues one frame, or does at once what must not wait for the running invocation.
func (w *worker) take(t frame.Type, body []byte) error {
	var it item
	var err error
	switch t {
	case frame.Run:
		it.run, err = frame.DecodeRun(bytes.Clone(body))
	case frame.Load:
		it.load, err = frame.DecodeLoad(bytes.Clone(body))
	case frame.Check:
		it.check, err = frame.DecodeCheck(bytes.Clone(body))
	case frame.Answer:
		return w.takeAnswer(body)
	case frame.Revoke:
		return w.revoke(body)
	default:
		return fmt.Errorf("the gateway sent a frame of %s", t)
	}
	if err != nil {
		return err
	}
	w.mu.Lock()
	w.queue = append(w.queue, it)
	w.mu.Unlock()
	w.nudge()
	return nil
}

func (w *worker) nudge() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// takeAnswer hands an answer to the invocation that asked. One that nobody took came too late, and makes way.
func (w *worker) takeAnswer(body []byte) error {
	id, a, err := frame.DecodeAnswer(bytes.Clone(body))
	if err != nil {
		return err
	}
	select {
	case <-w.answers:
	default:
	}
	w.answers <- answer{id: id, ReadAnswer: a}
	return nil
}

// revoke gives back the invocations and checks among ids that have not begun, and says which.
func (w *worker) revoke(body []byte) error {
	ids, err := frame.DecodeIDs(body)
	if err != nil {
		return err
	}
	wanted := make(map[uint64]bool, len(ids))
	for _, id := range ids {
		wanted[id] = true
	}
	given := ids[:0]
	w.mu.Lock()
	kept := w.queue[:0]
	for _, it := range w.queue {
		if id, ok := it.id(); ok && wanted[id] {
			given = append(given, id)
			continue
		}
		kept = append(kept, it)
	}
	clear(w.queue[len(kept):])
	w.queue = kept
	w.mu.Unlock()
	return w.send(func(buf []byte) ([]byte, error) { return frame.AppendRevoked(buf, given) })
}

// id is what a Revoke would name the item by.
func (it item) id() (uint64, bool) {
	switch {
	case it.run != nil:
		return it.run.ID, true
	case it.check != nil:
		return it.check.ID, true
	}
	return 0, false
}

// restAfter is how long a worker has had nothing to do when it gives memory back to the machine.
const restAfter = 10 * time.Second

// next waits for the first item of the queue.
func (w *worker) next() item {
	for {
		if it, ok := w.pop(func(item) bool { return true }); ok {
			w.busy = true
			return it
		}
		select {
		case <-w.wake:
			if w.resting {
				w.resting = false
				w.rest.Reset(restAfter)
			}
		case <-w.rest.C:
			w.atRest()
		}
	}
}

// atRest is called every restAfter, until a worker rests: a timer for each invocation would cost more than it is worth.
func (w *worker) atRest() {
	if w.busy {
		w.busy = false
		w.rest.Reset(restAfter)
		return
	}
	w.resting = true
	w.release()
}

// code waits for the code of digest, ahead of whatever is queued before it.
func (w *worker) code(digest string) *frame.Code {
	for {
		if it, ok := w.pop(func(it item) bool { return it.load != nil && it.load.Digest == digest }); ok {
			w.nudge() // for what else is queued
			return it.load
		}
		<-w.wake
	}
}

// pop takes the first item that fits.
func (w *worker) pop(fits func(item) bool) (item, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, it := range w.queue {
		if fits(it) {
			w.queue = slices.Delete(w.queue, i, i+1)
			return it, true
		}
	}
	return item{}, false
}

// send writes one frame, after those that were kept.
func (w *worker) send(appendTo func([]byte) ([]byte, error)) error {
	w.writing.Lock()
	defer w.writing.Unlock()
	buf, err := appendTo(w.out)
	if err != nil {
		return err
	}
	w.out = buf
	return w.flush()
}

const (
	keepFor   = time.Millisecond
	keepBytes = 16 << 10
)

// keep has one frame written with the next, or shortly after: that saves the gateway a wake-up for each of several quick
// invocations.
func (w *worker) keep(appendTo func([]byte) ([]byte, error)) error {
	w.writing.Lock()
	defer w.writing.Unlock()
	buf, err := appendTo(w.out)
	if err != nil {
		return err
	}
	w.out = buf
	if len(buf) > keepBytes {
		return w.flush()
	}
	if !w.armed {
		w.armed = true
		w.late.Reset(keepFor)
	}
	return w.broken
}

// tooLate writes what was kept.
func (w *worker) tooLate() {
	w.writing.Lock()
	defer w.writing.Unlock()
	w.armed = false
	_ = w.flush() // keep or send will say
}

// flush writes what is not written yet. The memory is kept for the next unless a large frame made it large. The caller holds
// writing.
func (w *worker) flush() error {
	if w.broken != nil || len(w.out) == 0 {
		return w.broken
	}
	_, w.broken = w.conn.Write(w.out)
	if cap(w.out) > 64<<10 {
		w.out = nil
	}
	w.out = w.out[:0]
	return w.broken
}
