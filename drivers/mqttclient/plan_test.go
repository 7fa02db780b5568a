package mqttclient

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/perigee-iot/perigee/drivers"
	"github.com/perigee-iot/perigee/internal/topic"
)

func planOf(slots ...map[string]sub) (p plan) {
	copy(p[:], slots)
	return p.clone()
}

func TestPlan(t *testing.T) {
	for _, c := range []struct {
		name  string
		old   plan
		want  []drivers.Filter
		slots int
		next  plan
		notes int
	}{
		{name: "nothing", slots: 4, next: planOf()},
		{
			name: "apart", slots: 4, want: []drivers.Filter{filter("a/#", 1), filter("b", 2)},
			next: planOf(map[string]sub{"a/#": {QoS: 1}, "b": {QoS: 2}}),
		},
		{
			name: "covered, with the higher QoS", slots: 4, want: []drivers.Filter{filter("a/#", 0), filter("a/b", 2), filter("a/+", 1)},
			next: planOf(map[string]sub{"a/#": {QoS: 2}}),
		},
		{
			name: "overlapping in part, with the higher QoS", slots: 4, want: []drivers.Filter{filter("a/+", 0), filter("+/b", 1)},
			next: planOf(map[string]sub{"+/b": {QoS: 1}}, map[string]sub{"a/+": {QoS: 1}}),
		},
		{
			name: "the older one stays below", slots: 4, old: planOf(map[string]sub{"a/+": {QoS: 1}}),
			want: []drivers.Filter{filter("a/+", 1), filter("+/b", 1)},
			next: planOf(map[string]sub{"a/+": {QoS: 1}}, map[string]sub{"+/b": {QoS: 1}}),
		},
		{
			name: "one that replaces others goes no lower than they are", slots: 4,
			old:  planOf(map[string]sub{"a/+": {QoS: 1}}, map[string]sub{"+/b": {QoS: 1}}),
			want: []drivers.Filter{filter("+/#", 1)},
			next: planOf(nil, map[string]sub{"+/#": {QoS: 1}}),
		},
		{
			name: "no session left", slots: 2, old: planOf(map[string]sub{"a/b/+": {QoS: 1}}, map[string]sub{"a/+/c": {QoS: 1}, "z": {}}),
			want: []drivers.Filter{filter("a/b/+", 1), filter("a/+/c", 1), filter("z", 0), filter("+/b/c", 2)}, notes: 1,
			next: planOf(map[string]sub{"a/b/+": {QoS: 2}}, map[string]sub{"#": {QoS: 2, Cover: true}}),
		},
		{
			name: "one session", slots: 1, want: []drivers.Filter{filter("a/b/+", 1), filter("a/+/c", 0), filter("z", 0)}, notes: 1,
			next: planOf(map[string]sub{"a/#": {QoS: 1, Cover: true}, "z": {}}),
		},
		{
			name: "a wider one stays while it is of use", slots: 1, old: planOf(map[string]sub{"a/#": {QoS: 1, Cover: true}, "z": {}}),
			want: []drivers.Filter{filter("a/+/c", 0)},
			next: planOf(map[string]sub{"a/#": {QoS: 0, Cover: true}}),
		},
		{
			name: "and goes when it is not", slots: 1, old: planOf(map[string]sub{"a/#": {QoS: 1, Cover: true}}),
			want: []drivers.Filter{filter("b", 0)},
			next: planOf(map[string]sub{"b": {}}),
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			next, notes := c.old.next(c.want, c.slots)
			require.Equal(t, c.next, next)
			require.Len(t, notes, c.notes)
		})
	}
}

