package cli

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/urfave/cli/v2"
	"pgregory.net/rapid"

	"github.com/perigee-iot/perigee/gateway/api"
)

// TestNoStoreAndNoLua: the command starts fast and stays apart from what only the gateway and its workers need.
func TestNoStoreAndNoLua(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", ".").Output()
	require.NoError(t, err)
	for _, bad := range []string{"badger", "gopher-lua", "internal/store", "functions/script", "gateway/engine", "gateway/app"} {
		for dep := range strings.FieldsSeq(string(out)) {
			require.NotContains(t, dep, bad)
		}
	}
}

// TestEveryCommand: help, examples and flags of all commands keep the rules that the parser counts on.
func TestEveryCommand(t *testing.T) {
	p := New(Options{})
	takes := map[string]bool{}
	var walk func(path []*command)
	walk = func(path []*command) {
		c := path[len(path)-1]
		name := pathName(path)
		require.NotEmpty(t, c.brief, name)
		require.True(t, c.run != nil || len(c.sub) > 0, name)
		if c.run != nil {
			require.NotEmpty(t, c.examples, "%s has no example", name)
			require.True(t, c.max < 0 || c.min <= c.max, name)
			require.Equal(t, c.max != 0, c.usage != "", "%s: arguments and their names", name)
		}
		seen := map[string]bool{}
		for _, f := range c.allFlags() {
			for _, n := range f.Names() {
				require.False(t, seen[n], "%s has --%s twice", name, n)
				seen[n] = true
				if was, ok := takes[n]; ok {
					require.Equal(t, was, !isBool(f), "--%s of %s takes a value, or not, other than elsewhere", n, name)
				}
				takes[n] = !isBool(f)
				require.NotContains(t, []string{"h", "help", "version"}, n)
			}
			require.NotEmpty(t, f.(cli.DocGenerationFlag).GetUsage(), "%s --%s", name, f.Names()[0])
		}
		var help bytes.Buffer
		writeHelp(&help, path)
		for l := range strings.SplitSeq(help.String(), "\n") {
			require.LessOrEqual(t, visible(l), 140, "%s: %s", name, l)
		}
		for _, s := range c.sub {
			walk(append(path[:len(path):len(path)], s))
		}
	}
	walk([]*command{p.root})
}

// TestExamplesParse: what help shows is a command line that is right.
func TestExamplesParse(t *testing.T) {
	p := New(Options{})
	p.root.walk(func(c *command) {
		for _, e := range c.examples {
			for part := range strings.SplitSeq(e, "&&") {
				_, line, ok := strings.Cut(part, "perigee ")
				if !ok {
					continue
				}
				line, _, _ = strings.Cut(line, " | ")
				line, _, _ = strings.Cut(line, " > ")
				line, _, _ = strings.Cut(line, ";")
				line = strings.TrimSuffix(line, ")")
				words, err := shellWords(line)
				require.NoError(t, err, e)
				l, err := p.root.arrange(words)
				require.NoError(t, err, e)
				require.NoError(t, l.path[len(l.path)-1].checkArgs(l.path, l.args), e)
			}
		}
	})
}

// shellWords splits at spaces, with single quotes.
func shellWords(s string) ([]string, error) {
	var words []string
	for i, part := range strings.Split(s, "'") {
		if i%2 == 1 {
			words = append(words, part)
		} else {
			words = append(words, strings.Fields(part)...)
		}
	}
	return words, nil
}

// TestDocs: docs/cli.md has the help of every command as it is.
func TestDocs(t *testing.T) {
	const file = "../../docs/cli.md"
	var want bytes.Buffer
	New(Options{}).WriteDocs(&want)
	have, err := os.ReadFile(file)
	if os.Getenv("UPDATE_DOCS") != "" {
		require.NoError(t, os.WriteFile(file, want.Bytes(), 0o644))
		return
	}
	require.NoError(t, err)
	require.Equal(t, want.String(), string(have), "write it anew with: UPDATE_DOCS=1 go test ./gateway/cli -run TestDocs")
}

