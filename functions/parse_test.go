package functions

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const overheat = `description: Switch the fan on when a room gets warm, and tell the cloud
triggers:
  - mqtt: zigbee2mqtt/{room}       # {name} is one level
    has: [temperature]
key: "{room}"
permissions:
  devices: {write: [fan]}
  publish: [alerts/#]
  streams: [alerts]
env: {on: 30, off: 28}
`

func TestParseSpec(t *testing.T) {
	s, err := ParseSpec("function.yaml", []byte(overheat), "overheat")
	require.NoError(t, err)
	require.Equal(t, &Spec{
		Name:        "overheat",
		Description: "Switch the fan on when a room gets warm, and tell the cloud",
		Triggers: []Trigger{{
			MQTT: &MQTTTrigger{Topic: "zigbee2mqtt/{room}", QoS: 1, Has: []string{"temperature"}, Retained: "changed"}, Line: 3,
		}},
		Key:         Key{Kind: KeyParam, Text: "{room}"},
		Permissions: Permissions{WriteDevices: []string{"fan"}, Publish: []string{"alerts/#"}, Streams: []string{"alerts"}},
		Env:         map[string]any{"on": 30.0, "off": 28.0},
		Limits:      DefaultLimits(),
		Retry:       DefaultRetry(),
		Inbox:       Inbox{Bytes: 16 << 20},
	}, s)
	require.Equal(t, Needs{Devices: []string{"fan"}, Writes: []string{"fan"}, Streams: []string{"alerts"}}, s.Needs())
	require.Equal(t, []string{"write device fan", "publish alerts/#", "stream alerts"}, s.Permissions.Lines())
}

func TestEveryKey(t *testing.T) {
	s, err := ParseSpec("f", []byte(`
name: all-of-it
requires: 0.3
triggers:
  - mqtt: {topic: zigbee2mqtt/#, qos: 0, exclude: [zigbee2mqtt/bridge/#], has: [battery], retained: never}
  - device: button
  - every: 15m
  - state: overheat/hot
  - function: overheat
  - gateway: [start, online]
key: data.device.serial
permissions: {devices: {read: [cellar, fan], write: [fan]}}
env: {text: x, flag: true, number: 1.5}
limits: {timeout: 2s, memory: 32MiB, concurrency: 4, effects: 10, effect_bytes: 1KiB, state: 1MiB, timers: 20, log_bytes: 1}
retry: {attempts: 5, first: 1s, max: 1m, overtake: true}
dedupe: {by: data.id, window: 1h}
durability: none
`), "folder")
	require.NoError(t, err)
	require.Equal(t, "all-of-it", s.Name)
	require.Equal(t, "0.3", s.Requires)
	require.Equal(t, &MQTTTrigger{Topic: "zigbee2mqtt/#", Exclude: []string{"zigbee2mqtt/bridge/#"}, Has: []string{"battery"}, Retained: "never"}, s.Triggers[0].MQTT)
	var lines []string
	for _, tr := range s.Triggers {
		lines = append(lines, tr.String())
	}
	require.Equal(t, []string{"mqtt zigbee2mqtt/#", "device button", "every 15m", "state overheat/hot", "function overheat", "gateway start, online"}, lines)
	require.Equal(t, 10, s.Triggers[5].Line)
	require.Equal(t, Key{Kind: KeyData, Text: "data.device.serial", Path: []string{"device", "serial"}}, s.Key)
	require.Equal(t, Limits{Timeout: 2 * time.Second, Memory: 32 << 20, Concurrency: 4, Effects: 10, EffectBytes: 1 << 10, Result: 1 << 10, Reads: 256, State: 1 << 20, Timers: 20, LogBytes: 1}, s.Limits)
	require.Equal(t, Retry{Attempts: 5, First: time.Second, Max: time.Minute, Overtake: true}, s.Retry)
	require.Equal(t, &Dedupe{By: []string{"id"}, Window: time.Hour}, s.Dedupe)
	require.Equal(t, "none", s.Durability)
	require.Equal(t, []string{"button", "cellar", "fan"}, s.Needs().Devices)
	require.Equal(t, map[string]any{"text": "x", "flag": true, "number": 1.5}, s.Env)
}

