// Package schedule is the source of ticks for "every" triggers. One goroutine serves all periods.
//
// A tick comes one period after its entry was set, then every period, by the monotonic clock: setting the wall clock moves
// nothing. Ticks that fall due while the gateway is busy or stalled are folded into one, which says in its data how many
// were missed; there are no bursts.
package schedule

import (
	"container/heap"
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/perigee-iot/perigee/drivers"
	"github.com/perigee-iot/perigee/internal/event"
)

// Schedule is a drivers.Source of ticks.
type Schedule struct {
	missed  atomic.Int64
	changed chan struct{} // holds one token when Run must look at the entries again

	mu      sync.Mutex // guards what follows
	entries map[string]*entry
	queue   queue // the same entries, the next due one first
}

// entry is one period.
type entry struct {
	name  string
	every time.Duration
	due   time.Time // zero until Run has seen it
	index int       // in the queue
}

// New returns a schedule without entries.
func New() *Schedule {
	return &Schedule{changed: make(chan struct{}, 1), entries: map[string]*entry{}}
}

// Set makes entries the set of periods. A key is the name of a function, which becomes the subject of its ticks; for
// a function with several periods the further keys have "#2", "#3" appended. Entries whose period stays
// keep their rhythm. Periods of zero or less are left out. Set may be called at any time.
func (s *Schedule) Set(entries map[string]time.Duration) {
	s.mu.Lock()
	for name, e := range s.entries {
		if entries[name] != e.every {
			heap.Remove(&s.queue, e.index)
			delete(s.entries, name)
		}
	}
	for name, every := range entries {
		if s.entries[name] == nil && every > 0 {
			e := &entry{name: name, every: every}
			s.entries[name] = e
			heap.Push(&s.queue, e)
		}
	}
	s.mu.Unlock()
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// Missed returns how many ticks were folded into later ones since the start.
func (s *Schedule) Missed() int64 { return s.missed.Load() }

// Run emits ticks until ctx ends.
func (s *Schedule) Run(ctx context.Context, emit drivers.Emit) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		e, missed, wait := s.next(time.Now())
		if e != nil {
			if err := emit(ctx, drivers.Delivery{Event: tick(e, missed)}); err != nil {
				if ctx.Err() != nil {
					return nil
				}
				return fmt.Errorf("schedule: %w", err)
			}
			continue
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return nil
		case <-s.changed:
		case <-timer.C:
		}
	}
}

// next returns the entry that is due and moves it to its next time, or how long to wait for one.
func (s *Schedule) next(now time.Time) (due *entry, missed int64, wait time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.queue) > 0 && s.queue[0].due.IsZero() {
		s.queue[0].due = now.Add(s.queue[0].every)
		heap.Fix(&s.queue, 0)
	}
	if len(s.queue) == 0 {
		return nil, 0, time.Hour
	}
	e := s.queue[0]
	if late := now.Sub(e.due); late >= 0 {
		missed = int64(late / e.every)
		s.missed.Add(missed)
		e.due = e.due.Add(time.Duration(missed+1) * e.every)
		heap.Fix(&s.queue, 0)
		return e, missed, 0
	}
	return nil, 0, e.due.Sub(now)
}

func tick(e *entry, missed int64) *event.Event {
	function, _, _ := strings.Cut(e.name, "#")
	return &event.Event{
		Source:  "schedule",
		Type:    event.Tick,
		Subject: function,
		Data:    fmt.Appendf(nil, `{"every":%g,"missed":%d}`, e.every.Seconds(), missed),
	}
}

// queue is a heap by due time; entries not seen yet come first.
type queue []*entry

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].due.Before(q[j].due) }
func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}

// Push is for container/heap.
func (q *queue) Push(x any) {
	e := x.(*entry)
	e.index = len(*q)
	*q = append(*q, e)
}

// Pop is for container/heap.
func (q *queue) Pop() any {
	last := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return last
}
