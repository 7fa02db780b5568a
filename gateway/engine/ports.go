package engine

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/perigee-iot/perigee/drivers"
	"github.com/perigee-iot/perigee/functions/rules"
	"github.com/perigee-iot/perigee/internal/event"
)

// brokerPort publishes.
type brokerPort struct {
	broker drivers.Broker
	engine *Engine
}

func (p *brokerPort) send(ctx context.Context, a *action) (drivers.Receipt, error) {
	if !p.broker.InProcess() {
		p.engine.echoes.note(a.topic, a.value, a.chain, p.engine.clock.Now())
	}
	return p.broker.Publish(ctx, drivers.Message{ID: a.id, Topic: a.topic, Payload: a.value, QoS: a.qos, Retain: a.retain})
}

// done routes what was published on the embedded broker to the functions that it matches; what went to another broker
// comes back by itself.
func (p *brokerPort) done(a *action) []*job {
	if !p.broker.InProcess() {
		return nil
	}
	ev := &event.Event{ID: a.id, Source: "mqtt", Type: event.Message, Subject: a.topic, Topic: a.topic, Data: a.value, Chain: a.chain}
	e := p.engine
	e.mu.Lock()
	wanted := e.routes.wants(ev)
	e.mu.Unlock()
	if !wanted {
		return nil
	}
	e.stamp(ev)
	return e.match(ev, e.lives.add(ev))
}

// devicePort writes one device.
type devicePort struct {
	device *drivers.Device

	mu    sync.Mutex
	last  any    // what was written last
	pulse *pulse // the value that is being held, if any
}

// deviceTimeout is how long one write may take.
const deviceTimeout = 5 * time.Second

func (p *devicePort) send(ctx context.Context, a *action) (drivers.Receipt, error) {
	v, err := rules.Scalar(a.value)
	if err != nil {
		return nil, nil // checked before it was journalled; a damaged entry is dropped
	}
	before := p.supersede()
	if err := p.write(ctx, v); err != nil {
		return nil, err
	}
	if a.hold <= 0 {
		return nil, nil
	}
	if b, ok := v.(bool); ok {
		before = !b
	}
	return p.hold(before, a.hold), nil
}

func (p *devicePort) write(ctx context.Context, v any) error {
	ctx, cancel := context.WithTimeout(ctx, deviceTimeout)
	defer cancel()
	if err := p.device.Actuator.Write(ctx, v); err != nil {
		return fmt.Errorf("write %.80v to device %q: %w", v, p.device.Name, err)
	}
	p.mu.Lock()
	p.last = v
	p.mu.Unlock()
	return nil
}

func (p *devicePort) done(*action) []*job { return nil }

// pulse is a value that goes back to the one before after a while. Its action counts as done only then: after a crash
// in between the pulse is repeated, and ends.
type pulse struct {
	timer  *time.Timer
	before any
	ended  chan struct{}
	once   sync.Once
}

func (q *pulse) end() { q.once.Do(func() { close(q.ended) }) }

// Wait returns when the pulse has ended.
func (q *pulse) Wait(ctx context.Context) error {
	select {
	case <-q.ended:
		return nil
	default:
	}
	select {
	case <-q.ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *devicePort) hold(before any, after time.Duration) *pulse {
	q := &pulse{before: before, ended: make(chan struct{})}
	p.mu.Lock()
	p.pulse = q
	q.timer = time.AfterFunc(after, func() { p.takeBack(q) })
	p.mu.Unlock()
	return q
}

// takeBack ends a pulse by writing the value from before it, unless a newer write has superseded it.
func (p *devicePort) takeBack(q *pulse) {
	p.mu.Lock()
	current := p.pulse == q
	if current {
		p.pulse = nil
	}
	p.mu.Unlock()
	if current {
		_ = p.write(context.Background(), q.before)
	}
	q.end()
}

// supersede ends a pulse without taking its value back, since another is about to be written. It returns what was
// written last.
func (p *devicePort) supersede() any {
	p.mu.Lock()
	q, last := p.pulse, p.last
	p.pulse = nil
	p.mu.Unlock()
	if q != nil {
		q.timer.Stop()
		q.end()
	}
	return last
}

// rest ends a pulse now, because the gateway stops.
func (p *devicePort) rest() {
	p.mu.Lock()
	q := p.pulse
	p.mu.Unlock()
	if q != nil && q.timer.Stop() {
		p.takeBack(q)
	}
}
