package store

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/fb"
	"github.com/dgraph-io/badger/v4/table"
	"github.com/dgraph-io/ristretto/v2"
	"github.com/dgraph-io/ristretto/v2/z"
)

// Up to how many bytes of tables are read through at every start, and after an unclean stop. A slow card takes a few seconds for
// the first, and some twenty for the second.
const (
	deepBelow    = 64 << 20
	uncleanBelow = 256 << 20
)

// verify looks at the files before Badger does. Badger opens without its manifest, and with most records gone; leaves out a
// table whose index has a wrong checksum, without an error; and over other damage panics in a goroutine of its own, which
// nobody can recover from, at every start. All blocks are read too, up to a bound, since a bad one ends an
// iteration as if there were no more keys.
func verify(dir string, o badger.Options, unclean bool) error {
	if err := dropDiscards(dir); err != nil {
		return err
	}
	manifest, err := readManifest(dir, o)
	if err != nil || manifest == nil {
		return err
	}
	var total int64
	for id := range manifest.Tables {
		if fi, err := os.Stat(table.NewFilename(id, dir)); err == nil {
			total += fi.Size()
		}
	}
	most := int64(deepBelow)
	if unclean {
		most = uncleanBelow
	}
	opts, done, err := tableOptions(dir, o)
	if err != nil {
		return err
	}
	defer done()
	for id, t := range manifest.Tables {
		own, err := opts(t.KeyID)
		if err == nil {
			err = verifyTable(table.NewFilename(id, dir), own, total < most)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// dropDiscards removes Badger's notes about garbage in the value logs if they are not as long as they begin: it would panic in a
// compaction. Without them it finds the garbage again.
func dropDiscards(dir string) error {
	path := filepath.Join(dir, "DISCARD")
	if fi, err := os.Stat(path); err != nil || fi.Size() >= 1<<20 {
		return nil //nolint:nilerr // there is none
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("removing %s, which is damaged and of no use: %w", path, err)
	}
	return nil
}

// tableOptions returns what tables are opened with, by the number of their data key, until done.
func tableOptions(dir string, o badger.Options) (opts func(key uint64) (table.Options, error), done func(), err error) {
	plain := table.Options{TableSize: uint64(o.BaseTableSize), BlockSize: o.BlockSize, BloomFalsePositive: o.BloomFalsePositive}
	if o.EncryptionKey == nil || !exists(filepath.Join(dir, registryName)) {
		return func(uint64) (table.Options, error) { return plain, nil }, func() {}, nil
	}
	reg, err := openRegistry(dir, o.EncryptionKey)
	if err != nil {
		return nil, nil, err
	}
	cache, err := ristretto.NewCache(&ristretto.Config[uint64, *fb.TableIndex]{NumCounters: 1000, MaxCost: o.IndexCacheSize, BufferItems: 64})
	if err != nil {
		return nil, nil, err
	}
	return func(id uint64) (table.Options, error) {
		key, err := reg.DataKey(id)
		if err != nil {
			return plain, fmt.Errorf("%w: %s: a table's key is gone: %w", ErrDamaged, dir, err)
		}
		own := plain
		own.DataKey, own.IndexCache = key, cache
		return own, nil
	}, func() { cache.Close(); _ = reg.Close() }, nil
}

// readManifest returns nil without an error for a directory that has no tables yet.
func readManifest(dir string, o badger.Options) (*badger.Manifest, error) {
	tables, err := filepath.Glob(filepath.Join(dir, "*.sst"))
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "MANIFEST")
	f, err := os.Open(path)
	switch {
	case os.IsNotExist(err) && len(tables) == 0:
		return nil, nil
	case os.IsNotExist(err):
		return nil, fmt.Errorf("%w: %s has %d tables and no manifest", ErrDamaged, dir, len(tables))
	case err != nil:
		return nil, explain(dir, err)
	}
	defer f.Close()
	if fi, err := f.Stat(); err == nil && fi.Size() == 0 && len(tables) == 0 {
		return nil, os.Remove(path) // the power failed while the store was being made
	}
	m, _, err := badger.ReplayManifestFile(f, 0, o)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrDamaged, path, err)
	}
	return &m, nil
}

func verifyTable(path string, o table.Options, deep bool) (err error) {
	// A hole in a mapped file is a fault, and Badger checks with panics.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %s cannot be read", ErrDamaged, path)
		}
	}()
	mf, err := z.OpenMmapFile(path, os.O_RDONLY, 0)
	if err != nil {
		return explain(filepath.Dir(path), err)
	}
	t, err := table.OpenTable(mf, o)
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrDamaged, path, err)
	}
	if deep {
		err = t.VerifyChecksum()
	}
	if closed := t.Close(-1); err == nil {
		err = closed
	}
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrDamaged, path, err)
	}
	return nil
}

// check reads all blocks of all tables. Badger checks with panics.
func (d *disk) check() (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %s: a table cannot be read", ErrDamaged, d.dir)
		}
	}()
	if err := d.db.VerifyChecksum(); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrDamaged, d.dir, err)
	}
	return nil
}
