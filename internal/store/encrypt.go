package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"unsafe"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/ristretto/v2/z"
)

// KeyBytes is the length of Options.Key.
const KeyBytes = 32

// ErrKey: the store is encrypted and this is not its key, or it is not encrypted and a key was given. Nothing is damaged.
var ErrKey = errors.New("the store cannot be read with this key")

// checkKey refuses a key of another length, and any on a machine where encrypted tables would be written wrong.
func checkKey(key []byte) error {
	switch {
	case key == nil:
		return nil
	case len(key) != KeyBytes:
		return fmt.Errorf("%w: it has %d bytes, and must have %d", ErrKey, len(key), KeyBytes)
	case strconv.IntSize == 32 && !allocatorGrows():
		return fmt.Errorf("%w: this build for 32-bit machines cannot encrypt; take one made with make cross, which mends a library for that", ErrKey)
	}
	return nil
}

// allocatorGrows says whether the allocator that Badger builds its tables from gives out new memory once it outgrows its first
// buffer. On 32 bits it does not unless the build mends it, and an encrypted table does outgrow it.
func allocatorGrows() bool {
	const piece, pieces = 1 << 10, 8
	a := z.NewAllocator(piece, "probe")
	defer a.Release()
	seen := map[*byte]bool{}
	for range pieces {
		p := unsafe.SliceData(a.Allocate(piece))
		if seen[p] {
			return false
		}
		seen[p] = true
	}
	return true
}

const (
	registryName = badger.KeyRegistryFileName
	registryIV   = 16
	registryText = "Hello Badger" // follows the IV: as it is in a plain store, encrypted in another
)

// registryPlain says whether the registry of data keys is there, and that of a store without a key.
func registryPlain(dir string) (there, plain bool) {
	b, err := os.ReadFile(filepath.Join(dir, registryName))
	if err != nil {
		return false, false
	}
	return true, len(b) >= registryIV+len(registryText) && string(b[registryIV:registryIV+len(registryText)]) == registryText
}

// encrypted says whether the logs of a store are: their first eight bytes are the number of a data key, 0 for none.
func encrypted(dir string) bool {
	for _, pattern := range []string{"*.vlog", "*.mem"} {
		names, _ := filepath.Glob(filepath.Join(dir, pattern))
		for _, name := range names {
			if f, err := os.Open(name); err == nil {
				var head [8]byte
				_, err = io.ReadFull(f, head[:])
				f.Close()
				if err == nil && binary.BigEndian.Uint64(head[:]) != 0 {
					return true
				}
			}
		}
	}
	return false
}

// matchKey makes sure, before Badger looks, that the key is the store's. If it is not, and old is, the store takes the key over. A
// registry that says nothing readable is worth nothing in a plain store: it is removed, and Badger makes another.
func matchKey(dir string, key, old []byte) error {
	there, plain := registryPlain(dir)
	switch {
	case !there, plain && key == nil:
		return nil
	case plain:
		return fmt.Errorf("%w: %s is not encrypted, and store.key_file is set; to encrypt it, take key_file out, perigee backup FILE, put key_file back, perigee restore --replace FILE",
			ErrKey, dir)
	case key == nil && !encrypted(dir):
		return os.Remove(filepath.Join(dir, registryName))
	case key == nil:
		return fmt.Errorf("%w: %s is encrypted, and no key is given: set store.key_file", ErrKey, dir)
	}
	reg, err := openRegistry(dir, key)
	if errors.Is(err, ErrKey) && old != nil {
		return rekey(dir, key, old)
	}
	if err == nil {
		_ = reg.Close()
	}
	return err
}

// openRegistry opens the data keys to read them.
func openRegistry(dir string, key []byte) (*badger.KeyRegistry, error) {
	reg, err := badger.OpenKeyRegistry(badger.KeyRegistryOptions{Dir: dir, ReadOnly: true, EncryptionKey: key})
	if errors.Is(err, badger.ErrEncryptionKeyMismatch) {
		return nil, fmt.Errorf("%w: %s was made with another one", ErrKey, dir)
	}
	if err != nil {
		return nil, explain(dir, err)
	}
	return reg, nil
}

// rekey encrypts the keys of the data anew. The data stays as it is, so that this takes a moment; a power cut leaves the store with one
// key or the other.
func rekey(dir string, key, old []byte) error {
	reg, err := openRegistry(dir, old)
	if err != nil {
		return err
	}
	defer reg.Close() //nolint:errcheck // it was only read
	if err := badger.WriteKeyRegistry(reg, badger.KeyRegistryOptions{Dir: dir, EncryptionKey: key}); err != nil {
		return fmt.Errorf("writing the keys of %s: %w", dir, err)
	}
	return nil
}