func TestSpecErrors(t *testing.T) {
	const ok = "triggers: [{every: 1m}]\n"
	for text, want := range map[string]string{
		"":                                                 `f:1:1: triggers are missing`,
		"triggers: []":                                     `f:1:1: triggers: a function has 1 to 64 triggers, not 0`,
		"triggers: {every: 1m}":                            `f:1:1: triggers: must be a list; begin each trigger with "- "`,
		"triggers:\n  - cron: 0 6 * * *\n":                 `f:2:5: triggers.1.cron: trigger "cron" is not in this version; there are mqtt, device, every, state, function, gateway`,
		"triggers: [{http: GET /x}]":                       `trigger "http" is not in this version`,
		"triggers: [{file: /x}]":                           `trigger "file" is not in this version`,
		"triggers: [{mqt: a}]":                             `unknown trigger "mqt"; did you mean "mqtt"?`,
		"triggers: [{zigzag: a}]":                          `unknown trigger "zigzag"; there are mqtt`,
		"triggers: [{mqtt: a, every: 1m}]":                 `mqtt and every in one trigger; begin a new one with "- "`,
		"triggers: [{every: 1m, has: [a]}]":                `has belongs to mqtt triggers, this one is every`,
		"triggers: [{has: [a]}]":                           `the trigger has no kind`,
		"triggers: [a]":                                    `a trigger is written KIND: VALUE`,
		"triggers: [{mqtt: }]":                             `must be a topic, or a map`,
		"triggers: [{mqtt: a/#/b}]":                        `# must be the last level`,
		"triggers: [{mqtt: 'a/x{b}'}]":                     `{name} must be a whole level`,
		"triggers: [{mqtt: {qos: 1}}]":                     `filter "": it is empty`,
		"triggers: [{mqtt: {topc: a}}]":                    `unknown key "topc"; did you mean "topic"?`,
		"triggers: [{mqtt: a, qos: 3}]":                    `f:1:22: triggers.1.qos: must be 0, 1 or 2, not 3`,
		"triggers: [{mqtt: a, has: temperature}]":          `must be a list: write [temperature]`,
		"triggers: [{mqtt: {topic: a, qos: 1}, qos: 0}]":   `is given twice, under mqtt and beside it`,
		"triggers: [{mqtt: {topic: a, exclude: ['{x}']}}]": `use + for one level`,
		"triggers: [{mqtt: a, retained: sometimes}]":       `must be changed, always or never, not "sometimes"`,
		"triggers: [{every: 10}]":                          `"10" is no duration: it has no unit`,
		"triggers: [{every: 1ms}]":                         `a period of 1ms is out of range; allowed are 100ms to 366d`,
		"triggers: [{every: }]":                            `a period of 0 is out of range`,
		"triggers: [{device: 'a b'}]":                      `"a b" is no name for a device`,
		"triggers: [{device: }]":                           `a value is missing`,
		"triggers: [{state: hot}]":                         `"hot" names no state; write FUNCTION/NAME, such as overheat/hot`,
		"triggers: [{function: Over}]":                     `"Over" is no name for a function`,
		"triggers: [{gateway: start}]":                     `must be a list: write [start]`,
		"triggers: [{gateway: [stop]}]":                    `must be of start, online, offline, each once; not "stop"`,
		ok + "key: '{room}'":                               `f:2:1: key: the trigger in line 1 (every 1m) has no {room}`,
		"triggers: [{mqtt: a/+}]\nkey: '{room}'":           `f:2:1: key: the trigger in line 1 (mqtt a/+) has no {room}; write {room} for a level of its topic`,
		ok + "key: {room}":                                 `f:2:1: key: must be text in quotes; write "{room}"`,
		ok + "key: room":                                   `"room" is no key; write "{room}"`,
		ok + "key: data":                                   `"data" is no path into the payload; write data.FIELD`,
		ok + "key: data.a..b":                              `is no path`,
		ok + "key: '{a'":                                   `a brace too many`,
		ok + "key: 'a}'":                                   `a brace too many`,
		ok + "key: '{}'":                                   `no name between its braces`,
		ok + "permissions: {http: x}":                      `f:2:15: permissions.http: must be a list: write [https://api.example.com/v1/*]`,
		ok + "permissions: {http: [x]}":                    `"x" is no URL that begins with https:// or http://`,
		ok + "permissions: {http: [{url: 'ftp://x/'}]}":    `"ftp://x/" is no URL that begins with https:// or http://`,
		ok + "permissions: {http: [{rul: 'http://x/'}]}":   `unknown key "rul"`,
		ok + "permissions: {secrets: ['a b']}":             `"a b" is no name for a secret`,
		ok + "permissions: {publish: ['$SYS/x']}":          `"$SYS/x" is under $, where functions cannot publish`,
		ok + "permissions: {publish: ['a/#/b']}":           `# must be the last level`,
		ok + "permissions: {publish: [a/{room}]}":          `f:2:27: text with { or } in it must be in quotes here: "a/{room}"`,
		ok + "permissions: {publish: ['a/{room}']}":        `permissions.publish: "a/{room}" has a name in it; use + for one level`,
		ok + "permissions: {pubish: [a]}":                  `unknown key "pubish"; did you mean "publish"?`,
		ok + "permissions: {devices: [fan]}":               `permissions.devices: must be a map, not a list`,
		ok + "permissions: {streams: ['']}":                `"" is no name for a stream`,
		ok + "env: [a]":                                    `env: must be a map`,
		ok + "env: {a: [1]}":                               `f:2:7: env.a: must be a number, text, true or false`,
		ok + "env: {a: }":                                  `env.a: must be a number, text, true or false`,
		ok + "env: {a-b: 1}":                               `"a-b" cannot be read as ctx.env.NAME`,
		ok + "limits: {timeout: 1h}":                       `f:2:10: limits.timeout: 1h is out of range; allowed are 1ms to 10m`,
		ok + "limits: {memory: 1KiB}":                      `1KiB is out of range; allowed are 1MiB to 1GiB`,
		ok + "limits: {effects: 9999}":                     `9999 is out of range; allowed are 1 to 1024`,
		ok + "limits: {timers: 100001}":                    `100001 is out of range; allowed are 1 to 100000`,
		ok + "limits: {rate: fast}":                        `limits.rate: "fast" is no rate; write events a second such as 10, or 100/m, 1000/h`,
		ok + "limits: {rate: 10/}":                         `limits.rate: "10/" is no rate`,
		ok + "limits: {rate: 1/d}":                         `limits.rate: "1/d" is no rate`,
		ok + "limits: {rate: -1}":                          `limits.rate: -1 is out of range; allowed are 1/h to 100000/s, or 0 for any number`,
		ok + "limits: {rate: 1000000}":                     `limits.rate: 1000000 is out of range`,
		ok + "limits: {rate: NaN}":                         `limits.rate: NaN is out of range`,
		ok + "limits: {reads: 2000}":                       `limits.reads: 2000 is out of range; allowed are 1 to 1024`,
		ok + "limits: {result: 1MiB}":                      `limits.result: 1MiB is out of range; allowed are 0 to 128KiB`,
		ok + "limits: {stream_bytes: 2TiB}":                `limits.stream_bytes: 2TiB is out of range`,
		ok + "limits: {concurrency: -1}":                   `limits.concurrency: -1 is out of range`,
		ok + "limits: {effects: 2000}":                     `limits.effects: 2000 is out of range; allowed are 1 to 1024`,
		ok + "limits: {effect_bytes: 1MiB}":                `limits.effect_bytes: 1MiB is out of range`,
		ok + "limits: {log_bytes: 1MiB}":                   `limits.log_bytes: 1MiB is out of range`,
		ok + "limits: {state: 1GiB}":                       `limits.state: 1GiB is out of range; allowed are 1B to 256MiB`,
		ok + "limits: {timers: -1}":                        `limits.timers: -1 is out of range`,
		ok + "limits: {effects: 0}":                        `limits.effects: 0 is out of range; allowed are 1 to 1024`,
		ok + "limits: {state: 0}":                          `limits.state: 0 is out of range; allowed are 1B to 256MiB`,
		ok + "limits: {log_bytes: 0}":                      `limits.log_bytes: 0 is out of range`,
		ok + "limits: {source: 1MiB}":                      `unknown key "source"`,
		ok + "retry: {attempts: 0}":                        `0 is out of range; allowed are 1 to 20`,
		ok + "retry: {first: 1m}":                          `retry: 30s is out of range; allowed are 1m to 1d`,
		ok + "inbox: {full: wait}":                         `inbox.full: must be drop-oldest, drop-newest or block, not "wait"`,
		ok + "inbox: {bytes: 1KiB}":                        `inbox.bytes: 1KiB is out of range; allowed are 4KiB to 64MiB`,
		ok + "dedupe: {by: id}":                            `dedupe.by: "id" is no path into the payload`,
		ok + "dedupe: {window: 1m}":                        `dedupe: "" is no path into the payload`,
		ok + "durability: max":                             `must be power, crash or none, not "max"`,
		ok + "requires: new":                               `"new" is no version; write one such as "0.3"`,
		ok + "name: Over":                                  `f:2:1: name: "Over" is no name for a function; use lower-case letters, digits and -, at most 48`,
		ok + "trigers: 1":                                  `unknown key "trigers"; did you mean "triggers"?`,
		ok + "durability: max\nrequires: x":                "f:2:1: durability: must be power, crash or none, not \"max\"",
	} {
		_, err := ParseSpec("f", []byte(text), "folder")
		require.ErrorContains(t, err, want, text)
		for line := range strings.SplitSeq(err.Error(), "\n") {
			require.Regexp(t, `^f:\d+:\d+: `, line)
		}
	}
	_, err := ParseSpec("f", []byte(ok), "My Folder")
	require.ErrorContains(t, err, "rename the folder or give the function a name: of its own")
	_, err = ParseSpec("f", []byte(ok+"durability: max\nrequires: x"), "a")
	require.Equal(t, 2, len(strings.Split(err.Error(), "\n")))
}

