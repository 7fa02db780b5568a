package schedule

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/drivers"
	"github.com/perigee-iot/perigee/drivers/drivertest"
	"github.com/perigee-iot/perigee/internal/event"
)

func TestSuite(t *testing.T) {
	drivertest.Run(t, func(*testing.T) drivertest.Subject {
		s := New()
		s.Set(map[string]time.Duration{"a": 5 * time.Millisecond, "b": 7 * time.Millisecond})
		return drivertest.Subject{Source: s, Type: event.Tick}
	})
}

// recorder writes down when ticks come.
type recorder struct {
	start time.Time
	got   []string
	delay time.Duration // what the next emit takes
}

func (r *recorder) emit(_ context.Context, d drivers.Delivery) error {
	r.got = append(r.got, fmt.Sprintf("%v %s %s", time.Since(r.start), d.Event.Subject, d.Event.Data))
	time.Sleep(r.delay)
	r.delay = 0
	return nil
}

func (r *recorder) take() []string {
	got := r.got
	r.got = nil
	return got
}

func start(t *testing.T, s *Schedule, firstTakes time.Duration) *recorder {
	ctx, stop := context.WithCancel(t.Context())
	r := &recorder{start: time.Now(), delay: firstTakes}
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, r.emit) }()
	t.Cleanup(func() {
		stop()
		require.NoError(t, <-done)
	})
	return r
}

func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestPeriods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New()
		s.Set(map[string]time.Duration{"a": 2 * time.Second, "b": 5 * time.Second, "a#2": 3 * time.Second})
		time.Sleep(time.Hour) // until it runs, nothing is due
		r := start(t, s, 0)
		pass(5 * time.Second)
		require.Equal(t, []string{
			`2s a {"every":2,"missed":0}`, `3s a {"every":3,"missed":0}`, `4s a {"every":2,"missed":0}`, `5s b {"every":5,"missed":0}`,
		}, r.take())
		require.Zero(t, s.Missed())
	})
}

func TestSetLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New()
		r := start(t, s, 0)
		pass(time.Second)
		require.Empty(t, r.take())
		s.Set(map[string]time.Duration{"a": 2 * time.Second, "b": 2 * time.Second, "zero": 0})
		pass(time.Second)
		s.Set(map[string]time.Duration{"a": 2 * time.Second, "b": 3 * time.Second}) // a keeps its rhythm, b begins anew
		pass(3 * time.Second)
		require.Equal(t, []string{`3s a {"every":2,"missed":0}`, `5s a {"every":2,"missed":0}`, `5s b {"every":3,"missed":0}`}, sorted(r.take()))
		s.Set(nil)
		pass(time.Hour)
		require.Empty(t, r.take())
		require.Empty(t, s.queue)
	})
}

// sorted puts the ticks of one moment in the order of their names.
func sorted(got []string) []string {
	for i := 1; i < len(got); i++ {
		if got[i][:2] == got[i-1][:2] && got[i] < got[i-1] {
			got[i], got[i-1] = got[i-1], got[i]
		}
	}
	return got
}

func TestStallGivesNoBurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New()
		s.Set(map[string]time.Duration{"a": time.Second})
		r := start(t, s, 10500*time.Millisecond)
		pass(13 * time.Second)
		require.Equal(t, []string{`1s a {"every":1,"missed":0}`, `11.5s a {"every":1,"missed":9}`, `12s a {"every":1,"missed":0}`, `13s a {"every":1,"missed":0}`}, r.take())
		require.Equal(t, int64(9), s.Missed())
	})
}

func TestManyEntries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New()
		set := map[string]time.Duration{}
		want := 0
		for i := 1; i <= 500; i++ {
			set[fmt.Sprint("f", i)] = time.Duration(i) * time.Second
			want += 1000 / i
		}
		s.Set(set)
		r := start(t, s, 0)
		pass(1000 * time.Second)
		require.Len(t, r.got, want)
		for i := 1; i <= 500; i += 2 {
			delete(set, fmt.Sprint("f", i))
		}
		s.Set(set)
		require.Len(t, s.queue, 250)
		for i, e := range s.queue {
			require.Equal(t, i, e.index)
		}
	})
}

func TestEmitError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New()
		s.Set(map[string]time.Duration{"a": time.Second})
		full := errors.New("full")
		require.ErrorIs(t, s.Run(t.Context(), func(context.Context, drivers.Delivery) error { return full }), full)
	})
}