// Whatever is asked for, one thing after another: every wanted message comes from exactly one session, none has filters that overlap,
// and a message that is still in a session from before is taken from the session that had it.
func TestPlanProperty(t *testing.T) {
	level := rapid.SampledFrom([]string{"a", "b", "+"})
	genFilter := rapid.Custom(func(t *rapid.T) drivers.Filter {
		text := level.Draw(t, "level")
		for range rapid.IntRange(0, 2).Draw(t, "levels") {
			text += "/" + level.Draw(t, "level")
		}
		if rapid.Bool().Draw(t, "#") {
			text += "/#"
		}
		return filter(text, byte(rapid.IntRange(0, 2).Draw(t, "qos")))
	})
	var names []string
	for _, x := range []string{"a", "b", "c"} {
		names = append(names, x)
		for _, y := range []string{"a", "b", "c"} {
			names = append(names, x+"/"+y, x+"/"+y+"/a", x+"/"+y+"/c")
		}
	}
	gets := func(p plan, slot int, name string) bool {
		for f := range p[slot] {
			if topic.Match(f, name) {
				return true
			}
		}
		return false
	}
	rapid.Check(t, func(t *rapid.T) {
		slots := rapid.IntRange(1, maxSessions).Draw(t, "slots")
		p := plan{}.clone()
		for range 4 {
			want := rapid.SliceOfN(genFilter, 0, 8).Draw(t, "want")
			old := p
			p, _ = old.next(want, slots)
			for i := range p {
				filters := p.filters(i)
				if i >= slots && len(filters) > 0 {
					t.Fatalf("slot %d of %d is used: %v", i, slots, p)
				}
				for x, f := range filters {
					for _, g := range filters[x+1:] {
						if topic.Overlaps(f, g) {
							t.Fatalf("%s and %s overlap in slot %d", f, g, i)
						}
					}
				}
			}
			for _, name := range names {
				var qos, got byte
				wanted, has := false, false
				for _, w := range want {
					if topic.Match(w.Topic, name) {
						wanted, qos = true, max(qos, w.QoS)
					}
				}
				lowest := -1
				for i := maxSessions - 1; i >= 0; i-- {
					for f, s := range p[i] {
						if topic.Match(f, name) {
							has, got, lowest = true, s.QoS, i
						}
					}
				}
				if wanted && (!has || got < qos) {
					t.Fatalf("%s is wanted with QoS %d: %v", name, qos, p)
				}
				// What an old session still holds must not be taken for a copy of what a lower session has only now begun to get.
				for i := range old {
					if wanted && gets(old, i, name) && lowest >= 0 && lowest < i {
						before := false
						for j := range i {
							before = before || gets(old, j, name)
						}
						if !before {
							t.Fatalf("%s was in slot %d and is now taken from slot %d: %v, %v", name, i, lowest, old, p)
						}
					}
				}
			}
		}
	})
}

func TestMemory(t *testing.T) {
	dir := t.TempDir()
	m, err := openMemory(dir, "tcp://h:1", "gw")
	require.NoError(t, err)
	require.False(t, m.known)
	p := planOf(map[string]sub{"a/#": {QoS: 1, Cover: true}}, map[string]sub{"+/b": {QoS: 2}})
	require.NoError(t, m.save(p))

	m, err = openMemory(dir, "tcp://h:1", "gw")
	require.NoError(t, err)
	require.True(t, m.known)
	require.Equal(t, p, m.Sessions)
	require.Empty(t, leftovers(t, dir))

	m, err = openMemory(dir, "tcp://other:1", "gw")
	require.NoError(t, err)
	require.False(t, m.known, "another broker knows other sessions")
	require.Equal(t, plan{}.clone(), m.Sessions)

	for _, bad := range []string{"", "{", `{"broker":1}`, `[]`, `{"sessions":{}}`} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, memoryFile), []byte(bad), 0o600))
		m, err = openMemory(dir, "tcp://h:1", "gw")
		require.Error(t, err)
		require.False(t, m.known)
		require.Equal(t, plan{}.clone(), m.Sessions)
	}

	m, err = openMemory("", "tcp://h:1", "gw")
	require.NoError(t, err)
	require.NoError(t, m.save(p))
	require.Equal(t, p, m.Sessions)
}

func leftovers(t *testing.T, dir string) []string {
	all, err := filepath.Glob(filepath.Join(dir, memoryFile+".*"))
	require.NoError(t, err)
	return all
}
