package config

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/internal/units"
)

var update = flag.Bool("update", false, "write the messages of testdata/bad into the files")

func kinds() []string { return []string{"sim", "host", "mqtt"} }

func load(file string) (*Config, error) {
	return LoadValid(file, Overrides{}, kinds(), nil)
}

// TestBad: each file begins with the exact message, a comment line for each line of it.
func TestBad(t *testing.T) {
	t.Chdir("testdata/bad")
	files, err := filepath.Glob("*.yaml")
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(files), 60)
	for _, f := range files {
		t.Run(strings.TrimSuffix(f, ".yaml"), func(t *testing.T) {
			data, err := os.ReadFile(f)
			require.NoError(t, err)
			var want []string
			body := data
			for bytes.HasPrefix(body, []byte("#> ")) {
				line, rest, _ := bytes.Cut(body, []byte("\n"))
				want, body = append(want, string(line[3:])), rest
			}
			_, err = load(f)
			require.Error(t, err)
			if *update {
				// The messages shift the lines, so this takes two rounds.
				out := "#> " + strings.ReplaceAll(err.Error(), "\n", "\n#> ") + "\n" + string(body)
				require.NoError(t, os.WriteFile(f, []byte(out), 0o600))
				return
			}
			require.Equal(t, strings.Join(want, "\n"), err.Error())
			for _, line := range want {
				require.Regexp(t, regexp.MustCompile(`^`+regexp.QuoteMeta(f)+`:[0-9]+:[0-9]+: `), line)
				require.NotContains(t, line, "hunter2")
			}
		})
	}
}

func TestGood(t *testing.T) {
	files, err := filepath.Glob("testdata/good/*.yaml")
	require.NoError(t, err)
	for _, f := range files {
		_, err := load(f)
		require.NoError(t, err, f)
	}
}

func TestFull(t *testing.T) {
	c, err := load("testdata/good/full.yaml")
	require.NoError(t, err)
	dir, err := filepath.Abs("testdata/good")
	require.NoError(t, err)
	pw := filepath.Join(filepath.Dir(dir), "pw")

	require.Equal(t, "buero-1", c.ID)
	require.Equal(t, dir, c.Dir)
	require.Equal(t, filepath.Join(dir, "full.yaml"), c.File)
	require.Equal(t, filepath.Join(dir, "data"), c.DataDir)
	require.Equal(t, filepath.Join(dir, "run/p.sock"), c.API.Socket)
	require.Equal(t, filepath.Join(dir, "fns"), c.Functions.Dir)
	require.Equal(t, User{PasswordFile: pw, Publish: []string{"shelly/#"}, Subscribe: []string{}}, c.Broker.Users["shelly"])
	require.True(t, c.Broker.Embedded())
	require.Equal(t, Store{Durability: "crash", Profile: "small", MinFree: 128 << 20}, c.Store)
	require.Equal(t, map[string]any{"on": 28.0, "name": "cellar", "armed": true, "factor": 1.5}, c.Settings["overheat"])
	require.Equal(t, map[string]Secret{"token": {pw}, "key": {"/etc/perigee/key"}}, c.Secrets)
	require.Equal(t, "sim", c.Devices["cellar"].Kind)
	var sim struct {
		Wave  string         `yaml:"wave"`
		Min   float64        `yaml:"min"`
		Every units.Duration `yaml:"every"`
	}
	require.NoError(t, c.Devices["cellar"].Node.Decode(&sim))
	require.Equal(t, 250*time.Millisecond, time.Duration(sim.Every))
	require.ErrorContains(t, c.Devices["meter"].Node.Decode(&sim), "full.yaml:14:18: devices.meter.mqtt: unknown key")
	require.Equal(t, []string{"z", "a"}, []string{c.Uplinks[0].Name, c.Uplinks[1].Name}, "the file's order")
	require.Equal(t, TLS{pw, pw, pw}, c.Uplinks[0].MQTT.TLS)

	alerts := c.Stream("alerts")
	require.Equal(t, Stream{Uplink: "z", Priority: "high", Retain: Retain{1 << 20, units.Duration(48 * time.Hour), "drop-oldest"}, Batch: Batch{10, 128 << 10, units.Duration(time.Second)}}, alerts)
	require.Equal(t, "a", c.Stream("raw").Uplink)
	want := DefaultStream()
	want.Uplink = "z"
	require.Equal(t, want, c.Stream("plain"))
	require.Equal(t, want, c.Stream("never heard of"))
	require.Equal(t, "DEBUG", c.Log.SlogLevel().String())
}

