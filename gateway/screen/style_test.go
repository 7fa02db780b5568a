package screen

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestStyleOfTheEnvironment(t *testing.T) {
	tests := []struct {
		env  map[string]string
		want Style
	}{
		{map[string]string{}, Style{ASCII: true, Colour: true}},
		{map[string]string{"LANG": "C.UTF-8"}, Style{Colour: true}},
		{map[string]string{"LANG": "de_DE.utf8", "NO_COLOR": "1"}, Style{}},
		{map[string]string{"LANG": "C.UTF-8", "LC_ALL": "C"}, Style{ASCII: true, Colour: true}},
		{map[string]string{"LANG": "C", "LC_CTYPE": "C.UTF-8"}, Style{Colour: true}},
	}
	for _, tt := range tests {
		require.Equal(t, tt.want, StyleOf(func(k string) string { return tt.env[k] }), "%v", tt.env)
	}
}

func TestCleanText(t *testing.T) {
	utf, ascii := Style{}, Style{ASCII: true}
	require.Equal(t, "a b ?[31mc", utf.Clean("a\nb\t\x1b[31mc"))
	require.Equal(t, "naïve 21 °C → ok…", utf.Clean("naïve 21 °C → ok…"))
	require.Equal(t, "na?ve 21 C -> ok~", ascii.Clean("naïve 21 °C → ok…"))
	require.Equal(t, "ab?", utf.Clean("a\u200db\xff"), "nothing without width, nothing that is no UTF-8")
	require.Equal(t, 4, Cells("温度"))
}

// TestFit: whatever the text, it takes exactly the cells that there are, and no character that a terminal would act upon.
func TestFit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		st := Style{ASCII: rapid.Bool().Draw(t, "ascii")}
		text := st.Clean(rapid.String().Draw(t, "text"))
		n := rapid.IntRange(0, 30).Draw(t, "n")
		require.Equal(t, n, Cells(st.Fit(text, n)))
		require.GreaterOrEqual(t, Cells(st.Right(text, n)), n)
		for _, r := range text {
			require.False(t, r < ' ' || r == 0x7f || st.ASCII && r > 0x7e)
		}
	})
}

func TestSpark(t *testing.T) {
	st := Style{}
	require.Equal(t, "  ▁▄▆█", st.Spark([]float64{1, 4, 6, 9}, 6))
	require.Equal(t, "▅▅▅", st.Spark([]float64{7, 7, 7, 7}, 3), "a calm value is calm")
	require.Equal(t, " _#", Style{ASCII: true}.Spark([]float64{1, 9}, 3))
	require.Equal(t, "   ", st.Spark(nil, 3))
	require.Empty(t, strings.TrimSpace(st.Spark(nil, 0)))
}
