// Package drivertest is the one suite that every driver passes: what the gateway relies on, whatever hangs on it.
//
//	drivertest.Run(t, func(t *testing.T) drivertest.Subject { … })
//
// It runs in real time and waits for conditions, so that drivers with real peers can use it as well as those that need
// none; the waits end after a deadline that is only there to end a test that has failed.
package drivertest

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/perigee-iot/perigee/drivers"
	"github.com/perigee-iot/perigee/internal/event"
)

// deadline ends a wait that will not be fulfilled.
const deadline = 30 * time.Second

// Subject is what the suite tests: the parts of a device, or a source alone.
type Subject struct {
	Source   drivers.Source
	Reader   drivers.Reader
	Actuator drivers.Actuator
	Values   []any // that the actuator takes
	// Poke makes the source produce an event; nil if it does so by itself. Events must come within milliseconds.
	Poke func()
	// Type of the events; default event.Reading.
	Type string
	// Disconnect takes away the far side; nil if there is none. Run, Read and Write must then wrap ErrNotConnected.
	Disconnect func()
}

// Of is the Subject of a device.
func Of(d *drivers.Device) Subject {
	return Subject{Source: d.Source, Reader: d.Reader, Actuator: d.Actuator}
}

// Run runs the suite; each test gets a subject of its own.
func Run(t *testing.T, subject func(t *testing.T) Subject) {
	source := func(s Subject) bool { return s.Source != nil }
	for _, test := range []struct {
		name    string
		applies func(Subject) bool
		run     func(*testing.T, Subject)
	}{
		{"EventsAreWhole", source, eventsAreWhole},
		{"RunEndsWithContext", source, runEndsWithContext},
		{"RunsAgain", source, runsAgain},
		{"OneEventAtATime", source, oneEventAtATime},
		{"EndsWhileEmitBlocks", source, endsWhileEmitBlocks},
		{"EndsWhenEmitFails", source, endsWhenEmitFails},
		{"ReadsAndWritesAnyway", func(s Subject) bool { return s.Reader != nil || s.Actuator != nil }, readsAndWritesAnyway},
		{"NotConnected", func(s Subject) bool { return s.Disconnect != nil }, notConnected},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := subject(t)
			if s.Type == "" {
				s.Type = event.Reading
			}
			if test.applies(s) {
				test.run(t, s)
			}
		})
	}
}

// running is a source that runs.
type running struct {
	t      *testing.T
	s      Subject
	stop   context.CancelFunc
	events chan *event.Event
	ended  chan error
	before int // goroutines
}

// start runs the source; emit, if not nil, takes the events instead of the channel.
func start(t *testing.T, s Subject, emit drivers.Emit) *running {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	r := &running{t: t, s: s, stop: stop, events: make(chan *event.Event, 1024), ended: make(chan error, 1), before: runtime.NumGoroutine()}
	if emit == nil {
		emit = func(ctx context.Context, d drivers.Delivery) error {
			select {
			case r.events <- d.Event:
			default: // enough
			}
			if d.Ack != nil {
				d.Ack(nil)
			}
			return ctx.Err()
		}
	}
	go func() { r.ended <- s.Source.Run(ctx, emit) }()
	t.Cleanup(stop)
	return r
}

// wait polls until ok, poking the source meanwhile.
func (r *running) wait(what string, ok func() bool) {
	r.t.Helper()
	for end := time.Now().Add(deadline); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			r.t.Fatalf("waited in vain for %s", what)
		}
		if r.s.Poke != nil {
			r.s.Poke()
		}
	}
}

func (r *running) next() *event.Event {
	r.t.Helper()
	var e *event.Event
	r.wait("an event", func() bool {
		select {
		case e = <-r.events:
			return true
		case err := <-r.ended:
			r.t.Fatalf("Run ended: %v", err)
		default:
		}
		return false
	})
	return e
}

// end cancels, waits for Run and for its goroutines.
func (r *running) end() error {
	r.t.Helper()
	r.stop()
	var err error
	r.s.Poke = nil
	r.wait("Run to end", func() bool {
		select {
		case err = <-r.ended:
			return true
		default:
			return false
		}
	})
	r.wait("goroutines to end", func() bool { return runtime.NumGoroutine() <= r.before })
	return err
}

func eventsAreWhole(t *testing.T, s Subject) {
	r := start(t, s, nil)
	for range 3 {
		e := r.next()
		if e.Source == "" || e.Subject == "" || e.Type != s.Type {
			t.Errorf("source %q, subject %q, type %q; the type must be %q and none empty", e.Source, e.Subject, e.Type, s.Type)
		}
		if !e.Time.IsZero() && (e.Time.Location() != time.UTC || e.Time.Nanosecond()%int(time.Millisecond) != 0) {
			t.Errorf("time %v is not UTC to the millisecond", e.Time)
		}
		var fields map[string]any
		if err := json.Unmarshal(e.Data, &fields); err != nil || len(fields) == 0 {
			t.Errorf("data %q is no JSON object with fields: %v", e.Data, err)
		}
		if s.Type == event.Reading {
			checkFields(t, fields)
		}
	}
	if err := r.end(); err != nil {
		t.Errorf("Run returned %v after its context ended, want nil", err)
	}
}

