package frame

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/internal/event"
)

func invocation() *functions.Invocation {
	return &functions.Invocation{
		ID: 7, Function: "overheat", Revision: "abc", Key: "cellar", Attempt: 2,
		Event: &event.Event{ID: "e1", Source: "mqtt", Type: event.Message, Subject: "a/b", Topic: "a/b", Seq: 9, Boot: 3,
			Time: time.UnixMilli(1_700_000_000_123).UTC(), TimeOK: true, Mono: time.Minute, Data: []byte(`{"t":31}`)},
		Params: map[string]string{"room": "cellar", "floor": "0"},
		Now:    time.Unix(1_700_000_000, 123456789).UTC(), NowOK: true, Seed: math.MaxUint64, Gateway: "gw-01",
		Env:    []byte(`{"on":30}`),
		Limits: functions.Limits{Timeout: time.Second, Memory: 16 << 20, Concurrency: 1, Effects: 64, EffectBytes: 1 << 16, State: 4 << 20, LogBytes: 8 << 10, Result: 1 << 15, Reads: 256},
		Perms:  functions.Permissions{ReadDevices: []string{"cellar"}, WriteDevices: []string{"fan"}, Publish: []string{"alerts/#"}, Streams: []string{"alerts"}},
		Hints: []functions.ReadAnswer{{Read: functions.Read{Kind: functions.ReadState, Name: "hot"}, Value: []byte("true")},
			{Read: functions.Read{Kind: functions.ReadDevice, Name: "cellar"}, Err: "not connected"}},
	}
}

func outcome() *functions.Outcome {
	return &functions.Outcome{
		ID: 7, Result: []byte(`{"hot":true}`),
		Effects: []functions.Effect{
			{Kind: functions.SetState, Name: "hot", Value: []byte("true")},
			{Kind: functions.IncrShared, Name: "n", By: -1.5},
			{Kind: functions.Publish, Name: "alerts/x", Value: []byte{}, QoS: 2, Retain: true, WithID: true, NotAfter: time.Minute},
			{Kind: functions.WriteDevice, Name: "fan", Value: []byte("1"), For: 10 * time.Second},
		},
		Reads: []functions.Read{{Kind: functions.ReadStateKeys, Name: "h"}},
		Logs:  []functions.LogLine{{Level: "warn", Text: "hot\nand düster"}, {Level: "debug", Text: "x"}},
		Usage: functions.Usage{Wall: time.Millisecond, CPU: time.Microsecond, Memory: 1 << 20},
	}
}

// body takes the frame apart with a Reader, one byte at a time.
func body(t testing.TB, want Type, limit func(Type) int, frame []byte, err error) []byte {
	t.Helper()
	require.NoError(t, err)
	typ, b, err := NewReader(iotest.OneByteReader(bytes.NewReader(frame)), limit).Next()
	require.NoError(t, err)
	require.Equal(t, want, typ)
	return b
}

func TestInvocation(t *testing.T) {
	inv := invocation()
	b, err := AppendRun(nil, inv)
	got, err := DecodeRun(body(t, Run, ToWorker, b, err))
	require.NoError(t, err)
	require.Equal(t, inv, got)
}

func TestOutcome(t *testing.T) {
	fault := &functions.Outcome{ID: 1, Fault: &functions.Fault{Kind: functions.FaultDenied, Message: "no", Traceback: []string{"main.lua:1"}, Hint: "add it"}}
	retry := &functions.Outcome{ID: 2, Retry: &functions.RetryAsk{Why: "later", After: time.Minute}}
	for _, o := range []*functions.Outcome{outcome(), fault, retry, {ID: 3}} {
		b, err := AppendOutcome(nil, o)
		got, err := DecodeOutcome(body(t, Outcome, FromWorker, b, err))
		require.NoError(t, err)
		require.Equal(t, o, got)
	}
}

