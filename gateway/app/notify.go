package app

import (
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// notify tells systemd about the service's state, where systemd asks for it (Type=notify): see sd_notify(3). Without
// NOTIFY_SOCKET it does nothing; an error is nothing that the gateway could act on.
func notify(state string) {
	addr := os.Getenv("NOTIFY_SOCKET")
	if addr == "" {
		return
	}
	if state == "RELOADING=1" {
		var t unix.Timespec
		if unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) == nil {
			state += fmt.Sprintf("\nMONOTONIC_USEC=%d", t.Nano()/int64(time.Microsecond))
		}
	}
	if strings.HasPrefix(addr, "@") {
		addr = "\x00" + addr[1:] // an abstract socket
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: addr, Net: "unixgram"})
	if err != nil {
		return
	}
	defer func() { _ = c.Close() }()
	_, _ = c.Write([]byte(state))
}
