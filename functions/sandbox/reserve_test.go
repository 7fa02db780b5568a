package sandbox

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/functions"
)

// of makes a job one of the revision with this digest; with secrets it has some.
func of(digest string, secrets ...string) func(*Job) {
	return func(j *Job) {
		j.Bundle = &functions.Bundle{Digest: digest, Files: bundle.Files,
			Spec: &functions.Spec{Name: digest, Permissions: functions.Permissions{Secrets: secrets}}}
		j.Inv.Function, j.Inv.Revision = digest, digest
	}
}

// start submits a job and does not wait.
func start(t testing.TB, p *Pool, data string, change func(*Job)) <-chan *functions.Outcome {
	t.Helper()
	j, got := pending(data, change)
	p.Submit(j)
	return got
}

// pending is a job and where its outcome will come.
func pending(data string, change func(*Job)) (Job, <-chan *functions.Outcome) {
	got := make(chan *functions.Outcome, 2)
	j := job(data, func(o *functions.Outcome) { got <- o })
	j.Inv.Limits.Timeout = time.Minute
	if change != nil {
		change(&j)
	}
	return j, got
}

// twoReady is a pool of two workers that both wait for work.
func twoReady(t *testing.T) *Pool {
	p := newPool(t, "honest", func(o *Options) { o.Warm = 2 })
	eventually(t, "both are ready", func() bool {
		return p.look(func() bool { return len(p.workers) == 2 && p.workers[0].state == ready && p.workers[1].state == ready })
	})
	return p
}

// bothSlow waits until both workers have been running something for so long that nothing more goes to them.
func bothSlow(t *testing.T, p *Pool) {
	eventually(t, "both are slow", func() bool {
		return p.look(func() bool { return len(p.workers) == 2 && p.workers[0].slow && p.workers[1].slow })
	})
}

// stain runs a revision until it has no clean record; the first run, which compiles, does not count.
func stain(t *testing.T, p *Pool, digest string) {
	for range 2 {
		require.Nil(t, run(t, p, "sleep 40ms", of(digest)).Fault)
	}
	require.False(t, p.look(func() bool { return p.recordOf(digest).clean() }))
}

func (p *Pool) look(f func() bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return f()
}

// TestReserve: what was slow never occupies every worker, however much of it there is.
func TestReserve(t *testing.T) {
	for _, most := range []int{2, 3} {
		p := newPool(t, "honest", func(o *Options) { o.Max = most })
		const slow = 6
		for i := range slow {
			stain(t, p, fmt.Sprint("slow", i))
		}
		var hangs []<-chan *functions.Outcome
		for i := range slow {
			hangs = append(hangs, start(t, p, "hang", of(fmt.Sprint("slow", i))))
		}
		eventually(t, "the workers that they may have are busy", func() bool {
			return p.look(func() bool { return p.stainedNow() == most-1 })
		})
		for range 50 {
			require.Nil(t, run(t, p, "hello", of("clean")).Fault)
			require.True(t, p.look(func() bool { return p.stainedNow() == most-1 }))
		}
		for _, h := range hangs {
			require.Empty(t, h, "what hangs is not over yet")
		}
		require.Zero(t, p.Stats().Evicted)
	}
}

// TestReserveIsReady: the worker in reserve is there before anybody waits for it.
func TestReserveIsReady(t *testing.T) {
	p := newPool(t, "honest", func(o *Options) { o.Warm = 0 })
	start(t, p, "hang", of("slow"))
	eventually(t, "what hangs has no clean record", func() bool { return p.look(func() bool { return p.stainedNow() == 1 }) })
	eventually(t, "another is ready", func() bool {
		return p.look(func() bool { return len(p.workers) == 2 && p.workers[1].state == ready })
	})
}

// TestReserveOfOne: a single worker runs all there is.
func TestReserveOfOne(t *testing.T) {
	p := newPool(t, "honest", func(o *Options) { o.Max = 1 })
	stain(t, p, "slow")
	for range 3 {
		require.Nil(t, run(t, p, "sleep 40ms", of("slow")).Fault)
		require.Nil(t, run(t, p, "hello", of("clean")).Fault)
	}
}

