package confine_test

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/functions/confine"
	"github.com/perigee-iot/perigee/functions/frame"
	"github.com/perigee-iot/perigee/functions/sandbox"
	"github.com/perigee-iot/perigee/functions/worker"
	"github.com/perigee-iot/perigee/internal/event"
)

// The test binary is the worker, too: the real one, or with "probe WITHOUT" as arguments one that is confined like it, but for the layers
// that WITHOUT names, and then tries what its event says instead of running Lua.
func TestMain(m *testing.M) {
	worker.MainIfWorker()
	if len(os.Args) > 2 && os.Args[1] == "probe" {
		if err := probeMain(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if len(os.Args) > 3 && os.Args[1] == "stumble" {
		os.Exit(stumbleMain(strings.Split(os.Args[2], ","), os.Args[3]))
	}
	os.Exit(m.Run())
}

func probeMain(without string) error {
	conn := os.NewFile(3, "gateway")
	send := func(b []byte, err error) error {
		if err == nil {
			_, err = conn.Write(b)
		}
		return err
	}
	parent := os.Getppid()
	layers, err := confine.Apply(confine.Options{Memory: 64 << 20, Socket: conn, Without: strings.Split(without, ","),
		Before: func(l string) error { return send(frame.AppendConfining(nil, l)) }})
	if err != nil {
		return err
	}
	if err := send(frame.AppendReady(nil, layers)); err != nil {
		return err
	}
	frames := frame.NewReader(conn, frame.ToWorker)
	for {
		t, body, err := frames.Next()
		if err != nil || t != frame.Run {
			if err == nil {
				continue
			}
			return nil
		}
		inv, err := frame.DecodeRun(bytes.Clone(body))
		if err != nil {
			return err
		}
		name, arg, _ := strings.Cut(string(inv.Event.Data), " ")
		answer := "it worked"
		if err := probes()[name](parent, arg); err != nil {
			answer = err.Error()
		}
		if err := send(frame.AppendOutcome(nil, &functions.Outcome{ID: inv.ID, Result: []byte(strconv.Quote(answer))})); err != nil {
			return err
		}
	}
}

// call makes a system call as hostile code would, past all that the standard library does before it. It must not work.
func call(number uintptr, args ...uintptr) error {
	args = append(args, make([]uintptr, 6-len(args))...)
	_, _, errno := unix.RawSyscall6(number, args[0], args[1], args[2], args[3], args[4], args[5])
	if errno == 0 {
		return nil
	}
	return errno
}

func text(s string) uintptr { // it is not moved: the worker keeps it
	b := append([]byte(s), 0)
	kept = append(kept, b)
	return uintptr(unsafe.Pointer(&b[0]))
}

var kept [][]byte

// probes are what somebody would try who has broken out of Lua. An error means that it did not work.
func probes() map[string]func(parent int, arg string) error {
	page := uintptr(os.Getpagesize())
	const here = ^uintptr(99) // AT_FDCWD, -100
	all := map[string]func(parent int, arg string) error{
		"open": func(_ int, arg string) error { return call(unix.SYS_OPENAT, here, text(arg), unix.O_RDONLY) },
		"write": func(_ int, arg string) error {
			return call(unix.SYS_OPENAT, here, text(arg), unix.O_CREAT|unix.O_WRONLY, 0o600)
		},
		"openat2": func(_ int, arg string) error {
			how := unix.OpenHow{}
			return call(unix.SYS_OPENAT2, here, text(arg), uintptr(unsafe.Pointer(&how)), unsafe.Sizeof(how))
		},
		"environ": func(parent int, _ string) error {
			_, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", parent))
			return err
		},
		"list":   func(int, string) error { _, err := os.ReadDir("/"); return err },
		"stat":   func(int, string) error { _, err := os.Stat("/"); return err },
		"remove": func(_ int, arg string) error { return call(unix.SYS_UNLINKAT, here, text(arg), 0) },
		"memfd":  func(int, string) error { return call(unix.SYS_MEMFD_CREATE, text("m"), 0) },

		"exec": func(int, string) error { return syscall.Exec("/proc/self/exe", []string{"x", "-test.list", "."}, nil) },
		"execveat": func(int, string) error {
			return call(unix.SYS_EXECVEAT, here, text("/proc/self/exe"), 0, 0, 0)
		},
		"fork": func(int, string) error { return forked(unix.RawSyscall(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0)) },
		"clone3": func(int, string) error {
			args := [8]uint64{4: uint64(unix.SIGCHLD)} // struct clone_args
			return forked(unix.RawSyscall(unix.SYS_CLONE3, uintptr(unsafe.Pointer(&args)), unsafe.Sizeof(args), 0))
		},
		"start": func(int, string) error {
			_, err := os.StartProcess("/proc/self/exe", []string{"x", "-test.list", "."}, &os.ProcAttr{})
			return err
		},

		"socket":  func(int, string) error { return call(unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_STREAM, 0) },
		"netlink": func(int, string) error { return call(unix.SYS_SOCKET, unix.AF_NETLINK, unix.SOCK_RAW, 0) },
		"socketpair": func(int, string) error {
			return call(unix.SYS_SOCKETPAIR, unix.AF_UNIX, unix.SOCK_STREAM, 0, text("12345678"))
		},
		"tcp":      func(_ int, arg string) error { return dial("tcp", arg) },
		"udp":      func(_ int, arg string) error { return dial("udp", arg) },
		"unix":     func(_ int, arg string) error { return dial("unix", arg) },
		"abstract": func(_ int, arg string) error { return dial("unix", arg) },
		"listen": func(int, string) error {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err == nil {
				l.Close()
			}
			return err
		},

		"signal": func(parent int, _ string) error { return unix.Kill(parent, 0) },
		"thread": func(parent int, _ string) error { return unix.Tgkill(parent, parent, 0) },
		"queue": func(parent int, _ string) error {
			return call(unix.SYS_RT_SIGQUEUEINFO, uintptr(parent), 0, text(strings.Repeat("\xff", 128)))
		},
		"pidfd": func(parent int, _ string) error { return call(unix.SYS_PIDFD_OPEN, uintptr(parent), 0) },
		"ptrace": func(parent int, _ string) error {
			return call(unix.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(parent), 0, 0)
		},
		"readv": func(parent int, _ string) error {
			return call(unix.SYS_PROCESS_VM_READV, uintptr(parent), 0, 0, 0, 0, 0)
		},
		"prlimit": func(parent int, _ string) error {
			return call(unix.SYS_PRLIMIT64, uintptr(parent), unix.RLIMIT_NOFILE, 0, 0)
		},
		"priority": func(parent int, _ string) error { return unix.Setpriority(unix.PRIO_PROCESS, parent, 19) },

		"mmap": func(int, string) error {
			_, err := unix.Mmap(-1, 0, int(page), unix.PROT_READ|unix.PROT_WRITE|unix.PROT_EXEC, unix.MAP_ANON|unix.MAP_PRIVATE)
			return err
		},
		"mprotect": func(int, string) error {
			b, err := unix.Mmap(-1, 0, int(page), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
			if err != nil {
				return nil // what is allowed must work
			}
			return unix.Mprotect(b, unix.PROT_READ|unix.PROT_EXEC)
		},
		"shm": func(int, string) error { return call(unix.SYS_REMAP_FILE_PAGES, 0, 0, 0, 0, 0) },

		"unshare": func(int, string) error { return unix.Unshare(unix.CLONE_NEWUSER) },
		"namespace": func(int, string) error {
			return forked(unix.RawSyscall(unix.SYS_CLONE, unix.CLONE_NEWUSER|uintptr(unix.SIGCHLD), 0, 0))
		},
		"mount":    func(int, string) error { return unix.Mount("none", "/tmp", "tmpfs", 0, "") },
		"root":     func(int, string) error { return call(unix.SYS_SETUID, 0) },
		"prctl":    func(int, string) error { return unix.Prctl(unix.PR_SET_PDEATHSIG, 0, 0, 0, 0) },
		"io_uring": func(int, string) error { return call(unix.SYS_IO_URING_SETUP, 1, text(strings.Repeat("\x00", 120))) },
		"bpf":      func(int, string) error { return call(unix.SYS_BPF, 0, text(strings.Repeat("\x00", 120)), 120) },
		"perf": func(int, string) error {
			return call(unix.SYS_PERF_EVENT_OPEN, text(strings.Repeat("\x00", 120)), 0, 0, 0, 0)
		},
		"userfault": func(int, string) error { return call(unix.SYS_USERFAULTFD, 0) },
		"keyring":   func(int, string) error { return call(unix.SYS_KEYCTL, 0, 0, 0, 0, 0) },
		"ioctl":     func(int, string) error { return call(unix.SYS_IOCTL, 3, unix.TIOCINQ, text("12345678")) },
		"sendmsg":   func(int, string) error { return unix.Sendmsg(3, nil, unix.UnixRights(0), nil, 0) },
		"dup":       func(int, string) error { return call(unix.SYS_DUP, 3) },
		"uname":     func(int, string) error { return call(unix.SYS_UNAME, text(strings.Repeat("\x00", 400))) },
		"clock":     func(int, string) error { return call(unix.SYS_CLOCK_SETTIME, 0, text(strings.Repeat("\x00", 16))) },
		"limit":     func(int, string) error { return call(unix.SYS_PRLIMIT64, 0, unix.RLIMIT_NICE, 0, 0) },
		"seccomp": func(int, string) error {
			return call(unix.SYS_SECCOMP, unix.SECCOMP_GET_ACTION_AVAIL, 0, text("\x00\x00\xff\x7f"))
		},
		"unknown": func(int, string) error { return call(1000) },
	}
	if runtime.GOARCH == "amd64" {
		all["x32"] = func(int, string) error { return call(0x40000000 | unix.SYS_GETPID) }
	}
	return all
}

// forked ends the child, if there is one: all it could be doing is running this same program.
func forked(pid, _ uintptr, errno syscall.Errno) error {
	if errno != 0 {
		return errno
	}
	if pid == 0 {
		unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
	}
	return nil
}

func dial(network, address string) error {
	c, err := net.DialTimeout(network, address, 2*time.Second)
	if err == nil {
		c.Close()
	}
	return err
}

// pool starts workers of this binary, with all that a gateway puts around them.
func pool(t *testing.T, command ...string) *sandbox.Pool {
	t.Helper()
	p, err := sandbox.New(sandbox.Options{Command: append([]string{"/proc/self/exe"}, command...), Warm: 1, Max: 1, Memory: 256 << 20})
	require.NoError(t, err)
	t.Cleanup(p.Close)
	return p
}

// run runs one invocation and returns its outcome.
func run(t *testing.T, p *sandbox.Pool, b *functions.Bundle, data string) *functions.Outcome {
	t.Helper()
	return runFor(t, p, b, data, 20_000)
}

func runFor(t *testing.T, p *sandbox.Pool, b *functions.Bundle, data string, ms int) *functions.Outcome {
	t.Helper()
	done := make(chan *functions.Outcome, 1)
	p.Submit(sandbox.Job{Bundle: b, Done: func(o *functions.Outcome) { done <- o },
		Inv: &functions.Invocation{ID: 1, Function: "f", Revision: b.Digest, Env: []byte("{}"), Limits: functions.Limits{Timeout: time.Duration(ms) * time.Millisecond},
			Event: &event.Event{Type: "message", Data: []byte(data)}}})
	select {
	case o := <-done:
		return o
	case <-time.After(2 * time.Minute):
		t.Fatal("no outcome")
		return nil
	}
}

// openDir is a directory that everybody may use: what a worker cannot do there, it is not the mode that forbids.
func openDir(t *testing.T) string {
	dir, err := os.MkdirTemp("", "confine")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	require.NoError(t, os.Chmod(dir, 0o777))
	return dir
}

// targets gives the probes something that would let them in.
func targets(t *testing.T) map[string]string {
	dir := openDir(t)
	secret := filepath.Join(dir, "secret")
	require.NoError(t, os.WriteFile(secret, []byte("x"), 0o666))
	require.NoError(t, os.Chmod(secret, 0o666))
	listen := func(network, address string) string {
		l, err := net.Listen(network, address)
		require.NoError(t, err)
		t.Cleanup(func() { l.Close() })
		return l.Addr().String()
	}
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { udp.Close() })
	socket := listen("unix", filepath.Join(dir, "s"))
	require.NoError(t, os.Chmod(socket, 0o777))
	return map[string]string{
		"open": "/dev/null", "openat2": "/dev/null", "write": filepath.Join(dir, "new"), "remove": secret,
		"tcp": listen("tcp", "127.0.0.1:0"), "udp": udp.LocalAddr().String(), "unix": socket, "abstract": listen("unix", fmt.Sprintf("@perigee-%d", os.Getpid())),
	}
}

// states are the layers by name.
func states(t *testing.T, p *sandbox.Pool) map[string]frame.Layer {
	t.Helper()
	layers, err := p.Layers(t.Context(), time.Minute)
	require.NoError(t, err)
	all := map[string]frame.Layer{}
	for _, l := range layers {
		all[l.Name] = l
	}
	return all
}

// TestNoWayOut tries everything in a worker, and each must fail: with all layers, and with the filter of system calls alone to stop it.
func TestNoWayOut(t *testing.T) {
	for _, without := range []string{"none", confine.Landlock} {
		t.Run("without "+without, func(t *testing.T) {
			p := pool(t, "probe", without)
			require.Equal(t, frame.On, states(t, p)[confine.Seccomp].State, "%v", states(t, p))
			tryAll(t, p, names())
		})
	}
}

// TestLandlockAlone: what Landlock forbids, it forbids alone.
func TestLandlockAlone(t *testing.T) {
	p := pool(t, "probe", confine.Seccomp)
	l := states(t, p)[confine.Landlock]
	if l.State == frame.Unavailable {
		t.Log("not on this machine: " + l.Why)
		return
	}
	require.Equal(t, frame.On, l.State, l.Why)
	tries := []string{"write", "environ", "list", "exec", "start", "remove", "mount"}
	if l.Why == "" {
		tries = append(tries, "signal")
	}
	tryAll(t, p, tries)
}

// TestNamespacesAlone: there is no network in a worker's namespace, not even its own machine.
func TestNamespacesAlone(t *testing.T) {
	p := pool(t, "probe", confine.Landlock+","+confine.Seccomp)
	l := states(t, p)["namespaces"]
	if l.State != frame.On {
		t.Log("not on this machine: " + l.Why)
		return
	}
	tryAll(t, p, []string{"tcp", "udp", "abstract"}, unix.ENETUNREACH, unix.ECONNREFUSED)
}

func names() []string {
	var all []string
	for name := range probes() {
		all = append(all, name)
	}
	sort.Strings(all)
	return all
}

func tryAll(t *testing.T, p *sandbox.Pool, names []string, also ...unix.Errno) {
	b := &functions.Bundle{Digest: "d", Files: map[string][]byte{"main.lua": []byte("return 1")}}
	args := targets(t)
	refusals := []string{unix.EPERM.Error(), unix.EACCES.Error(), unix.ENOSYS.Error()}
	for _, errno := range also {
		refusals = append(refusals, errno.Error())
	}
	for _, name := range names {
		o := run(t, p, b, name+" "+args[name])
		require.Nil(t, o.Fault, name)
		said := string(o.Result)
		require.True(t, slices.ContainsFunc(refusals, func(r string) bool { return strings.Contains(said, r) }), "%s: %s", name, said)
	}
	require.EqualValues(t, 1, p.Stats().Started)
	require.Zero(t, p.Stats().Crashes)
}

// TestProbesAreReal: outside, what the probes try works, so that their failure in a worker means something.
func TestProbesAreReal(t *testing.T) {
	args := targets(t)
	for _, name := range []string{"open", "write", "list", "stat", "memfd", "fork", "start", "socket", "netlink", "socketpair", "tcp", "udp", "unix", "abstract", "listen",
		"signal", "thread", "environ", "prlimit", "mmap", "mprotect", "uname", "limit", "remove"} {
		require.NoError(t, probes()[name](os.Getpid(), args[name]), name)
	}
}
