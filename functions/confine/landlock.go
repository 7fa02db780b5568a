//go:build !cgo

package confine

import (
	"errors"
	"fmt"

	"github.com/landlock-lsm/go-landlock/landlock"
	kernel "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

// lock takes files, TCP, abstract Unix sockets and signals to others from this process, as far as the kernel knows how to. It says what this kernel's
// Landlock is too old for.
func lock() (note string, err error) {
	version, err := kernel.LandlockGetABIVersion()
	switch {
	case errors.Is(err, unix.ENOSYS):
		return "", missing("this kernel has no Landlock")
	case errors.Is(err, unix.EOPNOTSUPP):
		return "", missing("Landlock is switched off: the kernel's lsm= does not name it")
	case err != nil:
		return "", fmt.Errorf("asking the kernel: %w", err)
	}
	if err := landlock.V8.BestEffort().Restrict(); err != nil {
		return "", err
	}
	switch {
	case version < 4:
		return "of files only: this kernel is too old for more", nil
	case version < 6:
		return "of files and TCP only: this kernel is too old for more", nil
	}
	return "", nil
}
