package stage_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/functions/bundle"
	"github.com/perigee-iot/perigee/functions/cases"
	"github.com/perigee-iot/perigee/functions/cases/stage"
	"github.com/perigee-iot/perigee/functions/worker"
)

// TestMain makes the test's own binary the worker.
func TestMain(m *testing.M) {
	worker.MainIfWorker()
	m.Run()
}

func open(t *testing.T) *stage.Stage {
	t.Helper()
	s, err := stage.Open(nil)
	require.NoError(t, err)
	t.Cleanup(s.Close)
	return s
}

func load(t *testing.T, yaml, lua, file string) (*functions.Bundle, []*cases.Case) {
	t.Helper()
	b, err := bundle.FromFiles(map[string][]byte{"function.yaml": []byte(yaml), "main.lua": []byte(lua), "tests/t.yaml": []byte(file)}, "fn")
	require.NoError(t, err)
	list, err := cases.Load(b, func(p string) string { return p })
	require.NoError(t, err)
	return b, list
}

// run runs all cases and returns what failed, "" if nothing did.
func run(t *testing.T, s *stage.Stage, yaml, lua, file string) string {
	t.Helper()
	b, list := load(t, yaml, lua, file)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	require.Nil(t, s.Compile(ctx, b))
	var out strings.Builder
	for _, c := range list {
		r := s.Run(ctx, b, c)
		require.Equal(t, len(r.Failures) == 0, r.Passed)
		for _, f := range r.Failures {
			out.WriteString(c.Name + ": " + f.Text() + "\n")
		}
	}
	return out.String()
}

