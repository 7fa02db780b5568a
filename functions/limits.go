package functions

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Limits that no function.yaml changes.
const (
	MaxSource   = 64 << 10 // limits.source: bytes of one Lua file; a larger one is not safe to parse
	MaxNesting  = 64       // limits.nesting: levels of a JSON value
	MaxValue    = 200      // bytes of the name of a state value or a timer
	MaxMeasured = 1 << 20  // bytes up to which a value is written out to learn how large it is
)

// OrDefault fills in what is 0 in the limits of one invocation.
func (l Limits) OrDefault() Limits {
	d := DefaultLimits()
	for _, x := range []struct{ v, or *int }{{&l.Effects, &d.Effects}, {&l.EffectBytes, &d.EffectBytes},
		{&l.Reads, &d.Reads}, {&l.LogBytes, &d.LogBytes}} {
		if *x.v <= 0 {
			*x.v = *x.or
		}
	}
	if l.Result <= 0 {
		l.Result = l.EffectBytes
	}
	if l.Timeout <= 0 {
		l.Timeout = d.Timeout
	}
	if l.Memory <= 0 {
		l.Memory = d.Memory
	}
	return l
}

// OverLimit says that something is over a limit, in the words that all of them have, wherever it is found: "limits.effects: 65
// effects, 64 are allowed".
func OverLimit(limit, found, allowed string) string {
	return fmt.Sprintf("limits.%s: %s, %s are allowed", limit, found, allowed)
}

func over(kind FaultKind, limit, found, allowed, instead string) *Fault {
	return &Fault{Kind: kind, Message: OverLimit(limit, found, allowed), Hint: "raise limits." + limit + " in function.yaml, or " + instead}
}

func overCount(limit string, n int, what string, allowed int, instead string) *Fault {
	found := strconv.Itoa(n) + " " + what
	if n > MaxMeasured {
		found = fmt.Sprintf("more than %d %s", MaxMeasured, what)
	}
	return over(FaultBadOutput, limit, found, strconv.Itoa(allowed), instead)
}

// OverEffects is the fault of too many effects.
func OverEffects(n, allowed int) *Fault {
	return overCount("effects", n, "effects", allowed, "do less for each event")
}

// OverEffectBytes is the fault of effects and a result that are too large together.
func OverEffectBytes(n, allowed int) *Fault {
	return overCount("effect_bytes", n, "bytes", allowed, "send less for each event")
}

// OverResult is the fault of a result that is too large.
func OverResult(n, allowed int) *Fault {
	return overCount("result", n, "bytes", allowed, "return less")
}

// OverReads is the fault of too many different reads.
func OverReads(n, allowed int) *Fault {
	return overCount("reads", n, "reads", allowed, "keep what belongs together in one table under one name")
}

// OverLog is the fault of too much text in the log.
func OverLog(n, allowed int) *Fault {
	return overCount("log_bytes", n, "bytes", allowed, "log less for each event")
}

// OverTimers is the fault of too many timers of a function that are set at once.
func OverTimers(n, allowed int) *Fault {
	return overCount("timers", n, "timers", allowed, "cancel some")
}

// OverStream is the fault of too many bytes for streams within a day.
func OverStream(n, allowed int64) *Fault {
	return over(FaultBadOutput, "stream_bytes", fmt.Sprintf("%d bytes today", n), strconv.FormatInt(allowed, 10), "append less")
}

// OverTimeout is the fault of an invocation that took too long.
func OverTimeout(ran, allowed time.Duration) *Fault {
	return over(FaultTimeout, "timeout", max(ran, allowed).Round(time.Millisecond).String(), allowed.String(), "do less for each event")
}

// OverMemory is the fault of an invocation that held too much memory.
func OverMemory(used, allowed int64) *Fault {
	return over(FaultMemory, "memory", mib(used), mib(allowed), "keep less at a time")
}

func mib(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

// OverNesting is the fault of a value that is nested too deep.
func OverNesting(what string) *Fault {
	return &Fault{Kind: FaultBadOutput, Message: OverLimit("nesting", what+" has more than "+strconv.Itoa(MaxNesting)+" levels", strconv.Itoa(MaxNesting))}
}

// OverSource says that a file of a function is too large.
func OverSource(file string, n int) error {
	return fmt.Errorf("%s:1: %s", file, OverLimit("source", fmt.Sprintf("%d bytes", n), strconv.Itoa(MaxSource)))
}

// TooDeep says whether a JSON value has more than MaxNesting levels. What is no JSON has any answer.
func TooDeep(value []byte) bool {
	depth, text, escaped := 0, false, false
	for _, c := range value {
		switch {
		case escaped:
			escaped = false
		case text:
			escaped, text = c == '\\', c != '"'
		case c == '"':
			text = true
		case c == '[' || c == '{':
			if depth++; depth > MaxNesting {
				return true
			}
		case c == ']' || c == '}':
			depth--
		}
	}
	return false
}

// Rate is how many events a function takes in a time, 0 for any number.
type Rate float64 // events a second

// The bounds of a Rate, beside 0.
const (
	leastRate Rate = 1.0 / 3600
	mostRate  Rate = 100_000
)

// ParseRate reads "10" or "10/s", "100/m", "1000/h".
func ParseRate(s string) (Rate, error) {
	number, unit, _ := strings.Cut(s, "/")
	per := map[string]Rate{"": 1, "s": 1, "m": 60, "h": 3600}[unit]
	n, err := strconv.ParseFloat(number, 64)
	if err != nil || per == 0 || strings.HasSuffix(s, "/") {
		return 0, fmt.Errorf("%q is no rate; write events a second such as 10, or 100/m, 1000/h", short(s))
	}
	if r := Rate(n) / per; n == 0 || (r >= leastRate && r <= mostRate) {
		return r, nil
	}
	return 0, fmt.Errorf("%s is out of range; allowed are 1/h to %.0f/s, or 0 for any number", short(s), float64(mostRate))
}
