package worker

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/perigee-iot/perigee/functions/frame"
)

// confine takes from this process all that it does not need, layer by layer, before the first frame is read. A layer
// that the kernel does not have is reported to the gateway and does not stop the worker: the others still hold.
//
// The order matters: what needs a file or a right comes before the layer that takes it away, and those that end with
// system calls come last.
func confine(memory int64) []frame.Layer {
	steps := []struct {
		name string
		do   func() error
	}{
		{"environment", clearEnvironment},
		{"descriptors", closeDescriptors},
		{"signals", ignoreSignals},
		{"oom_score_adj", firstForOOM},
		{"nice", hasNice},
		{"no_new_privs", hasNoNewPrivs},
		{"rlimits", func() error { return limitResources(memory) }},
	}
	layers := make([]frame.Layer, 0, len(steps))
	for _, s := range steps {
		l := frame.Layer{Name: s.name}
		if err := s.do(); err != nil {
			l.Err = err.Error()
		}
		layers = append(layers, l)
	}
	return layers
}

func clearEnvironment() error {
	os.Clearenv()
	return nil
}

// closeDescriptors closes whatever was inherited beyond the socket. The Go runtime's own poller is spared.
func closeDescriptors() error {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil || fd <= socketFD {
			continue
		}
		to, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err != nil || strings.HasPrefix(to, "anon_inode:[event") {
			continue // the descriptor of ReadDir itself, closed by now; epoll and eventfd
		}
		if err := unix.Close(fd); err != nil {
			return fmt.Errorf("closing descriptor %d (%s): %w", fd, to, err)
		}
	}
	return nil
}

// ignoreSignals leaves it to the gateway when a worker ends: a terminal and systemd send their signals to both, and the
// gateway wants the outcomes of what runs.
func ignoreSignals() error {
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	return nil
}

// firstForOOM makes the kernel kill a worker before anything else when the machine's memory runs out.
func firstForOOM() error {
	return os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0)
}

// hasNice and hasNoNewPrivs look whether what must hold for every thread was inherited: a process can set these for its
// calling thread only, and has several before it reaches main. So the gateway starts workers from a thread that has both.
func hasNice() error {
	raw, err := unix.Getpriority(unix.PRIO_PROCESS, 0) // the system call answers 20 less the value
	if err != nil {
		return err
	}
	if nice := 20 - raw; nice <= 0 {
		return fmt.Errorf("it is %d", nice)
	}
	return nil
}

func hasNoNewPrivs() error {
	on, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	if err != nil {
		return err
	}
	if on != 1 {
		return errors.New("it is not set")
	}
	return nil
}

// What a Go process maps as data before it does anything, measured with the whole binary and rounded up. Its heap
// counts on top.
const (
	dataOf64 = 96 << 20
	dataOf32 = 48 << 20
)

// limitResources sets the limits of the process. RLIMIT_AS is not among them: Go reserves address space that it never
// uses.
func limitResources(memory int64) error {
	data := uint64(memory) + dataOf64
	if strconv.IntSize == 32 {
		data = uint64(memory) + dataOf32
	}
	if raceDetector {
		data = unix.RLIM_INFINITY
	}
	var errs []error
	for _, l := range []struct {
		name     string
		resource int
		value    uint64
	}{
		{"core", unix.RLIMIT_CORE, 0},
		{"fsize", unix.RLIMIT_FSIZE, 0},
		{"nofile", unix.RLIMIT_NOFILE, 16},
		{"data", unix.RLIMIT_DATA, data},
	} {
		if err := unix.Setrlimit(l.resource, &unix.Rlimit{Cur: l.value, Max: l.value}); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", l.name, err))
		}
	}
	return errors.Join(errs...)
}
