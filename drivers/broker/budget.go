package broker

import (
	"sync"

	mqtt "github.com/mochi-mqtt/server/v2"
)

// Bounds of what is on its way to subscribers with QoS 1 and 2, in bytes of payload. mochi counts messages only.
const (
	queuedBytes    = 2 << 20  // of one session
	allQueuedBytes = 16 << 20 // of all
)

// budget counts them. The zero budget is ready.
type budget struct {
	mu       sync.Mutex
	bytes    int
	sessions map[string]*queued
}

type queued struct {
	sizes map[uint16]int
	bytes int
	stale bool // mochi dropped something without saying what
}

func (b *budget) add(id string, packet uint16, n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	q := b.sessions[id]
	if q == nil {
		if b.sessions == nil {
			b.sessions = map[string]*queued{}
		}
		q = &queued{sizes: map[uint16]int{}}
		b.sessions[id] = q
	}
	b.put(q, packet, n)
}

func (b *budget) put(q *queued, packet uint16, n int) {
	d := n - q.sizes[packet]
	q.sizes[packet] = n
	q.bytes += d
	b.bytes += d
}

func (b *budget) remove(id string, packet uint16) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if q := b.sessions[id]; q != nil {
		b.put(q, packet, 0)
		delete(q.sizes, packet)
		if len(q.sizes) == 0 {
			delete(b.sessions, id)
		}
	}
}

func (b *budget) forget(id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if q := b.sessions[id]; q != nil {
		b.bytes -= q.bytes
		delete(b.sessions, id)
	}
}

func (b *budget) recount(cl *mqtt.Client) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if q := b.sessions[cl.ID]; q != nil {
		q.stale = true
	}
}

// hasRoom says whether more may be queued for a client.
func (s *serving) hasRoom(cl *mqtt.Client) bool {
	b := &s.budget
	b.mu.Lock()
	defer b.mu.Unlock()
	q := b.sessions[cl.ID]
	if q == nil {
		return b.bytes < allQueuedBytes
	}
	if q.stale && (q.bytes >= queuedBytes || b.bytes >= allQueuedBytes) {
		b.bytes -= q.bytes
		q.bytes, q.stale = 0, false
		clear(q.sizes)
		for _, pk := range cl.State.Inflight.GetAll(false) {
			b.put(q, pk.PacketID, len(pk.Payload))
		}
	}
	return q.bytes < queuedBytes && b.bytes < allQueuedBytes
}
