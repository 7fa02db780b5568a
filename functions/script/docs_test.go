package script

import (
	"os"
	"regexp"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// Every name that a script can use has an entry in docs/lua.md, and every entry is such a name.
func TestReferenceIsComplete(t *testing.T) {
	text, err := os.ReadFile("../../docs/lua.md")
	require.NoError(t, err)
	var documented []string
	for _, m := range regexp.MustCompile("(?m)^(?:### |\\| )`([a-z_][A-Za-z0-9_.]*)(\\([^`]*\\))?`").FindAllSubmatch(text, -1) {
		if name := string(m[1]); !regexp.MustCompile(`^(event|ctx)\.`).MatchString(name) && (m[2] != nil || !slices.Contains(limitNames, name) && len(name) > 3) {
			documented = append(documented, name)
		}
	}
	documented = append(documented, "_G", "_VERSION")
	slices.Sort(documented)
	require.Equal(t, usableNames(t), slices.Compact(documented))
}

// limitNames are entries of tables that are no Lua.
var limitNames = []string{"timeout", "memory", "effects", "effect_bytes", "result", "reads", "log_bytes", "state", "timers", "stream_bytes", "rate", "concurrency"}

// usableNames lists all globals, and the members of those that are tables.
func usableNames(t *testing.T) []string {
	t.Helper()
	m := New(Options{})
	names := []string{"_G", "_VERSION"}
	for name, l := range m.libs {
		if l.call != nil {
			names = append(names, name)
		}
		for member := range l.members {
			names = append(names, name+"."+member)
		}
	}
	names = append(names, "math.pi", "math.huge", "json.null", "utf8.charpattern")
	out := runMain(t, body(`local t = {} for k in pairs(signal) do t[#t + 1] = "signal." .. k end return table.concat(t, " ")`))
	require.Nil(t, out.Fault)
	names = append(names, regexp.MustCompile(`signal\.\w+`).FindAllString(string(out.Result), -1)...)
	slices.Sort(names)
	return names
}

// Every field of event and ctx is in the reference.
func TestReferenceOfEventAndContext(t *testing.T) {
	text, err := os.ReadFile("../../docs/lua.md")
	require.NoError(t, err)
	inv := testInvocation()
	for _, argument := range []string{"event", "ctx"} {
		out := runWith(t, New(Options{}), inv, body(`local t = {} for k in pairs(`+argument+`) do t[#t + 1] = k end return table.concat(t, " ")`), noAnswers)
		require.Nil(t, out.Fault)
		for _, field := range regexp.MustCompile(`\w+`).FindAllString(string(out.Result), -1) {
			require.Contains(t, string(text), "| `"+argument+"."+field+"` |")
		}
	}
}
