package engine

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/internal/store"
)

// TestNumbersLeapAfterDamage: what was salvaged may wait under numbers that are higher than the one that is stored.
func TestNumbersLeapAfterDamage(t *testing.T) {
	dir := t.TempDir()
	open := func() (*store.Store, *sequence) {
		st, err := store.Open(dir, store.Options{Durability: store.Crash, Profile: "small", MinFree: 1 << 20, SetAside: true, Log: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		s, err := openSequence(st, func(fn func()) { go fn() })
		require.NoError(t, err)
		return st, s
	}
	st, s := open()
	was := s.next()
	require.NoError(t, st.Update(func(tx store.Tx) error { tx.Delete(sequenceKey); return nil })) // in a block that is lost
	require.NoError(t, st.Close())
	require.NoError(t, os.Remove(filepath.Join(dir, "db", "MANIFEST")))
	st, s = open()
	require.NotEmpty(t, st.Stats().SetAside)
	leapt := s.next()
	require.Greater(t, leapt, was+sequenceAfterDamage/2)
	require.NoError(t, st.Close())
	st, s = open()
	require.Greater(t, s.next(), leapt)
	require.Less(t, s.next(), leapt+4*sequenceBlock, "once")
	require.NoError(t, st.Close())
}
