package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// signal wakes the committer.
func (s *Store) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// run is the committer: it writes groups to the disk. It ends when the store is closing and nothing is left to write.
func (s *Store) run() {
	defer close(s.stopped)
	for {
		s.committing.Lock()
		g, wait := s.next()
		if g != nil {
			s.commit(g)
		}
		s.committing.Unlock()
		switch {
		case g != nil:
		case wait < 0:
			return
		default:
			s.sleep(wait)
		}
	}
}

// lead commits the open group in the goroutine that made it urgent, unless a commit is under way: under Crash that takes
// some 30 µs, about as long as waking another goroutine would. Under Power the caller does not wait for the disk.
func (s *Store) lead() {
	if s.opts.Durability != Crash || !s.committing.TryLock() {
		s.signal()
		return
	}
	defer s.committing.Unlock()
	if g, _ := s.next(); g != nil {
		s.commit(g)
	}
}

// next seals the open group if it is time. Otherwise it says how long to wait for that: 0 until something happens, -1 if
// nothing ever will.
func (s *Store) next() (*group, time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.open
	if g.empty() {
		g.urgent = false
		if s.closing {
			return nil, -1
		}
		return nil, 0
	}
	if wait := time.Until(s.due); wait > 0 && !g.urgent && !s.closing && len(g.entries) > 0 {
		return nil, wait
	}
	s.sealed, s.last, s.open = g, g, s.newGroup()
	s.changed.Broadcast()
	return g, 0
}

// newGroup makes a group, with the map of one that was written. It needs mu.
func (s *Store) newGroup() *group {
	g := newGroup()
	if s.spare != nil {
		g.entries, s.spare = s.spare, nil
	}
	return g
}

// recycle takes the map of a group that was written: nobody reads it any more. One that was large is not worth keeping. It
// needs mu.
func (s *Store) recycle(g *group) {
	if len(g.entries) <= spareKeys {
		s.spare = g.entries
		clear(s.spare)
	}
	g.entries = nil
}

// spareKeys bounds the map that is used again.
const spareKeys = 256

// sleep waits for a signal, for at most wait, and does the housekeeping when that is due.
func (s *Store) sleep(wait time.Duration) {
	if wait > 0 {
		t := time.NewTimer(wait)
		defer t.Stop()
		select {
		case <-s.wake:
		case <-t.C:
		}
		return
	}
	select {
	case <-s.wake:
	case <-s.tidying.C:
		s.committing.Lock()
		s.tidy()
		s.committing.Unlock()
	}
}

// commit writes a sealed group and tells those who wait for it.
func (s *Store) commit(g *group) {
	if err := s.write(g); err != nil {
		s.drop(g, err)
		return
	}
	var deleted int64
	for _, e := range g.entries {
		if e.deleted {
			deleted++
		}
	}
	snap := s.disk.snapshot()
	if len(g.entries) > 0 {
		s.mark.write(s.epoch, snap.txn.ReadTs())
	}
	s.mu.Lock()
	old := s.snap
	s.snap, s.sealed = snap, nil
	s.recent.committed(g.entries)
	s.recycle(g)
	s.deleted += deleted
	s.stats.Groups++
	s.changed.Broadcast()
	s.mu.Unlock()
	old.release()
	g.finish(nil)
}

// write takes a group to the disk. An error that wraps ErrBroken leaves it open what the disk has.
func (s *Store) write(g *group) error {
	if len(g.entries) == 0 {
		return nil
	}
	if s.opts.Fault != nil {
		if err := s.opts.Fault(); err != nil {
			return err
		}
	}
	if free, err := s.checkFree(); err != nil {
		return err
	} else if free < s.floor() {
		return fullError(s.dir, free, s.opts.MinFree)
	}
	if err := s.disk.commit(g.entries); err != nil {
		err = fmt.Errorf("committing %d keys: %w", len(g.entries), err)
		if errors.Is(err, errHalfway) {
			err = fmt.Errorf("%w: %w", ErrBroken, err)
		}
		return err
	}
	if s.opts.Durability != Power {
		return nil
	}
	if err := s.disk.sync(); err != nil {
		return fmt.Errorf("%w: syncing %s: %w", ErrBroken, s.dir, err)
	}
	s.mu.Lock()
	s.stats.Syncs++
	s.mu.Unlock()
	return nil
}

// Drops counts the groups that were given up. What was read before it rose may never have been true.
func (s *Store) Drops() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.drops
}

// drop gives up a group that could not be written, and the open one, which may have read from it.
func (s *Store) drop(g *group, err error) {
	cause := err
	err = fmt.Errorf("%w: %w", ErrDropped, cause)
	s.mu.Lock()
	open := s.open
	s.open, s.sealed, s.last = s.newGroup(), nil, nil
	s.recent.forget()
	s.drops++
	s.failing = true
	s.stats.Dropped++
	if errors.Is(err, ErrBroken) && s.broken == nil {
		s.broken = cause
		close(s.failed)
	}
	s.changed.Broadcast()
	s.mu.Unlock()
	level := slog.LevelError
	if full := errors.Is(cause, ErrFull); full && time.Since(s.fullSaid) < time.Minute {
		level = slog.LevelDebug // the log may be what fills the disk
	} else if full {
		s.fullSaid = time.Now()
	}
	s.log.Log(context.Background(), level, "a group was not written", "keys", len(g.entries), "updates", g.updates+open.updates, "err", err)
	g.finish(err)
	open.finish(err)
	s.mu.Lock()
	s.failing = false
	s.changed.Broadcast()
	s.mu.Unlock()
}

// Flush waits until everything updated so far is durable, or dropped with every OnFail called. It returns ctx's error, or why
// the newest was dropped.
func (s *Store) Flush(ctx context.Context) error {
	s.mu.Lock()
	for s.failing {
		s.changed.Wait()
	}
	if s.broken != nil {
		defer s.mu.Unlock()
		return s.broken
	}
	g := s.open
	if g.empty() {
		g = s.last
	} else {
		g.urgent = true
		s.signal()
	}
	s.mu.Unlock()
	if g == nil {
		return nil
	}
	select {
	case <-g.done:
		return g.err
	case <-ctx.Done():
		return ctx.Err()
	}
}
