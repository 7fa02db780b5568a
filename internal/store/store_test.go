package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func small() Options {
	return Options{Profile: profileSmall, MinFree: 1 << 20, Log: slog.New(slog.DiscardHandler)}
}

func open(t testing.TB, dir string, o Options) *Store {
	t.Helper()
	s, err := Open(dir, o)
	require.NoError(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

func key(s string) Key { return NewKey(State).String(s) }

func put(t testing.TB, s *Store, pairs ...string) {
	t.Helper()
	require.NoError(t, s.Update(func(tx Tx) error {
		for i := 0; i < len(pairs); i += 2 {
			tx.Put(key(pairs[i]), []byte(pairs[i+1]))
		}
		return nil
	}))
}

func get(t testing.TB, s *Store, name string) (value string, ok bool) {
	t.Helper()
	require.NoError(t, s.View(func(r Reader) error {
		v, found, err := r.Get(key(name))
		value, ok = string(v), found
		return err
	}))
	return value, ok
}

func scan(t testing.TB, s *Store, prefix, after []byte) (out []string) {
	t.Helper()
	require.NoError(t, s.View(func(r Reader) error {
		return r.Scan(prefix, after, func(k, v []byte) bool {
			out = append(out, Parse(k).String()+"="+string(v))
			return true
		})
	}))
	return out
}

func TestUpdateIsSeenAtOnceAndStays(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	s := open(t, dir, small())
	put(t, s, "a", "1", "b", "2")
	v, ok := get(t, s, "a")
	require.True(t, ok)
	require.Equal(t, "1", v)
	require.NoError(t, s.Flush(context.Background()))
	put(t, s, "c", "3")
	require.NoError(t, s.Update(func(tx Tx) error { tx.Delete(key("a")); return nil }))
	require.Equal(t, []string{"b=2", "c=3"}, scan(t, s, NewKey(State), nil))
	epoch := s.Epoch()
	require.Len(t, epoch, 16)
	require.NoError(t, s.Close())

	fi, err := os.Stat(dir)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), fi.Mode().Perm())

	s = open(t, dir, small())
	require.Equal(t, epoch, s.Epoch())
	require.Equal(t, []string{"b=2", "c=3"}, scan(t, s, NewKey(State), nil))
	require.Equal(t, []string{"c=3"}, scan(t, s, NewKey(State), key("b")))
}

func TestUpdateThatFailsLeavesNothing(t *testing.T) {
	s := open(t, t.TempDir(), small())
	boom := errors.New("boom")
	err := s.Update(func(tx Tx) error {
		tx.Put(key("a"), []byte("1"))
		tx.OnDurable(func() { t.Error("durable") })
		tx.OnFail(func(error) { t.Error("failed") })
		return boom
	})
	require.ErrorIs(t, err, boom)
	_, ok := get(t, s, "a")
	require.False(t, ok)
	require.NoError(t, s.Flush(context.Background()))
	require.Zero(t, s.Stats().Groups)
}

func TestOnDurableRunsInOrder(t *testing.T) {
	s := open(t, t.TempDir(), small())
	var mu sync.Mutex
	var got []int
	for i := range 100 {
		require.NoError(t, s.Update(func(tx Tx) error {
			tx.Put(key(fmt.Sprint(i)), nil)
			tx.OnDurable(func() {
				mu.Lock()
				defer mu.Unlock()
				got = append(got, i)
			})
			if i%7 == 0 {
				tx.Urgent()
			}
			return nil
		}))
	}
	require.NoError(t, s.Flush(context.Background()))
	mu.Lock()
	defer mu.Unlock()
	require.Len(t, got, 100)
	for i, v := range got {
		require.Equal(t, i, v)
	}
}

// TestSoon: a group in which somebody waits, and more is about to come, lingers shortly; one in which nobody does lingers on.
func TestSoon(t *testing.T) {
	o := small()
	o.Linger = time.Hour
	s := open(t, t.TempDir(), o)
	durable := make(chan struct{})
	require.NoError(t, s.Update(func(tx Tx) error {
		tx.Put(key("a"), nil)
		tx.OnDurable(func() { close(durable) })
		return nil
	}))
	require.NoError(t, s.Update(func(tx Tx) error {
		tx.Put(key("b"), nil)
		tx.Soon()
		return nil
	}))
	<-durable
	require.EqualValues(t, 1, s.Stats().Groups)
}

func TestLingerEnds(t *testing.T) {
	o := small()
	o.Linger = time.Millisecond
	s := open(t, t.TempDir(), o)
	durable := make(chan struct{})
	require.NoError(t, s.Update(func(tx Tx) error {
		tx.Put(key("a"), nil)
		tx.OnDurable(func() { close(durable) })
		return nil
	}))
	<-durable
}
