package store

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// TestAgainstModel does random things to a store and to a map, with groups that fail and stores that are opened anew.
func TestAgainstModel(t *testing.T) {
	dir := t.TempDir()
	o := small()
	o.Durability, o.Linger = Crash, 1<<40 // groups end when the test says so
	s, f := openFaulty(t, dir, o)
	s.recent = newRecent(10_000) // it turns over often
	rapid.Check(t, func(rt *rapid.T) {
		require.NoError(rt, s.Update(func(tx Tx) error { // begin anew
			return tx.Scan(NewKey(State), nil, func(k, _ []byte) bool { tx.Delete(k); return true })
		}))
		require.NoError(rt, s.Flush(context.Background()))
		durable, now := map[string]string{}, map[string]string{}
		name := rapid.Custom(func(t *rapid.T) string {
			return string(rapid.SliceOfN(rapid.SampledFrom([]byte{0, 1, 'a', 0xff}), 1, 3).Draw(t, "name"))
		})
		rt.Repeat(map[string]func(*rapid.T){
			"update": func(t *rapid.T) {
				next := maps.Clone(now)
				fails := rapid.Bool().Draw(t, "fails")
				boom := errors.New("boom")
				err := s.Update(func(tx Tx) error {
					for range rapid.IntRange(0, 6).Draw(t, "writes") {
						n := name.Draw(t, "name")
						v := strings.Repeat("v", rapid.SampledFrom([]int{0, 1, 2000}).Draw(t, "size")) + strconv.Itoa(rapid.IntRange(0, 9).Draw(t, "v"))
						_, known := next[n]
						switch {
						case rapid.Bool().Draw(t, "delete"):
							tx.Delete(key(n))
							delete(next, n)
						case !known:
							tx.PutNew(key(n), []byte(v))
							next[n] = v
						default:
							tx.Put(key(n), []byte(v))
							next[n] = v
						}
						same(t, tx, next, name.Draw(t, "prefix"), name.Draw(t, "after"))
					}
					if fails {
						return boom
					}
					return nil
				})
				if fails {
					require.ErrorIs(t, err, boom)
					return
				}
				require.NoError(t, err)
				now = next
			},
			"flush": func(t *rapid.T) {
				require.NoError(t, s.Flush(context.Background()))
				durable = maps.Clone(now)
			},
			"drop": func(t *rapid.T) {
				if maps.Equal(durable, now) {
					return
				}
				f.set(func() { f.commitErr = errors.New("boom") })
				if s.Flush(context.Background()) == nil {
					durable = maps.Clone(now) // writes that undid one another
				}
				f.set(func() { f.commitErr = nil })
				now = maps.Clone(durable)
			},
			"reopen": func(rt *rapid.T) {
				if rapid.IntRange(0, 9).Draw(rt, "one in ten") != 0 {
					return // it is slow
				}
				require.NoError(rt, s.Close())
				durable = maps.Clone(now)
				s, f = openFaulty(t, dir, o)
				s.recent = newRecent(10_000)
			},
			"": func(t *rapid.T) {
				require.NoError(t, s.View(func(r Reader) error {
					same(t, r, now, name.Draw(t, "prefix"), name.Draw(t, "after"))
					return nil
				}))
			},
		})
	})
}

// same compares what a reader sees with a map.
func same(t *rapid.T, r Reader, want map[string]string, prefix, after string) {
	t.Helper()
	for n, v := range want {
		got, ok, err := r.Get(key(n))
		require.NoError(t, err)
		require.True(t, ok, "%q", n)
		require.Equal(t, v, string(got))
	}
	_, ok, err := r.Get(key("absent"))
	require.NoError(t, err)
	require.False(t, ok)
	for _, c := range []struct{ prefix, after Key }{
		{NewKey(State), nil},
		{NewKey(State).Prefix(prefix), nil},
		{NewKey(State), key(after)},
		{NewKey(State).Prefix(prefix), key(after)},
	} {
		var have, should []string
		require.NoError(t, r.Scan(c.prefix, c.after, func(k, v []byte) bool {
			have = append(have, Parse(k).String()+"="+string(v))
			return true
		}))
		for _, n := range slices.Sorted(maps.Keys(want)) {
			if strings.HasPrefix(string(key(n)), string(c.prefix)) && string(key(n)) > string(c.after) {
				should = append(should, n+"="+want[n])
			}
		}
		require.Equal(t, should, have)
	}
}

