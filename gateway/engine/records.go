package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/functions/cases"
	"github.com/perigee-iot/perigee/functions/rules"
)

// records are the last invocations with all that they depended on, so that an event can be made a test case. They are kept in
// memory, within bounds, oldest first.
type records struct {
	mu    sync.Mutex
	list  []*cases.Record // a ring, once it is full
	next  int
	bytes int
}

const (
	recordsMost  = 500
	recordsBytes = 1 << 20  // of all
	recordBytes  = 16 << 10 // of one; a larger one is not kept
)

// note remembers an answer to what an invocation asked, as far as its record may grow.
func (e *Engine) note(j *job, a functions.ReadAnswer) functions.ReadAnswer {
	if j.noted += answerSize(&a); j.noted <= max(recordBytes, e.recorders.wants()) {
		j.answers = append(j.answers, a)
	}
	return a
}

func answerSize(a *functions.ReadAnswer) int { return len(a.Name) + len(a.Value) + 64 }

// whole says that all answers to an invocation were noted.
func (j *job) whole() bool {
	n := 0
	for i := range j.answers {
		n += answerSize(&j.answers[i])
	}
	return n == j.noted
}

// record is a job's invocation with its outcome.
func (j *job) record(o *functions.Outcome, v verdict) *cases.Record {
	r := &cases.Record{Bundle: j.dep.Bundle, Inv: j.inv, Outcome: o, Verdict: rules.Verdict{What: v.what, Fault: v.fault, After: v.after}}
	r.Reads = append(r.Reads, j.answers...)
	for _, h := range j.inv.Hints {
		if slices.Contains(o.Reads, h.Read) {
			r.Reads = append(r.Reads, h)
		}
	}
	return r
}

// recordSize is roughly what a record keeps in memory.
func recordSize(r *cases.Record) int {
	n := 512 + len(r.Inv.Event.Data) + len(r.Outcome.Result)
	for _, answers := range [...][]functions.ReadAnswer{r.Reads, r.Inv.Hints} { // those that were not looked at are kept with the invocation
		for i := range answers {
			n += answerSize(&answers[i])
		}
	}
	for i := range r.Outcome.Effects {
		n += len(r.Outcome.Effects[i].Name) + len(r.Outcome.Effects[i].Value) + 128
	}
	for _, l := range r.Outcome.Logs {
		n += len(l.Text) + 32
	}
	return n
}

// add keeps the record of an invocation that has an outcome.
func (l *records) add(j *job, o *functions.Outcome, v verdict) {
	if j.noted > recordBytes {
		return
	}
	r := j.record(o, v)
	size := recordSize(r)
	if size > recordBytes {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.list) < recordsMost {
		l.list = append(l.list, r)
		l.next = 0
	} else {
		l.forget(l.next)
		l.list[l.next] = r
		l.next = (l.next + 1) % recordsMost
	}
	l.bytes += size
	for i := 0; l.bytes > recordsBytes && i < len(l.list); i++ {
		l.forget((l.next + i) % len(l.list))
	}
}

// forget lets go of the record at i. The caller holds mu.
func (l *records) forget(i int) {
	if r := l.list[i]; r != nil {
		l.bytes -= recordSize(r)
		l.list[i] = nil
	}
}

// find returns the newest record of an event in a function, or in any if fn is empty, and in how many there is one.
func (l *records) find(id, fn string) (found *cases.Record, in []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.list {
		r := l.list[(l.next+i)%len(l.list)]
		if r == nil || r.Inv.Event.ID != id || (fn != "" && r.Inv.Function != fn) {
			continue
		}
		found = r
		if !slices.Contains(in, r.Inv.Function) {
			in = append(in, r.Inv.Function)
		}
	}
	return found, in
}

// ErrNoRecord is wrapped by the errors about events whose invocation is not kept.
var ErrNoRecord = errors.New("nothing to make a case of")

// Record returns the last invocation of a function on an event with all that it depended on. fn may be empty if the event ran in one function
// only. The id may be that of a dead letter: if its invocation is no longer kept, it is run on the state of now, and nothing is done.
func (e *Engine) Record(ctx context.Context, id, fn string) (*cases.Record, error) {
	dead, err := e.DeadLetter(id)
	if err == nil {
		id, fn = dead.Event.ID, dead.Function
	} else if !errors.Is(err, ErrNoDeadLetter) {
		return nil, err
	}
	found, in := e.records.find(id, fn)
	switch {
	case found != nil && len(in) == 1:
		return found, nil
	case found != nil:
		return nil, fmt.Errorf("%w: event %s ran in several functions; say which: %s", ErrNoRecord, id, strings.Join(in, ", "))
	case dead != nil:
		return e.recordDead(ctx, dead)
	}
	l, known := e.Life(id)
	if !known {
		return nil, fmt.Errorf("%w: event %s is not remembered (any more)", ErrNoRecord, id)
	}
	for _, o := range l.Outcomes {
		if o.What == "skipped" || o.What == "duplicate" {
			return nil, fmt.Errorf("%w: function %s did not run on event %s: %s", ErrNoRecord, o.Function, id, o.Why)
		}
	}
	return nil, fmt.Errorf("%w: the invocations of event %s are not kept: no function has run on it, it is too long ago, or payload, state and effects have more than %d KiB",
		ErrNoRecord, id, recordBytes>>10)
}

// recordDead runs the event of a dead letter again, without doing anything.
func (e *Engine) recordDead(ctx context.Context, d *DeadLetter) (*cases.Record, error) {
	e.mu.Lock()
	f := e.fns[d.Function]
	var dep *Deployment
	if f != nil {
		dep = f.dep
	}
	e.mu.Unlock()
	if f == nil {
		return nil, fmt.Errorf("%w: function %q is not deployed", ErrNoRecord, d.Function)
	}
	j := &job{fn: f, dep: dep, ev: d.Event, key: d.Key, params: d.Params}
	j.attempt.Store(int32(max(d.Attempts, 1))) // its last one
	o, err := e.try(ctx, j)
	if err != nil {
		return nil, err
	}
	return j.record(o, e.tried(j, o)), nil
}
