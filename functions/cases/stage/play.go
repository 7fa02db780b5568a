package stage

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/functions/cases"
	"github.com/perigee-iot/perigee/functions/rules"
	"github.com/perigee-iot/perigee/functions/state"
	"github.com/perigee-iot/perigee/internal/event"
	"github.com/perigee-iot/perigee/internal/store"
	"github.com/perigee-iot/perigee/internal/topic"
	"github.com/perigee-iot/perigee/internal/units"
)

// maxRuns bounds the invocations of one step: a timer that sets itself again and again, and a step that waits for a year.
const maxRuns = 10000

// play is one case under way.
type play struct {
	ctx  context.Context
	on   *Stage
	b    *functions.Bundle
	c    *cases.Case
	spec *functions.Spec

	mem      memory
	now      time.Time
	events   uint64 // so far
	seq      uint64 // of timers
	jobs     []*job // that wait, in order
	timers   map[timerID]timer
	readings map[string][]byte
	seen     map[string]string    // the last payload of each topic that was committed
	deduped  map[string]time.Time // when the window of a value ends

	did     *cases.Did // of the step under way
	lastKey string     // of the event that ran last
}

type timerID struct{ key, name string }

type timer struct {
	due   time.Time
	seq   uint64 // timers that are due at once fire in the order in which they were set
	chain uint16
}

// job is an event that waits for its turn.
type job struct {
	ev      *event.Event
	params  map[string]string
	key     string
	text    string
	own     bool
	attempt int
	seed    uint64
	due     time.Time // of a retry
}

func newPlay(ctx context.Context, s *Stage, b *functions.Bundle, c *cases.Case) (*play, error) {
	p := &play{ctx: ctx, on: s, b: b, c: c, spec: b.Spec, now: c.Given.Now, timers: map[timerID]timer{}, readings: map[string][]byte{},
		seen: map[string]string{}, deduped: map[string]time.Time{}, lastKey: c.Given.Key}
	g := &c.Given
	for _, d := range g.Devices {
		p.readings[d.Name] = d.JSON
	}
	for _, t := range g.Timers {
		p.set(timerID{g.Key, t.Name}, p.now.Add(t.In), 0)
	}
	err := p.mem.update(func(tx store.Tx) error {
		for _, v := range g.State {
			if err := state.Set(tx, state.Keyed(p.spec.Name, g.Key), v.Name, v.JSON, p.spec.Limits.State); err != nil {
				return err
			}
		}
		for _, v := range g.Shared {
			if err := state.Set(tx, state.Shared(p.spec.Name), v.Name, v.JSON, p.spec.Limits.State); err != nil {
				return err
			}
		}
		return nil
	})
	return p, err
}

// step lets time pass and something happen, and says what came of it.
func (p *play) step(s *cases.Step) (*cases.Did, error) {
	p.did = &cases.Did{}
	if s.After > 0 {
		if err := p.pass(p.now.Add(s.After), math.MaxUint64); err != nil {
			return p.did, err
		}
	}
	if s.Cause != nil {
		if err := p.happen(s); err != nil {
			return p.did, err
		}
	}
	key, now := p.lastKey, p.now
	p.did.State = func(name string) []byte { return p.value(state.Keyed(p.spec.Name, key), name) }
	p.did.Shared = func(name string) []byte { return p.value(state.Shared(p.spec.Name), name) }
	p.did.Timer = func(name string) (time.Duration, bool) {
		t, ok := p.timers[timerID{key, name}]
		return t.due.Sub(now), ok
	}
	return p.did, nil
}

func (p *play) value(ref state.Ref, name string) []byte {
	v, _, err := state.Get(&p.mem, ref, name)
	if err != nil {
		return nil
	}
	return v
}

// pass moves the clock, and lets what is due on the way happen when it is; of the timers that are due at the end only those set before.
func (p *play) pass(until time.Time, before uint64) error {
	for {
		next, id, found := until, timerID{}, false
		var first timer
		for i, t := range p.timers {
			if t.due.Equal(until) && t.seq >= before {
				continue
			}
			if t.due.Before(next) || (t.due.Equal(next) && (!found || t.seq < first.seq)) {
				next, id, first, found = t.due, i, t, true
			}
		}
		retry := false
		for _, j := range p.jobs {
			if j.due.After(p.now) && !j.due.After(next) && (!found || j.due.Before(next)) {
				next, retry = j.due, true
			}
		}
		if next.After(p.now) {
			p.now = next
		}
		switch {
		case retry:
		case found:
			p.fire(id, first, false)
		default:
			return nil
		}
		if err := p.drain(); err != nil {
			return err
		}
	}
}