func TestCheckName(t *testing.T) {
	for _, s := range []string{"a", "overheat", "a-1", "1", strings.Repeat("a", 48)} {
		require.NoError(t, CheckName(s), s)
	}
	for _, s := range []string{"", "A", "a_b", "-a", "a-", "a b", "ä", "a/b", "..", strings.Repeat("a", 49), "a\n"} {
		require.Error(t, CheckName(s), s)
	}
}

func TestKeyExpand(t *testing.T) {
	params := map[string]string{"site": "s", "room": "r"}
	for text, want := range map[string]string{"{room}": "r", "{site}/{room}": "s/r", "x-{site}-y": "x-s-y", "{topic}": "a/b", "{topic}:{room}": "a/b:r", "none": "", "data.x": ""} {
		k, _, err := parseKey(text)
		require.NoError(t, err)
		require.Equal(t, want, k.Expand("a/b", params), text)
	}
	require.Equal(t, "", Key{}.Expand("a", nil))
}

func TestAllows(t *testing.T) {
	p := Permissions{Publish: []string{"#", "alerts/+"}, Streams: []string{"s"}, ReadDevices: []string{"r"}, WriteDevices: []string{"w"}}
	for name, want := range map[string]bool{"a": true, "alerts/x": true, "$SYS/x": false, "$a": false, "a/+": false, "a/#": false, "": false, "a\x00": false, "\xff": false} {
		require.Equal(t, want, p.AllowsPublish(name), "%q", name)
	}
	require.False(t, Permissions{Publish: []string{"alerts/+"}}.AllowsPublish("alerts/a/b"))
	require.False(t, Permissions{}.AllowsPublish("a"))
	require.True(t, p.AllowsStream("s"))
	require.False(t, p.AllowsStream("x"))
	require.True(t, p.AllowsReadDevice("r"))
	require.False(t, p.AllowsReadDevice("w"))
	require.True(t, p.AllowsWriteDevice("w"))
	require.False(t, p.AllowsWriteDevice("r"))
	require.Equal(t, "add to function.yaml: permissions: {publish: [alerts/overheat]}", PublishHint("alerts/overheat"))
	require.Equal(t, `add to function.yaml: permissions: {devices: {write: ["a, b"]}}`, WriteDeviceHint("a, b"))
	require.Equal(t, "add to function.yaml: permissions: {devices: {read: [fan]}}", ReadDeviceHint("fan"))
	require.Equal(t, "add to function.yaml: permissions: {streams: [alerts]}", StreamHint("alerts"))
}

