package app

import (
	"context"
	"encoding/json"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/functions/bundle"
	"github.com/perigee-iot/perigee/functions/cases"
	"github.com/perigee-iot/perigee/functions/cases/stage"
	"github.com/perigee-iot/perigee/gateway/api"
)

// TestWhatHappenedPassesAsACase: events of every kind that a gateway has run are saved, and pass at once.
func TestWhatHappenedPassesAsACase(t *testing.T) {
	s := newSite(t)
	s.config("devices: {button: {sim: {button: {}}}, lamp: {sim: {switch: off}}}\nsettings: {meter: {step: 2}}\n")
	s.function("meter", `
triggers: [{mqtt: "meter/{id}"}, {device: button}, {every: 200ms}, {gateway: [start]}]
permissions: {publish: [out/#], streams: [log], devices: {read: [lamp], write: [lamp]}}
env: {step: 1}
`, `
return function(event, ctx)
  if event.raw == "die" then error("as asked") end
  if event.raw == "later" and event.attempt < 3 then retry("not yet", 0.01) end
  local n = state.get("n", 0) + ctx.env.step
  state.set("n", n)
  shared.incr("all")
  shared.set("seen." .. event.type, {at = ctx.now, id = event.id, r = math.random(1000000)})
  if event.type == "message" then timer.set("soon", 0.02) end
  if event.type == "reading" then device.write("lamp", true, {["for"] = "1s"}) end
  publish("out/" .. event.type, {n = n, data = event.data, lamp = device.read("lamp"), keys = json.array(state.keys()), at = event.time}, {qos = 1, retain = true})
  publish("out/text", "it's " .. event.type .. ": \"done\" #1\n{}", {id = true})
  stream.append("log", {event.type, event.params.id or "none"})
  log.info("n is " .. n)
  return {n = n, text = event.raw}
end`)
	s.function("after", "triggers: [{function: meter}, {state: meter/n}]\nkey: data.n\npermissions: {publish: [after]}\n", `
return function(event)
  publish("after", {type = event.type, data = event.data, key = event.key, count = state.incr("count"), params = event.params})
end`)
	a := s.open()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	invokeTopic := func(topic, data string) {
		_, err := a.Invoke(ctx, "meter", &api.InvokeRequest{Data: json.RawMessage(data), Topic: topic})
		require.NoError(t, err)
	}
	invokeTopic("meter/7", `{"kWh": 1.50, "list": [1, 2.5e3, "on", null, true], "text": "a: b, {c}"}`)
	invokeTopic("meter/8", `"plain"`)
	invokeTopic("meter/9", "die")
	invokeTopic("meter/9", "later")
	invoke(t, a, "meter", `12345678901234567890`)
	require.NoError(t, a.WriteDevice(ctx, "button", true))

	on, err := stage.Open(s.options().Worker)
	require.NoError(t, err)
	defer on.Close()
	passes := func(c *api.EventCase) {
		b, err := bundle.Load(filepath.Join(s.dir, "functions", c.Function))
		require.NoError(t, err)
		list, err := cases.Parse("saved.yaml", []byte(c.Text), b.Spec)
		require.NoError(t, err, c.Text)
		for _, one := range list {
			for _, f := range on.Run(ctx, b, one).Failures {
				t.Errorf("%s\n%s", f.Text(), c.Text)
			}
		}
	}
	wanted := map[string]bool{"message": true, "reading": true, "tick": true, "timer": true, "gateway": true, "invoke": true, "result": true, "state": true, "retry": true, "dead": true}
	done := map[string]bool{}
	require.Eventually(t, func() bool {
		require.NoError(t, a.Events(ctx, api.EventQuery{Limit: 1000}, func(l api.Life) error {
			for _, o := range l.Outcomes {
				key := l.ID + " " + o.Function
				if (o.What != "committed" && o.What != "dead") || done[key] {
					continue
				}
				done[key] = true
				c, err := a.EventCase(ctx, l.ID, o.Function)
				require.NoError(t, err)
				passes(c)
				delete(wanted, l.Type)
				delete(wanted, o.What)
				if o.Attempt > 1 {
					delete(wanted, "retry")
				}
			}
			return nil
		}))
		return len(wanted) == 0
	}, 40*time.Second, 20*time.Millisecond, "%v", wanted)

	dead, err := a.DeadLetters(ctx, api.DeadQuery{})
	require.NoError(t, err)
	c, err := a.EventCase(ctx, dead[0].ID, "")
	require.NoError(t, err)
	require.Contains(t, c.Text, `fault: {kind: error, message: "main.lua:3: as asked"}`)
	passes(c)
	_, err = a.EventCase(ctx, "nothing", "")
	require.ErrorContains(t, err, "event nothing is not remembered (any more)")
}
