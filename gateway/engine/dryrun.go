package engine

import (
	"context"
	"errors"
	"fmt"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/functions/rules"
	"github.com/perigee-iot/perigee/functions/sandbox"
	"github.com/perigee-iot/perigee/functions/state"
	"github.com/perigee-iot/perigee/internal/store"
)

// dryID is the identity of an event that exists for a dry run only.
const dryID = "dry-run"

var errDry = errors.New("a dry run changes nothing")

// DryRun runs a function on an event made by hand and on the state of now, and says what it would do. Nothing is done: no effect, no mark, no
// count, no place in the order of its key. A function that is paused or blocked can be tried so, too.
func (e *Engine) DryRun(ctx context.Context, name string, r Request) (*Report, error) {
	e.mu.Lock()
	f := e.fns[name]
	var dep *Deployment
	if f != nil {
		dep = f.dep
	}
	e.mu.Unlock()
	if f == nil {
		return nil, fmt.Errorf("there is no function %q", name)
	}
	ev := r.event(name, dep.spec())
	if why := e.unacceptable(ev); why != "" {
		return nil, errors.New(why)
	}
	ev.ID, ev.Boot = dryID, e.clock.Boot()
	ev.Time, ev.Mono, ev.TimeOK = e.clock.look()
	key, err := rules.KeyOf(dep.spec(), ev, r.Params)
	if err != nil {
		return nil, err
	}
	j := &job{fn: f, dep: dep, ev: ev, key: key, params: r.Params}
	j.attempt.Add(1)
	o, err := e.try(ctx, j)
	if err != nil {
		return nil, err
	}
	return (&outcomeReport{event: ev.ID, verdict: e.tried(j, o), outcome: o}).report(e.opt.Secrets), nil
}

// try runs a job that is in no lane and waits for its outcome.
func (e *Engine) try(ctx context.Context, j *job) (*functions.Outcome, error) {
	j.inv = e.invocation(j)
	done := make(chan *functions.Outcome, 1)
	e.pool.Submit(sandbox.Job{Inv: j.inv, Bundle: j.dep.Bundle, Done: func(o *functions.Outcome) { done <- o },
		Ask: func(r functions.Read) functions.ReadAnswer { return e.note(j, e.answer(j, r)) }})
	select {
	case o := <-done:
		return o, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("the dry run of function %q has no outcome: %w", j.fn.Name, ctx.Err())
	}
}

// tried judges the outcome of a dry run. Its effects on state are applied to an update that is then given up, so that a quota or a sum with
// what is no number shows.
func (e *Engine) tried(j *job, o *functions.Outcome) verdict {
	spec := j.dep.spec()
	if o.Fault == nil && o.Retry == nil {
		o.Fault = e.check(spec, o)
	}
	if o.Fault == nil && o.Retry == nil {
		err := e.st.Update(func(tx store.Tx) error {
			for i := range o.Effects {
				switch x := &o.Effects[i]; x.Kind {
				case functions.SetState, functions.DeleteState, functions.IncrState, functions.SetShared, functions.DeleteShared, functions.IncrShared:
					if err := state.Apply(tx, j.fn.Name, j.key, x, spec.Limits.State); err != nil {
						return err
					}
				}
			}
			return errDry
		})
		if !errors.Is(err, errDry) {
			o.Fault = rules.BadOutput("%v", err)
		}
	}
	e.hide(o)
	v := rules.Judge(spec.Retry, int(j.attempt.Load()), o)
	return verdict{what: v.What, fault: v.Fault}
}
