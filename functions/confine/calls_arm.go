package confine

import "golang.org/x/sys/unix"

const (
	mmap      = unix.SYS_MMAP2
	auditArch = unix.AUDIT_ARCH_ARM
	x32Bit    = 0
)

// Calls that only ARM has.
const (
	armCacheFlush = 0xf0002
	armSetTLS     = 0xf0005
)

// archCalls are what 32 bits have for a time after 2038, and the two that only ARM has.
func archCalls() []int {
	return []int{unix.SYS_FUTEX_TIME64, unix.SYS_CLOCK_GETTIME64, armCacheFlush, armSetTLS}
}
