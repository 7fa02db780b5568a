package store

import (
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func written(pairs ...string) map[string]entry {
	m := map[string]entry{}
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]] = entry{value: []byte(pairs[i+1])}
	}
	return m
}

func TestRecentHoldsWhatWasWrittenLast(t *testing.T) {
	r := newRecent(recentBytes)
	r.committed(written("a", "1", "b", "2"))
	r.committed(written("a", "3"))
	r.committed(map[string]entry{"b": {deleted: true}})
	v, ok := r.get([]byte("a"))
	require.True(t, ok)
	require.Equal(t, "3", string(v))
	_, ok = r.get([]byte("b"))
	require.False(t, ok)
	r.forget()
	_, ok = r.get([]byte("a"))
	require.False(t, ok)
}

// TestRecentIsBounded: it forgets what was not written for long, keeps what is written again and again, and takes nothing large.
func TestRecentIsBounded(t *testing.T) {
	const most = 64 << 10
	r := newRecent(most)
	r.committed(written("large", strings.Repeat("x", recentEntry)))
	_, ok := r.get([]byte("large"))
	require.False(t, ok)
	for i := range 10_000 {
		r.committed(written("often", strconv.Itoa(i), strconv.Itoa(i), "once"))
		v, ok := r.get([]byte("often"))
		require.True(t, ok)
		require.Equal(t, strconv.Itoa(i), string(v), "never the one in the old map")
	}
	_, ok = r.get([]byte("0"))
	require.False(t, ok)
	var bytes int64
	for _, m := range []map[string]entry{r.young, r.old} {
		for k, e := range m {
			bytes += int64(len(k)+len(e.value)) + recentOverhead
		}
	}
	require.LessOrEqual(t, bytes, int64(most))
	require.Greater(t, len(r.young)+len(r.old), 100)
}

// TestGetFromRecent: what was written last is not looked for on the disk.
func TestGetFromRecent(t *testing.T) {
	s := open(t, t.TempDir(), small())
	put(t, s, "a", "1")
	require.NoError(t, s.Flush(t.Context()))
	v, ok := s.recent.get(key("a"))
	require.True(t, ok)
	require.Equal(t, "1", string(v))
	got, _ := get(t, s, "a")
	require.Equal(t, "1", got)
}
