package script

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/internal/event"
)

// bench feeds readings to one function, keeps its state and fires its timers.
type bench struct {
	t     *testing.T
	m     *Machine
	main  string
	inv   *functions.Invocation
	state *fakeState
	due   map[string]time.Time
}

func newBench(t *testing.T, code string) *bench {
	return &bench{t: t, m: New(Options{}), main: body(code), inv: testInvocation(), state: newFakeState(), due: map[string]time.Time{}}
}

// feed runs the function on a reading and returns its result.
func (b *bench) feed(value any) string {
	b.t.Helper()
	data, err := json.Marshal(map[string]any{"v": value})
	require.NoError(b.t, err)
	return b.run(&event.Event{Type: event.Message, Topic: "t", Data: data})
}

func (b *bench) run(e *event.Event) string {
	b.t.Helper()
	b.inv.Event = e
	out := runWith(b.t, b.m, b.inv, b.main, b.state.answer)
	require.Nil(b.t, out.Fault)
	for _, e := range out.Effects {
		switch e.Kind {
		case functions.SetTimer:
			b.due[e.Name] = b.inv.Now.Add(e.For)
		case functions.CancelTimer:
			delete(b.due, e.Name)
		}
	}
	b.state.apply(out)
	return string(out.Result)
}

// wait lets time pass; it returns the results of the timers that fire.
func (b *bench) wait(d time.Duration) string {
	b.t.Helper()
	b.inv.Now = b.inv.Now.Add(d)
	var results []string
	for name, at := range b.due {
		if !at.After(b.inv.Now) {
			delete(b.due, name)
			results = append(results, b.run(&event.Event{Type: event.Timer, Subject: name}))
		}
	}
	return strings.Join(results, " ")
}

func TestAlarmWithHysteresis(t *testing.T) {
	b := newBench(t, `return {signal.alarm("a", event.data.v, {on = 30, off = 28})}`)
	for _, step := range []struct {
		v    any
		want string
	}{{20, "[false,false]"}, {30, "[true,true]"}, {29, "[true,false]"}, {nil, "[true,false]"}, {35, "[true,false]"}, {28, "[false,true]"}, {29, "[false,false]"}, {"31", "[true,true]"}} {
		require.Equal(t, step.want, b.feed(step.v), "%v", step.v)
	}
	low := newBench(t, `return {signal.alarm("a", event.data.v, {on = 10, off = 12})}`)
	for _, step := range []struct {
		v    any
		want string
	}{{11, "[false,false]"}, {10, "[true,true]"}, {11, "[true,false]"}, {12, "[false,true]"}, {11, "[false,false]"}} {
		require.Equal(t, step.want, low.feed(step.v), "%v", step.v)
	}
	one := newBench(t, `return {signal.alarm("a", event.data.v, {on = 10})}`)
	for _, step := range []struct {
		v    any
		want string
	}{{10, "[true,true]"}, {10, "[true,false]"}, {9, "[false,true]"}, {10, "[true,true]"}} {
		require.Equal(t, step.want, one.feed(step.v), "%v", step.v)
	}
}

func TestAlarmThatHolds(t *testing.T) {
	b := newBench(t, `return {signal.alarm("a", event.data.v, {on = 30, off = 28, hold = "2m"})}`)
	require.Equal(t, "[false,false]", b.feed(31))
	require.Empty(t, b.wait(time.Minute))
	require.Equal(t, "[false,false]", b.feed(20), "too short")
	require.Empty(t, b.due)
	require.Equal(t, "[false,false]", b.feed(31))
	require.Empty(t, b.wait(time.Minute))
	require.Equal(t, "[false,false]", b.feed(32), "the wait goes on from its start")
	require.Equal(t, "[true,true]", b.wait(time.Minute), "no reading was needed")
	require.Equal(t, "[true,false]", b.feed(33))
	require.Equal(t, "[true,false]", b.feed(20))
	require.Equal(t, "[false,true]", b.wait(2*time.Minute), "holds both ways")
	require.Empty(t, b.due)
}

func TestAlarmShowsItsEventAgain(t *testing.T) {
	b := newBench(t, `signal.alarm("a", event.data.v, {on = 30, hold = 60}) return {event.data.v, event.params.room, event.topic, event.timer, event.type}`)
	b.inv.Params = map[string]string{"room": "cellar"}
	b.feed(31)
	b.inv.Params = nil
	require.Equal(t, `[31,"cellar","t","signal.alarm.a","timer"]`, b.wait(time.Minute))
}

func TestTwoAlarms(t *testing.T) {
	b := newBench(t, `return {signal.alarm("short", event.data.v, {on = 30, hold = "1m"}), signal.alarm("long", event.data.v, {on = 30, hold = "5m"}), signal.rate("r", event.data.v) or "none"}`)
	require.Equal(t, `[false,false,false,"none"]`, strings.Replace(b.feed(31), `[false,false,`, `[false,false,false,`, 1))
	require.Contains(t, b.wait(time.Minute), `[true,`)
	require.Len(t, b.due, 1)
	require.Contains(t, b.wait(4*time.Minute), `true`)
}

func TestChanged(t *testing.T) {
	b := newBench(t, `return {signal.changed("c", event.data.v, {by = 0.5, heartbeat = "10m"})}`)
	require.Equal(t, "[true]", b.feed(20))
	require.Equal(t, "[false,20]", b.feed(20.4))
	require.Equal(t, "[true,20]", b.feed(20.5))
	b.wait(10 * time.Minute)
	require.Equal(t, "[true,20.5]", b.feed(20.5), "the heartbeat")
	require.Equal(t, "[false,20.5]", b.feed(nil))
	text := newBench(t, `return (signal.changed("c", event.data.v))`)
	require.Equal(t, "true", text.feed("on"))
	require.Equal(t, "false", text.feed("on"))
	require.Equal(t, "true", text.feed(false))
}

func TestRate(t *testing.T) {
	b := newBench(t, `return {signal.rate("energy", event.data.v, {per = "1h"})}`)
	require.Equal(t, "{}", b.feed(100))
	b.wait(30 * time.Minute)
	require.Equal(t, "[4,2]", b.feed(102))
	b.wait(time.Hour)
	require.Equal(t, "[5,5]", b.feed(5), "started again")
	w := newBench(t, `return {signal.rate("count", event.data.v, {wrap = 65536})}`)
	w.feed(65530)
	w.wait(10 * time.Second)
	require.Equal(t, "[1,10]", w.feed(4))
	w.inv.Now = w.inv.Now.Add(-time.Hour)
	require.Equal(t, "{}", w.feed(5), "the clock was set back")
}

func TestWindow(t *testing.T) {
	b := newBench(t, `local w = signal.window("w", event.data.v, "10m") return {w.n, w.min or "", w.max or "", w.mean or "", w.first or "", w.last or ""}`)
	require.Equal(t, `[0,"","","","",""]`, b.feed(nil))
	require.Equal(t, `[1,5,5,5,5,5]`, b.feed(5))
	b.wait(5 * time.Minute)
	require.Equal(t, `[2,5,15,10,5,15]`, b.feed(15))
	b.wait(5*time.Minute + 10*time.Second)
	require.Equal(t, `[2,1,15,8,15,1]`, b.feed(1), "the first has left")
	for i := range 1000 {
		b.inv.Now = b.inv.Now.Add(time.Second)
		b.feed(i)
	}
	require.Less(t, len(b.state.values["signal.window.w"]), 10000)
	var n float64
	_, err := fmt.Sscanf(b.feed(0), "[%f", &n)
	require.NoError(t, err)
	require.InDelta(t, 600, n, 11, "a reading a second")
}
