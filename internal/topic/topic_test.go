package topic

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestCheck(t *testing.T) {
	for _, s := range []string{"a", "/", "a/b", "/a", "a/", "a//b", "$SYS/x", "ä/ö", " ", "a b"} {
		require.NoError(t, CheckName(s), s)
		require.NoError(t, CheckFilter(s), s)
	}
	for _, s := range []string{"#", "+", "a/#", "+/a", "a/+/b/#", "$SYS/#", "/+"} {
		require.ErrorContains(t, CheckName(s), "wildcard", s)
		require.NoError(t, CheckFilter(s), s)
	}
	for s, want := range map[string]string{
		"": "empty", "a\x00": "NUL", "\xff": "UTF-8", strings.Repeat("a", MaxLen+1): "at most 65535", strings.Repeat("/", MaxLevels): "levels",
	} {
		require.ErrorContains(t, CheckName(s), want)
		require.ErrorContains(t, CheckFilter(s), want)
		require.Less(t, len(CheckName(s).Error()), 200)
	}
	for s, want := range map[string]string{"#/a": "last", "a#": "whole level", "a/b+": "whole level", "++": "whole level", "##": "whole level", "$share/g/a": "shared"} {
		require.ErrorContains(t, CheckFilter(s), want, s)
	}
	require.True(t, System("$SYS"))
	require.False(t, System("a/$b"))
}

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		filter, name string
		want         bool
	}{
		{"a", "a", true}, {"a", "b", false}, {"a", "a/b", false}, {"a/b", "a", false}, {"+", "a", true}, {"+", "a/b", false}, {"+", "/a", false},
		{"/+", "/a", true}, {"+/+", "/a", true}, {"+/+", "a", false}, {"#", "a", true}, {"#", "a/b/c", true}, {"#", "/", true}, {"a/#", "a", true},
		{"a/#", "a/b", true}, {"a/#", "a/b/c", true}, {"a/#", "ab", false}, {"a/#", "b", false}, {"a/+/c", "a/b/c", true}, {"a/+/c", "a//c", true},
		{"a/+", "a", false}, {"a/+", "a/", true}, {"+/#", "a", true}, {"a/+/#", "a", false}, {"a/+/#", "a/b", true}, {"#", "$SYS/a", false},
		{"+/a", "$SYS/a", false}, {"$SYS/#", "$SYS/a", true}, {"$SYS/+", "$SYS/a", true}, {"a/#", "a/$b", true}, {"a/+", "a/$b", true}, {"a//b", "a//b", true},
	} {
		require.Equal(t, c.want, Match(c.filter, c.name), "%s on %s", c.filter, c.name)
	}
}

// levels draws few different levels, so that filters meet.
func levels(t *rapid.T, label string, wild bool) string {
	words := []string{"a", "b", "", "$a"}
	if wild {
		words = append(words, "+", "+")
	}
	s := strings.Join(rapid.SliceOfN(rapid.SampledFrom(words), 1, 4).Draw(t, label), "/")
	if wild && rapid.Bool().Draw(t, label+" #") {
		if rapid.Bool().Draw(t, label+" only") {
			return "#"
		}
		s += "/#"
	}
	if s == "" {
		return "a"
	}
	return s
}

// names are all names of up to five levels over an alphabet that has one word that no filter names.
func names() []string {
	words := []string{"a", "b", "", "$a", "z"}
	all := slices.Clone(words)
	last := all
	for range 4 {
		var next []string
		for _, p := range last {
			for _, w := range words {
				next = append(next, p+"/"+w)
			}
		}
		all, last = append(all, next...), next
	}
	return all // "" too, which is no name: what holds with it is simpler and does not harm
}

func TestCoversAndOverlapsMean(t *testing.T) {
	all := names()
	rapid.Check(t, func(t *rapid.T) {
		a, b := levels(t, "a", true), levels(t, "b", true)
		covers, overlaps := true, false
		for _, n := range all {
			ma, mb := Match(a, n), Match(b, n)
			covers = covers && (ma || !mb)
			overlaps = overlaps || (ma && mb)
		}
		if got := Covers(a, b); got != covers {
			t.Fatalf("Covers(%q, %q) = %v", a, b, got)
		}
		if got := Overlaps(a, b); got != overlaps {
			t.Fatalf("Overlaps(%q, %q) = %v", a, b, got)
		}
	})
}

