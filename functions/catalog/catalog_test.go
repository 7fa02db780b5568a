package catalog_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/perigee-iot/perigee/functions/catalog"
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

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

func files(text string) map[string][]byte {
	return map[string][]byte{"function.yaml": []byte("triggers: []\n"), "main.lua": []byte(text), "lib/empty.lua": {}}
}

// put makes text the code of a function.
func put(t testing.TB, s *store.Store, name, origin, text string, take bool) (e catalog.Entry, err error) {
	t.Helper()
	err = s.Update(func(tx store.Tx) (err error) {
		e, err = catalog.Put(tx, catalog.Entry{Name: name, Origin: origin, Revision: digest(text), Since: noon}, files(text), take)
		return err
	})
	return e, err
}

func revisions(t testing.TB, s *store.Store) (n int) {
	t.Helper()
	require.NoError(t, s.View(func(r store.Reader) error {
		return r.Scan(store.NewKey(store.Catalog).String("r"), nil, func(_, _ []byte) bool { n++; return true })
	}))
	return n
}

func TestPutAndRead(t *testing.T) {
	s := open(t)
	e, err := put(t, s, "f", catalog.Applied, "one", false)
	require.NoError(t, err)
	require.Equal(t, catalog.Entry{Name: "f", Origin: catalog.Applied, Revision: digest("one"), Since: noon}, e)
	_, err = put(t, s, "a", catalog.FromDir, "other", false)
	require.NoError(t, err)
	require.NoError(t, s.View(func(r store.Reader) error {
		got, err := catalog.Get(r, "f")
		require.NoError(t, err)
		require.Equal(t, e, got)
		all, err := catalog.List(r)
		require.NoError(t, err)
		require.Len(t, all, 2)
		require.Equal(t, "a", all[0].Name)
		kept, err := catalog.Files(r, e.Revision)
		require.NoError(t, err)
		require.Equal(t, files("one"), kept)
		_, err = catalog.Get(r, "absent")
		require.ErrorIs(t, err, catalog.ErrNotFound)
		_, err = catalog.Files(r, digest("absent"))
		require.ErrorIs(t, err, catalog.ErrNotFound)
		return nil
	}))
}

func TestHistory(t *testing.T) {
	s := open(t)
	for i := range 6 {
		_, err := put(t, s, "f", catalog.Applied, fmt.Sprint(i), false)
		require.NoError(t, err)
	}
	e, err := put(t, s, "f", catalog.Applied, "5", false) // the same once more changes nothing
	require.NoError(t, err)
	require.Equal(t, []string{digest("4"), digest("3"), digest("2")}, e.Previous)
	require.Equal(t, 4, revisions(t, s))

	back := func(revision string) (e catalog.Entry, err error) {
		err = s.Update(func(tx store.Tx) (err error) {
			e, err = catalog.Rollback(tx, "f", revision, noon)
			return err
		})
		return e, err
	}
	e, err = back("")
	require.NoError(t, err)
	require.Equal(t, digest("4"), e.Revision)
	require.Equal(t, []string{digest("5"), digest("3"), digest("2")}, e.Previous)
	e, err = back(digest("2")[:8])
	require.NoError(t, err)
	require.Equal(t, digest("2"), e.Revision)
	require.Equal(t, []string{digest("4"), digest("5"), digest("3")}, e.Previous)
	_, err = back(digest("0"))
	require.ErrorIs(t, err, catalog.ErrNotFound)
	require.Equal(t, 4, revisions(t, s))

	require.NoError(t, s.Update(func(tx store.Tx) error { return catalog.Remove(tx, "f") }))
	require.Zero(t, revisions(t, s))
	require.ErrorIs(t, s.Update(func(tx store.Tx) error { return catalog.Remove(tx, "f") }), catalog.ErrNotFound)
}

func TestRevisionsAreShared(t *testing.T) {
	s := open(t)
	for _, name := range []string{"f", "g"} {
		_, err := put(t, s, name, catalog.Applied, "same", false)
		require.NoError(t, err)
	}
	require.Equal(t, 1, revisions(t, s))
	require.NoError(t, s.Update(func(tx store.Tx) error { return catalog.Remove(tx, "f") }))
	require.NoError(t, s.View(func(r store.Reader) error {
		_, err := catalog.Files(r, digest("same"))
		return err
	}))
	require.NoError(t, s.Update(func(tx store.Tx) error { return catalog.Remove(tx, "g") }))
	require.Zero(t, revisions(t, s))
}

