package store

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Names below a store's directory.
const (
	lockName    = "lock"    // held by the process that has the store open; its pid is inside
	dataName    = "db"      // Badger's files
	ballastName = "ballast" // space to give back when the disk is full
	asideName   = "damaged" // what SetAside moved away; one, the newest
)

// Store is the durable memory. Its methods are for any goroutine.
type Store struct {
	dir        string
	opts       Options
	log        *slog.Logger
	disk       backend
	epoch      string
	limit      size // of one group, and so of one update
	lock       *dirLock
	mark       *mark
	wake       chan struct{} // 1 deep: the committer looks again
	committing sync.Mutex    // held by whoever commits or tidies; taken before mu
	stopped    chan struct{} // the committer has ended
	failed     chan struct{}
	tidying    *time.Ticker
	full       atomic.Bool // less than MinFree is left
	fullSaid   time.Time   // when the log said last that a group was dropped for that; for whoever commits

	writer sync.Mutex // held for the length of an Update; taken before mu
	txn    txn        // the update that is being made; guarded by writer

	mu      sync.Mutex // guards what follows; never held while the disk is written
	changed *sync.Cond // on mu: a group was sealed, written or dropped, or a view ended
	open    *group     // what updates join
	sealed  *group     // what is being written; nil if nothing is
	last    *group     // what was sealed last
	due     time.Time  // when the open group is sealed at the latest
	snap    *snapshot  // the disk as the last durable group left it
	recent  recent     // part of what it holds
	spare   map[string]entry
	drops   int64 // how often groups were dropped
	failing bool  // OnFail functions are being called: no update begins
	views   int   // that are running
	closing bool
	broken  error
	stats   Stats

	tidied     int64 // stats.Updates when the store was tidied last
	deleted    int64 // keys deleted since the tables were rewritten
	flattening bool  // they are being rewritten
}

// Open opens the store in dir, and makes both if need be. One process can have it open.
//
// It returns ErrLocked if another has, ErrFull if there is too little space even to open it, ErrNewer or ErrDamaged. With
// Options.SetAside a damaged store is moved to dir/damaged, in place of an earlier one, and a new one begun with what can be read of it: Stats
// says so.
func Open(dir string, o Options) (*Store, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	if err := makeDir(dir); err != nil {
		return nil, err
	}
	l, err := takeLock(dir)
	if err != nil {
		return nil, err
	}
	s := newStore(dir, o)
	s.lock, s.stats.Unclean = l, l.unclean
	if err := s.start(); err != nil {
		l.release(!l.unclean)
		return nil, err
	}
	go s.run()
	return s, nil
}

func (o Options) withDefaults() (Options, error) {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Linger == 0 {
		o.Linger = 50 * time.Millisecond
	}
	if o.MinFree == 0 {
		o.MinFree = 64 << 20
	}
	switch o.Profile {
	case "", profileAuto:
		o.Profile = autoProfile()
	case profileSmall:
	case profileNormal:
		if strconv.IntSize == 32 { // its tables outgrow what Badger's allocator can give there without harm
			return o, fmt.Errorf("store profile %q needs a 64-bit machine: want %s or %s here", o.Profile, profileAuto, profileSmall)
		}
	default:
		return o, fmt.Errorf("store profile %q: want %s, %s or %s", o.Profile, profileAuto, profileSmall, profileNormal)
	}
	return o, errors.Join(checkKey(o.Key), checkKey(o.OldKey))
}

func newStore(dir string, o Options) *Store {
	s := &Store{
		dir: dir, opts: o, log: o.Log,
		wake: make(chan struct{}, 1), stopped: make(chan struct{}), failed: make(chan struct{}),
		open: newGroup(), recent: newRecent(recentBytes), tidying: time.NewTicker(tidyEvery),
	}
	s.changed = sync.NewCond(&s.mu)
	return s
}