func TestStage(t *testing.T) {
	s := open(t)
	tests := []struct{ name, yaml, lua, file string }{
		{"an alarm that holds", `
triggers: [{mqtt: "zigbee2mqtt/{room}", has: [temperature]}]
key: "{room}"
permissions: {devices: {write: [fan]}, publish: [alerts/#], streams: [alerts]}
env: {on: 30, off: 28}`, `
return function(event, ctx)
  local t = event.data.temperature
  local hot, turned = signal.alarm("hot", t, {on = ctx.env.on, off = ctx.env.off, hold = "2m"})
  if turned then
    device.write("fan", hot)
    publish("alerts/overheat", {room = event.params.room, hot = hot, temperature = t})
    stream.append("alerts", {room = event.params.room, hot = hot})
  end
  return {hot = hot}
end`, `
- name: a warm room switches the fan on, once
  given: {env: {on: 31}}
  steps:
    - mqtt: {topic: zigbee2mqtt/cellar, data: {temperature: 31}}
      expect: []
      timers: {signal.alarm.hot: 2m}
    - after: 2m
      expect: [{device: fan, write: true}, {publish: alerts/overheat, data: {hot: true, room: cellar}}, {stream: alerts}]
      result: {hot: true}
      timers: {signal.alarm.hot: null}
    - {mqtt: {topic: zigbee2mqtt/cellar, data: {temperature: 32}}, expect: [], result: {hot: true}}
    - {mqtt: {topic: zigbee2mqtt/attic, data: {temperature: 32}}, expect: [], result: {hot: false}}
    - {mqtt: {topic: zigbee2mqtt/door, data: {contact: true}}, expect: [], skipped: temperature}
    - {timer: signal.alarm.hot, key: attic, expect: [{device: fan}, {publish: alerts/overheat, data: {room: attic}}, {stream: alerts}]}
- name: it cools down in time
  steps:
    - mqtt: {topic: zigbee2mqtt/cellar, data: {temperature: 31}}
    - {after: 1m, mqtt: {topic: zigbee2mqtt/cellar, data: {temperature: 29}}, expect: [], timers: {signal.alarm.hot: null}}
    - {after: 1h, expect: []}
- name: it was warm before
  given: {key: cellar, state: {signal.alarm.hot: {on: true}}}
  steps:
    - {mqtt: {topic: zigbee2mqtt/cellar, data: {temperature: 29}}, result: {hot: true}}
`},
		{"time, randomness and the rest of the world", `
triggers: [{every: 15m}, {device: button}, {gateway: [start]}]
permissions: {devices: {read: [cellar, other], write: [lamp]}, publish: [out]}`, `
return function(event, ctx)
  local here, why = device.read("cellar")
  local there, missing = device.read("other")
  return {now = ctx.now, time = os.date("%F %T", event.time), ok = event.time_ok, gw = ctx.gateway, r = math.random(1, 1000000), type = event.type, data = event.data,
    here = here, there = there == nil and missing, id = event.id, attempt = event.attempt}
end`, `
- name: given
  given: {now: 2026-03-01T12:00:00Z, now_ok: false, gateway: gw-7, seed: 7, devices: {cellar: {temperature: 21.5}}, attempt: 2}
  steps:
    - {every: 15m, result: {now: 1772366400, time: 2026-03-01 12:00:00, ok: false, gw: gw-7, r: 888315, type: tick, data: {every: 900, missed: 0}, here: 21.5, there: device "other" has not said anything yet, attempt: 3}}
    - {after: 15m, every: 15m, result: {now: 1772367300, attempt: 1}}
- name: the same again
  given: {seed: 7}
  steps:
    - {gateway: start, result: {r: 888315, type: gateway, data: {what: start}, id: event-1}}
- name: another
  steps:
    - {device: button, data: {action: single}, id: abc, result: {type: reading, data: {action: single}, id: abc}}
`},
		{"retries keep the order of their key", `
triggers: [{mqtt: "in/{k}"}]
key: "{k}"
permissions: {publish: [out]}
retry: {attempts: 3, first: 1s, max: 10s}`, `
return function(event)
  if event.data == "busy" and event.attempt < 3 then retry("the line is busy", "5s") end
  if event.data == "never" then retry("it never works") end
  publish("out", {d = event.data, n = state.incr("n"), attempt = event.attempt})
end`, `
- name: what comes later waits
  steps:
    - {mqtt: {topic: in/a, data: busy}, retry: line is busy, expect: []}
    - {mqtt: {topic: in/a, data: later}, expect: []}
    - {mqtt: {topic: in/b, data: other}, expect: [{publish: out, data: {d: other}}], retry: false}
    - {after: 5s, expect: [], retry: true}
    - {after: 5s, expect: [{publish: out, data: {d: busy, n: 1, attempt: 3}}, {publish: out, data: {d: later, n: 2}}]}
- name: attempts end
  steps:
    - {mqtt: {topic: in/a, data: never}, retry: never works}
    - {after: 1s, retry: true}
    - {after: 2s, retry: true}
    - {after: 1d, retry: false, expect: []}
`},
		{"overtaking", `
triggers: [{mqtt: "in/{k}"}]
key: "{k}"
permissions: {publish: [out]}
retry: {overtake: true}`, `
return function(event)
  if event.data == 1 and event.attempt == 1 then retry("no", "5s") end
  publish("out", event.data)
end`, `
- name: later ones pass
  steps:
    - {mqtt: {topic: in/a, data: 1}, expect: []}
    - {mqtt: {topic: in/a, data: 2}, expect: [{publish: out, text: "2"}]}
    - {after: 5s, expect: [{publish: out, data: 1}]}
`},
		{"retained, excluded, seen before", `
triggers: [{mqtt: a/#, exclude: [a/b/#]}, {mqtt: n/#, retained: never}, {mqtt: w/#, retained: always}]
dedupe: {by: data.id, window: 10m}
permissions: {publish: [out]}`, `return function(event) publish("out", event.raw) end`, `
- name: retained
  steps:
    - {mqtt: {topic: a/c, text: x, retained: true}, expect: [{publish: out, text: x}]}
    - {mqtt: {topic: a/c, text: x, retained: true}, expect: [], skipped: the same as the last one}
    - {mqtt: {topic: a/c, text: y, retained: true}, expect: [{publish: out, text: y}]}
    - {mqtt: {topic: n/c, text: x, retained: true}, skipped: "retained: never"}
    - {mqtt: {topic: w/c, text: x, retained: true}, expect: [{publish: out}]}
    - {mqtt: {topic: w/c, text: x, retained: true}, expect: [{publish: out}]}
    - {mqtt: {topic: a/b/c, text: x}, skipped: excluded by a/b/#, expect: []}
- name: once
  steps:
    - {mqtt: {topic: a/c, data: {id: 7}}, expect: [{publish: out}]}
    - {mqtt: {topic: a/d, data: {id: 7}}, expect: [], skipped: was seen within 10m}
    - {after: 10m, mqtt: {topic: a/d, data: {id: 7}}, expect: [{publish: out}]}
`},
		{"what follows from results and state", `
triggers: [{mqtt: "in/{k}"}, {mqtt: more/+}]
permissions: {publish: [out/#]}`, `return function(event) publish("out/" .. event.params.k, "") end`, `
- name: params
  steps:
    - {mqtt: in/a, expect: [{publish: out/a, text: ""}]}
    - {mqtt: more/a, fault: attempt to concatenate}
`},
		{"a function that starts itself", `
name: fn
triggers: [{mqtt: in}, {state: fn/n}, {function: fn}]
permissions: {publish: [out]}`, `
return function(event)
  publish("out", {type = event.type, data = event.data, name = event.params.name})
  if event.type == "message" then state.set("n", 1) end
  if event.type == "state" then return {last = true} end
end`, `
- name: chain
  steps:
    - mqtt: in
      expect: [{publish: out, data: {type: message}}, {publish: out, data: {type: state, data: 1, name: n}}, {publish: out, data: {type: result, data: {last: true}}}]
      result: null
    - {mqtt: in, expect: [{publish: out, data: {type: message}}]}
`},
		{"calls, answers and secrets", `
triggers: [{mqtt: "in/{k}"}]
key: "{k}"
permissions: {http: ["https://api.example.com/v1/*"], secrets: [token], publish: [out]}`, `
return function(event)
  if event.reply then publish("out", {status = event.data.status, key = event.key, reply = event.reply}) return end
  http.post("https://api.example.com/v1/" .. event.params.k, {n = event.data}, {reply = "posted", headers = {Authorization = "Bearer " .. secret.get("token")}})
end`, `
- name: an answer
  given: {secrets: {token: abc}}
  steps:
    - mqtt: {topic: in/a, data: 3}
      expect: [{http: "https://api.example.com/v1/a", method: POST, data: {n: 3}, reply: posted, headers: {authorization: Bearer abc}}]
    - {reply: posted, data: {status: 201}, expect: [{publish: out, data: {status: 201, key: a, reply: posted}}]}
    - {reply: posted, key: b, data: {status: 500}, expect: [{publish: out, data: {key: b}}]}
- name: without the secret
  steps: [{mqtt: in/a, fault: no secret 'token'}]
`},
		{"shared state, timers of keys, invoked by hand", `
triggers: [{mqtt: "in/{k}"}, {state: other/v}, {function: other}]
key: data.k
permissions: {publish: [out]}`, `
return function(event)
  shared.incr("all")
  if event.timer then publish("out", {timer = event.timer, key = event.key}) return end
  timer.set("t", "1m")
  timer.set("u", "1m")
  timer.cancel("v")
  return {key = event.key, params = event.params, type = event.type, topic = event.topic}
end`, `
- name: by key
  given: {shared: {all: 5}, key: x, timers: {v: 3s, w: 10s}}
  steps:
    - {invoke: {data: {k: x}, topic: in/z}, result: {key: x, params: {k: z}, topic: in/z}, shared: {all: 6}, timers: {t: 1m, u: 1m, v: null, w: 10s}}
    - {invoke: {key: y, params: {a: b}}, result: {key: y, type: invoke, params: {a: b}}}
    - {changed: {name: other/v, key: q, data: 3}, result: {key: "", params: {name: v, key: q}}}
    - {function: other, data: {k: r}, result: {key: r}}
    - {after: 10s, expect: [{publish: out, data: {timer: w}}]}
    - {timer: t, key: y, expect: [{publish: out, data: {timer: t, key: x}}, {publish: out, data: {timer: u, key: x}}, {publish: out, data: {timer: t, key: y}}]}
`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			require.Empty(t, run(t, s, tt.yaml, tt.lua, tt.file))
		})
	}
}

