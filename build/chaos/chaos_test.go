// Package chaos kills the gateway at moments that nobody chose, under load, and counts afterwards: what the broker told
// a sender is done must be done exactly once in state and streams, and at least once, distinct by id, in actions.
//
// The senders and receivers stand outside of the gateway and count by sequence numbers of their own. Every suite prints
// its counts. `go test ./build/chaos` is the short form; `make chaos` the full one.
package chaos

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/internal/mosquittotest"
	"github.com/perigee-iot/perigee/sync/receiver"
	"github.com/perigee-iot/perigee/sync/record"
)

var full = flag.Bool("full", false, "200 kills instead of 50")

// binary builds the gateway once for all tests.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "perigee-chaos")
	if err != nil {
		return "", err
	}
	bin := filepath.Join(dir, "perigee")
	cmd := exec.Command("go", "build", "-o", bin, "../../gateway/cmd/perigee")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the gateway: %w\n%s", err, out)
	}
	return bin, nil
})

func TestMain(m *testing.M) {
	flag.Parse()
	code := m.Run()
	if bin, err := binary(); err == nil {
		_ = os.RemoveAll(filepath.Dir(bin))
	}
	os.Exit(code)
}

// gateway is a perigee process in a directory of its own.
type gateway struct {
	t    *testing.T
	bin  string
	dir  string
	args []string
	cmd  *exec.Cmd
	log  *os.File
}

const senders = 4

// tally is the function under test: per sender it notes every number that comes twice, out of order, or after a gap.
const tallyYAML = `name: tally
triggers: [{mqtt: "load/{sender}"}]
key: "{sender}"
permissions: {publish: [done/#], streams: [tally]}
`

const tallyLua = `return function(event, ctx)
  local n, sender = event.data.n, event.params.sender
  local last = state.get("last", 0)
  if n ~= last + 1 then
    state.incr(n <= last and "again" or "gap")
  end
  state.set("last", n)
  state.incr("count")
  stream.append("tally", {sender = sender, n = n})
  publish("done/" .. sender, {n = n}, {qos = 1, id = true})
end
`

func newGateway(t *testing.T, config string) *gateway {
	t.Helper()
	bin, err := binary()
	require.NoError(t, err)
	g := &gateway{t: t, bin: bin, dir: t.TempDir()}
	fn := filepath.Join(g.dir, "functions", "tally")
	require.NoError(t, os.MkdirAll(fn, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(fn, "function.yaml"), []byte(tallyYAML), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(fn, "main.lua"), []byte(tallyLua), 0o644))
	config = "id: chaos\ndata_dir: data\nlog: {level: info, format: text}\nfunctions: {dir: functions}\n" + config
	require.NoError(t, os.WriteFile(filepath.Join(g.dir, "gateway.yaml"), []byte(config), 0o644))
	g.log, err = os.Create(filepath.Join(g.dir, "log"))
	require.NoError(t, err)
	t.Cleanup(func() {
		g.kill()
		_ = g.log.Close()
		if t.Failed() {
			b, _ := os.ReadFile(g.log.Name())
			t.Logf("the end of the gateway's log:\n%s", b[max(0, len(b)-8000):])
		}
	})
	return g
}

func (g *gateway) start() {
	g.t.Helper()
	g.cmd = exec.Command(g.bin, "run", "--config", filepath.Join(g.dir, "gateway.yaml"))
	g.cmd.Stdout, g.cmd.Stderr = g.log, g.log
	require.NoError(g.t, g.cmd.Start())
}

// kill is kill -9, and waits for the process to be gone.
func (g *gateway) kill() {
	if g.cmd == nil {
		return
	}
	_ = g.cmd.Process.Signal(syscall.SIGKILL)
	_ = g.cmd.Wait()
	g.cmd = nil
}

// ask runs a client command and returns what it prints.
func (g *gateway) ask(args ...string) (string, error) {
	cmd := exec.Command(g.bin, append(args, "--config", filepath.Join(g.dir, "gateway.yaml"))...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, stderr.String())
	}
	return strings.TrimSpace(string(out)), nil
}

// number asks for a value of tally's state, 0 if there is none.
func (g *gateway) number(name, key string) int {
	out, err := g.ask("state", "get", "tally", name, "--key", key)
	if err != nil {
		return 0
	}
	n, err := strconv.Atoi(out)
	require.NoError(g.t, err)
	return n
}

// listener counts the actions: by id, and the numbers they carry.
type listener struct {
	mu      sync.Mutex
	ids     map[string]string // id → sender and n
	numbers map[string]int    // sender and n → how many ids
	repeats int
}

func listen(t *testing.T, url string) *listener {
	l := &listener{ids: map[string]string{}, numbers: map[string]int{}}
	o := mqtt.NewClientOptions().AddBroker(url).SetClientID("listener").SetCleanSession(false).SetAutoReconnect(true).
		SetMaxReconnectInterval(50 * time.Millisecond).SetConnectRetry(true).SetConnectRetryInterval(50 * time.Millisecond)
	o.SetDefaultPublishHandler(func(_ mqtt.Client, m mqtt.Message) {
		var v struct {
			ID string `json:"_id"`
			N  int    `json:"n"`
		}
		if json.Unmarshal(m.Payload(), &v) != nil || v.ID == "" {
			return
		}
		what := fmt.Sprintf("%s %d", m.Topic(), v.N)
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.ids[v.ID] != "" {
			l.repeats++
			return
		}
		l.ids[v.ID] = what
		l.numbers[what]++
	})
	c := mqtt.NewClient(o)
	require.True(t, c.Connect().WaitTimeout(30*time.Second), "the listener connects")
	tok := c.Subscribe("done/#", 1, nil)
	require.True(t, tok.WaitTimeout(30*time.Second))
	require.NoError(t, tok.Error())
	t.Cleanup(func() { c.Disconnect(10) })
	return l
}

