package broker

import (
	"errors"
	"net"
	"sync"
	"syscall"
)

// sink is a client's connection whose Write does not block: what the kernel does not take at once waits in a
// queue that a goroutine empties while there is something in it. mochi writes under the client's lock, which
// publishers need too, so that without this one client that does not read would stop all who publish to it.
type sink struct {
	net.Conn
	raw syscall.RawConn // nil if there is none
	wg  *sync.WaitGroup // the goroutine's owner waits on it

	mu     sync.Mutex
	queue  []byte
	busy   bool // the goroutine runs
	closed bool
	err    error
}

const (
	// sinkSoft is how many bytes may wait before a client gets no more messages until it has read some.
	sinkSoft = 2 << 20
	// sinkHard is where a client that does not read is disconnected. Only replies to what it asks for pass the soft
	// limit: acknowledgements, and retained messages, all of which fit.
	sinkHard = sinkSoft + retainedBytes + 4<<20
)

var errSlow = errors.New("the client does not read what it is sent")

func newSink(c net.Conn, wg *sync.WaitGroup) *sink {
	s := &sink{Conn: c, wg: wg}
	if sc, ok := c.(syscall.Conn); ok {
		s.raw, _ = sc.SyscallConn()
	}
	return s
}

// Write sends p, or queues it. An error means that the connection is of no more use.
func (s *sink) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.err != nil {
		return 0, errors.Join(net.ErrClosed, s.err)
	}
	rest := p
	if !s.busy {
		n, err := writeNow(s.raw, rest)
		if err != nil {
			return n, s.failLocked(err)
		}
		rest = rest[n:]
	}
	if len(rest) == 0 {
		return len(p), nil
	}
	if len(s.queue)+len(rest) > sinkHard {
		return 0, s.failLocked(errSlow)
	}
	s.queue = append(s.queue, rest...)
	if !s.busy {
		s.busy = true
		s.wg.Go(s.empty)
	}
	return len(p), nil
}

func (s *sink) failLocked(err error) error {
	s.err = err
	_ = s.Conn.Close()
	return err
}

func (s *sink) empty() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.queue) > 0 && s.err == nil {
		out := s.queue[:min(len(s.queue), 64<<10)]
		s.mu.Unlock()
		n, err := s.Conn.Write(out) // Write only appends meanwhile
		s.mu.Lock()
		s.queue = s.queue[n:]
		if err != nil {
			_ = s.failLocked(err)
		}
	}
	s.queue, s.busy = nil, false
}

// slow says that so much waits that the client should get nothing new.
func (s *sink) slow() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.queue) > sinkSoft
}

// Close closes the connection; what waits is gone.
func (s *sink) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	return s.Conn.Close()
}
