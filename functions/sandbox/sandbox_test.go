package sandbox

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/internal/event"
)

var bundle = &functions.Bundle{Digest: "d1", Files: map[string][]byte{"main.lua": []byte("return function() end")}}

func newPool(t testing.TB, mode string, change func(*Options)) *Pool {
	t.Helper()
	o := Options{Command: fakeCommand(mode), Max: 2, Warm: 1, Log: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&o)
	}
	p, err := New(o)
	require.NoError(t, err)
	t.Cleanup(p.Close)
	return p
}

var lastID atomic.Uint64

func job(data string, done func(*functions.Outcome)) Job {
	return Job{
		Inv: &functions.Invocation{ID: lastID.Add(1), Function: "f", Revision: bundle.Digest,
			Event: &event.Event{ID: "e", Data: []byte(data)}, Limits: functions.Limits{Timeout: 5 * time.Second}},
		Bundle: bundle,
		Ask: func(r functions.Read) functions.ReadAnswer {
			if r.Name == "big" {
				return functions.ReadAnswer{Read: r, Value: bytes.Repeat([]byte("x"), 1<<19)}
			}
			return functions.ReadAnswer{Read: r, Value: []byte(r.Name + "!")}
		},
		Done: done,
	}
}

// run submits one job and waits for its outcome.
func run(t testing.TB, p *Pool, data string, change func(*Job)) *functions.Outcome {
	t.Helper()
	got := make(chan *functions.Outcome, 2)
	j := job(data, func(o *functions.Outcome) { got <- o })
	if change != nil {
		change(&j)
	}
	p.Submit(j)
	return receive(t, got)
}

func receive[T any](t testing.TB, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(30 * time.Second):
		t.Fatal("no answer in 30 s")
		panic("unreachable")
	}
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in 30 s: %s", what)
		}
	}
}

func TestRun(t *testing.T) {
	p := newPool(t, "honest", nil)
	o := run(t, p, "hello", nil)
	require.Nil(t, o.Fault)
	require.Equal(t, `"hello"`, string(o.Result))
	require.Equal(t, []functions.Effect{{Kind: functions.Publish, Name: "a/b", Value: []byte("hello")}}, o.Effects)
	require.Less(t, o.Usage.Wall, time.Minute, "what a worker says of its time is bounded by the clock")
	require.Less(t, o.Usage.CPU, time.Minute)
}

func TestAsk(t *testing.T) {
	p := newPool(t, "honest", nil)
	require.Equal(t, `"count!"`, string(run(t, p, "ask count", nil).Result))
}

func TestAskTooBig(t *testing.T) {
	p := newPool(t, "honest", nil)
	o := run(t, p, "ask count", func(j *Job) {
		j.Ask = func(functions.Read) functions.ReadAnswer { return functions.ReadAnswer{Value: make([]byte, 2<<20)} }
	})
	require.Contains(t, string(o.Result), "too big")
}

func TestNeed(t *testing.T) {
	p := newPool(t, "honest", nil)
	require.Equal(t, strconv.Quote(string(bundle.Files["main.lua"])), string(run(t, p, "need", nil).Result))
}

func TestCheck(t *testing.T) {
	p := newPool(t, "honest", func(o *Options) { o.Warm = 0 })
	require.Nil(t, p.Check(t.Context(), bundle))
	f := p.Check(t.Context(), &functions.Bundle{Digest: "d2", Files: map[string][]byte{"main.lua": []byte("bad code")}})
	require.Equal(t, &functions.Fault{Kind: functions.FaultError, Message: "bad code"}, f)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.Equal(t, functions.FaultTimeout, p.Check(ctx, bundle).Kind)
}

