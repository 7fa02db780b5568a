package outbox

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/perigee-iot/perigee/internal/store"
	"github.com/perigee-iot/perigee/sync/record"
)

// Batch is some consecutive records of one stream, encoded.
type Batch struct {
	Gateway, Stream string
	Payload         []byte // JSON array of CloudEvents, as record.DecodeBatch reads it
	Records         int    // in Payload, gaps too
	Resent          int    // of these, how many have been handed out before

	last uint64 // position of the last
	gaps int    // how many are gaps
	lost uint64 // records that the store has lost, for which Payload has gaps of its own
}

// Queue hands out the streams of one uplink. Next and Rewind are called by one goroutine at a time; Ack and Quarantine, in the order
// of the batches, may be called by another.
type Queue struct {
	o      *Outbox
	uplink string
	wake   chan struct{} // one signal is enough: Next looks at everything
	shrink int           // batches are this many times smaller than configured; guarded by Outbox.mu
}

// Queue returns the queue of an uplink; there is one for each name.
func (o *Outbox) Queue(uplink string) *Queue {
	o.mu.Lock()
	defer o.mu.Unlock()
	q := o.queues[uplink]
	if q == nil {
		q = &Queue{o: o, uplink: uplink, wake: make(chan struct{}, 1), shrink: 1}
		o.queues[uplink] = q
	}
	return q
}

func (q *Queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// Rewind makes Next start again behind what was acknowledged: the connection on which the rest went was lost.
func (q *Queue) Rewind() {
	q.o.mu.Lock()
	defer q.o.mu.Unlock()
	for _, s := range q.o.streams {
		if s.cfg.Uplink == q.uplink {
			s.rewind()
		}
	}
}

func (s *stream) rewind() {
	s.read, s.due, s.hurry = 0, time.Now(), s.head-1
	s.turn++
}

// Hurry sends what lingers at once.
func (q *Queue) Hurry() {
	q.o.mu.Lock()
	defer q.o.mu.Unlock()
	now := time.Now()
	for _, s := range q.o.streams {
		if s.cfg.Uplink == q.uplink && !s.due.IsZero() {
			s.due, s.hurry = now, s.head-1
		}
	}
	q.signal()
}

// Shrink makes batches by times smaller than they are configured, down to one record; 1 makes them as configured.
func (q *Queue) Shrink(by int) {
	q.o.mu.Lock()
	defer q.o.mu.Unlock()
	q.shrink = max(by, 1)
}

// Waiting returns how many records the uplink's streams hold that have not been acknowledged, and how many were appended since the start.
func (q *Queue) Waiting() (waiting, appended int64, err error) {
	q.o.mu.Lock()
	names := []string{}
	for _, s := range q.o.streams {
		if s.cfg.Uplink == q.uplink {
			names = append(names, s.name)
			appended += s.appended
		}
	}
	q.o.mu.Unlock()
	err = q.o.st.View(func(r store.Reader) error {
		for _, name := range names {
			m, err := readMeta(r, name)
			if err != nil {
				return err
			}
			waiting += int64(m.count)
		}
		return nil
	})
	return waiting, appended, err
}

// Next waits for the next batch: of the stream whose turn it is among those that have enough for one, or whose first
// record has lingered. It returns the cause of ctx's end once that has ended.
func (q *Queue) Next(ctx context.Context) (*Batch, error) {
	for {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		s, wait := q.pick(time.Now())
		if s != nil {
			b, err := q.next(s)
			if b != nil || err != nil {
				return b, err
			}
			continue
		}
		if err := q.pause(ctx, wait); err != nil {
			return nil, err
		}
	}
}

func (q *Queue) pause(ctx context.Context, wait time.Duration) error {
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-q.wake:
	case <-t.C:
	}
	return nil
}

// pick chooses among the streams that are ready, each in proportion to its weight: every ready stream gains its weight, the richest
// goes and pays what all gained. If none is ready it says how long to wait.
func (q *Queue) pick(now time.Time) (*stream, time.Duration) {
	q.o.mu.Lock()
	defer q.o.mu.Unlock()
	var best *stream
	wait, total := time.Duration(math.MaxInt64), 0
	for _, s := range q.o.streams {
		if s.cfg.Uplink != q.uplink || s.due.IsZero() || s.blocked > 0 {
			continue
		}
		if !s.ready(now) {
			wait = min(wait, s.due.Sub(now))
			continue
		}
		w := weight(s.cfg.Priority)
		total += w
		s.credit += w
		if best == nil || s.credit > best.credit || (s.credit == best.credit && s.name < best.name) {
			best = s
		}
	}
	if best != nil {
		best.credit -= total
	}
	return best, wait
}

