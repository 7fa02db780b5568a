package chaos

import (
	"context"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/gateway/api"
	"github.com/perigee-iot/perigee/internal/mosquittotest"
	"github.com/perigee-iot/perigee/sync/receiver"
	"github.com/perigee-iot/perigee/sync/record"
)

// What a gateway with the profile small may take, in bytes.
const (
	mostDisk    = 64 << 20 // with an empty backlog; with one, 1.5 times what lives if that is more
	mostMemory  = 60 << 20 // that is its own: anonymous and shared, of all its processes
	moreBacklog = 40 << 20 // of both, for a large backlog
)

// through passes on each event; hoard makes a hundred records of one.
var (
	through = function{"through", `triggers: [{mqtt: "in/{sender}"}]
key: "{sender}"
permissions: {streams: [all]}
`, `return function(event)
  state.incr("count")
  stream.append("all", {sender = event.key, n = event.data.n, temperature = 21.5, humidity = 40.25})
end
`}
	hoard = function{"hoard", `triggers: [{mqtt: in}]
limits: {effects: 128}
permissions: {streams: [all]}
`, `return function(event)
  for i = 1, 100 do
    stream.append("all", {sender = "s", n = 100 * (event.data.n - 1) + i, temperature = 21.5, humidity = 40.25})
  end
end
`}
)

var events = flag.Int("events", 3_000_000, "events of the full form of TestDiskAndMemoryStayBounded")

// TestDiskAndMemoryStayBounded sends events through a gateway whose records leave at once, and watches what it takes.
func TestDiskAndMemoryStayBounded(t *testing.T) {
	n := 10_000
	if *full {
		n = *events
	}
	const senders = 4
	n /= senders
	url := fmt.Sprintf("tcp://127.0.0.1:%d", freePort(t))
	far := newFar(t, freePort(t))
	far.open()
	g := newGateway(t, fmt.Sprintf("broker: {listen: [%s]}\nstore: {profile: small}\nuplinks: {main: {mqtt: {url: \"tcp://%s\"}}}\n", url, far.address), []function{through})
	g.start()
	g.ready()
	w := newGauge(t, g)
	start := time.Now()
	var wg sync.WaitGroup
	for i := range senders {
		wg.Go(func() { publishAll(t, url, fmt.Sprintf("in/s%d", i), n) })
	}
	wg.Wait()
	took := time.Since(start)
	w.drained(far, int64(n)*senders)
	w.stop()
	t.Logf("%d events in %v, %.0f/s: %s", n*senders, took.Round(time.Second), float64(n)*senders/took.Seconds(), w)
	for i := range senders {
		require.Equal(t, n, g.number("through", "count", fmt.Sprintf("s%d", i)))
	}
	require.Zero(t, far.disorder.Load())
	require.LessOrEqual(t, w.own, int64(mostMemory))
	require.LessOrEqual(t, w.over, int64(0), "more on the disk than 64 MiB, or 1.5 times what lives")
}

var records = flag.Int("records", 1_000_000, "records of the full form of TestBacklogOfAWeek")

// TestBacklogOfAWeek lets records wait for an uplink, and then drains them.
func TestBacklogOfAWeek(t *testing.T) {
	n := 20_000
	if *full {
		n = *records
	}
	url := fmt.Sprintf("tcp://127.0.0.1:%d", freePort(t))
	far := newFar(t, freePort(t))
	g := newGateway(t, fmt.Sprintf("broker: {listen: [%s]}\nstore: {profile: small}\nuplinks: {main: {mqtt: {url: \"tcp://%s\"}}}\n"+
		"streams: {all: {retain: {bytes: 512MiB}}}\n", url, far.address), []function{hoard})
	g.start()
	g.ready()
	w := newGauge(t, g)
	start := time.Now()
	publishAll(t, url, "in", n/100)
	eventually(t, "the backlog", 10*time.Minute, func() bool { return w.waiting.Load() == int64(n) })
	filled := time.Since(start)
	t.Logf("%d records waited after %v: %s", n, filled.Round(100*time.Millisecond), w)
	far.open()
	eventually(t, "the uplink", 3*time.Minute, func() bool { return far.records.Load() > 0 })
	start = time.Now()
	w.drained(far, int64(n))
	rate := float64(n) / time.Since(start).Seconds()
	w.stop()
	bare := bareRate(t)
	t.Logf("drained at %.0f records/s, a bare client sends %.0f/s: %s", rate, bare, w)
	require.Zero(t, far.disorder.Load())
	require.LessOrEqual(t, w.own, int64(mostMemory+moreBacklog))
	require.LessOrEqual(t, w.over, int64(moreBacklog), "more on the disk than 64 MiB, or 1.5 times what lives")
	if *full {
		require.GreaterOrEqual(t, rate, min(5000, bare/2), "records a second")
	}
}

// publishAll sends the numbers from 1 to n, and returns when all were acknowledged.
func publishAll(t *testing.T, url, topic string, n int) {
	c := mqtt.NewClient(mqtt.NewClientOptions().AddBroker(url).SetClientID(topic).SetAutoReconnect(false))
	require.True(t, c.Connect().WaitTimeout(10*time.Second))
	defer c.Disconnect(100)
	sent := make(chan mqtt.Token, 64)
	go func() {
		defer close(sent)
		for i := 1; i <= n; i++ {
			sent <- c.Publish(topic, 1, false, fmt.Sprintf(`{"n":%d}`, i))
		}
	}()
	for tok := range sent {
		if !tok.WaitTimeout(2*time.Minute) || tok.Error() != nil {
			t.Errorf("publish on %s: %v", topic, tok.Error())
			return
		}
	}
}