func TestFaultLeavesNothingElse(t *testing.T) {
	o := outcome()
	o.Fault = &functions.Fault{Kind: functions.FaultError, Message: "x"}
	b, err := AppendOutcome(nil, o)
	got, err := DecodeOutcome(body(t, Outcome, FromWorker, b, err))
	require.NoError(t, err)
	require.Empty(t, got.Effects)
	require.Empty(t, got.Result)
	require.Equal(t, o.Logs, got.Logs)
}

func TestTheRest(t *testing.T) {
	files := map[string][]byte{"main.lua": []byte("return 1"), "lib/a.lua": {}, "tests/t.lua": []byte("no"), "function.yaml": []byte("no")}
	want := map[string][]byte{"main.lua": []byte("return 1"), "lib/a.lua": {}}
	b, err := AppendLoad(nil, "d", files)
	c, err := DecodeLoad(body(t, Load, ToWorker, b, err))
	require.NoError(t, err)
	require.Equal(t, &Code{Digest: "d", Files: want}, c)

	b, err = AppendCheck(nil, 5, "d", files, functions.Limits{Timeout: time.Second, Reads: 3})
	c, err = DecodeCheck(body(t, Check, ToWorker, b, err))
	require.NoError(t, err)
	require.Equal(t, &Code{ID: 5, Limits: functions.Limits{Timeout: time.Second, Reads: 3}, Digest: "d", Files: want}, c)

	for _, f := range []*functions.Fault{nil, {Kind: functions.FaultError, Message: "line 1"}} {
		b, err = AppendChecked(nil, 5, f)
		id, got, err := DecodeChecked(body(t, Checked, FromWorker, b, err))
		require.NoError(t, err)
		require.EqualValues(t, 5, id)
		require.Equal(t, f, got)
	}

	b, err = AppendAsk(nil, 6, functions.Read{Kind: functions.ReadShared, Name: "n"})
	id, r, err := DecodeAsk(body(t, Ask, FromWorker, b, err))
	require.NoError(t, err)
	require.EqualValues(t, 6, id)
	require.Equal(t, functions.Read{Kind: functions.ReadShared, Name: "n"}, r)

	b, err = AppendAnswer(nil, 6, functions.ReadAnswer{Value: []byte("1"), Err: "e"})
	id, a, err := DecodeAnswer(body(t, Answer, ToWorker, b, err))
	require.NoError(t, err)
	require.EqualValues(t, 6, id)
	require.Equal(t, functions.ReadAnswer{Value: []byte("1"), Err: "e"}, a)

	for _, ids := range [][]uint64{{}, {1, 1 << 63, math.MaxUint64}} {
		b, err = AppendRevoke(nil, ids)
		got, err := DecodeIDs(body(t, Revoke, ToWorker, b, err))
		require.NoError(t, err)
		require.Equal(t, ids, got)
		b, err = AppendRevoked(nil, ids)
		got, err = DecodeIDs(body(t, Revoked, FromWorker, b, err))
		require.NoError(t, err)
		require.Equal(t, ids, got)
	}

	b, err = AppendReady(nil, []Layer{{"seccomp", Unavailable, "not here"}, {"rlimits", On, ""}})
	layers, err := DecodeReady(body(t, Ready, FromWorker, b, err))
	require.NoError(t, err)
	require.Equal(t, []Layer{{"seccomp", Unavailable, "not here"}, {"rlimits", On, ""}}, layers)

	_, err = DecodeReady([]byte{Version, 1, 1, 'a', 3, 0})
	require.ErrorIs(t, err, ErrBreach)

	b, err = AppendConfining(nil, "seccomp")
	layer, err := DecodeConfining(body(t, Confining, FromWorker, b, err))
	require.NoError(t, err)
	require.Equal(t, "seccomp", layer)

	b, err = AppendNeed(nil, "digest")
	digest, err := DecodeNeed(body(t, Need, FromWorker, b, err))
	require.NoError(t, err)
	require.Equal(t, "digest", digest)
}

