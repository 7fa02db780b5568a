package uplink

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/perigee-iot/perigee/sync/outbox"
)

// flight is a batch on its way.
type flight struct {
	b *outbox.Batch
	r Receipt
}

// outcome is how a session went.
type outcome struct {
	acked int           // batches
	tried bool          // a batch was sent
	up    time.Duration // how long the connection was there
	err   error         // why it ended
}

// session is the life of one connection.
func (u *Uplink) session(ctx context.Context, shrink *shrinker) (out outcome) {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	if !u.begin(end) {
		return outcome{err: errPaused}
	}
	defer func() { u.ended(out.err) }()
	conn, err := u.o.Link.Connect(ctx)
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return outcome{err: err}
	}
	start := time.Now()
	u.o.Queue.Rewind()
	u.up()

	// The sender ends with ctx. What takes the acknowledgements goes on for the grace after that, unless the connection is lost.
	hard, abort := context.WithCancelCause(context.WithoutCancel(ctx))
	defer abort(nil)
	s := sender{queue: u.o.Queue, conn: conn, slots: make(chan struct{}, u.o.Window), flights: make(chan flight, u.o.Window)}
	var wg sync.WaitGroup
	wg.Go(func() {
		select {
		case <-conn.Lost():
			end(conn.Err())
			abort(conn.Err())
		case <-hard.Done():
		}
	})
	wg.Go(func() {
		acked, err := u.acknowledge(hard, &s, shrink)
		out.acked = acked
		if err != nil {
			end(err)
		}
		abort(nil)
	})
	end(s.run(ctx))
	grace := time.AfterFunc(u.o.Grace, func() { abort(context.Cause(ctx)) })
	<-hard.Done()
	grace.Stop()
	conn.Close()
	wg.Wait()
	u.mu.Lock()
	u.resent += s.resent
	u.mu.Unlock()
	out.tried, out.up, out.err = s.tried, time.Since(start), context.Cause(ctx)
	return out
}

// sender hands batches to a connection.
type sender struct {
	queue   Queue
	conn    Conn
	slots   chan struct{} // one for each batch on its way
	flights chan flight   // those batches, in order; never full, since a slot comes first

	tried  bool
	resent int64
}

// run sends until ctx ends, or something fails, and returns why.
func (s *sender) run(ctx context.Context) error {
	defer close(s.flights)
	for {
		select {
		case s.slots <- struct{}{}:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		b, err := s.queue.Next(ctx)
		if err != nil {
			return err
		}
		s.tried = true
		s.resent += int64(b.Resent)
		r, err := s.conn.Send(ctx, b)
		if err != nil {
			return fmt.Errorf("send a batch of stream %s: %w", b.Stream, err)
		}
		s.flights <- flight{b, r}
	}
}

// acknowledge takes the acknowledgements in the order of the batches and moves the cursors. The first that does not come
// ends it: what is behind it was perhaps received, but is sent again.
func (u *Uplink) acknowledge(ctx context.Context, s *sender, shrink *shrinker) (acked int, err error) {
	for f := range s.flights {
		wait, cancel := context.WithTimeoutCause(ctx, u.o.Answer, fmt.Errorf("no acknowledgement within %v", u.o.Answer))
		err := f.r.Wait(wait)
		if err != nil && wait.Err() != nil {
			err = context.Cause(wait)
		}
		cancel()
		if err := u.settle(f.b, err); err != nil {
			return acked, err
		}
		<-s.slots
		acked++
		shrink.worked()
	}
	return acked, nil
}

// settle does what the fate of a batch asks for. Any error ends the session.
func (u *Uplink) settle(b *outbox.Batch, fate error) error {
	var refused *RefusedError
	switch {
	case fate == nil:
		if err := u.o.Queue.Ack(b); err != nil {
			return err
		}
		u.acked(b)
		return nil
	case errors.As(fate, &refused):
		// The gap that takes the batch's place must arrive before what comes behind: so everything behind is sent again.
		if err := u.o.Queue.Quarantine(b, refused.Reason); err != nil {
			return errors.Join(fate, err)
		}
		u.mu.Lock()
		u.refused += int64(b.Records)
		u.mu.Unlock()
	}
	return fmt.Errorf("a batch of stream %s: %w", b.Stream, fate)
}

// begin registers a session, unless the uplink is paused.
func (u *Uplink) begin(end context.CancelCauseFunc) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.paused {
		return false
	}
	u.end = end
	return true
}

// up records that the connection is there.
func (u *Uplink) up() {
	u.mu.Lock()
	u.connected, u.since = true, time.Now()
	if !u.contested { // it was before, and will be again
		u.lastError = ""
	}
	u.mu.Unlock()
	u.o.Log.Info("the uplink is connected", "uplink", u.o.Name, "url", u.o.Link.String())
	if u.o.OnChange != nil {
		u.o.OnChange(true)
	}
}

// ended records why a session ended. The log tells it once, however long the same thing goes on.
func (u *Uplink) ended(err error) {
	u.mu.Lock()
	was, news := u.connected, u.lastError
	u.end, u.connected, u.lastError = nil, false, ""
	var contested *ContestedError
	u.contested = errors.As(err, &contested)
	if err != nil && !errors.Is(err, errPaused) && !errors.Is(err, context.Canceled) {
		u.lastError = err.Error()
	}
	if u.contested {
		u.lastError = contested.Hint
	}
	news = map[bool]string{true: u.lastError}[news != u.lastError]
	if was {
		u.since = time.Now()
	}
	u.mu.Unlock()
	if news != "" {
		u.o.Log.Warn("the uplink is not connected; records wait in their streams", "uplink", u.o.Name, "url", u.o.Link.String(), "error", news)
	}
	if was && u.o.OnChange != nil {
		u.o.OnChange(false)
	}
}

// acked counts an acknowledged batch.
func (u *Uplink) acked(b *outbox.Batch) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.sent += int64(b.Records)
	if now := time.Now(); u.rate.due(now) {
		if _, appended, err := u.o.Queue.Waiting(); err == nil {
			u.rate.sample(now, u.sent, appended)
		}
	}
	close(u.progress)
	u.progress = make(chan struct{})
}
