package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/perigee-iot/perigee/internal/backup"
)

// Names below a store's directory while a backup is being restored, and after.
const (
	restoringName = "db.restoring" // what is being written
	restoredName  = "db.restored"  // whole, and about to become the database
	replacedName  = "replaced"     // the database that it took the place of; one, the newest
)

// ErrExists: there is a store already where one is to be restored.
var ErrExists = errors.New("the data directory has a store")

// Backup writes all that is durable to w, as one moment had it, while updates go on. It fills in what it knows of the header. The file is
// sealed with the store's key if there is one. Before it begins it reads all tables through, since Badger leaves out what it cannot read
// without an error. It ends early with ctx's error.
func (s *Store) Backup(ctx context.Context, w io.Writer, about backup.Header) (backup.Summary, error) {
	if err := s.Flush(ctx); err != nil {
		return backup.Summary{}, err
	}
	snap, done, err := s.moment()
	if err != nil {
		return backup.Summary{}, err
	}
	defer done()
	if err := s.disk.check(); err != nil {
		return backup.Summary{}, err
	}
	about.Schema, about.Epoch, about.Created = schema, s.epoch, time.Now().UTC().Truncate(time.Second)
	out, err := backup.NewWriter(w, about, s.opts.Key, func(first byte) string { return Space(first).String() })
	if err != nil {
		return backup.Summary{}, err
	}
	err = snap.scan(nil, nil, func(key []byte, value func() ([]byte, error)) (bool, error) {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		v, err := value()
		if err == nil {
			err = out.Add(key, v)
		}
		return err == nil, err
	})
	if err != nil {
		return backup.Summary{}, err
	}
	return out.Close()
}

// moment returns the disk as the last durable group left it. Close waits until done was called.
func (s *Store) moment() (snap *snapshot, done func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return nil, nil, ErrClosed
	}
	s.views++
	snap = s.snap.hold()
	return snap, func() {
		snap.release()
		s.mu.Lock()
		s.views--
		s.changed.Broadcast()
		s.mu.Unlock()
	}, nil
}

// Restored says what Restore did.
type Restored struct {
	backup.Summary
	NewEpoch string // of the store as it is now
	Replaced string // where the store that there was is now; empty: there was none
}

// RestoreOptions are those of Restore.
type RestoreOptions struct {
	Options                         // of the store that is made
	FileKey    []byte               // opens the file; nil: Options.Key does
	Replace    bool                 // set a store that is there aside, to dir/replaced, in place of an earlier one
	OnProgress func(done, of int64) // bytes; the file is read twice, which of counts
}

// Restore makes the store in dir from a backup, with a new epoch, so that the sequences of streams that the old one used since cannot be
// taken for the same records. The file is read twice: nothing is touched before all of it has been checked. The directory changes
// in one step at the end; a power cut leaves either what was there or what was restored.
//
// It returns ErrLocked while a gateway runs, ErrExists without Replace, ErrFull if there is no space for both, ErrNewer, or an error
// of package backup.
func Restore(ctx context.Context, dir string, o RestoreOptions, file io.ReadSeeker) (Restored, error) {
	opts, err := o.withDefaults()
	if err != nil {
		return Restored{}, err
	}
	r := restoring{dir: dir, o: o, file: file}
	r.o.Options = opts
	if r.o.FileKey == nil {
		r.o.FileKey = opts.Key
	}
	if err := r.check(ctx); err != nil {
		return Restored{}, err
	}
	if err := makeDir(dir); err != nil {
		return Restored{}, err
	}
	l, err := takeLock(dir)
	if err != nil {
		return Restored{}, err
	}
	clean := !l.unclean
	defer func() { l.release(clean) }()
	if err := r.write(ctx); err != nil {
		return Restored{}, errors.Join(err, os.RemoveAll(filepath.Join(dir, restoringName)))
	}
	clean = false // so the next start looks at everything, the digests of state included
	return r.out, r.swap()
}

// restoring is a Restore under way.
type restoring struct {
	dir  string
	o    RestoreOptions
	file io.ReadSeeker
	read int64 // in earlier turns
	out  Restored
}

// each reads the file from its beginning and calls fn for all entries.
func (r *restoring) each(ctx context.Context, fn func(key, value []byte) error) (backup.Summary, error) {
	size, err := r.file.Seek(0, io.SeekEnd)
	if err == nil {
		_, err = r.file.Seek(0, io.SeekStart)
	}
	if err != nil {
		return backup.Summary{}, fmt.Errorf("reading the backup: %w", err)
	}
	defer func() { r.read += size }()
	in, err := backup.NewReader(r.file, r.o.FileKey)
	if err != nil {
		return backup.Summary{}, err
	}
	if v := in.Header().Schema; v > schema {
		return backup.Summary{}, fmt.Errorf("%w: the backup has format %d, this one reads up to %d", ErrNewer, v, schema)
	}
	for n := 0; ; n++ {
		key, value, err := in.Next()
		if errors.Is(err, io.EOF) {
			return in.Summary(), nil
		}
		if err == nil {
			err = ctx.Err()
		}
		if err == nil {
			err = fn(key, value)
		}
		if err != nil {
			return backup.Summary{}, err
		}
		if r.o.OnProgress != nil && n%1000 == 0 {
			r.o.OnProgress(r.read+in.Summary().Size, 2*size)
		}
	}
}

