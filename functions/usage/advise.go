package usage

import (
	"fmt"
	"math/bits"
	"time"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/internal/units"
)

// Enough is how many invocations advice on a limit wants to rest on.
const Enough = 100

// Fit says how a limit fits what was seen.
type Fit string

const (
	FitUnknown Fit = "unknown" // too little was seen
	FitGood    Fit = "good"    // stays as it is
	FitWide    Fit = "wide"    // could be lower
	FitTight   Fit = "tight"   // was hit, or nearly
)

// Advice is what was seen of one limit. Values are written as in function.yaml.
type Advice struct {
	Limit   string // "timeout", "effect_bytes", …: a key below limits
	Now     string
	P99     string // "" where only the maximum is known
	Max     string
	Suggest string // what to write; the same as Now where that fits, "" where too little was seen
	Fit     Fit
	Why     string // for people: on what it rests, and what is near
	N       int64  // on how many invocations it rests
}

// question is one limit with what was seen of it, in its unit.
type question struct {
	limit      string
	now        int64
	p99, max   int64 // p99 -1: not known
	n          int64
	hits       int64  // faults of this limit
	low, high  int64  // suggestions are within these
	open       bool   // there is no such limit now
	written    string // how now is written, if text does not know
	text       func(int64) string
	round      func(int64) int64 // up to a number that a person would write
	unmeasured string            // why there is nothing, where n is 0 though the function ran
}

// Advise says which limits suit what was seen of one revision: twice the highest value, or four times the p99 if that is more,
// rounded up. A limit that was hit, or came within a fifth of that, is suggested higher; none that fits is.
func Advise(now functions.Limits, r *Record) []Advice {
	duration := func(us int64) string { return units.Duration(time.Duration(us) * time.Microsecond).String() }
	size := func(n int64) string { return units.Size(n).String() }
	count := func(n int64) string { return fmt.Sprint(n) }
	runs := r.Runs()
	questions := []question{
		{limit: "timeout", now: now.Timeout.Microseconds(), p99: r.Walls.Quantile(0.99), max: r.Walls.Max(), n: r.Walls.N(), hits: r.Count(functions.FaultTimeout),
			low: 50_000, high: (10 * time.Minute).Microseconds(), text: duration, round: roundDuration},
		{limit: "memory", now: now.Memory, p99: r.Memories.Quantile(0.99) << 10, max: r.Memories.Max() << 10, n: r.Memories.N(), hits: r.Count(functions.FaultMemory),
			low: 2 << 20, high: 1 << 30, text: size, round: roundPower, unmeasured: "every one was too short to be measured"},
		{limit: "effects", now: int64(now.Effects), p99: -1, max: r.Effects, n: runs, low: 4, high: functions.MaxEffects, text: count, round: roundPower},
		{limit: "reads", now: int64(now.Reads), p99: -1, max: r.Reads, n: runs, low: 8, high: functions.MaxReads, text: count, round: roundPower},
		{limit: "effect_bytes", now: int64(now.EffectBytes), p99: r.Outs.Quantile(0.99), max: r.Outs.Max(), n: r.Outs.N(),
			low: 1 << 10, high: functions.MaxEffectBytes, text: size, round: roundPower},
		{limit: "state", now: now.State, p99: -1, max: r.State, n: runs, low: 64 << 10, high: 256 << 20, text: size, round: roundPower},
		{limit: "log_bytes", now: int64(now.LogBytes), p99: -1, max: r.Log, n: runs, low: 1 << 10, high: 64 << 10, text: size, round: roundPower},
		rateQuestion(now.Rate, r),
	}
	out := make([]Advice, 0, len(questions))
	for _, q := range questions {
		out = append(out, q.answer(runs))
	}
	return out
}

// rateQuestion is about events a second. Without a limit of its own a function takes any number, and advice is on one that
// would stop a flood: twice as much room as others get, since what comes faster waits.
func rateQuestion(now functions.Rate, r *Record) question {
	q := question{limit: "rate", now: int64(now), p99: -1, max: r.PerSecond, n: r.Runs(), low: 10, high: 100_000, open: now == 0,
		text: func(n int64) string { return fmt.Sprintf("%d/s", n) }, round: func(n int64) int64 { return roundDecimal(2*n, 1) }}
	if now == 0 || now != functions.Rate(q.now) {
		q.written = fmt.Sprint(float64(now))
	}
	if now > 0 && now < 1 {
		q.n, q.max, q.unmeasured = 0, 0, "less than one a second is not measured"
	}
	return q
}

func (q *question) answer(runs int64) Advice {
	a := Advice{Limit: q.limit, Now: q.text(q.now), Max: q.text(q.rough(q.max)), N: q.n, Fit: FitUnknown}
	if q.p99 >= 0 {
		a.P99 = q.text(q.rough(q.p99))
	}
	if q.written != "" {
		a.Now = q.written
	}
	q.max, q.p99 = min(q.max, 1<<40), min(q.p99, 1<<40) // so that nothing below overflows, whatever the disk made of them
	want := min(max(q.round(max(2*q.max, 4*q.p99)), q.low), q.high)
	near := q.max >= q.now-q.now/5 && q.max > 0 && !q.open
	switch {
	case q.hits > 0:
		a.Fit, want = FitTight, min(max(want, q.round(2*q.now)), q.high)
		a.Why = fmt.Sprintf("hit by %s of %s invocations", units.Group(q.hits), units.Group(runs))
	case near:
		a.Fit = FitTight
		a.Why = fmt.Sprintf("the highest is %d %% of it", 100*min(q.max, q.now)/max(q.now, 1))
	case q.n == 0 && runs > 0 && q.unmeasured != "":
		a.P99, a.Max, a.Why = "", "", q.unmeasured
		return a
	case q.n < Enough:
		a.Why = fmt.Sprintf("rests on %s of the %d invocations that are wanted", units.Group(q.n), Enough)
		return a
	case want < q.now || q.open:
		a.Fit = FitWide
	default:
		a.Fit, want = FitGood, q.now
	}
	if a.Fit == FitTight && want <= q.now {
		want = q.now
		a.Why += "; it cannot be higher: do less in one invocation"
	}
	a.Suggest = q.text(want)
	return a
}

// rough leaves a measured value as many digits as people read.
func (q *question) rough(v int64) int64 {
	step := int64(1)
	switch {
	case q.limit == "timeout" && v < 1000:
		step = 10
	case q.limit == "timeout":
		for step = 100; step < v/100; step *= 10 {
		}
	case q.limit == "effects", q.limit == "reads", q.limit == "rate", v < 1<<10:
	case v < 10<<20:
		step = 1 << 10
	default:
		step = 1 << 20
	}
	return (v + step - 1) / step * step
}

// roundDuration rounds µs up to 1, 2 or 5 of a power of ten ms, and above a second to whole seconds.
func roundDuration(us int64) int64 {
	if us > 10_000_000 {
		return (us + 999_999) / 1_000_000 * 1_000_000
	}
	return roundDecimal(us, 1000)
}

// roundDecimal rounds up to 1, 2 or 5 of a power of ten times unit.
func roundDecimal(n, unit int64) int64 {
	for step := unit; ; step *= 10 {
		for _, k := range []int64{1, 2, 5} {
			if n <= k*step {
				return k * step
			}
		}
	}
}

// roundPower rounds up to a power of two.
func roundPower(n int64) int64 {
	if n <= 1 {
		return 1
	}
	return 1 << bits.Len64(uint64(n-1))
}
