package engine

import (
	"math/bits"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/perigee-iot/perigee/functions"
)

// counts count since the gateway's start.
type counts struct {
	received        atomic.Int64
	accepted        atomic.Int64
	committed       atomic.Int64
	duplicates      atomic.Int64
	faults          atomic.Int64
	actionsDone     atomic.Int64
	actionsRepeated atomic.Int64

	mu      sync.Mutex
	refused map[string]int64
}

// refuse counts an event that the gateway would not have. The reason's numbers are left out, so that the reasons stay few.
func (c *counts) refuse(why string) {
	cause := "too large"
	if strings.HasPrefix(why, "its topic") {
		cause = "topic not UTF-8"
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refused == nil {
		c.refused = map[string]int64{}
	}
	c.refused[cause]++
}

// stats are what one function has done since the gateway's start.
type stats struct {
	conflicts atomic.Int64

	mu     sync.Mutex
	runs   int64
	ok     int64
	faults map[string]int64
	cpu    time.Duration
	wall   histogram
	last   *functions.Fault
}

func (s *stats) add(o *functions.Outcome) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.runs++
	s.cpu += o.Usage.CPU
	s.wall.add(o.Usage.Wall)
	if o.Fault == nil {
		s.ok++
		return
	}
	s.fault(o.Fault)
}

// failed turns a success into a fault: its effects could not be applied.
func (s *stats) failed(f *functions.Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ok--
	s.fault(f)
}

func (s *stats) fault(f *functions.Fault) {
	if s.faults == nil {
		s.faults = map[string]int64{}
	}
	s.faults[string(f.Kind)]++
	s.last = f
}

// histogram counts durations in buckets of a quarter of a power of two, from 1 µs: about 19 % wide.
type histogram struct {
	n       int64
	buckets [96]uint32
}

func (h *histogram) add(d time.Duration) {
	us := uint64(max(d.Microseconds(), 1))
	exp := bits.Len64(us) - 1
	quarter := 0
	if exp >= 2 {
		quarter = int(us>>(exp-2)) & 3
	}
	h.buckets[min(exp*4+quarter, len(h.buckets)-1)]++
	h.n++
}

// quantile returns the upper edge of the bucket in which the q-th part of the durations ends.
func (h *histogram) quantile(q float64) time.Duration {
	if h.n == 0 {
		return 0
	}
	want := int64(q*float64(h.n)) + 1
	var sum int64
	for i, n := range h.buckets {
		if sum += int64(n); sum >= min(want, h.n) {
			base := uint64(1) << (i / 4)
			return time.Duration(base+base*uint64(i%4+1)/4) * time.Microsecond
		}
	}
	return 0
}