func TestDefaultIsValid(t *testing.T) {
	require.NoError(t, Default().Validate(nil))
	require.Empty(t, Default().Stream("x").Uplink)
}

// TestSampleIsTheDefault: configs/gateway.yaml says every key, and says the defaults.
func TestSampleIsTheDefault(t *testing.T) {
	const sample = "../../configs/gateway.yaml"
	c, err := load(sample)
	require.NoError(t, err)
	want := Default()
	want.Functions.Dir = filepath.Join(c.Dir, "functions")
	want.File, want.Dir, want.root = c.File, c.Dir, c.root
	require.Equal(t, want, c)

	// Lines that begin with "#" and no space, or two, are examples: with them the file must be right as well, and have every key there is.
	data, err := os.ReadFile(sample)
	require.NoError(t, err)
	full := regexp.MustCompile(`(?m)^( *)#((?:  )*[^ #\n])`).ReplaceAll(data, []byte("$1$2"))
	full = regexp.MustCompile(`(?m)^( *)(devices|uplinks|streams|settings|secrets): \{\}`).ReplaceAll(full, []byte("$1$2:"))
	dir := t.TempDir()
	for _, name := range []string{"shelly.pw", "broker.pw", "cloud.pw", "ca.pem", "gw.pem", "gw.key"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), nil, 0o600))
	}
	for _, name := range []string{"store.key", "before.key"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(strings.Repeat("a5", keyBytes)), 0o600))
	}
	file := filepath.Join(dir, "gateway.yaml")
	require.NoError(t, os.WriteFile(file, full, 0o600))
	c, err = Load(file, Overrides{})
	require.NoError(t, err, "%s", full)
	for _, key := range keysOf(reflect.TypeFor[Config](), "") {
		require.True(t, hasKey(c, strings.Split(key, ".")), "the sample does not explain %s", key)
	}
	for _, u := range c.Uplinks {
		for _, key := range keysOf(reflect.TypeFor[MQTT](), "uplinks."+u.Name+".mqtt.") {
			require.True(t, hasKey(c, strings.Split(key, ".")), "the sample does not explain %s", key)
		}
	}
	// The embedded broker and another exclude each other, and nothing else may be wrong.
	for _, line := range strings.Split(c.Validate(kinds()).Error(), "\n") {
		require.Regexp(t, `broker\.(listen|users): is for the embedded broker`, line)
	}
}

// keysOf lists the keys of a struct; * is any name.
func keysOf(t reflect.Type, prefix string) []string {
	var keys []string
	for i := range t.NumField() {
		f := t.Field(i)
		name := f.Tag.Get("yaml")
		if name == "" || name == "-" {
			continue
		}
		keys = append(keys, prefix+name)
		ft := f.Type
		sub := prefix + name + "."
		if ft.Kind() == reflect.Map {
			ft, sub = ft.Elem(), sub+"*."
		}
		if ft.Kind() == reflect.Struct && ft != reflect.TypeFor[Device]() {
			keys = append(keys, keysOf(ft, sub)...)
		}
	}
	return keys
}

func hasKey(c *Config, path []string) bool {
	for i, step := range path {
		if step != "*" {
			continue
		}
		for _, name := range c.root.At(path[:i]...).Keys() {
			if hasKey(c, append(append(append([]string{}, path[:i]...), name), path[i+1:]...)) {
				return true
			}
		}
		return false
	}
	n := c.root
	for _, step := range path {
		var ok bool
		if n, ok = n.Child(step); !ok {
			return false
		}
	}
	return true
}

// TestTags: JSON shows the keys that the file has.
func TestTags(t *testing.T) {
	var check func(reflect.Type)
	check = func(ty reflect.Type) {
		for i := range ty.NumField() {
			f := ty.Field(i)
			if f.Tag.Get("yaml") == "" {
				continue
			}
			j, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			require.Equal(t, f.Tag.Get("yaml"), j, "%s.%s", ty, f.Name)
			ft := f.Type
			if ft.Kind() == reflect.Map {
				ft = ft.Elem()
			}
			if ft.Kind() == reflect.Struct {
				check(ft)
			}
		}
	}
	check(reflect.TypeFor[Config]())
	check(reflect.TypeFor[MQTT]())
}

