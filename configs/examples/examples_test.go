package examples

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/functions/bundle"
	"github.com/perigee-iot/perigee/functions/script"
	"github.com/perigee-iot/perigee/internal/event"
	"github.com/perigee-iot/perigee/internal/topic"
)

// names are the folders that Files holds.
func names(t *testing.T) (list []string) {
	entries, err := fs.ReadDir(Files(), ".")
	require.NoError(t, err)
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

// load reads an example out of what is embedded, as the gateway reads a folder.
func load(t *testing.T, name string) *functions.Bundle {
	files := map[string][]byte{}
	for _, f := range []string{"function.yaml", "main.lua"} {
		data, err := Files().ReadFile(name + "/" + f)
		require.NoError(t, err)
		files[f] = data
	}
	b, err := bundle.FromFiles(files, name)
	require.NoError(t, err)
	return b
}

// TestEveryExampleIsRight: each folder here is embedded, is a valid function that compiles, explains itself, and stands in the README.
func TestEveryExampleIsRight(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	entries, err := os.ReadDir(".")
	require.NoError(t, err)
	for _, e := range entries {
		if e.IsDir() {
			require.Contains(t, names(t), e.Name(), "embedded")
		}
	}
	for _, name := range names(t) {
		b := load(t, name)
		require.Nil(t, script.New(script.Options{}).Load(b.Digest, b.Files), name)
		require.NotEmpty(t, b.Spec.Description, name)
		require.Contains(t, string(readme), "| ["+name+"]("+name+"/main.lua) |", "the README lists it")
	}
	for _, name := range []string{Overheat, Climate, Lamp, Health, Proof} {
		require.Contains(t, names(t), name)
	}
}

// box is a gateway for one function: it matches, keeps state and collects what is done.
type box struct {
	*testing.T
	b      *functions.Bundle
	m      *script.Machine
	env    []byte
	now    time.Time
	state  map[string]map[string][]byte // by key, name
	timers map[string]*event.Event      // by key and name: what the function sees again
	logs   []string
}

func newBox(t *testing.T, name string) *box {
	x := &box{T: t, b: load(t, name), m: script.New(script.Options{}), now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC),
		state: map[string]map[string][]byte{}, timers: map[string]*event.Event{}}
	require.Nil(t, x.m.Load(x.b.Digest, x.b.Files))
	values, err := x.b.Spec.CheckSettings(nil)
	require.NoError(t, err)
	x.env, err = json.Marshal(values)
	require.NoError(t, err)
	return x
}

// message runs the function on a message, if its triggers want it, and returns what it did, a line each.
func (x *box) message(name, data string) []string {
	x.Helper()
	for _, tr := range x.b.Spec.Triggers {
		if tr.MQTT == nil {
			continue
		}
		p, err := topic.ParsePattern(tr.MQTT.Topic)
		require.NoError(x, err)
		params, ok := p.Match(name)
		excluded := slices.ContainsFunc(tr.MQTT.Exclude, func(f string) bool { return topic.Match(f, name) })
		if !ok || excluded || !hasAll(data, tr.MQTT.Has) {
			continue
		}
		ev := &event.Event{ID: "e", Source: "mqtt", Type: event.Message, Subject: name, Topic: name, Data: []byte(data)}
		return x.run(ev, params, x.key(name, params, data))
	}
	return []string{"not triggered"}
}

// reading runs it on a device's reading.
func (x *box) reading(device, data string) []string {
	x.Helper()
	ok := slices.ContainsFunc(x.b.Spec.Triggers, func(t functions.Trigger) bool { return t.Device == device })
	require.True(x, ok, "no trigger for device %s", device)
	ev := &event.Event{ID: "e", Source: "device/" + device, Type: event.Reading, Subject: device, Data: []byte(data)}
	return x.run(ev, nil, "")
}

// timer lets a timer go off.
func (x *box) timer(key, name string) []string {
	x.Helper()
	ev := x.timers[key+"/"+name]
	require.NotNil(x, ev, "the timer %s of %q is not set", name, key)
	delete(x.timers, key+"/"+name)
	return x.run(ev, nil, key)
}

