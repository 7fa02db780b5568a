package demo

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// proxy is the wire between the gateway and the cloud: it passes bytes on, and can be cut. A cut ends the connections there are, and
// new ones get no further than the cut: they hang, as on a network where packets vanish, until the wire is mended or the
// gateway gives up.
type proxy struct {
	listen net.Listener
	target string
	crew   *crew
	wait   sync.WaitGroup

	mu     sync.Mutex // guards what follows
	cut    bool
	since  time.Time     // of being cut or whole
	mended chan struct{} // closed when the wire is whole
	conns  map[net.Conn]struct{}
}

// maxConns bounds the connections at once, two of them for each that is passed on.
const maxConns = 64

// newProxy listens at addr for what goes to target. Run serves.
func newProxy(addr, target string) (*proxy, error) {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen for the gateway's uplink: %w", err)
	}
	p := &proxy{listen: ln, target: target, since: time.Now(), mended: make(chan struct{}), conns: map[net.Conn]struct{}{}}
	close(p.mended)
	return p, nil
}

// Run passes connections on until ctx ends, and returns when all have ended.
func (p *proxy) Run(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() {
		_ = p.listen.Close() // nothing more to take
		p.closeAll()
	})
	defer stop()
	defer p.wait.Wait()
	for ctx.Err() == nil {
		in, err := p.listen.Accept()
		if err == nil {
			p.crew.start(&p.wait, func() { p.serve(ctx, in) })
			continue
		}
		select { // the end, or out of files, which passes
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// serve passes one connection on.
func (p *proxy) serve(ctx context.Context, in net.Conn) {
	defer in.Close()
	mended, ok := p.enter(in)
	if !ok {
		return
	}
	defer p.leave(in)
	select {
	case <-mended:
	case <-ctx.Done():
		return
	}
	var d net.Dialer
	out, err := d.DialContext(ctx, "tcp", p.target)
	if err != nil {
		return
	}
	defer out.Close()
	again, ok := p.enter(out)
	if !ok {
		return
	}
	defer p.leave(out)
	select {
	case <-again:
	default:
		return // cut in the meantime
	}
	if ctx.Err() != nil {
		return // closeAll may have been too early for this one
	}
	var back sync.WaitGroup
	p.crew.start(&back, func() { pass(out, in) })
	pass(in, out)
	back.Wait()
}

// pass copies until either side ends, and then ends both.
func pass(to, from net.Conn) {
	_, _ = io.Copy(to, from) // however it ends
	to.Close()
	from.Close()
}

// enter registers a connection that a cut ends, and returns what is closed while the wire is whole.
func (p *proxy) enter(c net.Conn) (mended <-chan struct{}, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.conns) >= maxConns {
		return nil, false
	}
	p.conns[c] = struct{}{}
	return p.mended, true
}

func (p *proxy) leave(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
}

func (p *proxy) closeAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.Close()
	}
}

// set cuts the wire or mends it.
func (p *proxy) set(cut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cut == cut {
		return
	}
	p.cut, p.since = cut, time.Now()
	if !cut {
		close(p.mended)
		return
	}
	p.mended = make(chan struct{})
	for c := range p.conns {
		c.Close()
	}
}

// state says whether the wire is cut, and for how long that has been so.
func (p *proxy) state() (cut bool, d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cut, time.Since(p.since)
}
