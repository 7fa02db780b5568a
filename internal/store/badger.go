package store

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
)

// valueThreshold is the length from which a value goes to the value log. On 32 bits it also keeps each of a table's
// blocks within the memory set aside for it; see profile.
const valueThreshold = 1 << 10

// groupBytes bounds the keys and values of a group in memory: Badger counts only a pointer for a large value.
const groupBytes = 2 << 20

// groupKeys bounds the keys of a group, since every scan looks through them.
const groupKeys = 4096

// backend is what the committer does to the disk. Tests put one that fails around the real one.
type backend interface {
	commit(entries map[string]entry) error // one transaction: all or nothing, visible to later snapshots
	sync() error                           // makes what was committed last survive a power cut
	snapshot() *snapshot
	tidy(more func() bool) error // collects garbage while more says so; after an error it is open what the disk has
	rotate() error               // begins a new memtable
	flatten() error              // rewrites what deleted keys have left behind; beside commits
	free() (int64, error)        // bytes of the file system that are left
	check() error                // reads all tables through
	limits() size                // of one transaction
	close() error
}

// disk is the backend on Badger.
type disk struct {
	dir   string
	db    *badger.DB
	large bool   // the last commit wrote to the value log
	mem   uint64 // number of the active memtable's file
	vlog  uint64 // and of the active value log
	begun bool   // there was none: it is new

	synced func(path string) // told of every file and directory that was synced; nil but in tests
}

// profile returns Badger's options for one of the two sizes of machine.
//
// Two things are fixed, whatever the size. Badger's tables are built in memory from an allocator that, on 32 bits, hands out
// the same memory twice once it outgrows its first buffer, and so loses records without an error. Values below 1 KiB, no
// compression and tables of 4 MiB never outgrow it. And files are small, since all of them are mapped.
func profile(name, dir string, key []byte, log *slog.Logger) badger.Options {
	o := badger.DefaultOptions(dir).
		WithLogger(quiet{log}).
		WithMetricsEnabled(false).
		WithDetectConflicts(false). // one writer
		WithSyncWrites(false).      // the committer syncs, once a group
		WithCompression(options.None).
		WithBlockCacheSize(0).
		WithValueThreshold(valueThreshold).
		WithVerifyValueChecksum(true). // or a block of zeroes is a value like any other
		WithChecksumVerificationMode(options.OnBlockRead).
		WithBaseTableSize(4 << 20).
		WithNumCompactors(2).
		WithNumMemtables(2).
		WithNumLevelZeroTables(2).
		WithNumLevelZeroTablesStall(4)
	o.TableSizeMultiplier = 1
	if key != nil { // blocks that are decrypted anew each time would cost much
		o = o.WithEncryptionKey(key).WithBlockCacheSize(2 << 20)
	}
	if name == profileSmall {
		if strconv.IntSize == 64 { // a compaction builds several tables at once, each in twice its size of memory
			o = o.WithBaseTableSize(2 << 20)
		}
		return o.WithMemTableSize(2 << 20).WithValueLogFileSize(4 << 20).WithBaseLevelSize(8 << 20).WithIndexCacheSize(1 << 20)
	}
	return o.WithMemTableSize(8 << 20).WithValueLogFileSize(16 << 20).WithBaseLevelSize(16 << 20).WithIndexCacheSize(8 << 20)
}

// openDisk opens or makes a Badger database. Badger panics over some damage.
func openDisk(dir string, o badger.Options) (d *disk, err error) {
	defer func() {
		if p := recover(); p != nil {
			d, err = nil, fmt.Errorf("badger gave up: %v", p)
		}
	}()
	db, err := badger.Open(o)
	if err != nil {
		return nil, err
	}
	d = &disk{dir: dir, db: db}
	return d, d.locate()
}

// locate finds the active memtable and value log: those with the highest numbers.
func (d *disk) locate() error {
	files, err := os.ReadDir(d.dir)
	if err != nil {
		return err
	}
	for _, f := range files {
		base, ext, _ := strings.Cut(f.Name(), ".")
		n, err := strconv.ParseUint(base, 10, 32)
		switch {
		case err != nil:
		case ext == "mem":
			d.mem = max(d.mem, n)
		case ext == "vlog":
			d.vlog = max(d.vlog, n)
		}
	}
	return nil
}

func (d *disk) limits() size {
	// What Commit adds to the transaction, with room to spare.
	const count, cost = 16, 1 << 10
	return size{min(int(d.db.MaxBatchCount())-count, groupKeys), d.db.MaxBatchSize() - cost, groupBytes}
}

func (d *disk) commit(entries map[string]entry) error {
	txn := d.db.NewTransaction(true)
	defer txn.Discard()
	large := false
	deletes := true
	for key, e := range entries {
		var err error
		if e.deleted {
			err = txn.Delete([]byte(key))
		} else {
			deletes = false
			large = large || len(e.value) >= valueThreshold
			err = txn.Set([]byte(key), e.value)
		}
		if err != nil {
			return err
		}
	}
	if deletes {
		if err := txn.Set(deletionKey, nil); err != nil {
			return err
		}
	}
	d.large = d.large || large
	err := txn.Commit()
	if err == nil || errors.Is(err, badger.ErrTxnTooBig) || errors.Is(err, badger.ErrBlockedWrites) {
		return err
	}
	return fmt.Errorf("%w: %w", errHalfway, err)
}

