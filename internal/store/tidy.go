package store

import (
	"errors"
	"path/filepath"
	"time"

	"github.com/dgraph-io/badger/v4"
)

const (
	tidyEvery    = 10 * time.Minute // how often the store looks whether there is something to tidy up
	flattenAfter = 20_000           // deleted keys that are worth rewriting the tables for
)

// tidy is the housekeeping. It runs in the committer's goroutine while nothing waits to be written: the collector of the
// value log writes to the memtable, and no write may come between a group and its sync.
func (s *Store) tidy() {
	s.mu.Lock()
	idle := s.stats.Updates == s.tidied && s.broken == nil
	s.tidied = s.stats.Updates
	s.mu.Unlock()
	free, err := s.checkFree()
	if err != nil || free < s.floor() {
		return
	}
	s.makeBallast(free)
	quiet := func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.open.empty() && !s.closing && s.broken == nil
	}
	if err := s.disk.tidy(idle, quiet); err != nil {
		s.log.Warn("tidying up the store", "err", err)
	}
}

// tidy collects value log files that are half garbage, one after another while more says so. If the store has been idle it
// also rewrites tables that are full of deleted keys.
func (d *disk) tidy(idle bool, more func() bool) error {
	for more() {
		collected, err := d.collect()
		if err != nil {
			return err
		}
		if !collected {
			break
		}
	}
	if idle && d.deleted >= flattenAfter && more() {
		d.deleted = 0
		return d.db.Flatten(1)
	}
	return nil
}

// collect rewrites one value log file. Badger removes the old file as soon as the values are in the memtable, which is
// before they are on the disk; an iterator that is open meanwhile makes it wait, until everything has been synced.
func (d *disk) collect() (bool, error) {
	txn := d.db.NewTransaction(false)
	defer txn.Discard()
	guard := txn.NewIterator(badger.IteratorOptions{})
	defer guard.Close()
	err := d.db.RunValueLogGC(0.5)
	if errors.Is(err, badger.ErrNoRewrite) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, d.syncAll()
}

// syncAll syncs every log, not only the active ones.
func (d *disk) syncAll() error {
	for _, pattern := range []string{"*.vlog", "*.mem"} {
		names, err := filepath.Glob(filepath.Join(d.dir, pattern))
		if err != nil {
			return err
		}
		for _, name := range names {
			if err := syncFile(name); err != nil && exists(name) {
				return err
			}
		}
	}
	return syncFile(d.dir)
}
