package chaos

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/stretchr/testify/require"
)

// keeper keeps state and appends to a stream; teller publishes besides.
var (
	keeper = function{"keeper", `triggers: [{mqtt: in}]
permissions: {streams: [kept]}
`, `return function(event)
  local n = state.incr("count")
  state.set("last", event.data)
  stream.append("kept", {n = n, temperature = event.data.temperature})
end
`}
	teller = function{"keeper", `triggers: [{mqtt: in}]
permissions: {streams: [kept], publish: [out]}
`, `return function(event)
  local n = state.incr("count")
  state.set("last", event.data)
  stream.append("kept", {n = n, temperature = event.data.temperature})
  publish("out", {n = n}, {qos = 1})
end
`}
)

// flashRate is how many events come each second.
const flashRate = 100

// TestWrittenToFlash counts what reaches a device of its own, until everything has been delivered, deleted and
// synced, with what compaction writes: that is what an SD card wears by.
func TestWrittenToFlash(t *testing.T) {
	seconds, share := 8, int64(2) // of a short run start and stop are a good part
	if *full {
		seconds, share = 300, 1
	}
	for _, c := range []struct {
		durability, profile string
		fn                  function
		most                int64 // bytes an event; 0: any
	}{
		{"power", "small", keeper, 3 << 10},
		{"crash", "small", keeper, 1 << 10},
		{"power", "normal", keeper, 3 << 10},
		{"crash", "normal", keeper, 1 << 10},
		{"power", "small", teller, 0},
		{"crash", "small", teller, 0},
	} {
		name := c.durability + " " + c.profile
		if c.most == 0 {
			name += " with a publish"
		}
		if !*full && (c.most == 0 || c.profile == "normal") {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := seconds * flashRate
			config := fmt.Sprintf("store: {durability: %s, profile: %s}\n", c.durability, c.profile)
			device, syncs := flash(t, config, c.fn, n)
			t.Logf("%s: %d events at %d/s: %d bytes an event written to the device, %.2f syncs an event", name, n, flashRate, device/int64(n),
				float64(syncs)/float64(n))
			if c.most > 0 {
				require.LessOrEqual(t, device/int64(n), c.most*share, "bytes an event")
			}
		})
	}
}

// flash sends n events to a gateway, and returns how many bytes its device was given to write, and how often it was synced.
func flash(t *testing.T, config string, fn function, n int) (device, syncs int64) {
	far := newCloud(t)
	url := fmt.Sprintf("tcp://127.0.0.1:%d", freePort(t))
	g := newGateway(t, config+fmt.Sprintf("broker: {listen: [%s]}\nuplinks: {main: {mqtt: {url: \"tcp://%s\"}}}\n", url, far.r.Addr()), []function{fn})
	d := newDevice(t, filepath.Join(g.dir, "data"), 512)
	g.start()
	g.ready()
	before := d.written()
	c := mqtt.NewClient(mqtt.NewClientOptions().AddBroker(url).SetClientID("sensor").SetAutoReconnect(false))
	require.True(t, c.Connect().WaitTimeout(10*time.Second))
	start := time.Now()
	sent := make([]mqtt.Token, 0, n)
	for i := range n {
		time.Sleep(time.Until(start.Add(time.Duration(i) * time.Second / flashRate)))
		sent = append(sent, c.Publish("in", 1, false, fmt.Sprintf(`{"temperature":%.2f,"humidity":%.1f,"n":%d}`, 20+float64(i%500)/100, 40+float64(i%37)/10, i)))
	}
	for _, tok := range sent {
		require.True(t, tok.WaitTimeout(30*time.Second))
		require.NoError(t, tok.Error())
	}
	c.Disconnect(100)
	eventually(t, "every record at the cloud", time.Minute, func() bool { return far.r.Stats().Records >= int64(n) })
	require.Equal(t, n, g.number("keeper", "count", ""))
	var status struct {
		Store struct{ Groups, Syncs int64 }
	}
	g.json(&status, "status")
	g.stop() // which writes what is in memory to a table
	return d.written() - before, status.Store.Syncs
}
