//go:build !amd64 && !386 && !arm && !arm64

package confine

import "golang.org/x/sys/unix"

// Without a list of its own, an architecture has no filter.
const (
	mmap      = unix.SYS_MMAP
	auditArch = 0
	x32Bit    = 0
)

func archCalls() []int { return nil }