// TestFlagsMayStandAnywhere: whatever the order, the same flags and arguments come out.
func TestFlagsMayStandAnywhere(t *testing.T) {
	p := New(Options{})
	rapid.Check(t, func(t *rapid.T) {
		pos := []string{"state", "get", "overheat", "hot"}
		flags := rapid.Permutation([][]string{{"--key", "a b"}, {"--json"}, {"--socket=/x"}, {"--config", "-"}}).Draw(t, "flags")
		var args []string
		for len(pos) > 0 || len(flags) > 0 {
			if len(flags) == 0 || len(pos) > 0 && rapid.Bool().Draw(t, "word") {
				args, pos = append(args, pos[0]), pos[1:]
			} else {
				args, flags = append(args, flags[0]...), flags[1:]
			}
		}
		l, err := p.root.arrange(args)
		require.NoError(t, err)
		require.Equal(t, "perigee state get", pathName(l.path))
		require.Equal(t, []string{"overheat", "hot"}, l.args)
		require.ElementsMatch(t, []string{"--key=a b", "--json", "--socket=/x", "--config=-"}, l.flags)
	})
}

// TestArrangeTakesAnything: no command line makes it panic.
func TestArrangeTakesAnything(t *testing.T) {
	p := New(Options{})
	word := rapid.OneOf(rapid.SampledFrom([]string{"state", "get", "fn", "events", "show", "-f", "--", "-", "--key", "--json=", "-h", "help", "--version", "__complete", "", "--", "-=", "--="}), rapid.String())
	rapid.Check(t, func(t *rapid.T) {
		l, err := p.root.arrange(rapid.SliceOf(word).Draw(t, "args"))
		if err == nil && l.complete {
			p.root.complete(&bytes.Buffer{}, l.args)
		}
	})
}

func TestSpan(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0", 900 * time.Microsecond: "900µs", 1200 * time.Microsecond: "1.2ms", 42 * time.Millisecond: "42ms", 1500 * time.Millisecond: "1.5s",
		42 * time.Second: "42s", 90 * time.Second: "1m30s", time.Hour: "1h", 205 * time.Minute: "3h25m", 50 * time.Hour: "2d2h", -time.Second: "-1.0s",
	} {
		require.Equal(t, want, span(d))
	}
}

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 10 << 10: "10 KiB", 3 << 30: "3.0 GiB", 1 << 50: "1024 TiB"} {
		require.Equal(t, want, size(n))
	}
	require.Equal(t, "18 000 records", plural(18000, "record"))
}

func TestSafe(t *testing.T) {
	require.Equal(t, "a·[31mb·c·ü", safe("a\x1b[31mb\nc\xffü", 0))
	require.Equal(t, "one·\n    two", paragraph("one\t\ntwo\n"))
	require.Equal(t, "abc…", safe("abcdef", 3))
	require.Equal(t, "abc", safe("abc", 3))
}

func TestColoursAreForTerminals(t *testing.T) {
	var b bytes.Buffer
	p := newPrinter(&b, nil)
	require.Equal(t, "active", p.state("active"))
	on := true
	p = newPrinter(&b, &on)
	require.Equal(t, "\x1b[32mactive\x1b[0m", p.state("active"))
	p.table([][]string{{"A", "B"}, {p.state("active"), "x"}, {"y", "z"}})
	require.Equal(t, "\x1b[1mA       B\x1b[0m\n\x1b[32mactive\x1b[0m  x\ny       z\n", b.String())
}

func TestPlainJSON(t *testing.T) {
	for give, want := range map[string]string{
		`1.2e7`: "12000000", `-3.0`: "-3", `0.1`: "0.1", `1e300`: "1e300", `9007199254740993`: "9007199254740993", `"1e3"`: `"1e3"`,
		`{"b": [1e2, "\\\" 1e2"], "a": null}`: `{"b":[100,"\\\" 1e2"],"a":null}`, `1e18`: "1000000000000000000", `-0.0`: "-0", `1E+2`: "100",
	} {
		got, err := plainJSON([]byte(give))
		require.NoError(t, err)
		require.Equal(t, want, string(got))
	}
	_, err := plainJSON([]byte("{"))
	require.Error(t, err)
}

func FuzzPlainJSON(f *testing.F) {
	f.Add([]byte(`{"a":[1.0,"\"",true]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		out, err := plainJSON(b)
		if err != nil {
			return
		}
		require.JSONEq(t, string(b), string(out))
	})
}

func TestAnUplinkThatIsContestedSaysSo(t *testing.T) {
	out := newPrinter(io.Discard, nil)
	u := api.UplinkStatus{Name: "main", URL: "tcp://cloud:1883", Connected: true, LastError: "give each gateway its own id"}
	require.Equal(t, "main tcp://cloud:1883 connected: give each gateway its own id, 0 waiting, 0 sent", uplinkLine(out, u))
	u.LastError = ""
	require.Equal(t, "main tcp://cloud:1883 connected, 0 waiting, 0 sent", uplinkLine(out, u))
}