func TestFold(t *testing.T) {
	sub := func(q byte, f ...string) (s []Sub) {
		for _, f := range f {
			s = append(s, Sub{f, q})
		}
		return s
	}
	require.Empty(t, Fold(nil))
	require.Equal(t, [][]Sub{sub(1, "a", "b")}, Fold(sub(1, "b", "a", "a")))
	require.Equal(t, [][]Sub{{{"a/#", 2}}}, Fold([]Sub{{"a/#", 0}, {"a/+", 2}, {"a/b", 1}}))
	require.Equal(t, [][]Sub{sub(1, "#"), nil}[:1], Fold(sub(1, "#", "+/#", "a/+")))
	require.Equal(t, [][]Sub{sub(1, "#", "$SYS/#")}, Fold(sub(1, "#", "$SYS/#")))
	require.Equal(t, [][]Sub{sub(1, "+/b"), sub(1, "a/+")}, Fold(sub(1, "a/+", "+/b")))
	// What has a place keeps it.
	prev := [][]Sub{sub(1, "a/+"), sub(1, "+/b")}
	require.Equal(t, [][]Sub{sub(1, "a/+", "c"), sub(1, "+/b")}, Refold(prev, sub(1, "a/+", "+/b", "c")))
	require.Equal(t, [][]Sub{sub(1, "c"), sub(1, "+/b")}, Refold(prev, sub(1, "+/b", "c")))
	require.Equal(t, [][]Sub{sub(1, "a/+")}, Refold(prev, sub(1, "a/+")))
}

func TestFoldDeliversOnce(t *testing.T) {
	all := names()
	gen := rapid.Custom(func(t *rapid.T) Sub { return Sub{levels(t, "f", true), byte(rapid.IntRange(0, 2).Draw(t, "qos"))} })
	rapid.Check(t, func(t *rapid.T) {
		subs := rapid.SliceOfN(gen, 0, 6).Draw(t, "subs")
		groups := Refold(Fold(rapid.SliceOfN(gen, 0, 6).Draw(t, "before")), subs)
		for _, n := range all[:800] {
			want, qos := false, byte(0)
			for _, s := range subs {
				if Match(s.Filter, n) {
					want, qos = true, max(qos, s.QoS)
				}
			}
			got, best := false, byte(0)
			for _, g := range groups {
				hits := 0
				for _, s := range g {
					if Match(s.Filter, n) {
						hits++
						best = max(best, s.QoS)
					}
				}
				if hits > 1 {
					t.Fatalf("%v: %q is delivered twice in %v", subs, n, g)
				}
				got = got || hits == 1
			}
			if got != want || best < qos {
				t.Fatalf("%v became %v: %q is wanted %v with qos %d, got %v with %d", subs, groups, n, want, qos, got, best)
			}
		}
	})
}

func TestPattern(t *testing.T) {
	p, err := ParsePattern("zigbee2mqtt/{room}/+/{what}/#")
	require.NoError(t, err)
	require.Equal(t, "zigbee2mqtt/+/+/+/#", p.Filter())
	require.Equal(t, []string{"room", "what"}, p.Names())
	require.Equal(t, "zigbee2mqtt/{room}/+/{what}/#", p.String())
	params, ok := p.Match("zigbee2mqtt/cellar/x/light/y/z")
	require.True(t, ok)
	require.Equal(t, map[string]string{"room": "cellar", "what": "light"}, params)
	params, ok = p.Match("zigbee2mqtt//x/")
	require.True(t, ok)
	require.Equal(t, map[string]string{"room": "", "what": ""}, params)
	_, ok = p.Match("zigbee2mqtt/cellar")
	require.False(t, ok)

	p, err = ParsePattern("{a}")
	require.NoError(t, err)
	_, ok = p.Match("$SYS")
	require.False(t, ok)
	p, err = ParsePattern("a/b")
	require.NoError(t, err)
	params, ok = p.Match("a/b")
	require.True(t, ok)
	require.Nil(t, params)

	for in, want := range map[string]string{
		"a/x{b}": "whole level", "{a": "whole level", "a}": "whole level", "{a}{b}": "whole level", "{}": "no name", "{1a}": "no name", "{a-b}": "no name",
		"{a}/{a}": "twice", "{topic}": "something else", "": "empty", "#/{a}": "last", "{{a}}": "whole level", "{" + strings.Repeat("a", 33) + "}": "no name",
	} {
		_, err := ParsePattern(in)
		require.ErrorContains(t, err, want, in)
	}
}

