// Package stage runs the cases of functions without a gateway. The Lua runs in a real worker process, confined as it is there. Around it stand
// a clock that only moves when a step lets it, random numbers that are the same each time, state in memory, and the same rules
// as in the gateway (functions/rules, functions/state): which events are for the function, their keys and order, what an
// outcome may do, when an event is tried again, what follows from results and state.
//
// What it leaves out is everything outside of the function: brokers, devices, disks and the cloud. An effect that leaves the function is
// noted and compared, and nothing happens.
package stage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/functions/cases"
	"github.com/perigee-iot/perigee/functions/sandbox"
)

// Pool runs invocations; *sandbox.Pool is one.
type Pool interface {
	Submit(jobs ...sandbox.Job)
	Check(ctx context.Context, b *functions.Bundle) *functions.Fault
}

// Stage runs cases, one at a time.
type Stage struct {
	pool  Pool
	close func()
	next  uint64 // id of an invocation
}

// New makes a stage over a pool of somebody else's.
func New(p Pool) *Stage { return &Stage{pool: p, close: func() {}} }

// Open makes a stage with a worker of its own. command starts it, without its memory limit; nil for this program itself. Close ends it.
func Open(command []string) (*Stage, error) {
	p, err := sandbox.New(sandbox.Options{Command: command, Max: 1, Warm: 1, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, fmt.Errorf("start a worker to run the tests in: %w", err)
	}
	return &Stage{pool: p, close: p.Close}, nil
}

// Close ends what Open started.
func (s *Stage) Close() { s.close() }

// Compile compiles a bundle in the worker; nil if it compiles.
func (s *Stage) Compile(ctx context.Context, b *functions.Bundle) *functions.Fault {
	return s.pool.Check(ctx, b)
}

// Run runs one case of a bundle. It stops at the first step that is not as expected, since what comes after would differ for that reason alone.
func (s *Stage) Run(ctx context.Context, b *functions.Bundle, c *cases.Case) *cases.Result {
	began := time.Now()
	r := &cases.Result{Function: b.Spec.Name, Name: c.Name, File: c.File, Line: c.Line}
	p, err := newPlay(ctx, s, b, c)
	if err != nil {
		r.Failures = []cases.Failure{{Line: c.Line, What: "given", Lines: []cases.Line{{Text: err.Error()}}}}
	}
	for i := 0; i < len(c.Steps) && len(r.Failures) == 0; i++ {
		step := &c.Steps[i]
		did, err := p.step(step)
		if err != nil {
			r.Failures = []cases.Failure{{What: "it cannot go on", Lines: []cases.Line{{Text: err.Error()}}}}
		} else {
			r.Failures = step.Expect.Check(did)
		}
		for k := range r.Failures {
			f := &r.Failures[k]
			if f.Step, f.At = i+1, step.Text; f.Line == 0 {
				f.Line = step.Line
			}
		}
		if len(r.Failures) > 0 && did != nil {
			r.Logs = logs(did)
		}
	}
	r.Passed, r.Wall = len(r.Failures) == 0, time.Since(began)
	return r
}

func logs(did *cases.Did) (lines []string) {
	for _, r := range did.Runs {
		for _, l := range r.Outcome.Logs {
			lines = append(lines, l.Level+" "+l.Text)
		}
	}
	return lines
}

// invoke runs one invocation and waits for its outcome.
func (s *Stage) invoke(ctx context.Context, b *functions.Bundle, inv *functions.Invocation, ask func(functions.Read) functions.ReadAnswer) (*functions.Outcome, error) {
	s.next++
	inv.ID = s.next
	done := make(chan *functions.Outcome, 1)
	s.pool.Submit(sandbox.Job{Inv: inv, Bundle: b, Ask: ask, Done: func(o *functions.Outcome) { done <- o }})
	select {
	case o := <-done:
		return o, nil
	case <-ctx.Done():
		return nil, errors.New("it was interrupted")
	}
}