func hasAll(data string, fields []string) bool {
	var object map[string]json.RawMessage
	if json.Unmarshal([]byte(data), &object) != nil {
		return len(fields) == 0
	}
	return !slices.ContainsFunc(fields, func(f string) bool { return object[f] == nil })
}

func (x *box) key(name string, params map[string]string, data string) string {
	if x.b.Spec.Key.Kind != functions.KeyData {
		return x.b.Spec.Key.Expand(name, params)
	}
	var object map[string]any
	require.NoError(x, json.Unmarshal([]byte(data), &object))
	return fmt.Sprint(object[x.b.Spec.Key.Path[0]])
}

func (x *box) run(ev *event.Event, params map[string]string, key string) (did []string) {
	x.Helper()
	x.now = x.now.Add(time.Second)
	ev.Time, ev.TimeOK = x.now, true
	inv := &functions.Invocation{ID: 1, Function: x.b.Spec.Name, Revision: x.b.Digest, Event: ev, Params: params, Key: key, Attempt: 1,
		NoKey: x.b.Spec.Key.Kind == functions.KeyNone, Now: x.now, NowOK: true, Gateway: "gw-01", Env: x.env, Limits: x.b.Spec.Limits, Perms: x.b.Spec.Permissions}
	if x.state[key] == nil {
		x.state[key] = map[string][]byte{}
	}
	s := x.state[key]
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	out := x.m.Run(ctx, inv, func(q functions.Read) functions.ReadAnswer { return functions.ReadAnswer{Read: q, Value: s[q.Name]} })
	if out.Fault != nil {
		x.Fatalf("%s", out.Fault.Text())
	}
	for _, l := range out.Logs {
		x.logs = append(x.logs, l.Level+" "+l.Text)
	}
	for _, e := range out.Effects {
		if text := x.apply(s, e, ev, key); text != "" {
			did = append(did, text)
		}
	}
	if out.Result != nil {
		did = append(did, "returns "+string(out.Result))
	}
	return did
}

// apply carries an effect out and says what it is, unless it only concerns the function itself.
func (x *box) apply(s map[string][]byte, e functions.Effect, ev *event.Event, key string) string {
	switch e.Kind {
	case functions.SetState:
		s[e.Name] = e.Value
	case functions.DeleteState:
		delete(s, e.Name)
	case functions.IncrState:
		var n float64
		if s[e.Name] != nil {
			require.NoError(x, json.Unmarshal(s[e.Name], &n))
		}
		s[e.Name], _ = json.Marshal(n + e.By)
	case functions.SetTimer:
		x.timers[key+"/"+e.Name] = &event.Event{ID: "t", Source: "timer/" + x.b.Spec.Name, Type: event.Timer, Subject: e.Name, Data: ev.Data}
	case functions.CancelTimer:
		delete(x.timers, key+"/"+e.Name)
	case functions.Publish:
		return "publish " + e.Name + " " + string(e.Value)
	case functions.WriteDevice:
		return "device " + e.Name + " " + string(e.Value)
	case functions.Append:
		return "stream " + e.Name + " " + string(e.Value)
	}
	return ""
}

func TestOverheat(t *testing.T) {
	x := newBox(t, Overheat)
	require.Equal(t, []string{`returns {"hot":false}`}, x.reading("cellar", `{"temperature":31}`))
	require.Equal(t, []string{`device fan true`, `publish alerts/overheat {"room":"cellar","hot":true,"temperature":31}`,
		`stream alerts {"room":"cellar","hot":true,"temperature":31}`, `returns {"hot":true}`}, x.timer("", "signal.alarm.hot"))
	require.Equal(t, []string{`returns {"hot":true}`}, x.reading("cellar", `{"temperature":28}`), "between off and on nothing changes")
	x.reading("cellar", `{"temperature":26}`)
	require.Contains(t, x.timer("", "signal.alarm.hot"), "device fan false")
}

