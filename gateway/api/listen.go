package api

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// maxSocketPath is what the kernel's address of a Unix socket can hold (104 on BSD and macOS, 108 on Linux, with the final zero).
const maxSocketPath = 103

// Listen opens the control socket at path: mode 0660, its directory made if there is none (0750). A socket that a dead
// gateway left behind is replaced; one at which somebody answers is an error that names the process.
func Listen(path string) (net.Listener, error) {
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("control socket %s: the path has %d bytes, a socket's may have %d: set api.socket to a shorter one", path, len(path), maxSocketPath)
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("control socket %s: its directory: %w", path, err)
	}
	// Of two gateways that start at once, one must not take the other's fresh socket for a stale one: a lock on the directory
	// for this moment, which the kernel drops with the process and which leaves no file.
	d, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("control socket %s: its directory: %w", path, err)
	}
	defer d.Close()
	if err := syscall.Flock(int(d.Fd()), syscall.LOCK_EX); err != nil {
		return nil, fmt.Errorf("control socket %s: lock its directory: %w", path, err)
	}
	if err := removeStale(path); err != nil {
		return nil, err
	}
	// On Linux a socket file gets the mode of its descriptor: closed to others from its first moment on. Elsewhere the
	// process's umask does that.
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { _ = syscall.Fchmod(int(fd), 0o600) })
	}}
	ln, err := lc.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	if err := os.Chmod(path, 0o660); err != nil {
		_ = ln.Close()
		return nil, fmt.Errorf("control socket: %w", err)
	}
	return ln, nil
}

// removeStale removes a socket at which nobody answers, and nothing else.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("control socket %s: there is something else by that name: move it away, or set api.socket", path)
	}
	c, err := net.DialTimeout("unix", path, 2*time.Second)
	switch {
	case err == nil:
		defer c.Close()
		return Errorf(CodeConflict, "a gateway answers at %s already%s", path, describePeer(c)).
			WithHint("stop it first, or give this one a data directory of its own with --data-dir")
	case errors.Is(err, syscall.ECONNREFUSED):
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("control socket: remove the one that was left behind: %w", err)
		}
		return nil
	default:
		return fmt.Errorf("control socket: see whether a gateway answers at it: %w", err)
	}
}
