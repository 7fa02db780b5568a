// Package uplink empties streams into the cloud: the loop that does it, and the contract of the connections that it
// uses. Each way to the cloud is a package below: mqttlink.
//
// The loop connects, hands batches to the connection in order with a few on their way at once, and moves a stream's cursor
// when the far side has acknowledged, in order again. When anything is in doubt (the connection ends, an acknowledgement does not come) it
// ends the session, waits with back-off and jitter, and starts again behind the last acknowledgement: what was on its way is
// sent again, and the receiver knows it by its identity. So the cursor only ever moves on an acknowledgement that was given on the very
// connection on which the batch was sent.
//
// Being offline costs nothing but a try now and then. A batch that the far side will never take, and says so with
// [RefusedError], is set aside in the store, so that it neither blocks its stream nor is lost.
package uplink

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/perigee-iot/perigee/internal/retry"
	"github.com/perigee-iot/perigee/sync/outbox"
)

// Link is one way to the cloud.
type Link interface {
	// Connect opens a connection. It returns soon after ctx has ended, and within a bounded time anyway. It is called
	// by one goroutine at a time, and not before the connection before it has been closed.
	Connect(ctx context.Context) (Conn, error)
	// String says where it goes, for people: a URL without secrets.
	String() string
}

// Conn is one connection. When it is lost it stays lost: nothing that was sent on it can succeed afterwards.
type Conn interface {
	// Send begins to send a batch and returns when the next may be sent, which is before the far side has answered if the
	// link can do that. Batches arrive in the order in which they were sent. It keeps the batch until the receipt is
	// settled. Calls come from one goroutine.
	Send(ctx context.Context, b *outbox.Batch) (Receipt, error)
	// Lost is closed when the connection is known to have ended.
	Lost() <-chan struct{}
	// Err says why, once Lost is closed: a ContestedError if another client seems to be behind it.
	Err() error
	// Close ends the connection and every Wait, within a few seconds.
	Close()
}

// Receipt tells the fate of one batch.
type Receipt interface {
	// Wait returns nil if the far side has acknowledged the batch on this connection: it has it for good. A
	// RefusedError says that it will never take it; any other error that nobody knows.
	Wait(ctx context.Context) error
}

// RefusedError is the far side's word that a batch will never be taken, however often it is sent.
type RefusedError struct{ Reason string }

// Error is the reason in a sentence.
func (e *RefusedError) Error() string { return "refused for good: " + e.Reason }

// ContestedError says that the far side ends connections soon after they began, again and again, as it does when another client
// comes under the same name. Coming back at once would only throw that one out: the uplink takes its time, whatever got through.
type ContestedError struct{ Hint string }

// Error is the hint: what seems to be wrong, and what to do about it.
func (e *ContestedError) Error() string { return e.Hint }

// Queue is where batches come from: an outbox.Queue.
type Queue interface {
	Next(ctx context.Context) (*outbox.Batch, error)
	Ack(b *outbox.Batch) error
	Quarantine(b *outbox.Batch, reason string) error
	Rewind()
	Hurry()
	Shrink(by int)
	Waiting() (waiting, appended int64, err error)
}

// Options of New. The zero value of each field means the default given with it; Name, Link and Queue are needed.
type Options struct {
	Name     string
	Link     Link
	Queue    Queue
	Backoff  retry.Backoff        // first 1 s, at most 2 min
	Window   int                  // batches on their way at once; 4
	Answer   time.Duration        // how long the far side may take to acknowledge the oldest batch on its way; 1 min
	Grace    time.Duration        // how long a stop waits for acknowledgements that are due; 2 s
	OnChange func(connected bool) // called when the connection comes and goes; must not block
	Log      *slog.Logger         // slog.Default()
}

// Uplink is one connection to the cloud and its loop. Run it once; the other methods are for any goroutine.
type Uplink struct {
	o    Options
	kick chan struct{} // try to connect now

	mu        sync.Mutex
	paused    bool
	resumed   chan struct{}           // closed by Resume
	end       context.CancelCauseFunc // of the session; nil: none
	connected bool
	since     time.Time
	lastError string
	contested bool  // lastError is a ContestedError's
	sent      int64 // records acknowledged
	resent    int64
	refused   int64
	progress  chan struct{} // closed and replaced with every acknowledgement
	rate      meter
}

var errPaused = errors.New("paused")

// calm is how long a connection lasts if nobody contests it.
const calm = 5 * time.Minute

