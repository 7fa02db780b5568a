package engine

import (
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// machine is what the clock asks of the box that it runs on; tests have one of their own.
type machine interface {
	// now is the wall clock, whatever it shows, and the time since the machine's boot, which never jumps while the process lives.
	now() (wall time.Time, up time.Duration)
	// synced says whether the wall clock is known to be right.
	synced() bool
	// bootID differs from boot to boot; "" if nobody knows.
	bootID() string
}

// linux is the real one.
type linux struct {
	start time.Time
	up    time.Duration // at start
}

func newLinux() *linux {
	m := &linux{start: time.Now()}
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err == nil {
		m.up = time.Duration(t.Nano())
	}
	return m
}

func (m *linux) now() (time.Time, time.Duration) {
	t := time.Now()
	return t.Round(0), m.up + t.Sub(m.start)
}

// synced asks the kernel, as every time daemon tells it. Whoever sets the clock by hand takes that back.
func (m *linux) synced() bool {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	return err == nil && state != unix.TIME_ERROR
}

func (m *linux) bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
