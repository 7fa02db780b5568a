package apitest

import (
	"encoding/json"
	"time"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/gateway/api"
)

// Sample returns a Fake with one of everything, always the same.
func Sample() *Fake {
	f := New()
	at := time.Date(2026, 5, 4, 12, 30, 15, 0, time.UTC)
	fault := &functions.Fault{Kind: functions.FaultError, Message: "main.lua:4: attempt to index a nil value", Traceback: []string{"main.lua:4: in main"}, Hint: "the payload has no temperature"}
	f.Edit(func(d *Data) {
		status := api.Status{
			Gateway: "gw-01", Version: "0.1.0", PID: 812, Uptime: 3*time.Hour + 25*time.Minute, Ready: true,
			Broker:    api.BrokerStatus{Embedded: true, Listen: []string{"tcp://127.0.0.1:1883"}, Connected: true, Clients: 3},
			Events:    api.EventCounts{Received: 120_400, Accepted: 120_398, Committed: 120_390, Duplicates: 2, Faults: 4, Dead: 1, Waiting: 5, Inbox: 3, Actions: 1},
			Functions: map[string]int{"active": 1, "paused": 1},
			Store:     api.StoreStatus{Dir: "/var/lib/perigee", Durability: "power", Profile: "small", Bytes: 12 << 20, Free: 3 << 30, Groups: 5000, Syncs: 5000},
			Workers:   api.WorkerStatus{Running: 2, Busy: 1, Max: 2, Started: 7, Killed: 1},
			Sources:   []api.SourceStatus{{Name: "broker", Connected: true, Events: 120_400}},
			Uplinks:   []api.UplinkStatus{{Name: "main", URL: "tcp://cloud:1883", Connected: true, Since: at, Waiting: 12, Sent: 9000, Rate: 42.5, Drain: 90 * time.Second}},
		}
		*d.Status = status
		d.Functions["overheat"] = &api.Function{
			Name: "overheat", Description: "Switch the fan on when a room gets warm", State: "active", Origin: "dir", Revision: "1f0c5a2b9e77", Since: at,
			Triggers: []string{"mqtt zigbee2mqtt/{room}"}, Key: "{room}", Runs: 120_390, OK: 120_386, Faults: map[string]int64{"error": 3, "timeout": 1},
			Waiting: 5, Dead: 1, P50: 900 * time.Microsecond, P99: 4200 * time.Microsecond, CPU: 650 * time.Microsecond, LastFault: fault, StateBytes: 2048,
			Files:       map[string]string{"function.yaml": "triggers: [{mqtt: 'zigbee2mqtt/{room}'}]\n", "main.lua": "return function(event, ctx)\n  return {}\nend\n"},
			Permissions: []string{"publish alerts/#", "devices.write fan"}, Env: map[string]any{"on": 30.0, "off": 28.0},
		}
		d.Functions["quiet"] = &api.Function{Name: "quiet", State: "paused", Reason: "maintenance", Origin: "pushed", Revision: "aa00bb11cc22", Since: at, Triggers: []string{"every 15m"}}
		*d.Logs = []api.LogLine{
			{Time: at, Function: "overheat", Revision: "1f0c5a2b9e77", Level: "info", Text: "cellar is warm", EventID: "01A"},
			{Time: at.Add(time.Second), Function: "overheat", Revision: "1f0c5a2b9e77", Level: "error", Text: "error: main.lua:4: attempt to index a nil value", EventID: "01B", Fault: fault},
			{Time: at.Add(2 * time.Second), Function: "quiet", Revision: "aa00bb11cc22", Level: "warn", Text: "nothing to do"},
		}
		*d.Lives = []api.Life{
			{ID: "01A", Seq: 41, Source: "mqtt", Type: "message", Subject: "zigbee2mqtt/cellar", Time: at, TimeOK: true, Size: 18, Preview: `{"temperature":31}`, Accepted: true, Took: 3 * time.Millisecond,
				Outcomes: []api.LifeOutcome{{Function: "overheat", Revision: "1f0c5a2b9e77", What: "committed", Attempt: 1, Wall: time.Millisecond, Effects: []string{"publish alerts/overheat", "device fan = true"}, Result: `{"hot":true}`,
					At: 2 * time.Millisecond, Durable: 3 * time.Millisecond, Records: []api.LifeRecord{{Stream: "alerts", Sequence: 9001, What: "waiting", Why: "for uplink main"}},
					Actions: []api.LifeAction{{ID: "a1", Action: "publish alerts/overheat", What: "done", At: 4 * time.Millisecond}, {ID: "a2", Action: "device fan", What: "waiting", Why: "not connected", At: 5 * time.Second}}}}},
			{ID: "01B", Seq: 42, Source: "mqtt", Type: "message", Subject: "zigbee2mqtt/attic", Time: at.Add(time.Second), TimeOK: true, Size: 12, Preview: `{"battery":9}`, Accepted: true,
				Outcomes: []api.LifeOutcome{{Function: "overheat", What: "skipped", Why: `no field "temperature"`}}},
			{ID: "01C", Seq: 43, Source: "mqtt", Type: "message", Subject: "shelly/1", Time: at.Add(2 * time.Second), Size: 300_000, Preview: "…", Refused: "larger than 256 KiB"},
		}
		*d.Dead = []api.DeadLetter{
			{ID: "d1", Function: "overheat", Revision: "1f0c5a2b9e77", Key: "attic", Attempts: 3, Since: at, Reason: "error", Fault: fault, EventID: "01B", Type: "message", Subject: "zigbee2mqtt/attic", Time: at, Size: 2, Data: []byte(`{}`)},
			{ID: "d2", Function: "overheat", Revision: "000000000000", Key: "cellar", Attempts: 1, Since: at, Reason: "removed", Fault: &functions.Fault{Kind: functions.FaultError, Message: "the function was removed while this event waited"}, EventID: "019", Type: "message", Subject: "zigbee2mqtt/cellar", Time: at, Size: 4, Data: []byte{0xff, 0, 1, 2}},
		}
		*d.State = []api.StateEntry{
			{Function: "overheat", Key: "cellar", Name: "hot", Value: json.RawMessage(`true`)},
			{Function: "overheat", Key: "attic", Name: "hot", Value: json.RawMessage(`false`)},
			{Function: "overheat", Key: "cellar", Name: "count", Value: json.RawMessage(`12000000`)},
			{Function: "overheat", Shared: true, Name: "total", Value: json.RawMessage(`{"n":3}`)},
		}
		*d.Devices = []api.Device{
			{Name: "fan", Kind: "sim", Connected: true, Writes: true, Written: true},
			{Name: "cellar", Kind: "sim", Connected: true, Reads: true, Fields: map[string]any{"temperature": 31.25, "humidity": 40.0}, At: at},
			{Name: "meter", Kind: "mqtt", LastError: "not connected: no answer from the broker", Reads: true},
		}
		*d.Uplinks = d.Status.Uplinks
		*d.Streams = []api.Stream{{Name: "alerts", Uplink: "main", Priority: "high", Epoch: "9f3a", First: 1, Next: 9013, Acked: 9000, Waiting: 12, Bytes: 4096, Oldest: 3 * time.Second}}
		hour := at.Truncate(time.Hour)
		one := api.Usage{Function: "overheat", Revision: "1f0c5a2b9e77", Start: hour.Add(-time.Hour), TimeOK: true, Length: time.Hour, Runs: 60_000, Outcomes: map[string]int64{"ok": 60_000},
			CPU: 39 * time.Second, Wall: 54 * time.Second, In: 1_080_000, Out: 6_000_000, Written: 30_000_000, State: 2048,
			WallP50: 900 * time.Microsecond, WallP99: 4200 * time.Microsecond, WallMax: 80 * time.Millisecond, CPUP99: 2 * time.Millisecond, CPUMax: 30 * time.Millisecond,
			MemoryP99: 1 << 20, MemoryMax: 3 << 20, OutP99: 120, OutMax: 130, Effects: 3, Log: 80, PerSecond: 40}
		two, old := one, one
		two.Start, two.Runs, two.Outcomes, two.WallMax = hour, 30_000, map[string]int64{"ok": 29_995, "retry": 1, "error": 3, "timeout": 1}, time.Second
		old.Start, old.Revision, old.Runs, old.Outcomes, old.TimeOK = hour, "000000000000", 390, map[string]int64{"ok": 390}, false
		*d.Usage = []api.Usage{one, old, two}
		*d.Advice = []api.Advice{
			{Function: "overheat", Revision: "1f0c5a2b9e77", Since: one.Start, Runs: 90_000, Limits: []api.LimitAdvice{
				{Limit: "timeout", Now: "1s", P99: "4.2ms", Max: "1s", Suggest: "2s", Fit: "tight", Why: "hit by 1 of 90 000 invocations", Runs: 90_000},
				{Limit: "memory", Now: "16MiB", P99: "1MiB", Max: "3MiB", Fit: "unknown", Why: "rests on 30 of the 100 invocations that are wanted", Runs: 30},
				{Limit: "effects", Now: "64", Max: "3", Suggest: "8", Fit: "wide", Runs: 90_000},
				{Limit: "effect_bytes", Now: "64KiB", P99: "120B", Max: "130B", Suggest: "1KiB", Fit: "wide", Runs: 90_000},
				{Limit: "state", Now: "64KiB", Max: "2KiB", Suggest: "64KiB", Fit: "good", Runs: 90_000},
			}},
			{Function: "quiet", Revision: "aa00bb11cc22", Limits: []api.LimitAdvice{{Limit: "timeout", Now: "1s", Max: "0s", Fit: "unknown", Why: "rests on 0 of the 100 invocations that are wanted"}}},
		}
		*d.Recording = []string{`{"begin":{"format":"perigee-recording","version":1,"gateway":"gw-01","at":"2026-05-04T12:30:15Z"}}`,
			`{"end":{"why":"time","at":"2026-05-04T12:31:15Z","invocations":0}}`}
		asked := int64(0)
		*d.Top = func() *api.Top {
			asked++
			return &api.Top{Gateway: "gw-01", Uptime: 3*time.Hour + time.Duration(asked)*time.Second, CPUs: 4, Workers: status.Workers, Events: status.Events, Functions: []api.TopFunction{
				{Name: "overheat", State: "active", Runs: 120_390 + 40*asked, Faults: 4 + asked/2, CPU: time.Duration(asked) * 26 * time.Millisecond, Wall: time.Duration(asked) * 36 * time.Millisecond,
					P99: 4200 * time.Microsecond, Memory: 3 << 20, In: asked * 720, Out: asked * 4800, Written: asked * 20_000, Stored: 2048, Waiting: 5},
				{Name: "quiet", State: "paused"},
			}}
		}
	})
	return f
}
