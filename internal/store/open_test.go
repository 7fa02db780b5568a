package store

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// filled makes a store with a thousand keys in tables and some more in the log, and closes it, or leaves it as a crash would.
func filled(t *testing.T, crash bool) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "data")
	s := open(t, dir, small())
	for i := range 1000 {
		put(t, s, strconv.Itoa(i), "value")
	}
	require.NoError(t, s.Close())
	if !crash {
		return dir
	}
	s = open(t, dir, small())
	put(t, s, "last", "value")
	require.NoError(t, s.Flush(context.Background()))
	copied := filepath.Join(t.TempDir(), "copy")
	require.NoError(t, os.CopyFS(copied, os.DirFS(dir)))
	require.NoError(t, s.Close())
	return copied
}

func glob(t *testing.T, dir, pattern string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, dataName, pattern))
	require.NoError(t, err)
	return names
}

func TestOpenAfterCrash(t *testing.T) {
	for name, harm := range map[string]func(t *testing.T, dir string){
		"as it was": func(*testing.T, string) {},
		"an empty memtable": func(t *testing.T, dir string) {
			require.NoError(t, os.WriteFile(filepath.Join(dir, dataName, "00009.mem"), nil, 0o600))
		},
		"an empty value log": func(t *testing.T, dir string) {
			require.NoError(t, os.WriteFile(filepath.Join(dir, dataName, "000009.vlog"), nil, 0o600))
		},
		"a torn memtable": func(t *testing.T, dir string) {
			mem := glob(t, dir, "*.mem")[0]
			f, err := os.OpenFile(mem, os.O_RDWR, 0)
			require.NoError(t, err)
			defer f.Close()
			// Behind what was written there are zeroes: begin an entry that has no end.
			b, err := os.ReadFile(mem)
			require.NoError(t, err)
			end := len(b)
			for end > 0 && b[end-1] == 0 {
				end--
			}
			_, err = f.WriteAt([]byte{0x40, 0, 20, 20, 0, 'x', 'y'}, int64(end))
			require.NoError(t, err)
		},
		"locks of the dead": func(t *testing.T, dir string) {
			require.NoError(t, os.WriteFile(filepath.Join(dir, lockName), []byte("999999\n"), 0o600))
			require.NoError(t, os.WriteFile(filepath.Join(dir, dataName, "LOCK"), []byte("999999\n"), 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filled(t, true)
			harm(t, dir)
			o := small()
			o.SetAside = true
			s := open(t, dir, o)
			require.Empty(t, s.Stats().SetAside)
			require.Len(t, scan(t, s, NewKey(State), nil), 1001)
			_, ok := get(t, s, "last")
			require.True(t, ok)
		})
	}
}

func TestOpenDamaged(t *testing.T) {
	for name, harm := range map[string]func(t *testing.T, dir string){
		"no manifest": func(t *testing.T, dir string) {
			require.NoError(t, os.Remove(filepath.Join(dir, dataName, "MANIFEST")))
		},
		"an empty manifest": func(t *testing.T, dir string) {
			require.NoError(t, os.Truncate(filepath.Join(dir, dataName, "MANIFEST"), 0))
		},
		"a foreign manifest": func(t *testing.T, dir string) {
			require.NoError(t, os.WriteFile(filepath.Join(dir, dataName, "MANIFEST"), []byte("hello, this is not it"), 0o600))
		},
		"a table is gone": func(t *testing.T, dir string) {
			require.NoError(t, os.Remove(glob(t, dir, "*.sst")[0]))
		},
		"a table is short": func(t *testing.T, dir string) {
			require.NoError(t, os.Truncate(glob(t, dir, "*.sst")[0], 100))
		},
		"a table is zeroes": func(t *testing.T, dir string) {
			name := glob(t, dir, "*.sst")[0]
			fi, err := os.Stat(name)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(name, make([]byte, fi.Size()), 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filled(t, false)
			harm(t, dir)
			_, err := Open(dir, small())
			require.ErrorIs(t, err, ErrDamaged)

			o := small()
			o.SetAside = true
			s := open(t, dir, o)
			require.Equal(t, filepath.Join(dir, asideName), s.Stats().SetAside)
			require.DirExists(t, s.Stats().SetAside)
			require.NoError(t, s.Stats().Salvaged.Err)
			found := scan(t, s, NewKey(State), nil)
			require.Len(t, found, int(s.Stats().Salvaged.Keys))
			for _, e := range found {
				require.True(t, strings.HasSuffix(e, "=value"), e)
			}
			put(t, s, "a", "1")
			epoch := s.Epoch()
			require.NoError(t, s.Close())
			s = open(t, dir, o)
			require.Empty(t, s.Stats().SetAside)
			require.Equal(t, epoch, s.Epoch())
			require.Len(t, scan(t, s, NewKey(State), nil), len(found)+1)
		})
	}
}

func TestOpenWithoutItsOwnRecords(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, small())
	put(t, s, "a", "1")
	require.NoError(t, s.Update(func(tx Tx) error { tx.Delete(schemaKey); return nil }))
	require.NoError(t, s.Close())
	_, err := Open(dir, small())
	require.ErrorIs(t, err, ErrDamaged)
}

