package engine

import (
	"slices"
	"sync"
	"time"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/functions/rules"
	"github.com/perigee-iot/perigee/internal/event"
)

// Life is an event and what it caused, for people. Lives are a ring in memory: keeping them costs no flash.
type Life struct {
	ID       string
	Seq      uint64
	Source   string
	Type     string
	Subject  string
	Time     time.Time
	TimeOK   bool
	Size     int
	Preview  string
	Accepted bool
	Took     time.Duration // until it was accepted
	Refused  string
	Replayed string // the dead letter that it was: it runs outside the order of its key
	Outcomes []LifeOutcome
}

// LifeOutcome is what one function did with an event, or why it did not run.
type LifeOutcome struct {
	Function string
	Revision string
	What     string // running, committed, retry, dead, skipped, duplicate, waiting, dropped
	Why      string
	Attempt  int
	Wall     time.Duration
	CPU      time.Duration
	Effects  []string
	Result   string
	Fault    *functions.Fault

	At       time.Duration // when the last attempt ended, since the event came in
	Durable  time.Duration // when its outcome was; 0: not yet
	Letter   string        // the dead letter that it became
	Attempts []LifeAttempt // those that failed
	Actions  []LifeAction
	Records  []LifeRecord
}

// life is a Life in the making. A nil life is fine: nobody looks.
type life struct {
	ring    *lives
	began   time.Time
	matched []string      // functions that have a job; guarded by Engine.mu
	boot    uint32        // of Time
	up      time.Duration // of the machine, then
	Life
}

// previewBytes is how much of a payload people see.
const previewBytes = 120

// lives is the ring, and those who follow it.
type lives struct {
	secrets Secrets
	clock   *Clock

	mu        sync.Mutex
	ring      []*life
	next      int
	followers map[*follower[Life]]struct{}
}

func newLives(n int, s Secrets, c *Clock) *lives {
	return &lives{secrets: s, clock: c, ring: make([]*life, 0, n), followers: map[*follower[Life]]struct{}{}}
}

// add begins the life of an event.
func (l *lives) add(ev *event.Event) *life {
	x := &life{ring: l, began: time.Now(), Life: Life{ID: ev.ID, Seq: ev.Seq, Source: ev.Source, Type: ev.Type, Subject: ev.Subject, Time: ev.Time,
		TimeOK: ev.TimeOK, Size: len(ev.Data)}, boot: ev.Boot, up: ev.Mono}
	x.Preview = glimpse(l.secrets, ev.Data)
	l.mu.Lock()
	if len(l.ring) < cap(l.ring) {
		l.ring = append(l.ring, x)
	} else {
		l.ring[l.next] = x
		l.next = (l.next + 1) % len(l.ring)
	}
	l.mu.Unlock()
	return x
}

// change applies fn to a life and tells those who follow.
func (x *life) change(tell bool, fn func()) {
	if x == nil {
		return
	}
	x.ring.mu.Lock()
	fn()
	if tell && len(x.ring.followers) > 0 {
		c := x.snapshot()
		for f := range x.ring.followers {
			f.send(c)
		}
	}
	x.ring.mu.Unlock()
}

func (x *life) snapshot() Life {
	c := x.Life
	c.Time, c.TimeOK = x.ring.clock.right(c.Time, c.TimeOK, x.boot, x.up)
	c.Preview = rules.Printable(c.Preview, previewBytes)
	c.Subject = rules.Printable(c.Subject, 200)
	c.Outcomes = slices.Clone(c.Outcomes)
	for i := range c.Outcomes {
		o := &c.Outcomes[i]
		o.Attempts, o.Actions = slices.Clone(o.Attempts), slices.Clone(o.Actions)
	}
	return c
}

// of returns the outcome of a function, a new one if there is none. The ring's lock is held.
func (x *life) of(f *function) *LifeOutcome { return x.named(f.Name) }

func (x *life) named(fn string) *LifeOutcome {
	for i := range x.Outcomes {
		if x.Outcomes[i].Function == fn {
			return &x.Outcomes[i]
		}
	}
	x.Outcomes = append(x.Outcomes, LifeOutcome{Function: fn})
	return &x.Outcomes[len(x.Outcomes)-1]
}

