package store

import (
	"context"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestWhatIsDeletedFreesAFullDisk: while nothing is added, nothing fills the log in which the deletions stand, so that tables would
// never be merged with them.
func TestWhatIsDeletedFreesAFullDisk(t *testing.T) {
	if os.Getuid() != 0 {
		t.Log("only root can mount a file system")
		return
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=40m"); err != nil {
		t.Logf("cannot mount a tmpfs here: %v", err)
		return
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	o := small()
	o.MinFree = 16 << 20
	s := open(t, filepath.Join(dir, "data"), o)
	n, err := uint64(0), error(nil)
	for ; err == nil; n++ {
		value := make([]byte, 600+n%2*4000) // in tables, and in the value log
		err = s.Update(func(tx Tx) error { tx.Put(NewKey(Inbox).Uint(n), value); return nil })
		if n%50 == 0 && err == nil {
			err = s.Flush(context.Background())
		}
	}
	require.ErrorIs(t, err, ErrFull)
	require.NoError(t, s.Flush(context.Background()))
	for i := range n {
		require.NoError(t, s.Update(func(tx Tx) error { tx.Delete(NewKey(Inbox).Uint(i)); return nil }))
		if i%50 == 0 {
			require.NoError(t, s.Flush(context.Background()))
		}
	}
	require.NoError(t, s.Flush(context.Background()))
	require.True(t, s.Stats().Full)
	for deadline := time.Now().Add(time.Minute); s.Stats().Full; time.Sleep(10 * time.Millisecond) {
		require.True(t, time.Now().Before(deadline), "%+v", s.Stats())
		s.committing.Lock()
		s.tidy() // as the committer does every few seconds
		s.committing.Unlock()
	}
	put(t, s, "a", "1")
	require.NoError(t, s.Flush(context.Background()))
	require.NoError(t, s.Close())
	s = open(t, s.dir, o)
	v, ok := get(t, s, "a")
	require.True(t, ok)
	require.Equal(t, "1", v)
}
