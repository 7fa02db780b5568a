package recording

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/perigee-iot/perigee/functions"
)

var update = flag.Bool("update", false, "write what the comparisons are into testdata")

func outcome(t *testing.T, text string) *Outcome {
	t.Helper()
	o := new(Outcome)
	require.NoError(t, json.Unmarshal([]byte(text), o), text)
	return o
}

// TestCompare: testdata/compare.txt has pairs of outcomes, each with what is different.
func TestCompare(t *testing.T) {
	const file = "testdata/compare.txt"
	b, err := os.ReadFile(file)
	require.NoError(t, err)
	var out strings.Builder
	for i, part := range strings.Split(strings.TrimSpace(string(b)), "\n\n") {
		lines := strings.Split(part, "\n")
		require.GreaterOrEqual(t, len(lines), 3, part)
		if i > 0 {
			out.WriteString("\n")
		}
		fmt.Fprintf(&out, "%s\n", strings.Join(lines[:3], "\n"))
		c := Compare(outcome(t, lines[1]), outcome(t, lines[2]))
		if c.Same() {
			out.WriteString("same\n")
		}
		write := func(what string, p *Pair) {
			if p != nil {
				fmt.Fprintf(&out, "%s: %s → %s\n", what, p.Recorded, p.Now)
			}
		}
		write("outcome", c.What)
		write("fault", c.Fault)
		write("retry", c.Retry)
		for _, f := range c.Result {
			write("result "+f.Path, &f.Pair)
		}
		for _, d := range c.Effects {
			fmt.Fprintf(&out, "%s %s\n", d.Mark, d.Effect)
			for _, f := range d.Fields {
				write("  "+f.Path, &f.Pair)
			}
		}
	}
	if *update {
		require.NoError(t, os.WriteFile(file, []byte(out.String()), 0o644))
	}
	require.Equal(t, string(b), out.String())
}

// TestAlignment: whatever two lists have, each effect of both is accounted for once, equal lists have no difference, and the counts are those of the marks.
func TestAlignment(t *testing.T) {
	effects := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Effect {
		return Effect{Do: rapid.SampledFrom([]string{"publish", "state.set", "state.delete", "device"}).Draw(t, "do"), Name: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "name"),
			Payload: Payload{Data: json.RawMessage(rapid.SampledFrom([]string{"1", "2", `{"x":1}`}).Draw(t, "data"))}}
	}), 0, 12)
	rapid.Check(t, func(t *rapid.T) {
		was, is := &Outcome{What: "committed", Effects: effects.Draw(t, "was")}, &Outcome{What: "committed", Effects: effects.Draw(t, "is")}
		require.True(t, Compare(was, was).Same())
		counts := map[string]Count{}
		CountEffects(counts, was, is)
		recorded, now, differ := 0, 0, 0
		for _, n := range counts {
			recorded, now, differ = recorded+n.Recorded, now+n.Now, differ+n.Changed+n.Gone+n.New
		}
		require.Equal(t, len(was.Effects), recorded)
		require.Equal(t, len(is.Effects), now)
		require.Equal(t, differ == 0, Compare(was, is).Same())
	})
}

// TestHugeListsAreCompared, if not as well as small ones, within bounded memory.
func TestHugeListsAreCompared(t *testing.T) {
	list := func(n int, name string) (out []Effect) {
		for i := range n {
			out = append(out, Effect{Do: "publish", Name: fmt.Sprint(name, i)})
		}
		return out
	}
	was, is := &Outcome{Effects: list(3000, "a")}, &Outcome{Effects: list(3000, "b")}
	is.Effects[2999] = was.Effects[2999]
	counts := map[string]Count{}
	CountEffects(counts, was, is)
	require.Equal(t, Count{Recorded: 3000, Now: 3000, Same: 1, Gone: 2999, New: 2999}, counts["publish"])
}

func TestFaultsAreComparedWithoutTheirLine(t *testing.T) {
	fault := func(s string) *Outcome {
		return &Outcome{What: "dead", Fault: &functions.Fault{Kind: functions.FaultError, Message: s, Traceback: []string{s}}}
	}
	require.True(t, Compare(fault("main.lua:3: no"), fault("main.lua:31: no")).Same())
	require.True(t, Compare(fault("lib/x.lua:3: no"), fault("main.lua:31: no")).Same())
	require.False(t, Compare(fault("main.lua:3: no"), fault("main.lua:3: yes")).Same())
	require.False(t, Compare(fault("main.lua:x: no"), fault("main.lua:y: no")).Same())
}