func TestRedacted(t *testing.T) {
	_, err := Load("", Overrides{Broker: "mqtt://me:secret@10.0.0.2:1883"})
	require.ErrorContains(t, err, "--broker: has a user in it")
	require.NotContains(t, err.Error(), "secret")
	c, err := Load("testdata/good/full.yaml", Overrides{Broker: "mqtt://10.0.0.2:1883"})
	require.NoError(t, err)
	require.False(t, c.Broker.Embedded())
	b, err := c.Redacted()
	require.NoError(t, err)
	require.Contains(t, string(b), `"url":"mqtt://10.0.0.2:1883"`)
	require.Equal(t, map[string]any{"a": []any{"tcp://me@x:1", 1}}, hidePasswords(map[string]any{"a": []any{"tcp://me:secret@x:1", 1}}))
	require.Equal(t, "(a URL that is not valid)", hidePassword("tcp://me:se%cret@x"))
	require.Contains(t, string(b), `"linger":"0"`)
	require.Contains(t, string(b), `"min_free":"128MiB"`)
	require.Less(t, strings.Index(string(b), `"z":{"mqtt"`), strings.Index(string(b), `"a":{"mqtt"`))
	var v map[string]any
	require.NoError(t, json.Unmarshal(b, &v))
	require.Equal(t, map[string]any{"sim": map[string]any{"wave": "sine", "min": 18.0, "every": "250ms"}}, v["devices"].(map[string]any)["cellar"])
	require.Equal(t, map[string]any{"host": map[string]any{}}, v["devices"].(map[string]any)["cpu"])
}

func TestDiff(t *testing.T) {
	write := func(text string) *Config {
		f := filepath.Join(t.TempDir(), "gateway.yaml")
		require.NoError(t, os.WriteFile(f, []byte(text), 0o600))
		c, err := Load(f, Overrides{DataDir: "/d"})
		require.NoError(t, err)
		c.Functions.Dir = "/" + filepath.Base(c.Functions.Dir)
		return c
	}
	a := "id: a\nuplinks: {x: {mqtt: {url: 'tcp://x:1'}}, y: {mqtt: {url: 'tcp://y:1'}}}\ndevices: {fan: {sim: {min: 1}}, gone: {sim: }}\nsettings: {f: {on: 1}, g: {on: 1}}\n"
	live, restart := Diff(write(a), write(a))
	require.Empty(t, live)
	require.Empty(t, restart)
	b := "id: b\nuplinks: {y: {mqtt: {url: 'tcp://y:1'}}, x: {mqtt: {url: 'tcp://x:1'}}}\ndevices: {fan: {sim: {min: 2}}, made: {sim: }}\nsettings: {f: {on: 2}, g: {on: 1.0}}\n" +
		"streams: {s: }\nfunctions: {dir: other}\nlog: {level: debug, format: json}\nstore: {linger: 1s}\nbroker: {url: 'tcp://b:1'}\n"
	live, restart = Diff(write(a), write(b))
	require.Equal(t, []string{"devices.fan", "devices.gone", "devices.made", "functions.dir", "log.level", "settings.f", "streams.s"}, live)
	require.Equal(t, []string{"broker.listen", "broker.url", "id", "log.format", "store.linger", "uplinks.x", "uplinks.y"}, restart)
}

func TestLoadFinds(t *testing.T) {
	t.Setenv("XDG_STATE_HOME", "/state")
	dir := t.TempDir()
	t.Chdir(dir)
	c, err := Load("", Overrides{})
	require.NoError(t, err)
	if _, err := os.Stat(systemFile); err != nil {
		require.Empty(t, c.File)
		require.Equal(t, filepath.Join(c.DataDir, "functions"), c.Functions.Dir, "without a file, nothing depends on the working directory")
	}
	require.NoError(t, os.WriteFile("gateway.yaml", []byte("id: here\n"), 0o600))
	c, err = Load("", Overrides{})
	require.NoError(t, err)
	require.Equal(t, "here", c.ID)
	require.Equal(t, "gateway.yaml", filepath.Base(c.File))
	_, err = Load("nowhere.yaml", Overrides{})
	require.EqualError(t, err, "the configuration file nowhere.yaml does not exist")
	_, err = Load(dir, Overrides{})
	require.ErrorContains(t, err, "is a directory")
}

