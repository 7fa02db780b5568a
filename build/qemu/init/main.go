// Init is the first and only process of a guest in which the tests of the confinement run: it mounts what they need, brings up the loopback
// interface, runs /tests, and switches the machine off. What it prints last is for confine.sh.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"unsafe"

	"golang.org/x/sys/unix"
)

func main() {
	if err := prepare(); err != nil {
		fmt.Println("init:", err)
	}
	var name unix.Utsname
	if err := unix.Uname(&name); err == nil {
		fmt.Printf("guest-kernel: %s %s\n", unix.ByteSliceToString(name.Release[:]), unix.ByteSliceToString(name.Machine[:]))
	}
	tests := exec.Command("/tests", "-test.v", "-test.short", "-test.timeout=10m") // everything takes twenty times as long here
	tests.Stdout, tests.Stderr = os.Stdout, os.Stdout
	err := tests.Run()
	fmt.Println("guest-result:", result(err))
	unix.Sync()
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
		fmt.Println("init: power off:", err)
	}
}

func result(err error) string {
	if err != nil {
		return err.Error()
	}
	return "ok"
}

func prepare() error {
	for _, m := range []struct{ what, where string }{{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}, {"tmpfs", "/tmp"}} {
		if err := os.MkdirAll(m.where, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.what, m.where, m.what, 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m.where, err)
		}
	}
	if err := os.Chmod("/tmp", 0o1777); err != nil {
		return err
	}
	return loopback()
}

// loopback brings up the interface lo.
func loopback() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	r, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCSIFFLAGS, uintptr(unsafe.Pointer(r))); errno != 0 {
		return fmt.Errorf("bring up lo: %w", errno)
	}
	return nil
}
