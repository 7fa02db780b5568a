package cli

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/perigee-iot/perigee/gateway/api"
	"github.com/perigee-iot/perigee/gateway/screen"
)

func topAt(seconds int) *api.Top {
	n := int64(seconds)
	return &api.Top{Gateway: "gw-01", Uptime: time.Duration(seconds) * time.Second, CPUs: 4, Workers: api.WorkerStatus{Running: 1, Max: 2},
		Functions: []api.TopFunction{
			{Name: "calm", State: "active", Runs: n, CPU: time.Duration(n) * time.Millisecond, P99: 2 * time.Millisecond},
			{Name: "wild", State: "active", Runs: 1000 * n, Faults: 500 * n, CPU: time.Duration(n) * 900 * time.Millisecond, Memory: 5 << 20, In: 2048 * n, Out: 10 * n, Written: 100 * n, Stored: 77, Waiting: 12},
			{Name: "off", State: "paused"},
		}}
}

func TestTopRates(t *testing.T) {
	m := &topModel{}
	m.take(topAt(10))
	require.Zero(t, m.report().Interval)
	require.Zero(t, m.report().CPU)
	m.take(topAt(15))
	r := m.report()
	require.Equal(t, 5*time.Second, r.Interval)
	require.Equal(t, []string{"wild", "calm", "off"}, []string{r.Functions[0].Name, r.Functions[1].Name, r.Functions[2].Name})
	require.Equal(t, topRow{Name: "wild", State: "active", CPU: 90, Runs: 1000, Faults: 500, Memory: 5 << 20, Waiting: 12, Flash: 100, In: 2048, Out: 10, Stored: 77}, r.Functions[0])
	require.InDelta(t, 90.1, r.CPU, 1e-9)
	for key, first := range map[byte]string{'t': "calm", 'n': "calm", 'm': "wild", 'C': "wild", 'x': "wild"} {
		require.True(t, m.press(key))
		require.Equal(t, first, m.report().Functions[0].Name, string(key))
	}
	for _, key := range []byte{'q', 'Q', 0, 3, 4} {
		require.False(t, m.press(key))
	}
	m.take(topAt(1)) // a new process
	require.Zero(t, m.report().Runs)
	again := topAt(2)
	again.Functions[1].Runs = 5 // a function that was removed and applied anew
	m.take(again)
	m.press('n')
	require.Equal(t, "wild", m.report().Functions[2].Name)
	require.Zero(t, m.report().Functions[2].Runs)
}

func TestTopFrame(t *testing.T) {
	m := &topModel{}
	now := time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)
	m.take(topAt(10))
	text := strings.Join(topFrame(m, screen.Style{}, now, 80, 10), "\n")
	require.Contains(t, text, "measuring …")
	m.take(topAt(11))
	lines := topFrame(m, screen.Style{}, now, 100, 10)
	require.Equal(t, []string{
		" PERIGEE top  gw-01  up 11s  12:00:00",
		" 1 001 runs/s   CPU 90.1 % of 400 %   workers 1 of 2, 0 busy   0 waiting, 0 in the inbox, 0 dead",
		" FUNCTION            CPU %▾  RUNS/s  FAULT/s     P99  MEMORY   WAIT  FLASH/s    IN/s   OUT/s   STATE",
		" wild                  90.0   1 000      500       0   5.0 M     12    100 B   2.0 K    10 B    77 B",
		" calm                   0.1     1.0        0   2.0ms       -      0      0 B     0 B     0 B     0 B",
		" off (paused)           0.0       0        0       0       -      0      0 B     0 B     0 B     0 B",
	}, trimmed(lines[:6]))
	m.err = errors.New("no gateway answers\nhint: …")
	require.Contains(t, topFrame(m, screen.Style{ASCII: true}, now, 80, 10)[1], " no gateway answers ")
	colour := strings.Join(topFrame(m, screen.Style{Colour: true}, now, 80, 10), "\n")
	require.Contains(t, colour, screen.Red+" wild")
	require.Contains(t, colour, screen.Yellow+" off")
}

func trimmed(lines []string) (out []string) {
	for _, l := range lines {
		out = append(out, strings.TrimRight(l, " "))
	}
	return out
}

// TestTopFrameFits: whatever is shown, wherever.
func TestTopFrameFits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &topModel{by: rapid.IntRange(0, len(topColumns())-1).Draw(t, "by")}
		for _, at := range []int{1, rapid.IntRange(1, 3).Draw(t, "at")} {
			a := topAt(at)
			for i := range rapid.IntRange(0, 50).Draw(t, "more") {
				n := rapid.Int64Range(0, 1<<50).Draw(t, "n")
				a.Functions = append(a.Functions, api.TopFunction{Name: fmt.Sprint(rapid.String().Draw(t, "name"), i), State: "active", Runs: n, CPU: time.Duration(n), P99: time.Duration(n), In: n, Memory: n, Stored: n})
			}
			m.take(a)
		}
		st := screen.Style{ASCII: rapid.Bool().Draw(t, "ascii"), Colour: rapid.Bool().Draw(t, "colour")}
		cols, rows := rapid.IntRange(0, 200).Draw(t, "cols"), rapid.IntRange(0, 60).Draw(t, "rows")
		lines := topFrame(m, st, time.Now(), cols, rows)
		if cols == 0 || rows == 0 {
			require.Empty(t, lines)
			return
		}
		require.Equal(t, rows, len(lines))
		for _, l := range lines {
			bare := regexp.MustCompile("\x1b\\[[0-9]+m").ReplaceAllString(l, "")
			if bare != "" {
				require.Equal(t, cols, screen.Cells(bare), "%q", bare)
			}
			require.NotContains(t, bare, "\x1b")
			for _, r := range bare {
				require.False(t, st.ASCII && r > 126, "%q", bare)
			}
		}
	})
}
