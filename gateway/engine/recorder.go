package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/functions/cases"
	"github.com/perigee-iot/perigee/functions/recording"
)

// Bounds of a recording. Nothing of it is kept in the gateway but what whoever records has yet to take.
const (
	maxRecorders       = 2         // at once
	maxRecorderBytes   = 4 << 20   // of invocations that wait for one who records; what comes then is left out
	maxRecordedBytes   = 256 << 10 // of what one invocation read
	defaultRecordTime  = time.Minute
	maxRecordTime      = 24 * time.Hour
	defaultRecordBytes = 16 << 20
	maxRecordBytes     = 1 << 30
)

// RecordOptions say what is recorded, and for how long.
type RecordOptions struct {
	Function    string // "": all
	Key         *string
	For         time.Duration // 0: a minute; 24 h at most
	Bytes       int64         // 0: 16 MiB; 1 GiB at most
	Invocations int           // 0: any number
	Version     string        // of the gateway, for the first line
}

// ErrRecording is wrapped by the errors about recordings that cannot begin.
var ErrRecording = errors.New("nothing is recorded")

func (o *RecordOptions) check() error {
	if o.For == 0 {
		o.For = defaultRecordTime
	}
	if o.Bytes == 0 {
		o.Bytes = defaultRecordBytes
	}
	switch {
	case o.For < 0 || o.For > maxRecordTime:
		return fmt.Errorf("%w: it can take up to %v, not %v", ErrRecording, maxRecordTime, o.For)
	case o.Bytes < 0 || o.Bytes > maxRecordBytes:
		return fmt.Errorf("%w: it can have up to %d MiB", ErrRecording, maxRecordBytes>>20)
	case o.Invocations < 0:
		return fmt.Errorf("%w: %d invocations are none", ErrRecording, o.Invocations)
	}
	return nil
}

// recorders are those who record now.
type recorders struct {
	active atomic.Int32 // their number: while it is 0, nothing else is looked at

	mu   sync.Mutex
	list []*recorder
}

// recorder is one of them, and what it has yet to take. An invocation is offered when its outcome has joined a group of the store; if that is
// dropped, as with a failing disk, the event runs again and stands in the recording twice.
type recorder struct {
	opt   RecordOptions
	woken chan struct{} // capacity 1

	mu    sync.Mutex
	queue []*cases.Record
	bytes int
	left  map[string]int // left out and not told yet
}

// wants says how many bytes of answers an invocation may note for those who record; 0 if nobody does.
func (l *recorders) wants() int {
	if l.active.Load() == 0 {
		return 0
	}
	return maxRecordedBytes
}

// add offers an invocation that has an outcome to those who record it.
func (l *recorders) add(j *job, o *functions.Outcome, v verdict) {
	if l.active.Load() == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	var rec *cases.Record
	for _, r := range l.list {
		if (r.opt.Function != "" && r.opt.Function != j.fn.Name) || (r.opt.Key != nil && *r.opt.Key != j.key) {
			continue
		}
		if rec == nil {
			rec = j.record(o, v)
		}
		r.offer(rec, !j.whole())
	}
}

func (r *recorder) offer(rec *cases.Record, large bool) {
	size := recordSize(rec)
	r.mu.Lock()
	switch {
	case large:
		r.left[recording.TooLarge]++
	case r.bytes+size > maxRecorderBytes:
		r.left[recording.TooFast]++
	default:
		r.queue = append(r.queue, rec)
		r.bytes += size
	}
	r.mu.Unlock()
	select {
	case r.woken <- struct{}{}:
	default:
	}
}

// take returns what waits, and what was left out before it.
func (r *recorder) take() (list []*cases.Record, left map[string]int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	list, left = r.queue, r.left
	r.queue, r.bytes, r.left = nil, 0, map[string]int{}
	return list, left
}

func (l *recorders) begin(o RecordOptions) (*recorder, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.list) == maxRecorders {
		return nil, fmt.Errorf("%w: %d others record already, and there is no room for more", ErrRecording, maxRecorders)
	}
	r := &recorder{opt: o, woken: make(chan struct{}, 1), left: map[string]int{}}
	l.list = append(l.list, r)
	l.active.Store(int32(len(l.list)))
	return r, nil
}

