package catalog

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"

	"github.com/perigee-iot/perigee/internal/store"
	"github.com/perigee-iot/perigee/internal/wire"
)

// Bounds of a bundle. One that keeps them always fits a transaction of the store.
const (
	MaxBytes = 512 << 10 // of all contents and paths
	MaxFiles = 256
)

func revisionKey(digest string) store.Key {
	return store.NewKey(store.Catalog).String(tagRevision).String(digest)
}

// putFiles keeps a revision's files, unless they are there already and in order.
func putFiles(tx store.Tx, digest string, files map[string][]byte) error {
	if _, err := Files(tx, digest); err == nil {
		return nil
	}
	total := 0
	paths := make([]string, 0, len(files))
	for path, content := range files {
		if path == "" || strings.HasPrefix(path, "/") {
			return fmt.Errorf("a bundle with the path %q %w", path, ErrBounds)
		}
		total += len(path) + len(content)
		paths = append(paths, path)
	}
	if len(files) == 0 || len(files) > MaxFiles || total > MaxBytes {
		return fmt.Errorf("a bundle of %d files and %d bytes %w: 1 to %d files and %d bytes fit",
			len(files), total, ErrBounds, MaxFiles, MaxBytes)
	}
	slices.Sort(paths)
	w := wire.NewWriter(make([]byte, sha256.Size, sha256.Size+total+16*len(files)+16))
	w.Uint(uint64(len(paths)))
	for _, path := range paths {
		w.String(path)
		w.Bytes(append([]byte{}, files[path]...)) // nil and empty are the same here
	}
	b := w.Data()
	sum := sha256.Sum256(b[sha256.Size:])
	copy(b, sum[:])
	tx.Put(revisionKey(digest), b)
	return nil
}

// Files returns a revision's files by path; they are the caller's. It returns an error that wraps ErrNotFound, or store.ErrDamaged if
// they are not what was kept.
func Files(r store.Reader, digest string) (map[string][]byte, error) {
	b, ok, err := r.Get(revisionKey(digest))
	if err != nil {
		return nil, fmt.Errorf("revision %.12s: %w: apply the function again", digest, err)
	}
	if !ok {
		return nil, fmt.Errorf("revision %.12s is %w", digest, ErrNotFound)
	}
	if len(b) < sha256.Size || sha256.Sum256(b[sha256.Size:]) != [sha256.Size]byte(b[:sha256.Size]) {
		return nil, damaged(digest, "its files are not those that were kept")
	}
	in := wire.NewReader(bytes.Clone(b[sha256.Size:]))
	n := in.Count(MaxFiles)
	files := make(map[string][]byte, n)
	for range n {
		path := in.String()
		files[path] = in.Bytes()
	}
	if err := in.Done(); err != nil {
		return nil, damaged(digest, err.Error())
	}
	return files, nil
}

func damaged(digest, what string) error {
	return fmt.Errorf("revision %.12s: %w: %s: apply the function again", digest, store.ErrDamaged, what)
}

// forget removes those of the revisions that no function has.
func forget(tx store.Tx, digests []string) error {
	if len(digests) == 0 {
		return nil
	}
	used, err := used(tx)
	if err != nil {
		return nil //nolint:nilerr // a damaged entry may have them: Sweep gets them once it is mended
	}
	for _, d := range digests {
		if !used[d] {
			tx.Delete(revisionKey(d))
		}
	}
	return nil
}

// Sweep removes every revision that no function has. Put, Rollback and Remove leave none, unless an entry was damaged. While
// one is, Sweep does nothing.
func Sweep(tx store.Tx) error {
	used, err := used(tx)
	if err != nil {
		return nil //nolint:nilerr // as in forget
	}
	var bad error
	err = tx.Scan(store.NewKey(store.Catalog).String(tagRevision), nil, func(key, _ []byte) bool {
		f := store.Parse(key)
		_ = f.String()
		if d := f.String(); f.Err() == nil && !used[d] {
			tx.Delete(key)
		}
		bad = f.Err()
		return bad == nil
	})
	if err == nil {
		err = bad
	}
	return err
}

func used(r store.Reader) (map[string]bool, error) {
	all, err := List(r)
	if err != nil {
		return nil, err
	}
	used := map[string]bool{}
	for _, e := range all {
		for _, d := range e.revisions() {
			used[d] = true
		}
	}
	return used, nil
}
