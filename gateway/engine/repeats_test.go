package engine

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/drivers"
	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/internal/event"
)

// teller is a model of what is on the other side of an MQTT session, a broker or a client: it sends messages with few payloads, loses
// connections with messages and acknowledgements on their way, sends again what it has no acknowledgement for, uses ids anew, and forgets
// the session.
type teller struct {
	mu      sync.Mutex
	conn    int               // connections so far: what belongs to an old one does not arrive
	flight  []uint16          // ids without an acknowledgement, in the order of sending
	content map[uint16]string // of those
	acked   map[uint16]bool   // read, and nobody else knows yet that it was
	last    uint16
	sent    map[string]int
	lost    map[string]int // in flight when the session was forgotten
}

const (
	tellerIDs    = 12
	tellerWindow = 4
)

// next takes an id for a message, 0 if the window is full.
func (s *teller) next(payload string) uint16 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.flight) >= tellerWindow {
		return 0
	}
	for range tellerIDs {
		s.last = s.last%tellerIDs + 1
		if s.content[s.last] == "" && !s.acked[s.last] {
			s.content[s.last] = payload
			s.flight = append(s.flight, s.last)
			s.sent[payload]++
			return s.last
		}
	}
	return 0
}

// delivery is a message as the engine gets it on the present connection.
func (s *teller) delivery(id uint16, again bool) drivers.Delivery {
	s.mu.Lock()
	defer s.mu.Unlock()
	conn := s.conn
	return drivers.Delivery{Event: &event.Event{Source: "mqtt", Type: event.Message, Subject: "in/a", Topic: "in/a", Data: []byte(s.content[id])},
		Mark: drivers.Mark("session", id), Again: again, Ack: func(error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.conn == conn && s.content[id] != "" {
				delete(s.content, id)
				s.acked[id] = true
				s.flight = slices.DeleteFunc(s.flight, func(x uint16) bool { return x == id })
			}
		}}
}

// cut ends the connection. What is in flight is to be sent again.
func (s *teller) cut() []uint16 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conn++
	return slices.Clone(s.flight)
}

// read returns the marks whose acknowledgements are known to have been read.
func (s *teller) read() (marks []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id := range s.acked {
		marks = append(marks, drivers.Mark("session", id))
	}
	clear(s.acked)
	return marks
}

// forget is a session that begins anew, with the first id.
func (s *teller) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.content {
		s.lost[p]++
	}
	clear(s.content)
	clear(s.acked)
	s.conn, s.flight, s.last = s.conn+1, nil, 0
}

func (s *teller) idle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.flight) == 0
}

// Every message is committed once for each function, whatever repetitions there are, and whatever became of acknowledgements, of the
// gateway, and of the attempts of a function.
func TestEachMessageOnceProperty(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { checkRepeats(t, rand.New(rand.NewPCG(seed, 7))) })
	}
	seed := rand.Uint64()
	t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { checkRepeats(t, rand.New(rand.NewPCG(seed, 7))) })
}

func checkRepeats(t *testing.T, rnd *rand.Rand) {
	s := &teller{content: map[uint16]string{}, acked: map[uint16]bool{}, sent: map[string]int{}, lost: map[string]int{}}
	var gate sync.RWMutex // held: functions do not end
	var held bool
	hold := func(is bool) {
		if is != held {
			if held = is; is {
				gate.Lock()
			} else {
				gate.Unlock()
			}
		}
	}
	var runs atomic.Int64
	tally := func(inv *functions.Invocation, _ func(functions.Read) functions.ReadAnswer) *functions.Outcome {
		gate.RLock()
		defer gate.RUnlock()
		if n := runs.Add(1); n%7 == 0 {
			return failing(functions.FaultKilled)
		}
		return ok(functions.Effect{Kind: functions.IncrState, Name: string(inv.Event.Data), By: 1})
	}
	dir := t.TempDir()
	var r *rig
	open := func() {
		r = openRig(t, dir, func(o *Options) { o.SpillAfter, o.RedoAfter = 5*time.Millisecond, 5*time.Millisecond })
		for _, fn := range []string{"one", "two"} {
			r.fn("name: "+fn+"\ntriggers: [{mqtt: in/+}]\nretry: {attempts: 20, first: 10ms, max: 10ms}\n", tally)
		}
		r.start()
	}
	offer := func(id uint16, again bool) {
		require.NoError(t, r.e.Offer(context.Background(), s.delivery(id, again)))
	}
	again := func() {
		for _, id := range s.cut() {
			offer(id, true)
		}
	}
	open()
	for range 80 {
		switch n := rnd.IntN(100); {
		case n < 45:
			if id := s.next([]string{"x", "y"}[rnd.IntN(2)]); id != 0 && rnd.IntN(6) > 0 { // else it is lost on its way
				offer(id, false)
			} else if id != 0 {
				again() // the connection was lost with it
			}
		case n < 60:
			again()
		case n < 70:
			hold(true)
		case n < 82:
			hold(false)
		case n < 92:
			if marks := s.read(); len(marks) > 0 { // none means all
				r.e.Forget("session", marks)
			}
		case n < 95:
			s.forget()
			r.e.Forget("session", nil)
		default:
			hold(false)
			s.cut() // what is acknowledged from here on is not read
			r.stop()
			open()
			again()
		}
		if rnd.IntN(3) == 0 {
			time.Sleep(time.Duration(rnd.IntN(8)) * time.Millisecond) // for the mix of states, nothing waits for it
		}
	}
	hold(false)
	again()
	r.wait("all acknowledgements", func() bool { return s.idle() })
	r.wait("nothing to be left", func() bool { c := r.e.Counts(); return c.Waiting == 0 && c.Inbox == 0 })
	r.stop()
	r = openRig(t, dir)
	for _, fn := range []string{"one", "two"} {
		for _, p := range []string{"x", "y"} {
			got := 0
			_, _ = fmt.Sscan(r.state(fn, "", p), &got)
			require.LessOrEqual(t, got, s.sent[p], "%s of %s", p, fn)
			require.GreaterOrEqual(t, got, s.sent[p]-s.lost[p], "%s of %s", p, fn)
		}
	}
	require.Zero(t, r.e.Counts().Losses["inbox full"])
}
