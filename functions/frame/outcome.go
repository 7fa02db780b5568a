package frame

import (
	"fmt"
	"math"
	"time"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/internal/wire"
)

const (
	maxEffects   = 1024
	maxReads     = 1024
	maxLogs      = 256
	maxLogText   = 8 << 10
	maxMessage   = 2 << 10
	maxTraceback = 10
	maxTraceLine = 256
	maxHint      = 512
	maxWhy       = 512
)

// What an invocation came to: the byte that says which part of the outcome follows.
const (
	succeeded = 0
	faulted   = 1
	retries   = 2
)

// Levels and fault kinds travel as their place in these lists, so that a worker cannot invent one.
var (
	levels = [...]string{"debug", "info", "warn", "error"}
	faults = [...]functions.FaultKind{
		functions.FaultError, functions.FaultTimeout, functions.FaultMemory,
		functions.FaultKilled, functions.FaultDenied, functions.FaultBadOutput,
	}
)

// place finds v in list, or answers the last place: an unknown level or kind counts as the gravest.
func place[T comparable](list []T, v T) byte {
	for i, x := range list {
		if x == v {
			return byte(i)
		}
	}
	return byte(len(list) - 1)
}

// AppendOutcome appends an Outcome frame. With a fault or a retry, effects and result do not count and are left out.
// Log lines and fault texts are shortened to the caps; effects and reads that are over theirs are an ErrTooBig.
func AppendOutcome(buf []byte, o *functions.Outcome) ([]byte, error) {
	if err := fits(o); err != nil {
		return buf, err
	}
	w := begin(buf, Outcome)
	w.Uint(o.ID)
	switch {
	case o.Fault != nil:
		w.Byte(faulted)
		putFault(w, o.Fault)
	case o.Retry != nil:
		w.Byte(retries)
		w.String(clip(o.Retry.Why, maxWhy))
		putDuration(w, o.Retry.After)
	default:
		w.Byte(succeeded)
		w.Bytes(o.Result)
		w.Uint(uint64(len(o.Effects)))
		for i := range o.Effects {
			putEffect(w, &o.Effects[i])
		}
	}
	w.Uint(uint64(len(o.Reads)))
	for _, r := range o.Reads {
		w.Byte(byte(r.Kind))
		w.String(r.Name)
	}
	logs := o.Logs[:min(len(o.Logs), maxLogs)]
	w.Uint(uint64(len(logs)))
	for _, l := range logs {
		w.Byte(place(levels[:], l.Level))
		w.String(clip(l.Text, maxLogText))
	}
	putDuration(w, o.Usage.Wall)
	putDuration(w, o.Usage.CPU)
	w.Uint(uint64(max(o.Usage.Memory, 0)))
	return end(w, len(buf), maxOutcome)
}

// fits checks what cannot be shortened.
func fits(o *functions.Outcome) error {
	if len(o.Effects) > maxEffects {
		return fmt.Errorf("%w: %d effects, at most %d", ErrTooBig, len(o.Effects), maxEffects)
	}
	if len(o.Reads) > maxReads {
		return fmt.Errorf("%w: %d reads, at most %d", ErrTooBig, len(o.Reads), maxReads)
	}
	for i := range o.Effects {
		if len(o.Effects[i].Name) > maxName {
			return nameTooBig(o.Effects[i].Name)
		}
		if by := o.Effects[i].By; math.IsNaN(by) || math.IsInf(by, 0) {
			return fmt.Errorf("%w: %q is changed by %v", ErrTooBig, o.Effects[i].Name, by)
		}
	}
	for _, r := range o.Reads {
		if len(r.Name) > maxName {
			return nameTooBig(r.Name)
		}
	}
	return nil
}

func nameTooBig(name string) error {
	return fmt.Errorf("%w: the name %q… has %d bytes, at most %d", ErrTooBig, name[:20], len(name), maxName)
}