// New makes an uplink. It does nothing before Run.
func New(o Options) *Uplink {
	if o.Backoff.Max == 0 {
		o.Backoff.Max = 2 * time.Minute
	}
	if o.Window <= 0 {
		o.Window = 4
	}
	if o.Answer <= 0 {
		o.Answer = time.Minute
	}
	if o.Grace <= 0 {
		o.Grace = 2 * time.Second
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	return &Uplink{
		o: o, kick: make(chan struct{}, 1), progress: make(chan struct{}),
		resumed: make(chan struct{}), since: time.Now(),
	}
}

// Run empties the queue until ctx ends. It gives acknowledgements that are due a moment to arrive, so that a clean stop repeats nothing.
func (u *Uplink) Run(ctx context.Context) error {
	shrink := newShrinker(u.o.Queue)
	for u.awaitResume(ctx) {
		out := u.session(ctx, shrink)
		var contested *ContestedError
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(out.err, errPaused):
			continue
		case errors.As(out.err, &contested):
		case out.tried && out.acked == 0:
			shrink.failed()
		case out.acked > 0 || out.up > time.Minute:
			u.o.Backoff.Reset()
		}
		if u.o.Backoff.WaitOr(ctx, u.kick) != nil {
			return nil
		}
	}
	return nil
}

// awaitResume returns true when the uplink is not paused, false when ctx ends.
func (u *Uplink) awaitResume(ctx context.Context) bool {
	for ctx.Err() == nil {
		u.mu.Lock()
		paused, resumed := u.paused, u.resumed
		u.mu.Unlock()
		if !paused {
			return true
		}
		select {
		case <-resumed:
		case <-ctx.Done():
		}
	}
	return false
}

// Pause ends the connection and makes no other until Resume. The streams fill up meanwhile.
func (u *Uplink) Pause() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.paused = true
	if u.end != nil {
		u.end(errPaused)
	}
}

// Resume undoes Pause.
func (u *Uplink) Resume() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.paused {
		u.paused = false
		close(u.resumed)
		u.resumed = make(chan struct{})
	}
}

// Flush sends what lingers, tries to connect at once if need be, and waits until as many records as wait now have been
// acknowledged or have gone otherwise.
func (u *Uplink) Flush(ctx context.Context) error {
	waiting, _, err := u.o.Queue.Waiting()
	if err != nil {
		return err
	}
	u.mu.Lock()
	target := u.sent + waiting
	u.mu.Unlock()
	u.o.Queue.Hurry()
	select {
	case u.kick <- struct{}{}:
	default:
	}
	for {
		u.mu.Lock()
		done, progress, last := u.sent >= target, u.progress, u.lastError
		u.mu.Unlock()
		if waiting, _, err = u.o.Queue.Waiting(); err != nil {
			return err
		}
		if done || waiting == 0 {
			return nil
		}
		select {
		case <-progress:
		case <-ctx.Done():
			if last == "" {
				last = "it is still sending"
			}
			return fmt.Errorf("flush the uplink %s: %d records wait: %s: %w", u.o.Name, waiting, last, context.Cause(ctx))
		}
	}
}

// Status is an uplink at a glance.
type Status struct {
	Name, URL         string
	Connected, Paused bool
	Since             time.Time     // of being connected or not
	LastError         string        // why it is not connected, or why it will not be for long: it is contested
	Waiting           int64         // records
	Sent              int64         // records acknowledged, since the start
	Resent            int64         // records that were sent again
	Refused           int64         // records that the far side refused for good
	Rate              float64       // records acknowledged per second, lately
	Drain             time.Duration // until nothing waits, at this rate; negative: it is not draining
}

// Status returns how the uplink does.
func (u *Uplink) Status() (Status, error) {
	waiting, appended, err := u.o.Queue.Waiting()
	u.mu.Lock()
	defer u.mu.Unlock()
	u.rate.sample(time.Now(), u.sent, appended)
	if u.connected && u.contested && time.Since(u.since) > calm {
		u.lastError, u.contested = "", false
	}
	s := Status{
		Name: u.o.Name, URL: u.o.Link.String(), Connected: u.connected, Paused: u.paused, Since: u.since, LastError: u.lastError,
		Waiting: waiting, Sent: u.sent, Resent: u.resent, Refused: u.refused,
	}
	s.Rate, s.Drain = u.rate.rate(waiting)
	return s, err
}
