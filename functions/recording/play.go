package recording

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/functions/rules"
	"github.com/perigee-iot/perigee/internal/event"
	"github.com/perigee-iot/perigee/internal/topic"
)

// Runner runs one invocation of a bundle and judges it; *stage.Stage is one.
type Runner interface {
	Invoke(ctx context.Context, b *functions.Bundle, inv *functions.Invocation, ask func(functions.Read) functions.ReadAnswer) (*functions.Outcome, rules.Verdict, error)
}

// Player runs a bundle on what was recorded. Each invocation gets the event, the time, the seed and the answers that the recorded one got,
// so that what comes out differently does so for the code's sake. With Carry set, values that the bundle itself has written go before
// those answers, unless somebody else than the recorded function has changed them.
type Player struct {
	Options
	env     []byte
	secrets []functions.Secret

	recorded world // as the recorded invocations left it
	written  world // by the bundle, with carry
	devices  map[string][]byte
}

// Options of NewPlayer.
type Options struct {
	Runner   Runner
	Bundle   *functions.Bundle
	Function string         // whose invocations are played
	Gateway  string         // that recorded them
	Override map[string]any // settings that go before the recorded ones
	Carry    bool           // the bundle reads what it has written itself
}

// NewPlayer makes a player of what was recorded of one function.
func NewPlayer(o Options) (*Player, error) {
	p := &Player{Options: o, recorded: world{}, written: world{}, devices: map[string][]byte{}}
	if _, err := o.Bundle.Spec.CheckSettings(o.Override); err != nil {
		return nil, err
	}
	for _, name := range o.Bundle.Spec.Permissions.Secrets {
		p.secrets = append(p.secrets, functions.Secret{Name: name, Value: Hidden})
	}
	_, err := p.Settings(nil)
	return p, err
}

// Settings puts the recorded settings over the bundle's env and returns the names of those that it does not take: it has no such name, or
// another type there.
func (p *Player) Settings(recorded map[string]any) (foreign []string, err error) {
	take := map[string]any{}
	for _, name := range slices.Sorted(maps.Keys(recorded)) {
		if _, err := p.Bundle.Spec.CheckSettings(map[string]any{name: recorded[name]}); err != nil {
			foreign = append(foreign, name)
			continue
		}
		take[name] = recorded[name]
	}
	maps.Copy(take, p.Override)
	env, err := p.Bundle.Spec.CheckSettings(take)
	if err != nil {
		return nil, err
	}
	if p.env, err = json.Marshal(env); err != nil {
		return nil, fmt.Errorf("the settings: %w", err)
	}
	return foreign, nil
}

// Played is what the bundle made of an invocation.
type Played struct {
	Skipped string   // why it would not run on the event; "": it ran
	Key     string   // that it gives the event
	Unknown []string // what it read that the recording does not know: it got nil
	Outcome Outcome
}

// Play runs the bundle on one invocation, and follows what the recorded one did.
func (p *Player) Play(ctx context.Context, i *Invocation) (*Played, error) {
	seed, err := i.seed()
	if err != nil {
		return nil, err
	}
	reads := make([]functions.ReadAnswer, 0, len(i.Reads))
	for k := range i.Reads {
		a, err := i.Reads[k].answer()
		if err != nil {
			return nil, err
		}
		reads = append(reads, a)
		if a.Kind == functions.ReadDevice && a.Err == "" {
			p.devices[a.Name] = a.Value
		}
	}
	ev := i.Event.event()
	if ev.Type == event.Reading {
		p.devices[ev.Subject] = ev.Data
	}
	for _, at := range p.recorded.learn(i.Key, reads) {
		delete(p.written, at)
	}
	got, err := p.run(ctx, i, ev, seed, reads)
	if err != nil {
		return nil, err
	}
	if i.Outcome.What == "committed" {
		p.recorded.apply(i.Key, i.Outcome.Effects, func(at place) ([]byte, bool) { v, ok := p.recorded[at]; return v, ok })
	}
	return got, nil
}

func (p *Player) run(ctx context.Context, i *Invocation, ev *event.Event, seed uint64, reads []functions.ReadAnswer) (*Played, error) {
	spec := p.Bundle.Spec
	got := &Played{Key: i.Key}
	params, why := matches(spec, ev, i.Params)
	if why != "" {
		got.Skipped = why
		return got, nil
	}
	key, err := rules.KeyOf(spec, ev, params)
	if err != nil {
		got.Skipped = err.Error()
		return got, nil //nolint:nilerr // that is the answer
	}
	got.Key = key
	if key != i.Key { // the answers are about another key's state
		reads = slices.DeleteFunc(slices.Clone(reads), func(a functions.ReadAnswer) bool {
			return a.Kind == functions.ReadState || a.Kind == functions.ReadStateKeys
		})
	}
	ask := &asked{p: p, key: key, reads: reads, got: got}
	inv := &functions.Invocation{Function: p.Function, Revision: p.Bundle.Digest, Event: ev, Params: params, Key: key, NoKey: spec.Key.Kind == functions.KeyNone,
		Attempt: i.Attempt, Now: i.Now, NowOK: i.NowOK, Seed: seed, Gateway: p.Gateway, Env: p.env, Limits: spec.Limits, Perms: spec.Permissions, Secrets: p.secrets}
	o, v, err := p.Runner.Invoke(ctx, p.Bundle, inv, ask.answer)
	if err != nil {
		return nil, err
	}
	got.Outcome = outcomeOf(o, v, &hider{})
	if p.Carry && v.What == "committed" {
		p.written.apply(key, got.Outcome.Effects, ask.value)
	}
	return got, nil
}

