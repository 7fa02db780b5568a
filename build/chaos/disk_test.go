package chaos

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// bulk is tally with records that fill a disk: small ones, and some that go to the value log.
var bulk = function{"tally", `triggers: [{mqtt: "load/{sender}"}]
key: "{sender}"
permissions: {publish: [done/#], streams: [tally]}
`, counted + `return function(event, ctx)
  local n, sender = event.data.n, event.params.sender
  counted(n)
  stream.append("tally", {sender = sender, n = n, pad = string.rep("x", n % 2 == 0 and 900 or 20000)})
  publish("done/" .. sender, {n = n}, {qos = 1, id = true})
end
`}

// TestFullDisk fills the disk of a gateway that has no link to the cloud, with its records and with what others write, and gives
// it space again.
func TestFullDisk(t *testing.T) {
	if os.Getuid() != 0 {
		t.Log("only root can mount a file system: internal/store's tests have the rest")
		return
	}
	kinds := map[string]func(t *testing.T, dir string) error{"tmpfs": mountTmpfs}
	if *full {
		kinds["ext4"] = mountExt4
	}
	for kind, mount := range kinds {
		t.Run(kind, func(t *testing.T) {
			port := freePort(t)
			url := fmt.Sprintf("tcp://127.0.0.1:%d", port)
			far := newCloud(t)
			gate := newGate(t, far.r.Addr())
			g := newGateway(t, fmt.Sprintf("broker: {listen: [%s]}\nstore: {min_free: 16MiB, profile: small}\nuplinks: {main: {mqtt: {url: \"tcp://%s\"}}}\n",
				url, gate.addr()), []function{bulk})
			data := filepath.Join(g.dir, "data")
			require.NoError(t, os.Mkdir(data, 0o700))
			if err := mount(t, data); err != nil {
				t.Logf("cannot mount %s here (%v): internal/store's tests have the rest", kind, err)
				return
			}
			(&fullDisk{t: t, g: g, url: url, data: data, far: far, gate: gate}).do()
		})
	}
}

// diskSize is what the file systems have, in bytes.
const diskSize = 64 << 20

func mountTmpfs(t *testing.T, dir string) error {
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", diskSize)); err != nil {
		return err
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	return nil
}

// mountExt4 makes the file system in a file, on a loop device.
func mountExt4(t *testing.T, dir string) error {
	image := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		return err
	}
	if err := os.Truncate(image, diskSize); err != nil {
		return err
	}
	for _, args := range [][]string{{"mkfs.ext4", "-q", "-F", "-m", "0", image}, {"mount", "-o", "loop", image, dir}} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", args[0], err, out)
		}
	}
	t.Cleanup(func() { _ = exec.Command("umount", "-l", dir).Run() })
	return nil
}

func rounds(short, long int) int {
	if *full {
		return long
	}
	return short
}

// fullDisk is the suite in the making.
type fullDisk struct {
	t    *testing.T
	g    *gateway
	url  string
	data string
	far  *cloud
	gate *link
	all  []*sender
	hogs int // how often others took the rest
}

