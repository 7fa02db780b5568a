package engine

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/drivers"
	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/internal/event"
	"github.com/perigee-iot/perigee/internal/store"
)

// heard is a function that keeps what it ran on, in order.
type heard struct {
	mu   sync.Mutex
	list []string
}

func (h *heard) body(inv *functions.Invocation, _ func(functions.Read) functions.ReadAnswer) *functions.Outcome {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.list = append(h.list, string(inv.Event.Data))
	return ok(functions.Effect{Kind: functions.IncrState, Name: "n", By: 1})
}

func (h *heard) all() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.list)
}

func numbers(from, to int) (list []string) {
	for i := from; i < to; i++ {
		list = append(list, strconv.Itoa(i))
	}
	return list
}

const smallShare = "name: small\ntriggers: [{mqtt: in/+}, {device: fan}, {function: counter}]\ninbox: {bytes: 4KiB"

// fits is how many of the events of these tests the share of that takes.
const fits = 15

// What becomes of an event for which there is no room is what the function says.
func TestAShareThatIsFull(t *testing.T) {
	const n = 2 * fits
	for name, c := range map[string]struct {
		yaml     string
		external bool
		acked    int
		ran      []string
	}{
		"drop-oldest":                    {yaml: ", full: drop-oldest}", acked: n, ran: numbers(n-fits, n)},
		"drop-newest":                    {yaml: ", full: drop-newest}", acked: n, ran: numbers(0, fits)},
		"block":                          {yaml: ", full: block}", acked: fits, ran: numbers(0, n)},
		"by default":                     {yaml: "}", acked: fits, ran: numbers(0, n)},
		"drop-newest, on another broker": {yaml: ", full: drop-newest}", external: true, acked: n, ran: numbers(0, fits)},
		"by default, on another broker":  {yaml: "}", external: true, acked: n, ran: numbers(n-fits, n)},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			spill := func(o *Options) { o.SpillAfter = time.Millisecond }
			r := openRig(t, dir, spill)
			r.broker.inProcess = !c.external
			var h heard
			r.fn(smallShare+c.yaml, h.body)
			require.NoError(t, r.e.SetState(t.Context(), "small", Paused, "by hand"))
			r.start()
			var acked atomic.Int64
			for i := range n {
				d := drivers.Delivery{Event: &event.Event{Source: "mqtt", Type: event.Message, Subject: "in/a", Topic: "in/a", Data: fmt.Append(nil, i)},
					Ack: func(err error) { require.NoError(t, err); acked.Add(1) }, Mark: "session\x00" + fmt.Sprint(i)}
				require.NoError(t, r.e.Offer(t.Context(), d))
				r.wait("its place", func() bool { return acked.Load() == int64(min(i+1, c.acked)) })
			}
			require.EqualValues(t, fits, r.e.Counts().Inbox)
			lost := n - len(c.ran)
			r.wait("the losses to be counted", func() bool { return r.e.Counts().Losses[inboxFull] == int64(lost) })
			check := func() {
				t.Helper()
				gaps, err := r.e.Gaps(10)
				require.NoError(t, err)
				if lost == 0 {
					require.Empty(t, gaps)
					return
				}
				require.Len(t, gaps, 1)
				require.Equal(t, "small", gaps[0].Function)
				require.Equal(t, inboxFull, gaps[0].Cause)
				require.EqualValues(t, lost, gaps[0].Events)
				require.False(t, gaps[0].To.Before(gaps[0].From))
			}
			check()
			if lost > 0 { // what is only with its sender comes again from there
				r.stop()
				r = openRig(t, dir, spill)
				r.broker.inProcess = !c.external
				r.fn(smallShare+c.yaml, h.body)
				r.start()
				check()
				settled(t, r.message("in/a", fmt.Sprint(n-1), fmt.Sprint(n-1), true)) // its acknowledgement was lost
				require.EqualValues(t, 1, r.e.Counts().Duplicates)
			} else {
				require.NoError(t, r.e.SetState(t.Context(), "small", Active, ""))
			}
			r.wait("all that was kept", func() bool { return len(h.all()) == len(c.ran) && r.e.Counts().Inbox == 0 && r.e.Counts().Waiting == 0 })
			require.Equal(t, c.ran, h.all())
			if lost == 0 {
				r.wait("the senders to be told", func() bool { return acked.Load() == n })
				require.Empty(t, r.e.Counts().Losses)
			}
		})
	}
}

