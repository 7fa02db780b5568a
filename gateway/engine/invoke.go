package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/functions/rules"
	"github.com/perigee-iot/perigee/internal/event"
)

// Request is an event made by hand for one function.
type Request struct {
	Data   []byte
	Topic  string
	Params map[string]string
	Key    *string
}

// Report is what became of it.
type Report struct {
	EventID string
	Outcome string // committed, dead
	Fault   *functions.Fault
	Result  []byte
	Effects []string
	Logs    []functions.LogLine
	Usage   functions.Usage
}

// Invoke runs a function on an event made by hand and waits for its durable outcome. It takes its place in the order of its key. If the
// disk has no room for the outcome, or for one before it, it gives up at once with an error that wraps store.ErrFull: nobody but the
// caller has this event.
func (e *Engine) Invoke(ctx context.Context, name string, r Request) (*Report, error) {
	e.mu.Lock()
	f := e.fns[name]
	var waits string
	var spec *functions.Spec
	if f != nil {
		waits, spec = f.waitsFor(), f.dep.spec()
	}
	e.mu.Unlock()
	if f == nil {
		return nil, fmt.Errorf("there is no function %q", name)
	}
	if waits != "" {
		return nil, fmt.Errorf("function %s, and does not run", waits)
	}
	ev := r.event(name, spec)
	if why := e.unacceptable(ev); why != "" {
		return nil, errors.New(why)
	}
	e.stamp(ev)
	life := e.lives.add(ev)
	key, err := rules.KeyOf(spec, ev, r.Params)
	if err != nil {
		return nil, err
	}
	got := make(chan *outcomeReport, 1)
	j := &job{fn: f, ev: ev, key: key, params: r.Params, size: len(ev.Data) + 256, life: life, order: e.seq.next(), since: e.clock.Now(),
		waiter: func(o *outcomeReport) { got <- o }}
	e.counts.received.Add(1)
	e.start([]*job{j})
	look := time.NewTicker(invokeLooks)
	defer look.Stop()
	for {
		select {
		case o := <-got:
			if o.err != nil {
				return nil, fmt.Errorf("event %s has no outcome: %w", o.event, o.err)
			}
			return o.report(e.opt.Secrets), nil
		case <-look.C:
			if err := e.withdraw(j); err != nil {
				return nil, fmt.Errorf("event %s did not run, since the one before it has no outcome: %w", ev.ID, err)
			}
		case <-ctx.Done():
			return nil, fmt.Errorf("event %s still waits for its outcome: %w", ev.ID, ctx.Err())
		}
	}
}

// event makes the event that a request asks for, and finds its params if they follow from the topic.
func (r *Request) event(name string, spec *functions.Spec) *event.Event {
	ev := &event.Event{Source: "invoke", Type: event.Invoke, Subject: name, Data: r.Data, Topic: r.Topic}
	if r.Topic != "" {
		ev.Type, ev.Subject = event.Message, r.Topic
		if r.Params == nil {
			r.Params = paramsOf(spec, r.Topic)
		}
	}
	if r.Key != nil {
		ev.Key, ev.HasKey = *r.Key, true
	}
	return ev
}

// invokeLooks is how often Invoke looks whether its event waits for the disk.
const invokeLooks = 500 * time.Millisecond

// withdraw takes a job back that waits behind one whose outcome the disk has no room for, and returns why. Nil: it does not.
func (e *Engine) withdraw(j *job) error {
	e.mu.Lock()
	f, l := j.fn, j.lane
	if l == nil || j.active || l.refused == nil {
		e.mu.Unlock()
		return nil
	}
	why := l.refused
	e.unqueue(j)
	e.mu.Unlock()
	j.life.outcome(f, "dropped", why.Error())
	return why
}

// giveUp ends a job that nobody but its waiter has.
func (e *Engine) giveUp(j *job, why error) {
	e.mu.Lock()
	e.finished(j)
	e.mu.Unlock()
	j.life.outcome(j.fn, "dropped", why.Error())
	j.waiter(&outcomeReport{event: j.ev.ID, err: why})
}

func (o *outcomeReport) report(s Secrets) *Report {
	r := &Report{EventID: o.event, Outcome: o.verdict.what, Fault: o.verdict.fault, Usage: o.outcome.Usage, Logs: o.outcome.Logs}
	if o.verdict.what == "committed" {
		r.Result = o.outcome.Result
		for i := range o.outcome.Effects {
			r.Effects = append(r.Effects, describe(s, &o.outcome.Effects[i]))
		}
	}
	return r
}

// paramsOf finds the params that a topic has in one of a function's triggers.
func paramsOf(spec *functions.Spec, name string) map[string]string {
	var found map[string]string
	t := newRoutes()
	f := &function{dep: &Deployment{Bundle: &functions.Bundle{Spec: spec}}}
	for i := range spec.Triggers {
		t.add(&route{fn: f, trigger: &spec.Triggers[i]})
	}
	t.match(&event.Event{Type: event.Message, Topic: name}, func(_ *route, p map[string]string, _ *event.Event) { found = p })
	return found
}