func (d *fullDisk) do() {
	d.g.start()
	d.g.ready()
	acts := listen(d.t, d.url)
	d.g.stop()
	d.g.start()
	d.g.ready()
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	var sending sync.WaitGroup
	for i := range senders {
		s := &sender{name: fmt.Sprintf("s%d", i), address: strings.TrimPrefix(d.url, "tcp://"), accepted: new(atomic.Int64)}
		s.seen = func() int { return acts.seen("done/" + s.name) }
		d.all = append(d.all, s)
		sending.Go(func() { s.run(ctx) })
	}

	// Its own records fill it: the senders are held back, and status says why.
	eventually(d.t, "the disk to be full", 3*time.Minute, func() bool { return d.says("the disk is nearly full") })
	d.held()
	atFull := d.accepted()

	// Others take the rest, to the last byte.
	d.hog()
	d.held()
	d.alive("with no space left")

	// A gateway that is killed then says that there is no space and ends, as often as it is started, or it works. It does not crash.
	d.g.kill()
	d.g.start()
	d.refusesOrRuns()
	d.free()
	d.g.kill()
	d.g.start()
	d.g.ready()

	// The link is back: what leaves makes room, and everything goes on by itself.
	began := time.Now()
	d.gate.set(false)
	eventually(d.t, "the senders to go on", 3*time.Minute, func() bool { return d.accepted() > atFull+1000 })
	d.t.Logf("accepted %d until it was full; after the link was back it went on within %v", atFull, time.Since(began).Round(time.Second))

	// Others take everything under load, and give it back.
	for range rounds(1, 3) {
		d.hog()
		time.Sleep(2 * time.Second)
		d.alive("while others took all space")
		d.free()
		was := d.accepted()
		eventually(d.t, "the senders to go on", 3*time.Minute, func() bool { return d.accepted() > was+300 })
	}
	stop()
	sending.Wait()
	r := &run{url: d.url, steps: []step{{fn: "tally"}}}
	r.drain(d.t, d.g, d.far, acts, d.all)
	r.check(d.t, d.g, d.far, acts, d.all)
	eventually(d.t, "status to be well again", time.Minute, func() bool { return !d.says("the disk is nearly full") })
	d.t.Logf("others took all space %d times", d.hogs)
}

func (d *fullDisk) accepted() (n int64) {
	for _, s := range d.all {
		n += s.accepted.Load()
	}
	return n
}

// says looks for a problem in the gateway's status.
func (d *fullDisk) says(what string) bool {
	c := d.g.client()
	defer c.Close()
	s, err := c.Status(context.Background())
	return err == nil && strings.Contains(strings.Join(s.Problems, "\n"), what)
}

// held waits until nothing is accepted any more.
func (d *fullDisk) held() {
	d.t.Helper()
	for was, deadline := int64(-1), time.Now().Add(time.Minute); was != d.accepted(); time.Sleep(2 * time.Second) {
		require.True(d.t, time.Now().Before(deadline), "a full disk holds the senders back")
		was = d.accepted()
	}
}

// refusesOrRuns waits until the gateway has ended with a word about the disk, or answers.
func (d *fullDisk) refusesOrRuns() {
	d.t.Helper()
	ended := make(chan error, 1)
	cmd := d.g.cmd
	go func() { ended <- cmd.Wait() }()
	c := d.g.client()
	defer c.Close()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		select {
		case err := <-ended:
			d.g.cmd = nil
			b, _ := os.ReadFile(d.g.log.Name())
			require.Error(d.t, err)
			require.NotContains(d.t, string(b), "SIGBUS")
			require.Contains(d.t, string(b[max(0, len(b)-1000):]), "the disk is full")
			d.t.Log("it does not start without space, and says why")
			return
		case <-time.After(50 * time.Millisecond):
		}
		if s, err := c.Status(context.Background()); err == nil && s.Ready {
			d.t.Log("it starts with the space that it kept for this")
			_ = cmd.Process.Kill()
			<-ended
			d.g.cmd = nil
			return
		}
	}
	d.t.Fatal("the gateway neither ended nor runs without space")
}

func (d *fullDisk) alive(when string) {
	d.t.Helper()
	c := d.g.client()
	defer c.Close()
	_, err := c.Status(context.Background())
	require.NoError(d.t, err, "the gateway %s", when)
}

// hog takes all space that there is, as somebody's log would.
func (d *fullDisk) hog() {
	d.t.Helper()
	d.hogs++
	f, err := os.Create(filepath.Join(d.data, "hog"))
	require.NoError(d.t, err)
	defer f.Close()
	for block := make([]byte, 64<<10); err == nil; {
		_, err = f.Write(block)
	}
	require.ErrorIs(d.t, err, syscall.ENOSPC)
}

func (d *fullDisk) free() {
	d.t.Helper()
	require.NoError(d.t, os.Remove(filepath.Join(d.data, "hog")))
}
