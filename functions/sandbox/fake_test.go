package sandbox

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/functions/frame"
	"github.com/perigee-iot/perigee/functions/worker"
)

// The test binary is the worker, too: the real one, or with "fake MODE" as arguments one that behaves as MODE says.
func TestMain(m *testing.M) {
	worker.MainIfWorker()
	if len(os.Args) > 1 && os.Args[1] == "gateway" {
		gatewayMain()
	}
	if len(os.Args) > 2 && os.Args[1] == "fake" {
		os.Exit(fakeMain(os.Args[2]))
	}
	os.Exit(m.Run())
}

func fakeCommand(mode string) []string {
	exe, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return []string{exe, "fake", mode}
}

// fake is a worker without a machine and without manners.
type fake struct {
	conn   *os.File
	frames *frame.Reader
	early  []early // frames that came while it waited for another
}

type early struct {
	t    frame.Type
	body []byte
}

func (f *fake) send(b []byte, err error) {
	if err != nil {
		panic(err)
	}
	if _, err := f.conn.Write(b); err != nil {
		os.Exit(0)
	}
}

func (f *fake) next() (frame.Type, []byte) {
	if len(f.early) > 0 {
		first := f.early[0]
		f.early = f.early[1:]
		return first.t, first.body
	}
	return f.read()
}

// await is the next frame of a type; what comes before it is kept for next.
func (f *fake) await(want frame.Type) []byte {
	for {
		t, body := f.read()
		if t == want {
			return body
		}
		f.early = append(f.early, early{t, body})
	}
}

func (f *fake) read() (frame.Type, []byte) {
	t, body, err := f.frames.Next()
	if err != nil {
		os.Exit(0)
	}
	return t, bytes.Clone(body)
}

func (f *fake) ready() { f.send(frame.AppendReady(nil, []frame.Layer{{Name: "fake"}})) }

func fakeMain(mode string) int {
	f := &fake{conn: os.NewFile(3, "gateway")}
	f.frames = frame.NewReader(f.conn, frame.ToWorker)
	switch mode {
	case "dies-at-start":
		fmt.Fprintln(os.Stderr, "panic: no \x1b[31mmemory\x1b[0m for this")
		return 3
	case "garbage-at-start":
		f.conn.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
	case "outcome-before-ready":
		f.send(frame.AppendOutcome(nil, &functions.Outcome{ID: 1}))
	case "ready-and-gone":
		f.ready()
		return 4
	case "ready-twice":
		f.ready()
		f.ready()
	default:
		f.ready()
	}
	for {
		t, body := f.next()
		switch t {
		case frame.Run:
			inv, err := frame.DecodeRun(body)
			if err != nil {
				panic(err)
			}
			f.misbehave(mode, inv)
			f.run(inv)
		case frame.Check:
			c, err := frame.DecodeCheck(body)
			if err != nil {
				panic(err)
			}
			var fault *functions.Fault
			if text := string(c.Files["main.lua"]); strings.HasPrefix(text, "bad") {
				fault = &functions.Fault{Kind: functions.FaultError, Message: text}
			}
			f.send(frame.AppendChecked(nil, c.ID, fault))
		case frame.Revoke:
			f.send(frame.AppendRevoked(nil, nil)) // it does one thing at a time: nothing is left to give back
		}
	}
}

// run does what the event says: "echo", "sleep 20ms", "ask NAME", "die", "exit 3", "need".
func (f *fake) run(inv *functions.Invocation) {
	o := &functions.Outcome{ID: inv.ID, Usage: functions.Usage{Wall: time.Hour, CPU: time.Hour}}
	verb, arg, _ := strings.Cut(string(inv.Event.Data), " ")
	switch verb {
	case "sleep":
		d, _ := time.ParseDuration(arg)
		time.Sleep(d)
	case "hang":
		time.Sleep(time.Hour)
	case "fuzz":
		f.fuzz(inv)
		return
	case "limit":
		f.exceed(arg, inv.ID, o)
	case "pid":
		o.Result = []byte(strconv.Itoa(os.Getpid()))
	case "die":
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
	case "exit":
		n, _ := strconv.Atoi(arg)
		fmt.Fprintln(os.Stderr, "fatal error: as told")
		os.Exit(n)
	case "hold":
		held := make([]byte, 96<<20)
		for i := range held {
			held[i] = 1
		}
		time.Sleep(time.Hour)
		fmt.Fprintln(os.Stderr, len(held))
	case "ask":
		f.send(frame.AppendAsk(nil, inv.ID, functions.Read{Kind: functions.ReadState, Name: arg}))
		_, a, err := frame.DecodeAnswer(f.await(frame.Answer))
		if err != nil {
			panic(err)
		}
		o.Result = []byte(strconv.Quote(string(a.Value) + a.Err))
	case "need":
		f.send(frame.AppendNeed(nil, inv.Revision))
		c, err := frame.DecodeLoad(f.await(frame.Load))
		if err != nil {
			panic(err)
		}
		o.Result = []byte(strconv.Quote(string(c.Files["main.lua"])))
	default:
		o.Result = []byte(strconv.Quote(string(inv.Event.Data)))
		o.Effects = []functions.Effect{{Kind: functions.Publish, Name: "a/b", Value: inv.Event.Data}}
	}
	f.send(frame.AppendOutcome(nil, o))
}