// TestHonestSideKeepsTheCaps: whatever a machine makes, the frame is either refused or decodes.
func TestHonestSideKeepsTheCaps(t *testing.T) {
	long := strings.Repeat("ä\x1b\x00", 100_000)
	o := &functions.Outcome{Fault: &functions.Fault{Kind: "strange", Message: long, Hint: long}}
	for range 50 {
		o.Fault.Traceback = append(o.Fault.Traceback, long)
		o.Logs = append(o.Logs, functions.LogLine{Level: "strange", Text: long[:8000]})
	}
	b, err := AppendOutcome(nil, o)
	got, err := DecodeOutcome(body(t, Outcome, FromWorker, b, err))
	require.NoError(t, err)
	require.Equal(t, functions.FaultBadOutput, got.Fault.Kind)
	require.Len(t, got.Fault.Traceback, maxTraceback)
	require.Len(t, got.Logs, 50)
	for _, s := range []string{got.Fault.Message, got.Fault.Hint, got.Fault.Traceback[0], got.Logs[0].Text} {
		require.NotContains(t, s, "\x1b")
		require.NotContains(t, s, "\x00")
	}
	require.LessOrEqual(t, len(got.Fault.Message), maxMessage)

	for _, o := range []*functions.Outcome{
		{Effects: make([]functions.Effect, maxEffects+1)},
		{Reads: make([]functions.Read, maxReads+1)},
		{Effects: []functions.Effect{{Kind: functions.Publish, Name: long}}},
		{Reads: []functions.Read{{Kind: functions.ReadState, Name: long}}},
		{Effects: []functions.Effect{{Kind: functions.IncrState, By: math.Inf(1)}}},
		{Effects: []functions.Effect{{Kind: functions.IncrState, By: math.NaN()}}},
		{Result: make([]byte, maxOutcome)},
	} {
		before := []byte("before")
		b, err := AppendOutcome(before, o)
		require.ErrorIs(t, err, ErrTooBig)
		require.Equal(t, "before", string(b))
	}
	_, err = AppendAsk(nil, 1, functions.Read{Kind: functions.ReadState, Name: long})
	require.ErrorIs(t, err, ErrTooBig)
}

func TestHintsGiveWay(t *testing.T) {
	inv := invocation()
	inv.Hints[0].Value = make([]byte, maxRun)
	b, err := AppendRun(nil, inv)
	got, err := DecodeRun(body(t, Run, ToWorker, b, err))
	require.NoError(t, err)
	require.Empty(t, got.Hints)
	inv.Event.Data = make([]byte, maxRun)
	_, err = AppendRun(nil, inv)
	require.ErrorIs(t, err, ErrTooBig)
	inv = invocation()
	inv.Perms.Publish = make([]string, maxList+1)
	_, err = AppendRun(nil, inv)
	require.ErrorIs(t, err, ErrTooBig)
}

func TestNonsenseIsABreach(t *testing.T) {
	effect := func(kind, has, qos byte, tail ...byte) []byte {
		return append([]byte{1, succeeded, 0, 1, kind, has, qos, 1, 'n', 0}, tail...)
	}
	rest := []byte{0, 0, 0, 0, 0}
	_, err := DecodeOutcome(append(effect(1, 0, 0), rest...))
	require.NoError(t, err)
	nan := binary.LittleEndian.AppendUint64(nil, math.Float64bits(math.NaN()))
	for name, b := range map[string][]byte{
		"kind 0":     append(effect(0, 0, 0), rest...),
		"kind 13":    append(effect(13, 0, 0), rest...),
		"QoS 3":      append(effect(1, 0, 3), rest...),
		"flags":      append(effect(1, 32, 0), rest...),
		"NaN":        append(append(effect(10, hasBy, 0), nan...), rest...),
		"outcome 9":  append([]byte{1, 9}, rest...),
		"fault kind": {1, faulted, 6, 0, 0, 0, 0, 0, 0, 0, 0},
		"level":      {1, succeeded, 0, 0, 0, 1, 4, 0, 0, 0, 0},
		"read kind":  {1, succeeded, 0, 0, 1, 6, 0, 0, 0, 0, 0},
		"too long":   append(append(effect(1, 0, 0), rest...), 0),
		"duration":   append(effect(6, hasFor, 0), 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0, 0, 0),
	} {
		_, err := DecodeOutcome(b)
		require.ErrorIs(t, err, ErrBreach, name)
	}
}