func TestOpenNewer(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, small())
	require.NoError(t, s.Update(func(tx Tx) error {
		tx.Put(schemaKey, binary.BigEndian.AppendUint32(nil, schema+1))
		return nil
	}))
	require.NoError(t, s.Close())
	o := small()
	o.SetAside = true
	_, err := Open(dir, o)
	require.ErrorIs(t, err, ErrNewer)
	require.NoDirExists(t, filepath.Join(dir, asideName), "it is not damaged")
}

func TestOpenLocked(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, small())
	_, err := Open(dir, small())
	require.ErrorIs(t, err, ErrLocked)
	require.ErrorContains(t, err, "process "+strconv.Itoa(os.Getpid()))
	require.ErrorContains(t, err, "stop that one first")
	require.NoError(t, s.Close())
	require.NoError(t, s.Close(), "twice is fine")
	require.ErrorIs(t, s.View(func(Reader) error { return nil }), ErrClosed)
	require.ErrorIs(t, s.Update(func(Tx) error { return nil }), ErrClosed)
	open(t, dir, small())

	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	_, err = Open(file, small())
	require.ErrorContains(t, err, "is a file: name a directory")

	// Badger's own lock, held by a program that knows nothing of ours.
	dir = t.TempDir()
	o, err := small().withDefaults()
	require.NoError(t, err)
	d, err := openDisk(filepath.Join(dir, dataName), profile(profileSmall, filepath.Join(dir, dataName), nil, o.Log))
	require.NoError(t, err)
	o.SetAside = true
	_, err = Open(dir, o)
	require.ErrorIs(t, err, ErrLocked)
	require.NoError(t, d.close())
}

