package confine

import "golang.org/x/sys/unix"

const (
	mmap      = unix.SYS_MMAP
	auditArch = unix.AUDIT_ARCH_X86_64
	x32Bit    = 0x40000000 // set in the numbers of x32
)

// archCalls are none.
func archCalls() []int {
	return nil
}
