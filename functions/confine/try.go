package confine

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// try does once what a worker does all its life, so that a layer which forbids one of these shows before any function runs: it waits for a
// timer and for its socket, interrupts a thread, and, unless only files and other processes are forbidden, takes memory and gives it back, starts
// and ends threads, and asks for the time that it used. What does not fail but hang is for the gateway to notice.
func try(socket *os.File, calls bool) error {
	if calls {
		if err := tryCalls(); err != nil {
			return err
		}
	}
	if err := unix.Tgkill(unix.Getpid(), unix.Gettid(), unix.SIGURG); err != nil { // as Go interrupts a loop
		return fmt.Errorf("a signal to one of its own threads: %w", err)
	}
	// Nothing comes before the gateway has heard that this worker is ready, so that this waits for its deadline: a read, the poller and a timer.
	if err := socket.SetReadDeadline(time.Now().Add(100 * time.Microsecond)); err != nil {
		return fmt.Errorf("a timer: %w", err)
	}
	if n, err := socket.Read(make([]byte, 1)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("reading from the socket: %d bytes, %w", n, err)
	}
	if err := socket.SetReadDeadline(time.Time{}); err != nil {
		return fmt.Errorf("a timer: %w", err)
	}
	return nil
}

// tryCalls tries what a filter of system calls can break. A worker collects its garbage besides, between this and being ready.
func tryCalls() error {
	page, err := unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err == nil {
		page[0] = 1
		err = errors.Join(unix.Madvise(page, unix.MADV_DONTNEED), unix.Munmap(page))
	}
	if err != nil {
		return fmt.Errorf("memory: %w", err)
	}
	var done sync.WaitGroup
	threads := make(chan struct{})
	for range 2 {
		done.Go(func() {
			runtime.LockOSThread() // and never unlocked, so that the thread ends
			<-threads
		})
	}
	close(threads)
	done.Wait()
	var used unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &used); err != nil {
		return fmt.Errorf("the time used: %w", err)
	}
	return nil
}