// TestOpenForeign runs this test once more as nobody, which may not use the directory.
func TestOpenForeign(t *testing.T) {
	if dir := os.Getenv("STORE_FOREIGN"); dir != "" {
		_, err := Open(dir, small())
		require.ErrorIs(t, err, os.ErrPermission)
		require.ErrorContains(t, err, "belongs to uid 0")
		require.ErrorContains(t, err, "uid 65534")
		require.Equal(t, 1, strings.Count(err.Error(), "permission denied"), "%v", err)
		return
	}
	dir := t.TempDir()
	if os.Getuid() != 0 { // then taking our own rights away has the same effect
		require.NoError(t, os.Chmod(dir, 0))
		defer os.Chmod(dir, 0o700)
		_, err := Open(dir, small())
		require.ErrorIs(t, err, os.ErrPermission)
		require.ErrorContains(t, err, "belongs to uid")
		require.Equal(t, 1, strings.Count(err.Error(), "permission denied"), "%v", err)
		return
	}
	// Nobody must be able to come as far as the directory, and to run this program.
	base, err := os.MkdirTemp("", "store")
	require.NoError(t, err)
	defer os.RemoveAll(base)
	require.NoError(t, os.Chmod(base, 0o755))
	self, err := os.ReadFile("/proc/self/exe")
	require.NoError(t, err)
	program := filepath.Join(base, "test")
	require.NoError(t, os.WriteFile(program, self, 0o755))
	s := open(t, filepath.Join(base, "data"), small())
	require.NoError(t, s.Close())
	cmd := exec.Command(program, "-test.run=^TestOpenForeign$")
	cmd.Dir = base
	cmd.Env = append(os.Environ(), "STORE_FOREIGN="+filepath.Join(base, "data"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
}

// Badger says the reason without wrapping it.
func TestPermissionIsSaidOnce(t *testing.T) {
	err := explain("/data", errors.New("while opening vlog: open /data/1.vlog: permission denied"))
	require.ErrorIs(t, err, os.ErrPermission)
	require.Equal(t, 1, strings.Count(err.Error(), "permission denied"), "%v", err)
}

func TestOpenRefusesAnUnknownProfile(t *testing.T) {
	_, err := Open(t.TempDir(), Options{Profile: "huge"})
	require.ErrorContains(t, err, `"huge"`)
	require.Contains(t, []string{profileSmall, profileNormal}, autoProfile())
}

// TestRealFullDisk fills a small file system: a Badger that writes to a full one dies of SIGBUS, so this one must stop before.
func TestRealFullDisk(t *testing.T) {
	if os.Getuid() != 0 {
		t.Log("only root can mount a file system: TestFullDiskRefusesWhatAdds has the rest")
		return
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=48m"); err != nil {
		t.Logf("cannot mount a tmpfs here (%v): TestFullDiskRefusesWhatAdds has the rest", err)
		return
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
	o := small()
	o.MinFree = 16 << 20
	data := filepath.Join(dir, "data")
	s := open(t, data, o)
	require.FileExists(t, filepath.Join(data, ballastName))
	value := make([]byte, 900)
	n := 0
	var err error
	for ; err == nil && n < 100_000; n++ {
		err = s.Update(func(tx Tx) error { tx.Put(NewKey(Inbox).Uint(uint64(n)), value); return nil })
		if n%100 == 0 && err == nil {
			err = s.Flush(context.Background())
		}
	}
	require.ErrorIs(t, err, ErrFull)
	require.Greater(t, n, 5000)
	require.NoError(t, s.Flush(context.Background()))

	// Somebody else takes the rest: nothing can be written, and nobody dies, unless Badger is just writing a table, which
	// nothing can prevent. So let it finish.
	require.NoError(t, s.disk.flatten())
	hog, err := os.Create(filepath.Join(dir, "hog"))
	require.NoError(t, err)
	t.Cleanup(func() { os.Remove(hog.Name()) })
	block := make([]byte, 64<<10)
	for err == nil {
		_, err = hog.Write(block)
	}
	require.NoError(t, s.Update(func(tx Tx) error { tx.Delete(NewKey(Inbox).Uint(0)); return nil }))
	err = s.Flush(context.Background())
	require.NoFileExists(t, filepath.Join(data, ballastName), "it was given back")
	if err != nil {
		require.ErrorIs(t, err, ErrFull)
	}
	for err = nil; err == nil; {
		_, err = hog.Write(block)
	}
	require.ErrorIs(t, s.Close(), ErrFull)
	_, err = Open(data, o)
	require.ErrorIs(t, err, ErrFull)

	// With space again, all is well.
	require.NoError(t, hog.Close())
	require.NoError(t, os.Remove(hog.Name()))
	require.NoError(t, s.disk.close()) // as the end of the process would
	o.MinFree = 1 << 20
	s = open(t, data, o)
	got := 0
	require.NoError(t, s.View(func(r Reader) error {
		return r.Scan(NewKey(Inbox), nil, func(_, _ []byte) bool { got++; return true })
	}))
	require.InDelta(t, n, got, 2)
	put(t, s, "a", "1")
	require.NoError(t, s.Flush(context.Background()))
}
