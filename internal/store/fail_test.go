package store

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// faulty is a backend that fails, or waits, when told to.
type faulty struct {
	backend
	mu        sync.Mutex
	commitErr error
	syncErr   error
	freeBytes int64         // 0: as it is
	gate      chan struct{} // commits wait for it, if there is one
	commits   int
}

func (f *faulty) commit(entries map[string]entry) error {
	f.mu.Lock()
	err, gate := f.commitErr, f.gate
	f.commits++
	f.mu.Unlock()
	if gate != nil {
		<-gate
		f.mu.Lock()
		err = f.commitErr
		f.mu.Unlock()
	}
	if err != nil {
		return err
	}
	return f.backend.commit(entries)
}

func (f *faulty) sync() error {
	f.mu.Lock()
	err := f.syncErr
	f.mu.Unlock()
	if err != nil {
		return err
	}
	return f.backend.sync()
}

func (f *faulty) free() (int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.freeBytes != 0 {
		return f.freeBytes, nil
	}
	return f.backend.free()
}

func (f *faulty) set(fn func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fn()
}

// openFaulty opens a store around a faulty backend.
func openFaulty(t testing.TB, dir string, o Options) (*Store, *faulty) {
	t.Helper()
	o, err := o.withDefaults()
	require.NoError(t, err)
	require.NoError(t, makeDir(dir))
	s := newStore(dir, o)
	s.lock, err = takeLock(dir)
	require.NoError(t, err)
	require.NoError(t, s.start())
	f := &faulty{backend: s.disk}
	s.disk = f
	go s.run()
	t.Cleanup(func() { s.Close() })
	return s, f
}

// fate says what became of an update.
type fate struct{ durable, failed chan error }

func follow(t testing.TB, s *Store, fn func(tx Tx)) fate {
	t.Helper()
	f := fate{make(chan error, 1), make(chan error, 1)}
	require.NoError(t, s.Update(func(tx Tx) error {
		fn(tx)
		tx.OnDurable(func() { f.durable <- nil })
		tx.OnFail(func(err error) { f.failed <- err })
		return nil
	}))
	return f
}

// wait returns nil if the update became durable, or why not.
func (f fate) wait(t testing.TB) error {
	t.Helper()
	select {
	case <-f.durable:
		return nil
	case err := <-f.failed:
		require.Error(t, err)
		return err
	case <-time.After(time.Minute):
		t.Fatal("neither durable nor failed")
		return nil
	}
}

func TestFailedCommitDropsWhatReadFromIt(t *testing.T) {
	dir := t.TempDir()
	s, f := openFaulty(t, dir, small())
	put(t, s, "a", "old")
	require.NoError(t, s.Flush(context.Background()))

	boom := errors.New("boom")
	gate := make(chan struct{})
	f.set(func() { f.gate, f.commitErr = gate, boom })
	first := follow(t, s, func(tx Tx) { tx.Put(key("a"), []byte("new")); tx.Urgent() })
	require.Eventually(t, func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.commits == 2
	}, time.Minute, time.Millisecond)
	second := follow(t, s, func(tx Tx) {
		v, _, err := tx.Get(key("a"))
		require.NoError(t, err)
		tx.Put(key("b"), v)
	})
	v, _ := get(t, s, "b")
	require.Equal(t, "new", v)

	// A third is being made while the group fails: it has read from it and must not be kept.
	reading, goOn := make(chan struct{}), make(chan struct{})
	third := make(chan error)
	go func() {
		third <- s.Update(func(tx Tx) error {
			v, _, _ := tx.Get(key("b"))
			close(reading)
			<-goOn
			tx.Put(key("c"), v)
			return nil
		})
	}()
	<-reading
	close(gate)
	for _, one := range []fate{first, second} {
		err := one.wait(t)
		require.ErrorIs(t, err, ErrDropped)
		require.ErrorIs(t, err, boom)
		require.NotErrorIs(t, err, ErrBroken)
	}
	close(goOn)
	require.ErrorIs(t, <-third, ErrDropped)
	require.Equal(t, []string{"a=old"}, scan(t, s, NewKey(State), nil))

	// And it goes on.
	f.set(func() { f.gate, f.commitErr = nil, nil })
	require.NoError(t, follow(t, s, func(tx Tx) { tx.Put(key("a"), []byte("newer")); tx.Urgent() }).wait(t))
	require.Equal(t, int64(1), s.Stats().Dropped)
	require.NoError(t, s.Close())
	s = open(t, dir, small())
	require.Equal(t, []string{"a=newer"}, scan(t, s, NewKey(State), nil))
}