// start opens the database under the lock.
func (s *Store) start() error {
	if err := finishRestore(s.dir); err != nil {
		return err
	}
	if err := s.makeRoom(); err != nil {
		return err
	}
	data := filepath.Join(s.dir, dataName)
	d, epoch, err := s.openOrBegin(data)
	if err != nil {
		return err
	}
	if epoch, err = s.missLast(d, epoch); err != nil {
		_ = d.close()
		return err
	}
	s.use(d, epoch)
	return nil
}

// openOrBegin opens the database, or if it is damaged begins a new one with what can be read of it.
func (s *Store) openOrBegin(data string) (*disk, string, error) {
	if is, tried := unfinished(s.dir); is && !exists(data) && s.opts.SetAside {
		return s.beginAnew(data, tried)
	}
	d, epoch, err := openChecked(data, s.opts, s.stats.Unclean)
	if errors.Is(err, ErrDamaged) && s.opts.SetAside {
		s.log.Error("the store is damaged: beginning a new one with what can be read of it", "dir", s.dir, "err", err)
		if err := setAside(s.dir); err != nil {
			return nil, "", err
		}
		return s.beginAnew(data, false)
	}
	return d, epoch, err
}

// use attaches an open backend.
func (s *Store) use(d backend, epoch string) {
	s.disk, s.epoch, s.limit, s.snap = d, epoch, d.limits(), d.snapshot()
}

// openChecked opens the database and makes sure that it is one of ours and whole enough. An empty file that a crash left
// fails the first open and passes the second.
func openChecked(dir string, o Options, unclean bool) (*disk, string, error) {
	opts := profile(o.Profile, dir, o.Key, o.Log)
	if err := matchKey(dir, o.Key, o.OldKey); err != nil {
		return nil, "", err
	}
	if err := verify(dir, opts, unclean); err != nil {
		return nil, "", err
	}
	d, err := openDisk(dir, opts)
	if err != nil && !environmental(err) {
		o.Log.Warn("opening the store again", "dir", dir, "err", err)
		d, err = openDisk(dir, opts)
	}
	if err != nil {
		return nil, "", explain(dir, err)
	}
	epoch, err := d.identify()
	if err != nil {
		_ = d.close()
		return nil, "", err
	}
	return d, epoch, nil
}

// environmental tells errors of the machine, which say nothing about the files, from those of the files.
func environmental(err error) bool {
	for _, e := range []syscall.Errno{
		syscall.EAGAIN, syscall.EACCES, syscall.EPERM, syscall.EROFS, syscall.ENOSPC, syscall.EDQUOT,
		syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.EIO,
	} {
		if is(err, e) {
			return true
		}
	}
	return false
}

// is finds an error number in an error of Badger's, which sometimes keeps nothing of it but the text.
func is(err error, number syscall.Errno) bool {
	return errors.Is(err, number) || strings.Contains(err.Error(), number.Error())
}

// explain turns an error of Badger's Open into one for people.
func explain(dir string, err error) error {
	switch {
	case is(err, syscall.EAGAIN):
		return fmt.Errorf("%w: %s: %w", ErrLocked, dir, err)
	case is(err, syscall.EACCES), is(err, syscall.EPERM):
		return permission(dir, err)
	case is(err, syscall.ENOSPC), is(err, syscall.EDQUOT):
		return fmt.Errorf("opening %s: %w: %w", dir, ErrFull, err)
	case environmental(err):
		return fmt.Errorf("opening %s: %w", dir, err)
	}
	return fmt.Errorf("%w: opening %s: %w", ErrDamaged, dir, err)
}

// permission says who owns a directory that we may not use.
func permission(dir string, err error) error {
	owner := "somebody else"
	if fi, statErr := os.Stat(dir); statErr == nil {
		if st, ok := fi.Sys().(*syscall.Stat_t); ok {
			owner = "uid " + strconv.FormatUint(uint64(st.Uid), 10)
		}
	}
	var at *fs.PathError
	if errors.As(err, &at) {
		err = at.Err // the path has been said
	}
	return fmt.Errorf("%s belongs to %s and this is uid %d: run as its owner, or choose another data_dir: %w", dir, owner, os.Getuid(), denied{err})
}

