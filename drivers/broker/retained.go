package broker

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/perigee-iot/perigee/drivers"
	"github.com/perigee-iot/perigee/internal/event"
	"github.com/perigee-iot/perigee/internal/topic"
)

// Bounds of the retained messages. A message for which there is no room is delivered, but not kept.
const (
	maxRetained   = 4096
	retainedBytes = 8 << 20 // of topics and payloads
)

// retained is the sizes of the retained messages by topic; the messages themselves are in mochi's index.
type retained struct {
	mu    sync.Mutex
	sizes map[string]int
	bytes int
}

func newRetained() *retained { return &retained{sizes: map[string]int{}} }

func (r *retained) len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.sizes)
}

func (r *retained) fits(name string, n int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	old, known := r.sizes[name]
	return n == 0 || (known || len(r.sizes) < maxRetained) && r.bytes-old+len(name)+n <= retainedBytes
}

func (r *retained) set(name string, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.bytes -= r.sizes[name]
	delete(r.sizes, name)
	if n > 0 {
		r.sizes[name] = len(name) + n
		r.bytes += len(name) + n
	}
}

func (s *serving) mayRetain(name string, n int) bool {
	if s.retained.fits(name, n) {
		return true
	}
	s.b.refuse(refusedRetained, "", "no room for another retained message: it is delivered, but not kept",
		"topic", name, "messages", s.retained.len(), "limit", maxRetained, "limit_bytes", retainedBytes)
	return false
}

// matching returns the retained messages that a filter selects, by topic.
func (s *serving) matching(filter string, into map[string]packets.Packet) {
	if !strings.ContainsAny(filter, "+#") {
		if pk, ok := s.mqtt.Topics.Retained.Get(filter); ok {
			into[filter] = pk
		}
		return
	}
	for name, pk := range s.mqtt.Topics.Retained.GetAll() {
		if topic.Match(filter, name) && !strings.HasPrefix(name, mqtt.SysPrefix) {
			into[name] = pk
		}
	}
}

// emitRetained emits the retained messages of filters, each once. A topic from which something newer waits is
// left out: the old value must not come after it.
func (s *serving) emitRetained(ctx context.Context, filters []string) error {
	found := map[string]packets.Packet{}
	for _, f := range filters {
		s.matching(f, found)
	}
	for _, name := range slices.Sorted(maps.Keys(found)) {
		if s.line.waits(name) {
			continue
		}
		if err := s.emit(ctx, drivers.Delivery{Event: s.event(name, found[name].Payload, true)}); err != nil {
			return err
		}
		s.b.count.taken.Add(1)
	}
	return nil
}

// Retained calls fn with the retained messages that filter selects, in the order of their topics, until it returns
// false. Before Listen there are none.
func (b *Broker) Retained(filter string, fn func(*event.Event) bool) {
	s := b.serving()
	if s == nil {
		return
	}
	found := map[string]packets.Packet{}
	s.matching(filter, found)
	for _, name := range slices.Sorted(maps.Keys(found)) {
		if !fn(s.event(name, found[name].Payload, true)) {
			return
		}
	}
}

// waits says whether a message to a topic waits to be accepted.
func (l *line) waits(name string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.sessions {
		for _, p := range s.queue {
			if p.pk.TopicName == name {
				return true
			}
		}
	}
	return false
}
