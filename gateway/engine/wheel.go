package engine

import (
	"container/heap"
	"context"
	"sync"
	"time"
)

// wheel calls functions at their time on the gateway's clock. One goroutine calls them, one after another; they may take
// the engine's lock and update the store, but must not wait for anything else.
type wheel struct {
	now func() time.Duration

	mu    sync.Mutex
	heap  entries
	added uint64
	woken chan struct{} // capacity 1: something earlier was added
}

// entry is one call to come.
type entry struct {
	due   time.Duration
	added uint64 // what is due at the same time is called in the order in which it was added
	fn    func()
	index int // in the heap, -1 outside
}

func newWheel(now func() time.Duration) *wheel {
	return &wheel{now: now, woken: make(chan struct{}, 1)}
}

// add has fn called at due, or at once if that is past.
func (w *wheel) add(due time.Duration, fn func()) *entry {
	e := &entry{due: due, fn: fn}
	w.mu.Lock()
	w.added++
	e.added = w.added
	heap.Push(&w.heap, e)
	first := e.index == 0
	w.mu.Unlock()
	if first {
		select {
		case w.woken <- struct{}{}:
		default:
		}
	}
	return e
}

// cancel forgets an entry; one that has been called already, or nil, is fine.
func (w *wheel) cancel(e *entry) {
	if e == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if e.index >= 0 {
		heap.Remove(&w.heap, e.index)
	}
}

func (w *wheel) len() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.heap)
}

// run calls what is due until ctx ends.
func (w *wheel) run(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		wait := time.Hour
		for {
			fn, next := w.due()
			if fn == nil {
				wait = min(wait, next)
				break
			}
			fn()
			if ctx.Err() != nil {
				return
			}
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return
		case <-w.woken:
		case <-timer.C:
		}
	}
}

// due takes what is due now out of the heap, or says how long that will take.
func (w *wheel) due() (fn func(), wait time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.heap) == 0 {
		return nil, time.Hour
	}
	if wait := w.heap[0].due - w.now(); wait > 0 {
		return nil, wait
	}
	return heap.Pop(&w.heap).(*entry).fn, 0
}

// entries implements container/heap.
type entries []*entry

func (h entries) Len() int { return len(h) }
func (h entries) Less(i, j int) bool {
	return h[i].due < h[j].due || h[i].due == h[j].due && h[i].added < h[j].added
}
func (h entries) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

// Push is for container/heap.
func (h *entries) Push(x any) {
	e := x.(*entry)
	e.index = len(*h)
	*h = append(*h, e)
}

// Pop is for container/heap.
func (h *entries) Pop() any {
	old := *h
	e := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	e.index = -1
	return e
}
