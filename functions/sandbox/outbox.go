package sandbox

import (
	"errors"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// outbox is what is on its way to one worker. Whoever flushes writes as much as the socket takes without blocking; only
// if it takes no more, a goroutine is started that writes the rest and ends.
type outbox struct {
	file *os.File
	fd   int             // of file; used while closed is false only
	wg   *sync.WaitGroup // of the goroutines that write the rest

	mu      sync.Mutex
	buf     []byte // whole frames, but for the first after a partial write
	writing bool   // a goroutine writes the rest
	corked  bool   // more is about to come: do not write yet
	closed  bool
}

// keptOutbox is the largest buffer that is kept for the next frames.
const keptOutbox = 64 << 10

// put appends what appendTo appends, all or nothing.
func (o *outbox) put(appendTo func([]byte) ([]byte, error)) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return nil // the worker is dead, and its tasks are about to be dealt with
	}
	buf, err := appendTo(o.buf)
	if err == nil {
		o.buf = buf
	}
	return err
}

// cork holds writes back until uncork: for while several frames of the worker are handled, each of which may cause one to it.
func (o *outbox) cork() {
	o.mu.Lock()
	o.corked = true
	o.mu.Unlock()
}

// uncork writes what has gathered.
func (o *outbox) uncork() {
	o.mu.Lock()
	o.corked = false
	o.mu.Unlock()
	o.flush()
}

// pending is how many bytes the worker has not taken.
func (o *outbox) pending() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.buf)
}

// flush writes what the socket takes. Errors are left to the worker's reader, which sees the same end.
func (o *outbox) flush() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed || o.writing || o.corked || len(o.buf) == 0 {
		return
	}
	n, err := unix.Write(o.fd, o.buf)
	for errors.Is(err, unix.EINTR) {
		n, err = unix.Write(o.fd, o.buf)
	}
	switch {
	case n == len(o.buf):
		o.reset()
		return
	case err != nil && !errors.Is(err, unix.EAGAIN):
		o.reset()
		return
	}
	o.buf = o.buf[:copy(o.buf, o.buf[max(n, 0):])]
	o.writing = true
	o.wg.Go(o.drain)
}

func (o *outbox) reset() {
	if cap(o.buf) > keptOutbox {
		o.buf = nil
	}
	o.buf = o.buf[:0]
}

// drain writes until nothing is left, waiting for the worker to read.
func (o *outbox) drain() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.buf) > 0 && !o.closed {
		buf := o.buf
		o.buf = nil
		o.mu.Unlock()
		_, err := o.file.Write(buf)
		o.mu.Lock()
		if err != nil {
			o.buf = nil
			break
		}
	}
	o.reset()
	o.writing = false
}

// shut drops what is left and closes the socket.
func (o *outbox) shut() {
	o.mu.Lock()
	o.closed, o.buf = true, nil
	o.mu.Unlock()
	o.file.Close()
}
