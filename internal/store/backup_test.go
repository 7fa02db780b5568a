package store

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/internal/backup"
)

func secret(b byte) []byte { return bytes.Repeat([]byte{b}, KeyBytes) }

func save(t testing.TB, s *Store) []byte {
	t.Helper()
	var out bytes.Buffer
	sum, err := s.Backup(context.Background(), &out, backup.Header{Gateway: "gw-01"})
	require.NoError(t, err)
	require.Equal(t, s.Epoch(), sum.Epoch)
	require.Equal(t, uint32(schema), sum.Schema)
	return out.Bytes()
}

// everything is all that a store has but what is its own.
func everything(t testing.TB, s *Store) map[string]string {
	t.Helper()
	out := map[string]string{}
	require.NoError(t, s.View(func(r Reader) error {
		return r.Scan(nil, nil, func(k, v []byte) bool {
			if string(k) != string(epochKey) {
				out[string(k)] = string(v)
			}
			return true
		})
	}))
	return out
}

// rich fills a store over several tables, with values in the value log, keys that were deleted and an update that is not on the disk yet.
func rich(t testing.TB, s *Store) {
	t.Helper()
	for i := range 200 {
		require.NoError(t, s.Update(func(tx Tx) error {
			for j := range 20 {
				tx.Put(NewKey(State).String("f").Uint(uint64(i*20+j)), bytes.Repeat([]byte{byte(j)}, 50+j*20))
			}
			tx.Put(NewKey(Catalog).Uint(uint64(i)), bytes.Repeat([]byte{byte(i)}, 4000))
			if i > 10 {
				tx.Delete(NewKey(State).String("f").Uint(uint64((i - 10) * 20)))
			}
			return nil
		}))
	}
}

func TestBackupAndRestore(t *testing.T) {
	for name, c := range map[string]struct{ from, to []byte }{
		"plain": {nil, nil}, "encrypted": {secret(1), secret(1)}, "to another key": {secret(1), secret(2)},
		"plain to encrypted": {nil, secret(2)}, "encrypted to plain": {secret(1), nil},
	} {
		t.Run(name, func(t *testing.T) {
			if strconvIntSize32() && (c.from != nil || c.to != nil) {
				t.Log("encryption needs the mended build here")
				return
			}
			from := small()
			from.Key, from.Durability = c.from, Crash
			s := open(t, t.TempDir(), from)
			rich(t, s)
			file, want := save(t, s), everything(t, s)
			require.Equal(t, c.from == nil, bytes.Contains(file, bytes.Repeat([]byte{77}, 500)), "what can be read in the file")

			to := RestoreOptions{Options: small(), FileKey: c.from}
			to.Key = c.to
			dir := filepath.Join(t.TempDir(), "new")
			var last, of int64
			to.OnProgress = func(done, all int64) { require.GreaterOrEqual(t, done, last); last, of = done, all }
			got, err := Restore(context.Background(), dir, to, bytes.NewReader(file))
			require.NoError(t, err)
			require.Equal(t, int64(2*len(file)), of)
			require.Empty(t, got.Replaced)
			require.Equal(t, int64(len(want)+1), got.Keys)
			require.NotEqual(t, s.Epoch(), got.NewEpoch)
			restored := open(t, dir, to.Options)
			require.Equal(t, got.NewEpoch, restored.Epoch())
			require.Equal(t, want, everything(t, restored))
			require.True(t, restored.Stats().Unclean, "so that digests are looked at")
			put(t, restored, "goes", "on")
			if c.to != nil {
				require.NoError(t, restored.Close())
				requireHidden(t, dir, bytes.Repeat([]byte{77}, 500))
			}
		})
	}
}

func strconvIntSize32() bool { return strconv.IntSize == 32 && !allocatorGrows() }

// requireHidden looks for bytes in all files.
func requireHidden(t testing.TB, dir string, what []byte) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		require.False(t, bytes.Contains(b, what), "%s", path)
		return err
	}))
}

// TestBackupIsOneMoment takes backups while pairs of keys change together.
func TestBackupIsOneMoment(t *testing.T) {
	o := small()
	o.Durability, o.Linger = Crash, -1
	s := open(t, t.TempDir(), o)
	stop, stopped := make(chan struct{}), make(chan error, 1)
	go func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				stopped <- nil
				return
			default:
			}
			err := s.Update(func(tx Tx) error {
				v := []byte(strconv.Itoa(i))
				tx.Put(NewKey(Catalog).String("left"), v)
				tx.Put(NewKey(State).String("right"), v)
				tx.Put(NewKey(Streams).Uint(uint64(i%5000)), bytes.Repeat(v, 40))
				return nil
			})
			if err != nil {
				stopped <- err
				return
			}
		}
	}()
	for range 4 {
		r, err := backup.NewReader(bytes.NewReader(save(t, s)), nil)
		require.NoError(t, err)
		found := map[string]string{}
		for {
			k, v, err := r.Next()
			if err != nil {
				break
			}
			found[string(k)] = string(v)
		}
		require.Equal(t, found[string(NewKey(Catalog).String("left"))], found[string(NewKey(State).String("right"))])
	}
	close(stop)
	require.NoError(t, <-stopped)
}

