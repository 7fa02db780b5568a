package uplinktest

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/internal/retry"
	"github.com/perigee-iot/perigee/internal/store"
	"github.com/perigee-iot/perigee/sync/outbox"
	"github.com/perigee-iot/perigee/sync/record"
	"github.com/perigee-iot/perigee/sync/uplink"
)

// Harness is how a link is tested.
type Harness struct {
	// Link makes a link of the gateway "gw" to the cloud, and what is needed in between, which ends with the test.
	Link func(t *testing.T, cloud *Cloud) uplink.Link
	// Refuses says that the link can carry the word that a batch will never be taken.
	Refuses bool
}

// Run runs the suite.
func Run(t *testing.T, h Harness) {
	faults := []Fault{DropBefore, DropUnacked, DropAfter, Silent, Late}
	if h.Refuses {
		faults = append(faults, Refuse)
	}
	for _, f := range append([]Fault{None}, faults...) {
		t.Run(f.String(), func(t *testing.T) {
			t.Parallel()
			h.deliver(t, func(n int) Fault {
				if n%5 == 2 {
					return f
				}
				return None
			}, 1)
		})
	}
	t.Run("all together", func(t *testing.T) {
		t.Parallel()
		h.deliver(t, func(n int) Fault {
			if n%3 == 1 && n < 150 {
				return faults[(n/3)%len(faults)]
			}
			return None
		}, 3)
	})
	t.Run("restart in between", func(t *testing.T) {
		t.Parallel()
		h.restart(t)
	})
	t.Run("contract", func(t *testing.T) {
		t.Parallel()
		h.contract(t)
	})
}

// Box is an outbox on a store of its own, for the tests of links.
type Box struct {
	T   testing.TB
	Dir string
	St  *store.Store
	Out *outbox.Outbox
}

// NewBox makes one, with eager streams of small batches.
func NewBox(t testing.TB) *Box {
	b := &Box{T: t, Dir: t.TempDir()}
	b.Open()
	t.Cleanup(func() { _ = b.St.Close() })
	return b
}

// Open opens what Close has closed.
func (b *Box) Open() {
	quiet := slog.New(slog.DiscardHandler)
	var err error
	b.St, err = store.Open(b.Dir, store.Options{Durability: store.Crash, Linger: -1, MinFree: 1 << 20, Log: quiet})
	require.NoError(b.T, err)
	limits := outbox.Limits{Records: 20, Linger: -1}
	b.Out, err = outbox.Open(b.St, outbox.Options{Gateway: "gw", Uplink: "main", Log: quiet, Streams: map[string]outbox.Config{
		"a": {Batch: limits, Priority: outbox.High}, "b": {Batch: limits}, "c": {Batch: limits, Priority: outbox.Low},
	}})
	require.NoError(b.T, err)
}

// Fill appends n records to each of the streams.
func (b *Box) Fill(n int, streams ...string) { b.fill(0, n, streams...) }

// fill appends the records from from on.
func (b *Box) fill(from, n int, streams ...string) {
	for i := from; i < from+n; i += 50 {
		require.NoError(b.T, b.St.Update(func(tx store.Tx) error {
			for k := i; k < min(i+50, from+n); k++ {
				for _, s := range streams {
					r := outbox.Record{EventID: fmt.Sprint(k), Function: "f", Key: s, Data: fmt.Appendf(nil, `{"n":%d}`, k)}
					if _, err := b.Out.Append(tx, s, r); err != nil {
						return err
					}
				}
			}
			return nil
		}))
	}
	require.NoError(b.T, b.St.Flush(context.Background()))
}

// Start runs an uplink over link until stop is called.
func (b *Box) Start(link uplink.Link) (u *uplink.Uplink, stop func()) {
	u = uplink.New(uplink.Options{
		Name: "main", Link: link, Queue: b.Out.Queue("main"), Log: slog.New(slog.DiscardHandler),
		Backoff: retry.Backoff{First: time.Millisecond, Max: 20 * time.Millisecond}, Answer: 250 * time.Millisecond,
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- u.Run(ctx) }()
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			cancel()
			assert.NoError(b.T, <-done)
		}
	}
	b.T.Cleanup(stop)
	return u, stop
}

// Drain waits until everything has been acknowledged.
func (b *Box) Drain(u *uplink.Uplink) {
	Until(b.T, func() bool {
		s, err := u.Status()
		require.NoError(b.T, err)
		return s.Waiting == 0
	})
}