func (x *life) accept() {
	if x == nil {
		return
	}
	x.ring.mu.Lock()
	alone := !x.Accepted && !slices.ContainsFunc(x.Outcomes, func(o LifeOutcome) bool { return o.What != "waiting" }) // else its outcome tells
	if !x.Accepted {
		x.Accepted, x.Took = true, time.Since(x.began)
	}
	x.ring.mu.Unlock()
	if alone {
		x.change(true, func() {})
	}
}

func (x *life) refuse(why string) { x.change(true, func() { x.Refused = why }) }

func (x *life) skip(f *function, why string) { x.outcome(f, "skipped", why) }

func (x *life) outcome(f *function, what, why string) {
	x.change(true, func() {
		o := x.of(f)
		o.What, o.Why = what, why
	})
}

// queued notes that a job waits for its turn. The engine's mu is held.
func (x *life) queued(j *job) {
	why := "for a worker"
	if l := j.lane; l.running != nil || l.retry != nil || len(l.redo) > 0 || l.queue[0] != j {
		why = "for earlier events of its key"
	}
	x.change(false, func() {
		o := x.of(j.fn)
		o.What, o.Why = "waiting", why
	})
}

func (x *life) running(f *function, attempt int, revision string) {
	x.change(false, func() {
		o := x.of(f)
		o.What, o.Why, o.Attempt, o.Revision = "running", "", attempt, revision
	})
}

func (x *life) done(j *job, out *functions.Outcome, v verdict) {
	x.change(true, func() {
		o := x.of(j.fn)
		o.What, o.Attempt, o.Revision = v.what, int(j.attempt.Load()), j.dep.Bundle.Digest
		o.Wall, o.CPU, o.Fault, o.Effects = out.Usage.Wall, out.Usage.CPU, v.fault, nil
		o.Why = ""
		x.attempted(j, out, v, o)
		if v.what == "retry" {
			o.Why = "again in " + v.after.Round(time.Millisecond).String()
		}
		if v.what != "committed" {
			return
		}
		for i := range out.Effects {
			if i == 8 {
				o.Effects = append(o.Effects, "...")
				break
			}
			o.Effects = append(o.Effects, describe(x.ring.secrets, &out.Effects[i]))
		}
		o.Result = rules.Printable(glimpse(x.ring.secrets, out.Result), previewBytes)
	})
}

// Lives returns the newest lives, oldest first, at most limit; and, if follow is set, a channel of what comes, until
// stop is called. A follower that is too slow misses lives and hears of it by a life with the ID "".
func (e *Engine) Lives(limit int, follow bool) (past []Life, more <-chan Life, stop func()) {
	l := e.lives
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(l.ring)
	for i := range n {
		x := l.ring[(l.next+i)%n]
		if n-i <= limit {
			past = append(past, x.snapshot())
		}
	}
	if !follow {
		return past, nil, func() {}
	}
	f := newFollower[Life]()
	l.followers[f] = struct{}{}
	return past, f.ch, func() {
		l.mu.Lock()
		delete(l.followers, f)
		l.mu.Unlock()
	}
}

// Life returns the life of one event while it is remembered.
func (e *Engine) Life(id string) (Life, bool) {
	l := e.lives
	l.mu.Lock()
	defer l.mu.Unlock()
	var newest *life // a replayed event has the id that it had
	for _, x := range l.ring {
		if x.ID == id && (newest == nil || x.Seq > newest.Seq) {
			newest = x
		}
	}
	if newest == nil {
		return Life{}, false
	}
	return newest.snapshot(), true
}

// follower is one who listens to a ring.
type follower[T any] struct {
	ch     chan T
	missed bool
}

func newFollower[T any]() *follower[T] { return &follower[T]{ch: make(chan T, 256)} }

// send never blocks: a slow follower misses, and gets a zero value once it reads again.
func (f *follower[T]) send(v T) {
	if f.missed {
		var zero T
		select {
		case f.ch <- zero:
			f.missed = false
		default:
			return
		}
	}
	select {
	case f.ch <- v:
	default:
		f.missed = true
	}
}