// TestEviction: what stays long in the last worker that others had makes way for them, and begins anew.
func TestEviction(t *testing.T) {
	p := twoReady(t)
	a, b := start(t, p, "sleep 700ms", of("a")), start(t, p, "sleep 700ms", of("b"))
	bothSlow(t, p)
	require.Nil(t, run(t, p, "hello", of("clean")).Fault)
	require.Empty(t, a)
	require.Empty(t, b)
	require.Positive(t, p.Stats().Evicted) // more than once where a worker takes long to start
	require.Nil(t, receive(t, a).Fault)
	require.Nil(t, receive(t, b).Fault)
	s := p.Stats()
	require.Zero(t, s.Killed+s.Crashes+s.StartFailures)
}

// TestKeepsWhatItIsAskedFor: a worker that does not give back what waits behind a long invocation is killed, and what
// waited runs elsewhere.
func TestKeepsWhatItIsAskedFor(t *testing.T) {
	p := twoReady(t)
	p.look(func() bool { p.revokes = 200 * time.Millisecond; return true })
	require.Nil(t, run(t, p, "warm", nil).Fault) // the next goes there, too: it worked last
	first, hang := pending("hang", func(j *Job) { of("a")(j); j.Inv.Limits.Timeout = 2 * time.Second })
	jobs, rest := []Job{first}, []<-chan *functions.Outcome(nil)
	for range 6 {
		j, got := pending("hello", of("clean"))
		jobs, rest = append(jobs, j), append(rest, got)
	}
	p.Submit(jobs...) // at once, so that some are behind the first before it is known to be slow
	for _, r := range rest {
		require.Nil(t, receive(t, r).Fault)
	}
	require.EqualValues(t, 1, p.Stats().Breaches)
	f := receive(t, hang).Fault
	require.Equal(t, functions.FaultTimeout, f.Kind, "%v: it began anew, since the worker had run another before", f)
}

// held is a channel that is closed by the function beside it, and at the latest when the test ends: a pool that still waits
// for an answer would not close.
func held(t *testing.T) (<-chan struct{}, func()) {
	c := make(chan struct{})
	letGo := sync.OnceFunc(func() { close(c) })
	t.Cleanup(letGo)
	return c, letGo
}

// TestEvictionWhileAsking: a task that waits for an answer begins anew when it has come, and asks again.
func TestEvictionWhileAsking(t *testing.T) {
	p := twoReady(t)
	var asking, asked atomic.Int32
	goOn, letGo := held(t)
	slow := func(digest string) <-chan *functions.Outcome {
		return start(t, p, "ask n", func(j *Job) {
			of(digest)(j)
			j.Ask = func(r functions.Read) functions.ReadAnswer {
				asked.Add(1)
				require.LessOrEqual(t, asking.Add(1), int32(2), "one call for each task")
				defer asking.Add(-1)
				<-goOn
				return functions.ReadAnswer{Read: r, Value: []byte("1")}
			}
		})
	}
	a, b := slow("a"), slow("b")
	eventually(t, "both ask", func() bool { return asking.Load() == 2 })
	bothSlow(t, p)
	require.Nil(t, run(t, p, "hello", of("clean")).Fault)
	evicted := p.Stats().Evicted
	require.Positive(t, evicted) // both where a worker takes long to start
	letGo()
	require.Equal(t, `"1"`, string(receive(t, a).Result))
	require.Equal(t, `"1"`, string(receive(t, b).Result))
	require.EqualValues(t, 2+evicted, asked.Load())
}

// TestEvictedWhenThePoolCloses: it is told, like all others.
func TestEvictedWhenThePoolCloses(t *testing.T) {
	p := twoReady(t)
	goOn, letGo := held(t)
	ask := func(j *Job) {
		j.Ask = func(r functions.Read) functions.ReadAnswer { <-goOn; return functions.ReadAnswer{Read: r} }
	}
	a := start(t, p, "ask n", func(j *Job) { of("a")(j); ask(j) })
	b := start(t, p, "ask n", func(j *Job) { of("b")(j); ask(j) })
	bothSlow(t, p)
	require.Nil(t, run(t, p, "hello", of("clean")).Fault)
	closed := make(chan struct{})
	go func() { p.Close(); close(closed) }()
	eventually(t, "it closes", func() bool { return p.look(func() bool { return p.closing }) })
	letGo()
	receive(t, closed)
	require.Equal(t, functions.FaultKilled, receive(t, a).Fault.Kind)
	require.Equal(t, functions.FaultKilled, receive(t, b).Fault.Kind)
}