func TestFailedSyncBreaksForGood(t *testing.T) {
	for _, where := range []string{"sync", "halfway"} {
		t.Run(where, func(t *testing.T) {
			s, f := openFaulty(t, t.TempDir(), small())
			put(t, s, "a", "old")
			require.NoError(t, s.Flush(context.Background()))
			require.NoError(t, s.Err())
			boom := errors.New("boom")
			f.set(func() {
				if where == "sync" {
					f.syncErr = boom
				} else {
					f.commitErr = errors.Join(errHalfway, boom)
				}
			})
			err := follow(t, s, func(tx Tx) { tx.Put(key("a"), []byte("new")); tx.Urgent() }).wait(t)
			require.ErrorIs(t, err, ErrBroken)
			require.ErrorIs(t, err, boom)
			<-s.Failed()
			require.ErrorIs(t, s.Err(), ErrBroken)
			f.set(func() { f.syncErr, f.commitErr = nil, nil })
			err = s.Update(func(tx Tx) error { t.Error("called"); return nil })
			require.ErrorIs(t, err, ErrBroken)
			require.ErrorIs(t, s.Flush(context.Background()), ErrBroken)
			v, _ := get(t, s, "a")
			require.Equal(t, "old", v, "reads see the state from before")
			require.ErrorIs(t, s.Close(), ErrBroken)
		})
	}
}

func TestFlushTellsOfFailure(t *testing.T) {
	s, f := openFaulty(t, t.TempDir(), small())
	f.set(func() { f.commitErr = errors.New("boom") })
	put(t, s, "a", "1")
	require.ErrorIs(t, s.Flush(context.Background()), ErrDropped)
	gate := make(chan struct{})
	f.set(func() { f.commitErr, f.gate = nil, gate })
	put(t, s, "a", "1")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	require.ErrorIs(t, s.Flush(ctx), context.Canceled)
	close(gate)
	require.NoError(t, s.Flush(context.Background()))
}

func TestUpdateWaitsForRoom(t *testing.T) {
	s, f := openFaulty(t, t.TempDir(), small())
	gate := make(chan struct{})
	f.set(func() { f.gate = gate })
	big := make([]byte, 64<<10)
	done := make(chan int)
	go func() {
		n := 0
		for i := range 100 { // 6.4 MB, and a group takes 2
			assertNoError(t, s.Update(func(tx Tx) error {
				tx.Put(NewKey(State).Uint(uint64(i)), big)
				return nil
			}))
			n++
		}
		done <- n
	}()
	require.Eventually(t, func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.sealed != nil && s.open.urgent && s.open.size.bytes > groupBytes-2*int64(len(big))
	}, time.Minute, time.Millisecond)
	select {
	case <-done:
		t.Fatal("it did not wait")
	default:
	}
	_, ok, err := getRaw(s, NewKey(State).Uint(0))
	require.True(t, ok, "readers do not wait: %v", err)
	close(gate)
	require.Equal(t, 100, <-done)
	require.NoError(t, s.Flush(context.Background()))
}

