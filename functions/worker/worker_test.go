package worker

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/functions/frame"
	"github.com/perigee-iot/perigee/internal/event"
)

// model is a machine without Lua: what an event says is done.
type model struct {
	code    map[string]bool
	entered chan uint64   // invocations that have begun to "block"
	release chan struct{} // lets them go on
}

func (m *model) Loaded(digest string) bool { return m.code[digest] }

func (m *model) Load(digest string, files map[string][]byte) *functions.Fault {
	if strings.HasPrefix(string(files["main.lua"]), "bad") {
		return &functions.Fault{Kind: functions.FaultError, Message: "does not compile"}
	}
	m.code[digest] = true
	return nil
}

func (m *model) Check(ctx context.Context, digest string, files map[string][]byte, limits functions.Limits) *functions.Fault {
	if string(files["main.lua"]) == "endless" {
		<-ctx.Done()
		return &functions.Fault{Kind: functions.FaultTimeout, Message: limits.Timeout.String()}
	}
	return m.Load(digest, files)
}

func (m *model) Run(ctx context.Context, inv *functions.Invocation, ask func(functions.Read) functions.ReadAnswer) *functions.Outcome {
	if !m.code[inv.Revision] {
		panic("run without code")
	}
	o := &functions.Outcome{}
	switch string(inv.Event.Data) {
	case "block":
		m.entered <- inv.ID
		<-m.release
	case "ask":
		a := ask(functions.Read{Kind: functions.ReadState, Name: "n"})
		o.Result = []byte(fmt.Sprintf("%s %d %s", a.Name, a.Kind, a.Value))
	case "big":
		o.Result = make([]byte, 1<<20)
		o.Logs = []functions.LogLine{{Level: "info", Text: "kept"}}
	case "deadline":
		<-ctx.Done()
		o.Fault = &functions.Fault{Kind: functions.FaultTimeout}
	}
	return o
}

// gateway is the other end of a worker under test.
type gateway struct {
	t      *testing.T
	conn   net.Conn
	frames *frame.Reader
	model  *model
	ended  chan error
}

func start(t *testing.T) *gateway {
	ours, theirs := net.Pipe()
	g := &gateway{t: t, conn: ours, frames: frame.NewReader(ours, frame.FromWorker), ended: make(chan error, 1),
		model: &model{code: map[string]bool{}, entered: make(chan uint64), release: make(chan struct{})}}
	require.NoError(t, ours.SetDeadline(time.Now().Add(30*time.Second)))
	go func() { g.ended <- serve(theirs, g.model, func() {}, []frame.Layer{{Name: "none"}}) }()
	t.Cleanup(func() { ours.Close() })
	layers, err := frame.DecodeReady(g.expect(frame.Ready))
	require.NoError(t, err)
	require.Equal(t, []frame.Layer{{Name: "none"}}, layers)
	return g
}

func (g *gateway) expect(want frame.Type) []byte {
	g.t.Helper()
	typ, body, err := g.frames.Next()
	require.NoError(g.t, err)
	require.Equal(g.t, want.String(), typ.String())
	return body
}

func (g *gateway) send(b []byte, err error) {
	g.t.Helper()
	require.NoError(g.t, err)
	_, err = g.conn.Write(b)
	require.NoError(g.t, err)
}

func (g *gateway) run(id uint64, digest, data string) {
	g.t.Helper()
	g.send(frame.AppendRun(nil, &functions.Invocation{ID: id, Revision: digest, Event: &event.Event{Data: []byte(data)},
		Limits: functions.Limits{Timeout: 20 * time.Millisecond}}))
}

func (g *gateway) load(digest, source string) {
	g.t.Helper()
	g.send(frame.AppendLoad(nil, digest, map[string][]byte{"main.lua": []byte(source)}))
}

func (g *gateway) outcome() *functions.Outcome {
	g.t.Helper()
	o, err := frame.DecodeOutcome(g.expect(frame.Outcome))
	require.NoError(g.t, err)
	return o
}

func TestRunsInOrder(t *testing.T) {
	g := start(t)
	g.load("a", "ok")
	for id := range uint64(20) {
		g.run(id, "a", "")
		if id%2 == 1 {
			require.Equal(t, id-1, g.outcome().ID)
			require.Equal(t, id, g.outcome().ID)
		}
	}
}

func TestRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var released atomic.Int64
		w := &worker{wake: make(chan struct{}, 1), rest: time.NewTimer(restAfter), release: func() { released.Add(1) }}
		taken := make(chan item)
		next := func() { go func() { taken <- w.next() }() }
		work := func(id uint64) {
			w.mu.Lock()
			w.queue = append(w.queue, item{run: &functions.Invocation{ID: id}})
			w.mu.Unlock()
			w.nudge()
			require.Equal(t, id, (<-taken).run.ID)
		}
		for id := range uint64(3) {
			next()
			for range 30 {
				time.Sleep(restAfter / 20)
				work(id)
				next()
			}
			require.EqualValues(t, id, released.Load())
			time.Sleep(3 * restAfter)
			require.EqualValues(t, id+1, released.Load())
			time.Sleep(time.Hour)
			require.EqualValues(t, id+1, released.Load())
			work(id)
		}
	})
}

