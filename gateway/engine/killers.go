package engine

import (
	"fmt"
	"time"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/functions/rules"
)

// A worker that has to be killed costs the others what starting the next one takes. A few deaths are an accident, or one
// event that fails on each of its attempts; a function of which workers die again and again is paused.
const (
	maxKills   = 10          // workers lost to one function before it is paused
	killIsPast = time.Minute // after which one of them is forgotten
)

// kills are the workers that a function has lost lately.
type kills struct {
	n     int
	since time.Duration // when the oldest of them begins to count as forgotten
}

// add counts one and says whether it is one too many.
func (k *kills) add(now time.Duration) bool {
	if past := int((now - k.since) / killIsPast); past > 0 {
		k.n = max(k.n-past, 0)
		k.since += time.Duration(past) * killIsPast
	}
	if k.n == 0 {
		k.since = now
	}
	k.n++
	return k.n >= maxKills
}

// killed notes that a worker was lost to a function, and pauses one to which too many are.
func (e *Engine) killed(f *function, fault *functions.Fault) {
	e.mu.Lock()
	if !f.kills.add(e.clock.Now()) || f.State != Active {
		e.mu.Unlock()
		return
	}
	f.kills = kills{}
	reason := fmt.Sprintf("it has cost %d workers lately, the last one: %s; correct it and apply it, or: perigee functions resume %s",
		maxKills, rules.Printable(fault.Error(), 200), f.Name)
	f.State, f.Reason = Paused, reason
	e.reroute()
	revision := f.dep.Bundle.Digest
	e.mu.Unlock()
	e.log.Error("a function is paused: it kills its workers again and again", "function", f.Name, "reason", reason)
	if e.opt.OnPause != nil {
		e.opt.OnPause(f.Name, revision, reason)
	}
}
