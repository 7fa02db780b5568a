package stage

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/functions/cases"
	"github.com/perigee-iot/perigee/functions/rules"
	"github.com/perigee-iot/perigee/functions/state"
	"github.com/perigee-iot/perigee/internal/event"
	"github.com/perigee-iot/perigee/internal/store"
)

// reserved are the topics under which no function may publish, as in a gateway with the default prefix.
const reserved = functions.OwnTopics

// Invoke runs one invocation of a bundle, checks its effects and judges it, as a gateway does that can write every device. ask answers what the
// function reads. An error says that there is no outcome.
func (s *Stage) Invoke(ctx context.Context, b *functions.Bundle, inv *functions.Invocation, ask func(functions.Read) functions.ReadAnswer) (*functions.Outcome, rules.Verdict, error) {
	o, err := s.invoke(ctx, b, inv, ask)
	if err != nil {
		return nil, rules.Verdict{}, err
	}
	if o.Fault == nil && o.Retry == nil {
		o.Fault = rules.Check(b.Spec, o, rules.Surroundings{Prefix: reserved, Writable: func(string) bool { return true }})
	}
	return o, rules.Judge(b.Spec.Retry, inv.Attempt, o), nil
}

// run runs one attempt and does what its outcome says.
func (p *play) run(j *job) error {
	if len(p.did.Runs) >= maxRuns {
		return errTooMany
	}
	j.attempt++
	inv := &functions.Invocation{
		Function: p.spec.Name,
		Revision: p.b.Digest,
		Event:    j.ev,
		Params:   j.params,
		Key:      j.key,
		NoKey:    p.spec.Key.Kind == functions.KeyNone,
		Attempt:  j.attempt,
		Now:      p.now,
		NowOK:    !p.c.Given.ClockOff,
		Seed:     j.seed,
		Gateway:  p.c.Given.Gateway,
		Env:      p.c.Given.Env,
		Limits:   p.spec.Limits,
		Perms:    p.spec.Permissions,
		Secrets:  p.c.Given.Secrets,
	}
	o, v, err := p.on.Invoke(p.ctx, p.b, inv, func(r functions.Read) functions.ReadAnswer { return p.answer(j, r) })
	if err != nil {
		return err
	}
	var children []child
	if v.What == "committed" {
		if children, err = p.commit(j, o); err != nil {
			o.Fault = rules.BadOutput("%v", err)
			v = rules.Judge(p.spec.Retry, j.attempt, o)
		}
	}
	p.lastKey = j.key
	p.did.Runs = append(p.did.Runs, cases.Run{Text: j.text, Own: j.own, Key: j.key, Outcome: o, Verdict: v})
	if v.What == "retry" {
		if v.After <= 0 {
			v.After = rules.Backoff(p.spec.Retry, j.attempt)
		}
		j.due, j.own = p.now.Add(v.After), false
		p.jobs = slices.Insert(p.jobs, 0, j) // before those of its key that came after it
	}
	for _, c := range children {
		if err := p.offer(c.ev, c.params, c.matches, c.text, false); err != nil {
			return err
		}
	}
	return nil
}

// answer answers what the function reads. It is called while run waits.
func (p *play) answer(j *job, r functions.Read) functions.ReadAnswer {
	a := functions.ReadAnswer{Read: r}
	var err error
	switch r.Kind {
	case functions.ReadState, functions.ReadStateKeys:
		err = errNoState
		if p.spec.Key.Kind != functions.KeyNone {
			err = state.Answer(&p.mem, state.Keyed(p.spec.Name, j.key), r, &a)
		}
	case functions.ReadShared, functions.ReadSharedKeys:
		err = state.Answer(&p.mem, state.Shared(p.spec.Name), r, &a)
	case functions.ReadDevice:
		reading, known := p.readings[r.Name]
		switch {
		case !p.spec.Permissions.AllowsReadDevice(r.Name):
			err = errors.New("not permitted")
		case !known:
			err = fmt.Errorf("device %q has not said anything yet", r.Name)
		}
		a.Value = reading
	default:
		err = errors.New("unknown question")
	}
	if err != nil {
		a.Value, a.Err = nil, err.Error()
	}
	return a
}

