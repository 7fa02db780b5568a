package store

import (
	"bytes"
	"cmp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

type fields struct {
	s string
	u uint64
	t string
}

func (f fields) key() Key { return NewKey(State).String(f.s).Uint(f.u).String(f.t) }

func (f fields) compare(g fields) int {
	return cmp.Or(strings.Compare(f.s, g.s), cmp.Compare(f.u, g.u), strings.Compare(f.t, g.t))
}

func TestKeysCompareAsTheirFieldsDo(t *testing.T) {
	// Few and awkward bytes, so that prefixes and escapes are common.
	text := rapid.Custom(func(t *rapid.T) string {
		return string(rapid.SliceOfN(rapid.SampledFrom([]byte{0, 1, 2, 'a', 0xfe, 0xff}), 0, 5).Draw(t, "bytes"))
	})
	some := rapid.Custom(func(t *rapid.T) fields {
		return fields{text.Draw(t, "s"), rapid.Uint64().Draw(t, "u") >> rapid.IntRange(0, 63).Draw(t, "shift"), text.Draw(t, "t")}
	})
	rapid.Check(t, func(t *rapid.T) {
		a, b := some.Draw(t, "a"), some.Draw(t, "b")
		if rapid.Bool().Draw(t, "same") {
			b.s = a.s
		}
		if got, want := bytes.Compare(a.key(), b.key()), a.compare(b); got != want {
			t.Fatalf("keys compare as %d, fields as %d", got, want)
		}
		if a.s != b.s && bytes.HasPrefix(b.key(), NewKey(State).String(a.s)) {
			t.Fatalf("%q begins with the field of %q", b.s, a.s)
		}
		if got, want := bytes.HasPrefix(b.key(), NewKey(State).Prefix(a.s)), strings.HasPrefix(b.s, a.s); got != want {
			t.Fatalf("prefix of %q and %q: %v, want %v", a.s, b.s, got, want)
		}
		f := Parse(a.key())
		back := fields{f.String(), f.Uint(), f.String()}
		if back != a || f.Err() != nil || f.More() || f.Space() != State {
			t.Fatalf("came back as %+v, %v", back, f.Err())
		}
	})
}

func TestKeysShareNoMemory(t *testing.T) {
	base := NewKey(Inbox).String("f")
	a, b := base.Uint(1), base.Uint(2)
	require.NotEqual(t, a, b)
	require.Equal(t, NewKey(Inbox).String("f").Uint(1), a)
}

func TestParseRefusesWhatIsNoKey(t *testing.T) {
	for _, k := range [][]byte{nil, {}, {'s'}, {'s', 'a'}, {'s', 'a', 0}, {'s', 'a', 0, 7}, {'s', 0}} {
		f := Parse(k)
		_ = f.String()
		require.ErrorIs(t, f.Err(), ErrBadKey, "%q", k)
		require.Empty(t, f.String())
		require.Zero(t, f.Uint())
	}
	f := Parse(NewKey(State).String("a"))
	_ = f.String()
	_ = f.Uint()
	require.ErrorIs(t, f.Err(), ErrBadKey)
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(NewKey(State).String("a\x00b").Uint(7)))
	f.Fuzz(func(t *testing.T, k []byte) {
		p := Parse(k)
		s := p.String()
		u := p.Uint()
		if p.Err() == nil && !bytes.HasPrefix(k, NewKey(p.Space()).String(s).Uint(u)) {
			t.Fatalf("%q came back as %q and %d", k, s, u)
		}
	})
}
