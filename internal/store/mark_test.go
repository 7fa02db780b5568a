package store

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

// crashed copies the store's directory as the end of the process would leave it.
func crashed(t *testing.T, s *Store) string {
	t.Helper()
	require.NoError(t, s.Flush(context.Background()))
	dir := filepath.Join(t.TempDir(), "copy")
	require.NoError(t, os.CopyFS(dir, os.DirFS(s.dir)))
	return dir
}

func TestWhatWasWrittenLastIsMissed(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "data"), small())
	for i := range 10 {
		put(t, s, "a", strconv.Itoa(i))
		require.NoError(t, s.Flush(context.Background()))
	}
	for name, c := range map[string]struct {
		harm func(t *testing.T, dir string)
		lost bool
	}{
		"nothing": {func(*testing.T, string) {}, false},
		"no log": {func(t *testing.T, dir string) {
			require.NoError(t, os.Remove(glob(t, dir, "*.mem")[0]))
		}, true},
		"an empty log": {func(t *testing.T, dir string) {
			require.NoError(t, os.Truncate(glob(t, dir, "*.mem")[0], 0))
		}, true},
		"a log without its last byte": {func(t *testing.T, dir string) {
			mem := glob(t, dir, "*.mem")[0]
			b, err := os.ReadFile(mem)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(mem, b[:len(bytes.TrimRight(b, "\x00"))-1], 0o600))
		}, true},
		"no mark": {func(t *testing.T, dir string) {
			require.NoError(t, os.Remove(filepath.Join(dir, markName)))
		}, false},
		"a mark of zeroes": {func(t *testing.T, dir string) {
			require.NoError(t, os.WriteFile(filepath.Join(dir, markName), make([]byte, markSize), 0o600))
		}, false},
		"a mark of another store": {func(t *testing.T, dir string) {
			m := openMark(dir)
			m.write(newEpoch(), 1<<40)
			m.close()
		}, false},
		"no database": {func(t *testing.T, dir string) {
			require.NoError(t, os.RemoveAll(filepath.Join(dir, dataName)))
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := crashed(t, s)
			c.harm(t, dir)
			o := open(t, dir, small())
			require.Equal(t, c.lost, o.Stats().Lost != "", o.Stats().Lost)
			require.Equal(t, c.lost, o.Epoch() != s.Epoch())
			require.Empty(t, o.Stats().SetAside)
			put(t, o, "b", "1")
			epoch := o.Epoch()
			require.NoError(t, o.Close())
			o = open(t, dir, small())
			require.Empty(t, o.Stats().Lost, "it is said once")
			require.Equal(t, epoch, o.Epoch())
		})
	}
}

// TestDeletedAndForgottenIsNotMissed: compaction forgets deleted keys, and with them that there was such a version.
func TestDeletedAndForgottenIsNotMissed(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, small())
	put(t, s, "a", "1")
	require.NoError(t, s.Flush(context.Background()))
	for range 5 {
		require.NoError(t, s.Update(func(tx Tx) error { tx.Delete(NewKey(State).String("a")); return nil }))
		require.NoError(t, s.Flush(context.Background()))
	}
	require.NoError(t, s.Close())
	s = open(t, dir, small())
	require.NoError(t, s.disk.flatten())
	require.NoError(t, s.Close())
	s = open(t, dir, small())
	require.Empty(t, s.Stats().Lost)
}

func TestADamagedValueLogIsAnError(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	s := open(t, dir, small())
	put(t, s, "long", string(bytes.Repeat([]byte("x"), 4*valueThreshold)))
	put(t, s, "short", "1")
	copied := crashed(t, s)
	vlog := glob(t, copied, "*.vlog")[0]
	b, err := os.ReadFile(vlog)
	require.NoError(t, err)
	clear(b[100:])
	require.NoError(t, os.WriteFile(vlog, b, 0o600))
	o := open(t, copied, small())
	require.NoError(t, o.View(func(r Reader) error {
		_, _, err := r.Get(NewKey(State).String("long"))
		require.ErrorIs(t, err, ErrDamaged)
		require.ErrorIs(t, r.Scan(NewKey(State), nil, func(_, _ []byte) bool { return true }), ErrDamaged)
		return nil
	}))
	v, ok := get(t, o, "short")
	require.True(t, ok)
	require.Equal(t, "1", v)
}

func TestABlockOfZeroesIsDamage(t *testing.T) {
	dir := filled(t, false)
	table := glob(t, dir, "*.sst")[0]
	f, err := os.OpenFile(table, os.O_RDWR, 0)
	require.NoError(t, err)
	_, err = f.WriteAt(make([]byte, 4096), 0)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	_, err = Open(dir, small())
	require.ErrorIs(t, err, ErrDamaged)
}

// Badger panics in a goroutine of its own over notes about garbage that are cut off.
func TestNotesAboutGarbageAreNotNeeded(t *testing.T) {
	for _, size := range []int64{0, 1, 8, 16, 1000} {
		dir := filled(t, true)
		path := filepath.Join(dir, dataName, "DISCARD")
		require.NoError(t, os.Truncate(path, size))
		s := open(t, dir, small())
		require.Len(t, scan(t, s, NewKey(State), nil), 1001)
		fi, err := os.Stat(path)
		require.NoError(t, err)
		require.GreaterOrEqual(t, fi.Size(), int64(1<<20))
		require.NoError(t, s.disk.flatten())
	}
}