// TestHostile: whatever a worker does, its invocation gets one outcome, a fault, and the pool lives on.
func TestHostile(t *testing.T) {
	for _, mode := range []string{"unknown-frame", "gateway-frame", "giant", "bad-body", "foreign-outcome", "foreign-ask",
		"endless-asks", "foreign-need", "endless-needs", "revoked-unasked", "checked-unasked", "deaf"} {
		t.Run(mode, func(t *testing.T) {
			p := newPool(t, mode, nil)
			o := run(t, p, "x", nil)
			require.NotNil(t, o.Fault)
			require.Equal(t, functions.FaultKilled, o.Fault.Kind)
			require.Contains(t, o.Fault.Message, "breach")
			require.Empty(t, o.Effects)
			eventually(t, "the breach is counted", func() bool { return p.Stats().Breaches == 1 })
		})
	}
	for _, mode := range []string{"doubled-outcome", "late-ask"} {
		t.Run(mode, func(t *testing.T) {
			p := newPool(t, mode, nil)
			require.Equal(t, "1", string(run(t, p, "x", nil).Result))
			eventually(t, "the breach is counted", func() bool { return p.Stats().Breaches == 1 })
		})
	}
	for _, mode := range []string{"closes", "half-frame"} {
		t.Run(mode, func(t *testing.T) {
			p := newPool(t, mode, nil)
			require.Equal(t, functions.FaultKilled, run(t, p, "x", nil).Fault.Kind)
			eventually(t, "the death is counted", func() bool { return p.Stats().Crashes == 1 })
		})
	}
	for _, mode := range []string{"garbage-at-start", "outcome-before-ready", "ready-twice"} {
		t.Run(mode, func(t *testing.T) {
			p := newPool(t, mode, nil)
			eventually(t, "the breach is counted", func() bool { return p.Stats().Breaches >= 2 })
			require.NotEmpty(t, p.Stats().StartError)
		})
	}
}

func TestDeath(t *testing.T) {
	p := newPool(t, "honest", nil)
	o := run(t, p, "die", nil)
	require.Equal(t, functions.FaultKilled, o.Fault.Kind)
	require.Contains(t, o.Fault.Message, "killed from outside")
	o = run(t, p, "exit 3", nil)
	require.Equal(t, functions.FaultKilled, o.Fault.Kind)
	require.Contains(t, o.Fault.Message, "exit status 3 (fatal error: as told)")
	require.Nil(t, run(t, p, "hello", nil).Fault)
	require.EqualValues(t, 2, p.Stats().Crashes)
}

// TestDeathOfOne: what stands behind an invocation that kills its worker is run by another, and not to blame.
func TestDeathOfOne(t *testing.T) {
	p := newPool(t, "honest", func(o *Options) { o.Max = 1 })
	run(t, p, "warm", nil)
	var mu sync.Mutex
	faults := map[string]*functions.Fault{}
	var wg sync.WaitGroup
	var jobs []Job
	for _, data := range []string{"a", "die", "b", "c", "exit 2", "d", "e", "f"} {
		wg.Add(1)
		jobs = append(jobs, job(data, func(o *functions.Outcome) {
			mu.Lock()
			faults[data] = o.Fault
			mu.Unlock()
			wg.Done()
		}))
	}
	p.Submit(jobs...)
	wg.Wait()
	for data, f := range faults {
		require.Equal(t, data == "die" || data == "exit 2", f != nil, "%s: %v", data, f)
	}
	require.NotZero(t, p.Stats().Moved)
}

func TestTimeout(t *testing.T) {
	p := newPool(t, "honest", func(o *Options) { o.Grace = 20 * time.Millisecond })
	require.Nil(t, run(t, p, "warm", nil).Fault)
	begin := time.Now()
	o := run(t, p, "hang", func(j *Job) { j.Inv.Limits.Timeout = 50 * time.Millisecond })
	require.Equal(t, functions.FaultTimeout, o.Fault.Kind)
	require.GreaterOrEqual(t, time.Since(begin), 70*time.Millisecond)
	require.EqualValues(t, 1, p.Stats().Timeouts)
	require.Nil(t, run(t, p, "hello", nil).Fault)
}

// TestClock: the time of an invocation begins with the outcome of the one before it.
func TestClock(t *testing.T) {
	p := newPool(t, "honest", func(o *Options) { o.Max, o.Grace = 1, 50*time.Millisecond })
	require.Nil(t, run(t, p, "warm", nil).Fault)
	var wg sync.WaitGroup
	var faults atomic.Int32
	var jobs []Job
	for range 6 {
		wg.Add(1)
		j := job("sleep 100ms", func(o *functions.Outcome) {
			if o.Fault != nil {
				faults.Add(1)
			}
			wg.Done()
		})
		j.Inv.Limits.Timeout = 300 * time.Millisecond
		jobs = append(jobs, j)
	}
	p.Submit(jobs...)
	wg.Wait()
	require.Zero(t, faults.Load())
}

