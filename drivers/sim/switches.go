package sim

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/perigee-iot/perigee/drivers"
	"github.com/perigee-iot/perigee/internal/units"
	"github.com/perigee-iot/perigee/internal/yamlfile"
)

// maxPresses is how many presses wait while the gateway is busy.
const maxPresses = 16

// button emits {"action": "single"} when it is pressed: by itself, and by what is written to it.
type button struct {
	name    string
	every   time.Duration // 0: never by itself
	presses chan string
}

func newButton(name string, n yamlfile.Node) (*button, error) {
	var c struct {
		Every units.Duration `yaml:"every"`
	}
	if err := n.Decode(&c); err != nil {
		return nil, err
	}
	if c.Every != 0 && c.Every < minEvery {
		return nil, n.Errorf("every %v is too often; at least %v", c.Every, minEvery)
	}
	return &button{name: name, every: time.Duration(c.Every), presses: make(chan string, maxPresses)}, nil
}

// Run emits presses.
func (b *button) Run(ctx context.Context, emit drivers.Emit) error {
	var tick <-chan time.Time
	if b.every > 0 {
		t := time.NewTicker(b.every)
		defer t.Stop()
		tick = t.C
	}
	for {
		action := "single"
		select {
		case <-ctx.Done():
			return nil
		case <-tick:
		case action = <-b.presses:
		}
		if done, err := send(ctx, emit, b.name, drivers.Fields{"action": action}); done {
			return err
		}
	}
}

// Write presses the button. A text is the action, such as "double"; false and nil press nothing.
func (b *button) Write(_ context.Context, value any) error {
	action := "single"
	switch v := value.(type) {
	case nil:
		return nil
	case bool:
		if !v {
			return nil
		}
	case string:
		action = v
	case float64:
	default:
		return fmt.Errorf("%w: a button takes true or the name of an action", drivers.ErrRefused)
	}
	select {
	case b.presses <- action:
		return nil
	default:
		return fmt.Errorf("device %s: %d presses wait already", b.name, maxPresses)
	}
}

// toggle is an output: it remembers what was written and emits what changed.
type toggle struct {
	name    string
	initial bool
	changed chan struct{} // holds one token when the state may differ from what was emitted

	mu sync.Mutex
	on bool
}

func newSwitch(name string, n yamlfile.Node) (*toggle, error) {
	s := &toggle{name: name, changed: make(chan struct{}, 1)}
	switch n.Text() {
	case "on", "true":
		s.initial = true
	case "off", "false":
	default:
		return nil, n.Errorf("must be on or off, how it is at the start")
	}
	s.on = s.initial
	return s, nil
}

// Run emits {"state": true} or false at every change; changes that come faster than the gateway takes them are folded.
func (s *toggle) Run(ctx context.Context, emit drivers.Emit) error {
	last := s.state()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.changed:
		}
		if now := s.state(); now != last {
			last = now
			if done, err := send(ctx, emit, s.name, drivers.Fields{"state": now}); done {
				return err
			}
		}
	}
}

func (s *toggle) state() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.on
}

// Read returns the state.
func (s *toggle) Read(context.Context) (drivers.Fields, error) {
	return drivers.Fields{"state": s.state()}, nil
}

// Write takes true or false; nil is the state at the start.
func (s *toggle) Write(_ context.Context, value any) error {
	on := s.initial
	switch v := value.(type) {
	case nil:
	case bool:
		on = v
	default:
		return fmt.Errorf("%w: a switch takes true or false", drivers.ErrRefused)
	}
	s.mu.Lock()
	s.on = on
	s.mu.Unlock()
	select {
	case s.changed <- struct{}{}:
	default:
	}
	return nil
}