// denied is an error that is an fs.ErrPermission, which those of Badger say but do not wrap.
type denied struct{ error }

func (d denied) Unwrap() error      { return d.error }
func (denied) Is(target error) bool { return target == fs.ErrPermission }

var (
	schemaKey = NewKey(Meta).String("store/schema")
	epochKey  = NewKey(Meta).String("store/epoch")
)

// identify reads the schema's version and the epoch, and writes them into a new store. A store that has keys but
// neither has lost something.
func (d *disk) identify() (string, error) {
	snap := d.snapshot()
	defer snap.release()
	version, ok, err := snap.get(schemaKey)
	if err != nil {
		return "", err
	}
	if !ok {
		return d.begin(snap)
	}
	if len(version) != 4 {
		return "", fmt.Errorf("%w: its version has %d bytes", ErrDamaged, len(version))
	}
	if err := d.migrate(binary.BigEndian.Uint32(version), migrations()); err != nil {
		return "", err
	}
	epoch, ok, err := snap.get(epochKey)
	if err == nil && (!ok || len(epoch) != 16) {
		err = fmt.Errorf("%w: it has no epoch", ErrDamaged)
	}
	return string(epoch), err
}

func (d *disk) begin(snap *snapshot) (string, error) {
	empty := true
	err := snap.scan(nil, nil, func([]byte, func() ([]byte, error)) (bool, error) {
		empty = false
		return false, nil
	})
	if err != nil {
		return "", err
	}
	if !empty {
		return "", fmt.Errorf("%w: %s has keys but no version", ErrDamaged, d.dir)
	}
	epoch := newEpoch()
	d.begun = true
	err = d.commit(map[string]entry{
		string(schemaKey): {value: binary.BigEndian.AppendUint32(nil, schema)},
		string(epochKey):  {value: []byte(epoch)},
	})
	if err == nil {
		err = d.sync()
	}
	if err == nil {
		err = syncFile(filepath.Dir(d.dir))
	}
	return epoch, err
}

func newEpoch() string {
	var b [8]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// Epoch returns the store's identity: 16 hex digits, made at random with the store, and anew when a damaged one was set
// aside. Sequences count within it.
func (s *Store) Epoch() string { return s.epoch }

// Failed is closed when the store breaks; Err then says why.
func (s *Store) Failed() <-chan struct{} { return s.failed }

// Err returns why the store is broken, or nil. It wraps ErrBroken.
func (s *Store) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.broken
}

func (s *Store) isClosing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closing
}

// Close makes everything durable and closes the store. It waits for running updates and views, and may be called twice. It
// returns an error if something was not written.
func (s *Store) Close() error {
	s.writer.Lock() // no update is half way, and no other Close
	defer s.writer.Unlock()
	if s.isClosing() {
		return nil
	}
	flushed := s.Flush(context.Background())
	s.mu.Lock()
	s.closing = true
	s.mu.Unlock()
	s.signal()
	<-s.stopped
	s.tidying.Stop()
	s.mu.Lock()
	for s.views > 0 || s.flattening {
		s.changed.Wait()
	}
	s.mu.Unlock()
	s.snap.release()
	err := errors.Join(flushed, s.closeDisk())
	s.mark.close()
	s.lock.release(err == nil)
	return err
}

// closeDisk closes the database, unless there is no space: Badger would try for ever to write its memtable to a table. Nothing
// is lost without that, since it is in the log.
func (s *Store) closeDisk() error {
	free, err := s.checkFree()
	if err == nil && free < s.floor() {
		return fullError(s.dir, free, s.floor())
	}
	return s.disk.close()
}
