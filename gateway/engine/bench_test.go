package engine

import (
	"context"
	"fmt"
	"testing"

	"github.com/perigee-iot/perigee/drivers"
	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/functions/sandbox"
	"github.com/perigee-iot/perigee/internal/event"
)

// instantPool answers at once, in the caller's goroutine: what is left is the engine's own cost.
type instantPool struct{ body body }

func (p *instantPool) Room() int { return 1 }

func (p *instantPool) Takes(*functions.Bundle) bool { return true }

func (p *instantPool) Submit(jobs ...sandbox.Job) {
	for _, j := range jobs {
		o := p.body(j.Inv, j.Ask)
		o.ID = j.Inv.ID
		j.Done(o)
	}
}

// BenchmarkEvent is one message through one function with state, a publish and a record, committed under crash.
func BenchmarkEvent(b *testing.B) {
	r := newRig(b)
	n := 0
	r.fn(counter, nil)
	r.e.Use(&instantPool{body: func(*functions.Invocation, func(functions.Read) functions.ReadAnswer) *functions.Outcome {
		n++
		v := fmt.Appendf(nil, "%d", n)
		return ok(functions.Effect{Kind: functions.SetState, Name: "n", Value: v},
			functions.Effect{Kind: functions.Publish, Name: "out/a", Value: v, QoS: 1},
			functions.Effect{Kind: functions.Append, Name: "log", Value: v})
	}})
	r.start()
	acked := make(chan struct{}, 1)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		d := drivers.Delivery{Event: &event.Event{Source: "mqtt", Type: event.Message, Subject: "in/a", Topic: "in/a", Data: []byte(`{"temperature":21}`)},
			Mark: drivers.Mark("s", uint16(i)), Ack: func(error) { acked <- struct{}{} }}
		if err := r.e.Offer(context.Background(), d); err != nil {
			b.Fatal(err)
		}
		<-acked
	}
}
