package yamlfile

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/internal/units"
)

type retain struct {
	Bytes units.Size     `yaml:"bytes"`
	Age   units.Duration `yaml:"age"`
}

type stream struct {
	Uplink string `yaml:"uplink"`
	Retain retain `yaml:"retain"`
}

type config struct {
	ID    string `yaml:"id"`
	Store struct {
		Durability string         `yaml:"durability"`
		Linger     units.Duration `yaml:"linger"`
	} `yaml:"store"`
	Max     int                        `yaml:"max"`
	Small   uint8                      `yaml:"small"`
	Ratio   float64                    `yaml:"ratio"`
	On      bool                       `yaml:"on"`
	Listen  []string                   `yaml:"listen"`
	Streams map[string]*stream         `yaml:"streams"`
	Any     any                        `yaml:"any"`
	Env     map[string]any             `yaml:"env"`
	Devices map[string]map[string]Node `yaml:"devices"`
	Short   either                     `yaml:"short"`
}

// either is a scalar or a map.
type either struct{ Topic string }

func (e *either) UnmarshalNode(n Node) error {
	if n.Kind() == Scalar {
		e.Topic = n.Text()
		if e.Topic == "bad" {
			return errors.New("bad is bad")
		}
		return nil
	}
	var long struct {
		Topic string `yaml:"topic"`
	}
	if err := n.Decode(&long); err != nil {
		return err
	}
	e.Topic = long.Topic
	return nil
}

const sample = `# a comment
id: 0042
store: {durability: power, linger: 50ms}
max: 3
small: 255
ratio: 2
on: true
listen: [tcp://127.0.0.1:1883, 'x']
streams:
  alerts: &a
    uplink: main
    retain: {bytes: 64MiB, age: 30d}
  copy: *a
any: {a: [1, 2.5, x, ~, true], "b": "5"}
env:
  on: 30
  text: |
    two
    lines
devices:
  fan:
    sim: {wave: sine, min: 18}
short: {topic: a/b}
`

func TestDecode(t *testing.T) {
	var c config
	require.NoError(t, Decode("gateway.yaml", []byte(sample), &c))
	require.Equal(t, "0042", c.ID)
	require.Equal(t, "power", c.Store.Durability)
	require.Equal(t, units.Duration(50*time.Millisecond), c.Store.Linger)
	require.Equal(t, 3, c.Max)
	require.Equal(t, uint8(255), c.Small)
	require.Equal(t, 2.0, c.Ratio)
	require.True(t, c.On)
	require.Equal(t, []string{"tcp://127.0.0.1:1883", "x"}, c.Listen)
	require.Equal(t, &stream{Uplink: "main", Retain: retain{Bytes: 64 << 20, Age: units.Duration(30 * units.Day)}}, c.Streams["copy"])
	require.Equal(t, map[string]any{"a": []any{int64(1), 2.5, "x", nil, true}, "b": "5"}, c.Any)
	require.Equal(t, map[string]any{"on": int64(30), "text": "two\nlines\n"}, c.Env)
	require.Equal(t, "a/b", c.Short.Topic)

	sim := c.Devices["fan"]["sim"]
	require.Equal(t, 22, sim.Line())
	require.Equal(t, "devices.fan.sim", sim.Path())
	var s struct {
		Wave string  `yaml:"wave"`
		Min  float64 `yaml:"min"`
	}
	require.NoError(t, sim.Decode(&s))
	require.Equal(t, "sine", s.Wave)
	require.Equal(t, 18.0, s.Min)
	var wrong struct {
		Wave string `yaml:"wave"`
	}
	require.EqualError(t, sim.Decode(&wrong), `gateway.yaml:22:23: devices.fan.sim: unknown key "min"; there are wave`)
}

func TestDefaultsStay(t *testing.T) {
	for _, text := range []string{"", "# only a comment\n", "---\n", "store:\n", "store: {linger: 1s}", "~", "max:\nstreams:\n"} {
		c := config{Max: 7}
		c.Store.Durability = "crash"
		require.NoError(t, Decode("f", []byte(text), &c), text)
		require.Equal(t, 7, c.Max, text)
		require.Equal(t, "crash", c.Store.Durability, text)
	}
	var zero Node
	c := config{Max: 7}
	require.NoError(t, zero.Decode(&c))
	require.True(t, zero.IsZero())
	require.Equal(t, Null, zero.Kind())
	require.Nil(t, zero.Items())
	require.Equal(t, "", zero.At("a").Text())
}