// bareRate is how many records a second a client without a gateway sends, one a message.
func bareRate(t *testing.T) float64 {
	const n = 20_000
	b := mosquittotest.Start(t)
	start := time.Now()
	publishAll(t, b.URL, "bare", n)
	return n / time.Since(start).Seconds()
}

// far is a cloud that counts, and little else.
type far struct {
	t        *testing.T
	address  string
	records  atomic.Int64
	disorder atomic.Int64 // records that were not the next of their sender
}

func newFar(t *testing.T, port int) *far {
	return &far{t: t, address: fmt.Sprintf("127.0.0.1:%d", port)}
}

// open begins to listen.
func (f *far) open() {
	r, err := receiver.New(receiver.Options{Listen: "tcp://" + f.address, Log: slog.New(slog.DiscardHandler)})
	require.NoError(f.t, err)
	last := map[string]int{}
	r.Subscribe(func(rec record.Record) {
		_, rest, _ := strings.Cut(string(rec.Data), `"n":`)
		n, _ := strconv.Atoi(rest[:strings.IndexAny(rest, ",}")])
		_, rest, _ = strings.Cut(string(rec.Data), `"sender":"`)
		sender, _, _ := strings.Cut(rest, `"`)
		if n != last[sender]+1 {
			f.disorder.Add(1)
		}
		last[sender] = n
		f.records.Add(1)
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = r.Run(ctx) }()
	f.t.Cleanup(func() { cancel(); <-done })
}

// gauge looks at what a gateway takes, again and again.
type gauge struct {
	g             *gateway
	c             *api.Client
	quit, stopped chan struct{}
	waiting       atomic.Int64 // records

	mu                 sync.Mutex
	own, file          int64 // bytes of memory, at most
	workers            int64 // of own, when that was the most
	disk, live         int64 // bytes, at most; the ballast that is kept for a full disk is not counted
	over               int64 // bytes of disk above what is allowed, at most; negative: as far below
	overDisk, overLive int64 // when that was
}

func newGauge(t *testing.T, g *gateway) *gauge {
	w := &gauge{g: g, c: api.Dial(filepath.Join(g.dir, "data", "perigee.sock")), quit: make(chan struct{}), stopped: make(chan struct{}), over: -mostDisk}
	go w.run()
	t.Cleanup(w.stop)
	return w
}

func (w *gauge) stop() {
	select {
	case <-w.quit:
	default:
		close(w.quit)
		<-w.stopped
		w.c.Close()
	}
}

func (w *gauge) run() {
	defer close(w.stopped)
	for {
		w.look()
		select {
		case <-w.quit:
			return
		case <-time.After(500 * time.Millisecond):
		}
	}
}

func (w *gauge) look() {
	streams, err := w.c.Streams(context.Background())
	if err != nil {
		return
	}
	var live, waiting int64
	for _, s := range streams {
		live += s.Bytes
		waiting += s.Waiting
	}
	disk := taken(filepath.Join(w.g.dir, "data"))
	var own, file, workers int64
	for _, pid := range processes(w.g.cmd.Process.Pid) {
		m := rollup(pid)
		own += m["Pss_Anon"] + m["Pss_Shmem"]
		file += m["Pss_File"]
		if pid != w.g.cmd.Process.Pid {
			workers += m["Pss_Anon"] + m["Pss_Shmem"]
		}
	}
	w.waiting.Store(waiting)
	w.mu.Lock()
	defer w.mu.Unlock()
	if own > w.own {
		w.workers = workers
	}
	w.own, w.file, w.disk, w.live = max(w.own, own), max(w.file, file), max(w.disk, disk), max(w.live, live)
	if over := disk - max(mostDisk, live*3/2); over > w.over {
		w.over, w.overDisk, w.overLive = over, disk, live
	}
}

// drained waits until so many records have come, and none waits.
func (w *gauge) drained(f *far, n int64) {
	f.t.Helper()
	eventually(f.t, "every record at the cloud", 20*time.Minute, func() bool { return f.records.Load() >= n })
	eventually(f.t, "no record to wait", time.Minute, func() bool { return w.waiting.Load() == 0 })
}

func (w *gauge) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	const mib = 1 << 20
	return fmt.Sprintf("at most %.1f MiB of disk and %.1f of live records, %.1f MiB of memory (%.1f of it the workers', Pss_File %.1f besides); nearest to the bound with %.1f MiB of disk and %.1f live",
		float64(w.disk)/mib, float64(w.live)/mib, float64(w.own)/mib, float64(w.workers)/mib, float64(w.file)/mib, float64(w.overDisk)/mib, float64(w.overLive)/mib)
}

// taken adds up the blocks of a directory's files, but for the ballast.
func taken(dir string) (total int64) {
	_ = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.Name() == "ballast" {
			return nil //nolint:nilerr // a file that went away meanwhile
		}
		if fi, err := e.Info(); err == nil {
			total += fi.Sys().(*syscall.Stat_t).Blocks * 512
		}
		return nil
	})
	return total
}

// processes returns a process and all below it.
func processes(root int) []int {
	children := map[int][]int{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, name := range stats {
		b, _ := os.ReadFile(name)
		_, rest, _ := strings.Cut(string(b), ") ")
		if f := strings.Fields(rest); len(f) > 1 {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(name)))
			parent, _ := strconv.Atoi(f[1])
			children[parent] = append(children[parent], pid)
		}
	}
	all := []int{root}
	for i := 0; i < len(all); i++ {
		all = append(all, children[all[i]]...)
	}
	return all
}

// rollup is a process's memory in bytes, by the kernel's names.
func rollup(pid int) map[string]int64 {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	m := map[string]int64{}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 3 {
			kb, _ := strconv.ParseInt(f[1], 10, 64)
			m[strings.TrimSuffix(f[0], ":")] = kb << 10
		}
	}
	return m
}