// What functions cause for another, and what devices say, has no sender that could wait: the share is bounded all the same.
func TestAShareIsBoundedForWhatCannotWait(t *testing.T) {
	for _, full := range []string{functions.DropOldest, functions.DropNewest, functions.Block} {
		t.Run(full, func(t *testing.T) {
			r := openRig(t, t.TempDir(), func(o *Options) { o.SpillAfter = time.Millisecond })
			var h heard
			r.fn(smallShare+", full: "+full+"}", h.body)
			require.NoError(t, r.e.SetState(t.Context(), "small", Paused, "by hand"))
			r.fn("name: counter\ntriggers: [{mqtt: cause}]\n", func(inv *functions.Invocation, _ func(functions.Read) functions.ReadAnswer) *functions.Outcome {
				return &functions.Outcome{Result: inv.Event.Data}
			})
			r.start()
			const n = 60
			for i := range n {
				settled(t, r.message("cause", fmt.Sprint(i), "", false))
			}
			inbox := func() int64 {
				r.e.mu.Lock()
				defer r.e.mu.Unlock()
				return r.e.fns["small"].inbox
			}
			r.wait("the share to be within its bound", func() bool {
				c := r.e.Counts()
				return c.Committed == n && inbox() <= 4<<10 && c.Losses[inboxFull]+c.Inbox == n && c.Losses[inboxFull] > 0
			})
			kept := r.e.Counts().Inbox
			for i := range n {
				require.NoError(t, r.e.Offer(t.Context(), drivers.Delivery{Event: &event.Event{Source: "device/fan", Type: event.Reading, Subject: "fan", Data: fmt.Appendf(nil, `{"n":%d}`, i)}}))
			}
			r.wait("the share to be within its bound again", func() bool {
				c := r.e.Counts()
				return inbox() <= 4<<10 && c.Losses[inboxFull]+c.Inbox == 2*n
			})
			left := r.e.Counts().Inbox
			require.NoError(t, r.e.SetState(t.Context(), "small", Active, ""))
			r.wait("what is left", func() bool { return len(h.all()) == int(left) })
			if full == functions.DropNewest {
				require.Equal(t, numbers(0, int(kept)), h.all()[:kept])
			} else {
				require.Equal(t, fmt.Sprintf(`{"n":%d}`, n-1), h.all()[left-1])
			}
		})
	}
}

// Groups that are dropped lose nobody: each event has run, or is counted as lost, once.
func TestAFullShareWhileGroupsAreDropped(t *testing.T) {
	for _, full := range []string{functions.DropOldest, functions.DropNewest} {
		t.Run(full, func(t *testing.T) {
			var groups atomic.Int64
			var bad atomic.Bool
			so := store.Options{Linger: time.Millisecond, MinFree: 1, Fault: func() error {
				if bad.Load() && groups.Add(1)%2 == 0 {
					return errors.New("as if the disk had failed")
				}
				return nil
			}}
			r := openRigOn(t, t.TempDir(), so, func(o *Options) { o.SpillAfter, o.RedoAfter = time.Millisecond, time.Millisecond })
			var h heard
			r.fn(smallShare+", full: "+full+"}", h.body)
			require.NoError(t, r.e.SetState(t.Context(), "small", Paused, "by hand"))
			r.start()
			bad.Store(true)
			const n = 100
			var acks []<-chan error
			for i := range n {
				acks = append(acks, r.message("in/a", fmt.Sprint(i), "", false))
			}
			for _, a := range acks {
				settled(t, a)
			}
			bad.Store(false)
			r.wait("the losses to be counted", func() bool { c := r.e.Counts(); return c.Losses[inboxFull]+c.Inbox == n })
			r.wait("the share to be within its bound", func() bool { return r.e.Counts().Inbox <= fits })
			left := r.e.Counts().Inbox
			r.wait("the losses to be counted", func() bool { return r.e.Counts().Losses[inboxFull]+left == n })
			gaps, err := r.e.Gaps(10)
			require.NoError(t, err)
			var lost int64
			for _, g := range gaps {
				lost += g.Events
			}
			require.Equal(t, n-left, lost, "gaps count what the losses do")
			require.NoError(t, r.e.SetState(t.Context(), "small", Active, ""))
			r.wait("what is left", func() bool { return r.state("small", "", "n") == fmt.Sprint(left) })
			require.True(t, slices.IsSortedFunc(h.all(), func(a, b string) int {
				x, _ := strconv.Atoi(a)
				y, _ := strconv.Atoi(b)
				return x - y
			}), "in order: %v", h.all())
		})
	}
}

// Losses that are far apart are gaps of their own, and the oldest are forgotten.
func TestGapsAreBounded(t *testing.T) {
	on := newBox(spring)
	on.ok = true
	r := timed(t, t.TempDir(), on)
	f := &function{Name: "f"}
	lose := func(fn *function, cause string) {
		require.NoError(t, r.st.Update(func(tx store.Tx) error { return r.e.putGap(tx, fn, cause) }))
	}
	lose(f, "a")
	lose(f, "a")
	lose(f, "b")
	r.pass(time.Second)
	lose(f, "b")
	gaps, err := r.e.Gaps(10)
	require.NoError(t, err)
	require.Len(t, gaps, 2)
	require.EqualValues(t, 2, gaps[0].Events)
	require.Equal(t, "b", gaps[0].Cause)
	require.WithinDuration(t, gaps[0].From.Add(time.Second), gaps[0].To, 900*time.Millisecond)
	for range gapsMost + 4 {
		r.pass(2 * gapClose)
		lose(f, "a")
	}
	lose(&function{Name: "g"}, "a")
	gaps, err = r.e.Gaps(100)
	require.NoError(t, err)
	require.Len(t, gaps, gapsMost+1)
	gaps, err = r.e.Gaps(3)
	require.NoError(t, err)
	require.Len(t, gaps, 3)
	require.Equal(t, "g", gaps[0].Function)
}