func TestClimate(t *testing.T) {
	x := newBox(t, Climate)
	first := x.message("zigbee2mqtt/attic", `{"temperature":21.5,"humidity":47.2,"battery":97,"linkquality":120}`)
	require.Equal(t, []string{`publish climate/attic {"room":"attic","temperature":21.5,"mean":21.5,"min":21.5,"max":21.5}`,
		`stream climate {"room":"attic","temperature":21.5,"mean":21.5,"min":21.5,"max":21.5}`, `returns {"mean":21.5}`}, first)
	require.Equal(t, []string{`returns {"mean":21.6}`}, x.message("zigbee2mqtt/attic", `{"temperature":21.7}`), "no news")
	require.Len(t, x.message("zigbee2mqtt/cellar", `{"temperature":21.7}`), 3, "another room")
	require.Equal(t, []string{"not triggered"}, x.message("zigbee2mqtt/door", `{"contact":true}`))
}

func TestLamp(t *testing.T) {
	x := newBox(t, Lamp)
	require.Equal(t, []string{"device lamp true", `returns {"on":true,"presses":1}`}, x.reading("button", `{"action":"single"}`))
	require.Equal(t, []string{"device lamp false", `returns {"on":false,"presses":2}`}, x.reading("button", `{"action":"single"}`))
	require.Empty(t, x.reading("button", `{"action":"double"}`))
}

func TestHealth(t *testing.T) {
	x := newBox(t, Health)
	require.Equal(t, []string{"publish box/load 0.5", `returns {"load":0.5,"high":[]}`},
		x.reading("box", `{"load":0.5,"memory_used":40,"disk_used":60.5,"uptime":12345}`), "a machine without a sensor of its temperature")
	require.Equal(t, []string{`stream alerts {"machine":"gw-01","field":"disk_used","high":true,"value":96}`, `returns {"load":0.6,"high":["disk_used"]}`},
		x.reading("box", `{"load":0.6,"memory_used":40,"disk_used":96,"cpu_temperature":51}`))
}

func TestProof(t *testing.T) {
	x := newBox(t, Proof)
	require.Equal(t, []string{`stream proof {"run":"a","n":7,"count":1}`, `publish demo/proof/out {"run":"a","n":7,"count":1}`},
		x.message("demo/proof", `{"run":"a","n":7}`))
	require.Contains(t, x.message("demo/proof", `{"run":"a","n":8}`)[0], `"count":2`)
	require.Contains(t, x.message("demo/proof", `{"run":"b","n":1}`)[0], `"count":1`, "another run")
}

func TestZigbee2MQTT(t *testing.T) {
	x := newBox(t, "zigbee2mqtt")
	fine := `{"battery":97,"humidity":47.18,"linkquality":120,"pressure":1009.9,"temperature":22.31,"voltage":3005}`
	low := `{"battery":12,"humidity":47.2,"linkquality":92,"pressure":1009.8,"temperature":22.3,"voltage":2705}`
	require.Equal(t, []string{`returns {"low":false}`}, x.message("zigbee2mqtt/attic", fine))
	require.Equal(t, []string{`publish alerts/battery {"device":"attic","low":true,"battery":12}`, `stream alerts {"device":"attic","low":true,"battery":12}`,
		`returns {"low":true}`}, x.message("zigbee2mqtt/attic", low))
	require.Equal(t, []string{`returns {"low":true}`}, x.message("zigbee2mqtt/attic", low), "once")
	require.Equal(t, []string{"not triggered"}, x.message("zigbee2mqtt/plug", `{"current":0.29,"energy":11.2,"linkquality":200,"power":60.1,"state":"ON"}`))
	require.Equal(t, []string{"not triggered"}, x.message("zigbee2mqtt/bridge/state", `{"state":"online"}`))
	require.Equal(t, []string{`publish alerts/silent {"device":"attic"}`, `stream alerts {"device":"attic","silent":true}`}, x.timer("attic", "silent"))
}