func TestMemory(t *testing.T) {
	p := newPool(t, "honest", nil)
	o := run(t, p, "hold", nil)
	require.Equal(t, functions.FaultMemory, o.Fault.Kind, o.Fault)
	require.EqualValues(t, 1, p.Stats().Memory)
}

func TestRevisionMustMatch(t *testing.T) {
	p := newPool(t, "honest", nil)
	o := run(t, p, "x", func(j *Job) { j.Inv.Revision = "other" })
	require.Equal(t, functions.FaultError, o.Fault.Kind)
}

func TestTooBigForAFrame(t *testing.T) {
	p := newPool(t, "honest", nil)
	o := run(t, p, strings.Repeat("x", 3<<20), nil)
	require.Equal(t, functions.FaultError, o.Fault.Kind)
	require.Nil(t, run(t, p, "x", nil).Fault)
	require.Nil(t, run(t, p, strings.Repeat("x", 200<<10), nil).Fault, "more than a socket buffer holds")
}

// TestMany: a thousand in flight over two workers; each is answered once, and each submitter's in its order.
func TestMany(t *testing.T) {
	p := newPool(t, "honest", nil)
	const submitters, each = 20, 50
	var wg sync.WaitGroup
	answered := make([]atomic.Int32, submitters*each)
	for s := range submitters {
		wg.Go(func() {
			for i := range each {
				got := make(chan *functions.Outcome, 2)
				text := fmt.Sprint(s, "/", i)
				p.Submit(job(text, func(o *functions.Outcome) {
					answered[s*each+i].Add(1)
					got <- o
				}))
				if o := <-got; o.Fault != nil || string(o.Result) != strconv.Quote(text) {
					t.Errorf("%s: %s %v", text, o.Result, o.Fault)
				}
			}
		})
	}
	var all sync.WaitGroup
	var burst atomic.Int32
	for range 1000 {
		all.Add(1)
		p.Submit(job("x", func(*functions.Outcome) { burst.Add(1); all.Done() }))
	}
	all.Wait()
	wg.Wait()
	require.EqualValues(t, 1000, burst.Load())
	for i := range answered {
		require.EqualValues(t, 1, answered[i].Load())
	}
}

func TestColdStartAndShrink(t *testing.T) {
	p := newPool(t, "honest", func(o *Options) { o.Warm, o.Idle = 0, 20*time.Millisecond })
	require.Equal(t, 2*p.opts.Depth, p.Room())
	idle := func() bool { s := p.Stats(); return s.Running == 0 && s.Started > 0 }
	eventually(t, "the first, which shows how workers are confined, ends when idle", idle)
	require.NotEmpty(t, p.Stats().Layers)
	for range 2 {
		require.Nil(t, run(t, p, "x", nil).Fault)
		eventually(t, "it ends when idle", idle)
	}
	s := p.Stats()
	require.EqualValues(t, 3, s.Started)
	require.Zero(t, s.Killed+s.Crashes+s.StartFailures)
}

func TestShrinkToWarm(t *testing.T) {
	p := newPool(t, "honest", func(o *Options) { o.Idle = 20 * time.Millisecond })
	var wg sync.WaitGroup
	for range 12 {
		wg.Add(1)
		p.Submit(job("sleep 10ms", func(*functions.Outcome) { wg.Done() }))
	}
	eventually(t, "it grows", func() bool { return p.Stats().Running == 2 })
	wg.Wait()
	eventually(t, "it shrinks", func() bool { return p.Stats().Running == 1 })
}