var errNoState = errors.New("a function with key: none has no state of its own key")

// child is an event that follows from an outcome, for the same function.
type child struct {
	ev      *event.Event
	params  map[string]string
	matches func(*functions.Trigger) bool
	text    string
}

// commit does all that an outcome says, or nothing.
func (p *play) commit(j *job, o *functions.Outcome) ([]child, error) {
	before := map[string][]byte{}
	timers := map[timerID]*functions.Effect{}
	set := len(p.timers)
	err := p.mem.update(func(tx store.Tx) error {
		for i := range o.Effects {
			x := &o.Effects[i]
			id := timerID{j.key, x.Name}
			_, armed := p.timers[id]
			switch x.Kind {
			case functions.SetTimer:
				if !armed {
					set++
				}
				timers[id] = x
			case functions.CancelTimer:
				timers[id] = x
			case functions.SetState, functions.DeleteState, functions.IncrState:
				if _, again := before[x.Name]; !again {
					before[x.Name] = p.value(state.Keyed(p.spec.Name, j.key), x.Name)
				}
				fallthrough
			case functions.SetShared, functions.DeleteShared, functions.IncrShared:
				if err := state.Apply(tx, p.spec.Name, j.key, x, p.spec.Limits.State); err != nil {
					return err
				}
			}
		}
		if limit := p.spec.Limits.Timers; limit > 0 && set > limit && set > len(p.timers) {
			return functions.OverTimers(set, limit)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for i := range o.Effects { // in order, since timers that are due at once fire in it
		id := timerID{j.key, o.Effects[i].Name}
		switch x := timers[id]; {
		case x != &o.Effects[i]:
		case x.Kind == functions.SetTimer:
			p.set(id, p.now.Add(x.For), j.ev.Chain)
		default:
			delete(p.timers, id)
		}
	}
	if j.ev.Type == event.Message && j.ev.Topic != "" {
		p.seen[j.ev.Topic] = string(j.ev.Data)
	}
	return p.children(j, o, before), nil
}

// children are the events for the function itself that follow from an outcome: its result, and values of its state that changed.
func (p *play) children(j *job, o *functions.Outcome, before map[string][]byte) (list []child) {
	self := p.spec.Name
	source := "function/" + self
	if o.Result != nil && slices.ContainsFunc(p.spec.Triggers, func(t functions.Trigger) bool { return t.Function == self }) {
		ev := &event.Event{Source: source, Type: event.Result, Subject: self, Data: o.Result, Chain: j.ev.Chain + 1, Time: j.ev.Time, TimeOK: j.ev.TimeOK}
		list = append(list, child{ev: ev, text: "function " + self, matches: func(t *functions.Trigger) bool { return t.Function == self }})
	}
	for i := range o.Effects {
		name := o.Effects[i].Name
		was, changed := before[name]
		what := self + "/" + name
		if !changed || !slices.ContainsFunc(p.spec.Triggers, func(t functions.Trigger) bool { return t.State == what }) {
			continue
		}
		delete(before, name)
		now := p.value(state.Keyed(self, j.key), name)
		if equal(was, now) {
			continue
		}
		data := now
		if data == nil {
			data = []byte("null")
		}
		ev := &event.Event{Source: source, Type: event.State, Subject: what, Data: data, Key: j.key, Chain: j.ev.Chain + 1, Time: j.ev.Time, TimeOK: j.ev.TimeOK}
		list = append(list, child{ev: ev, params: map[string]string{"key": j.key, "name": name}, text: "state " + what,
			matches: func(t *functions.Trigger) bool { return t.State == what }})
	}
	return list
}
