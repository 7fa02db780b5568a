package chaos

import (
	"bufio"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// filling writes so much that the store begins a new memtable many times between two power cuts.
var filling = function{"fill", `triggers: [{mqtt: "in/{key}"}]
key: "{key}"
permissions: {streams: [fill]}
`, `return function(event)
  local n = event.data.n
  if n ~= state.get("last", 0) + 1 then state.incr("wrong") end
  state.set("last", n)
  local text = ("x"):rep(900)
  for i = 0, 19 do state.set("v" .. (20 * n + i) % 200, {n = n, text = text}) end
  stream.append("fill", {key = event.key, n = n})
end
`}

var powerCuts = flag.Int("cuts", 100, "power cuts in each suite of the full form")

// TestPowerCut pulls the plug of a machine whose disk has a write cache, and looks after each boot whether everything that was
// acknowledged is there. The same without syncs must lose something, or the test would prove nothing. The store alone is
// so much faster in an emulated machine that it begins many memtables between two cuts.
func TestPowerCut(t *testing.T) {
	image := newGuest(t)
	for _, c := range []struct {
		subject   string
		memtables int // between two cuts, at most
		cuts      int // of the short form
	}{
		{"store", 6, 2},
		{"gateway", 2, 1},
	} {
		t.Run(c.subject, func(t *testing.T) {
			if *full {
				c.cuts = *powerCuts
			}
			m := newMachine(t, image, c.subject, "power", c.memtables)
			for range c.cuts {
				m.round()
				require.Zero(t, m.missing, "acknowledged, and gone after a power cut")
			}
			m.boot(0)
			require.Zero(t, m.missing, "acknowledged, and gone after a power cut")
			t.Logf("%s: %d power cuts; acknowledged %d, missing %d; memtables %d; the disk had %d writes that were not flushed, and lost %d",
				c.subject, c.cuts, m.total(), m.missing, m.memtables, m.unsafe, m.lost)
		})
		if c.subject == "gateway" && !*full {
			continue
		}
		t.Run(c.subject+" without syncs", func(t *testing.T) {
			m := newMachine(t, image, c.subject, "crash", c.memtables)
			rounds := 0
			for m.missing == 0 && rounds < 10 {
				m.round()
				rounds++
			}
			t.Logf("%s: %d of what was acknowledged is missing after %d power cuts", c.subject, m.missing, rounds-1)
			require.Positive(t, m.missing, "without syncs a power cut loses what was acknowledged")
		})
	}
}

// image is what a guest boots.
type image struct{ kernel, initrd string }

// newGuest fetches a kernel and packs the gateway, its function and the guest's first process.
func newGuest(t *testing.T) image {
	t.Helper()
	for _, program := range []string{"qemu-system-x86_64", "cpio", "mkfs.ext4"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%s is not installed", program)
		}
	}
	bin, err := binary()
	require.NoError(t, err)
	dir := t.TempDir()
	root := filepath.Join(dir, "root")
	for name, text := range map[string]string{"dev/.keep": "", "functions/fill/function.yaml": "name: fill\n" + filling.yaml, "functions/fill/main.lua": filling.lua} {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(root, name), []byte(text), 0o644))
	}
	require.NoError(t, os.Link(bin, filepath.Join(root, "perigee")))
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", filepath.Join(root, "init"), "../qemu/cut")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)
	fetch := exec.Command("../qemu/kernel.sh", "amd64", "linux-image-cloud-amd64")
	fetch.Stderr = os.Stderr
	out, err = fetch.Output()
	require.NoError(t, err, "fetching a kernel")
	g := image{kernel: strings.TrimSpace(string(out)), initrd: filepath.Join(dir, "initrd")}
	command(t, "cp", "-r", strings.Replace(g.kernel, "vmlinuz-", "modules-", 1), filepath.Join(root, "modules"))
	command(t, "sh", "-c", fmt.Sprintf("cd %s && find . | cpio --quiet -o -H newc -R 0:0 >%s", root, g.initrd))
	return g
}

// machine is a guest with a disk.
type machine struct {
	t          *testing.T
	image      image
	subject    string // what runs in it: "gateway" or "store"
	durability string
	most       int // memtables in a round
	disk       *plug

	acked        map[string]int // key → the highest number that was acknowledged
	missing      int            // numbers that were acknowledged and were gone after a boot
	memtables    int            // begun under load
	unsafe, lost int            // writes that had not been flushed when the power went, and those of them that were lost
}

func newMachine(t *testing.T, g image, subject, durability string, memtables int) *machine {
	return &machine{t: t, image: g, subject: subject, durability: durability, most: memtables, disk: newPlug(t, 192), acked: map[string]int{}}
}

func (m *machine) total() (n int) {
	for _, k := range m.acked {
		n += k
	}
	return n
}

// round boots, looks, loads, and cuts the power at a moment that nobody chose, some memtables later.
func (m *machine) round() { m.boot(1 + rand.IntN(m.most)) }

// boot starts the machine, and cuts its power after it has begun so many memtables under load.
func (m *machine) boot(memtables int) {
	t, start := m.t, time.Now()
	cmd := exec.Command("qemu-system-x86_64", "-accel", "tcg", "-M", "pc", "-cpu", "max", "-smp", "2", "-m", "512", "-display", "none", "-nodefaults", "-serial", "stdio",
		"-no-reboot", "-kernel", m.image.kernel, "-initrd", m.image.initrd, "-drive", "file="+m.disk.drive()+",format=raw,if=none,id=d,cache=writeback",
		"-device", "virtio-blk-pci,drive=d", "-append", "console=ttyS0 quiet loglevel=3 panic=-1 no_timer_check rdinit=/init subject="+m.subject+" durability="+m.durability)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	cmd.Stderr = cmd.Stdout
	require.NoError(t, cmd.Start())
	off := func() { _ = cmd.Process.Signal(syscall.SIGKILL) }
	late := time.AfterFunc(5*time.Minute, off)
	var said []string
	loading, newest := false, -1
	soon := func() { time.AfterFunc(time.Duration(rand.IntN(300))*time.Millisecond, off) }
	for lines := bufio.NewScanner(out); lines.Scan(); {
		line := strings.TrimSpace(lines.Text())
		f := strings.Fields(line)
		switch {
		case len(f) == 3 && f[0] == "have":
			n, _ := strconv.Atoi(f[2])
			m.missing += max(0, m.acked[f[1]]-n)
			m.acked[f[1]] = n
		case len(f) == 3 && f[0] == "acked":
			m.acked[f[1]], _ = strconv.Atoi(f[2])
		case len(f) == 1 && f[0] == "loading":
			if loading = true; memtables == 0 {
				soon()
			}
		case len(f) == 2 && f[0] == "memtable":
			n, _ := strconv.Atoi(f[1])
			if loading && n > newest {
				m.memtables += n - newest
				if memtables -= n - newest; memtables <= 0 {
					soon()
				}
			}
			newest = max(newest, n)
		default:
			said = append(said, line)
			if len(f) > 0 && f[0] == "wrong:" && m.durability == "power" {
				t.Errorf("after a power cut: %s", line)
			}
		}
	}
	_ = cmd.Wait()
	late.Stop()
	m.disk.unplugged()
	require.True(t, loading, "the guest did not come up:\n%s", strings.Join(said, "\n"))
	unsafe, lost := m.disk.cut()
	t.Logf("%s after %v: acknowledged %d, missing %d, memtables %d", m.subject, time.Since(start).Round(100*time.Millisecond), m.total(), m.missing, m.memtables)
	m.unsafe += unsafe
	m.lost += lost
}
