package store

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func withKey(key, old []byte) Options {
	o := small()
	o.Key, o.OldKey, o.SetAside = key, old, true
	return o
}

func TestEncrypted(t *testing.T) {
	if strconvIntSize32() {
		_, err := Open(t.TempDir(), withKey(secret(1), nil))
		require.ErrorIs(t, err, ErrKey)
		require.ErrorContains(t, err, "make cross")
		return
	}
	dir := t.TempDir()
	s := open(t, dir, withKey(secret(1), nil))
	rich(t, s)
	want := everything(t, s)
	require.NoError(t, s.Close())
	requireHidden(t, dir, bytes.Repeat([]byte{9}, 100))

	// The wrong key, and none: nothing is set aside.
	for _, key := range [][]byte{secret(2), nil} {
		_, err := Open(dir, withKey(key, nil))
		require.ErrorIs(t, err, ErrKey)
		require.NoDirExists(t, filepath.Join(dir, asideName))
	}
	_, err := Open(dir, withKey(secret(2), secret(3)))
	require.ErrorIs(t, err, ErrKey)

	// After a crash, with all of it read through, and after that.
	require.NoError(t, os.WriteFile(filepath.Join(dir, lockName), []byte("1\n"), 0o600))
	s = open(t, dir, withKey(secret(1), nil))
	require.True(t, s.Stats().Unclean)
	require.Empty(t, s.Stats().SetAside)
	require.Equal(t, want, everything(t, s))
	require.NoError(t, s.disk.flatten())
	require.NoError(t, s.disk.check())
	require.NoError(t, s.Close())

	// Another key: the old one opens it once more, then no longer.
	s = open(t, dir, withKey(secret(2), secret(1)))
	require.Equal(t, want, everything(t, s))
	put(t, s, "more", "1")
	require.NoError(t, s.Close())
	s = open(t, dir, withKey(secret(2), secret(1)))
	require.NoError(t, s.Close())
	_, err = Open(dir, withKey(secret(1), nil))
	require.ErrorIs(t, err, ErrKey)
	s = open(t, dir, withKey(secret(2), nil))
	_, ok := get(t, s, "more")
	require.True(t, ok)
	require.NoError(t, s.Close())

	// Damage is still damage.
	require.NoError(t, os.Truncate(glob(t, dir, "*.sst")[0], 100))
	s = open(t, dir, withKey(secret(2), nil))
	require.NotEmpty(t, s.Stats().SetAside)
}

func TestEncryptionOfAPlainStore(t *testing.T) {
	if strconvIntSize32() {
		return // TestEncrypted has what happens here
	}
	dir := t.TempDir()
	s := open(t, dir, small())
	put(t, s, "a", "1")
	require.NoError(t, s.Close())
	_, err := Open(dir, withKey(secret(1), nil))
	require.ErrorIs(t, err, ErrKey)
	require.ErrorContains(t, err, "perigee restore")
	_, err = Open(dir, withKey([]byte("short"), nil))
	require.ErrorIs(t, err, ErrKey)

	// Without encryption the registry of keys is worth nothing, and must not cost the store.
	for _, harm := range [][]byte{{}, []byte("not what it was"), make([]byte, 40)} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, dataName, registryName), harm, 0o600))
		o := small()
		o.SetAside = true
		s = open(t, dir, o)
		require.Empty(t, s.Stats().SetAside)
		_, ok := get(t, s, "a")
		require.True(t, ok)
		require.NoError(t, s.Close())
	}
}
