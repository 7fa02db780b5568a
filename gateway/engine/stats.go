package engine

import (
	"context"
	"fmt"
	"math/bits"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/functions/state"
	"github.com/perigee-iot/perigee/functions/usage"
	"github.com/perigee-iot/perigee/internal/store"
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
	wrote     atomic.Int64 // bytes given to the store

	mu     sync.Mutex
	runs   int64
	ok     int64
	faults map[string]int64
	cpu    time.Duration
	busy   time.Duration // wall time of all invocations
	in     int64
	out    int64
	wall   histogram
	memory recent
	last   *functions.Fault
}

// recent is the highest of the values of the last minute or two.
type recent struct {
	minute   int64
	now, was int64
}

func (r *recent) at(minute int64) {
	switch minute - r.minute {
	case 0:
		return
	case 1:
		r.was = r.now
	default:
		r.was = 0
	}
	r.minute, r.now = minute, 0
}

func (r *recent) add(minute, v int64) {
	r.at(minute)
	r.now = max(r.now, v)
}

func (r *recent) highest(minute int64) int64 {
	r.at(minute)
	return max(r.now, r.was)
}

func minuteOf(now time.Duration) int64 { return int64(now / time.Minute) }

func (s *stats) add(x *usage.Sample, f *functions.Fault, now time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.runs++
	s.cpu += x.CPU
	s.busy += x.Wall
	s.in += x.In
	s.out += x.Out
	s.wall.add(x.Wall)
	s.memory.add(minuteOf(now), x.Memory)
	if f == nil {
		s.ok++
		return
	}
	s.fault(f)
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

// meter counts an invocation that has been judged.
func (e *Engine) meter(j *job, o *functions.Outcome) {
	s := usage.SampleOf(len(j.ev.Data), o)
	j.fn.stats.add(&s, o.Fault, e.clock.Now())
	e.usage.Add(j.fn.Name, j.dep.Bundle.Digest, &s)
}

// wrote counts what was given to the store on behalf of a function.
func (e *Engine) wrote(f *function, d *Deployment, bytes int64) {
	f.stats.wrote.Add(bytes)
	e.usage.Wrote(f.Name, d.Bundle.Digest, bytes)
}

func openUsage(o Options) (*usage.Book, error) {
	return usage.Open(usage.Options{Store: o.Store, Clock: o.Clock, Log: o.Log, With: o.Clock.put,
		StateSize: func(r store.Reader, fn string) int64 {
			t, _ := state.Size(r, fn) // what is wrong with it is said where it is verified
			return t.Bytes
		}})
}

// foldEvery is how often usage is written: the most of it that a kill or a power cut can lose.
const foldEvery = time.Minute

// foldUsage writes usage from time to time until ctx ends.
func (e *Engine) foldUsage(ctx context.Context) {
	tick := time.NewTicker(foldEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			e.foldNow()
		}
	}
}

func (e *Engine) foldNow() {
	if err := e.usage.Fold(); err != nil {
		e.log.Debug("usage stays in memory for now", "error", err)
	}
}

// Usage reads what functions have cost.
func (e *Engine) Usage(q usage.Query) ([]usage.Row, error) {
	rows, err := e.usage.Query(q)
	if err != nil {
		return nil, fmt.Errorf("read the usage of functions: %w", err)
	}
	return rows, nil
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
