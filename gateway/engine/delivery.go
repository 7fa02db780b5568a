package engine

import (
	"strings"
	"sync"
	"sync/atomic"
)

// delivery is one event as its source gave it. The source is acknowledged when every function that the event matched
// has a durable outcome or a durable inbox entry.
type delivery struct {
	mark   string // empty: its sender never repeats it
	digest uint64 // of topic and payload, if it is marked
	engine *Engine
	left   atomic.Int32

	mu   sync.Mutex
	ack  func(error) // the newest: after a lost connection only that one reaches the sender
	done bool
}

// settled counts one function off.
func (d *delivery) settled() {
	if d == nil || d.left.Add(-1) != 0 {
		return
	}
	d.engine.counts.accepted.Add(1)
	d.engine.marked.remove(d)
	d.mu.Lock()
	d.done = true
	ack := d.ack
	d.mu.Unlock()
	if ack != nil {
		ack(nil)
	}
}

// join takes over the acknowledgement of a repetition of a delivery that is not settled yet. False: it is settled.
func (d *delivery) join(ack func(error)) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.done {
		d.ack = ack
	}
	return !d.done
}

// markedDeliveries are the deliveries that are not settled yet and may be repeated, by their marks. There are as many
// as senders may have unacknowledged.
type markedDeliveries struct {
	mu sync.Mutex
	by map[string]*delivery
}

func (m *markedDeliveries) add(d *delivery) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.by == nil {
		m.by = map[string]*delivery{}
	}
	m.by[d.mark] = d
}

func (m *markedDeliveries) remove(d *delivery) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.by[d.mark] == d {
		delete(m.by, d.mark)
	}
}

func (m *markedDeliveries) get(mark string) *delivery {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.by[mark]
}

// forget drops the marks of a session that its sender has forgotten.
func (m *markedDeliveries) forget(session string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for mark := range m.by {
		if strings.HasPrefix(mark, session+"\x00") {
			delete(m.by, mark)
		}
	}
}