func (p *play) set(id timerID, due time.Time, chain uint16) {
	p.seq++
	p.timers[id] = timer{due: due, seq: p.seq, chain: chain}
}

// fire makes the event of a timer that is due.
func (p *play) fire(id timerID, t timer, own bool) {
	delete(p.timers, id)
	ev := &event.Event{Source: "timer/" + p.spec.Name, Type: event.Timer, Subject: id.name, Data: []byte("null"), Key: id.key, HasKey: true, Chain: t.chain}
	p.add(ev, nil, id.key, "timer "+id.name, own)
}

// stamp fills in what the gateway knows: identity and time. Everything is the same at each run of the case.
func (p *play) stamp(ev *event.Event) {
	p.events++
	ev.Seq, ev.Boot, ev.Mono = p.events, 1, p.now.Sub(p.c.Given.Now)
	if ev.Time.IsZero() {
		ev.Time, ev.TimeOK = p.now, !p.c.Given.ClockOff
	}
	if ev.ID == "" {
		ev.ID = "event-" + strconv.FormatUint(p.events, 10)
	}
}

// add puts an event in its place.
func (p *play) add(ev *event.Event, params map[string]string, key, text string, own bool) {
	p.stamp(ev)
	j := &job{ev: ev, params: params, key: key, text: text, own: own, seed: p.c.Given.Seed + p.events - 1}
	if p.events == 1 {
		j.attempt = p.c.Given.Attempt
	}
	p.jobs = append(p.jobs, j)
}

// happen makes the event of a step.
func (p *play) happen(s *cases.Step) error {
	c := s.Cause
	ev := &event.Event{ID: c.ID, Time: c.Time, TimeOK: !p.c.Given.ClockOff, Data: c.Data}
	if ev.Data == nil {
		ev.Data = []byte{}
	}
	var params map[string]string
	matches := func(*functions.Trigger) bool { return true }
	switch c.Kind {
	case cases.Timed:
		return p.timed(c)
	case cases.Invoke:
		return p.invoked(c, s.Text)
	case cases.Reply:
		return p.replied(c, ev, s.Text)
	case cases.MQTT:
		ev.Source, ev.Type, ev.Subject, ev.Topic, ev.Retained = "mqtt", event.Message, c.Name, c.Name, c.Retained
		matches = func(t *functions.Trigger) bool { return t.MQTT != nil }
	case cases.Device:
		ev.Source, ev.Type, ev.Subject = "device/"+c.Name, event.Reading, c.Name
		p.readings[c.Name] = c.Data
		matches = func(t *functions.Trigger) bool { return t.Device == c.Name }
	case cases.Every:
		every, err := units.ParseDuration(c.Name)
		if err != nil {
			return err
		}
		ev.Source, ev.Type, ev.Subject = "schedule", event.Tick, p.spec.Name
		ev.Data = fmt.Appendf(nil, `{"every":%g,"missed":0}`, every.Seconds())
		matches = func(t *functions.Trigger) bool { return t.Every == every }
	case cases.Function:
		ev.Source, ev.Type, ev.Subject, ev.Chain = "function/"+c.Name, event.Result, c.Name, 1
		matches = func(t *functions.Trigger) bool { return t.Function == c.Name }
	case cases.Changed:
		fn, name, _ := strings.Cut(c.Name, "/")
		ev.Source, ev.Type, ev.Subject, ev.Chain = "function/"+fn, event.State, c.Name, 1
		params = map[string]string{"key": "", "name": name}
		if c.Key != nil {
			ev.Key, params["key"] = *c.Key, *c.Key
		}
		matches = func(t *functions.Trigger) bool { return t.State == c.Name }
	case cases.Gateway:
		ev.Source, ev.Type, ev.Subject, ev.Data = "gateway", event.Gateway, c.Name, []byte(`{"what":"`+c.Name+`"}`)
		matches = func(t *functions.Trigger) bool { return slices.Contains(t.Gateway, c.Name) }
	}
	if err := p.offer(ev, params, matches, s.Text, true); err != nil {
		return err
	}
	return p.drain()
}

