package uplink_test

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/internal/retry"
	"github.com/perigee-iot/perigee/sync/outbox"
	"github.com/perigee-iot/perigee/sync/uplink"
)

// queue is a queue in memory: batches of ten records, numbered.
type queue struct {
	mu      sync.Mutex
	total   int // batches
	read    int
	acked   int
	refused []string
	shrunk  []int
	hurried int
	wake    chan struct{}
}

func newQueue(total int) *queue { return &queue{total: total, wake: make(chan struct{}, 1)} }

func (q *queue) Next(ctx context.Context) (*outbox.Batch, error) {
	for {
		q.mu.Lock()
		if q.read < q.total {
			q.read++
			q.mu.Unlock()
			return &outbox.Batch{Gateway: "gw", Stream: "s", Records: 10}, nil
		}
		q.mu.Unlock()
		select {
		case <-q.wake:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func (q *queue) Ack(*outbox.Batch) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.acked++
	return nil
}

func (q *queue) Quarantine(_ *outbox.Batch, why string) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.acked++
	q.refused = append(q.refused, why)
	return nil
}

func (q *queue) Rewind() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.read = q.acked
}

func (q *queue) Hurry() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.hurried++
}

func (q *queue) Shrink(by int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.shrunk = append(q.shrunk, by)
}

func (q *queue) Waiting() (waiting, appended int64, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return int64(q.total-q.acked) * 10, int64(q.total) * 10, nil
}

func (q *queue) add(n int) {
	q.mu.Lock()
	q.total += n
	q.mu.Unlock()
	q.wake <- struct{}{}
}

// link connects when it may, and answers the nth batch ever sent as told.
type link struct {
	mu       sync.Mutex
	down     error
	why      error // of a connection that is lost
	lasts    time.Duration
	tries    []time.Time
	answer   func(n int) (after time.Duration, err error)
	sent     int
	inflight int
	most     int
	last     *conn
}

func (l *link) String() string { return "test://cloud" }

func (l *link) Connect(ctx context.Context) (uplink.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tries = append(l.tries, time.Now())
	if l.down != nil {
		return nil, l.down
	}
	c := &conn{l: l, lost: make(chan struct{})}
	l.last = c
	if l.lasts > 0 {
		time.AfterFunc(l.lasts, c.Close)
	}
	return c, ctx.Err()
}

func (l *link) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.tries)
}

func (l *link) up() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = nil
}

type conn struct {
	l    *link
	once sync.Once
	lost chan struct{}
}

func (c *conn) Lost() <-chan struct{} { return c.lost }
func (c *conn) Err() error            { return errors.Join(errors.New("lost"), c.l.why) }
func (c *conn) Close()                { c.once.Do(func() { close(c.lost) }) }

func (c *conn) Send(context.Context, *outbox.Batch) (uplink.Receipt, error) {
	c.l.mu.Lock()
	defer c.l.mu.Unlock()
	n := c.l.sent
	c.l.sent++
	c.l.inflight++
	c.l.most = max(c.l.most, c.l.inflight)
	r := &receipt{c: c}
	if c.l.answer != nil {
		r.after, r.err = c.l.answer(n)
	}
	return r, nil
}

type receipt struct {
	c     *conn
	after time.Duration
	err   error
}

func (r *receipt) Wait(ctx context.Context) error {
	defer func() {
		r.c.l.mu.Lock()
		r.c.l.inflight--
		r.c.l.mu.Unlock()
	}()
	t := time.NewTimer(r.after)
	defer t.Stop()
	select {
	case <-t.C:
		return r.err
	case <-r.c.lost:
		return r.c.Err()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// start runs an uplink inside a bubble.
func start(t *testing.T, q *queue, l *link, change ...func(*uplink.Options)) (u *uplink.Uplink, stop func()) {
	o := uplink.Options{Name: "main", Link: l, Queue: q, Log: slog.New(slog.DiscardHandler),
		Backoff: retry.Backoff{Rand: rand.New(rand.NewPCG(1, 2))}}
	for _, c := range change {
		c(&o)
	}
	u = uplink.New(o)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- u.Run(ctx) }()
	return u, func() {
		cancel()
		require.NoError(t, <-done)
	}
}

func status(t *testing.T, u *uplink.Uplink) uplink.Status {
	s, err := u.Status()
	require.NoError(t, err)
	return s
}

func TestItEmptiesTheQueueWithAFewOnTheirWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, l := newQueue(100), &link{answer: func(int) (time.Duration, error) { return 100 * time.Millisecond, nil }}
		var changes []bool
		u, stop := start(t, q, l, func(o *uplink.Options) { o.OnChange = func(c bool) { changes = append(changes, c) } })
		time.Sleep(5 * time.Second)
		s := status(t, u)
		assert.True(t, s.Connected)
		assert.Greater(t, s.Rate, 50.0)
		assert.Positive(t, s.Drain)
		time.Sleep(10 * time.Second)
		s = status(t, u)
		assert.EqualValues(t, 1000, s.Sent)
		assert.Zero(t, s.Waiting)
		assert.Zero(t, s.Drain)
		assert.Zero(t, s.Resent)
		assert.Equal(t, "test://cloud", s.URL)
		stop()
		assert.Equal(t, 4, l.most)
		assert.Equal(t, []bool{true, false}, changes)
	})
}

func TestOfflineCostsATryNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, l := newQueue(10), &link{down: errors.New("no route")}
		u, stop := start(t, q, l)
		time.Sleep(24 * time.Hour)
		s := status(t, u)
		assert.False(t, s.Connected)
		assert.Equal(t, "no route", s.LastError)
		assert.EqualValues(t, 100, s.Waiting)
		assert.Negative(t, s.Drain)
		assert.Less(t, l.count(), 2000)
		assert.Greater(t, l.count(), 700)
		l.up()
		time.Sleep(2 * time.Minute)
		assert.EqualValues(t, 100, status(t, u).Sent)
		stop()
	})
}

func TestARefusedBatchIsSetAside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, l := newQueue(10), &link{answer: func(n int) (time.Duration, error) {
			if n == 3 {
				return 0, &uplink.RefusedError{Reason: "too ugly"}
			}
			return 0, nil
		}}
		u, stop := start(t, q, l)
		time.Sleep(time.Minute)
		s := status(t, u)
		assert.EqualValues(t, 10, s.Refused)
		assert.EqualValues(t, 90, s.Sent)
		assert.Zero(t, s.Waiting)
		assert.Equal(t, 2, l.count(), "what is behind it is sent again on a new connection")
		stop()
		assert.Equal(t, []string{"too ugly"}, q.refused)
	})
}

func TestNoAnswerIsNoAcknowledgement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, l := newQueue(4), &link{answer: func(n int) (time.Duration, error) {
			if n < 20 {
				return time.Hour, nil
			}
			return 0, nil
		}}
		u, stop := start(t, q, l)
		time.Sleep(90 * time.Second)
		s := status(t, u)
		assert.Zero(t, s.Sent)
		time.Sleep(time.Hour)
		assert.EqualValues(t, 40, status(t, u).Sent)
		stop()
		assert.Equal(t, []int{2, 4, 8}, q.shrunk, "batches get smaller while none gets through")
	})
}

func TestPauseAndResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, l := newQueue(5), &link{answer: func(int) (time.Duration, error) { return 400 * time.Millisecond, nil }}
		u, stop := start(t, q, l)
		time.Sleep(100 * time.Millisecond)
		u.Pause()
		time.Sleep(time.Minute)
		s := status(t, u)
		assert.True(t, s.Paused)
		assert.False(t, s.Connected)
		assert.Empty(t, s.LastError)
		assert.EqualValues(t, 40, s.Sent, "what was on its way has its answer")
		time.Sleep(time.Hour)
		assert.Equal(t, 1, l.count())
		u.Resume()
		u.Resume()
		time.Sleep(10 * time.Second)
		assert.EqualValues(t, 50, status(t, u).Sent)
		u.Pause()
		synctest.Wait()
		stop()
	})
}

func TestFlush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, l := newQueue(0), &link{down: errors.New("no route")}
		u, stop := start(t, q, l)
		require.NoError(t, u.Flush(t.Context()), "there is nothing to do")
		time.Sleep(time.Hour)
		q.add(3)
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		err := u.Flush(ctx)
		cancel()
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, "30 records wait: no route")
		l.up()
		begin := time.Now()
		require.NoError(t, u.Flush(t.Context()))
		assert.Less(t, time.Since(begin), time.Second, "it tries at once")
		assert.EqualValues(t, 30, status(t, u).Sent)
		stop()
	})
}

func TestALongConnectionIsFollowedByAQuickTry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, l := newQueue(0), &link{down: errors.New("no route")}
		_, stop := start(t, q, l)
		time.Sleep(time.Hour)
		l.up()
		time.Sleep(time.Hour)
		tries := l.count()
		l.mu.Lock()
		last := l.last
		l.mu.Unlock()
		last.Close()
		time.Sleep(time.Second)
		assert.Equal(t, tries+1, l.count())
		stop()
	})
}

func TestACleanStopWaitsForWhatIsDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, l := newQueue(4), &link{answer: func(int) (time.Duration, error) { return 400 * time.Millisecond, nil }}
		_, stop := start(t, q, l)
		time.Sleep(time.Millisecond)
		stop()
		assert.Equal(t, 4, q.acked)

		q, l = newQueue(4), &link{answer: func(int) (time.Duration, error) { return time.Hour, nil }}
		_, stop = start(t, q, l)
		time.Sleep(time.Millisecond)
		begin := time.Now()
		stop()
		assert.Equal(t, 2*time.Second, time.Since(begin), "but not for ever")
		assert.Zero(t, q.acked)
	})
}

// Another client with the same id ends each connection, and batches get through all the same: the back-off grows, and the reason stands while it is connected, too.
func TestAContestedConnectionTakesItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(1 << 20)
		l := &link{lasts: 2 * time.Second, why: &uplink.ContestedError{Hint: "give each its own id"},
			answer: func(int) (time.Duration, error) { return time.Second / 2, nil }}
		log := &lines{}
		u, stop := start(t, q, l, func(o *uplink.Options) { o.Log = slog.New(slog.NewTextHandler(log, nil)) })
		time.Sleep(time.Hour)
		assert.Less(t, l.count(), 120)
		for !status(t, u).Connected {
			time.Sleep(100 * time.Millisecond)
		}
		s := status(t, u)
		assert.Positive(t, s.Sent)
		assert.Equal(t, "give each its own id", s.LastError)
		assert.Equal(t, 1, log.count("give each its own id"), "it is said once")

		l.mu.Lock()
		l.lasts = 0 // the other one has gone
		l.mu.Unlock()
		time.Sleep(10 * time.Minute)
		s = status(t, u)
		assert.True(t, s.Connected)
		assert.Empty(t, s.LastError)
		stop()
	})
}

// lines is a log.
type lines struct {
	mu  sync.Mutex
	all []string
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, string(p))
	return len(p), nil
}

func (l *lines) count(what string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.all {
		if strings.Contains(s, what) {
			n++
		}
	}
	return n
}