// exceed makes an outcome that an honest worker would not send: each is over the limit of this name.
func (f *fake) exceed(limit string, id uint64, o *functions.Outcome) {
	set := functions.Effect{Kind: functions.SetState, Name: "a", Value: []byte("1")}
	switch limit {
	case "effects":
		o.Effects = []functions.Effect{set, set, set, set}
	case "effect_bytes":
		set.Value = []byte(strconv.Quote(strings.Repeat("x", 298)))
		o.Effects = []functions.Effect{set}
	case "result":
		o.Result = []byte(strconv.Quote(strings.Repeat("x", 58)))
	case "reads":
		for i := range 5 {
			f.send(frame.AppendAsk(nil, id, functions.Read{Kind: functions.ReadState, Name: strconv.Itoa(i)}))
			f.next()
		}
	case "reads told":
		o.Reads = make([]functions.Read, 5)
		for i := range o.Reads {
			o.Reads[i] = functions.Read{Kind: functions.ReadState, Name: strconv.Itoa(i)}
		}
	case "log_bytes", "log_bytes of a fault", "log_bytes of a retry":
		o.Logs = []functions.LogLine{{Level: "info", Text: strings.Repeat("x", 79)}}
		if strings.HasSuffix(limit, "fault") {
			o.Fault = &functions.Fault{Kind: functions.FaultError, Message: "x"}
		} else if strings.HasSuffix(limit, "retry") {
			o.Retry = &functions.RetryAsk{}
		}
	case "nesting":
		o.Result = []byte(strings.Repeat("[", 65) + strings.Repeat("]", 65))
	case "nesting of state":
		set.Value = []byte(strings.Repeat("[", 65) + strings.Repeat("]", 65))
		o.Effects = []functions.Effect{set}
	}
}

// misbehave is what the hostile modes do when they get an invocation.
func (f *fake) misbehave(mode string, inv *functions.Invocation) {
	switch mode {
	case "unknown-frame":
		f.conn.Write([]byte{0, 0, 0, 0, 200})
	case "gateway-frame":
		f.conn.Write([]byte{0, 0, 0, 0, byte(frame.Run)})
	case "giant":
		f.conn.Write([]byte{0xff, 0xff, 0xff, 0xff, byte(frame.Outcome)})
		f.conn.Write(make([]byte, 1<<20))
	case "bad-body":
		f.conn.Write([]byte{3, 0, 0, 0, byte(frame.Outcome), 0xff, 0xff, 0xff})
	case "foreign-outcome":
		f.send(frame.AppendOutcome(nil, &functions.Outcome{ID: inv.ID + 1000}))
	case "doubled-outcome":
		b, _ := frame.AppendOutcome(nil, &functions.Outcome{ID: inv.ID, Result: []byte("1")})
		b, err := frame.AppendOutcome(b, &functions.Outcome{ID: inv.ID, Result: []byte("2")})
		f.send(b, err)
	case "foreign-ask":
		f.send(frame.AppendAsk(nil, inv.ID+1, functions.Read{Kind: functions.ReadState, Name: "n"}))
	case "late-ask":
		b, _ := frame.AppendOutcome(nil, &functions.Outcome{ID: inv.ID, Result: []byte("1")})
		b, err := frame.AppendAsk(b, inv.ID, functions.Read{Kind: functions.ReadState, Name: "n"})
		f.send(b, err)
	case "endless-asks":
		for {
			f.send(frame.AppendAsk(nil, inv.ID, functions.Read{Kind: functions.ReadState, Name: "n"}))
		}
	case "foreign-need":
		f.send(frame.AppendNeed(nil, "0123"))
	case "endless-needs":
		for {
			f.send(frame.AppendNeed(nil, inv.Revision))
		}
	case "revoked-unasked":
		f.send(frame.AppendRevoked(nil, []uint64{inv.ID}))
	case "checked-unasked":
		f.send(frame.AppendChecked(nil, inv.ID, nil))
	case "closes":
		f.conn.Close()
		time.Sleep(time.Hour)
	case "half-frame":
		f.conn.Write([]byte{100, 0, 0, 0, byte(frame.Outcome), 1, 2, 3})
		os.Exit(0)
	case "deaf": // asks, and never reads an answer
		for {
			f.send(frame.AppendAsk(nil, inv.ID, functions.Read{Kind: functions.ReadState, Name: "big"}))
		}
	}
}