func assertNoError(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

func getRaw(s *Store, key []byte) (v []byte, ok bool, err error) {
	err = s.View(func(r Reader) (err error) {
		v, ok, err = r.Get(key)
		return err
	})
	return v, ok, err
}

func TestTooBigWritesNothing(t *testing.T) {
	s := open(t, t.TempDir(), small())
	for name, fn := range map[string]func(tx Tx){
		"bytes": func(tx Tx) { tx.Put(key("a"), make([]byte, groupBytes+1)) },
		"cost": func(tx Tx) {
			for i := range 400 {
				tx.Put(NewKey(State).Uint(uint64(i)), make([]byte, 1000))
			}
		},
		"keys": func(tx Tx) {
			for i := range groupKeys + 1 {
				tx.Put(NewKey(State).Uint(uint64(i)), nil)
			}
		},
		"a key": func(tx Tx) { tx.Put(make([]byte, maxKey+1), nil) },
	} {
		t.Run(name, func(t *testing.T) {
			require.ErrorIs(t, s.Update(func(tx Tx) error { fn(tx); return nil }), ErrTooBig)
			require.Empty(t, scan(t, s, NewKey(State), nil))
		})
	}
	require.ErrorIs(t, s.Update(func(tx Tx) error { tx.Put(nil, nil); return nil }), ErrBadKey)
	put(t, s, "a", "1")
	require.NoError(t, s.Flush(context.Background()))
}

// TestFullGroupsCommit fills groups to the brim with entries of every shape: Badger must take each of them.
func TestFullGroupsCommit(t *testing.T) {
	for _, profile := range []string{profileSmall, profileNormal} {
		if profile == profileNormal && strconv.IntSize == 32 {
			continue // refused there
		}
		o := small()
		o.Profile, o.Durability = profile, Crash
		s := open(t, t.TempDir(), o)
		for _, size := range []int{0, 1, 17, 100, 999, valueThreshold - 1, valueThreshold, 5000, 100_000} {
			for _, keyLen := range []int{4, 40, 400} {
				value := make([]byte, size)
				require.NoError(t, s.Update(func(tx Tx) error {
					x := tx.(*txn)
					for i := 0; ; i++ {
						k := append(make(Key, keyLen), NewKey(State).Uint(uint64(i))...)
						e := sizeOf(string(k), entry{value: value})
						if !x.staged.size.plus(e).within(s.limit) {
							return nil
						}
						tx.Put(k, value)
					}
				}))
				require.NoError(t, s.Flush(context.Background()), "%s: values of %d, keys of %d", profile, size, keyLen)
			}
		}
	}
}

func TestFreshKeysLeaveNothing(t *testing.T) {
	s, f := openFaulty(t, t.TempDir(), small())
	new1 := follow(t, s, func(tx Tx) { tx.PutNew(key("a"), []byte("1")); tx.PutNew(key("b"), []byte("1")) })
	gone := follow(t, s, func(tx Tx) { tx.Delete(key("a")); tx.Put(key("b"), []byte("2")) })
	last := follow(t, s, func(tx Tx) { tx.Delete(key("b")); tx.PutNew(key("c"), nil); tx.Delete(key("c")) })
	s.mu.Lock()
	require.Empty(t, s.open.entries)
	require.Equal(t, size{}, s.open.size)
	s.mu.Unlock()
	for _, one := range []fate{new1, gone, last} {
		require.NoError(t, one.wait(t))
	}
	require.Zero(t, f.commits, "a group of nothing needs no disk")

	// What is deleted in the group is no longer new when it is put again.
	put(t, s, "d", "1")
	require.NoError(t, s.Flush(context.Background()))
	require.NoError(t, s.Update(func(tx Tx) error { tx.Delete(key("d")); return nil }))
	require.NoError(t, s.Update(func(tx Tx) error { tx.PutNew(key("d"), []byte("2")); return nil }))
	require.NoError(t, s.Update(func(tx Tx) error { tx.Delete(key("d")); return nil }))
	require.NoError(t, s.Flush(context.Background()))
	_, ok := get(t, s, "d")
	require.False(t, ok)
}

func TestFullDiskRefusesWhatAdds(t *testing.T) {
	o := small()
	o.MinFree = 8 << 20
	s, f := openFaulty(t, t.TempDir(), o)
	put(t, s, "a", "1", "b", "2")
	require.NoError(t, s.Flush(context.Background()))
	f.set(func() { f.freeBytes = 5 << 20 })
	put(t, s, "c", "3") // nobody has looked yet
	require.NoError(t, s.Flush(context.Background()))
	err := s.Update(func(tx Tx) error { tx.Put(key("d"), nil); return nil })
	require.ErrorIs(t, err, ErrFull)
	require.ErrorContains(t, err, "store.min_free")
	require.True(t, s.Stats().Full)
	_, ok := get(t, s, "d")
	require.False(t, ok)
	require.ErrorIs(t, s.Update(func(tx Tx) error { tx.Delete(key("a")); tx.Put(key("d"), nil); return nil }), ErrFull)
	require.ErrorIs(t, s.Update(func(tx Tx) error { tx.Put(key("a"), make([]byte, 5000)); return nil }), ErrFull)
	require.NoError(t, s.Update(func(tx Tx) error { tx.Delete(key("a")); return nil }))
	require.NoError(t, s.Update(func(tx Tx) error { tx.Delete(key("b")); tx.Put(key("c"), []byte("a cursor")); return nil }))
	require.NoError(t, s.Flush(context.Background()))

	f.set(func() { f.freeBytes = 1 << 19 }) // below the floor nothing is written at all
	require.NoError(t, s.Update(func(tx Tx) error { tx.Delete(key("c")); return nil }))
	require.ErrorIs(t, s.Flush(context.Background()), ErrFull)
	require.Equal(t, []string{"c=a cursor"}, scan(t, s, NewKey(State), nil))

	f.set(func() { f.freeBytes = 0 })
	put(t, s, "d", "4")
	require.NoError(t, s.Flush(context.Background()))
	require.False(t, s.Stats().Full)
}

// Whoever begins an update has heard of every drop before it: what it decides cannot overtake what was dropped.
func TestNoUpdateBeginsBeforeAllHaveHeardOfADrop(t *testing.T) {
	s, f := openFaulty(t, t.TempDir(), small())
	f.set(func() { f.commitErr = errors.New("boom") })
	told, goOn := make(chan struct{}), make(chan struct{})
	var heard atomic.Int32
	require.NoError(t, s.Update(func(tx Tx) error {
		tx.Put(key("a"), []byte("1"))
		tx.Urgent()
		tx.OnFail(func(error) { close(told); <-goOn })
		tx.OnFail(func(error) { heard.Add(1) })
		return nil
	}))
	<-told
	f.set(func() { f.commitErr = nil })
	drops := s.Drops()
	v, ok := get(t, s, "a")
	require.False(t, ok, "reads do not wait: %q", v)
	began := make(chan int32, 3)
	var all sync.WaitGroup
	for range 2 {
		all.Go(func() {
			assertNoError(t, s.Update(func(tx Tx) error {
				began <- heard.Load()
				tx.Put(key("b"), nil)
				return nil
			}))
		})
	}
	all.Go(func() {
		assertNoError(t, s.Flush(context.Background()))
		began <- heard.Load()
	})
	left := 3
	select {
	case <-began:
		left--
		t.Error("an update began, or a flush ended, while those who were dropped were still being told")
	case <-time.After(20 * time.Millisecond):
	}
	close(goOn)
	for range left {
		require.Equal(t, int32(1), <-began)
	}
	all.Wait()
	require.Equal(t, drops, s.Drops())
	require.NoError(t, s.Flush(context.Background()))
}

// What is kept in memory beside the keys changes with the update, and not at all if that is refused.
func TestOnJoinComesBetweenTheUpdateAndItsFate(t *testing.T) {
	s, f := openFaulty(t, t.TempDir(), small())
	var said []string
	try := func(fail error, size int) error {
		said = nil
		return s.Update(func(tx Tx) error {
			tx.Put(key("a"), make([]byte, size))
			tx.OnDurable(func() { said = append(said, "durable") })
			tx.OnFail(func(error) { said = append(said, "failed") })
			tx.OnJoin(func() { said = append(said, "joined") })
			return fail
		})
	}
	require.NoError(t, try(nil, 1))
	require.NoError(t, s.Flush(context.Background()))
	require.Equal(t, []string{"joined", "durable"}, said)

	require.Error(t, try(errors.New("no"), 1))
	require.Empty(t, said)
	require.ErrorIs(t, try(nil, groupBytes+1), ErrTooBig)
	require.Empty(t, said)

	f.set(func() { f.commitErr = errors.New("boom") })
	require.NoError(t, try(nil, 1))
	require.ErrorIs(t, s.Flush(context.Background()), ErrDropped)
	require.Equal(t, []string{"joined", "failed"}, said)
}