// asked answers what the bundle reads while it runs.
type asked struct {
	p     *Player
	key   string
	reads []functions.ReadAnswer
	got   *Played
}

func (q *asked) answer(r functions.Read) functions.ReadAnswer {
	a := functions.ReadAnswer{Read: r}
	spec := q.p.Bundle.Spec
	switch r.Kind {
	case functions.ReadState, functions.ReadStateKeys:
		if spec.Key.Kind == functions.KeyNone {
			a.Err = "a function with key: none has no state of its own key"
			return a
		}
	case functions.ReadDevice:
		return q.device(r)
	}
	if r.Kind == functions.ReadStateKeys || r.Kind == functions.ReadSharedKeys {
		return q.keys(r)
	}
	for _, rec := range q.reads {
		if rec.Read == r && rec.Err != "" {
			return rec
		}
	}
	v, known := q.value(placeOf(r.Kind == functions.ReadShared, q.key, r.Name))
	if !known {
		q.unknown(r)
	}
	a.Value = v
	return a
}

// value finds what is known of a value of state.
func (q *asked) value(at place) ([]byte, bool) {
	if v, ok := q.p.written[at]; ok && q.p.Carry {
		return v, true
	}
	v, ok := q.p.recorded[at] // what this invocation read is in it already
	return v, ok
}

func (q *asked) keys(r functions.Read) functions.ReadAnswer {
	shared := r.Kind == functions.ReadSharedKeys
	names, known := q.p.recorded.present(shared, q.key, r.Name), false
	for _, rec := range q.reads {
		if rec.Kind == r.Kind && strings.HasPrefix(r.Name, rec.Name) && rec.Err == "" {
			known = true
			names = slices.DeleteFunc(namesIn(rec.Value), func(n string) bool { return !strings.HasPrefix(n, r.Name) })
			break
		}
	}
	if !known {
		q.unknown(r)
	}
	if q.p.Carry {
		names = slices.DeleteFunc(names, func(n string) bool {
			v, ours := q.p.written[placeOf(shared, q.key, n)]
			return ours && v == nil
		})
		names = append(names, q.p.written.present(shared, q.key, r.Name)...)
	}
	slices.Sort(names)
	b, err := json.Marshal(append([]string{}, slices.Compact(names)...))
	if err != nil {
		return functions.ReadAnswer{Read: r, Err: err.Error()}
	}
	return functions.ReadAnswer{Read: r, Value: b}
}

func (q *asked) device(r functions.Read) functions.ReadAnswer {
	if !q.p.Bundle.Spec.Permissions.AllowsReadDevice(r.Name) {
		return functions.ReadAnswer{Read: r, Err: "not permitted"}
	}
	for _, rec := range q.reads {
		if rec.Read == r {
			return rec
		}
	}
	if v, ok := q.p.devices[r.Name]; ok {
		return functions.ReadAnswer{Read: r, Value: v}
	}
	q.unknown(r)
	return functions.ReadAnswer{Read: r, Err: fmt.Sprintf("the recording has no reading of device %q", r.Name)}
}

func (q *asked) unknown(r functions.Read) {
	what := strings.TrimSpace(readKinds()[r.Kind] + " " + r.Name)
	if !slices.Contains(q.got.Unknown, what) {
		q.got.Unknown = append(q.got.Unknown, what)
	}
}

// matches says whether a bundle has a trigger for an event, with the event's params there, or why it has none.
func matches(spec *functions.Spec, ev *event.Event, recorded map[string]string) (params map[string]string, why string) {
	why = "it has no trigger for it"
	switch ev.Type {
	case event.Timer, event.Reply, event.Invoke:
		return recorded, ""
	}
	if ev.Source == "invoke" {
		return recorded, ""
	}
	for i := range spec.Triggers {
		t := &spec.Triggers[i]
		if t.MQTT == nil {
			if triggers(t, ev) {
				return recorded, ""
			}
			continue
		}
		if ev.Type != event.Message {
			continue
		}
		pattern, err := topic.ParsePattern(t.MQTT.Topic)
		if err != nil {
			continue // it was checked when the bundle was read
		}
		got, ok := pattern.Match(ev.Topic)
		if !ok {
			continue
		}
		if why = rules.Skips(t.MQTT, ev, func() bool { return false }); why == "" {
			return got, ""
		}
	}
	return nil, why
}

// triggers says that an event that is no message is for a trigger.
func triggers(t *functions.Trigger, ev *event.Event) bool {
	switch ev.Type {
	case event.Reading:
		return t.Device == ev.Subject
	case event.Tick:
		var tick struct{ Every float64 }
		return json.Unmarshal(ev.Data, &tick) == nil && t.Every == time.Duration(tick.Every*float64(time.Second))
	case event.State:
		return t.State == ev.Subject
	case event.Result:
		return t.Function == ev.Subject
	case event.Gateway:
		return slices.Contains(t.Gateway, ev.Subject)
	}
	return false
}

// ErrNoFunction is returned by Choose.
var ErrNoFunction = errors.New("the recording does not have the function")

// Choose finds the recorded function that a bundle is a revision of: that of its name, or the only one there is.
func Choose(recorded []string, name string) (string, error) {
	switch {
	case slices.Contains(recorded, name):
		return name, nil
	case len(recorded) == 1:
		return recorded[0], nil
	case len(recorded) == 0:
		return "", fmt.Errorf("%w: it has no invocation at all", ErrNoFunction)
	}
	return "", fmt.Errorf("%w %q; it has: %s", ErrNoFunction, name, strings.Join(recorded, ", "))
}