// timed lets time pass until a timer is due.
func (p *play) timed(c *cases.Cause) error {
	var id timerID
	var set []string
	found := 0
	for i := range p.timers {
		set = append(set, fmt.Sprintf("%s of key %q", i.name, i.key))
		if i.name == c.Name && (c.Key == nil || i.key == *c.Key) {
			id = i
			found++
		}
	}
	slices.Sort(set)
	switch {
	case found == 0 && len(set) == 0:
		return fmt.Errorf("the timer %s is not set, nor is any other", c.Name)
	case found == 0:
		return fmt.Errorf("the timer %s is not set; there are: %s", c.Name, strings.Join(set, ", "))
	case found > 1:
		return fmt.Errorf("the timer %s is set for several keys: say which, with key", c.Name)
	}
	t := p.timers[id]
	delete(p.timers, id)
	if err := p.pass(t.due, t.seq); err != nil {
		return err
	}
	if _, again := p.timers[id]; again {
		return fmt.Errorf("the timer %s was set anew by what happened before it", c.Name)
	}
	p.fire(id, t, true)
	ev := p.jobs[len(p.jobs)-1].ev
	if c.ID != "" {
		ev.ID = c.ID
	}
	if !c.Time.IsZero() {
		ev.Time = c.Time
	}
	return p.drain()
}

// replied is the answer to an HTTP call, whether one was made or not.
func (p *play) replied(c *cases.Cause, ev *event.Event, text string) error {
	ev.Source, ev.Type, ev.Subject, ev.Chain = "http", event.Reply, c.Name, 1
	ev.Key, ev.HasKey = p.lastKey, true
	if c.Key != nil {
		ev.Key = *c.Key
	}
	p.add(ev, nil, ev.Key, text, true)
	return p.drain()
}

// invoked is an event made by hand: it needs no trigger.
func (p *play) invoked(c *cases.Cause, text string) error {
	ev := &event.Event{ID: c.ID, Time: c.Time, TimeOK: !p.c.Given.ClockOff, Source: "invoke", Type: event.Invoke, Subject: p.spec.Name, Data: c.Data, Topic: c.Name}
	params := c.Params
	if c.Name != "" {
		ev.Type, ev.Subject = event.Message, c.Name
		for i := range p.spec.Triggers {
			if got, ok := p.match(&p.spec.Triggers[i], c.Name); ok && params == nil {
				params = got
			}
		}
	}
	if c.Key != nil {
		ev.Key, ev.HasKey = *c.Key, true
	}
	key, err := rules.KeyOf(p.spec, ev, params)
	if err != nil {
		return err
	}
	p.add(ev, params, key, text, true)
	return p.drain()
}

func (p *play) match(t *functions.Trigger, name string) (map[string]string, bool) {
	if t.MQTT == nil {
		return nil, false
	}
	pattern, err := topic.ParsePattern(t.MQTT.Topic)
	if err != nil {
		return nil, false
	}
	return pattern.Match(name)
}

// offer finds out whether an event is for the function, as the gateway's intake does, and queues it.
func (p *play) offer(ev *event.Event, params map[string]string, matches func(*functions.Trigger) bool, text string, own bool) error {
	why := ""
	for i := range p.spec.Triggers {
		t := &p.spec.Triggers[i]
		if !matches(t) {
			continue
		}
		if t.MQTT != nil {
			got, ok := p.match(t, ev.Topic)
			if !ok {
				continue
			}
			last, known := p.seen[ev.Topic]
			if why = rules.Skips(t.MQTT, ev, func() bool { return known && last == string(ev.Data) }); why != "" {
				continue
			}
			params = got
		}
		key, err := rules.KeyOf(p.spec, ev, params)
		if err != nil {
			why = err.Error()
			break
		}
		if value := rules.DedupeValue(p.spec, ev); value != "" {
			if p.now.Before(p.deduped[value]) {
				why = fmt.Sprintf("dedupe: the value %q was seen within %v", value, units.Duration(p.spec.Dedupe.Window))
				break
			}
			p.deduped[value] = p.now.Add(p.spec.Dedupe.Window)
		}
		if ev.Chain > rules.MaxChain {
			return fmt.Errorf("functions that start one another went round more than %d times: %s", rules.MaxChain, text)
		}
		p.add(ev, params, key, text, own)
		return nil
	}
	if own {
		p.did.Skipped = why
	}
	return nil
}

// drain runs what can run now, in order.
func (p *play) drain() error {
	for {
		j := p.take()
		if j == nil {
			return nil
		}
		if err := p.run(j); err != nil {
			return err
		}
	}
}

// take takes out the first event that need not wait: for its next attempt, or for one of its key before it.
func (p *play) take() *job {
	waits := map[string]bool{}
	for i, j := range p.jobs {
		if j.due.After(p.now) {
			waits[j.key] = !p.overtakes()
			continue
		}
		if waits[j.key] {
			continue
		}
		p.jobs = slices.Delete(p.jobs, i, i+1)
		return j
	}
	return nil
}

// overtakes says that an event need not wait for one of its key that is tried again.
func (p *play) overtakes() bool {
	return p.spec.Retry.Overtake || p.spec.Key.Kind == functions.KeyNone
}

var errTooMany = errors.New("more than 10,000 invocations in one step: does a timer set itself again at once?")
