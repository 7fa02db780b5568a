package chaos

import (
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// link is a connection to the cloud that is cut and mended at random.
type link struct {
	l  net.Listener
	to string

	mu    sync.Mutex
	down  bool
	conns map[net.Conn]bool
	cut   int

	done chan struct{}
	wg   sync.WaitGroup
}

func newLink(t *testing.T, to string) *link {
	k := newGate(t, to)
	k.set(false)
	k.cut = 0
	k.wg.Go(k.vary)
	return k
}

// newGate is a link that is down until it is set up.
func newGate(t *testing.T, to string) *link {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	k := &link{l: l, to: to, down: true, conns: map[net.Conn]bool{}, done: make(chan struct{})}
	k.wg.Go(k.accept)
	t.Cleanup(func() {
		k.mend()
		_ = l.Close()
		k.set(true)
		k.wg.Wait()
	})
	return k
}

func (k *link) addr() string { return k.l.Addr().String() }

func (k *link) accept() {
	for {
		c, err := k.l.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", k.to)
		if err != nil || !k.keep(c, far) {
			_ = c.Close()
			continue
		}
		k.wg.Go(func() { k.carry(c, far) })
		k.wg.Go(func() { k.carry(far, c) })
	}
}

// keep notes both ends of a connection, unless the link is down.
func (k *link) keep(both ...net.Conn) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, c := range both {
		if k.down {
			_ = c.Close()
		} else {
			k.conns[c] = true
		}
	}
	return !k.down
}

func (k *link) carry(from, to net.Conn) {
	_, _ = io.Copy(to, from)
	_ = from.Close()
	_ = to.Close()
	k.mu.Lock()
	delete(k.conns, from)
	k.mu.Unlock()
}

func (k *link) set(down bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.down = down; !down {
		return
	}
	k.cut++
	for c := range k.conns {
		_ = c.Close()
	}
}

// vary cuts and mends until mend is called.
func (k *link) vary() {
	for down := true; ; down = !down {
		select {
		case <-k.done:
			k.set(false)
			return
		case <-time.After(time.Duration(50+rand.IntN(700)) * time.Millisecond):
			k.set(down)
		}
	}
}

// mend ends the cutting, with the link up.
func (k *link) mend() {
	k.mu.Lock()
	defer k.mu.Unlock()
	select {
	case <-k.done:
	default:
		close(k.done)
	}
}
