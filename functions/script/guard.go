package script

import (
	"context"
	"runtime"
	"runtime/metrics"
	"sync"
	"time"
)

// guardEvery is how often the memory of a run is sampled. A run that is over sooner costs one timer that never fires.
const guardEvery = 5 * time.Millisecond

// guard samples the heap while a script runs and ends the script's context once it holds more than its limit. It is a soft
// limit: what a single instruction allocates shows only afterwards. The worker process has a hard one.
type guard struct {
	base   int64 // bytes on the heap between runs, which do not count
	limit  int64
	cancel context.CancelFunc
	made   int64 // bytes of strings since the last sample that they caused

	mu    sync.Mutex // guards what follows, and is held while sampling, so that stop waits for a sample under way
	peak  int64
	over  int64
	done  bool
	timer *time.Timer
}

// start begins to sample; stop must be called.
func (g *guard) start(base, limit int64, cancel context.CancelFunc) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.base, g.limit, g.cancel = base, limit, cancel
	g.timer = time.AfterFunc(guardEvery, g.sample)
}

// stop ends the sampling and returns the highest use seen, 0 if none was.
func (g *guard) stop() int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.done = true
	g.timer.Stop()
	return g.peak
}

// exceeded is how much was used when it was too much, 0 if it never was.
func (g *guard) exceeded() int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.over
}

// grew counts the bytes of a string that the script has made, and samples at once when there were many: a few large ones would pass the hard
// limit of the process before the timer looks. It is for the goroutine that runs the script alone.
func (g *guard) grew(n int) {
	g.made += int64(n)
	if g.made > g.limit/4 {
		g.made = 0
		g.sample()
	}
}

func (g *guard) sample() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.done || g.over > 0 {
		return
	}
	used := readHeap("/memory/classes/heap/objects:bytes") - g.base
	for range 2 { // what is garbage does not count; it takes two rounds to empty a sync.Pool, in which the library keeps frames of calls
		if used > g.limit {
			runtime.GC()
			used = readHeap(liveHeap) - g.base
		}
	}
	g.peak = max(g.peak, used)
	if used > g.limit {
		g.over = used
		g.cancel()
		return
	}
	g.timer.Reset(guardEvery)
}

// liveHeap is the metric of the bytes that the last garbage collection found in use.
const liveHeap = "/gc/heap/live:bytes"

func readHeap(metric string) int64 {
	sample := []metrics.Sample{{Name: metric}}
	metrics.Read(sample)
	return int64(sample[0].Value.Uint64())
}

// idleHeap is what is in use now. It takes a garbage collection, and is for the times when a bundle was loaded.
func idleHeap() int64 {
	runtime.GC()
	return readHeap(liveHeap)
}