func TestReader(t *testing.T) {
	var all []byte
	for i := range 100 {
		all, _ = AppendAsk(all, uint64(i), functions.Read{Kind: functions.ReadState, Name: strings.Repeat("n", i*40)})
	}
	for name, src := range map[string]io.Reader{
		"whole": bytes.NewReader(all), "bytes": iotest.OneByteReader(bytes.NewReader(all)), "halves": iotest.HalfReader(bytes.NewReader(all)),
		"with its end": iotest.DataErrReader(bytes.NewReader(all)),
	} {
		r := NewReader(src, FromWorker)
		for i := range 100 {
			_, b, err := r.Next()
			require.NoError(t, err, name)
			id, read, err := DecodeAsk(b)
			require.NoError(t, err)
			require.EqualValues(t, i, id)
			require.Len(t, read.Name, i*40)
		}
		require.False(t, r.More())
		_, _, err := r.Next()
		require.Equal(t, io.EOF, err)
	}
	r := NewReader(bytes.NewReader(all), FromWorker)
	_, _, err := r.Next()
	require.NoError(t, err)
	require.True(t, r.More())
	r = NewReader(bytes.NewReader(all[:20]), FromWorker)
	for err == nil {
		_, _, err = r.Next()
	}
	require.Equal(t, io.ErrUnexpectedEOF, err)
}

func TestReaderRefusesBeforeItReads(t *testing.T) {
	for _, h := range [][]byte{
		{0xff, 0xff, 0xff, 0xff, byte(Outcome)},
		{1, 0, 8, 0, byte(Outcome)}, // one byte over 512 KiB
		{0, 0, 0, 0, byte(Run)},
		{0, 0, 0, 0, 0},
	} {
		src := &counting{Reader: bytes.NewReader(append(h, make([]byte, 1<<20)...))}
		_, _, err := NewReader(src, FromWorker).Next()
		require.ErrorIs(t, err, ErrBreach)
		require.LessOrEqual(t, src.n, leastBuffer)
	}
}

// TestReaderGrowsWithWhatArrives: an announced length alone costs nothing, and a large buffer is given up.
func TestReaderGrowsWithWhatArrives(t *testing.T) {
	head := []byte{0, 0, 8, 0, byte(Outcome)} // 512 KiB
	r := NewReader(bytes.NewReader(head), FromWorker)
	_, _, err := r.Next()
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.LessOrEqual(t, len(r.buf), leastBuffer)

	full := append(append([]byte{}, head...), make([]byte, 512<<10)...)
	small, _ := AppendNeed(nil, "x")
	r = NewReader(io.MultiReader(bytes.NewReader(full), bytes.NewReader(small)), FromWorker)
	_, _, err = r.Next()
	require.NoError(t, err)
	require.Greater(t, len(r.buf), keptBuffer)
	_, _, err = r.Next()
	require.NoError(t, err)
	require.LessOrEqual(t, len(r.buf), keptBuffer)
}

type counting struct {
	io.Reader
	n int
}

func (c *counting) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	c.n += n
	return n, err
}

