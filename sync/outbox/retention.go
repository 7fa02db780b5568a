package outbox

import (
	"fmt"
	"time"

	"github.com/perigee-iot/perigee/internal/store"
	"github.com/perigee-iot/perigee/sync/record"
)

// One shedding looks at no more than this, so that it fits a transaction next to an invocation.
const (
	shedMost = 1024      // records
	shedOnce = 256       // records that make the work of writing a gap worth it
	shedSize = 128 << 10 // bytes that go to the quarantine at once
)

// makeRoom drops what is too old and, if size bytes more would be too much, the oldest. It says whether the record then fits;
// if not, the stream keeps what it has.
func (o *Outbox) makeRoom(tx store.Tx, s *stream, m *meta, size int64) (fits bool, err error) {
	if err := o.expire(tx, s, m); err != nil {
		return false, err
	}
	o.mu.Lock()
	retain := s.cfg.Retain
	o.mu.Unlock()
	switch {
	case m.bytes+size <= retain.Bytes:
		return true, nil
	case retain.Full == DropNewest, size > retain.Bytes:
		return false, nil
	}
	// A little more than needed, so that a full stream does not write a gap for every record.
	chunk := min(shedOnce, int(m.count/16)+1)
	_, err = o.shed(tx, s, m, nil, func(n int, _ uint64, _ *item) string {
		if n < chunk || m.bytes+size > retain.Bytes {
			return record.Full
		}
		return ""
	})
	return err == nil, err
}

// expire drops the records that are older than the stream's age, a bounded number at a time. Reading the head each time would cost;
// since records only get younger from there on, the time at which the head gets too old is remembered.
func (o *Outbox) expire(tx store.Tx, s *stream, m *meta) error {
	now := o.now()
	o.mu.Lock()
	age, wait := s.cfg.Retain.Age, now.Before(s.expires)
	o.mu.Unlock()
	if wait || m.count == 0 {
		return nil
	}
	next := now.Add(age)
	n, err := o.shed(tx, s, m, nil, func(_ int, _ uint64, it *item) string {
		if it != nil && now.Sub(it.at) <= age {
			next = it.at.Add(age)
			return ""
		}
		if it == nil {
			return record.Damaged
		}
		return record.Age
	})
	if err != nil {
		return err
	}
	if n == shedMost {
		next = now
	}
	o.mu.Lock()
	s.expires = next.Add(time.Millisecond)
	o.mu.Unlock()
	return nil
}

// verdict says for which reason the record at p goes; "" ends the shedding. n have gone so far. it is nil if it cannot be read.
type verdict func(n int, p uint64, it *item) (why string)

// victim is an entry that shed takes away.
type victim struct {
	p     uint64
	value []byte
	size  int64
	it    *item // nil: damaged
	why   string
}

func (v *victim) isGap() bool { return v.it != nil && v.it.gap != nil }

// from is the first position that the entry stands for.
func (v *victim) from() uint64 {
	if v.isGap() {
		return min(max(v.it.gap.from, 1), v.p)
	}
	return v.p
}

// shed takes records from the head for as long as the verdict gives a reason, and puts gaps in their place: one a
// segment, at the position of the last that went. Gaps that stand there already are absorbed. keep, if given, gets
// every record that goes. It returns how many went.
func (o *Outbox) shed(tx store.Tx, s *stream, m *meta, keep func(v *victim, seq uint64, g segment), judge verdict) (int, error) {
	gone, n, err := victims(tx, s, m, judge)
	if err != nil || n == 0 {
		return 0, err
	}
	var open *gap // the gap in the making, which will stand at position at
	expect, at, placed := m.first, uint64(0), false
	place := func() {
		if !placed {
			m.first, placed = at, true
		}
		o.putGap(tx, s, m, at, open)
	}
	for i := range gone {
		v := &gone[i]
		g := m.segment(v.p)
		tx.Delete(recordKey(s.name, v.p))
		if open != nil && at < g.start {
			place()
			open = nil
		}
		if open == nil {
			open = &gap{from: max(min(expect, v.from()), g.start)}
		}
		if lost := max(expect, open.from); v.from() > lost {
			open.why.add(record.Damaged, v.from()-lost)
			m.dropped.add(record.Damaged, v.from()-lost)
		}
		at, expect = v.p, v.p+1
		if v.isGap() {
			open.why.addAll(v.it.gap.why)
			continue
		}
		open.why.add(v.why, 1)
		m.dropped.add(v.why, 1)
		if keep != nil {
			keep(v, g.sequence(v.p), g)
		}
	}
	place()
	return n, nil
}

// victims collects what goes, and takes it off the stream's count. Gaps behind the last record that goes stay where they are.
func victims(tx store.Tx, s *stream, m *meta, judge verdict) (gone []victim, n int, err error) {
	end, pending := 0, int64(0)
	err = tx.Scan(recordPrefix(s.name), after(s.name, m.first), func(key, value []byte) bool {
		v := victim{p: position(key), size: int64(len(key) + len(value))}
		if v.it, err = decodeItem(value); err != nil {
			v.it, err = nil, nil
		}
		pending += v.size
		if !v.isGap() {
			if v.why = judge(n, v.p, v.it); v.why == "" {
				return false
			}
			n++
			m.count -= uint64(len(gone) + 1 - end)
			m.bytes -= pending
			pending = 0
			v.value = append([]byte{}, value...)
		}
		gone = append(gone, v)
		if !v.isGap() {
			end = len(gone)
		}
		return n < shedMost
	})
	if err != nil {
		return nil, 0, fmt.Errorf("stream %s: %w", s.name, err)
	}
	gone = gone[:end]
	return gone, n, nil
}

// dropNewest lets position p, the newest, go at once: a gap that ends just before it grows, or a new one begins.
func (o *Outbox) dropNewest(tx store.Tx, s *stream, m *meta, p uint64) error {
	open := &gap{from: p}
	before := recordKey(s.name, p-1)
	value, ok, err := tx.Get(before)
	if err != nil {
		return fmt.Errorf("stream %s: %w", s.name, err)
	}
	if ok && m.segment(p).start < p {
		if it, err := decodeItem(value); err == nil && it.gap != nil {
			open.from, open.why = it.gap.from, it.gap.why
			tx.Delete(before)
			m.count--
			m.bytes -= int64(len(before) + len(value))
		}
	}
	open.why.add(record.Full, 1)
	m.dropped.add(record.Full, 1)
	o.putGap(tx, s, m, p, open)
	return nil
}

// putGap writes a gap. It is not sent before it is durable: the records that it replaces might come back.
func (o *Outbox) putGap(tx store.Tx, s *stream, m *meta, p uint64, g *gap) {
	m.edits++
	edit := m.edits
	g.edit = edit
	key, value := recordKey(s.name, p), g.encode()
	tx.Put(key, value)
	m.count++
	m.bytes += int64(len(key) + len(value))
	tx.OnDurable(func() { o.settle(s, edit) })
	tx.OnFail(func(error) { o.settle(s, 0) })
}

// settle wakes the queue of a stream whose gaps up to edit have become durable, or were taken back.
func (o *Outbox) settle(s *stream, edit uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	s.edits = max(s.edits, edit)
	if edit == 0 || s.blocked <= s.edits {
		s.blocked = 0
	}
	if q := o.queues[s.cfg.Uplink]; q != nil {
		q.signal()
	}
}
