package jsonscan

import (
	"encoding/json"
	"math/big"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFields(t *testing.T) {
	doc := `{"temperature": 21.50, "id": "a\u00e4\ud83d\ude00\n", "deep": {"er": {"x": true, "y": null}, "l": [1, {"x": 2}]}, "n": 12345678901234567890}`
	paths := [][]string{{"temperature"}, {"id"}, {"deep", "er", "x"}, {"deep", "er", "y"}, {"deep", "er"}, {"deep", "l"}, {"deep", "l", "x"}, {"none"}, {"n"}, {}, {"id", "x"}}
	got, err := Fields([]byte(doc), paths)
	require.NoError(t, err)
	require.Equal(t, []Value{
		{Number, "21.5"}, {String, "aä😀\n"}, {Bool, "true"}, {Kind: Null}, {Kind: Object}, {Kind: Array}, {}, {}, {Number, "12345678901234567890"}, {}, {},
	}, got)
	key, ok := got[0].Key()
	require.True(t, ok)
	require.Equal(t, "21.5", key)
	_, ok = got[3].Key()
	require.False(t, ok)

	for _, top := range []string{`[1]`, `"x"`, `5`, `null`, ` true `, `{}`} {
		got, err := Fields([]byte(top), [][]string{{"a"}})
		require.NoError(t, err, top)
		require.Equal(t, Absent, got[0].Kind, top)
	}
}

func TestLastFieldCounts(t *testing.T) {
	got, err := Fields([]byte(`{"a": {"b": 1}, "c": 1, "a": {"d": 2}, "c": "x"}`), [][]string{{"a", "b"}, {"a", "d"}, {"c"}})
	require.NoError(t, err)
	require.Equal(t, []Value{{}, {Number, "2"}, {String, "x"}}, got)
}

func TestBad(t *testing.T) {
	for _, s := range []string{
		``, ` `, `{`, `}`, `{"a"}`, `{"a":}`, `{"a":1,}`, `{a:1}`, `[1,]`, `[1 2]`, `01`, `-`, `1.`, `.5`, `1e`, `+1`, `nul`, `tru`, `"`, `"\x"`, `"\u12"`, "\"\n\"",
		`{} {}`, `'a'`, `NaN`, "\x00", `{"a":1}x`, `"\ud8`,
	} {
		_, err := Fields([]byte(s), [][]string{{"a"}})
		require.ErrorContains(t, err, "payload is not JSON", s)
		require.NotErrorIs(t, err, ErrTooLarge)
		require.False(t, json.Valid([]byte(s)), s)
	}
	_, err := Fields([]byte(strings.Repeat("[", 1e6)), nil)
	require.ErrorIs(t, err, ErrTooLarge)
	_, err = Fields([]byte(`"`+strings.Repeat("x", MaxSize)+`"`), nil)
	require.ErrorIs(t, err, ErrTooLarge)
	_, err = Fields([]byte(`{}`), make([][]string, MaxPaths+1))
	require.Error(t, err)
	_, err = Fields([]byte(`{}`), make([][]string, MaxPaths))
	require.NoError(t, err)
}

func TestCanonical(t *testing.T) {
	for in, want := range map[string]string{
		"21": "21", "21.0": "21", "2.1e1": "21", "2100e-2": "21", "0": "0", "-0": "0", "0.0e5": "0", "-21.50": "-21.5", "0.001": "0.001", "1E3": "1000",
		"1e-3": "0.001", "1e100": "1e100", "10e99": "1e100", "1.5e-30": "15e-31", "12345678901234567890": "12345678901234567890",
		"1e99999999999999999999": "1e99999999999999999999", "-1E999999999": "-1e999999999",
	} {
		require.Equal(t, want, canonical(in), in)
	}
}

// lookup is the same with encoding/json.
func lookup(doc any, path []string) Value {
	for _, k := range path {
		m, ok := doc.(map[string]any)
		if !ok {
			return Value{}
		}
		if doc, ok = m[k]; !ok {
			return Value{}
		}
	}
	switch v := doc.(type) {
	case nil:
		return Value{Kind: Null}
	case bool:
		return Value{Bool, map[bool]string{true: "true", false: "false"}[v]}
	case json.Number:
		return Value{Number, string(v)}
	case string:
		return Value{String, v}
	case []any:
		return Value{Kind: Array}
	}
	return Value{Kind: Object}
}

func FuzzFields(f *testing.F) {
	for _, s := range []string{`{"a":{"b":1.50e1},"a":2}`, `{"\u0061":"\ud800x"}`, `[{"a":[]}]`, "{\"a\":\"\xff\xfe\"}", `{"a":{"b":"\ud83d\ude00"}}`, `{"a":-0.0}`} {
		f.Add(s)
	}
	paths := [][]string{{"a"}, {"a", "b"}, {"b"}, {"�"}}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := Fields([]byte(s), paths)
		if valid := json.Valid([]byte(s)); valid != (err == nil) {
			if strings.Count(s, "[")+strings.Count(s, "{") >= MaxDepth {
				return
			}
			t.Fatalf("%q: valid %v, error %v", s, valid, err)
		}
		if err != nil {
			return
		}
		dec := json.NewDecoder(strings.NewReader(s))
		dec.UseNumber()
		var doc any
		if err := dec.Decode(&doc); err != nil {
			t.Fatal(err)
		}
		for i, p := range paths {
			want := lookup(doc, p)
			if want.Kind == Number && got[i].Kind == Number {
				if len(want.Text) < 30 && !strings.ContainsAny(want.Text, "eE") {
					a, _ := new(big.Rat).SetString(want.Text)
					b, ok := new(big.Rat).SetString(got[i].Text)
					if !ok || a.Cmp(b) != 0 {
						t.Fatalf("%q: %v became %v", s, want.Text, got[i].Text)
					}
				}
				continue
			}
			if got[i] != want {
				t.Fatalf("%q at %v: %v, encoding/json has %v", s, p, got[i], want)
			}
		}
	})
}

func BenchmarkFields(b *testing.B) {
	doc := []byte(`{"battery":97,"humidity":51.2,"linkquality":120,"temperature":21.5,"voltage":3015,"update":{"installed_version":12,"state":"idle"}}`)
	paths := [][]string{{"temperature"}}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Fields(doc, paths); err != nil {
			b.Fatal(err)
		}
	}
}