func TestDataDir(t *testing.T) {
	t.Setenv("XDG_STATE_HOME", "/state")
	t.Setenv("HOME", "/home/me")
	if os.Geteuid() == 0 {
		require.Equal(t, "/var/lib/perigee", defaultDataDir())
		return
	}
	require.Equal(t, "/state/perigee", defaultDataDir())
	t.Setenv("XDG_STATE_HOME", "")
	require.Equal(t, "/home/me/.local/state/perigee", defaultDataDir())
}

func TestOverrides(t *testing.T) {
	t.Chdir(t.TempDir())
	cwd, err := os.Getwd()
	require.NoError(t, err)
	require.NoError(t, os.WriteFile("g.yaml", []byte("data_dir: /a\napi: {socket: /b.sock}\nbroker: {listen: ['tcp://127.0.0.1:2000']}\n"), 0o600))
	for name, tc := range map[string]struct {
		file            string
		o               Overrides
		dataDir, socket string
		url             string
		listen          []string
	}{
		"none":     {"g.yaml", Overrides{}, "/a", "/b.sock", "", []string{"tcp://127.0.0.1:2000"}},
		"data dir": {"g.yaml", Overrides{DataDir: "x"}, cwd + "/x", "/b.sock", "", []string{"tcp://127.0.0.1:2000"}},
		"socket":   {"g.yaml", Overrides{Socket: "s"}, "/a", cwd + "/s", "", []string{"tcp://127.0.0.1:2000"}},
		"both":     {"", Overrides{DataDir: "x", Socket: "s"}, cwd + "/x", cwd + "/s", "", []string{"tcp://127.0.0.1:1883"}},
		"no file":  {"", Overrides{DataDir: "x"}, cwd + "/x", cwd + "/x/perigee.sock", "", []string{"tcp://127.0.0.1:1883"}},
		"broker":   {"g.yaml", Overrides{Broker: "tcp://h:1"}, "/a", "/b.sock", "tcp://h:1", nil},
		"embedded": {"g.yaml", Overrides{Broker: "embedded"}, "/a", "/b.sock", "", []string{"tcp://127.0.0.1:2000"}},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := Load(tc.file, tc.o)
			require.NoError(t, err)
			require.NoError(t, c.Validate(nil))
			require.Equal(t, tc.dataDir, c.DataDir)
			require.Equal(t, tc.socket, c.API.Socket)
			require.Equal(t, tc.url, c.Broker.URL)
			require.Equal(t, tc.listen, c.Broker.Listen)
		})
	}
	_, err = Load("g.yaml", Overrides{Broker: "http://x:1"})
	require.EqualError(t, err, "--broker: begins with http://, which this version does not speak: write tcp://, mqtt:// or mqtts://")
	_, err = Load("g.yaml", Overrides{LogLevel: "loud"})
	require.EqualError(t, err, `--log-level: is "loud", it should be debug, info, warn or error`)
	c, err := Load("g.yaml", Overrides{LogLevel: "debug"})
	require.NoError(t, err)
	require.Equal(t, "debug", c.Log.Level)
}

func TestSanitizeID(t *testing.T) {
	for give, want := range map[string]string{
		"gw-01": "gw-01", "my host": "my-host", "a/b+c#d": "a-b-c-d", "$x": "x", "@x": "x", "": "gateway", "$$": "gateway", "ü": "gateway", "Küche-1": "K-che-1",
		"\xff\x00": "gateway", strings.Repeat("x", 80): strings.Repeat("x", 64),
	} {
		require.Equal(t, want, sanitizeID(give), "%q", give)
	}
}

func FuzzLoad(f *testing.F) {
	for _, pattern := range []string{"testdata/good/*.yaml", "testdata/bad/*.yaml", "../../configs/gateway.yaml"} {
		files, _ := filepath.Glob(pattern)
		for _, file := range files {
			b, _ := os.ReadFile(file)
			f.Add(b)
		}
	}
	file := filepath.Join(f.TempDir(), "gateway.yaml")
	f.Fuzz(func(t *testing.T, data []byte) {
		require.NoError(t, os.WriteFile(file, data, 0o600))
		c, err := Load(file, Overrides{})
		if err != nil {
			return
		}
		if c.Validate(kinds()) == nil {
			_, err := c.Redacted()
			require.NoError(t, err)
			live, restart := Diff(c, c)
			require.Empty(t, append(live, restart...))
		}
	})
}