// counted is a connection that remembers each write.
type counted struct {
	bytes.Buffer
	writes [][]byte
	fails  error
}

func (c *counted) Write(b []byte) (int, error) {
	c.writes = append(c.writes, bytes.Clone(b))
	return len(b), c.fails
}

// TestKeep: what is kept goes with the next frame, when there is much of it, or soon.
func TestKeep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &counted{}
		w := &worker{conn: c}
		w.late = time.AfterFunc(time.Hour, w.tooLate)
		defer w.late.Stop()
		text := func(s string) func([]byte) ([]byte, error) {
			return func(buf []byte) ([]byte, error) { return append(buf, s...), nil }
		}
		writes := func(want ...string) {
			t.Helper()
			var got []string
			for _, b := range c.writes {
				got = append(got, string(b))
			}
			require.Equal(t, want, got)
			c.writes = nil
		}
		require.NoError(t, w.keep(text("a")))
		require.NoError(t, w.keep(text("b")))
		writes()
		require.NoError(t, w.send(text("c")))
		writes("abc")
		require.NoError(t, w.keep(text("d")))
		require.ErrorIs(t, w.keep(func(buf []byte) ([]byte, error) { return append(buf, "half"...), frame.ErrTooBig }), frame.ErrTooBig)
		time.Sleep(keepFor)
		synctest.Wait()
		writes("d")
		time.Sleep(time.Minute)
		synctest.Wait()
		writes()
		require.NoError(t, w.keep(text("e")))
		large := strings.Repeat("f", keepBytes)
		require.NoError(t, w.keep(text(large)))
		writes("e" + large)

		c.fails = io.ErrClosedPipe
		require.NoError(t, w.keep(text("g")))
		time.Sleep(keepFor)
		synctest.Wait()
		require.ErrorIs(t, w.keep(text("h")), io.ErrClosedPipe)
		require.ErrorIs(t, w.send(text("i")), io.ErrClosedPipe)
	})
}

// TestKeptOutcomesDoNotWait: outcomes that were kept are told although what follows takes long.
func TestKeptOutcomesDoNotWait(t *testing.T) {
	g := start(t)
	g.load("a", "ok")
	g.run(1, "a", "block")
	require.EqualValues(t, 1, <-g.model.entered)
	g.run(2, "a", "")
	g.run(3, "a", "block")
	g.model.release <- struct{}{}
	require.EqualValues(t, 1, g.outcome().ID)
	require.EqualValues(t, 2, g.outcome().ID)
	require.EqualValues(t, 3, <-g.model.entered)
	g.model.release <- struct{}{}
	require.EqualValues(t, 3, g.outcome().ID)
}

// TestFollows: an outcome is kept only in front of another of its own function.
func TestFollows(t *testing.T) {
	w := &worker{}
	require.False(t, w.follows("a"))
	w.queue = []item{{load: &frame.Code{Digest: "a"}}, {run: &functions.Invocation{Revision: "a"}}}
	require.False(t, w.follows("a"))
	w.queue = w.queue[1:]
	require.True(t, w.follows("a"))
	require.False(t, w.follows("b"))
}

func TestAsks(t *testing.T) {
	g := start(t)
	g.load("a", "ok")
	g.run(1, "a", "ask")
	id, r, err := frame.DecodeAsk(g.expect(frame.Ask))
	require.NoError(t, err)
	require.EqualValues(t, 1, id)
	require.Equal(t, functions.Read{Kind: functions.ReadState, Name: "n"}, r)
	g.send(frame.AppendAnswer(nil, 1, functions.ReadAnswer{Value: []byte("41")}))
	require.Equal(t, "n 1 41", string(g.outcome().Result))
}

// TestLateAnswers: an invocation does not wait beyond its deadline, and the next does not take its answer.
func TestLateAnswers(t *testing.T) {
	g := start(t)
	g.load("a", "ok")
	g.run(1, "a", "ask")
	g.expect(frame.Ask)
	require.Equal(t, "n 1 ", string(g.outcome().Result))
	g.send(frame.AppendAnswer(nil, 1, functions.ReadAnswer{Value: []byte("old")}))
	g.send(frame.AppendRun(nil, &functions.Invocation{ID: 2, Revision: "a", Event: &event.Event{Data: []byte("ask")}}))
	g.expect(frame.Ask)
	g.send(frame.AppendAnswer(nil, 1, functions.ReadAnswer{Value: []byte("old")}))
	g.send(frame.AppendAnswer(nil, 2, functions.ReadAnswer{Value: []byte("new")}))
	require.Equal(t, "n 1 new", string(g.outcome().Result))
}

