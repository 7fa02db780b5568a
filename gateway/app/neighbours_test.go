package app

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/stretchr/testify/require"
)

// attacks are functions that mean harm to others, each in another way.
var attacks = []struct{ name, body string }{
	{"endless loop", `while true do end`},
	{"endless pcall", `while true do pcall(function() while true do end end) end`},
	{"tables", `local t = {} for i = 1, 1e12 do t[i] = {i} end`},
	{"one large table", `local t = {} t[67108862] = 1 local u = {} for i = 1, 1e9 do u[i] = i end`},
	{"doubled string", `local s = "x" while true do s = s .. s end`},
	{"large strings", `local t = {} for i = 1, 1e9 do t[i] = ("x"):rep(1e6) end`},
	{"pattern", `return (("a"):rep(100000)):match(("a*"):rep(30) .. "b")`},
	{"coroutines", `local t = {} for i = 1, 1e9 do t[i] = coroutine.create(function() end) end`},
	{"recursion", `local function f() return 1 + f() end while true do pcall(f) end`},
	{"sort", `local t = {} for i = 1, 1e5 do t[i] = i end while true do table.sort(t, function() return true end) end`},
	{"json", `local s = "[" .. ("{},"):rep(1e5) .. "1]" while true do json.decode(s) end`},
	{"effects", `while true do publish("out/flood", ("x"):rep(1000)) end`},
	{"log", `while true do log(("x"):rep(1000)) end`},
	{"state", `for i = 1, 1e9 do state.set("k", ("x"):rep(1000)) end`},
	{"reads", `for i = 1, 1e9 do state.get("k" .. i) end`},
}

// street is a well-behaved function whose messages are sent and answered over MQTT, with a hostile one for each attack.
type street struct {
	t    *testing.T
	app  *App
	in   mqtt.Client
	seq  int
	mu   sync.Mutex
	sent map[int]time.Time
	took map[int]time.Duration
}

func newStreet(t *testing.T) *street {
	s := newSite(t)
	s.function("neighbour", "triggers: [{mqtt: in/n}]\npermissions: {publish: [out]}\n",
		`return function(event) state.incr("n") publish("out", event.data.seq .. "") end`)
	for i, a := range attacks {
		s.function(fmt.Sprint("hostile", i), fmt.Sprintf("description: %s\ntriggers: [{mqtt: in/h%d}]\npermissions: {publish: [out/#]}\nlimits: {timeout: 500ms}\nretry: {attempts: 1}\n", a.name, i),
			"return function(event) "+a.body+" end")
	}
	x := &street{t: t, app: s.open(), sent: map[int]time.Time{}, took: map[int]time.Duration{}}
	x.in = x.client(s.port, "in")
	out := x.client(s.port, "out")
	token := out.Subscribe("out", 1, func(_ mqtt.Client, m mqtt.Message) {
		now := time.Now()
		x.mu.Lock()
		defer x.mu.Unlock()
		if seq, err := strconv.Atoi(string(m.Payload())); err == nil && x.took[seq] == 0 {
			x.took[seq] = now.Sub(x.sent[seq])
		}
	})
	require.True(t, token.WaitTimeout(10*time.Second))
	return x
}

func (x *street) client(port int, id string) mqtt.Client {
	c := mqtt.NewClient(mqtt.NewClientOptions().AddBroker(fmt.Sprintf("tcp://127.0.0.1:%d", port)).SetClientID(id).SetOrderMatters(true))
	token := c.Connect()
	require.True(x.t, token.WaitTimeout(10*time.Second))
	require.NoError(x.t, token.Error())
	x.t.Cleanup(func() { c.Disconnect(100) })
	return c
}

// phase sends a message each 10 ms for a while, with these attacks active, and returns how long the answers took. Each has to come.
func (x *street) phase(long time.Duration, active ...int) []time.Duration {
	x.t.Helper()
	begin, first := time.Now(), x.seq
	for n := 0; time.Since(begin) < long; n++ {
		if n%20 == 0 { // five a second are more than a hostile one can finish
			for _, i := range active {
				x.in.Publish(fmt.Sprintf("in/h%d", i), 1, false, "1")
			}
		}
		x.mu.Lock()
		x.sent[x.seq] = time.Now()
		x.mu.Unlock()
		x.in.Publish("in/n", 1, false, fmt.Sprintf(`{"seq":%d}`, x.seq))
		x.seq++
		<-time.After(time.Until(begin.Add(time.Duration(n+1) * 10 * time.Millisecond)))
	}
	var took []time.Duration
	for deadline := time.Now().Add(60 * time.Second); ; <-time.After(10 * time.Millisecond) {
		took = took[:0]
		x.mu.Lock()
		for seq := first; seq < x.seq; seq++ {
			if d := x.took[seq]; d > 0 {
				took = append(took, d)
			}
		}
		x.mu.Unlock()
		if len(took) == x.seq-first {
			break
		}
		require.True(x.t, time.Now().Before(deadline), "%d of %d messages have no answer", x.seq-first-len(took), x.seq-first)
	}
	slices.Sort(took)
	return took
}

// quiet ends an attack: what of it still waits is not run, and what runs ends.
func (x *street) quiet(i int) {
	require.NoError(x.t, x.app.Pause(context.Background(), fmt.Sprint("hostile", i), "its turn is over"))
	for deadline := time.Now().Add(30 * time.Second); x.app.pool.Stats().Busy > 0; <-time.After(10 * time.Millisecond) {
		require.True(x.t, time.Now().Before(deadline), "it does not end")
	}
}

// again lets an attack that is over run again.
func (x *street) again(i int) {
	require.NoError(x.t, x.app.Resume(context.Background(), fmt.Sprint("hostile", i)))
}

func p99(sorted []time.Duration) time.Duration { return sorted[(len(sorted)-1)*99/100] }

// TestNeighbours: with hostile functions active, one at a time and then four at once, a well-behaved one loses no event. How long its answers
// take is printed, and no gate: PERIGEE_NEIGHBOURS=3s makes each phase that long, for figures that mean something.
func TestNeighbours(t *testing.T) {
	long, some := 300*time.Millisecond, []int{0, 2, 6}
	if s := os.Getenv("PERIGEE_NEIGHBOURS"); s != "" {
		var err error
		long, err = time.ParseDuration(s)
		require.NoError(t, err)
		some = nil
		for i := range attacks {
			some = append(some, i)
		}
	}
	x := newStreet(t)
	x.phase(long)
	calm := x.phase(2 * long)
	t.Logf("%-16s p50 %8v  p99 %8v  of %d", "undisturbed", calm[len(calm)/2].Round(time.Microsecond), p99(calm).Round(time.Microsecond), len(calm))
	for _, i := range some {
		d := x.phase(long, i)
		t.Logf("%-16s p50 %8v  p99 %8v  %4.1f times, slowest %v", attacks[i].name, d[len(d)/2].Round(time.Microsecond), p99(d).Round(time.Microsecond),
			float64(p99(d))/float64(p99(calm)), d[len(d)-1].Round(time.Millisecond))
		x.quiet(i)
	}
	four := []int{0, 2, 6, 7}
	for _, i := range four {
		x.again(i)
	}
	d := x.phase(2*long, four...)
	var names []string
	for _, i := range four {
		names = append(names, attacks[i].name)
	}
	t.Logf("four at once (%s): p50 %v  p99 %v, slowest %v", strings.Join(names, ", "), d[len(d)/2].Round(time.Microsecond), p99(d).Round(time.Microsecond), d[len(d)-1].Round(time.Millisecond))
}