func checkFields(t *testing.T, fields drivers.Fields) {
	t.Helper()
	for name, v := range fields {
		switch v := v.(type) {
		case nil, bool, string:
		case float64:
			if math.IsNaN(v) || math.IsInf(v, 0) {
				t.Errorf("field %s is %v", name, v)
			}
		default:
			t.Errorf("field %s is a %T; allowed are nil, bool, float64 and string", name, v)
		}
	}
}

func runEndsWithContext(t *testing.T, s Subject) {
	r := start(t, s, nil)
	if err := r.end(); err != nil {
		t.Errorf("Run returned %v, want nil", err)
	}
}

func runsAgain(t *testing.T, s Subject) {
	for range 3 {
		r := start(t, s, nil)
		r.next()
		if err := r.end(); err != nil {
			t.Fatalf("Run returned %v, want nil", err)
		}
	}
}

// blocker is an emit that blocks until it is released, and counts.
type blocker struct {
	mu      sync.Mutex
	inside  int
	most    int
	total   int
	release chan struct{}
}

func (b *blocker) emit(ctx context.Context, _ drivers.Delivery) error {
	b.mu.Lock()
	b.inside++
	b.total++
	b.most = max(b.most, b.inside)
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		b.inside--
		b.mu.Unlock()
	}()
	select {
	case <-b.release:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (b *blocker) seen(n int) func() bool {
	return func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.total >= n
	}
}

func oneEventAtATime(t *testing.T, s Subject) {
	b := &blocker{release: make(chan struct{})}
	r := start(t, s, b.emit)
	for n := 1; n <= 3; n++ {
		r.wait("an event", b.seen(n))
		for range 20 { // what comes meanwhile must wait
			if s.Poke != nil {
				s.Poke()
			}
			runtime.Gosched()
		}
		b.release <- struct{}{}
	}
	if err := r.end(); err != nil {
		t.Errorf("Run returned %v, want nil", err)
	}
	if b.most != 1 {
		t.Errorf("%d events were emitted at once; emit is the back-pressure and is called by one goroutine", b.most)
	}
}

func endsWhileEmitBlocks(t *testing.T, s Subject) {
	b := &blocker{release: make(chan struct{})}
	r := start(t, s, b.emit)
	r.wait("an event", b.seen(1))
	if err := r.end(); err != nil {
		t.Errorf("Run returned %v after its context ended, want nil", err)
	}
}

func endsWhenEmitFails(t *testing.T, s Subject) {
	stopping := errors.New("the gateway is stopping")
	r := start(t, s, func(context.Context, drivers.Delivery) error { return stopping })
	var err error
	r.wait("Run to end", func() bool {
		select {
		case err = <-r.ended:
			r.ended <- err
			return true
		default:
			return false
		}
	})
	if err == nil || !errors.Is(err, stopping) {
		t.Errorf("Run returned %v, want what emit returned", err)
	}
	_ = r.end()
}

func readsAndWritesAnyway(t *testing.T, s Subject) {
	use := func() {
		ctx, cancel := context.WithTimeout(t.Context(), deadline)
		defer cancel()
		if s.Reader != nil {
			fields, err := s.Reader.Read(ctx)
			if err != nil {
				t.Errorf("Read: %v", err)
			}
			checkFields(t, fields)
		}
		if s.Actuator != nil {
			for _, v := range s.Values {
				if err := s.Actuator.Write(ctx, v); err != nil {
					t.Errorf("Write(%v): %v", v, err)
				}
			}
			if err := s.Actuator.Write(ctx, []int{1}); !errors.Is(err, drivers.ErrRefused) {
				t.Errorf("Write of a list returned %v, which must wrap ErrRefused; values are bool, float64, string or nil", err)
			}
		}
	}
	use() // before it runs
	if s.Source != nil {
		r := start(t, s, nil)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 5 {
					use()
				}
			})
		}
		wg.Wait()
		_ = r.end()
	}
	use() // after its end
}

func notConnected(t *testing.T, s Subject) {
	s.Disconnect()
	check := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, drivers.ErrNotConnected) {
			t.Errorf("%s returned %v, which must wrap ErrNotConnected", what, err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	if s.Source != nil {
		check("Run", s.Source.Run(ctx, func(context.Context, drivers.Delivery) error { return nil }))
	}
	if s.Reader != nil {
		_, err := s.Reader.Read(ctx)
		check("Read", err)
	}
	if s.Actuator != nil && len(s.Values) > 0 {
		check("Write", s.Actuator.Write(ctx, s.Values[0]))
	}
}