func TestErrors(t *testing.T) {
	for text, want := range map[string]string{
		"store:\n  durabilty: power\n":         `f:2:3: store: unknown key "durabilty"; did you mean "durability"?`,
		"idd: 1":                               `f:1:1: unknown key "idd"; did you mean "id"?`,
		"store: {x: 1}":                        `f:1:9: store: unknown key "x"; there are durability, linger`,
		"id: 1\nid: 2\n":                       `f:2:1: key "id" is given twice, first in line 1`,
		"id: 1\n---\nid: 2\n":                  `f:2:1: there is more than one document; remove the line "---" and what belongs to the other`,
		"max: many":                            `f:1:1: max: must be a whole number, not "many"`,
		"max: 1.5":                             `f:1:1: max: must be a whole number, not "1.5"`,
		"small: 256":                           `f:1:1: small: 256 is out of range`,
		"small: -1":                            `f:1:1: small: -1 is out of range`,
		"ratio: .nan":                          `f:1:1: ratio: must be a number, not ".nan"`,
		"ratio: 1e999":                         `f:1:1: ratio: must be a number, not "1e999"`,
		"on: yes":                              `f:1:1: on: must be true or false, not "yes"`,
		"id: [1]":                              `f:1:1: id: must be text, not a list`,
		"listen: tcp://x":                      `f:1:1: listen: must be a list: write [tcp://x]`,
		"listen: {a: 1}":                       `f:1:1: listen: must be a list, not a map`,
		"store: 5":                             `f:1:1: store: must be a map, not "5"`,
		"streams: [a]":                         `f:1:1: streams: must be a map, not a list`,
		"store: {linger: 10}":                  `f:1:9: store.linger: "10" is no duration: it has no unit; write a number and a unit (ms, s, m, h, d), such as "500ms", "10s", "1h30m" or "30d"`,
		"store: {linger: [1s]}":                `f:1:9: store.linger: must be a single value, not a list`,
		"short: bad":                           `f:1:1: short: bad is bad`,
		"short:\n  topik: x":                   `f:2:3: short: unknown key "topik"; did you mean "topic"?`,
		"id: !!str 5":                          `f:1:5: tags such as !!str are not supported; put text in quotes`,
		"id: *x":                               `f:1:5: *x has no &x before it`,
		"any: &x [*x]":                         `f:1:10: *x has no &x before it`,
		"env: {<<: {a: 1}}":                    `f:1:7: the merge key << is not supported; write the keys out`,
		"{[a]: 1}":                             ``,
		"id: {room}":                           `f:1:1: id: must be text, not a map; put {room} in quotes: "{room}"`,
		"listen: [x, {room}]":                  `f:1:14: listen.2: must be text, not a map; put {room} in quotes: "{room}"`,
		"max: {room}":                          `f:1:1: max: must be a whole number, not a map`,
		"id:\n  room:\n":                       `f:1:1: id: must be text, not a map`,
		"short: {room}":                        `f:1:9: short: unknown key "room"; if {room} is meant as text, put it in quotes: "{room}"`,
		"\t- a":                                ``,
		"id: \"x":                              ``,
		"a: b: c":                              ``,
		"%YAML 1.2\n---\nid: 1":                ``,
		"id: \x00":                             `f:1:1: the text is not UTF-8, or has a control character in it`,
		"id: 1\nmax: \xff":                     `f:2:1: the text is not UTF-8, or has a control character in it`,
		"- a":                                  `f:1:1: must be a map, not a list`,
		"max: a\nsmall: b":                     "f:1:1: max: must be a whole number, not \"a\"\nf:2:1: small: must be a whole number, not \"b\"",
		strings.Repeat("[", 5000):              `f:1:65: lists and maps are nested too deeply`,
		strings.Repeat("- ", 5000):             `f:1:129: lists and maps are nested too deeply`,
		strings.Repeat("x", MaxSize+1):         fmt.Sprintf("f:1:1: the file has %d bytes, at most %d are read", MaxSize+1, MaxSize),
		"any: [" + strings.Repeat("1,", 40000): ``,
	} {
		var c config
		err := Decode("f", []byte(text), &c)
		require.Error(t, err, text)
		if want != "" {
			require.EqualError(t, err, want)
		}
		for line := range strings.SplitSeq(err.Error(), "\n") {
			require.Regexp(t, `^f:\d+:\d+: \S`, line)
			require.Less(t, len(line), 400)
		}
	}
}

func TestFirstErrorsOnly(t *testing.T) {
	var b strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&b, "unknown%d: 1\n", i)
	}
	err := Decode("f", []byte(b.String()), &config{})
	require.Equal(t, maxErrors, strings.Count(err.Error(), "\n")+1)
}

func TestAliasBomb(t *testing.T) {
	var b strings.Builder
	b.WriteString("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n")
	for i := 1; i < 30; i++ {
		fmt.Fprintf(&b, "a%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", i-1), 10), ", "))
	}
	var into map[string]any
	require.ErrorContains(t, Decode("f", []byte(b.String()), &into), "too long once its aliases are expanded")
	var typed map[string][]string
	require.Error(t, Decode("f", []byte(b.String()), &typed))
}

