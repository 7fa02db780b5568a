// Init is the first and only process of a guest in which the tests of the confinement run: it mounts what they need, brings up the loopback
// interface, runs /tests, and switches the machine off. What it prints last is for confine.sh.
package main

import (
	"fmt"
	"os"
	"os/exec"

	"golang.org/x/sys/unix"

	"github.com/perigee-iot/perigee/build/qemu/guest"
)

func main() {
	if err := guest.Prepare(); err != nil {
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