// Until waits for a condition, with patience.
func Until(t testing.TB, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatal("it did not come to that in two minutes")
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// Check asserts that n records of each stream have arrived at the cloud, complete and in order, or are explained as refused.
func Check(t testing.TB, cloud *Cloud, n int, streams ...string) *Report {
	t.Helper()
	r, err := cloud.Report()
	require.NoError(t, err)
	for _, s := range streams {
		next := uint64(1)
		for _, rec := range r.Streams[s] {
			if rec.Gap != nil {
				require.Equal(t, rec.Gap.To-rec.Gap.From+1, rec.Gap.Reasons[record.Refused])
			} else {
				require.Equal(t, fmt.Sprintf(`{"n":%d}`, rec.Sequence-1), string(rec.Data))
			}
			next = rec.Sequence + 1
		}
		require.EqualValues(t, n+1, next, "stream %s", s)
	}
	t.Logf("%d arrived in %d batches, %d of them again", r.Taken, r.Batches, r.Repeats)
	return r
}

func (h Harness) deliver(t *testing.T, script func(int) Fault, rounds int) {
	cloud := NewCloud(script)
	b := NewBox(t)
	u, stop := b.Start(h.Link(t, cloud))
	for i := range rounds {
		b.fill(i*200, 200, "a", "b", "c")
		b.Drain(u)
	}
	s, err := u.Status()
	require.NoError(t, err)
	assert.True(t, s.Connected || s.LastError != "")
	stop()
	r := Check(t, cloud, 200*rounds, "a", "b", "c")
	if script(2) == None && rounds == 1 {
		assert.Zero(t, r.Repeats, "without a fault nothing comes twice")
		assert.Zero(t, s.Resent)
	}
}

func (h Harness) restart(t *testing.T) {
	cloud := NewCloud(func(n int) Fault {
		if n%4 == 3 {
			return DropUnacked
		}
		return None
	})
	b := NewBox(t)
	b.Fill(2000, "a", "b")
	link := h.Link(t, cloud)
	for round := range 4 {
		u, stop := b.Start(link)
		Until(t, func() bool {
			s, err := u.Status()
			require.NoError(t, err)
			return s.Sent > 300 || s.Waiting == 0
		})
		if round == 3 {
			b.Drain(u)
		}
		stop()
		require.NoError(t, b.St.Close())
		b.Open()
	}
	Check(t, cloud, 2000, "a", "b")
}

// contract checks what the loop relies on.
func (h Harness) contract(t *testing.T) {
	cloud := NewCloud(func(n int) Fault {
		return []Fault{None, Silent, DropUnacked}[n%3]
	})
	link := h.Link(t, cloud)
	b := NewBox(t)
	b.Fill(60, "a")
	q := b.Out.Queue("main")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()

	gone, end := context.WithCancel(ctx)
	end()
	_, err := link.Connect(gone)
	require.Error(t, err, "a context that has ended connects nothing")

	c, err := link.Connect(ctx)
	require.NoError(t, err)
	defer c.Close()
	send := func() uplink.Receipt {
		batch, err := q.Next(ctx)
		require.NoError(t, err)
		r, err := c.Send(ctx, batch)
		require.NoError(t, err)
		return r
	}
	require.NoError(t, send().Wait(ctx))
	silent := send()
	short, stop := context.WithTimeout(ctx, 20*time.Millisecond)
	require.Error(t, silent.Wait(short), "no answer is no acknowledgement")
	stop()
	dropped := send()
	require.Error(t, dropped.Wait(ctx))
	select {
	case <-c.Lost():
	case <-ctx.Done():
		t.Fatal("nobody said that the connection was lost")
	}
	require.Error(t, c.Err(), "there is a reason")
	require.Error(t, silent.Wait(ctx), "nothing can succeed once the connection is lost")
	_, err = c.Send(ctx, &outbox.Batch{Gateway: "gw", Stream: "a", Payload: []byte("[]")})
	require.Error(t, err)
	c.Close()

	q.Rewind()
	c2, err := link.Connect(ctx) // n is 3 now: the first is taken, the second gets no answer
	require.NoError(t, err)
	c = c2
	require.NoError(t, send().Wait(ctx))
	silent = send()
	ended := make(chan error, 1)
	go func() { ended <- silent.Wait(ctx) }()
	c2.Close()
	require.Error(t, <-ended, "Close ends every Wait")
	c2.Close()
}
