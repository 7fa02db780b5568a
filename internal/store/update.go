package store

import (
	"fmt"
	"time"
)

// maxKey is Badger's longest key, in bytes, less what it adds itself.
const maxKey = 60_000

// txn is an update in the making: its own writes over the groups over the disk.
type txn struct {
	reader
	staged    overlay
	urgent    bool
	soon      bool
	onJoin    []func()
	onDurable []func()
	onFail    []func(error)
	err       error // of a write that can never be committed
}

func (t *txn) Put(key, value []byte)    { t.put(key, value, false) }
func (t *txn) PutNew(key, value []byte) { t.put(key, value, true) }
func (t *txn) Size() int64              { return t.staged.size.bytes }
func (t *txn) Urgent()                  { t.urgent = true }
func (t *txn) Soon()                    { t.soon = true }
func (t *txn) OnJoin(fn func())         { t.onJoin = append(t.onJoin, fn) }
func (t *txn) OnDurable(fn func())      { t.onDurable = append(t.onDurable, fn) }
func (t *txn) OnFail(fn func(err error)) {
	t.onFail = append(t.onFail, fn)
}

func (t *txn) put(key, value []byte, fresh bool) {
	if t.check(key) {
		t.staged.put(string(key), append([]byte{}, value...), fresh)
	}
}

func (t *txn) Delete(key []byte) {
	if t.check(key) {
		t.staged.del(string(key))
	}
}

// check refuses what Badger would refuse later, when it would cost a whole group.
func (t *txn) check(key []byte) bool {
	switch {
	case len(key) == 0:
		t.err = fmt.Errorf("%w: an empty key", ErrBadKey)
	case len(key) > maxKey:
		t.err = fmt.Errorf("%w: a key of %d bytes, at most %d fit", ErrTooBig, len(key), maxKey)
	case len(t.staged.entries) > t.s.limit.count:
		t.err = fmt.Errorf("%w: more than %d keys", ErrTooBig, t.s.limit.count)
	case t.staged.size.bytes > 2*t.s.limit.bytes:
		t.err = fmt.Errorf("%w: more than %d bytes", ErrTooBig, t.s.limit.bytes)
	default:
		return true
	}
	return false
}

// Update runs fn, one at a time, and lets its writes join the open group. It returns fn's error, or one that wraps
// ErrFull, ErrTooBig, ErrDropped, ErrBroken or ErrClosed; then nothing was written and none of the functions given to
// OnJoin, OnDurable and OnFail is ever called. Without an error the first are, and exactly one kind of the others. It waits while the group before is being
// written and the open one is full. fn must not call Update, Flush or Close.
func (s *Store) Update(fn func(tx Tx) error) error {
	urgent, err := s.update(fn)
	if urgent && err == nil {
		s.lead()
	}
	return err
}

// update is Update but for the hurry: it says whether somebody waits for the group.
func (s *Store) update(fn func(tx Tx) error) (urgent bool, err error) {
	s.writer.Lock()
	defer s.writer.Unlock()
	s.mu.Lock()
	for s.failing {
		s.changed.Wait()
	}
	drops, err := s.drops, s.state()
	s.mu.Unlock()
	if err != nil {
		return false, err
	}
	t := s.begin()
	defer t.end()
	if err := fn(t); err != nil {
		return false, err
	}
	if t.err != nil {
		return false, t.err
	}
	if !t.staged.size.within(s.limit) {
		return false, fmt.Errorf("%w: %d keys of %d bytes, at most %d of %d fit", ErrTooBig,
			t.staged.size.count, t.staged.size.bytes, s.limit.count, min(s.limit.bytes, s.limit.cost))
	}
	if err := s.room(t); err != nil {
		return false, err
	}
	return t.urgent, s.join(t, drops)
}

// soonLinger is how long a group waits for more while much is coming.
const soonLinger = time.Millisecond

// begin makes the one transaction that there is at a time ready for an update. It needs writer.
func (s *Store) begin() *txn {
	t := &s.txn
	t.s, t.staging = s, &t.staged
	if t.staged.entries == nil {
		t.staged.entries = map[string]entry{}
	}
	return t
}

// end lets go of what an update has left behind, but for its memory if that is small.
func (t *txn) end() {
	entries := t.staged.entries
	if len(entries) > spareKeys {
		entries = nil
	}
	clear(entries)
	clear(t.onJoin)
	clear(t.onDurable)
	clear(t.onFail)
	*t = txn{staged: overlay{entries: entries}, onJoin: t.onJoin[:0], onDurable: t.onDurable[:0], onFail: t.onFail[:0]}
}

// join adds a finished update to the open group, once there is room.
func (s *Store) join(t *txn, drops int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		if err := s.state(); err != nil {
			return err
		}
		if s.drops != drops {
			return fmt.Errorf("%w while this update was being made", ErrDropped)
		}
		if s.open.size.plus(t.staged.size).within(s.limit) && s.open.updates < int64(s.limit.count) {
			break
		}
		s.open.urgent = true
		s.signal()
		s.changed.Wait()
	}
	g := s.open
	first := g.empty()
	g.merge(&t.staged)
	g.urgent = g.urgent || t.urgent
	g.updates++
	g.onDurable = append(g.onDurable, t.onDurable...)
	g.onFail = append(g.onFail, t.onFail...)
	for _, fn := range t.onJoin {
		fn()
	}
	s.stats.Updates++
	s.stats.BytesWritten += t.staged.size.bytes
	sooner := false
	if first {
		s.due = time.Now().Add(s.opts.Linger)
	}
	if t.soon && !g.soon {
		g.soon = true
		if at := time.Now().Add(soonLinger); at.Before(s.due) {
			s.due, sooner = at, true
		}
	}
	if (first || sooner || len(g.entries) == 0) && !t.urgent {
		s.signal()
	}
	return nil
}

// state returns why no update is possible, or nil. It needs mu.
func (s *Store) state() error {
	if s.closing {
		return ErrClosed
	}
	return s.broken
}

// room refuses an update that adds while the file system is nearly full. One that only deletes, or overwrites a little
// (a cursor, a counter), passes: that is how space comes back.
func (s *Store) room(t *txn) error {
	if !s.full.Load() {
		return nil
	}
	free, err := s.checkFree()
	if err != nil || !s.full.Load() {
		return err
	}
	var put int64
	for key, e := range t.staged.entries {
		if e.deleted {
			continue
		}
		put += int64(len(e.value))
		_, known, err := t.below([]byte(key))
		if err != nil {
			return err
		}
		if !known || put > overwriteWhenFull {
			return fullError(s.dir, free, s.opts.MinFree)
		}
	}
	return nil
}

// overwriteWhenFull is how many bytes an update may put on keys that exist while the disk is full.
const overwriteWhenFull = 4 << 10