func TestStageFails(t *testing.T) {
	s := open(t)
	const yaml = "triggers: [{mqtt: in}]\npermissions: {publish: [out/#]}\nlimits: {timeout: 50ms, state: 100B, timers: 1}\nretry: {attempts: 1}\nname: fn\n"
	tests := []struct{ name, lua, file, want string }{
		{"denied", `return function() publish("perigee/x", 1) end`, "mqtt: in", "denied: main.lua:1: functions may never publish under perigee/"},
		{"timeout", `return function() while true do end end`, "mqtt: in", "fault on mqtt in\n    timeout:"},
		{"state quota", `return function() state.set("a", ("x"):rep(200)) end`, "mqtt: in", "bad-output: limits.state: 215 bytes, 100 are allowed"},
		{"timers", `return function() timer.set("a", 1) timer.set("b", 1) end`, "mqtt: in", "limits.timers: 2 timers, 1 are allowed"},
		{"no timer", `return function() timer.set("a", 1) end`, "timer: b", "the timer b is not set, nor is any other"},
		{"another timer", `return function() timer.set("a", 1) end`, "mqtt: in\n    - timer: b", `the timer b is not set; there are: a of key ""`},
		{"for ever", `return function() timer.set("a", 0.001) end`, "mqtt: in\n    - after: 1d", "more than 10,000 invocations in one step"},
		{"logs", `return function() log.warn("careful") error("no") end`, "mqtt: in", "main.lua:1: no"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			require.Contains(t, run(t, s, yaml, tt.lua, "- name: x\n  steps:\n    - "+tt.file+"\n"), tt.want)
		})
	}
	const circle = "triggers: [{mqtt: in}, {function: fn}]\nname: fn\n"
	require.Contains(t, run(t, s, circle, "return function() return 1 end", "- {name: x, steps: [mqtt: in]}"), "went round more than 16 times")
}