func TestOrigins(t *testing.T) {
	s := open(t)
	_, err := put(t, s, "f", catalog.Pushed, "one", false)
	require.NoError(t, err)
	_, err = put(t, s, "f", catalog.FromDir, "two", false)
	var origin *catalog.OriginError
	require.ErrorAs(t, err, &origin)
	require.Equal(t, catalog.OriginError{Name: "f", Has: catalog.Pushed, Want: catalog.FromDir}, *origin)
	require.ErrorContains(t, err, "perigee functions remove f")
	_, err = put(t, s, "f", catalog.Applied, "two", false)
	require.ErrorContains(t, err, "--take")
	require.Equal(t, 1, revisions(t, s))
	e, err := put(t, s, "f", catalog.FromDir, "two", true)
	require.NoError(t, err)
	require.Equal(t, catalog.FromDir, e.Origin)
	require.Equal(t, []string{digest("one")}, e.Previous)
}

func TestPause(t *testing.T) {
	for _, faults := range []bool{false, true} {
		s := open(t)
		_, err := put(t, s, "f", catalog.Applied, "one", false)
		require.NoError(t, err)
		require.NoError(t, s.Update(func(tx store.Tx) error {
			e, err := catalog.Pause(tx, "f", "it kills workers", faults, noon)
			require.Equal(t, "it kills workers", e.Paused)
			return err
		}))
		e, err := put(t, s, "f", catalog.Applied, "one", false)
		require.NoError(t, err)
		require.NotEmpty(t, e.Paused, "it is the same revision")
		e, err = put(t, s, "f", catalog.Applied, "two", false)
		require.NoError(t, err)
		require.Equal(t, faults, e.Paused == "", "a new revision lifts only a pause that faults caused")
		require.NoError(t, s.Update(func(tx store.Tx) error {
			e, err := catalog.Resume(tx, "f")
			require.Empty(t, e.Paused)
			require.True(t, e.PausedAt.IsZero())
			return err
		}))
	}
}

func TestBounds(t *testing.T) {
	s := open(t)
	long := strings.Repeat("x", catalog.MaxBytes)
	many := map[string][]byte{}
	for i := range catalog.MaxFiles + 1 {
		many[fmt.Sprint(i)] = nil
	}
	good := catalog.Entry{Name: "f", Origin: catalog.Applied, Revision: digest("x")}
	for name, c := range map[string]struct {
		entry catalog.Entry
		files map[string][]byte
	}{
		"no name":    {catalog.Entry{Origin: "dir", Revision: digest("x")}, files("x")},
		"no origin":  {catalog.Entry{Name: "f", Revision: digest("x")}, files("x")},
		"no digest":  {catalog.Entry{Name: "f", Origin: "dir"}, files("x")},
		"too large":  {good, map[string][]byte{"main.lua": []byte(long)}},
		"too many":   {good, many},
		"no files":   {good, nil},
		"empty path": {good, map[string][]byte{"": nil}},
		"root path":  {good, map[string][]byte{"/etc/passwd": nil}},
	} {
		t.Run(name, func(t *testing.T) {
			err := s.Update(func(tx store.Tx) error {
				_, err := catalog.Put(tx, c.entry, c.files, false)
				return err
			})
			require.ErrorIs(t, err, catalog.ErrBounds)
		})
	}
}

// TestLargestFits puts the largest bundle there can be, of bytes that do not compress, together with all else of an update.
func TestLargestFits(t *testing.T) {
	s := open(t)
	content := make([]byte, catalog.MaxBytes-len("main.lua"))
	r := rand.NewChaCha8([32]byte{})
	_, _ = r.Read(content)
	for i := range 10 {
		content[0] = byte(i)
		rev := digest(string(content))
		require.NoError(t, s.Update(func(tx store.Tx) error {
			tx.Urgent()
			_, err := catalog.Put(tx, catalog.Entry{Name: "f", Origin: catalog.Applied, Revision: rev},
				map[string][]byte{"main.lua": content}, false)
			return err
		}))
		require.NoError(t, s.Flush(t.Context()))
		require.NoError(t, s.View(func(r store.Reader) error {
			got, err := catalog.Files(r, rev)
			require.True(t, bytes.Equal(content, got["main.lua"]))
			return err
		}))
	}
	require.Equal(t, catalog.MaxPrevious+1, revisions(t, s))
}

