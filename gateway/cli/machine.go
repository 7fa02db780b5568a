package cli

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/perigee-iot/perigee/gateway/api"
	"github.com/perigee-iot/perigee/gateway/config"
)

// machine is what can be seen of the machine without a gateway.
type machine struct {
	kernel    string
	memory    int64 // bytes in all
	available int64 // bytes that programs could still have; -1: the kernel does not say
	synced    bool  // the clock
}

// lookAround asks the kernel.
func lookAround() machine {
	m := machine{available: -1}
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		m.kernel = unix.ByteSliceToString(name.Release[:])
	}
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	m.synced = err == nil && state != unix.TIME_ERROR
	if f, err := os.Open("/proc/meminfo"); err == nil {
		defer f.Close()
		for s := bufio.NewScanner(f); s.Scan(); {
			m.meminfo(s.Text())
		}
	}
	return m
}

// meminfo takes over one line of /proc/meminfo: "MemTotal:  948280 kB".
func (m *machine) meminfo(line string) {
	fields := strings.Fields(line)
	if len(fields) < 2 {
		return
	}
	kB, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		return
	}
	switch fields[0] {
	case "MemTotal:":
		m.memory = kB << 10
	case "MemAvailable:":
		m.available = kB << 10
	}
}

// leastMemory is what should be free for a worker that is needed suddenly.
const leastMemory = 48 << 20

func (r *report) ofMachine(m machine) {
	if m.synced {
		r.add("clock", stateOK, "synchronised")
	} else {
		r.add("clock", stateWarning, "not synchronised: times of events, and cron, may be wrong").hint("timedatectl says what keeps it right, if anything does")
	}
	switch {
	case m.available < 0:
	case m.available < leastMemory:
		r.add("memory", stateWarning, "only %s of %s are left", size(m.available), size(m.memory))
	default:
		r.add("memory", stateOK, "%s of %s are left", size(m.available), size(m.memory))
	}
}

// disk is the file system of a directory.
type disk struct {
	free     int64  // bytes
	readOnly bool   //
	device   string // "mmcblk0p2"; "" if it is none of the machine's own
	errors   string // how many ext4 has counted; "" if it does not say
	inMemory bool   // and so gone after a restart
}

// diskOf looks at the file system of a directory.
func diskOf(dir string) (disk, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return disk{}, err
	}
	//nolint:unconvert // the widths of these fields differ from one architecture to the next
	d := disk{free: int64(fs.Bavail) * int64(fs.Bsize), readOnly: fs.Flags&unix.ST_RDONLY != 0, inMemory: int64(fs.Type) == unix.TMPFS_MAGIC}
	var st unix.Stat_t
	if unix.Stat(dir, &st) == nil {
		//nolint:unconvert // likewise
		link := fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(uint64(st.Dev)), unix.Minor(uint64(st.Dev)))
		if to, err := os.Readlink(link); err == nil {
			d.device = filepath.Base(to)
			count, _ := os.ReadFile("/sys/fs/ext4/" + d.device + "/errors_count")
			d.errors = strings.TrimSpace(string(count))
		}
	}
	return d, nil
}

// ofDisk looks at the data directory and what it lies on.
func (r *report) ofDisk(s *api.Status, conf *config.Config) {
	dir, least := "", int64(64<<20)
	if conf != nil {
		dir, least = conf.DataDir, int64(conf.Store.MinFree)
	}
	if s != nil {
		dir = s.Store.Dir
	}
	if dir == "" {
		return
	}
	at, missing := nearest(dir)
	d, err := diskOf(at)
	if err != nil {
		r.add("data", stateWarning, "%s: %s", dir, err)
		return
	}
	on := ""
	if d.device != "" {
		on = " on " + d.device
	}
	switch {
	case d.readOnly:
		r.add("data", stateWrong, "%s: its file system%s is mounted read-only", dir, on).hint("after errors the kernel does so by itself: see dmesg; an SD card that does it is at its end")
	case s == nil && unix.Access(at, unix.W_OK) != nil:
		r.add("data", stateWrong, "%s: this user may not write there", dir).hint("name another with --data-dir, or run the gateway as the user who owns it")
	case d.free < least:
		r.add("data", stateWrong, "%s: %s are free%s, and nothing is accepted below %s (store.min_free)", dir, size(d.free), on, size(least)).hint("make room")
	case d.free < 2*least:
		r.add("data", stateWarning, "%s: only %s are free%s", dir, size(d.free), on)
	case missing:
		r.add("data", stateOK, "%s: not there yet, the gateway makes it; %s are free%s", dir, size(d.free), on)
	default:
		r.add("data", stateOK, "%s: %s are free%s", dir, size(d.free), on)
	}
	if d.inMemory {
		r.add("data", stateWarning, "%s lies in memory (tmpfs): all is gone after a restart of the machine", dir)
	}
	if d.errors != "" && d.errors != "0" {
		r.add("disk", stateWrong, "ext4 has found %s errors on %s", d.errors, d.device).hint("see dmesg; save what you need, check it with e2fsck, and think of a new card")
	}
}

// nearest is dir, or the nearest directory above it that there is.
func nearest(dir string) (at string, missing bool) {
	for at = dir; ; missing = true {
		if _, err := os.Stat(at); err == nil || at == filepath.Dir(at) || !os.IsNotExist(err) {
			return at, missing
		}
		at = filepath.Dir(at)
	}
}