func TestTasmota(t *testing.T) {
	x := newBox(t, "tasmota")
	sensor := func(power, total float64) string {
		return fmt.Sprintf(`{"Time":"2026-03-01T10:11:12","ENERGY":{"TotalStartTime":"2025-11-02T08:01:12","Total":%.3f,"Yesterday":0.341,"Today":0.122,"Period":3,`+
			`"Power":%g,"ApparentPower":67,"ReactivePower":53,"Factor":0.61,"Voltage":229,"Current":0.293}}`, total, power)
	}
	const at = "tele/washer/SENSOR"
	require.Equal(t, []string{`returns {"running":false,"power":0}`}, x.message(at, sensor(0, 12.371)))
	x.message(at, sensor(2041, 12.4))
	require.Equal(t, []string{`returns {"running":true,"power":2041}`}, x.timer("washer", "signal.alarm.running"))
	x.message(at, sensor(1, 13.112))
	require.Equal(t, []string{`publish home/washer/finished {"energy":0.712}`, `stream energy {"plug":"washer","energy":0.712}`,
		`returns {"running":false,"power":1}`}, x.timer("washer", "signal.alarm.running"))
	require.Equal(t, []string{"not triggered"}, x.message(at, `{"Time":"2026-03-01T10:11:12","AM2301":{"Temperature":21.3,"Humidity":48.1,"DewPoint":9.9},"TempUnit":"C"}`))
}

func TestShelly(t *testing.T) {
	x := newBox(t, "shelly")
	status := `{"id":0, "source":"init", "output":true, "apower":60.5, "voltage":231.3, "freq":50.0, "current":0.293, "pf":0.90, ` +
		`"aenergy":{"total":11679.000,"by_minute":[0.000,1007.215,1008.332],"minute_ts":1712000000},"temperature":{"tC":43.1, "tF":109.6}}`
	require.Equal(t, `publish home/shellyplus1pm-441793d69718 {"state":"ON","power":60.5,"voltage":231.3,"energy":11.679,"device_temperature":43.1}`,
		x.message("shellyplus1pm-441793d69718/status/switch:0", status)[0])
	notify := `{"src":"shellyplus1pm-441793d69718","dst":"shellyplus1pm-441793d69718/events","method":"NotifyStatus","params":{"ts":1712000003.21,"switch:0":{"id":0,"apower":61.2}}}`
	require.Equal(t, `publish home/shellyplus1pm-441793d69718 {"power":61.2}`, x.message("shellyplus1pm-441793d69718/events/rpc", notify)[0])
	push := `{"src":"shellyplusi4-a8032abe54dc","dst":"shellyplusi4-a8032abe54dc/events","method":"NotifyEvent","params":{"ts":1631266595.44,` +
		`"events":[{"component":"input:0","id":0,"event":"btn_down","ts":1631266595.44},{"component":"input:0","id":0,"event":"single_push","ts":1631266595.44}]}}`
	require.Equal(t, []string{`publish home/shellyplusi4-a8032abe54dc/action {"action":"single","input":"input:0"}`}, x.message("shellyplusi4-a8032abe54dc/events/rpc", push))
	wifi := `{"src":"shellyplusi4-a8032abe54dc","dst":"shellyplusi4-a8032abe54dc/events","method":"NotifyStatus","params":{"ts":1631266600.1,"wifi":{"rssi":-61}}}`
	require.Empty(t, x.message("shellyplusi4-a8032abe54dc/events/rpc", wifi))
}

