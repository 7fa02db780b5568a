package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/dgraph-io/badger/v4"
)

// What is left of a damaged store is worth having: the functions that were applied, the state of those whose values are all
// there, records that were not sent. So a store that is set aside is mended as far as it goes (mend.go), opened once more, and what
// can be read of it is copied into the new one. Nobody can say which keys are missing, or are older than they should be; so the new store
// has a new epoch, everything in it is compared with the digests that there are, and Stats says what was done.
//
// Badger may end the process over what it finds. A file in the store that was set aside says how far it came: begun twice it is not.

// Salvaged says what was taken over from a damaged store.
type Salvaged struct {
	Keys   int64 // taken over
	Lost   int64 // of which only the name could be read
	Tables int   // that were damaged; what could be read of them is among Keys
	Err    error // why nothing was taken over; nil: it was
}

const (
	asideMark = "SALVAGE" // in a store that was set aside, until it is known what is left of it
	asideTodo = "to do\n"
	asideBusy = "under way\n"
)

// unfinished says whether a store was set aside and nobody knows yet what is left of it, and whether that was tried.
func unfinished(dir string) (is, tried bool) {
	b, err := os.ReadFile(filepath.Join(dir, asideName, asideMark))
	return err == nil, string(b) == asideBusy
}

// beginAnew opens a new store with what can be read of the one that was set aside.
func (s *Store) beginAnew(data string, tried bool) (*disk, string, error) {
	aside := filepath.Join(s.dir, asideName)
	s.stats.SetAside, s.stats.Unclean = aside, true
	if tried {
		s.stats.Salvaged.Err = errors.New("the process ended while it was read")
	} else {
		err := os.WriteFile(filepath.Join(aside, asideMark), []byte(asideBusy), 0o600)
		if err == nil {
			err = s.salvage(aside, data)
		}
		if err != nil {
			s.stats.Salvaged = Salvaged{Err: err}
		}
		if errors.Is(err, ErrFull) { // there may be space the next time
			return nil, "", errors.Join(err, os.WriteFile(filepath.Join(aside, asideMark), []byte(asideTodo), 0o600))
		}
	}
	if got := s.stats.Salvaged; got.Err != nil {
		s.log.Error("nothing of the damaged store could be taken over", "dir", aside, "err", got.Err)
	} else {
		s.log.Warn("what could be read of the damaged store was taken over", "dir", aside, "keys", got.Keys, "lost", got.Lost, "tables", got.Tables)
	}
	d, epoch, err := openChecked(data, s.opts, true)
	if err == nil {
		err = os.Remove(filepath.Join(aside, asideMark))
	}
	return d, epoch, err
}

// salvage makes the database out of what can be read of the one in aside. After an error there is none.
func (s *Store) salvage(aside, data string) (err error) {
	path := filepath.Join(s.dir, restoringName)
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(path))
		}
	}()
	opts := profile(s.opts.Profile, aside, s.opts.Key, s.opts.Log)
	// It is only read: nothing is compacted, and what is in its logs must find room.
	opts.NumCompactors, opts.NumLevelZeroTables, opts.NumLevelZeroTablesStall = 0, 1<<20, 1<<21
	if s.stats.Salvaged.Tables, err = mend(aside, opts); err != nil {
		return err
	}
	from, err := openDisk(aside, opts)
	if err != nil {
		from, err = openDisk(aside, opts) // empty files
	}
	if err != nil {
		return fmt.Errorf("opening it: %w", err)
	}
	defer func() { err = errors.Join(err, closeRead(from)) }()
	to, err := openDisk(path, profile(s.opts.Profile, path, s.opts.Key, s.opts.Log))
	if err != nil {
		return explain(path, err)
	}
	_, err = to.identify()
	if err == nil {
		err = s.copyOver(from, to)
	}
	if err == nil {
		err = to.syncAll()
	}
	if err = errors.Join(err, to.close()); err != nil {
		return err
	}
	check, _, err := openChecked(path, s.opts, true)
	if err == nil {
		err = check.close()
	}
	if err == nil {
		err = os.Rename(path, data)
	}
	if err == nil {
		err = syncFile(s.dir)
	}
	return err
}

// closeRead closes a database that was only read. What is wrong with it then is of no interest.
func closeRead(d *disk) error {
	defer func() { _ = recover() }()
	_ = d.close()
	return nil
}

// copyOver copies what can be read, but for what belongs to the store itself.
func (s *Store) copyOver(from, to *disk) error {
	txn := from.db.NewTransaction(false)
	defer txn.Discard()
	it := txn.NewIterator(badger.IteratorOptions{})
	defer it.Close()
	batch := newOverlay()
	for it.Rewind(); it.Valid(); it.Next() {
		key := string(it.Item().Key())
		if key == string(schemaKey) || key == string(epochKey) || key == string(deletionKey) {
			continue
		}
		value, err := valueOf(it.Item())
		if err != nil {
			s.stats.Salvaged.Lost++
			continue
		}
		e := entry{value: value}
		if !batch.size.plus(sizeOf(key, e)).within(to.limits()) {
			if err := commitBatch(to, &batch, s.opts.MinFree); err != nil {
				return err
			}
		}
		batch.set(key, e)
		s.stats.Salvaged.Keys++
	}
	return commitBatch(to, &batch, s.opts.MinFree)
}