// TestKillersHaveNoCleanRecord: one that kills its worker is never again in the last one, until it has behaved for long.
func TestKillersHaveNoCleanRecord(t *testing.T) {
	p := newPool(t, "honest", nil)
	o := run(t, p, "die", of("killer"))
	require.True(t, o.Lost)
	clean := func() bool { return p.look(func() bool { return p.recordOf("killer").clean() }) }
	require.False(t, clean())
	good := 0
	for ; !clean(); good++ {
		require.Nil(t, run(t, p, "hello", of("killer")).Fault)
	}
	require.GreaterOrEqual(t, good, cleanAt)
}

func TestRecord(t *testing.T) {
	r := record{credit: cleanAt}
	require.True(t, r.clean(), "what is new")
	r.ran(2 * tidy)
	require.False(t, r.clean(), "what is slow at once")
	for range 10 * mostCredit {
		r.ran(time.Millisecond)
	}
	r.ran(2 * tidy)
	require.True(t, r.clean(), "what is late once")
	for range 3 {
		r.ran(2 * tidy)
	}
	require.False(t, r.clean(), "what is late again and again")

	p := newPool(t, "honest", nil)
	p.look(func() bool {
		for i := range 2 * maxRecords {
			p.recordOf(strconv.Itoa(i)).stain()
		}
		require.LessOrEqual(t, len(p.records), maxRecords)
		return true
	})
}

// TestTakes: few jobs without a clean record wait in the pool, and the pool says when there is room for one.
func TestTakes(t *testing.T) {
	roomy := make(chan struct{}, 100)
	p := newPool(t, "honest", func(o *Options) { o.OnRoom = func() { roomy <- struct{}{} } })
	var j Job
	of("slow")(func() *Job { j = job("", nil); return &j }())
	require.True(t, p.Takes(j.Bundle))
	stain(t, p, "slow")
	require.True(t, p.Takes(j.Bundle))
	var all []<-chan *functions.Outcome
	for range 4 {
		all = append(all, start(t, p, "sleep 200ms", of("slow")))
	}
	require.False(t, p.Takes(j.Bundle))
	require.NotZero(t, p.Room(), "others have room")
	require.True(t, p.Takes(bundle))
	receive(t, roomy)
	for _, c := range all {
		require.Nil(t, receive(t, c).Fault)
	}
	require.True(t, p.Takes(j.Bundle))
}

// TestSecrets: a worker that runs a function with secrets has run nothing before, and never runs another.
func TestSecrets(t *testing.T) {
	for _, most := range []int{1, 2, 3} {
		t.Run(fmt.Sprint(most), func(t *testing.T) {
			p := newPool(t, "honest", func(o *Options) { o.Max = most })
			require.Nil(t, run(t, p, "warm", nil).Fault)
			var mu sync.Mutex
			ran := map[string]map[string]bool{} // by pid: the digests
			var all sync.WaitGroup
			for i := range 120 {
				digest, secrets := fmt.Sprint("s", i%3), []string{"token"}
				if i%4 == 3 {
					digest, secrets = fmt.Sprint("plain", i%2), nil
				}
				all.Add(1)
				j := job("pid", func(o *functions.Outcome) {
					defer all.Done()
					mu.Lock()
					defer mu.Unlock()
					if o.Fault != nil {
						t.Error(o.Fault)
						return
					}
					pid := string(o.Result)
					if ran[pid] == nil {
						ran[pid] = map[string]bool{}
					}
					ran[pid][digest] = true
				})
				of(digest, secrets...)(&j)
				p.Submit(j)
				if i%20 == 19 {
					all.Wait()
				}
			}
			all.Wait()
			for pid, digests := range ran {
				for digest := range digests {
					require.True(t, len(digests) == 1 || digest[0] == 'p', "worker %s ran %v", pid, digests)
				}
			}
			s := p.Stats()
			require.LessOrEqual(t, s.Running, most)
			require.Zero(t, s.Killed+s.Crashes+s.StartFailures)
			t.Logf("%d workers were started", s.Started)
		})
	}
}

// TestSecretsShrink: a worker of its own ends when it is idle, also where as many are kept warm.
func TestSecretsShrink(t *testing.T) {
	p := newPool(t, "honest", func(o *Options) { o.Warm, o.Idle = 1, 20*time.Millisecond })
	require.Nil(t, run(t, p, "x", of("s", "token")).Fault)
	eventually(t, "a shared one alone is left", func() bool {
		return p.look(func() bool { return len(p.workers) == 1 && p.workers[0].owner == "" && p.workers[0].state == ready })
	})
}

