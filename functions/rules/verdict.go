package rules

import (
	"time"

	"github.com/perigee-iot/perigee/functions"
)

// Verdict is what becomes of an event after an attempt.
type Verdict struct {
	What  string           // "committed", "retry", "dead"
	Fault *functions.Fault // of the other two
	After time.Duration    // retry: how long to wait, 0 for what Backoff says
}

// Judge decides what becomes of an event after an attempt, from 1, whose outcome has been checked.
func Judge(retry functions.Retry, attempt int, o *functions.Outcome) Verdict {
	switch {
	case o.Retry != nil:
		v := Verdict{What: "retry", After: min(max(o.Retry.After, 0), retry.Max),
			Fault: &functions.Fault{Kind: functions.FaultError, Message: "it asked to be run again: " + Printable(o.Retry.Why, 200)}}
		if attempt >= retry.Attempts {
			v.What = "dead"
		}
		return v
	case o.Fault == nil:
		return Verdict{What: "committed"}
	case o.Fault.Kind.Passes() && attempt < retry.Attempts:
		return Verdict{What: "retry", Fault: o.Fault}
	}
	return Verdict{What: "dead", Fault: o.Fault}
}

// Backoff is the longest wait before the next attempt: it doubles with each one. A gateway leaves the upper half of it to chance.
func Backoff(r functions.Retry, attempt int) time.Duration {
	d := r.First
	for range attempt - 1 {
		if d *= 2; d >= r.Max {
			return r.Max
		}
	}
	return d
}
