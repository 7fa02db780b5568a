package engine

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/functions/state"
)

const sharing = "name: sharing\ntriggers: [{mqtt: in/+}]\nkey: none\nlimits: {concurrency: 8}\n"

// sharer is the invocation of a test's function: it reads what is shared, and gathers what it wants done.
type sharer struct {
	inv *functions.Invocation
	ask func(functions.Read) functions.ReadAnswer
	o   functions.Outcome
}

func (s *sharer) does() string { return strings.TrimPrefix(s.inv.Event.Topic, "in/") }

func (s *sharer) get(name string) (n int) {
	r := functions.Read{Kind: functions.ReadShared, Name: name}
	if a := s.ask(r); a.Value != nil {
		_ = json.Unmarshal(a.Value, &n)
	}
	s.o.Reads = append(s.o.Reads, r)
	return n
}

func (s *sharer) keys(prefix string) (names []string) {
	r := functions.Read{Kind: functions.ReadSharedKeys, Name: prefix}
	_ = json.Unmarshal(s.ask(r).Value, &names)
	s.o.Reads = append(s.o.Reads, r)
	return names
}

func (s *sharer) set(name string, n int) {
	s.o.Effects = append(s.o.Effects, functions.Effect{Kind: functions.SetShared, Name: name, Value: fmt.Append(nil, n)})
}

func (s *sharer) drop(name string) {
	s.o.Effects = append(s.o.Effects, functions.Effect{Kind: functions.DeleteShared, Name: name})
}

// share installs the function that all these tests have.
func (r *rig) share(yaml string, do func(s *sharer)) {
	r.fn(yaml, func(inv *functions.Invocation, ask func(functions.Read) functions.ReadAnswer) *functions.Outcome {
		s := &sharer{inv: inv, ask: ask}
		do(s)
		return &s.o
	})
}

// does offers an event and waits for it to be committed.
func (r *rig) does(what string) {
	r.t.Helper()
	was := r.e.Counts().Committed
	settledIn(r.t, r.message("in/"+what, "1", "", false))
	r.wait(what, func() bool { return r.e.Counts().Committed > was })
}

func settledIn(t testing.TB, c <-chan error) { require.NoError(t, <-c) }

func (r *rig) shared(name string) string {
	v, _, err := state.Value(r.st, state.Shared("sharing"), name)
	require.NoError(r.t, err)
	return string(v)
}

func (r *rig) conflicts() int64 { return r.e.fns["sharing"].stats.conflicts.Load() }

// in makes an invocation of "slow" wait in its middle, the first time, while the others are committed.
func (r *rig) in(meanwhile ...string) (between func(s *sharer), slow func()) {
	inside, on := make(chan struct{}), make(chan struct{})
	var once sync.Once
	between = func(*sharer) {
		once.Do(func() {
			close(inside)
			<-on
		})
	}
	slow = func() {
		r.t.Helper()
		all := r.e.Counts().Committed + int64(len(meanwhile)+1)
		acked := r.message("in/slow", "1", "", false)
		<-inside
		for _, m := range meanwhile {
			r.does(m)
		}
		close(on)
		settledIn(r.t, acked)
		r.wait("the slow one", func() bool { return r.e.Counts().Committed == all || r.e.Counts().Dead > 0 })
		require.Zero(r.t, r.e.Counts().Dead)
	}
	return between, slow
}

// Who has listed keys runs again if there is another one meanwhile, or one less, though none of those that it read has changed.
func TestAPhantomKeyIsAConflict(t *testing.T) {
	r := newRig(t)
	between, slow := r.in("room")
	r.share(sharing, func(s *sharer) {
		if s.does() == "room" {
			s.set("room/cellar", 1)
			return
		}
		n := len(s.keys("room/"))
		between(s)
		s.set("rooms", n)
	})
	r.start()
	slow()
	require.Equal(t, "1", r.shared("rooms"))
	require.EqualValues(t, 1, r.conflicts())
}