// FuzzFromWorker feeds the gateway's side with what a worker may send: nothing panics, and what is accepted keeps the
// caps and can be said again.
func FuzzFromWorker(f *testing.F) {
	add := func(b []byte, err error) {
		require.NoError(f, err)
		f.Add(b)
	}
	add(AppendOutcome(nil, outcome()))
	add(AppendOutcome(nil, &functions.Outcome{Fault: &functions.Fault{Kind: functions.FaultError, Message: "x", Traceback: []string{"y"}}}))
	add(AppendOutcome(nil, &functions.Outcome{Retry: &functions.RetryAsk{Why: "w", After: 1}}))
	add(AppendAsk(nil, 6, functions.Read{Kind: functions.ReadShared, Name: "n"}))
	add(AppendChecked(nil, 6, &functions.Fault{Kind: functions.FaultError, Message: "x"}))
	add(AppendRevoked(nil, []uint64{1, 2}))
	add(AppendReady(nil, []Layer{{"a", Off, "b"}}))
	add(AppendNeed(nil, "d"))
	add(AppendConfining(nil, "l"))
	f.Add([]byte{0xff, 0xff, 0xff, 0x7f, byte(Outcome)})
	f.Fuzz(func(t *testing.T, data []byte) {
		r := NewReader(bytes.NewReader(data), FromWorker)
		for {
			typ, b, err := r.Next()
			if err != nil {
				return
			}
			if len(r.buf) > leastBuffer+2*len(data) {
				t.Fatalf("%d bytes of buffer for %d bytes", len(r.buf), len(data))
			}
			decodeAny(t, typ, b)
		}
	})
}

func decodeAny(t *testing.T, typ Type, b []byte) {
	var err error
	switch typ {
	case Confining:
		_, err = DecodeConfining(b)
	case Outcome:
		var o, again *functions.Outcome
		if o, err = DecodeOutcome(b); err == nil {
			said, err := AppendOutcome(nil, o)
			require.NoError(t, err)
			again, err = DecodeOutcome(said[headerSize:])
			require.NoError(t, err)
			require.Equal(t, o, again)
		}
	case Ask:
		_, _, err = DecodeAsk(b)
	case Checked:
		_, _, err = DecodeChecked(b)
	case Revoked:
		_, err = DecodeIDs(b)
	case Ready:
		_, err = DecodeReady(b)
	case Need:
		_, err = DecodeNeed(b)
	}
	if err != nil && !errors.Is(err, ErrBreach) {
		t.Fatalf("%s: %v", typ, err)
	}
}

// FuzzToWorker does the same on the worker's side.
func FuzzToWorker(f *testing.F) {
	add := func(b []byte, err error) {
		require.NoError(f, err)
		f.Add(b)
	}
	add(AppendRun(nil, invocation()))
	add(AppendLoad(nil, "d", map[string][]byte{"main.lua": []byte("return 1")}))
	add(AppendCheck(nil, 1, "d", map[string][]byte{"main.lua": []byte("return 1")}, functions.Limits{Timeout: time.Second}))
	add(AppendAnswer(nil, 1, functions.ReadAnswer{Value: []byte("1")}))
	add(AppendRevoke(nil, []uint64{1}))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := NewReader(bytes.NewReader(data), ToWorker)
		for {
			typ, b, err := r.Next()
			if err != nil {
				return
			}
			switch typ {
			case Run:
				_, err = DecodeRun(b)
			case Load:
				_, err = DecodeLoad(b)
			case Check:
				_, err = DecodeCheck(b)
			case Answer:
				_, _, err = DecodeAnswer(b)
			case Revoke:
				_, err = DecodeIDs(b)
			}
			if err != nil && !errors.Is(err, ErrBreach) {
				t.Fatalf("%s: %v", typ, err)
			}
		}
	})
}

func BenchmarkRun(b *testing.B) {
	inv := invocation()
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf, _ = AppendRun(buf[:0], inv)
		if _, err := DecodeRun(buf[headerSize:]); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOutcome(b *testing.B) {
	o := outcome()
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf, _ = AppendOutcome(buf[:0], o)
		if _, err := DecodeOutcome(buf[headerSize:]); err != nil {
			b.Fatal(err)
		}
	}
}
