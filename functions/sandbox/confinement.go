package sandbox

import (
	"context"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/perigee-iot/perigee/functions/frame"
)

// confinement is how workers are confined, as far as the pool decides it. A layer is given up only if workers cannot be started with it, and only
// before any worker has been ready: until then no function has run, so that no function can bring it about. Pool.mu guards it.
type confinement struct {
	proven bool           // a worker has been ready
	failed map[string]int // starts in a row that ended while a layer was tried
	off    []frame.Layer  // given up
}

// sureAfter is how many starts in a row have to end in the same layer: one can end for another reason.
const sureAfter = 2

// suspect takes note of a start that ended while the worker tried a layer, and gives the layer up if that is sure.
func (p *Pool) suspect(w *proc, why string) {
	c := &p.confine
	if c.proven || w.trying == "" || p.closing {
		return
	}
	if c.failed == nil {
		c.failed = map[string]int{}
	}
	c.failed[w.trying]++
	if c.failed[w.trying] != sureAfter {
		return
	}
	c.off = append(c.off, frame.Layer{Name: w.trying, State: frame.Off, Why: "workers do not start with it: " + why})
	p.opts.Log.Error("a layer of confinement breaks workers: it stays off until the gateway is started again",
		"layer", w.trying, "reason", why, "see", "perigee doctor")
}

// killedByOther and outOfMemory are ends of a process that no layer brings about.
func killedByOther(end *os.ProcessState) bool {
	status, ok := end.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == syscall.SIGKILL
}

func outOfMemory(last string) bool {
	return strings.Contains(last, "out of memory") || strings.Contains(last, "cannot allocate memory")
}

// without are the names of the layers that are given up.
func (p *Pool) without() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	names := make([]string, len(p.confine.off))
	for i, l := range p.confine.off {
		names[i] = l.Name
	}
	return names
}

// tries takes a starting worker's word for which layer it puts on now.
func (w *proc) tries(layer string) error {
	w.pool.mu.Lock()
	defer w.pool.mu.Unlock()
	if w.state == ready {
		return fmt.Errorf("%w: after it was ready", frame.ErrBreach)
	}
	w.trying = layer
	return nil
}

// confined takes the layers of a worker that is ready, and warns of those that are not on, once.
func (p *Pool) confined(shell, own []frame.Layer) {
	c := &p.confine
	layers := append(append(append([]frame.Layer{}, shell...), own...), c.off...)
	p.stats.Layers = layers
	if c.proven {
		return
	}
	c.proven = true
	var missing []string
	for _, l := range layers {
		if l.State != frame.On {
			missing = append(missing, fmt.Sprintf("%s is %s (%s)", l.Name, l.State, l.Why))
		}
	}
	if len(missing) > 0 {
		p.opts.Log.Warn("workers are less confined than they could be: perigee doctor says more", "layers", strings.Join(missing, "; "))
	}
}

// Layers waits at most so long for a first worker to be ready, and returns how it is confined. The error says why there is none.
func (p *Pool) Layers(ctx context.Context, wait time.Duration) ([]frame.Layer, error) {
	deadline := time.Now().Add(wait)
	for {
		s := p.Stats()
		switch {
		case len(s.Layers) > 0:
			return s.Layers, nil
		case time.Now().After(deadline) && s.StartError != "":
			return nil, fmt.Errorf("a worker cannot be started: %s", s.StartError)
		case time.Now().After(deadline):
			return nil, fmt.Errorf("no worker was ready after %v", wait)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
}