// A value that was deleted and made again is another one, though it is equal.
func TestDeletedAndMadeAgainIsAConflict(t *testing.T) {
	r := newRig(t)
	between, slow := r.in("make", "delete", "make")
	var seen []int
	r.share(sharing, func(s *sharer) {
		switch s.does() {
		case "make":
			s.set("x", 7)
		case "delete":
			s.drop("x")
		default:
			seen = append(seen, s.get("x"))
			between(s)
			s.set("saw", seen[len(seen)-1])
		}
	})
	r.start()
	slow()
	require.Equal(t, "7", r.shared("saw"))
	require.Equal(t, []int{0, 7}, seen)

	r = newRig(t)
	between, slow = r.in("delete", "make")
	runs := 0
	r.share(sharing, func(s *sharer) {
		switch s.does() {
		case "make":
			s.set("x", 7)
		case "delete":
			s.drop("x")
		default:
			runs++
			s.set("saw", s.get("x"))
			between(s)
		}
	})
	r.start()
	r.does("make")
	slow()
	require.Equal(t, "7", r.shared("saw"))
	require.Equal(t, 2, runs)
}

// Two that each read both values and write one of them cannot both be right.
func TestWriteSkew(t *testing.T) {
	r := newRig(t)
	var both sync.WaitGroup // the first two are in flight at once
	both.Add(2)
	var runs atomic.Int64
	r.share(sharing, func(s *sharer) {
		if s.does() == "make" {
			s.set("x", 1)
			s.set("y", 1)
			return
		}
		x, y := s.get("x"), s.get("y")
		if runs.Add(1) <= 2 {
			both.Done()
			both.Wait()
		}
		if x+y == 2 { // one may go off duty as long as the other stays
			s.set(s.does(), 0)
		}
	})
	r.start()
	r.does("make")
	x, y := r.message("in/x", "1", "", false), r.message("in/y", "1", "", false)
	settled(t, x)
	settled(t, y)
	r.wait("both", func() bool { return r.e.Counts().Committed == 3 })
	require.ElementsMatch(t, []string{"0", "1"}, []string{r.shared("x"), r.shared("y")})
	require.EqualValues(t, 1, r.conflicts())
}

// Who fails because it saw one value from before a change and the other from after it has met a conflict, and no fault: it is
// no attempt, no dead letter, and it runs again at once. So it is with what asks for a retry.
func TestAFaultOfAnInconsistentPairIsAConflict(t *testing.T) {
	for name, fail := range map[string]func(s *sharer){
		"error":   func(s *sharer) { s.o = *failing(functions.FaultError) },
		"timeout": func(s *sharer) { s.o = *failing(functions.FaultTimeout) },
		"denied":  func(s *sharer) { s.o = *failing(functions.FaultDenied) },
		"retry":   func(s *sharer) { s.o.Retry = &functions.RetryAsk{Why: "the sum is wrong"} },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			between, slow := r.in("move")
			var attempts []int
			r.share(sharing+"retry: {first: 1h, max: 1h}\n", func(s *sharer) {
				if s.does() == "move" {
					s.set("x", s.get("x")-10)
					s.set("y", s.get("y")+10)
					return
				}
				attempts = append(attempts, s.inv.Attempt)
				x := s.get("x")
				between(s)
				if y := s.get("y"); x+y != 0 {
					fail(s)
					return
				}
				s.set("fine", 1)
			})
			r.start()
			slow()
			require.Equal(t, "1", r.shared("fine"))
			require.Equal(t, []int{1, 1}, attempts)
			require.EqualValues(t, 1, r.conflicts())
			require.Zero(t, r.e.Counts().Faults)
		})
	}
}

// A fault of one that has read nothing stale is one.
func TestAFaultWithoutAConflictIsAFault(t *testing.T) {
	r := newRig(t)
	r.share(sharing, func(s *sharer) {
		s.get("x")
		s.o = *failing(functions.FaultError)
	})
	r.start()
	settled(t, r.message("in/a", "1", "", false))
	r.wait("the dead letter", func() bool { return r.e.Counts().Dead == 1 })
	require.Zero(t, r.conflicts())
}