// errHalfway marks a commit that failed where Badger cannot go on.
var errHalfway = errors.New("badger stopped in the middle of a commit")

// sync makes the last commit durable. The value log goes first: if the power fails between the two, a transaction
// without its end is no transaction, but one with dangling pointers would be. A rotation leaves a new file, whose name
// is not safe before the directory is.
func (d *disk) sync() error {
	if d.large {
		if err := d.syncPath(d.vlogName(d.vlog)); err != nil {
			return err
		}
		d.large = false
	}
	rotated := d.rotated()
	if err := d.db.Sync(); err != nil {
		return err
	}
	d.tell(d.memName(d.mem))
	d.tell(d.vlogName(d.vlog))
	if rotated {
		return d.syncPath(d.dir)
	}
	return nil
}

func (d *disk) syncPath(path string) error {
	err := syncFile(path)
	if err == nil {
		d.tell(path)
	}
	return err
}

func (d *disk) tell(path string) {
	if d.synced != nil {
		d.synced(path)
	}
}

// rotated says whether the last commit began a new memtable or value log. It begins at most one of each.
func (d *disk) rotated() bool {
	mem, vlog := exists(d.memName(d.mem+1)), exists(d.vlogName(d.vlog+1))
	if mem {
		d.mem++
	}
	if vlog {
		d.vlog++
	}
	return mem || vlog
}

func (d *disk) memName(n uint64) string  { return filepath.Join(d.dir, fmt.Sprintf("%05d.mem", n)) }
func (d *disk) vlogName(n uint64) string { return filepath.Join(d.dir, fmt.Sprintf("%06d.vlog", n)) }

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

func (d *disk) free() (int64, error) { return freeBytes(d.dir) }

func (d *disk) close() error { return d.db.Close() }

// snapshot is a moment of the database that readers share. The store holds it once, each reader once more.
type snapshot struct {
	txn  *badger.Txn
	refs atomic.Int32
}

// version is that of the last transaction.
func (d *disk) version() uint64 { return d.db.MaxVersion() }

func (d *disk) snapshot() *snapshot {
	s := &snapshot{txn: d.db.NewTransaction(false)}
	s.refs.Store(1)
	return s
}

func (s *snapshot) hold() *snapshot {
	s.refs.Add(1)
	return s
}

func (s *snapshot) release() {
	if s.refs.Add(-1) == 0 {
		s.txn.Discard()
	}
}

// get reads a key. If the collector moves a value and removes its old file between Badger's two steps, the second try
// finds the new place.
func (s *snapshot) get(key []byte) ([]byte, bool, error) {
	for try := 0; ; try++ {
		item, err := s.txn.Get(key)
		if errors.Is(err, badger.ErrKeyNotFound) {
			return nil, false, nil
		}
		var value []byte
		if err == nil {
			value, err = valueOf(item)
		}
		if err == nil {
			return value, true, nil
		}
		if try > 0 {
			return nil, false, fmt.Errorf("reading key %q: %w: %w", key, ErrDamaged, err)
		}
	}
}

// valueOf copies an item's value. Where Badger cannot read the value log it logs that, and returns an empty value without an error.
func valueOf(item *badger.Item) ([]byte, error) {
	v, err := item.ValueCopy([]byte{})
	if err == nil && len(v) == 0 && item.ValueSize() > 0 {
		err = errors.New("its value is not what was written")
	}
	return v, err
}

// scan walks the keys that begin with prefix and are greater than after.
func (s *snapshot) scan(prefix, after []byte, fn func(key []byte, value func() ([]byte, error)) (bool, error)) error {
	it := s.txn.NewIterator(badger.IteratorOptions{Prefix: prefix})
	defer it.Close()
	start := prefix
	if len(after) > 0 && string(after) >= string(prefix) {
		start = append(append(make([]byte, 0, len(after)+1), after...), 0)
	}
	for it.Seek(start); it.ValidForPrefix(prefix); it.Next() {
		item := it.Item()
		more, err := fn(item.Key(), func() ([]byte, error) {
			v, err := valueOf(item)
			if err != nil {
				return nil, fmt.Errorf("reading key %q: %w: %w", item.Key(), ErrDamaged, err)
			}
			return v, nil
		})
		if err != nil || !more {
			return err
		}
	}
	return nil
}

// quiet gives Badger's log to slog: its chatter at debug, what it calls errors as warnings.
type quiet struct{ log *slog.Logger }

func (q quiet) Errorf(f string, a ...any)   { q.log.Warn("badger", "text", fmt.Sprintf(f, a...)) }
func (q quiet) Warningf(f string, a ...any) { q.log.Debug("badger", "text", fmt.Sprintf(f, a...)) }
func (q quiet) Infof(f string, a ...any)    { q.log.Debug("badger", "text", fmt.Sprintf(f, a...)) }
func (q quiet) Debugf(string, ...any)       {}