func TestTooManyFunctions(t *testing.T) {
	s := open(t)
	for i := range catalog.MaxFunctions {
		_, err := put(t, s, fmt.Sprint(i), catalog.Applied, "same", false)
		require.NoError(t, err)
	}
	_, err := put(t, s, "one more", catalog.Applied, "same", false)
	require.ErrorIs(t, err, catalog.ErrBounds)
	_, err = put(t, s, "7", catalog.Applied, "another", false)
	require.NoError(t, err)
}

func TestDamageIsNoticedAndMended(t *testing.T) {
	s := open(t)
	for _, name := range []string{"f", "g"} {
		_, err := put(t, s, name, catalog.Applied, name, false)
		require.NoError(t, err)
	}
	rev := store.NewKey(store.Catalog).String("r").String(digest("f"))
	entry := store.NewKey(store.Catalog).String("f").String("f")
	harm := func(key []byte, fn func(b []byte) []byte) {
		require.NoError(t, s.Update(func(tx store.Tx) error {
			b, _, err := tx.Get(key)
			tx.Put(key, fn(bytes.Clone(b)))
			return err
		}))
	}
	read := func() error {
		return s.View(func(r store.Reader) error {
			_, err := catalog.Files(r, digest("f"))
			return err
		})
	}
	for name, fn := range map[string]func(b []byte) []byte{
		"a bit":    func(b []byte) []byte { b[40] ^= 1; return b },
		"the sum":  func(b []byte) []byte { b[0] ^= 1; return b },
		"the tail": func(b []byte) []byte { return b[:50] },
		"all":      func([]byte) []byte { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			harm(rev, fn)
			require.ErrorIs(t, read(), store.ErrDamaged)
			require.ErrorContains(t, read(), "apply the function again")
			_, err := put(t, s, "f", catalog.Applied, "f", false)
			require.NoError(t, err)
			require.NoError(t, read())
		})
	}

	harm(entry, func(b []byte) []byte { return b[:10] })
	require.NoError(t, s.View(func(r store.Reader) error {
		all, err := catalog.List(r)
		require.ErrorIs(t, err, store.ErrDamaged)
		require.ErrorContains(t, err, "function f")
		require.Len(t, all, 1, "the other one is good")
		return nil
	}))
	_, err := put(t, s, "g", catalog.Applied, "g2", false)
	require.NoError(t, err)
	_, err = put(t, s, "f", catalog.Applied, "f2", false)
	require.NoError(t, err)
	require.NoError(t, s.Update(catalog.Sweep))
	require.Equal(t, 3, revisions(t, s), "f2, g and g2: what only the damaged entry had is gone")
}

// TestNothingIsLeftBehind does random things to a few functions: what they refer to is there, and nothing else.
func TestNothingIsLeftBehind(t *testing.T) {
	s := open(t)
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.SampledFrom([]string{"f", "g", "h"})
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				n, text := name.Draw(t, "name"), fmt.Sprint(rapid.IntRange(0, 6).Draw(t, "text"))
				err := s.Update(func(tx store.Tx) error {
					_, err := catalog.Put(tx, catalog.Entry{Name: n, Origin: "dir", Revision: digest(text)}, files(text), false)
					return err
				})
				if err != nil {
					t.Fatal(err)
				}
			},
			"rollback": func(t *rapid.T) {
				n := name.Draw(t, "name")
				_ = s.Update(func(tx store.Tx) error {
					_, err := catalog.Rollback(tx, n, "", noon)
					return err
				})
			},
			"remove": func(t *rapid.T) {
				n := name.Draw(t, "name")
				_ = s.Update(func(tx store.Tx) error { return catalog.Remove(tx, n) })
			},
			"": func(t *rapid.T) {
				err := s.View(func(r store.Reader) error {
					all, err := catalog.List(r)
					if err != nil {
						return err
					}
					want := map[string]bool{}
					for _, e := range all {
						for _, d := range append(e.Previous, e.Revision) {
							want[d] = true
							if _, err := catalog.Files(r, d); err != nil {
								return err
							}
						}
					}
					have := 0
					err = r.Scan(store.NewKey(store.Catalog).String("r"), nil, func(_, _ []byte) bool { have++; return true })
					if err == nil && have != len(want) {
						err = fmt.Errorf("%d revisions, want %d", have, len(want))
					}
					return err
				})
				if err != nil {
					t.Fatal(err)
				}
			},
		})
	})
}
