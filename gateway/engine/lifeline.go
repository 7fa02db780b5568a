package engine

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/internal/store"
)

// What follows an invocation: further attempts, the commit, actions and records. It stands in the life of the event as long as that is
// remembered; what must be known longer is in the store: events that wait, dead letters, the journal and the streams.

// LifeAttempt is an attempt that was not the last one, or that failed for good.
type LifeAttempt struct {
	Number   int
	Revision string
	At       time.Duration // when it ended, since the event came in
	Wall     time.Duration
	What     string // retry, dead
	Fault    string // one line
}

// LifeAction is a publish, a device write or an HTTP call of a committed outcome.
type LifeAction struct {
	ID     string // that the receiver can tell repeats by
	Action string // "publish alerts/x", "device fan", "http https://…"
	What   string // waiting, done, dropped
	Why    string // of the last time that it could not be carried out
	At     time.Duration
}

// LifeRecord is a record that a committed outcome has appended to a stream.
type LifeRecord struct {
	Stream string
	Seq    uint64
}

// maxSteps bounds the attempts, actions and records that are remembered of one outcome.
const maxSteps = 8

// step is change for one function's outcome, and says when, since the event came in. Those who follow are not told: they hear of outcomes.
func (x *life) step(fn string, change func(o *LifeOutcome, at time.Duration)) {
	x.change(false, func() { change(x.named(fn), time.Since(x.began)) })
}

// attempted notes an attempt that failed. The ring's lock is held.
func (x *life) attempted(j *job, out *functions.Outcome, v verdict, o *LifeOutcome) {
	o.At = time.Since(x.began)
	if v.what == "committed" {
		return
	}
	if v.what == "dead" {
		o.Letter = deadID(j.fn.Name, j.order)
	}
	if len(o.Attempts) == maxSteps {
		o.Attempts = slices.Delete(slices.Clone(o.Attempts), 1, 2) // the first one stays, and the last ones
	}
	o.Attempts = append(o.Attempts, LifeAttempt{Number: int(j.attempt.Load()), Revision: j.dep.Bundle.Digest, At: o.At, Wall: out.Usage.Wall,
		What: v.what, Fault: v.fault.Error()})
}

// durable notes that an outcome will survive, with the records that it appended.
func (x *life) durable(j *job, v *verdict) {
	if x == nil || v.what == "retry" {
		return
	}
	x.step(j.fn.Name, func(o *LifeOutcome, at time.Duration) {
		o.Durable = at
		o.Records = j.appended
	})
}

// appendedTo notes the record of an effect for the life of its event. The update may run again.
func (j *job) appendedTo(stream string, seq uint64) {
	if len(j.appended) < maxSteps {
		j.appended = append(j.appended, LifeRecord{stream, seq})
	}
}

// acts notes what became of an action. Those of an earlier run of the gateway have no life.
func (a *action) acts(what, why string) {
	x := a.life
	if x == nil {
		return
	}
	x.step(a.fn, func(o *LifeOutcome, at time.Duration) {
		i := slices.IndexFunc(o.Actions, func(b LifeAction) bool { return b.ID == a.id })
		if i < 0 {
			if len(o.Actions) == maxSteps {
				return
			}
			i = len(o.Actions)
			o.Actions = append(o.Actions, LifeAction{ID: a.id, Action: x.ring.secrets.Mask(a.words())})
		}
		b := &o.Actions[i]
		b.What, b.At = what, at
		if what != "done" || why != "" {
			b.Why = x.ring.secrets.Mask(why)
		}
	})
}

// words says what an action does, in a few words.
func (a *action) words() string {
	switch {
	case a.topic != "":
		return "publish " + a.topic
	case a.device:
		return "device " + strings.TrimPrefix(a.target, deviceTarget(""))
	}
	if _, origin, ok := ofWebTarget(a.target); ok {
		return "http " + origin
	}
	return a.target
}

// LifeOf is Life for an event that may be older than what is remembered: dead letters are stored with their faults. id may be that of a letter.
func (e *Engine) LifeOf(id string) (Life, bool) {
	if d, err := e.DeadLetter(id); err == nil {
		id = d.Event.ID
	}
	if l, ok := e.Life(id); ok {
		return l, true
	}
	x := &life{ring: e.lives}
	l := &x.Life
	for _, d := range e.lettersOf(id) {
		ev := d.Event
		x.boot, x.up = ev.Boot, ev.Mono
		l.ID, l.Seq, l.Source, l.Type, l.Subject, l.Time, l.TimeOK, l.Accepted = ev.ID, ev.Seq, ev.Source, ev.Type, ev.Subject, ev.Time, ev.TimeOK, true
		l.Size, l.Preview = d.Size, glimpse(e.opt.Secrets, ev.Data)
		l.Outcomes = append(l.Outcomes, LifeOutcome{Function: d.Function, Revision: d.Revision, What: "dead", Why: "remembered by its dead letter", Attempt: d.Attempts,
			Fault: d.Fault, Letter: d.ID})
	}
	if l.ID == "" {
		return Life{}, false
	}
	return x.snapshot(), true
}

// lettersOf finds the dead letters of an event.
func (e *Engine) lettersOf(id string) (list []*DeadLetter) {
	err := e.st.View(func(r store.Reader) error {
		return r.Scan(store.NewKey(store.DeadLetters), nil, func(k, v []byte) bool {
			if d, err := decodeDead(k, v); err == nil && d.Event.ID == id {
				list = append(list, d)
			}
			return true
		})
	})
	if err != nil {
		e.log.Error("the dead letters cannot be read", "error", err)
	}
	return list
}

// sinceBefore says what is known of a job that the last run of the gateway left.
func (j *job) sinceBefore() string {
	if j.failed == "" {
		return "since before the gateway's start"
	}
	return fmt.Sprintf("since before the gateway's start, for attempt %d; the last one failed: %s", j.attempt.Load()+1, j.failed)
}
