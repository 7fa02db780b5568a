// Package uplinktest is the one suite that every link to the cloud passes, with a cloud that fails on purpose.
//
// A link's own test gives [Run] a way to make links to a [Cloud]; what stands between them (a broker, a server) asks the
// cloud what to do with each batch. The suite then runs the real uplink on a real outbox, and checks what has arrived.
package uplinktest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/perigee-iot/perigee/sync/outbox"
	"github.com/perigee-iot/perigee/sync/record"
	"github.com/perigee-iot/perigee/sync/uplink"
)

// Fault is what the cloud does with one batch.
type Fault int

// The faults.
const (
	None        Fault = iota
	DropBefore        // the connection ends, the batch was not taken
	DropUnacked       // it takes the batch, and the connection ends instead of the acknowledgement
	DropAfter         // it acknowledges, and the connection ends
	Silent            // it takes the batch and says nothing, and the connection stays
	Late              // it acknowledges after LateBy
	Refuse            // it says that it will never take the batch
)

// LateBy is how long a late acknowledgement takes.
const LateBy = 30 * time.Millisecond

// String names the fault for test output.
func (f Fault) String() string {
	return [...]string{"none", "drop before", "drop unacked", "drop after", "silent", "late", "refuse"}[f]
}

// Cloud is a far side. Whoever receives batches for it calls Take.
type Cloud struct {
	mu      sync.Mutex
	script  func(n int) Fault
	batches int
	taken   []*record.Record
	bad     error
}

// NewCloud makes a cloud that treats its nth batch, from 0, as the script says. No script: no faults.
func NewCloud(script func(n int) Fault) *Cloud {
	if script == nil {
		script = func(int) Fault { return None }
	}
	return &Cloud{script: script}
}

// Take notes a batch and says what to do about it.
func (c *Cloud) Take(payload []byte) Fault {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.script(c.batches)
	c.batches++
	if f == DropBefore || f == Refuse {
		return f
	}
	recs, err := record.DecodeBatch(payload)
	if err != nil {
		c.bad = errors.Join(c.bad, err)
	}
	c.taken = append(c.taken, recs...)
	return f
}

// Report is what a cloud has, after duplicates were dropped by identity.
type Report struct {
	Streams map[string][]*record.Record // by stream, in the order of arrival
	Taken   int                         // records and gaps, repeats too
	Repeats int
	Batches int // that came, taken or not
}

// Report checks what has arrived so far: every stream in order, and nothing missing in between. A gap counts for what it
// explains. It may come after records behind it that were on their way when a batch was refused; records may not.
func (c *Cloud) Report() (*Report, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := &Report{Streams: map[string][]*record.Record{}, Taken: len(c.taken), Batches: c.batches}
	next := map[string]uint64{}
	seen := map[record.Identity]bool{}
	missing := map[string]map[uint64]bool{}
	err := c.bad
	for _, rec := range c.taken {
		n := max(next[rec.Stream], 1)
		if rec.Gap != nil {
			for i := rec.Gap.From; i <= rec.Gap.To; i++ {
				delete(missing[rec.Stream], i)
			}
			n = max(n, rec.Gap.From)
		}
		if rec.Sequence < n {
			if !seen[rec.Identity] && rec.Gap == nil {
				err = errors.Join(err, fmt.Errorf("%s came out of order", rec.Identity))
			}
			r.Repeats++
			continue
		}
		for i := n; rec.Gap == nil && i < rec.Sequence; i++ {
			if missing[rec.Stream] == nil {
				missing[rec.Stream] = map[uint64]bool{}
			}
			missing[rec.Stream][i] = true
		}
		next[rec.Stream] = rec.Sequence + 1
		seen[rec.Identity] = true
		r.Streams[rec.Stream] = append(r.Streams[rec.Stream], rec)
	}
	for stream, m := range missing {
		for i := range m {
			err = errors.Join(err, fmt.Errorf("stream %s: %d is missing", stream, i))
		}
	}
	return r, err
}

// Link is a link to a cloud in memory, with batches on their way at once like a real one.
type Link struct{ Cloud *Cloud }

// String implements uplink.Link.
func (l *Link) String() string { return "memory://cloud" }

// Connect implements uplink.Link.
func (l *Link) Connect(ctx context.Context) (uplink.Conn, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	c := &conn{cloud: l.Cloud, lost: make(chan struct{}), in: make(chan *receipt, 64)}
	c.wg.Go(c.run)
	return c, nil
}

var errGone = errors.New("the connection is gone")

// conn is one connection; its goroutine is the far side.
type conn struct {
	cloud *Cloud
	lost  chan struct{}
	once  sync.Once
	in    chan *receipt
	wg    sync.WaitGroup
}

type receipt struct {
	payload []byte
	answer  chan error // gets the answer, if there is one
	lost    <-chan struct{}
}

func (c *conn) drop() { c.once.Do(func() { close(c.lost) }) }

func (c *conn) run() {
	for {
		select {
		case <-c.lost:
			return // and take nothing that came after
		default:
		}
		select {
		case r := <-c.in:
			c.answer(r)
		case <-c.lost:
			return
		}
	}
}

func (c *conn) answer(r *receipt) {
	switch c.cloud.Take(r.payload) {
	case None:
		r.answer <- nil
	case DropBefore, DropUnacked:
		c.drop()
	case DropAfter:
		r.answer <- nil
		c.drop()
	case Late:
		time.Sleep(LateBy)
		r.answer <- nil
	case Refuse:
		r.answer <- &uplink.RefusedError{Reason: "the cloud does not like it"}
	}
}

// Lost implements uplink.Conn.
func (c *conn) Lost() <-chan struct{} { return c.lost }

// Err implements uplink.Conn.
func (c *conn) Err() error { return errGone }

// Close implements uplink.Conn.
func (c *conn) Close() {
	c.drop()
	c.wg.Wait()
}

// Send implements uplink.Conn.
func (c *conn) Send(ctx context.Context, b *outbox.Batch) (uplink.Receipt, error) {
	r := &receipt{payload: b.Payload, answer: make(chan error, 1), lost: c.lost}
	select {
	case <-c.lost:
		return nil, errGone
	default:
	}
	select {
	case c.in <- r:
		return r, nil
	case <-c.lost:
		return nil, errGone
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Wait implements uplink.Receipt.
func (r *receipt) Wait(ctx context.Context) error {
	select {
	case err := <-r.answer:
		return err
	default:
	}
	select {
	case err := <-r.answer:
		return err
	case <-r.lost:
		return errGone
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