func TestRoom(t *testing.T) {
	roomy := make(chan struct{}, 100)
	p := newPool(t, "honest", func(o *Options) {
		o.Depth = 2
		o.OnRoom = func() { roomy <- struct{}{} }
	})
	require.Equal(t, 4, p.Room())
	var wg sync.WaitGroup
	for range 4 {
		wg.Add(1)
		p.Submit(job("sleep 50ms", func(*functions.Outcome) { wg.Done() }))
	}
	require.Zero(t, p.Room())
	receive(t, roomy)
	wg.Wait()
	eventually(t, "all room is back", func() bool { return p.Room() == 4 })
}

func TestCannotStart(t *testing.T) {
	p := newPool(t, "honest", func(o *Options) { o.Command = []string{"/no/such/program"} })
	eventually(t, "it is reported", func() bool { return strings.Contains(p.Stats().StartError, "/no/such/program") })
	p = newPool(t, "dies-at-start", nil)
	eventually(t, "it is reported", func() bool {
		return strings.Contains(p.Stats().StartError, "exit status 3 (panic: no [31mmemory[0m for this)")
	})
}

// TestJobsDoNotWaitForEver: while no worker can be started, jobs wait a while and then fail in a way that can pass.
func TestJobsDoNotWaitForEver(t *testing.T) {
	for _, mode := range []string{"dies-at-start", "ready-and-gone"} {
		p := newPool(t, mode, func(o *Options) { o.Warm = 0 })
		p.mu.Lock()
		p.patience = 150 * time.Millisecond
		p.mu.Unlock()
		o := run(t, p, "x", nil)
		require.NotNil(t, o.Fault)
		require.Equal(t, functions.FaultKilled, o.Fault.Kind)
	}
}

// TestReadyAndGoneIsNoLoop: workers that die idle are started ever less often.
func TestReadyAndGoneIsNoLoop(t *testing.T) {
	p := newPool(t, "ready-and-gone", func(o *Options) { o.Max = 1 })
	eventually(t, "the wait grows", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.failures >= 3
	})
	require.NotEmpty(t, p.Stats().StartError)
}

// TestRevokeRaces: invocations of all lengths about that at which the others are taken back.
func TestRevokeRaces(t *testing.T) {
	p := realPool(t, func(o *Options) { o.Max = 3 })
	busy := lua("return function(event) local t = os.clock() while os.clock() - t < event.data / 1000 do end return event.data end")
	var wg sync.WaitGroup
	told := make([]atomic.Int32, 300)
	for i := range told {
		wg.Add(1)
		length := i * 7 % 13 // ms
		j := job(strconv.Itoa(length), func(o *functions.Outcome) {
			if o.Fault != nil || string(o.Result) != strconv.Itoa(length) {
				t.Error(i, string(o.Result), o.Fault)
			}
			if told[i].Add(1) == 1 {
				wg.Done()
			}
		})
		with(busy, 10*time.Second)(&j)
		p.Submit(j)
		if i%10 == 9 {
			wg.Wait() // so that there are free workers, too
		}
	}
	eventually(t, "all is quiet", func() bool { s := p.Stats(); return s.Busy == 0 && s.Waiting == 0 })
	for i := range told {
		require.EqualValues(t, 1, told[i].Load())
	}
	s := p.Stats()
	require.Zero(t, s.Breaches+s.Crashes+s.Killed)
	t.Logf("%d were moved", s.Moved)
}

func TestCloseTellsAll(t *testing.T) {
	p := newPool(t, "honest", nil)
	var told atomic.Int32
	for range 40 {
		p.Submit(job("hang", func(o *functions.Outcome) {
			if o.Fault != nil && o.Fault.Kind == functions.FaultKilled {
				told.Add(1)
			}
		}))
	}
	p.Close()
	require.EqualValues(t, 40, told.Load())
	require.Equal(t, functions.FaultKilled, run(t, p, "x", nil).Fault.Kind)
	require.Equal(t, functions.FaultKilled, p.Check(t.Context(), bundle).Kind)
	p.Close()
}

func TestOptions(t *testing.T) {
	for _, o := range []Options{{Max: -1}, {Warm: 3}, {Warm: -1}, {Depth: 1000}, {Depth: -1}, {Memory: -1}} {
		_, err := New(o)
		require.ErrorContains(t, err, "workers: ")
	}
}