func TestBackupEndsWithItsContext(t *testing.T) {
	s := open(t, t.TempDir(), small())
	rich(t, s)
	ctx, cancel := context.WithCancel(context.Background())
	_, err := s.Backup(ctx, writerFunc(func(p []byte) (int, error) { cancel(); return len(p), nil }), backup.Header{})
	require.ErrorIs(t, err, context.Canceled)
	full := errors.New("no room")
	_, err = s.Backup(context.Background(), writerFunc(func([]byte) (int, error) { return 0, full }), backup.Header{})
	require.ErrorIs(t, err, full)
	require.NoError(t, s.Close())
	_, err = s.Backup(context.Background(), &bytes.Buffer{}, backup.Header{})
	require.ErrorIs(t, err, ErrClosed)
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// TestBackupNoticesDamage: what Badger would leave out without a word.
func TestBackupNoticesDamage(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, small())
	rich(t, s)
	require.NoError(t, s.Close())
	s = open(t, dir, small())
	name := glob(t, dir, "*.sst")[0]
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	require.NoError(t, err)
	_, err = f.WriteAt(make([]byte, 4096), 8192)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	_, err = s.Backup(context.Background(), &bytes.Buffer{}, backup.Header{})
	require.ErrorIs(t, err, ErrDamaged)
}

func TestRestoreTouchesNothingItShouldNot(t *testing.T) {
	s := open(t, t.TempDir(), small())
	put(t, s, "a", "1")
	file := save(t, s)
	restore := func(dir string, file []byte, o RestoreOptions) (Restored, error) {
		o.Options = small()
		return Restore(context.Background(), dir, o, bytes.NewReader(file))
	}

	// A damaged file: not even the directory is made.
	dir := filepath.Join(t.TempDir(), "data")
	_, err := restore(dir, file[:len(file)-1], RestoreOptions{})
	require.ErrorIs(t, err, backup.ErrDamaged)
	require.NoDirExists(t, dir)
	_, err = restore(dir, []byte("hello"), RestoreOptions{})
	require.ErrorIs(t, err, backup.ErrNotBackup)

	// A gateway that runs.
	there := open(t, dir, small())
	put(t, there, "b", "2")
	_, err = restore(dir, file, RestoreOptions{Replace: true})
	require.ErrorIs(t, err, ErrLocked)
	require.NoError(t, there.Close())

	// A store that is there.
	_, err = restore(dir, file, RestoreOptions{})
	require.ErrorIs(t, err, ErrExists)
	there = open(t, dir, small())
	require.False(t, there.Stats().Unclean)
	require.Equal(t, []string{"b=2"}, scan(t, there, NewKey(State), nil))
	require.NoError(t, there.Close())

	got, err := restore(dir, file, RestoreOptions{Replace: true})
	require.NoError(t, err)
	require.Equal(t, filepath.Join(dir, replacedName), got.Replaced)
	require.DirExists(t, got.Replaced)
	require.NoDirExists(t, filepath.Join(dir, restoringName))
	there = open(t, dir, small())
	require.Equal(t, []string{"a=1"}, scan(t, there, NewKey(State), nil))
	require.NoError(t, there.Close())

	// Not a store's backup, though whole; and one of a newer version.
	_, err = restore(t.TempDir(), archive(t, map[string]string{"x": "y"}, 1), RestoreOptions{})
	require.ErrorIs(t, err, backup.ErrDamaged)
	_, err = restore(t.TempDir(), archive(t, map[string]string{"x": "y"}, schema+1), RestoreOptions{})
	require.ErrorIs(t, err, ErrNewer)

	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = Restore(ctx, t.TempDir(), RestoreOptions{Options: small()}, bytes.NewReader(file))
	require.ErrorIs(t, err, context.Canceled)

	o := small()
	o.MinFree = 1 << 60
	_, err = Restore(context.Background(), t.TempDir(), RestoreOptions{Options: o}, bytes.NewReader(file))
	require.ErrorIs(t, err, ErrFull)
}

func archive(t testing.TB, entries map[string]string, version uint32) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := backup.NewWriter(&out, backup.Header{Schema: version}, nil, func(byte) string { return "" })
	require.NoError(t, err)
	for k, v := range entries {
		require.NoError(t, w.Add([]byte(k), []byte(v)))
	}
	_, err = w.Close()
	require.NoError(t, err)
	return out.Bytes()
}

// TestRestoreInterrupted: a power cut at each of the steps that change the directory.
func TestRestoreInterrupted(t *testing.T) {
	s := open(t, t.TempDir(), small())
	put(t, s, "new", "1")
	file := save(t, s)
	made := func(t *testing.T) string {
		dir := t.TempDir()
		_, err := Restore(context.Background(), dir, RestoreOptions{Options: small()}, bytes.NewReader(file))
		require.NoError(t, err)
		return filepath.Join(dir, dataName)
	}
	for name, c := range map[string]struct {
		prepare func(t *testing.T, dir string)
		want    string
	}{
		"while it is written": {func(t *testing.T, dir string) {
			require.NoError(t, os.Rename(made(t), filepath.Join(dir, restoringName)))
		}, "old=1"},
		"before the old one is moved": {func(t *testing.T, dir string) {
			require.NoError(t, os.Rename(made(t), filepath.Join(dir, restoredName)))
		}, "old=1"},
		"after the old one is moved": {func(t *testing.T, dir string) {
			require.NoError(t, os.Rename(made(t), filepath.Join(dir, restoredName)))
			require.NoError(t, os.Rename(filepath.Join(dir, dataName), filepath.Join(dir, replacedName)))
		}, "new=1"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir, small())
			put(t, s, "old", "1")
			require.NoError(t, s.Close())
			c.prepare(t, dir)
			s = open(t, dir, small())
			require.Equal(t, []string{c.want}, scan(t, s, NewKey(State), nil))
			require.NoDirExists(t, filepath.Join(dir, restoringName))
			require.NoDirExists(t, filepath.Join(dir, restoredName))
		})
	}
}
