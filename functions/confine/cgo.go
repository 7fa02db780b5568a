//go:build cgo

package confine

import "golang.org/x/sys/unix"

// cCalls are what the C library needs to start a thread, in builds that are linked with it, as those with the race detector are.
func cCalls() []int {
	return []int{unix.SYS_SET_ROBUST_LIST, unix.SYS_RSEQ}
}