// TestKill kills a process that writes, again and again, and looks for what it had said was durable.
func TestKill(t *testing.T) {
	if dir := os.Getenv("STORE_KILL"); dir != "" {
		writeUntilKilled(dir)
		return
	}
	dir := t.TempDir()
	acked := -1
	for round := range 12 {
		durability := []string{"power", "crash"}[round%2]
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestKill$")
		cmd.Env = append(os.Environ(), "STORE_KILL="+dir, "STORE_DURABILITY="+durability, "STORE_FROM="+strconv.Itoa(acked+1))
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		cmd.Stderr = os.Stderr
		require.NoError(t, cmd.Start())
		lines := bufio.NewScanner(out)
		left := 1 + rand.IntN(400)
		for lines.Scan() {
			n, err := strconv.Atoi(lines.Text())
			require.NoError(t, err, "%s", lines.Text())
			acked = n
			if left--; left == 0 {
				require.NoError(t, cmd.Process.Kill())
			}
		}
		require.Error(t, cmd.Wait())
		s := open(t, dir, small())
		require.True(t, s.Stats().Unclean)
		// Update n puts n and deletes n-3, all or nothing.
		var have []uint64
		require.NoError(t, s.View(func(r Reader) error {
			return r.Scan(NewKey(Inbox), nil, func(k, v []byte) bool {
				f := Parse(k)
				have = append(have, f.Uint())
				return true
			})
		}))
		require.NotEmpty(t, have)
		last := have[len(have)-1]
		require.GreaterOrEqual(t, int(last), acked)
		want := []uint64{}
		for n := last - min(last, 2); n <= last; n++ {
			want = append(want, n)
		}
		require.Equal(t, want, have)
		v, _, err := getRaw(s, NewKey(Meta).String("last"))
		require.NoError(t, err)
		require.Equal(t, strconv.Itoa(int(last)), strings.TrimRight(string(v), " "))
		require.NoError(t, s.Close())
		acked = int(last)
	}
}

func writeUntilKilled(dir string) {
	o := small()
	if os.Getenv("STORE_DURABILITY") == "crash" {
		o.Durability = Crash
	}
	s, err := Open(dir, o)
	if err != nil {
		fmt.Println(err)
		return
	}
	from, _ := strconv.Atoi(os.Getenv("STORE_FROM"))
	for n := from; ; n++ {
		err := s.Update(func(tx Tx) error {
			tx.Put(NewKey(Inbox).Uint(uint64(n)), make([]byte, n%1500))
			if n >= 3 {
				tx.Delete(NewKey(Inbox).Uint(uint64(n - 3)))
			}
			tx.Put(NewKey(Meta).String("last"), []byte(strconv.Itoa(n)+strings.Repeat(" ", n%3*1000)))
			if n%5 == 0 {
				tx.Urgent()
			}
			tx.OnDurable(func() { fmt.Println(n) })
			return nil
		})
		if err != nil {
			fmt.Println(err)
			return
		}
	}
}

// TestTogether has many writers and readers at once: transfers between accounts, whose sum every reader must find right.
func TestTogether(t *testing.T) {
	const accounts, each, writers, transfers = 20, 100, 8, 150
	o := small()
	o.Linger = -1
	s := open(t, t.TempDir(), o)
	require.NoError(t, s.Update(func(tx Tx) error {
		for i := range accounts {
			tx.Put(NewKey(State).Uint(uint64(i)), []byte(strconv.Itoa(each)))
		}
		return nil
	}))
	balance := func(r Reader, i int) int {
		v, _, err := r.Get(NewKey(State).Uint(uint64(i)))
		assertNoError(t, err)
		n, err := strconv.Atoi(string(v))
		assertNoError(t, err)
		return n
	}
	sum := func() (n int) {
		assertNoError(t, s.View(func(r Reader) error {
			return r.Scan(NewKey(State), nil, func(_, v []byte) bool {
				b, _ := strconv.Atoi(string(v))
				n += b
				return true
			})
		}))
		return n
	}
	var writing, reading sync.WaitGroup
	stop := make(chan struct{})
	for range 2 {
		reading.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if n := sum(); n != accounts*each {
					t.Errorf("the sum is %d", n)
					return
				}
			}
		})
	}
	var durable sync.WaitGroup
	for range writers {
		writing.Go(func() {
			for range transfers {
				durable.Add(1)
				assertNoError(t, s.Update(func(tx Tx) error {
					from, to := rand.IntN(accounts), rand.IntN(accounts)
					tx.Put(NewKey(State).Uint(uint64(from)), []byte(strconv.Itoa(balance(tx, from)-1)))
					tx.Put(NewKey(State).Uint(uint64(to)), []byte(strconv.Itoa(balance(tx, to)+1)))
					tx.OnDurable(durable.Done)
					return nil
				}))
			}
		})
	}
	writing.Wait()
	durable.Wait()
	close(stop)
	reading.Wait()
	require.Equal(t, accounts*each, sum())
	st := s.Stats()
	require.Less(t, st.Groups, int64(writers*transfers), "updates share groups")
	require.Equal(t, st.Groups, st.Syncs)
}
