package store

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// A file system that fills up kills: Badger writes to mapped files, and a page for which there is no block is a SIGBUS.
// So nothing is added below MinFree, nothing at all is written below the floor, and a ballast file keeps some space that
// can be given back when others have taken the rest, so that deleting is possible again.

// floor is the free space below which nothing is written.
func (s *Store) floor() int64 { return s.opts.MinFree / 8 }

// roomToOpen is the free space that opening asks for: the logs are written to tables then, and those may be merged with others. A
// store that filled the disk itself, down to MinFree, must open.
func (s *Store) roomToOpen() int64 {
	logs, _ := filepath.Glob(filepath.Join(s.dir, dataName, "*.mem"))
	room := s.floor() + mergeRoom
	for _, name := range logs {
		room += diskBytes(name)
	}
	return min(room, max(s.floor(), s.opts.MinFree/2))
}

// mergeRoom is what tables take while they are merged.
const mergeRoom = 16 << 20

// ballast is the size of the ballast file.
func (s *Store) ballast() int64 { return s.opts.MinFree / 4 }

func freeBytes(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("asking for the free space of %s: %w", dir, err)
	}
	return int64(min(st.Bavail*uint64(st.Bsize), 1<<62)), nil
}

func fullError(dir string, free, min int64) error {
	return fmt.Errorf("%w: %d MiB are free where %s is, and %d MiB must stay free (store.min_free)",
		ErrFull, free>>20, dir, min>>20)
}

// checkFree looks at the free space, remembers whether it is too little, and gives the ballast back if it is far too
// little.
func (s *Store) checkFree() (int64, error) {
	free, err := s.disk.free()
	if err != nil {
		return 0, err
	}
	if free < s.floor() && s.dropBallast() {
		if free, err = s.disk.free(); err != nil {
			return 0, err
		}
	}
	full := free < s.opts.MinFree
	if s.full.Swap(full) != full {
		if full {
			s.tidying.Reset(tidyFull)
			s.log.Warn("the disk is nearly full: nothing new is accepted", "dir", s.dir, "free", free, "min_free", s.opts.MinFree)
		} else {
			s.tidying.Reset(tidyEvery)
			s.log.Info("the disk has space again", "dir", s.dir, "free", free)
		}
	}
	return free, nil
}

// makeRoom makes sure that there is space to open the database, and a ballast if there is plenty.
func (s *Store) makeRoom() error {
	free, err := freeBytes(s.dir)
	if err != nil {
		return err
	}
	room := s.roomToOpen()
	if free < room && s.dropBallast() {
		if free, err = freeBytes(s.dir); err != nil {
			return err
		}
	}
	if free < room {
		return fullError(s.dir, free, room)
	}
	if s.full.Store(free < s.opts.MinFree); s.full.Load() {
		s.tidying.Reset(tidyFull)
	}
	s.makeBallast(free)
	return nil
}

// makeBallast sets space aside while there is plenty. It is no loss if it does not work.
func (s *Store) makeBallast(free int64) {
	if free < 2*s.opts.MinFree {
		return
	}
	path := filepath.Join(s.dir, ballastName)
	if fi, err := os.Stat(path); err == nil && fi.Size() == s.ballast() {
		return
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return
	}
	defer f.Close()
	if err := unix.Fallocate(int(f.Fd()), 0, 0, s.ballast()); err != nil {
		os.Remove(path) //nolint:errcheck // an empty file does no harm either
	}
}

// dropBallast gives the ballast back and says whether there was one.
func (s *Store) dropBallast() bool {
	err := os.Remove(filepath.Join(s.dir, ballastName))
	if err == nil {
		s.log.Warn("the disk is full: gave back the space kept for that", "dir", s.dir, "bytes", s.ballast())
	}
	return err == nil
}

// diskBytes adds up the blocks that a directory's files take. Files are sparse: their sizes say little.
func diskBytes(dir string) (total int64) {
	_ = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // a file that went away meanwhile
		}
		if fi, err := e.Info(); err == nil {
			if st, ok := fi.Sys().(*syscall.Stat_t); ok {
				total += int64(st.Blocks) * 512 //nolint:unconvert // narrower on some machines
			}
		}
		return nil
	})
	return total
}
