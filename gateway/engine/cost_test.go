package engine

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/drivers"
	"github.com/perigee-iot/perigee/functions/bundle"
	"github.com/perigee-iot/perigee/functions/sandbox"
	"github.com/perigee-iot/perigee/functions/worker"
	"github.com/perigee-iot/perigee/internal/event"
)

func TestMain(m *testing.M) {
	worker.MainIfWorker()
	os.Exit(m.Run())
}

// small is what most functions are: it decodes JSON, reads and writes one state value, and publishes.
var small = map[string][]byte{
	"function.yaml": []byte("name: small\ntriggers: [{mqtt: \"in/{room}\"}]\nkey: \"{room}\"\npermissions: {publish: [out/#]}\n"),
	"main.lua": []byte(`return function(event)
  local n = state.get("n", 0) + 1
  state.set("n", n)
  publish("out/" .. event.params.room, {n = n, t = event.data.temperature})
end`),
}

// BenchmarkCost measures the CPU of a small function, in the gateway and a real worker process together: as fast as it goes with 64 on
// their way, and at an even 1,000 a second, where waking up costs more than the work.
//
//	go test -run xxx -bench 'Cost|Bare' ./gateway/engine ./functions/script
func BenchmarkCost(b *testing.B) {
	b.Run("64-in-flight", func(b *testing.B) { cost(b, 64, 0) })
	b.Run("1000-a-second", func(b *testing.B) { cost(b, 64, time.Millisecond) })
}

// cost runs events with so many on their way, a gap apart.
func cost(b *testing.B, flight int, gap time.Duration) {
	r := newRig(b)
	exe, err := os.Executable()
	require.NoError(b, err)
	pool, err := sandbox.New(sandbox.Options{Command: []string{exe, worker.Name}, Max: 1, Warm: 1, OnRoom: r.e.Pump, Log: slog.New(slog.DiscardHandler)})
	require.NoError(b, err)
	r.e.Use(pool)
	bn, err := bundle.FromFiles(small, "")
	require.NoError(b, err)
	require.NoError(b, r.e.Install(context.Background(), &Deployment{Bundle: bn, Env: []byte("{}")}, Active, ""))
	r.start()

	slots := make(chan struct{}, flight)
	offer := func(i int) {
		slots <- struct{}{}
		topic := fmt.Sprintf("in/%d", i%flight)
		d := drivers.Delivery{Event: &event.Event{Source: "mqtt", Type: event.Message, Subject: topic, Topic: topic, Data: []byte(`{"temperature":21.5,"humidity":40}`)},
			Mark: drivers.Mark("s", uint16(i)), Ack: func(error) { <-slots }}
		if err := r.e.Offer(context.Background(), d); err != nil {
			b.Fatal(err)
		}
	}
	before := cpu(b)
	next := time.Now()
	b.ResetTimer()
	for i := range b.N {
		if next = next.Add(gap); gap > 0 {
			time.Sleep(time.Until(next))
		}
		offer(i)
	}
	for range flight {
		slots <- struct{}{}
	}
	b.StopTimer()
	r.stop()
	pool.Close() // a worker's time is known when it has ended; that it began is part of it
	b.ReportMetric(float64((cpu(b)-before).Microseconds())/float64(b.N), "cpu-µs/event")
}

// cpu is the time of this process and of the workers that have ended.
func cpu(b *testing.B) (sum time.Duration) {
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var u syscall.Rusage
		require.NoError(b, syscall.Getrusage(who, &u))
		sum += time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	return sum
}