// check reads the whole file.
func (r *restoring) check(ctx context.Context) (err error) {
	found := 0
	r.out.Summary, err = r.each(ctx, func(key, value []byte) error {
		if k := string(key); k == string(schemaKey) || k == string(epochKey) {
			found++
		}
		if len(key) > maxKey || len(value) > groupBytes {
			return fmt.Errorf("%w: key %.40q with %d bytes is none of a store", backup.ErrDamaged, key, len(value))
		}
		return nil
	})
	if err == nil && found != 2 {
		err = fmt.Errorf("%w: it has no version or no epoch", backup.ErrDamaged)
	}
	return err
}

// write makes the database beside the one that there is.
func (r *restoring) write(ctx context.Context) error {
	if err := finishRestore(r.dir); err != nil {
		return err
	}
	if exists(filepath.Join(r.dir, dataName)) && !r.o.Replace {
		return fmt.Errorf("%w: %s; to restore in its place, say so (--replace): it is then kept in %s", ErrExists, r.dir, filepath.Join(r.dir, replacedName))
	}
	free, err := freeBytes(r.dir)
	if err != nil {
		return err
	}
	// Logs and tables both have what was written, for a while.
	if need := 2*r.out.Bytes + 32<<20 + r.o.MinFree/8; free < need {
		return fmt.Errorf("%w: restoring takes up to %d MiB, and %d are free where %s is", ErrFull, need>>20, free>>20, r.dir)
	}
	path := filepath.Join(r.dir, restoringName)
	d, err := openDisk(path, profile(r.o.Profile, path, r.o.Key, r.o.Log))
	if err != nil {
		return explain(path, err)
	}
	r.out.NewEpoch = newEpoch()
	err = r.fill(ctx, d)
	if err == nil {
		err = d.syncAll()
	}
	if closed := d.close(); err == nil {
		err = closed
	}
	if err != nil {
		return err
	}
	check, _, err := openChecked(path, r.o.Options, true)
	if err != nil {
		return fmt.Errorf("what was restored cannot be read back: %w", err)
	}
	return check.close()
}

// fill writes the entries, in transactions as large as they may be.
func (r *restoring) fill(ctx context.Context, d *disk) error {
	batch := newOverlay()
	_, err := r.each(ctx, func(key, value []byte) error {
		k := string(key)
		if k == string(epochKey) {
			value = []byte(r.out.NewEpoch)
		}
		e := entry{value: append([]byte{}, value...)}
		if !batch.size.plus(sizeOf(k, e)).within(d.limits()) {
			if err := commitBatch(d, &batch, r.o.MinFree/8); err != nil {
				return err
			}
		}
		batch.set(k, e)
		return nil
	})
	if err != nil {
		return err
	}
	return commitBatch(d, &batch, r.o.MinFree/8)
}

// commitBatch writes a transaction unless less than least bytes are free, and empties it.
func commitBatch(d *disk, batch *overlay, least int64) error {
	free, err := d.free()
	if err == nil && free < least {
		err = fullError(d.dir, free, least)
	}
	if err == nil {
		err = d.commit(batch.entries)
	}
	*batch = newOverlay()
	return err
}

// swap puts the restored database in its place.
func (r *restoring) swap() error {
	data, restored := filepath.Join(r.dir, dataName), filepath.Join(r.dir, restoredName)
	if err := errors.Join(syncFile(filepath.Join(r.dir, restoringName)), os.Rename(filepath.Join(r.dir, restoringName), restored), syncFile(r.dir)); err != nil {
		return fmt.Errorf("putting the restored store in its place: %w", err)
	}
	if exists(data) {
		r.out.Replaced = filepath.Join(r.dir, replacedName)
		if err := errors.Join(os.RemoveAll(r.out.Replaced), os.Rename(data, r.out.Replaced)); err != nil {
			return fmt.Errorf("setting the store aside: %w", err)
		}
	}
	return finishRestore(r.dir)
}

// finishRestore does what is left of a restore that was interrupted: its last step if the database that it replaces is out of the way, and
// otherwise nothing but cleaning up.
func finishRestore(dir string) error {
	data, restored := filepath.Join(dir, dataName), filepath.Join(dir, restoredName)
	if err := os.RemoveAll(filepath.Join(dir, restoringName)); err != nil {
		return fmt.Errorf("removing what a restore has left: %w", err)
	}
	if !exists(restored) {
		return nil
	}
	if exists(data) {
		if err := os.RemoveAll(restored); err != nil {
			return fmt.Errorf("removing what a restore has left: %w", err)
		}
		return nil
	}
	if err := os.Rename(restored, data); err != nil {
		return fmt.Errorf("finishing a restore: %w", err)
	}
	return syncFile(dir)
}