// TestSecretsAreNotStarved: a function whose own worker always has something to do leaves it to others in their turn.
func TestSecretsAreNotStarved(t *testing.T) {
	p := newPool(t, "honest", func(o *Options) { o.Max = 1 })
	stop := make(chan struct{})
	var busy sync.WaitGroup
	for range 4 {
		busy.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					run(t, p, "sleep 1ms", of("s", "token"))
				}
			}
		})
	}
	for range 5 {
		require.Nil(t, run(t, p, "hello", of("plain")).Fault)
	}
	close(stop)
	busy.Wait()
}

// TestScaleToZeroAndBack, again and again, with workers of all kinds.
func TestScaleToZeroAndBack(t *testing.T) {
	p := newPool(t, "honest", func(o *Options) { o.Warm, o.Idle, o.Max = 0, time.Millisecond, 3 })
	for i := range 5 {
		for _, change := range []func(*Job){of("a"), of("b"), of("s", "token")} {
			require.Nil(t, run(t, p, "sleep 2ms", change).Fault, i)
		}
		eventually(t, "none is left", func() bool { return p.Stats().Running == 0 })
	}
}

// TestSoak: random functions, quick, slow, hostile and killing, with and without secrets, on real workers. Each is told
// once, the good ones their result; and those without a clean record never have every worker for long.
func TestSoak(t *testing.T) {
	type kind struct {
		b       *functions.Bundle
		timeout time.Duration
		good    bool
	}
	secret := func(b *functions.Bundle) *functions.Bundle {
		b.Spec = &functions.Spec{Permissions: functions.Permissions{Secrets: []string{"token"}}}
		return b
	}
	busy := "local t = os.clock() while os.clock() - t < %s do end return event.data * 2"
	kinds := []kind{
		{double, 20 * time.Second, true},
		{lua("local n = 2 return function(event) return event.data * n end"), 20 * time.Second, true},
		{secret(lua("return function(event) return event.data + event.data end")), 20 * time.Second, true},
		{secret(lua("return function(event) local d = event.data return d + d end")), 20 * time.Second, true},
		{lua("return function(event) " + fmt.Sprintf(busy, "0.008") + " end"), 20 * time.Second, true},
		{lua("return function(event) " + fmt.Sprintf(busy, "0.04") + " end"), 20 * time.Second, true},
		{lua("return function(event) " + fmt.Sprintf(busy, "0.15") + " end"), 20 * time.Second, true},
		{lua("return function() while true do end end"), 30 * time.Millisecond, false},
		{lua(`return function() local t = {} for i = 1, 1e9 do t[i] = {i} end end`), 300 * time.Millisecond, false},
		{lua(`return function() return ("a"):rep(30000):find(("a*"):rep(200) .. "b") end`), 50 * time.Millisecond, false},
		{lua(`return function() local s = "x" while true do s = s .. s end end`), 100 * time.Millisecond, false},
		{lua("return function( end"), time.Second, false},
	}
	jobs := 200
	if raced || testing.Short() {
		jobs = 75
	}
	for _, most := range []int{1, 2, 3} {
		t.Run(fmt.Sprint(most), func(t *testing.T) {
			p := realPool(t, func(o *Options) { o.Max, o.Warm, o.Grace = most, 1, 20*time.Millisecond })
			random := rand.New(rand.NewPCG(1, uint64(most)))
			told := make([]atomic.Int32, jobs)
			var all, some sync.WaitGroup
			for i := range jobs {
				k := kinds[random.IntN(len(kinds))]
				if k.timeout < time.Second || k.b == kinds[6].b { // fewer of what takes long
					k = kinds[random.IntN(len(kinds))]
				}
				j := job(strconv.Itoa(i), func(o *functions.Outcome) {
					if told[i].Add(1) != 1 {
						t.Errorf("%d is told again", i)
						return
					}
					if k.good != (o.Fault == nil) || (k.good && string(o.Result) != strconv.Itoa(2*i)) {
						t.Errorf("%d: %s %v of %s", i, o.Result, o.Fault, k.b.Files["main.lua"])
					}
					all.Done()
					some.Done()
				})
				with(k.b, k.timeout)(&j)
				all.Add(1)
				some.Add(1)
				p.Submit(j)
				if i%25 == 24 {
					some.Wait()
				}
			}
			all.Wait()
			eventually(t, "all is quiet", func() bool { s := p.Stats(); return s.Busy == 0 && s.Waiting == 0 })
			s := p.Stats()
			require.Zero(t, s.Breaches+s.StartFailures, "%+v", s)
			require.LessOrEqual(t, s.Running, most)
			t.Logf("%+v", s)
		})
	}
}
