package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// makeDir makes the store's directory for its owner alone. The state of functions may hold what they know of people.
func makeDir(dir string) error {
	info, missing := os.Stat(dir)
	if missing == nil && !info.IsDir() {
		return fmt.Errorf("the data directory %s is a file: name a directory", dir)
	}
	err := os.MkdirAll(dir, 0o700)
	if err == nil && missing != nil {
		err = syncFile(filepath.Dir(dir)) // the name too must survive a power cut
	}
	if err == nil {
		err = unix.Access(dir, unix.R_OK|unix.W_OK|unix.X_OK)
	}
	if errors.Is(err, fs.ErrPermission) {
		return permission(existing(dir), err)
	}
	if err != nil {
		return fmt.Errorf("making the data directory %s: %w", dir, err)
	}
	return nil
}

// Exists says whether there is a store in dir.
func Exists(dir string) bool {
	return exists(filepath.Join(dir, dataName)) || exists(filepath.Join(dir, restoredName))
}

// KeepOwner gives everything in a store's directory to the owner of the directory, if it is root who made some of it: a gateway that runs
// as a user of its own could not use it otherwise.
func KeepOwner(dir string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	top, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("keeping the owner of %s: %w", dir, err)
	}
	owner, ok := top.Sys().(*syscall.Stat_t)
	if !ok || owner.Uid == 0 {
		return nil
	}
	return filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, int(owner.Uid), int(owner.Gid))
	})
}

// existing returns dir or the first of its parents that is there.
func existing(dir string) string {
	for {
		if _, err := os.Stat(dir); err == nil || filepath.Dir(dir) == dir {
			return dir
		}
		dir = filepath.Dir(dir)
	}
}

// dirLock holds the directory for this process until it is released, or the process ends, however it ends. What is in
// the file says only who has it, and, when nobody has, that its last holder did not end well.
type dirLock struct {
	f       *os.File
	unclean bool // whoever had it last did not release it
}

func takeLock(dir string) (*dirLock, error) {
	path := filepath.Join(dir, lockName)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if errors.Is(err, fs.ErrPermission) {
		return nil, permission(path, err)
	}
	if err != nil {
		return nil, fmt.Errorf("locking the data directory: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w: %s%s; stop that one first, or give this one a directory of its own (data_dir)", ErrLocked, dir, holder(path))
		}
		return nil, fmt.Errorf("locking %s: %w", path, err)
	}
	l := &dirLock{f: f}
	if fi, err := f.Stat(); err == nil {
		l.unclean = fi.Size() > 0
	}
	if err := f.Truncate(0); err == nil {
		_, _ = fmt.Fprintf(f, "%d\n", os.Getpid())
		_ = f.Sync()
	}
	return l, nil
}

// release gives the directory up.
func (l *dirLock) release(clean bool) {
	if clean {
		_ = l.f.Truncate(0)
	}
	l.f.Close()
}

// holder says which process has the lock, if it wrote that down.
func holder(path string) string {
	b, err := os.ReadFile(path)
	if pid := strings.TrimSpace(string(b)); err == nil && pid != "" {
		return " is open in process " + pid
	}
	return ""
}

// setAside moves the database away, to be salvaged. One is kept: more would fill the disk.
func setAside(dir string) error {
	data, aside := filepath.Join(dir, dataName), filepath.Join(dir, asideName)
	if err := os.RemoveAll(aside); err != nil {
		return fmt.Errorf("removing what was set aside earlier: %w", err)
	}
	err := os.WriteFile(filepath.Join(data, asideMark), []byte(asideTodo), 0o600)
	if err == nil {
		err = os.Rename(data, aside)
	}
	if err == nil {
		err = syncFile(dir)
	}
	if err != nil {
		return fmt.Errorf("setting the damaged store aside: %w", err)
	}
	return nil
}
