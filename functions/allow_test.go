package functions

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestParseHint(t *testing.T) {
	for _, d := range []Denied{{"publish", "alerts/x"}, {"publish", "a b, c: d, [e]"}, {"streams", "log"}, {"devices.read", "cellar"}, {"devices.write", "fan"},
		{"secrets", "token"}, {"http", "https://api.example.com/v1/" + strings.Repeat("x", 100)}} {
		hint := map[string]func(string) string{"publish": PublishHint, "streams": StreamHint, "devices.read": ReadDeviceHint, "devices.write": WriteDeviceHint,
			"secrets": SecretHint, "http": HTTPHint}[d.Kind](d.Name)
		got, ok := ParseHint(hint)
		require.True(t, ok, hint)
		require.Equal(t, d, got)
	}
	for _, hint := range []string{"", "raise limits.memory in function.yaml", "add to function.yaml: permissions: {all: [x]}", "add to function.yaml: permissions: {devices: [x]}",
		"add to function.yaml: permissions: {publish: [x, y]}", "add to function.yaml: permissions: {publish: x}", "add to function.yaml: limits: {memory: 1GiB}",
		"add to function.yaml: permissions: {publish: [x]}\nname: other", "add to function.yaml: permissions: {publish: [[x]]}", PublishHint(strings.Repeat("x:", 500)),
		PublishHint("a/{d}"), StreamHint("no name"), HTTPHint("https://a/b*c"), // nobody can permit these
		"add to function.yaml: permissions: {http: [x]}", "add to function.yaml: permissions: {devices: {write: {a: [x]}}}"} {
		_, ok := ParseHint(hint)
		require.False(t, ok, hint)
	}
	require.Equal(t, "write device fan", Denied{"devices.write", "fan"}.String())
	require.Equal(t, "call https://a/b", Denied{"http", "https://a/b"}.String())
}

