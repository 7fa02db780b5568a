package store

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// zero writes a block of zeroes into a file.
func zero(t testing.TB, name string, at int64) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	require.NoError(t, err)
	_, err = f.WriteAt(make([]byte, 4096), at)
	require.NoError(t, err)
	require.NoError(t, f.Close())
}

// largest is the largest table: the one with most of the keys.
func largest(t *testing.T, dir string) string {
	t.Helper()
	name, size := "", int64(0)
	for _, n := range glob(t, dir, "*.sst") {
		fi, err := os.Stat(n)
		require.NoError(t, err)
		if fi.Size() > size {
			name, size = n, fi.Size()
		}
	}
	return name
}

func TestSalvage(t *testing.T) {
	for name, c := range map[string]struct {
		harm   func(t *testing.T, dir string)
		least  float64 // of the keys
		tables int
	}{
		"a block of zeroes": {func(t *testing.T, dir string) { zero(t, largest(t, dir), 128<<10) }, 0.98, 1},
		"the first block":   {func(t *testing.T, dir string) { zero(t, largest(t, dir), 0) }, 0.9, 1},
		"two blocks":        {func(t *testing.T, dir string) { zero(t, largest(t, dir), 64<<10); zero(t, largest(t, dir), 192<<10) }, 0.97, 1},
		"no manifest": {func(t *testing.T, dir string) {
			require.NoError(t, os.Remove(filepath.Join(dir, dataName, "MANIFEST")))
		}, 1, 0},
		"a manifest of zeroes":   {func(t *testing.T, dir string) { zero(t, filepath.Join(dir, dataName, "MANIFEST"), 0) }, 1, 0},
		"a table without an end": {func(t *testing.T, dir string) { require.NoError(t, os.Truncate(largest(t, dir), 300_000)) }, 0, 1},
		"a table that is gone":   {func(t *testing.T, dir string) { require.NoError(t, os.Remove(largest(t, dir))) }, 0, 1},
		"no manifest and a block of zeroes": {func(t *testing.T, dir string) {
			require.NoError(t, os.Remove(filepath.Join(dir, dataName, "MANIFEST")))
			zero(t, largest(t, dir), 128<<10)
		}, 0.98, 1},
	} {
		for key, o := range map[string]Options{"plain": withKey(nil, nil), "encrypted": withKey(secret(1), nil)} {
			if o.Key != nil && (strconvIntSize32() || !strings.Contains(name, "zeroes")) {
				continue
			}
			o.Durability = Crash
			t.Run(name+"/"+key, func(t *testing.T) {
				dir := filepath.Join(t.TempDir(), "data")
				s := open(t, dir, o)
				rich(t, s)
				want, epoch := everything(t, s), s.Epoch()
				require.NoError(t, s.Close())
				c.harm(t, dir)
				s = open(t, dir, o)
				st := s.Stats()
				require.NotEmpty(t, st.SetAside)
				require.NoError(t, st.Salvaged.Err)
				require.Equal(t, c.tables, st.Salvaged.Tables)
				require.True(t, st.Unclean, "so that digests are looked at")
				require.NotEqual(t, epoch, s.Epoch())
				got := everything(t, s)
				for k, v := range got {
					require.Equal(t, want[k], v, "%q", k)
				}
				require.GreaterOrEqual(t, float64(len(got)), c.least*float64(len(want)), "of %d", len(want))
				require.NoFileExists(t, filepath.Join(dir, asideName, asideMark))
				require.NoDirExists(t, filepath.Join(dir, restoringName))
				put(t, s, "goes", "on")
				epoch = s.Epoch()
				require.NoError(t, s.Close())
				s = open(t, dir, o)
				require.Empty(t, s.Stats().SetAside)
				require.Equal(t, epoch, s.Epoch())
			})
		}
	}
}

// TestSalvageFindsTheNewest: what a key was before must not come back from an older table while the newer one can be read.
func TestSalvageFindsTheNewest(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	for n := range 3 { // each leaves a table, the last one its log as well
		s := open(t, dir, small())
		put(t, s, "a", string(rune('0'+n)), "gone", "1", "only"+string(rune('0'+n)), "1")
		require.NoError(t, s.Update(func(tx Tx) error { tx.Delete(key("gone")); return nil }))
		require.NoError(t, s.Close())
	}
	require.NoError(t, os.Remove(filepath.Join(dir, dataName, "MANIFEST")))
	s := open(t, dir, withKey(nil, nil))
	require.NotEmpty(t, s.Stats().SetAside)
	require.Equal(t, []string{"a=2", "only0=1", "only1=1", "only2=1"}, scan(t, s, NewKey(State), nil))
}

func TestSalvageInterrupted(t *testing.T) {
	for name, c := range map[string]struct {
		mark string
		want int
		err  bool
	}{
		"by a power cut":                       {asideTodo, 1000, false},
		"by a process that died of the damage": {asideBusy, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filled(t, false)
			require.NoError(t, setAside(dir))
			require.NoError(t, os.WriteFile(filepath.Join(dir, asideName, asideMark), []byte(c.mark), 0o600))
			s := open(t, dir, withKey(nil, nil))
			require.NotEmpty(t, s.Stats().SetAside)
			require.Equal(t, c.err, s.Stats().Salvaged.Err != nil)
			require.Len(t, scan(t, s, NewKey(State), nil), c.want)
			put(t, s, "goes", "on")
			require.NoError(t, s.Close())
			s = open(t, dir, withKey(nil, nil))
			require.Empty(t, s.Stats().SetAside)
			require.Len(t, scan(t, s, NewKey(State), nil), c.want+1)
		})
	}
}

// TestSalvageLosesOnlyWhatTheValueLogHasLost: keys whose long values are gone are counted, and the others are there.
func TestSalvageLosesOnlyWhatTheValueLogHasLost(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	s := open(t, dir, small())
	for i := range byte(10) {
		put(t, s, string(rune('a'+i)), string(bytes.Repeat([]byte{i + 1}, 4*valueThreshold)), "short"+string(rune('a'+i)), "1")
	}
	require.NoError(t, s.Close())
	require.NoError(t, os.Remove(filepath.Join(dir, dataName, "MANIFEST")))
	zero(t, glob(t, dir, "*.vlog")[0], 8<<10)
	s = open(t, dir, withKey(nil, nil))
	st := s.Stats()
	require.NoError(t, st.Salvaged.Err)
	require.Positive(t, st.Salvaged.Lost)
	require.Equal(t, int64(20), st.Salvaged.Keys+st.Salvaged.Lost)
	require.Len(t, scan(t, s, NewKey(State), nil), int(st.Salvaged.Keys))
}

func TestNoSalvageWithoutSpace(t *testing.T) {
	dir := filled(t, false)
	require.NoError(t, os.Remove(filepath.Join(dir, dataName, "MANIFEST")))
	free, err := freeBytes(dir)
	require.NoError(t, err)
	o := withKey(nil, nil)
	o.MinFree = free * 4 // enough to open, not to add anything
	_, err = Open(dir, o)
	require.ErrorIs(t, err, ErrFull)
	o.MinFree = 1 << 20
	s := open(t, dir, o)
	require.Len(t, scan(t, s, NewKey(State), nil), 1000, "with space again")
}
