package confine

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// judge runs a filter as the kernel does: on the number of a call, its architecture and its first arguments.
func judge(t *testing.T, p []unix.SockFilter, arch uint32, call int, args ...uint32) uint32 {
	t.Helper()
	data := map[uint32]uint32{offCall: uint32(call), offArch: arch}
	for i, a := range args {
		data[offArgs+8*uint32(i)] = a
	}
	var acc uint32
	for pc := 0; pc < len(p); pc++ {
		in := p[pc]
		jump := func(holds bool) {
			if holds {
				pc += int(in.Jt)
			} else {
				pc += int(in.Jf)
			}
		}
		switch in.Code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			acc = data[in.K]
		case unix.BPF_ALU | unix.BPF_AND | unix.BPF_K:
			acc &= in.K
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
			jump(acc == in.K)
		case unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K:
			jump(acc&in.K != 0)
		case unix.BPF_RET | unix.BPF_K:
			return in.K
		default:
			t.Fatalf("instruction %d is %#x", pc, in.Code)
		}
	}
	t.Fatal("the filter ends without an answer")
	return 0
}

func TestFilter(t *testing.T) {
	p := program(rules())
	require.Less(t, len(p), 200)
	const (
		allow = unix.SECCOMP_RET_ALLOW
		eperm = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	)
	pid := uint32(os.Getpid())
	for _, c := range []struct {
		what string
		want uint32
		call int
		args []uint32
	}{
		{"read", allow, unix.SYS_READ, nil},
		{"exit", allow, unix.SYS_EXIT_GROUP, nil},
		{"memory", allow, mmap, []uint32{0, 4096, unix.PROT_READ | unix.PROT_WRITE}},
		{"memory to reserve", allow, mmap, []uint32{0, 4096, unix.PROT_NONE}},
		{"memory to run", eperm, mmap, []uint32{0, 4096, unix.PROT_READ | unix.PROT_EXEC}},
		{"making memory run", eperm, unix.SYS_MPROTECT, []uint32{0, 4096, unix.PROT_EXEC}},
		{"a thread", allow, unix.SYS_CLONE, []uint32{unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_SYSVSEM | unix.CLONE_THREAD}},
		{"a process", eperm, unix.SYS_CLONE, []uint32{uint32(unix.SIGCHLD)}},
		{"a process with our memory", eperm, unix.SYS_CLONE, []uint32{unix.CLONE_VM | unix.CLONE_VFORK | uint32(unix.SIGCHLD)}},
		{"a thread in a namespace", eperm, unix.SYS_CLONE, []uint32{unix.CLONE_THREAD | unix.CLONE_NEWNET}},
		{"clone3", unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS), unix.SYS_CLONE3, nil},
		{"a signal to a thread of ours", allow, unix.SYS_TGKILL, []uint32{pid, 7, 23}},
		{"a signal to the gateway", eperm, unix.SYS_TGKILL, []uint32{pid - 1, 7, 23}},
		{"kill", eperm, unix.SYS_KILL, []uint32{pid, 9}},
		{"open", eperm, unix.SYS_OPENAT, nil},
		{"exec", eperm, unix.SYS_EXECVE, nil},
		{"a call that there is not", eperm, 100_000, nil},
		{"a negative call", eperm, -1, nil},
	} {
		require.Equal(t, c.want, judge(t, p, auditArch, c.call, c.args...), c.what)
		require.Equal(t, eperm, judge(t, p, auditArch^1, c.call, c.args...), "%s, of another architecture", c.what)
		if x32Bit != 0 {
			require.Equal(t, eperm, judge(t, p, auditArch, c.call|x32Bit, c.args...), "%s, of x32", c.what)
		}
	}
	for _, r := range rules() { // what the runtime needs is allowed somehow
		if r.otherwise == 0 {
			require.Equal(t, uint32(allow), judge(t, p, auditArch, r.call, r.want, r.want, r.want), "call %d", r.call)
		}
	}
}