func TestCheckSettings(t *testing.T) {
	s := &Spec{Name: "f", Env: map[string]any{"on": 30.0, "name": "x", "flag": true}}
	env, err := s.CheckSettings(map[string]any{"on": int64(28), "flag": false})
	require.NoError(t, err)
	require.Equal(t, map[string]any{"on": 28.0, "name": "x", "flag": false}, env)
	require.Equal(t, 30.0, s.Env["on"])
	env, err = s.CheckSettings(nil)
	require.NoError(t, err)
	require.Equal(t, s.Env, env)
	for name, c := range map[string]struct {
		v    any
		want string
	}{
		"om":   {1, `function f has no setting "om"; did you mean "on"?`},
		"zzzz": {1, `its env has flag, name, on`},
		"on":   {"30", `setting "on" of function f must be a number, as in its env, not text`},
		"flag": {[]any{}, `setting "flag" of function f: must be a number, text, true or false`},
	} {
		_, err := s.CheckSettings(map[string]any{name: c.v})
		require.ErrorContains(t, err, c.want)
	}
	env, err = (&Spec{}).CheckSettings(nil)
	require.NoError(t, err)
	require.NotNil(t, env, "env is a JSON object, never null")
}

func TestCheckRequires(t *testing.T) {
	for _, c := range []struct {
		need, have string
		ok         bool
	}{
		{"", "0.1", true}, {"0.3", "0.3", true}, {"0.3", "0.3.0", true}, {"0.3", "v0.3.1-dev+abc", true}, {"0.3", "0.2.9", false}, {"0.10", "0.9", false},
		{"1", "0.9", false}, {"1", "dev", true}, {"1", "", true},
	} {
		require.Equal(t, c.ok, (&Spec{Requires: c.need}).CheckRequires(c.have) == nil, "%v", c)
	}
}