func TestAllow(t *testing.T) {
	const triggers = "triggers: [{every: 1m}]\n"
	publish, write, read := Denied{"publish", "alerts/x"}, Denied{"devices.write", "fan"}, Denied{"devices.read", "cellar"}
	call := Denied{"http", "https://api.example.com/v1/a"}
	for _, test := range []struct {
		name, text string
		add        []Denied
		want       string
	}{
		{"nothing there", triggers, []Denied{publish, write, read}, triggers + "permissions:\n  publish: [alerts/x]\n  devices: {write: [fan], read: [cellar]}\n"},
		{"no end of line", "name: x\ntriggers: [{every: 1m}]", []Denied{call}, "name: x\ntriggers: [{every: 1m}]\npermissions:\n  http: [\"https://api.example.com/v1/a\"]\n"},
		{"in a block", "# it\nname: x # the name\npermissions:   # what it may\n  publish: [a/#] # alarms\n  # more\n\n" + triggers, []Denied{publish, write},
			"# it\nname: x # the name\npermissions:   # what it may\n  publish: [a/#, alerts/x] # alarms\n  devices: {write: [fan]}\n  # more\n\n" + triggers},
		{"a list of lines", "permissions:\n    publish:\n        - a/# # one\n        - b\n\n    streams: [s]\n" + triggers, []Denied{publish},
			"permissions:\n    publish:\n        - a/# # one\n        - b\n        - alerts/x\n\n    streams: [s]\n" + triggers},
		{"dashes at the key", "permissions:\n  publish:\n  - a\n  streams: [s]\n" + triggers, []Denied{publish},
			"permissions:\n  publish:\n  - a\n  - alerts/x\n  streams: [s]\n" + triggers},
		{"in braces", triggers + "permissions: {publish: [\"a/#\"], devices: {read: [b]}} # so\n", []Denied{publish, write, read},
			triggers + "permissions: {publish: [\"a/#\", alerts/x], devices: {read: [b, cellar], write: [fan]}} # so\n"},
		{"braces with another", triggers + "permissions: {streams: [s]}\n", []Denied{publish, write},
			triggers + "permissions: {streams: [s], publish: [alerts/x], devices: {write: [fan]}}\n"},
		{"empty ones", triggers + "permissions: {publish: [ ], devices: {}}\n", []Denied{publish, write}, triggers + "permissions: {publish: [alerts/x ], devices: {write: [fan]}}\n"},
		{"null ones", "permissions:\n  publish: # none yet\n  devices:\n" + triggers, []Denied{publish, write},
			"permissions:\n  publish: [alerts/x] # none yet\n  devices: {write: [fan]}\n" + triggers},
		{"null itself", "permissions:\n" + triggers, []Denied{write}, "permissions: {devices: {write: [fan]}}\n" + triggers},
		{"over lines", triggers + "permissions: {\n  publish: [\n    a, # ]\n    'b]',\n  ],\n}\n", []Denied{publish}, triggers + "permissions: {\n  publish: [\n    a, # ]\n    'b]', alerts/x\n  ],\n}\n"},
		{"devices in a block", "permissions:\n  devices:\n    read: [a]\n    write:\n      - b\n" + triggers, []Denied{write, read},
			"permissions:\n  devices:\n    read: [a, cellar]\n    write:\n      - b\n      - fan\n" + triggers},
		{"there already", triggers + "permissions: {publish: [alerts/#]}\n", []Denied{publish}, triggers + "permissions: {publish: [alerts/#]}\n"},
		{"twice", triggers, []Denied{publish, publish}, triggers + "permissions:\n  publish: [alerts/x]\n"},
		{"a URL beside another", triggers + "permissions: {http: [https://b.example/*]}\n", []Denied{call},
			triggers + "permissions: {http: [https://b.example/*, \"https://api.example.com/v1/a\"]}\n"},
		{"windows", "permissions:\r\n  streams: [s]\r\n" + triggers, []Denied{publish}, "permissions:\r\n  streams: [s]\r\n  publish: [alerts/x]\n" + triggers},
	} {
		got, err := Allow("f", []byte(test.text), "x", test.add)
		require.NoError(t, err, test.name)
		require.Equal(t, test.want, string(got), test.name)
	}
	for name, text := range map[string]string{
		"an anchor":  "permissions: &p {publish: [a]}\n" + triggers,
		"quoted key": "\"permissions\": {publish: [a]}\n" + triggers,
		"one flow":   "{triggers: [{every: 1m}], name: x}\n",
	} {
		_, err := Allow("f", []byte(text), "x", []Denied{publish})
		require.ErrorIs(t, err, ErrByHand, name)
	}
	_, err := Allow("f", []byte("nonsense"), "x", nil)
	require.Error(t, err)
}

// Whatever is denied and however the file is written: what comes out has it, or it is left to the author.
func TestAllowDoesNoHarm(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := "triggers: [{every: 1m}]\n" + strings.Join(rapid.SliceOf(rapid.SampledFrom([]string{"permissions:\n", "  publish: [a]\n", "  publish:\n    - a\n", "  devices: {read: [b]}\n",
			"  devices:\n", "    write: [c]\n", "  # [\n", "permissions: {}\n", "env: {x: '}'}\n", "\n"})).Draw(t, "lines"), "")
		if _, err := ParseSpec("f", []byte(text), "x"); err != nil {
			return
		}
		d := Denied{rapid.SampledFrom([]string{"publish", "streams", "devices.read", "devices.write", "secrets"}).Draw(t, "kind"), rapid.SampledFrom([]string{"x", "y.z"}).Draw(t, "name")}
		out, err := Allow("f", []byte(text), "x", []Denied{d})
		if err != nil {
			require.ErrorIs(t, err, ErrByHand)
			return
		}
		s, err := ParseSpec("f", out, "x")
		require.NoError(t, err)
		require.False(t, d.Missing(s.Permissions))
	})
}