// Money that a thousand transfers move about at the same time is neither made nor lost.
func TestAThousandTransfersSumUp(t *testing.T) {
	const accounts, transfers, money = 8, 1000, 100
	r := newRig(t)
	r.share(sharing, func(s *sharer) {
		if s.does() == "open" {
			for i := range accounts {
				s.set(fmt.Sprint("a", i), money)
			}
			return
		}
		var m struct{ From, To, Sum int }
		_ = json.Unmarshal(s.inv.Event.Data, &m)
		from, to := fmt.Sprint("a", m.From), fmt.Sprint("a", m.To)
		if a, b := s.get(from), s.get(to); a >= m.Sum {
			s.set(from, a-m.Sum)
			s.set(to, b+m.Sum)
			s.o.Effects = append(s.o.Effects, functions.Effect{Kind: functions.IncrShared, Name: "moved", By: float64(m.Sum)})
		}
		s.o.Effects = append(s.o.Effects, functions.Effect{Kind: functions.IncrShared, Name: "done", By: 1})
	})
	r.start()
	r.does("open")
	var acks []<-chan error
	for range transfers {
		p := rand.Perm(accounts)
		acks = append(acks, r.message("in/move", fmt.Sprintf(`{"From":%d,"To":%d,"Sum":%d}`, p[0], p[1], rand.IntN(money)), "", false))
	}
	for _, a := range acks {
		settled(t, a)
	}
	r.wait("all", func() bool { return r.e.Counts().Committed == transfers+1 })
	require.Equal(t, fmt.Sprint(transfers), r.shared("done"), "each once")
	sum := 0
	for i := range accounts {
		var n int
		require.NoError(t, json.Unmarshal([]byte(r.shared(fmt.Sprint("a", i))), &n))
		require.GreaterOrEqual(t, n, 0)
		sum += n
	}
	require.Equal(t, accounts*money, sum)
	require.Zero(t, r.e.Counts().Dead)
	t.Logf("%d conflicts, %s moved", r.conflicts(), r.shared("moved"))
}

// Whoever has met three conflicts runs alone: nothing can come between any more.
func TestAfterThreeConflictsAnEventRunsAlone(t *testing.T) {
	r := newRig(t)
	run, on := make(chan int, 10), make(chan struct{})
	var others atomic.Int64
	runs := 0
	r.share(sharing, func(s *sharer) {
		n := s.get("n")
		if s.does() == "other" {
			others.Add(1)
		} else {
			runs++
			run <- runs
			<-on
		}
		s.set("n", n+1)
	})
	r.start()
	slow := r.message("in/slow", "1", "", false)
	for range aloneAfter {
		<-run
		r.does("other")
		on <- struct{}{}
	}
	<-run
	require.EqualValues(t, aloneAfter, r.conflicts())
	last := r.message("in/other", "1", "", false)
	r.wait("the other one to wait", func() bool { return r.e.Counts().Waiting == 1 })
	require.EqualValues(t, aloneAfter, others.Load())
	on <- struct{}{}
	settled(t, slow)
	settled(t, last)
	r.wait("both", func() bool { return r.shared("n") == fmt.Sprint(aloneAfter+2) })
	require.EqualValues(t, aloneAfter, r.conflicts())
}

// What only adds reads nothing, and never conflicts.
func TestAddingDoesNotConflict(t *testing.T) {
	r := newRig(t)
	r.share(sharing, func(s *sharer) {
		s.o.Effects = []functions.Effect{{Kind: functions.IncrShared, Name: "n", By: 2}}
	})
	r.start()
	var acks []<-chan error
	for range 200 {
		acks = append(acks, r.message("in/a", "1", "", false))
	}
	for a := range slices.Values(acks) {
		settled(t, a)
	}
	r.wait("all", func() bool { return r.shared("n") == "400" })
	require.Zero(t, r.conflicts())
}
