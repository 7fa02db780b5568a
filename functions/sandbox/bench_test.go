package sandbox

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/perigee-iot/perigee/functions"
)

// BenchmarkRoundTrip hands over a small invocation and takes its outcome, with so many in flight.
func BenchmarkRoundTrip(b *testing.B) {
	for _, flight := range []int{1, 8, 64} {
		for _, kind := range []string{"echo", "lua"} {
			b.Run(fmt.Sprintf("%s-%d", kind, flight), func(b *testing.B) {
				mode := "honest"
				p := newPool(b, mode, func(o *Options) { o.Max, o.Depth = 1, max(16, flight) })
				change := func(*Job) {}
				if kind == "lua" {
					p = realPool(b, func(o *Options) { o.Max, o.Depth = 1, max(16, flight) })
					change = with(double, time.Second)
				}
				run(b, p, "1", change)
				slots := make(chan struct{}, flight)
				b.ReportAllocs()
				for b.Loop() {
					slots <- struct{}{}
					j := job("1", func(o *functions.Outcome) {
						if o.Fault != nil {
							b.Error(o.Fault)
						}
						<-slots
					})
					change(&j)
					p.Submit(j)
				}
				for range flight {
					slots <- struct{}{}
				}
			})
		}
	}
}

// BenchmarkSpawn is the time from nothing to the first outcome.
func BenchmarkSpawn(b *testing.B) {
	var took []time.Duration
	for b.Loop() {
		p := realPool(b, func(o *Options) { o.Warm = 0 })
		began := time.Now()
		run(b, p, "1", with(double, time.Second))
		took = append(took, time.Since(began))
		p.Close()
	}
	reportMedian(b, took)
}

// BenchmarkCold is the first invocation of a function on a worker that is there already: its source is sent and compiled.
func BenchmarkCold(b *testing.B) {
	p := realPool(b, func(o *Options) { o.Max = 1 })
	run(b, p, "1", with(double, time.Second))
	var took []time.Duration
	for i := 0; b.Loop(); i++ {
		cold := lua(fmt.Sprintf(`
local function mean(list)
  local sum = 0
  for _, v in ipairs(list) do sum = sum + v end
  return sum / #list
end
return function(event)
  if type(event.data) == "number" then return mean({event.data, %d}) end
  log("nothing to do for " .. tostring(event.topic))
end`, i))
		began := time.Now()
		run(b, p, "1", with(cold, time.Second))
		took = append(took, time.Since(began))
	}
	reportMedian(b, took)
}

func reportMedian(b *testing.B, took []time.Duration) {
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
}

// BenchmarkKill is the time from a kill to the next outcome.
func BenchmarkKill(b *testing.B) {
	p := realPool(b, nil)
	for b.Loop() {
		run(b, p, "1", func(j *Job) { with(double, time.Second)(j) })
		p.mu.Lock()
		p.kill(p.workers[0], causeStop)
		p.mu.Unlock()
		run(b, p, "1", with(double, time.Second))
	}
}
