package confine

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// rule is one system call that a worker may make. If it looks at an argument, the call is made only if that one's lower 32 bits, masked, are want.
type rule struct {
	call      int
	looks     bool
	arg       int
	mask      uint32
	want      uint32
	otherwise unix.Errno // what the call answers instead; EPERM if 0
}

// cloneNew are the flags of clone that make a namespace.
const cloneNew = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER |
	unix.CLONE_NEWPID | unix.CLONE_NEWNET

// rules are what the Go runtime needs to go on, for all architectures, and what a worker asks for: to read, to write, to wait, the time.
// There is no call among them that takes a path, makes a descriptor, or names another process.
func rules() []rule {
	all := []rule{
		{call: unix.SYS_READ}, {call: unix.SYS_WRITE}, {call: unix.SYS_CLOSE},
		{call: unix.SYS_EPOLL_PWAIT}, {call: unix.SYS_EPOLL_CTL},
		{call: unix.SYS_FUTEX}, {call: unix.SYS_SCHED_YIELD}, {call: unix.SYS_NANOSLEEP}, {call: unix.SYS_RESTART_SYSCALL},
		{call: unix.SYS_CLOCK_GETTIME}, {call: unix.SYS_GETRUSAGE}, {call: unix.SYS_GETRANDOM},
		{call: unix.SYS_MADVISE}, {call: unix.SYS_MUNMAP},
		{call: mmap, looks: true, arg: 2, mask: unix.PROT_EXEC},
		{call: unix.SYS_MPROTECT, looks: true, arg: 2, mask: unix.PROT_EXEC},
		{call: unix.SYS_RT_SIGACTION}, {call: unix.SYS_RT_SIGPROCMASK}, {call: unix.SYS_RT_SIGRETURN}, {call: unix.SYS_SIGALTSTACK},
		{call: unix.SYS_GETPID}, {call: unix.SYS_GETTID},
		{call: unix.SYS_TGKILL, looks: true, arg: 0, mask: ^uint32(0), want: uint32(os.Getpid())}, // Go interrupts its own threads
		{call: unix.SYS_CLONE, looks: true, arg: 0, mask: unix.CLONE_THREAD | cloneNew, want: unix.CLONE_THREAD},
		// The flags of clone3 lie in memory, where a filter cannot look. No bit is masked, so that none is ever wanted.
		{call: unix.SYS_CLONE3, looks: true, mask: 0, want: 1, otherwise: unix.ENOSYS},
		{call: unix.SYS_EXIT}, {call: unix.SYS_EXIT_GROUP},
	}
	for _, call := range slices.Concat(archCalls(), cCalls()) {
		all = append(all, rule{call: call})
	}
	return all
}

// What the kernel gives a filter to look at: the number of the call, the architecture, where it came from, and six arguments.
const (
	offCall = 0
	offArch = 4
	offArgs = 16
)

// program compiles rules to what the kernel runs before each system call. What no rule allows is answered with EPERM; nothing is
// killed, so that a call that was forgotten costs an error and not a worker.
func program(rules []rule) []unix.SockFilter {
	load := func(offset uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
	}
	unless := func(test uint16, k uint32, skip uint8) unix.SockFilter { // goes on if it holds, and skips so many if not
		return unix.SockFilter{Code: unix.BPF_JMP | test | unix.BPF_K, Jf: skip, K: k}
	}
	answer := func(what uint32) unix.SockFilter { return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: what} }
	const allow = unix.SECCOMP_RET_ALLOW
	refuse := func(errno unix.Errno) uint32 { return unix.SECCOMP_RET_ERRNO | uint32(errno) }

	// Calls of another architecture have other numbers: amd64 takes those of 386, and of x32, which have a bit of their own.
	p := []unix.SockFilter{
		load(offArch), {Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: 1, K: auditArch}, answer(refuse(unix.EPERM)),
		load(offCall),
	}
	if x32Bit != 0 {
		p = append(p, unless(unix.BPF_JSET, x32Bit, 1), answer(refuse(unix.EPERM)))
	}
	for _, r := range rules {
		if !r.looks {
			p = append(p, unless(unix.BPF_JEQ, uint32(r.call), 1), answer(allow))
			continue
		}
		otherwise := r.otherwise
		if otherwise == 0 {
			otherwise = unix.EPERM
		}
		p = append(p, unless(unix.BPF_JEQ, uint32(r.call), 5),
			load(offArgs+8*uint32(r.arg)), // the lower half: all our architectures are little-endian
			unix.SockFilter{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: r.mask},
			unless(unix.BPF_JEQ, r.want, 1), answer(allow), answer(refuse(otherwise)))
	}
	return append(p, answer(refuse(unix.EPERM)))
}

// filter puts the filter of system calls on every thread of this process.
func filter() (note string, err error) {
	if auditArch == 0 {
		return "", missing("there is no list of system calls for " + runtime.GOARCH)
	}
	p := program(rules())
	prog := unix.SockFprog{Len: uint16(len(p)), Filter: &p[0]}
	runtime.LockOSThread() // the thread that asks is the one that has no_new_privs
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return "", fmt.Errorf("no_new_privs: %w", err)
	}
	thread, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog)))
	runtime.KeepAlive(p)
	switch {
	case errno == unix.ENOSYS || errno == unix.EINVAL:
		return "", missing("this kernel has no seccomp filters")
	case errno != 0:
		return "", fmt.Errorf("installing it: %w", errno)
	case thread != 0:
		return "", errors.New("one of the threads has a filter of its own")
	}
	return "", nil
}