// DecodeOutcome decodes the body of an Outcome frame. Result and values share its memory.
func DecodeOutcome(body []byte) (*functions.Outcome, error) {
	d := decode(body)
	o := &functions.Outcome{ID: d.Uint()}
	switch kind := d.Byte(); kind {
	case succeeded:
		o.Result = d.Bytes()
		if n := d.Count(maxEffects); n > 0 {
			o.Effects = make([]functions.Effect, n)
		}
		for i := range o.Effects {
			getEffect(d, &o.Effects[i])
		}
	case faulted:
		o.Fault = getFault(d)
	case retries:
		o.Retry = &functions.RetryAsk{Why: d.text(maxWhy), After: d.duration()}
	default:
		d.breach("an outcome of kind %d", kind)
	}
	if n := d.Count(maxReads); n > 0 {
		o.Reads = make([]functions.Read, n)
	}
	for i := range o.Reads {
		o.Reads[i] = getRead(d)
	}
	if n := d.Count(maxLogs); n > 0 {
		o.Logs = make([]functions.LogLine, n)
	}
	for i := range o.Logs {
		o.Logs[i] = functions.LogLine{Level: pick(d, levels[:]), Text: d.text(maxLogText)}
	}
	o.Usage = functions.Usage{Wall: d.duration(), CPU: d.duration(), Memory: int64(d.duration())}
	return o, d.done(Outcome)
}

// pick reads a place in list.
func pick[T any](d *decoder, list []T) T {
	i := d.Byte()
	if int(i) >= len(list) {
		d.breach("%d where there are %d choices", i, len(list))
		i = 0
	}
	return list[i]
}

// What of an effect is set, as bits.
const (
	hasBy       = 1
	hasRetain   = 2
	hasID       = 4
	hasFor      = 8
	hasNotAfter = 16
)

func putEffect(w *wire.Writer, e *functions.Effect) {
	var has byte
	for i, set := range [...]bool{e.By != 0, e.Retain, e.WithID, e.For != 0, e.NotAfter != 0} {
		if set {
			has |= 1 << i
		}
	}
	w.Byte(byte(e.Kind))
	w.Byte(has)
	w.Byte(e.QoS)
	w.String(e.Name)
	w.Bytes(e.Value)
	if has&hasBy != 0 {
		w.Float(e.By)
	}
	if has&hasFor != 0 {
		putDuration(w, e.For)
	}
	if has&hasNotAfter != 0 {
		putDuration(w, e.NotAfter)
	}
}

func getEffect(d *decoder, e *functions.Effect) {
	e.Kind = functions.EffectKind(d.Byte())
	has := d.Byte()
	e.QoS = d.Byte()
	if e.Kind < functions.SetState || e.Kind > functions.CallHTTP || e.QoS > 2 || has >= 2*hasNotAfter {
		d.breach("an effect of kind %d with QoS %d and flags %#x", e.Kind, e.QoS, has)
	}
	e.Retain, e.WithID = has&hasRetain != 0, has&hasID != 0
	e.Name = d.capped(maxName)
	e.Value = d.Bytes()
	if has&hasBy != 0 {
		e.By = d.Float()
		if math.IsNaN(e.By) || math.IsInf(e.By, 0) {
			d.breach("a change by %v", e.By)
		}
	}
	if has&hasFor != 0 {
		e.For = d.duration()
	}
	if has&hasNotAfter != 0 {
		e.NotAfter = d.duration()
	}
}

// putDuration writes a duration, a negative one as 0.
func putDuration(w *wire.Writer, t time.Duration) { w.Uint(uint64(max(t, 0))) }

func (d *decoder) duration() time.Duration {
	v := d.Uint()
	if v > math.MaxInt64 {
		d.breach("a duration of %d ns", v)
		return 0
	}
	return time.Duration(v)
}

func putFault(w *wire.Writer, f *functions.Fault) {
	w.Byte(place(faults[:], f.Kind))
	w.String(clip(f.Message, maxMessage))
	lines := f.Traceback[:min(len(f.Traceback), maxTraceback)]
	w.Uint(uint64(len(lines)))
	for _, l := range lines {
		w.String(clip(l, maxTraceLine))
	}
	w.String(clip(f.Hint, maxHint))
}

func getFault(d *decoder) *functions.Fault {
	f := &functions.Fault{Kind: pick(d, faults[:]), Message: d.line(maxMessage)}
	for range d.Count(maxTraceback) {
		f.Traceback = append(f.Traceback, d.line(maxTraceLine))
	}
	f.Hint = d.line(maxHint)
	return f
}