// TestRuuvi decodes the test vectors that Ruuvi publishes for data format 5.
func TestRuuvi(t *testing.T) {
	advertisement := func(raw string) string {
		return fmt.Sprintf(`{"gw_mac":"C8:25:2D:8E:9C:2C","rssi":-71,"aoa":[],"gwts":"1643888166","ts":"1643888165","data":"0201061BFF9904%s","coords":""}`, raw)
	}
	const at = "ruuvi/C8:25:2D:8E:9C:2C/CB:B8:33:4C:88:4F"
	tests := []struct{ name, raw, want string }{
		{"valid", "0512FC5394C37C0004FFFC040CAC364200CDCBB8334C884F",
			`{"sequence":205,"movement":66,"temperature":24.3,"humidity":53.49,"pressure":1000.44,"voltage":2977,"rssi":-71}`},
		{"highest", "057FFFFFFEFFFE7FFF7FFF7FFFFFDEFEFFFECBB8334C884F",
			`{"sequence":65534,"movement":254,"temperature":163.84,"humidity":163.84,"pressure":1155.34,"voltage":3646,"rssi":-71}`},
		{"lowest", "058001000000008001800180010000000000CBB8334C884F",
			`{"sequence":0,"movement":0,"temperature":-163.83,"humidity":0,"pressure":500,"voltage":1600,"rssi":-71}`},
		{"nothing available", "058000FFFFFFFF800080008000FFFFFFFFFFFFFFFFFFFFFF", `{"sequence":65535,"movement":255,"rssi":-71}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			x := newBox(t, "ruuvi")
			did := x.message(at, advertisement(tt.raw))
			text, ok := strings.CutPrefix(did[0], "publish tags/CB:B8:33:4C:88:4F ")
			require.True(t, ok, did[0])
			require.JSONEq(t, tt.want, text)
			require.Empty(t, x.message(at, advertisement(tt.raw)), "heard by a second gateway")
		})
	}
	x := newBox(t, "ruuvi")
	require.Empty(t, x.message(at, advertisement("03291A1ECE1EFC18F94202CA0B53")))
	require.Empty(t, x.message(at, advertisement("0512FC5394C3")))
	require.Equal(t, []string{"warn a tag that is not understood: no data of format 5", "warn a tag that is not understood: cut short"}, x.logs)
}

func TestTTN(t *testing.T) {
	x := newBox(t, "ttn")
	uplink := func(inner string) string {
		return `{"end_device_ids":{"device_id":"soil-1","application_ids":{"application_id":"farm"},"dev_eui":"0004A30B001C0530","join_eui":"800000000000000C","dev_addr":"00BCB929"},` +
			`"correlation_ids":["as:up:01E0WZGT6Y7657CPFPE5WEYDSQ"],"received_at":"2026-03-01T15:15:45.787Z","uplink_message":{"session_key_id":"AXA50tHUSWFHdsFCCY5TVg==","f_port":2,` + inner +
			`"rx_metadata":[{"gateway_ids":{"gateway_id":"gtw1","eui":"9C5C8E00001A05C4"},"timestamp":2463457000,"rssi":-91,"channel_rssi":-91,"snr":5.2},` +
			`{"gateway_ids":{"gateway_id":"gtw2"},"rssi":-35,"snr":9}],"settings":{"data_rate":{"lora":{"bandwidth":125000,"spreading_factor":7}},"frequency":"868300000"},` +
			`"received_at":"2026-03-01T15:15:45.582Z","consumed_airtime":"0.056576s"}}`
	}
	const at = "v3/farm@ttn/devices/soil-1/up"
	require.Equal(t, []string{`stream soil {"device":"soil-1","moisture":33,"temperature":21.5,"dry":false,"missed":0,"rssi":-35}`, `returns {"dry":false,"missed":0}`},
		x.message(at, uplink(`"f_cnt":16,"frm_payload":"IdY=","decoded_payload":{"moisture":33,"temperature":21.5},`)))
	did := x.message(at, uplink(`"f_cnt":19,"frm_payload":"E9Y=","decoded_payload":{"moisture":19,"temperature":21.5},`))
	require.Equal(t, "publish fields/soil-1/dry true", did[0])
	require.Contains(t, did[1], `"dry":true,"missed":2`)
	require.Contains(t, x.message(at, uplink(`"frm_payload":"E9Y=","decoded_payload":{"moisture":25},`))[0], `"missed":0`, "it has joined anew")
	require.Empty(t, x.message(at, uplink(`"f_cnt":1,"frm_payload":"E9Y=",`)))
	require.Contains(t, x.logs[0], "no decoded_payload from soil-1")
	require.Equal(t, []string{"not triggered"}, x.message("v3/farm@ttn/devices/soil-1/join", `{"join_accept":{}}`))
}