func TestTree(t *testing.T) {
	var tree Tree[int]
	found := func(name string) []int {
		var got []int
		tree.Match(name, func(v int) { got = append(got, v) })
		slices.Sort(got)
		return got
	}
	require.Empty(t, found("a"))
	tree.Add("a/+", 1)
	tree.Add("a/+", 1)
	tree.Add("a/+", 2)
	tree.Add("#", 3)
	tree.Add("a/#", 4)
	tree.Add("$SYS/+", 5)
	require.Equal(t, 5, tree.Len())
	require.Equal(t, []int{1, 2, 3, 4}, found("a/b"))
	require.Equal(t, []int{3, 4}, found("a"))
	require.Equal(t, []int{5}, found("$SYS/x"))
	require.False(t, tree.Remove("a/b", 1))
	require.False(t, tree.Remove("a/+", 9))
	require.True(t, tree.Remove("a/+", 1))
	require.Equal(t, []int{2, 3, 4}, found("a/b"))
	for f, v := range map[string]int{"a/+": 2, "#": 3, "a/#": 4, "$SYS/+": 5} {
		require.True(t, tree.Remove(f, v))
	}
	require.Equal(t, 0, tree.Len())
	require.True(t, tree.root.empty(), "levels are left behind")
}

// checkTree compares a tree that saw adds and removes with Match on what is left.
func checkTree(filters []string, remove []bool, name string) error {
	var tree Tree[int]
	for i, f := range filters {
		tree.Add(f, i)
	}
	var want []int
	for i, f := range filters {
		if i < len(remove) && remove[i] {
			tree.Remove(f, i)
		} else if Match(f, name) {
			want = append(want, i)
		}
	}
	var got []int
	tree.Match(name, func(v int) { got = append(got, v) })
	slices.Sort(got)
	if !slices.Equal(got, want) {
		return fmt.Errorf("%q, removed %v, on %q: tree finds %v, Match %v", filters, remove, name, got, want)
	}
	return nil
}

func TestTreeAgreesWithMatch(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var filters []string
		for i := range rapid.IntRange(0, 8).Draw(t, "filters") {
			filters = append(filters, levels(t, fmt.Sprint("f", i), true))
		}
		remove := rapid.SliceOfN(rapid.Bool(), 0, 8).Draw(t, "remove")
		if err := checkTree(filters, remove, levels(t, "name", false)); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzTree(f *testing.F) {
	f.Add("a/+\n#\n$SYS/#\n/a\n", "a/b", byte(1))
	f.Add("+/+\na//\n", "//", byte(0))
	f.Fuzz(func(t *testing.T, list, name string, mask byte) {
		var filters []string
		for s := range strings.SplitSeq(list, "\n") {
			if CheckFilter(s) == nil && len(filters) < 8 {
				filters = append(filters, s)
			}
		}
		if CheckName(name) != nil {
			return
		}
		var remove []bool
		for i := range filters {
			remove = append(remove, mask&(1<<i) != 0)
		}
		if err := checkTree(filters, remove, name); err != nil {
			t.Fatal(err)
		}
		if p, err := ParsePattern(name); err == nil {
			p.Match(name)
		}
	})
}

func BenchmarkTree(b *testing.B) {
	var tree Tree[int]
	for i := range 1000 {
		tree.Add(fmt.Sprintf("site/%d/+/temperature", i), i)
	}
	tree.Add("site/+/kitchen/#", -1)
	for b.Loop() {
		n := 0
		tree.Match("site/500/kitchen/temperature", func(int) { n++ })
		if n != 2 {
			b.Fatal(n)
		}
	}
}
