package demo

import (
	"context"
	"sync"

	"github.com/perigee-iot/perigee/gateway/screen"
)

// crew starts the demo's goroutines, so that a panic in any of them gives the terminal back before it ends the process. A nil crew
// has no terminal to give back.
type crew struct {
	mu     sync.Mutex
	screen *screen.Screen // nil: there is none
}

// show says which screen is to be given back.
func (c *crew) show(s *screen.Screen) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.screen = s
}

// start runs fn in a goroutine that wait waits for.
func (c *crew) start(wait *sync.WaitGroup, fn func()) {
	wait.Go(func() {
		defer c.restore()
		fn()
	})
}

// run runs functions until the function returned is called, which waits until they have ended.
func (c *crew) run(ctx context.Context, fns ...func(ctx context.Context)) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	wait := &sync.WaitGroup{}
	for _, fn := range fns {
		c.start(wait, func() { fn(ctx) })
	}
	return func() {
		cancel()
		wait.Wait()
	}
}

// restore, deferred, gives the terminal back if a panic is on its way, and lets it go on.
func (c *crew) restore() {
	v := recover()
	if v == nil {
		return
	}
	if c != nil {
		c.mu.Lock()
		s := c.screen
		c.mu.Unlock()
		if s != nil {
			s.Close()
		}
	}
	panic(v)
}
