package api

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"syscall"
)

// describePeer names the process at the other end of a Unix connection: ": process 812, perigee run".
func describePeer(c net.Conn) string {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return ""
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return ""
	}
	var cred *syscall.Ucred
	if raw.Control(func(fd uintptr) {
		cred, err = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	}) != nil || err != nil || cred.Pid == 0 {
		return ""
	}
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", cred.Pid))
	if err != nil || len(line) == 0 {
		return fmt.Sprintf(": process %d", cred.Pid)
	}
	line = bytes.ReplaceAll(bytes.TrimRight(line, "\x00"), []byte{0}, []byte{' '})
	return fmt.Sprintf(": process %d, %.80s", cred.Pid, line)
}
