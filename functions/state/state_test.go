package state_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sort"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/perigee-iot/perigee/functions/state"
	"github.com/perigee-iot/perigee/internal/store"
)

func open(t testing.TB) *store.Store {
	t.Helper()
	s, err := store.Open(t.TempDir(), store.Options{
		Durability: store.Crash, Profile: "small", MinFree: 1 << 20, Log: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

func update(t testing.TB, s *store.Store, fn func(tx store.Tx) error) {
	t.Helper()
	require.NoError(t, s.Update(fn))
}

func value(t testing.TB, s *store.Store, ref state.Ref, name string) string {
	t.Helper()
	v, ok, err := state.Value(s, ref, name)
	require.NoError(t, err)
	if !ok {
		return "-"
	}
	return string(v)
}

func version(t testing.TB, s *store.Store, ref state.Ref, name string) (v uint64) {
	t.Helper()
	require.NoError(t, s.View(func(r store.Reader) (err error) {
		v, err = state.Version(r, ref, name)
		return err
	}))
	return v
}

func setVersion(t testing.TB, s *store.Store, ref state.Ref) (v uint64) {
	t.Helper()
	require.NoError(t, s.View(func(r store.Reader) (err error) {
		v, err = state.SetVersion(r, ref)
		return err
	}))
	return v
}

func keys(t testing.TB, s *store.Store, ref state.Ref, prefix string, limit int) (names []string) {
	t.Helper()
	require.NoError(t, s.View(func(r store.Reader) (err error) {
		names, err = state.Keys(r, ref, prefix, limit)
		return err
	}))
	return names
}

func TestStatesAreApart(t *testing.T) {
	s := open(t)
	refs := []state.Ref{
		state.Keyed("f", ""), state.Keyed("f", "a"), state.Keyed("f", "a\x00b"), state.Keyed("f", "ab"),
		state.Shared("f"), state.Keyed("ff", "a"), state.Shared("ff"), state.Keyed("f\x00", "a"),
	}
	update(t, s, func(tx store.Tx) error {
		for i, ref := range refs {
			require.NoError(t, state.Set(tx, ref, "n", []byte(fmt.Sprint(i)), 0))
		}
		return nil
	})
	for i, ref := range refs {
		require.Equal(t, fmt.Sprint(i), value(t, s, ref, "n"), "%+v", ref)
		require.Equal(t, []string{"n"}, keys(t, s, ref, "", 0))
	}
	update(t, s, func(tx store.Tx) error { return state.Delete(tx, refs[1], "n") })
	for i, ref := range refs {
		if i == 1 {
			require.Equal(t, "-", value(t, s, ref, "n"))
		} else {
			require.Equal(t, fmt.Sprint(i), value(t, s, ref, "n"))
		}
	}
}

func TestKeys(t *testing.T) {
	s := open(t)
	ref := state.Keyed("f", "room")
	update(t, s, func(tx store.Tx) error {
		for _, n := range []string{"b", "a", "ab", "a\x00", "abc", "c"} {
			require.NoError(t, state.Set(tx, ref, n, []byte("1"), 0))
		}
		return nil
	})
	require.Equal(t, []string{"a", "a\x00", "ab", "abc", "b", "c"}, keys(t, s, ref, "", 0))
	require.Equal(t, []string{"ab", "abc"}, keys(t, s, ref, "ab", 0))
	require.Equal(t, []string{"a", "a\x00"}, keys(t, s, ref, "a", 2))
	none := keys(t, s, ref, "x", 0)
	require.NotNil(t, none)
	require.Empty(t, none)
}

func TestIncr(t *testing.T) {
	s := open(t)
	ref := state.Keyed("f", "")
	for _, c := range []struct {
		was  string
		by   float64
		want string
		err  error
	}{
		{"", 1, "1", nil},
		{"41", 1, "42", nil},
		{"0.5", 0.25, "0.75", nil},
		{"9007199254740991", 1, "9007199254740992", nil},
		{"100000000000000000000", 0, "100000000000000000000", nil}, // no exponent
		{`"41"`, 1, "", state.ErrNotNumber},
		{"null", 1, "", state.ErrNotNumber},
		{"{}", 1, "", state.ErrNotNumber},
		{"1e308", 1e308, "", state.ErrNotNumber},
	} {
		for _, ref := range []state.Ref{ref, state.Shared("f")} {
			update(t, s, func(tx store.Tx) error {
				require.NoError(t, state.Delete(tx, ref, "n"))
				if c.was != "" {
					require.NoError(t, state.Set(tx, ref, "n", []byte(c.was), 0))
				}
				err := state.Incr(tx, ref, "n", c.by, 0)
				require.ErrorIs(t, err, c.err)
				return nil
			})
			if c.err == nil {
				require.Equal(t, c.want, value(t, s, ref, "n"))
			}
		}
	}
}

func TestVersionsNeverComeBack(t *testing.T) {
	s := open(t)
	ref := state.Shared("f")
	require.Zero(t, version(t, s, ref, "n"))
	require.Zero(t, setVersion(t, s, ref))
	seen := map[uint64]bool{0: true}
	step := func(fn func(tx store.Tx) error) {
		t.Helper()
		update(t, s, fn)
		v := version(t, s, ref, "n")
		require.False(t, seen[v], "version %d again", v)
		seen[v] = true
	}
	set := func(tx store.Tx) error { return state.Set(tx, ref, "n", []byte("1"), 0) }
	step(set)
	first := setVersion(t, s, ref)
	step(set) // equal values are writes too
	require.Equal(t, first, setVersion(t, s, ref), "the set of names is as it was")
	update(t, s, func(tx store.Tx) error { return state.Delete(tx, ref, "n") })
	require.Zero(t, version(t, s, ref, "n"))
	require.NotEqual(t, first, setVersion(t, s, ref))
	step(set)
	update(t, s, func(tx store.Tx) error {
		left, err := state.Purge(tx, "f", 0)
		require.Zero(t, left)
		return err
	})
	step(set)
	before := setVersion(t, s, ref)
	step(func(tx store.Tx) error { return state.Incr(tx, ref, "n", 1, 0) })
	require.Equal(t, before, setVersion(t, s, ref))
	update(t, s, func(tx store.Tx) error { return state.Set(tx, state.Keyed("f", ""), "n", []byte("1"), 0) })
	require.Equal(t, before, setVersion(t, s, ref), "the state of a key is no part of it")
	update(t, s, func(tx store.Tx) error { return state.Delete(tx, ref, "absent") })
	require.Equal(t, before, setVersion(t, s, ref))
}

func TestQuota(t *testing.T) {
	s := open(t)
	ref := state.Keyed("f", "k")
	big := []byte(`"` + strings.Repeat("x", 500) + `"`)
	update(t, s, func(tx store.Tx) error { return state.Set(tx, ref, "a", big, 1000) })
	err := s.Update(func(tx store.Tx) error { return state.Set(tx, ref, "b", big, 1000) })
	var quota *state.QuotaError
	require.ErrorAs(t, err, &quota)
	require.Equal(t, int64(1000), quota.Limit)
	require.Greater(t, quota.Need, int64(1000))
	require.ErrorContains(t, err, "1000 are allowed")
	require.Equal(t, "-", value(t, s, ref, "b"))

	// Shared state and other keys count too; other functions do not.
	require.ErrorAs(t, s.Update(func(tx store.Tx) error { return state.Set(tx, state.Shared("f"), "b", big, 1000) }), &quota)
	require.NoError(t, s.Update(func(tx store.Tx) error { return state.Set(tx, state.Shared("g"), "b", big, 1000) }))

	// Over a lowered limit a value may be replaced by a smaller one, and removed.
	update(t, s, func(tx store.Tx) error { return state.Set(tx, ref, "a", []byte(`"short"`), 10) })
	update(t, s, func(tx store.Tx) error { return state.Delete(tx, ref, "a") })
	require.NoError(t, s.View(func(r store.Reader) error {
		size, err := state.Size(r, "f")
		require.Equal(t, state.Totals{}, size)
		return err
	}))
}

func TestBadValues(t *testing.T) {
	s := open(t)
	for _, c := range []struct {
		ref         state.Ref
		name, value string
	}{
		{state.Keyed("f", ""), "", "1"},
		{state.Keyed("", ""), "n", "1"},
		{state.Keyed("f", ""), strings.Repeat("n", state.MaxName+1), "1"},
		{state.Keyed("f", strings.Repeat("k", state.MaxKey+1)), "n", "1"},
		{state.Keyed("f", ""), "n", ""},
		{state.Keyed("f", ""), "n", "{"},
		{state.Keyed("f", ""), "n", "1 2"},
	} {
		require.ErrorIs(t, s.Update(func(tx store.Tx) error {
			return state.Set(tx, c.ref, c.name, []byte(c.value), 0)
		}), state.ErrBadValue)
	}
}

func TestLossIsNoticed(t *testing.T) {
	s := open(t)
	ref := state.Keyed("f", "k")
	update(t, s, func(tx store.Tx) error {
		require.NoError(t, state.Set(tx, ref, "a", []byte("1"), 0))
		return state.Set(tx, state.Shared("f"), "b", []byte("2"), 0)
	})
	verify := func() error { return s.View(func(r store.Reader) error { return state.Verify(r, "f") }) }
	require.NoError(t, verify())
	lost := store.NewKey(store.State).String("f").String("k").String("k").String("a")
	for name, harm := range map[string]func(tx store.Tx){
		"lost":    func(tx store.Tx) { tx.Delete(lost) },
		"changed": func(tx store.Tx) { tx.Put(lost, []byte("7")) },
		"totals":  func(tx store.Tx) { tx.Delete(store.NewKey(store.State).String("f").String("t")) },
		"everything": func(tx store.Tx) {
			var all [][]byte
			require.NoError(t, tx.Scan(store.NewKey(store.State).String("f"), nil, func(k, _ []byte) bool { all = append(all, k); return true }))
			for _, k := range all {
				tx.Delete(k)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			update(t, s, func(tx store.Tx) error { harm(tx); return nil })
			var m *state.MismatchError
			require.ErrorAs(t, verify(), &m)
			before := version(t, s, state.Shared("f"), "b")
			update(t, s, func(tx store.Tx) error { return state.Accept(tx, "f") })
			require.NoError(t, verify())
			update(t, s, func(tx store.Tx) error { return state.Set(tx, state.Shared("f"), "b", []byte("3"), 0) })
			require.Greater(t, version(t, s, state.Shared("f"), "b"), before)
			update(t, s, func(tx store.Tx) error { return state.Set(tx, ref, "a", []byte("1"), 0) })
		})
	}
	update(t, s, func(tx store.Tx) error {
		tx.Put(store.NewKey(store.State).String("f").String("t"), []byte{0xff})
		return nil
	})
	require.ErrorIs(t, verify(), store.ErrDamaged)
	update(t, s, func(tx store.Tx) error { return state.Accept(tx, "f") })
	require.NoError(t, verify())
}

func TestPurgeInParts(t *testing.T) {
	s := open(t)
	update(t, s, func(tx store.Tx) error {
		for i := range 25 {
			require.NoError(t, state.Set(tx, state.Keyed("f", fmt.Sprint(i%3)), fmt.Sprint(i), []byte("1"), 0))
		}
		return state.Set(tx, state.Shared("f"), "s", []byte("1"), 0)
	})
	update(t, s, func(tx store.Tx) error { return state.Set(tx, state.Keyed("g", ""), "n", []byte("1"), 0) })
	var lefts []int64
	for left := int64(-1); left != 0; {
		update(t, s, func(tx store.Tx) (err error) {
			left, err = state.Purge(tx, "f", 10)
			return err
		})
		lefts = append(lefts, left)
		require.NoError(t, s.View(func(r store.Reader) error { return state.Verify(r, "f") }))
	}
	require.Equal(t, []int64{16, 6, 0}, lefts)
	require.Equal(t, "1", value(t, s, state.Keyed("g", ""), "n"))
}

// TestAgainstModel does random things to a few states and to maps, which must stay the same.
func TestAgainstModel(t *testing.T) {
	s := open(t)
	run := 0
	rapid.Check(t, func(t *rapid.T) {
		run++
		fns := []string{fmt.Sprintf("f%d", run), fmt.Sprintf("g%d", run)}
		model := map[state.Ref]map[string]string{}
		ref := rapid.Custom(func(t *rapid.T) state.Ref {
			fn := rapid.SampledFrom(fns).Draw(t, "fn")
			if rapid.Bool().Draw(t, "shared") {
				return state.Shared(fn)
			}
			return state.Keyed(fn, rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, "key"))
		})
		name := rapid.SampledFrom([]string{"n", "m", "nm", "\x00"})
		number := rapid.IntRange(-5, 5)
		t.Repeat(map[string]func(*rapid.T){
			"set": func(t *rapid.T) {
				r, n, v := ref.Draw(t, "ref"), name.Draw(t, "name"), fmt.Sprint(number.Draw(t, "value"))
				must(t, s.Update(func(tx store.Tx) error { return state.Set(tx, r, n, []byte(v), 0) }))
				if model[r] == nil {
					model[r] = map[string]string{}
				}
				model[r][n] = v
			},
			"incr": func(t *rapid.T) {
				r, n, by := ref.Draw(t, "ref"), name.Draw(t, "name"), number.Draw(t, "by")
				must(t, s.Update(func(tx store.Tx) error { return state.Incr(tx, r, n, float64(by), 0) }))
				if model[r] == nil {
					model[r] = map[string]string{}
				}
				var was int
				_ = json.Unmarshal([]byte(model[r][n]), &was)
				model[r][n] = fmt.Sprint(was + by)
			},
			"delete": func(t *rapid.T) {
				r, n := ref.Draw(t, "ref"), name.Draw(t, "name")
				must(t, s.Update(func(tx store.Tx) error { return state.Delete(tx, r, n) }))
				delete(model[r], n)
			},
			"abandon": func(t *rapid.T) {
				r, n := ref.Draw(t, "ref"), name.Draw(t, "name")
				boom := errors.New("boom")
				err := s.Update(func(tx store.Tx) error {
					must(t, state.Set(tx, r, n, []byte("99"), 0))
					must(t, state.Delete(tx, r, "n"))
					return boom
				})
				if !errors.Is(err, boom) {
					t.Fatal(err)
				}
			},
			"": func(t *rapid.T) {
				must(t, s.View(func(r store.Reader) error { return check(r, fns, model) }))
			},
		})
	})
}

func must(t *rapid.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func check(r store.Reader, fns []string, model map[state.Ref]map[string]string) error {
	for _, fn := range fns {
		if err := state.Verify(r, fn); err != nil {
			return err
		}
		var have, want []string
		err := state.EachOf(r, fn, func(e state.Entry) bool {
			have = append(have, fmt.Sprintf("%+v %q=%s", e.Ref, e.Name, e.Value))
			return true
		})
		if err != nil {
			return err
		}
		for ref, values := range model {
			for n, v := range values {
				if ref.Function == fn {
					want = append(want, fmt.Sprintf("%+v %q=%s", ref, n, v))
				}
			}
		}
		sort.Strings(have)
		sort.Strings(want)
		if fmt.Sprint(have) != fmt.Sprint(want) {
			return fmt.Errorf("have %v, want %v", have, want)
		}
	}
	return nil
}
