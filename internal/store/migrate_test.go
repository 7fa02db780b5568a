package store

import (
	"encoding/binary"
	"errors"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestThereIsAMigrationForEachVersion(t *testing.T) {
	require.Len(t, migrations(), schema-1)
}

func TestMigrate(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, small())
	put(t, s, "a", "1", "b", "2")
	require.NoError(t, s.Close())
	data := filepath.Join(dir, dataName)
	o, err := small().withDefaults()
	require.NoError(t, err)
	d, err := openDisk(data, profile(profileSmall, data, nil, o.Log))
	require.NoError(t, err)
	defer d.close()
	look := func() (version uint32, a, b, c string) {
		snap := d.snapshot()
		defer snap.release()
		read := func(k Key) string { v, _, err := snap.get(k); require.NoError(t, err); return string(v) }
		return binary.BigEndian.Uint32([]byte(read(schemaKey))), read(key("a")), read(key("b")), read(key("c"))
	}
	var ran []int
	steps := []migration{
		func(snap *snapshot, put func(k, v []byte), del func(k []byte)) error {
			ran = append(ran, 1)
			v, _, err := snap.get(key("a"))
			put(key("c"), v)
			del(key("a"))
			return err
		},
		func(snap *snapshot, put func(k, v []byte), _ func(k []byte)) error {
			ran = append(ran, 2)
			v, _, err := snap.get(key("c")) // what the step before has written
			put(key("b"), append(v, '!'))
			return err
		},
	}
	bad := errors.New("this cannot be migrated")
	failing := append(steps[:1:1], func(_ *snapshot, put func(k, v []byte), _ func(k []byte)) error {
		put(key("b"), []byte("half"))
		return bad
	})

	require.ErrorIs(t, d.migrate(1, failing), bad)
	version, a, b, c := look()
	require.Equal(t, []any{uint32(2), "", "2", "1"}, []any{version, a, b, c}, "the first step stays, of the second nothing")
	require.NoError(t, d.migrate(version, steps))
	version, _, b, _ = look()
	require.Equal(t, uint32(3), version)
	require.Equal(t, "1!", b)
	require.NoError(t, d.migrate(version, steps))
	require.Equal(t, []int{1, 2}, ran, "each once")

	require.ErrorIs(t, d.migrate(4, steps), ErrNewer)
	require.ErrorIs(t, d.migrate(0, steps), ErrDamaged)
	require.ErrorIs(t, d.migrate(1, []migration{func(_ *snapshot, put func(k, v []byte), _ func(k []byte)) error {
		for i := range groupKeys + 1 {
			put(NewKey(State).Uint(uint64(i)), nil)
		}
		return nil
	}}), ErrTooBig)
}