func FuzzParseSpec(f *testing.F) {
	f.Add(overheat)
	f.Add("triggers: [{mqtt: {topic: a}}]\nkey: '{a}{b}'")
	f.Fuzz(func(t *testing.T, s string) {
		spec, err := ParseSpec("f", []byte(s), "folder")
		if (spec == nil) == (err == nil) {
			t.Fatal("neither or both")
		}
		if err != nil && !strings.HasPrefix(err.Error(), "f:") {
			t.Fatalf("%q: %v", s, err)
		}
		if spec != nil {
			spec.Key.Expand("t", nil)
			spec.Needs()
		}
	})
}

func TestLimits(t *testing.T) {
	const triggers = "triggers: [{every: 1m}]\n"
	spec, err := ParseSpec("f", []byte(triggers+"limits: {timeout: 2s, memory: 32MiB, concurrency: 2, effects: 10, effect_bytes: 32KiB, result: 1KiB, reads: 8, "+
		"state: 1MiB, timers: 5, log_bytes: 1KiB, rate: 90/m, stream_bytes: 10MiB}"), "f")
	require.NoError(t, err)
	require.Equal(t, Limits{Timeout: 2 * time.Second, Memory: 32 << 20, Concurrency: 2, Effects: 10, EffectBytes: 32 << 10, Result: 1 << 10, Reads: 8,
		State: 1 << 20, Timers: 5, LogBytes: 1 << 10, Rate: 1.5, StreamBytes: 10 << 20}, spec.Limits)
	spec, err = ParseSpec("f", []byte(triggers+"limits: {effect_bytes: 128KiB}"), "f")
	require.NoError(t, err)
	require.Equal(t, 128<<10, spec.Limits.Result, "a result may be all there is")
	for text, want := range map[string]Rate{"10": 10, "0": 0, "0.5": 0.5, "10/s": 10, "1/h": leastRate, "100000": mostRate} {
		r, err := ParseRate(text)
		require.NoError(t, err, text)
		require.Equal(t, want, r)
	}
	require.Equal(t, DefaultLimits(), Limits{State: 4 << 20, Timers: 10_000}.OrDefault())
}

func TestTooDeep(t *testing.T) {
	for text, want := range map[string]bool{
		"": false, "1": false, strings.Repeat("[", MaxNesting) + strings.Repeat("]", MaxNesting): false,
		strings.Repeat(`{"a":`, MaxNesting+1): true, `"` + strings.Repeat("[", 100) + `"`: false, `"\\\"` + strings.Repeat("[", 100) + `"`: false,
		`"\\"` + strings.Repeat("[", 100): true, strings.Repeat("[],", 100): false,
	} {
		require.Equal(t, want, TooDeep([]byte(text)), text)
	}
}
