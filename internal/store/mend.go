package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"runtime/debug"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
	"github.com/dgraph-io/badger/v4/pb"
	"github.com/dgraph-io/badger/v4/table"
	"github.com/dgraph-io/badger/v4/y"
	"github.com/dgraph-io/ristretto/v2/z"
	"google.golang.org/protobuf/proto"
)

const (
	badSuffix    = ".bad"  // of a table as it was found
	mendedSuffix = ".made" // of one that is being written
	maxDataKeys  = 64      // numbers of data keys that are tried if the manifest is gone
)

// mend makes a database that Badger can open out of a damaged one: tables with bad blocks are written anew without those, tables that
// cannot be read at all are left out, and the manifest lists what there is. It returns how many tables were damaged.
func mend(dir string, o badger.Options) (bad int, err error) {
	manifest, err := readManifest(dir, o)
	if err != nil && !errors.Is(err, ErrDamaged) {
		return 0, err
	}
	opts, done, err := tableOptions(dir, o)
	if err != nil {
		return 0, err
	}
	defer done()
	names, err := filepath.Glob(filepath.Join(dir, "*.sst"))
	if err != nil {
		return 0, err
	}
	var set pb.ManifestChangeSet
	for _, name := range names {
		id, ok := table.ParseFileID(name)
		if !ok {
			continue
		}
		keys := []uint64{0}
		if manifest != nil {
			t, listed := manifest.Tables[id]
			if !listed { // it was compacted away
				continue
			}
			keys[0] = t.KeyID
		} else if o.EncryptionKey != nil {
			for n := range uint64(maxDataKeys) {
				keys = append(keys, n+1)
			}
		}
		key, whole, err := mendTable(name, keys, opts)
		if err != nil {
			return 0, err
		}
		if !whole {
			bad++
		}
		if exists(name) {
			set.Changes = append(set.Changes, &pb.ManifestChange{Id: id, Op: pb.ManifestChange_CREATE, KeyId: key, EncryptionAlgo: pb.EncryptionAlgo_aes})
		}
	}
	if manifest != nil {
		bad += missing(manifest, dir)
	}
	// What Badger has counted of garbage is of no use here, and may be damaged too.
	if err := os.Remove(filepath.Join(dir, "DISCARD")); err != nil && !os.IsNotExist(err) {
		return 0, err
	}
	return bad, writeManifest(dir, &set)
}

// missing counts tables of which there is no file.
func missing(m *badger.Manifest, dir string) (n int) {
	for id := range m.Tables {
		if name := table.NewFilename(id, dir); !exists(name) && !exists(name+badSuffix) {
			n++
		}
	}
	return n
}

// mendTable makes a table readable, or takes it away. It returns the number of its data key, one of keys, and whether it was whole.
func mendTable(name string, keys []uint64, opts func(uint64) (table.Options, error)) (key uint64, whole bool, err error) {
	for _, key := range keys {
		o, err := opts(key)
		if err != nil {
			continue
		}
		if verifyTable(name, o, true) == nil {
			return key, true, nil
		}
	}
	for _, key := range keys {
		o, err := opts(key)
		if err != nil {
			continue
		}
		data := rebuild(name, o)
		if data == nil {
			continue
		}
		if err := replaceTable(name, data); err != nil {
			return 0, false, err
		}
		return key, false, nil
	}
	return 0, false, os.Rename(name, name+badSuffix)
}

func replaceTable(name string, data []byte) error {
	made := name + mendedSuffix
	err := os.WriteFile(made, data, 0o600)
	if err == nil {
		err = os.Rename(name, name+badSuffix)
	}
	if err == nil {
		err = os.Rename(made, name)
	}
	if err != nil {
		return fmt.Errorf("mending %s: %w", name, err)
	}
	return nil
}

// rebuild returns a table of the blocks that can be read; nil if there are none.
func rebuild(name string, o table.Options) (data []byte) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if recover() != nil {
			data = nil
		}
	}()
	mf, err := z.OpenMmapFile(name, os.O_RDONLY, 0)
	if err != nil {
		return nil
	}
	o.ChkMode = options.OnBlockRead
	t, err := table.OpenTable(mf, o)
	if err != nil {
		return nil
	}
	defer t.Close(-1) //nolint:errcheck // it was only read
	build := table.NewTableBuilder(o)
	defer build.Close()
	starts := t.KeySplits(1<<30, nil)
	for i := range starts {
		for _, e := range block(t, starts, i) {
			build.Add(e.key, e.value, uint32(len(e.value.Value)))
		}
	}
	if build.Empty() {
		build.Done() // it has goroutines if the table is encrypted
		return nil
	}
	return build.Finish()
}

type tableEntry struct {
	key   []byte
	value y.ValueStruct
}

// block returns the entries of a block, none if it cannot be read. Badger looks into blocks before it compares their checksums.
func block(t *table.Table, starts []string, i int) (out []tableEntry) {
	it := t.NewIterator(0)
	defer it.Close() //nolint:errcheck // it was only read
	defer func() {
		if recover() != nil {
			out = nil
		}
	}()
	for it.Seek([]byte(starts[i])); it.Valid(); it.Next() {
		if i+1 < len(starts) && y.CompareKeys(it.Key(), []byte(starts[i+1])) >= 0 {
			break
		}
		out = append(out, tableEntry{y.Copy(it.Key()), it.ValueCopy()})
	}
	return out
}

// writeManifest writes a manifest as Badger does.
func writeManifest(dir string, set *pb.ManifestChangeSet) error {
	changes, err := proto.Marshal(set)
	if err != nil {
		return err
	}
	b := append([]byte("Bdgr"), 0, 0, 0, 8)
	b = binary.BigEndian.AppendUint32(b, uint32(len(changes)))
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(changes, crc32.MakeTable(crc32.Castagnoli)))
	path := filepath.Join(dir, badger.ManifestFilename)
	if exists(path) {
		if err := os.Rename(path, path+badSuffix); err != nil {
			return err
		}
	}
	return os.WriteFile(path, append(b, changes...), 0o600)
}
