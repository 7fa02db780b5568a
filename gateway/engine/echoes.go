package engine

import (
	"sync"
	"time"

	"github.com/perigee-iot/perigee/internal/event"
)

// echoes remember what functions have published on an external broker, since a message comes back from there without the length of the
// chain that it belongs to. One that is the same as what was published a moment ago goes on with its chain, so that a circle ends.
type echoes struct {
	mu   sync.Mutex
	next int
	ring [echoCount]echo
}

type echo struct {
	digest uint64
	chain  uint16 // 0: an empty place
	at     time.Duration
}

const (
	echoCount = 512
	echoAge   = 30 * time.Second
)

// note remembers a message that a chain has led to.
func (s *echoes) note(topic string, payload []byte, chain uint16, now time.Duration) {
	d := digest([]byte(topic), payload)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ring[s.next] = echo{d, chain, now}
	s.next = (s.next + 1) % echoCount
}

// chainOf is the length of the chain that a message belongs to: of the newest that was published like this.
func (s *echoes) chainOf(ev *event.Event, now time.Duration) uint16 {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := (s.next + echoCount - 1) % echoCount
	if newest := s.ring[at]; newest.chain == 0 || now-newest.at > echoAge {
		return 0 // nothing was published lately
	}
	d := digest([]byte(ev.Topic), ev.Data)
	for range echoCount {
		e := s.ring[at]
		if e.chain == 0 || now-e.at > echoAge {
			return 0
		}
		if e.digest == d {
			return e.chain
		}
		at = (at + echoCount - 1) % echoCount
	}
	return 0
}
