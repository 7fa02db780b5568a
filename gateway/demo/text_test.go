package demo

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestStyleOfTheEnvironment(t *testing.T) {
	tests := []struct {
		env  map[string]string
		want style
	}{
		{map[string]string{}, style{ascii: true, colour: true}},
		{map[string]string{"LANG": "C.UTF-8"}, style{colour: true}},
		{map[string]string{"LANG": "de_DE.utf8", "NO_COLOR": "1"}, style{}},
		{map[string]string{"LANG": "C.UTF-8", "LC_ALL": "C"}, style{ascii: true, colour: true}},
		{map[string]string{"LANG": "C", "LC_CTYPE": "C.UTF-8"}, style{colour: true}},
	}
	for _, tt := range tests {
		require.Equal(t, tt.want, styleOf(func(k string) string { return tt.env[k] }), "%v", tt.env)
	}
}

func TestCleanText(t *testing.T) {
	utf, ascii := style{}, style{ascii: true}
	require.Equal(t, "a b ?[31mc", utf.clean("a\nb\t\x1b[31mc"))
	require.Equal(t, "naïve 21 °C → ok…", utf.clean("naïve 21 °C → ok…"))
	require.Equal(t, "na?ve 21 C -> ok~", ascii.clean("naïve 21 °C → ok…"))
	require.Equal(t, "ab?", utf.clean("a\u200db\xff"), "nothing without width, nothing that is no UTF-8")
	require.Equal(t, 4, cells("温度"))
}

// TestFit: whatever the text, it takes exactly the cells that there are, and no character that a terminal would act upon.
func TestFit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		st := style{ascii: rapid.Bool().Draw(t, "ascii")}
		text := st.clean(rapid.String().Draw(t, "text"))
		n := rapid.IntRange(0, 30).Draw(t, "n")
		require.Equal(t, n, cells(st.fit(text, n)))
		require.GreaterOrEqual(t, cells(st.right(text, n)), n)
		for _, r := range text {
			require.False(t, r < ' ' || r == 0x7f || st.ascii && r > 0x7e)
		}
	})
}

func TestSpark(t *testing.T) {
	st := style{}
	require.Equal(t, "  ▁▄▆█", st.spark([]float64{1, 4, 6, 9}, 6))
	require.Equal(t, "▅▅▅", st.spark([]float64{7, 7, 7, 7}, 3), "a calm value is calm")
	require.Equal(t, " _#", style{ascii: true}.spark([]float64{1, 9}, 3))
	require.Equal(t, "   ", st.spark(nil, 3))
	require.Empty(t, strings.TrimSpace(st.spark(nil, 0)))
}

func TestNumbersForPeople(t *testing.T) {
	for d, want := range map[time.Duration]string{
		340 * time.Microsecond: "0.34 ms", 59 * time.Millisecond: "59 ms", 1500 * time.Millisecond: "1.5 s",
		45 * time.Second: "45 s", 83 * time.Second: "1m 23s", 7500 * time.Second: "2h 5m", -1: "-",
	} {
		require.Equal(t, want, brief(d))
	}
	require.Equal(t, "-", ratio(0, 0))
	require.Equal(t, "100", ratio(5, 5))
	require.Equal(t, "99.9", ratio(99999, 100000), "not everything is not 100 %")
	require.Equal(t, "1 repeat", count(1, "repeat"))
	require.Equal(t, "18 000 repeats", count(18000, "repeat"))
}
