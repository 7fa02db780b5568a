package demo

import "syscall"

// procAttr gives the gateway a process group of its own, so that Ctrl-C reaches the demo alone, and has the kernel
// stop it should the demo die.
func procAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}
