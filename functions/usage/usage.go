// Package usage meters functions: what each revision of each function costs, hour by hour and day by day, in memory and on
// a disk that must last for years.
//
// # From an invocation to a day
//
// Every invocation gives a [Sample]. [Book.Add] adds it to a [Record] in memory: sums, highest values and four histograms, all
// of one size whatever happens. Once a minute [Book.Fold] adds the records that changed to those in the store, one write a
// function and revision, all of them in one update; if nothing has run, nothing is written. What was not folded when the
// power goes is lost: a minute at most.
//
// Records in the store belong to an hour. Once there are hours enough the oldest is added to its day and deleted, in one
// update; after days enough a day is deleted. So nothing is counted twice, and the disk holds a bounded number of records.
//
// # Which hour
//
// A clock that the kernel calls synchronised gives the hour. Otherwise hours are those of the gateway's own clock, which never
// jumps; such buckets know only roughly when they were. Age is always counted on the gateway's clock, and a jump of the wall
// clock opens a new bucket at most, so that no clock, however wrong, throws away or adds more than that (see calendar).
package usage

import (
	"time"

	"github.com/perigee-iot/perigee/functions"
)

// How an invocation ended. The first three are none of functions.FaultKind; the others are its values, in an order that the
// store knows: new ones go to the end.
const (
	ended      = 9 // how many there are
	endedOK    = 0
	endedRetry = 1
	endedOther = 2 // a kind of fault that this version does not know
)

// Endings are the names of how an invocation can end, as Record.Outcomes counts them: "ok", "retry" (it asked to be run
// again), the kinds of faults, and "other".
func Endings() [ended]string {
	return [ended]string{"ok", "retry", "other", string(functions.FaultError), string(functions.FaultTimeout), string(functions.FaultMemory),
		string(functions.FaultKilled), string(functions.FaultDenied), string(functions.FaultBadOutput)}
}

func endingOf(k functions.FaultKind) int {
	switch k {
	case functions.FaultError:
		return 3
	case functions.FaultTimeout:
		return 4
	case functions.FaultMemory:
		return 5
	case functions.FaultKilled:
		return 6
	case functions.FaultDenied:
		return 7
	case functions.FaultBadOutput:
		return 8
	}
	return endedOther
}

// Sample is what one invocation cost.
type Sample struct {
	Fault   functions.FaultKind // "": it ended well
	Retry   bool                // it asked to be run again
	Wall    time.Duration
	CPU     time.Duration
	Memory  int64 // bytes, highest seen; 0: it was too short to be measured
	In      int64 // bytes of the event's payload
	Out     int64 // bytes of effects and result, as limits.effect_bytes counts them
	Effects int   // how many
	Reads   int   // different values that it read
	Log     int64 // bytes of its log, as limits.log_bytes counts them
}

// SampleOf takes from an outcome what is metered. in is how many bytes its event's payload has.
func SampleOf(in int, o *functions.Outcome) Sample {
	s := Sample{Retry: o.Retry != nil, Wall: max(o.Usage.Wall, 0), CPU: max(o.Usage.CPU, 0), Memory: max(o.Usage.Memory, 0), In: int64(in), Out: int64(len(o.Result)), Effects: len(o.Effects), Reads: len(o.Reads)}
	if o.Fault != nil {
		s.Fault = o.Fault.Kind
	}
	for i := range o.Effects {
		s.Out += int64(len(o.Effects[i].Name) + len(o.Effects[i].Value))
	}
	for i := range o.Logs {
		s.Log += int64(len(o.Logs[i].Text)) + 1
	}
	return s
}

// Record is what invocations cost in all. The zero Record is that of none; adding two is the same in any order.
type Record struct {
	Outcomes  [ended]int64 // invocations by how they ended; see Endings
	Wall      time.Duration
	CPU       time.Duration
	In        int64 // bytes of payloads
	Out       int64 // bytes of effects and results
	Written   int64 // bytes of keys and values given to the store on behalf of the function
	State     int64 // bytes of the function's state: the most that was seen
	Effects   int64 // most of one invocation
	Reads     int64 // likewise
	Log       int64 // most bytes of log of one invocation
	PerSecond int64 // most invocations that ended within one second

	Walls    Histogram // µs
	CPUs     Histogram // µs
	Memories Histogram // KiB, of the invocations that were long enough to be measured
	Outs     Histogram // bytes
}

// Runs is how many invocations there were.
func (r *Record) Runs() (n int64) {
	for _, k := range r.Outcomes {
		n += k
	}
	return n
}

// Faults is how many invocations failed.
func (r *Record) Faults() int64 { return r.Runs() - r.Outcomes[endedOK] - r.Outcomes[endedRetry] }

// Count is how many invocations ended with that kind of fault.
func (r *Record) Count(k functions.FaultKind) int64 { return r.Outcomes[endingOf(k)] }

// sample adds one invocation.
func (r *Record) sample(s *Sample) {
	switch {
	case s.Fault != "":
		r.Outcomes[endingOf(s.Fault)]++
	case s.Retry:
		r.Outcomes[endedRetry]++
	default:
		r.Outcomes[endedOK]++
	}
	r.Wall += s.Wall
	r.CPU += s.CPU
	r.In += s.In
	r.Out += s.Out
	r.Effects = max(r.Effects, int64(s.Effects))
	r.Reads = max(r.Reads, int64(s.Reads))
	r.Log = max(r.Log, s.Log)
	r.Walls.add(s.Wall.Microseconds())
	r.CPUs.add(s.CPU.Microseconds())
	if s.Memory > 0 {
		r.Memories.add((s.Memory + 1023) >> 10)
	}
	r.Outs.add(s.Out)
}

// Add adds another record: sums to sums, and of highest values the higher one.
func (r *Record) Add(o *Record) {
	for i, n := range o.Outcomes {
		r.Outcomes[i] += n
	}
	r.Wall += o.Wall
	r.CPU += o.CPU
	r.In += o.In
	r.Out += o.Out
	r.Written += o.Written
	r.State = max(r.State, o.State)
	r.Effects = max(r.Effects, o.Effects)
	r.Reads = max(r.Reads, o.Reads)
	r.Log = max(r.Log, o.Log)
	r.PerSecond = max(r.PerSecond, o.PerSecond)
	r.Walls.merge(&o.Walls)
	r.CPUs.merge(&o.CPUs)
	r.Memories.merge(&o.Memories)
	r.Outs.merge(&o.Outs)
}
