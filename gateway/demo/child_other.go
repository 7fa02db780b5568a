//go:build !linux

package demo

import "syscall"

// procAttr gives the gateway a process group of its own, so that Ctrl-C reaches the demo alone.
func procAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
