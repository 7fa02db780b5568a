package confine

import "golang.org/x/sys/unix"

const (
	mmap      = unix.SYS_MMAP2
	auditArch = unix.AUDIT_ARCH_I386
	x32Bit    = 0
)

// archCalls are what 32 bits have for a time after 2038, and how a new thread finds its own memory.
func archCalls() []int {
	return []int{unix.SYS_FUTEX_TIME64, unix.SYS_CLOCK_GETTIME64, unix.SYS_SET_THREAD_AREA}
}
