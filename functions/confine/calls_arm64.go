package confine

import "golang.org/x/sys/unix"

const (
	mmap      = unix.SYS_MMAP
	auditArch = unix.AUDIT_ARCH_AARCH64
	x32Bit    = 0
)

// archCalls are none.
func archCalls() []int {
	return nil
}