// cloud is the far side of the uplink: it counts by identity and by the senders' numbers.
type cloud struct {
	r       *receiver.Receiver
	mu      sync.Mutex
	numbers map[string]int
	last    map[string]int
	order   int
}

func newCloud(t *testing.T) *cloud {
	t.Helper()
	r, err := receiver.New(receiver.Options{Listen: "tcp://127.0.0.1:0", Log: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	c := &cloud{r: r, numbers: map[string]int{}, last: map[string]int{}}
	r.Subscribe(func(rec record.Record) {
		var v struct {
			Sender string `json:"sender"`
			N      int    `json:"n"`
		}
		if json.Unmarshal(rec.Data, &v) != nil {
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.numbers[fmt.Sprintf("%s %d", v.Sender, v.N)]++
		if v.N <= c.last[v.Sender] {
			c.order++
		}
		c.last[v.Sender] = v.N
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = r.Run(ctx)
	}()
	t.Cleanup(func() { cancel(); <-done })
	return c
}

func eventually(t *testing.T, what string, within time.Duration, cond func() bool) {
	t.Helper()
	if !reached(within, cond) {
		t.Fatalf("waited too long for %s", what)
	}
}

func reached(within time.Duration, cond func() bool) bool {
	for deadline := time.Now().Add(within); !cond(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}

func freePort(t *testing.T) int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func TestKilledWithTheEmbeddedBroker(t *testing.T) {
	for _, durability := range []string{"power", "crash"} {
		t.Run(durability, func(t *testing.T) {
			url := fmt.Sprintf("tcp://127.0.0.1:%d", freePort(t))
			suite(t, url, fmt.Sprintf("broker: {listen: [%s]}\nstore: {durability: %s}\n", url, durability))
		})
	}
}

func TestKilledWithAnExternalBroker(t *testing.T) {
	b := mosquittotest.Start(t, mosquittotest.Options{Config: []string{"max_queued_messages 0"}}) // else it drops what the killed gateway has not fetched
	suite(t, b.URL, fmt.Sprintf("broker: {url: %q}\nstore: {durability: power}\n", b.URL))
}

// suite kills a gateway under load, lets everything drain, and counts.
func suite(t *testing.T, url, config string) {
	kills := 25
	if *full {
		kills = 200
	}
	far := newCloud(t)
	g := newGateway(t, config+fmt.Sprintf("uplinks: {main: {mqtt: {url: \"tcp://%s\"}}}\n", far.r.Addr()))
	g.start()
	eventually(t, "the gateway to be ready", 30*time.Second, func() bool { _, err := g.ask("status"); return err == nil })

	acts := listen(t, url)
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	var sending sync.WaitGroup
	var all []*sender
	for i := range senders {
		s := &sender{name: fmt.Sprintf("s%d", i), address: strings.TrimPrefix(url, "tcp://")}
		all = append(all, s)
		sending.Go(func() { s.run(ctx) })
	}
	for range kills {
		time.Sleep(time.Duration(50+rand.IntN(350)) * time.Millisecond) // a moment that nobody chose
		g.kill()
		g.start()
	}
	eventually(t, "the gateway to be ready", 30*time.Second, func() bool { _, err := g.ask("status"); return err == nil })
	stop()
	sending.Wait()

	accepted := 0
	for _, s := range all {
		accepted += s.acked
		if !reached(60*time.Second, func() bool { return g.number("count", s.name) >= s.acked }) {
			status, _ := g.ask("status")
			t.Fatalf("%s: %d accepted, but only %d in state (again %d, gaps %d, last %d)\n%s", s.name, s.acked, g.number("count", s.name),
				g.number("again", s.name), g.number("gap", s.name), g.number("last", s.name), status)
		}
	}
	far.wait(t, accepted)
	eventually(t, "every action", 60*time.Second, func() bool {
		acts.mu.Lock()
		defer acts.mu.Unlock()
		return len(acts.numbers) >= accepted
	})
	st := far.r.Stats()
	far.mu.Lock()
	defer far.mu.Unlock()
	acts.mu.Lock()
	defer acts.mu.Unlock()
	t.Logf("%d kills; accepted %d; records at the cloud %d, repeated %d, missing %d; actions %d, repeated %d",
		kills, accepted, st.Records, st.Duplicates, st.Missing, len(acts.ids), acts.repeats)
	for _, s := range all {
		require.Equal(t, s.acked, g.number("count", s.name), "%s: exactly once in state", s.name)
		require.Equal(t, s.acked, g.number("last", s.name), "%s: the last one", s.name)
		require.Zero(t, g.number("again", s.name), "%s: doubled or out of order in state", s.name)
		require.Zero(t, g.number("gap", s.name), "%s: lost", s.name)
		for n := 1; n <= s.acked; n++ {
			require.Equal(t, 1, far.numbers[fmt.Sprintf("%s %d", s.name, n)], "%s %d: exactly once in the stream", s.name, n)
			require.Equal(t, 1, acts.numbers[fmt.Sprintf("done/%s %d", s.name, n)], "%s %d: one id in actions", s.name, n)
		}
	}
	require.Zero(t, far.order, "out of order in the stream")
	require.Zero(t, st.Missing)
}

func (c *cloud) wait(t *testing.T, n int) {
	t.Helper()
	eventually(t, "every record at the cloud", 60*time.Second, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return len(c.numbers) >= n
	})
}
