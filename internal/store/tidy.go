package store

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/dgraph-io/badger/v4"
)

const (
	tidyEvery    = 10 * time.Minute // how often the store looks whether there is something to tidy up
	tidyFull     = 5 * time.Second  // and while the disk is full
	flattenAfter = 20_000           // deleted keys that are worth rewriting the tables for
	flattenBelow = 64 << 20         // bytes on disk above which that would take too long and wear too much
)

// tidy is the housekeeping. It runs in the committer's goroutine while nothing waits to be written: the collector of the
// value log writes to the memtable, and no write may come between a group and its sync.
func (s *Store) tidy() {
	s.mu.Lock()
	idle := s.stats.Updates == s.tidied
	flatten := idle && s.deleted >= flattenAfter && !s.flattening
	urgent := s.full.Load() && s.deleted > 0 && !s.flattening // nothing is added, so that nothing else would free what was deleted
	s.tidied = s.stats.Updates
	s.mu.Unlock()
	free, err := s.checkFree()
	if err != nil || free < s.floor() {
		return
	}
	s.makeBallast(free)
	if err := s.disk.tidy(s.quiet); err != nil {
		s.drop(newGroup(), fmt.Errorf("%w: collecting garbage in %s: %w", ErrBroken, s.dir, err))
		return
	}
	if urgent && free >= s.roomToOpen() {
		if err := s.disk.rotate(); err != nil {
			s.drop(newGroup(), fmt.Errorf("%w: beginning a new log in %s: %w", ErrBroken, s.dir, err))
			return
		}
		s.flatten()
		return
	}
	if flatten && s.quiet() && diskBytes(filepath.Join(s.dir, dataName)) < flattenBelow {
		s.flatten()
	}
}

// quiet says whether nothing waits to be written.
func (s *Store) quiet() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open.empty() && !s.closing && s.broken == nil
}

// flatten rewrites the tables in a goroutine that Close waits for. Compaction syncs its own files, so that it may run
// beside commits.
func (s *Store) flatten() {
	s.mu.Lock()
	s.flattening, s.deleted = true, 0
	s.mu.Unlock()
	go func() {
		err := s.disk.flatten()
		s.mu.Lock()
		s.flattening = false
		s.changed.Broadcast()
		s.mu.Unlock()
		if err != nil {
			s.log.Warn("rewriting the store's tables", "dir", s.dir, "err", err)
		}
	}()
}

func (d *disk) flatten() error { return d.db.Flatten(1) }

// rotate begins a new memtable, so that what was deleted is in tables, where merging them forgets it. Badger does that only when one
// is full: so it is filled.
func (d *disk) rotate() error {
	const keys = 16
	filler := make([]byte, valueThreshold-64)
	for !exists(d.memName(d.mem + 1)) {
		entries := map[string]entry{}
		for i := range keys {
			entries[string(NewKey(Meta).String("store/filler").Uint(uint64(i)))] = entry{value: filler}
		}
		if err := d.commit(entries); err != nil {
			return err
		}
	}
	return d.syncAll()
}

// tidy collects value log files that are half garbage, one after another.
func (d *disk) tidy(more func() bool) error {
	for more() {
		collected, err := d.collect()
		if err != nil || !collected {
			return err
		}
	}
	return nil
}

// collect rewrites one value log file. Badger removes the old file as soon as the values are in the memtable, which is
// before they are on the disk. While an iterator is open it does not: this one is closed once everything has been synced,
// and never if that fails.
func (d *disk) collect() (bool, error) {
	txn := d.db.NewTransaction(false)
	guard := txn.NewIterator(badger.IteratorOptions{})
	err := d.db.RunValueLogGC(0.5)
	collected := err == nil
	if collected {
		err = d.syncAll()
	}
	switch {
	case errors.Is(err, badger.ErrNoRewrite), errors.Is(err, badger.ErrRejected):
		err = nil
	case err != nil:
		return false, err
	}
	guard.Close()
	txn.Discard()
	return collected, err
}

// syncAll syncs every log, not only the active ones: a collection may fill several.
func (d *disk) syncAll() error {
	for _, pattern := range []string{"*.vlog", "*.mem"} {
		names, err := filepath.Glob(filepath.Join(d.dir, pattern))
		if err != nil {
			return err
		}
		for _, name := range names {
			// A memtable that was written to a table meanwhile is gone.
			if err := d.syncPath(name); err != nil && exists(name) {
				return err
			}
		}
	}
	if err := d.syncPath(d.dir); err != nil {
		return err
	}
	return d.locate()
}