func TestAnEffectNeedsItsPermissionsOnTheStageToo(t *testing.T) {
	s := open(t)
	const yaml = "triggers: [{mqtt: in}]\npermissions: {publish: [perigee/x]}\nname: fn\n"
	require.Contains(t, run(t, s, yaml, `return function() publish("perigee/x", 1) end`, "- {name: x, steps: [mqtt: in]}"), `denied: main.lua:1: functions may never publish under perigee/`)
}

func TestLogsOfWhatFailed(t *testing.T) {
	s := open(t)
	b, list := load(t, "triggers: [{mqtt: in}]\n", `return function() log("so far", {n = 1}) return 1 end`, "- {name: x, steps: [{mqtt: in, result: 2}]}")
	r := s.Run(t.Context(), b, list[0])
	require.Equal(t, []string{`info so far {"n":1}`}, r.Logs)
	require.Equal(t, "tests/t.yaml", r.File)
}

func TestInterrupted(t *testing.T) {
	s := open(t)
	b, list := load(t, "triggers: [{mqtt: in}]\nlimits: {timeout: 10m}\n", "return function() while true do end end", "- {name: x, steps: [mqtt: in]}")
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(50*time.Millisecond, cancel)
	require.Contains(t, s.Run(ctx, b, list[0]).Failures[0].Text(), "it was interrupted")
}