func TestAt(t *testing.T) {
	root, err := Parse("f", []byte("a:\n  b:\n    - x\n    - c: 5\n"))
	require.NoError(t, err)
	require.EqualError(t, root.At("a", "b", "1", "c").Errorf("is %d", 5), "f:4:7: a.b.2.c: is 5")
	require.EqualError(t, root.At("a", "missing", "deep").Errorf("is missing"), "f:1:1: a: is missing")
	require.EqualError(t, root.At().Errorf("top"), "f:1:1: top")
	require.Equal(t, []string{"a"}, root.Keys())
	require.Equal(t, int64(5), root.At("a", "b", "1", "c").Value())
	_, ok := root.Child("z")
	require.False(t, ok)

	var e *Error
	wrapped := root.At("a").Wrap(errors.New("x\ny"))
	require.ErrorAs(t, wrapped, &e)
	require.Equal(t, "f:1:1: a: x y", wrapped.Error())
	require.Equal(t, wrapped, root.Wrap(wrapped))
	require.NoError(t, root.Wrap(nil))
}

func TestPlainScalars(t *testing.T) {
	for text, want := range map[string]any{
		"1": int64(1), "-1": int64(-1), "+1": int64(1), "1.0": 1.0, "1e3": 1000.0, ".5": 0.5, "007": "007", "0x10": "0x10", "1_000": "1_000",
		"0": int64(0), "0.5": 0.5, "yes": "yes", "True": true, "~": nil, "''": "", "'1'": "1", "1.2.3": "1.2.3", "12:30": "12:30",
		"2026-01-02": "2026-01-02", "9223372036854775808": 9223372036854775808.0, "-": nil, "e": "e", ".": ".", "a#b": "a#b", "a #b": "a",
	} {
		var m map[string]any
		err := Decode("f", []byte("k: "+text+"\n"), &m)
		if text == "-" {
			continue // a list with an empty element, or an error: both do no harm
		}
		require.NoError(t, err, text)
		require.Equal(t, want, m["k"], text)
	}
}

func TestNearest(t *testing.T) {
	names := []string{"durability", "linger", "id", "min_free", "broker"}
	for in, want := range map[string]string{
		"durabilty": "durability", "lingre": "linger", "brocker": "broker", "minfree": "min_free", "xd": "id", "zzz": "", "di": "id", "store": "",
		strings.Repeat("x", 1000): "",
	} {
		require.Equal(t, want, Nearest(in, names), in)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(sample)
	for _, s := range []string{"a: b: c", "? a\n: b", "- - -", "&a [*a]", "!!str x", "<<: *a", "a: |\n  x", "a: >-\n x\n\n y", "{a, b: [c]}", "\"\\u0000\": 1", "---\n...\n---"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var c config
		if err := Decode("f", []byte(s), &c); err != nil {
			for line := range strings.SplitSeq(err.Error(), "\n") {
				if !strings.HasPrefix(line, "f:") {
					t.Fatalf("%q: %q", s, line)
				}
			}
		}
		var v any
		_ = Decode("f", []byte(s), &v)
	})
}

// What a file costs is bounded too: the YAML library takes time in the square of the keys of a map.
func TestLongFilesAreRefusedBeforeTheyCost(t *testing.T) {
	var b strings.Builder
	for i := range 60000 {
		fmt.Fprintf(&b, "k%d: 1\n", i)
	}
	require.ErrorContains(t, Decode("f", []byte(b.String()), &map[string]int{}), "the file is too long: 180000 tokens")
	long := "any: [" + strings.Repeat("1234567890, ", 10000) + "1]"
	require.NoError(t, Decode("f", []byte(long), &config{}), "a long line is no fault")
}

func TestLineEndsOfWindows(t *testing.T) {
	var c config
	require.NoError(t, Decode("f", []byte("\xef\xbb\xbf"+strings.ReplaceAll(sample, "\n", "\r\n")), &c))
	require.Equal(t, "power", c.Store.Durability)
	require.Equal(t, "two\nlines\n", strings.ReplaceAll(c.Env["text"].(string), "\r\n", "\n"))
	require.ErrorContains(t, Decode("f", []byte("id: a\r\nidd: b\r\n"), &c), "f:2:1: ")
}

func TestWhatIsNotClosedSaysWhatToAdd(t *testing.T) {
	for text, want := range map[string]string{
		"a: [1, 2\n":  "f:1:4: this list is not closed: add a ] at its end",
		"a: {b: 1\n":  "f:1:4: this map is not closed: add a } at its end",
		"a: \"x\n":    "f:1:4: this text is not closed: add the quote at its end",
		"a: 'x\nb: 1": "f:1:4: this text is not closed: add the quote at its end",
	} {
		_, err := Parse("f", []byte(text))
		require.EqualError(t, err, want)
	}
}
