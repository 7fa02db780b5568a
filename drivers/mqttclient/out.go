package mqttclient

import (
	"context"
	"fmt"
	"sync"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"github.com/perigee-iot/perigee/drivers"
)

// inFlight is how many publishes may be without their acknowledgement.
const inFlight = 256

// publisher is the connection that publishes. It has no session: what was not acknowledged when it ends is not known to
// have arrived, and the caller sends it again on the next one.
type publisher struct {
	run  *run
	link *link

	mu      sync.Mutex // one publish at a time, in the order of the calls
	pending []*receipt // in order; the acknowledged ones at its head have not been looked at yet
	once    *receipt   // the last one of QoS 2, or nil
}

// receipt is a publish under way.
type receipt struct {
	run   *run
	token mqtt.Token
}

// openPublisher connects the publisher.
func (r *run) openPublisher() (*publisher, error) {
	l, err := r.c.connect(r.ctx, linkOptions{id: r.c.opts.ClientID + "-out", clean: true, failed: r.fail})
	if err != nil {
		return nil, err
	}
	return &publisher{run: r, link: l}, nil
}

// publish sends a message once there is room for it.
func (p *publisher) publish(ctx context.Context, m drivers.Message) (drivers.Receipt, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		for len(p.pending) > 0 && p.pending[0].done() {
			p.pending[0] = nil
			p.pending = p.pending[1:]
		}
		if len(p.pending) < inFlight {
			break
		}
		if err := p.pending[0].Wait(ctx); err != nil {
			return nil, err
		}
	}
	if m.QoS == 2 && p.once != nil {
		// One at a time: Mosquitto (2.0.11) acknowledges more of them than its max_inflight_messages, and drops the surplus.
		if err := p.once.Wait(ctx); err != nil {
			return nil, err
		}
	}
	if p.run.ctx.Err() != nil {
		return nil, p.run.gone()
	}
	r := &receipt{run: p.run, token: p.link.paho.Publish(m.Topic, m.QoS, m.Retain, m.Payload)}
	if r.done() && r.token.Error() != nil {
		// Whatever comes next would overtake this message.
		p.run.fail(r.token.Error())
		return nil, p.run.gone()
	}
	p.pending = append(p.pending, r)
	if m.QoS == 2 {
		p.once = r
	}
	return r, nil
}

func (r *receipt) done() bool {
	select {
	case <-r.token.Done():
		return true
	default:
		return false
	}
}

// Wait returns nil once the broker has acknowledged the message on the connection that it was sent on (for QoS 0: once
// it was written to it). An error that wraps drivers.ErrNotConnected says that nobody knows what became of it.
func (r *receipt) Wait(ctx context.Context) error {
	select {
	case <-r.token.Done():
	default:
		select {
		case <-r.token.Done():
		case <-r.run.ctx.Done():
			return r.run.gone()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	// The token belongs to a client that lives no longer than its connection and resumes nothing, so that only the
	// broker's answer completes it without an error.
	if err := r.token.Error(); err != nil {
		return fmt.Errorf("%w: %w", drivers.ErrNotConnected, err)
	}
	return nil
}