// ready says whether a batch is due or full. Bytes are counted as stored, which is about half of what they are encoded.
func (s *stream) ready(now time.Time) bool {
	return !now.Before(s.due) || s.freshBytes >= s.cfg.Batch.Bytes/2 || s.fresh >= s.cfg.Batch.Records
}

// next reads the next batch of a stream; nil if there is nothing that may be sent yet.
func (q *Queue) next(s *stream) (*Batch, error) {
	o := q.o
	if err := o.age(s); err != nil {
		return nil, err
	}
	o.mu.Lock()
	f := filler{stream: s.name, right: o.right, limit: s.head, edits: s.edits, max: s.cfg.Batch, b: &Batch{Stream: s.name}}
	f.max.Records, f.max.Bytes = max(f.max.Records/q.shrink, 1), max(f.max.Bytes/q.shrink, 1<<10)
	read, turn := s.read, s.turn
	o.mu.Unlock()
	if err := o.st.View(func(r store.Reader) error { return f.fill(r, read) }); err != nil {
		return nil, fmt.Errorf("read stream %s: %w", s.name, err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if s.turn != turn || f.moved {
		return nil, nil // rewound or acknowledged meanwhile: look again
	}
	if f.blocked > s.edits {
		s.blocked = f.blocked
	}
	s.read = max(s.read, f.expect-1)
	s.lingerOn()
	if f.b.Records == 0 {
		return nil, nil
	}
	if s.sent >= f.start {
		f.b.Resent = int(min(s.sent-f.start+1, uint64(f.b.Records)))
	}
	s.sent = max(s.sent, f.b.last)
	return f.b, nil
}

// lingerOn says when the next batch is due, after one was read.
func (s *stream) lingerOn() {
	left := s.head - min(s.head, s.read+1)
	s.fresh, s.freshBytes = min(s.fresh, int(left)), 0
	switch {
	case left == 0:
		s.due = time.Time{}
	case s.read >= s.hurry && s.fresh < s.cfg.Batch.Records:
		s.due = time.Now().Add(max(s.cfg.Batch.Linger, 0))
	}
}

// age drops what has become too old while nothing was appended, so that it is not sent either.
func (o *Outbox) age(s *stream) error {
	now := o.now()
	o.mu.Lock()
	wait := now.Before(s.expires)
	o.mu.Unlock()
	if wait {
		return nil
	}
	err := o.update(func(tx store.Tx) error {
		m, err := readMeta(tx, s.name)
		if err != nil {
			return err
		}
		edits := m.edits
		if err := o.expire(tx, s, m); err != nil || m.edits == edits {
			return err
		}
		tx.Put(metaKey(s.name), m.encode())
		return nil
	})
	if errors.Is(err, store.ErrFull) {
		return nil // sending is what makes room
	}
	return err
}

// filler fills a batch from a scan.
type filler struct {
	stream string
	right  func(r *Record)
	limit  uint64 // positions from here on are not durable
	edits  uint64 // gaps above are not durable
	max    Limits
	b      *Batch

	m       *meta
	seg     segment
	start   uint64 // first position of the batch
	expect  uint64 // the position that should come next
	blocked uint64 // the edit of a gap that ended the batch
	full    bool
	moved   bool // the stream's head moved while it was read
}

func (f *filler) fill(r store.Reader, read uint64) (err error) {
	if f.m, err = readMeta(r, f.stream); err != nil {
		return err
	}
	f.expect = max(f.m.first, read+1)
	f.start = f.expect
	f.b.Payload = append(make([]byte, 0, min(f.max.Bytes, 64<<10)), '[')
	if err := r.Scan(recordPrefix(f.stream), after(f.stream, f.expect), f.take); err != nil {
		return err
	}
	if !f.full && f.expect < f.limit {
		f.lose(f.limit - 1)
	}
	f.b.Payload = append(f.b.Payload, ']')
	now, err := readMeta(r, f.stream)
	if err != nil {
		return err
	}
	f.moved = now.first != f.m.first
	return nil
}

// take looks at one entry and says whether to go on.
func (f *filler) take(key, value []byte) bool {
	p := position(key)
	it, err := decodeItem(value)
	if err == nil && it.gap != nil && it.gap.edit > f.edits {
		f.blocked, f.full = it.gap.edit, true
		return false
	}
	from := p
	if err == nil && it.gap != nil {
		from = min(max(it.gap.from, 1), p)
	}
	if from > f.expect && !f.lose(min(from, f.limit)-1) {
		return false
	}
	if p >= f.limit {
		f.full = true
		return false
	}
	if err != nil {
		return f.lose(p)
	}
	return f.add(p, it)
}

// add encodes an entry into the batch if it belongs there.
func (f *filler) add(p uint64, it *item) bool {
	seg := f.m.segment(p)
	if f.b.Records == 0 {
		f.seg, f.b.Gateway = seg, seg.gateway
	}
	size := len(f.b.Payload)
	if f.b.Records > 0 {
		f.b.Payload = append(f.b.Payload, ',')
	}
	f.right(&it.rec)
	f.b.Payload = it.event(f.stream, seg, p).Append(f.b.Payload)
	over := seg != f.seg || f.b.Records >= f.max.Records || len(f.b.Payload)+1 > f.max.Bytes
	if f.b.Records > 0 && over {
		f.b.Payload, f.full = f.b.Payload[:size], true
		return false
	}
	f.b.Records++
	if it.gap != nil {
		f.b.gaps++
	}
	f.b.last, f.expect = p, p+1
	return true
}

// lose puts gaps in place of the positions from the expected one to the given one, which the store should have and has not.
func (f *filler) lose(to uint64) bool {
	for f.expect <= to {
		end := min(to, f.m.end(f.m.segment(f.expect)))
		if end < f.expect {
			end = to
		}
		n := end - f.expect + 1
		if !f.add(end, &item{gap: &gap{from: f.expect, why: counts{damaged: n}}}) {
			return false
		}
		f.b.lost += n
	}
	return true
}

// Ack says that the far side has a batch, and everything of its stream before it, for certain. The records are deleted
// and the cursor moves, in a group that nobody waits for: if the power goes first, they are sent again.
func (q *Queue) Ack(b *Batch) error {
	o := q.o
	s, err := o.stream(b.Stream)
	if err != nil {
		return err
	}
	for done := false; !done; {
		err := o.update(func(tx store.Tx) error {
			m, err := readMeta(tx, s.name)
			if err != nil {
				return err
			}
			if done, err = o.remove(tx, s, m, b.last); err != nil {
				return err
			}
			if done && b.lost > 0 {
				m.dropped.add(record.Damaged, b.lost)
				o.log.Error("the store has lost records of a stream", "stream", s.name, "records", b.lost)
			}
			tx.Put(metaKey(s.name), m.encode())
			return nil
		})
		if err != nil {
			return fmt.Errorf("move the cursor of stream %s: %w", s.name, err)
		}
	}
	return nil
}

// remove deletes what stands at positions up to upto, a bounded number at a time, and says whether that was all.
func (o *Outbox) remove(tx store.Tx, s *stream, m *meta, upto uint64) (done bool, err error) {
	if upto < m.first {
		return true, nil
	}
	n, reached := 0, upto
	var keys [][]byte
	err = tx.Scan(recordPrefix(s.name), after(s.name, m.first), func(key, value []byte) bool {
		p := position(key)
		if p > upto {
			return false
		}
		if n == shedMost {
			return false
		}
		n++
		reached = p
		keys = append(keys, key)
		m.count--
		m.bytes -= int64(len(key) + len(value))
		return true
	})
	if err != nil {
		return false, err
	}
	for _, key := range keys {
		tx.Delete(key)
	}
	if done = n < shedMost; done {
		reached = upto
	}
	m.first = reached + 1
	m.acked = max(m.acked, reached)
	m.forget()
	tx.OnFail(func(error) {
		o.mu.Lock()
		defer o.mu.Unlock()
		s.rewind() // the records are back
	})
	return done, nil
}