// TestNeedsCode: the code overtakes what is queued before it.
func TestNeedsCode(t *testing.T) {
	g := start(t)
	g.run(1, "a", "")
	require.Equal(t, "a", string(g.expect(frame.Need)[1:]))
	g.run(2, "a", "")
	g.load("a", "ok")
	require.EqualValues(t, 1, g.outcome().ID)
	require.EqualValues(t, 2, g.outcome().ID)
}

func TestBadCodeIsTheInvocationsFault(t *testing.T) {
	g := start(t)
	g.load("a", "bad")
	for id := range uint64(3) {
		g.run(id, "a", "")
		require.Equal(t, "does not compile", g.outcome().Fault.Message)
	}
	g.load("a", "ok")
	g.run(9, "a", "")
	require.Nil(t, g.outcome().Fault)
}

func TestChecks(t *testing.T) {
	g := start(t)
	for id, source := range []string{"ok", "bad"} {
		g.send(frame.AppendCheck(nil, uint64(id), "a", map[string][]byte{"main.lua": []byte(source)}, functions.Limits{}))
		got, f, err := frame.DecodeChecked(g.expect(frame.Checked))
		require.NoError(t, err)
		require.EqualValues(t, id, got)
		require.Equal(t, source == "bad", f != nil)
	}
	for given, want := range map[time.Duration]string{20 * time.Millisecond: "20ms", time.Hour: "2s"} {
		g.send(frame.AppendCheck(nil, 7, "a", map[string][]byte{"main.lua": []byte("endless")}, functions.Limits{Timeout: given}))
		_, f, err := frame.DecodeChecked(g.expect(frame.Checked))
		require.NoError(t, err)
		require.Equal(t, want, f.Message)
	}
}

// TestGivesBackWhatHasNotBegun, and says so while something runs.
func TestGivesBackWhatHasNotBegun(t *testing.T) {
	g := start(t)
	g.load("a", "ok")
	g.run(1, "a", "block")
	require.EqualValues(t, 1, <-g.model.entered)
	g.run(2, "a", "")
	g.run(3, "a", "")
	g.load("b", "ok")
	g.run(4, "b", "")
	g.send(frame.AppendRevoke(nil, []uint64{1, 3, 4, 77}))
	ids, err := frame.DecodeIDs(g.expect(frame.Revoked))
	require.NoError(t, err)
	require.Equal(t, []uint64{3, 4}, ids)
	close(g.model.release)
	require.EqualValues(t, 1, g.outcome().ID)
	require.EqualValues(t, 2, g.outcome().ID)
	g.run(5, "b", "")
	require.EqualValues(t, 5, g.outcome().ID, "code stays")
}

func TestTooMuchIsBadOutput(t *testing.T) {
	g := start(t)
	g.load("a", "ok")
	g.run(1, "a", "big")
	o := g.outcome()
	require.Equal(t, functions.FaultBadOutput, o.Fault.Kind)
	require.Equal(t, []functions.LogLine{{Level: "info", Text: "kept"}}, o.Logs)
}

func TestDeadline(t *testing.T) {
	g := start(t)
	g.load("a", "ok")
	g.run(1, "a", "deadline")
	require.Equal(t, functions.FaultTimeout, g.outcome().Fault.Kind)
}

func TestEndsWithTheSocket(t *testing.T) {
	g := start(t)
	g.load("a", "ok")
	g.run(1, "a", "block")
	<-g.model.entered
	g.conn.Close()
	require.NoError(t, <-g.ended)
	close(g.model.release)
}

func TestRefusesNonsense(t *testing.T) {
	for _, b := range [][]byte{{0, 0, 0, 0, 200}, {0, 0, 0, 0, byte(frame.Outcome)}, {1, 0, 0, 0, byte(frame.Run), 1}} {
		g := start(t)
		g.send(b, nil)
		require.Error(t, <-g.ended)
	}
}

func TestThriftyArg(t *testing.T) {
	require.Equal(t, 400, gcPercent([]string{"perigee", "worker", "1048576"}))
	require.Equal(t, 400, gcPercent([]string{"perigee", "worker", "1048576", "seccomp"}))
	thrifty := []string{"perigee", "worker", "1048576", "", "thrifty"}
	require.Equal(t, 150, gcPercent(thrifty))
	require.Empty(t, withoutArg(thrifty))
}

func TestMemoryArg(t *testing.T) {
	for want, args := range map[int64][]string{
		DefaultMemory: {"perigee", "worker"},
		1 << 20:       {"perigee", "worker", "1048576"},
	} {
		require.Equal(t, want, memoryArg(args))
	}
	require.EqualValues(t, DefaultMemory, memoryArg([]string{"perigee", "worker", "-1"}))
	require.EqualValues(t, DefaultMemory, memoryArg([]string{"perigee", "worker", "x"}))
}