func (l *recorders) end(r *recorder) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = slices.DeleteFunc(l.list, func(o *recorder) bool { return o == r })
	l.active.Store(int32(len(l.list)))
}

// RecordWindow passes on a recording, line by line, of what happens from now on, until it has what o asks for or ctx ends. Secrets are not in it.
// One who takes lines too slowly misses invocations, and the recording says so; nothing else waits for it.
func (e *Engine) RecordWindow(ctx context.Context, o RecordOptions, emit func(line []byte) error) error {
	if err := o.check(); err != nil {
		return err
	}
	r, err := e.recorders.begin(o)
	if err != nil {
		return err
	}
	defer e.recorders.end(r)
	now, _ := e.clock.Wall()
	w := &tape{recorder: r, secrets: e.opt.Secrets, emit: emit, functions: map[string]*recording.Function{}, left: map[string]int{}}
	begin := &recording.Begin{Format: recording.Format, Version: recording.Version, Gateway: e.opt.Gateway, Perigee: o.Version, At: now.UTC(), Function: o.Function, Key: o.Key}
	if err := w.line(&recording.Line{Begin: begin}); err != nil {
		return err
	}
	timer := time.NewTimer(o.For)
	defer timer.Stop()
	why := ""
	for why == "" {
		select {
		case <-r.woken:
		case <-timer.C:
			why = recording.EndTime
		case <-ctx.Done():
			why = recording.EndGateway // or nobody takes it any more
		}
		full, err := w.pass()
		if err != nil {
			return err
		}
		if full != "" {
			why = full
		}
	}
	now, _ = e.clock.Wall()
	end := &recording.End{Why: why, At: now.UTC(), Invocations: w.count}
	if len(w.left) > 0 {
		end.LeftOut = w.left
	}
	if err := w.line(&recording.Line{End: end}); err != nil {
		return err
	}
	return ctx.Err()
}

// tape is a recording on its way out.
type tape struct {
	*recorder
	secrets   Secrets
	emit      func(line []byte) error
	functions map[string]*recording.Function
	bytes     int64
	count     int
	left      map[string]int
}

func (w *tape) line(l *recording.Line) error {
	b, err := recording.Encode(l)
	if err != nil {
		return err
	}
	w.bytes += int64(len(b))
	return w.emit(b)
}

// pass passes on what waits, and says why that was the end, if it was.
func (w *tape) pass() (full string, err error) {
	list, left := w.take()
	for _, rec := range list {
		full, err := w.invocation(rec, left)
		if full != "" || err != nil {
			return full, err
		}
	}
	return "", w.leftOut(left)
}

func (w *tape) invocation(rec *cases.Record, left map[string]int) (full string, err error) {
	var mask func(string) string
	if w.secrets.Longest() > 0 {
		mask = w.secrets.Mask
	}
	f, i := recording.Of(rec, mask)
	b, err := recording.Encode(&recording.Line{Invocation: i})
	if errors.Is(err, recording.ErrTooLarge) {
		left[recording.TooLarge]++
		return "", nil
	}
	if err != nil {
		return "", err
	}
	if w.bytes+int64(len(b)) > w.opt.Bytes {
		return recording.EndSize, nil
	}
	if was := w.functions[f.Name]; was == nil || !was.SameSettings(f) {
		w.functions[f.Name] = f
		if err := w.line(&recording.Line{Function: f}); err != nil {
			return "", err
		}
	}
	w.bytes += int64(len(b))
	w.count++
	if err := w.emit(b); err != nil {
		return "", err
	}
	if w.count == w.opt.Invocations {
		return recording.EndCount, nil
	}
	return "", nil
}

// leftOut tells that invocations were left out.
func (w *tape) leftOut(left map[string]int) error {
	if len(left) == 0 {
		return nil
	}
	for why, n := range left {
		w.left[why] += n
	}
	return w.line(&recording.Line{LeftOut: &recording.LeftOut{Invocations: maps.Clone(left)}})
}
