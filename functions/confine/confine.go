// Package confine takes from a worker process all that it does not need, in layers, so that whoever breaks out of Lua finds himself
// in a process that can read and write one socket, and nothing else.
//
// Each layer stands alone: one that this machine does not have is reported, and the others still hold. What needs a file or a
// right comes before the layer that takes it away; Landlock and the filter of system calls come last.
//
// These two could break what they protect: another kernel, or another release of Go, and a system call is refused that the
// runtime cannot do without. So the gateway is told before each is put on, and the process then tries what a worker does.
// One that dies of it is the gateway's to judge: it starts the next without that layer (Options.Without).
package confine

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/perigee-iot/perigee/functions/frame"
)

// Options say how to confine this process.
type Options struct {
	Memory  int64    // bytes that its heap may take
	Socket  *os.File // to the gateway: the only descriptor that is left, and can wait
	Without []string // names of layers that are not put on, nor reported

	// Before is called with the name of a layer that may break the process, before it is put on.
	Before func(layer string) error
}

// The layers that can be left out.
const (
	Landlock = "landlock"
	Seccomp  = "seccomp"
)

// layer is one layer. Do puts it on; a note says what of it this kernel lacks.
type layer struct {
	name  string
	risky bool
	do    func() (note string, err error)
}

// Apply confines this process, and returns the layers and how they are. An error says that the process must not be used.
func Apply(o Options) ([]frame.Layer, error) {
	plain := func(name string, do func() error) layer {
		return layer{name: name, do: func() (string, error) { return "", do() }}
	}
	layers := []layer{
		plain("environment", clearEnvironment),
		plain("descriptors", func() error { return closeDescriptors(o.Socket) }),
		plain("signals", ignoreSignals),
		plain("oom_score_adj", firstForOOM),
		plain("nice", hasNice),
		plain("no_new_privs", hasNoNewPrivs),
		plain("rlimits", func() error { return limitResources(o.Memory) }),
		{Landlock, true, lock},
		{Seccomp, true, filter},
	}
	report := make([]frame.Layer, 0, len(layers))
	for _, l := range layers {
		if slices.Contains(o.Without, l.name) {
			continue
		}
		if l.risky && o.Before != nil {
			if err := o.Before(l.name); err != nil {
				return nil, err
			}
		}
		note, err := l.do()
		switch {
		case err != nil:
			report = append(report, frame.Layer{Name: l.name, State: stateOf(err), Why: err.Error()})
			continue
		case l.risky:
			if err := try(o.Socket, l.name == Seccomp); err != nil {
				return nil, fmt.Errorf("with %s, a worker does not work: %w", l.name, err)
			}
		}
		report = append(report, frame.Layer{Name: l.name, State: frame.On, Why: note})
	}
	return report, nil
}

// missing says that this machine does not have something.
type missing string

func (m missing) Error() string { return string(m) }

func stateOf(err error) frame.LayerState {
	if _, ok := errors.AsType[missing](err); ok {
		return frame.Unavailable
	}
	return frame.Off
}

func clearEnvironment() error {
	os.Clearenv()
	return nil
}

// closeDescriptors closes whatever was inherited beyond the socket. The Go runtime's own poller is spared.
func closeDescriptors(socket *os.File) error {
	kept := -1
	raw, err := socket.SyscallConn() // Fd would make it one that blocks
	if err == nil {
		err = raw.Control(func(fd uintptr) { kept = int(fd) })
	}
	if err != nil {
		return err
	}
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil || fd <= 2 || fd == kept {
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
