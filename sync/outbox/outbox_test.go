package outbox_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/internal/store"
	"github.com/perigee-iot/perigee/sync/outbox"
	"github.com/perigee-iot/perigee/sync/record"
)

// box is an outbox on a store of its own, which can be reopened.
type box struct {
	t     testing.TB
	dir   string
	opts  outbox.Options
	clock time.Time
	st    *store.Store
	*outbox.Outbox
}

func newBox(t testing.TB, configs map[string]outbox.Config) *box {
	b := &box{t: t, dir: t.TempDir(), clock: time.UnixMilli(1e12).UTC()}
	b.opts = outbox.Options{Gateway: "gw", Uplink: "main", Streams: configs, Log: slog.New(slog.DiscardHandler),
		Now: func() time.Time { return b.clock }}
	b.open()
	t.Cleanup(func() { _ = b.st.Close() })
	return b
}

func (b *box) open() {
	var err error
	b.st, err = store.Open(b.dir, store.Options{Durability: store.Crash, Linger: -1, MinFree: 1 << 20, Log: b.opts.Log})
	require.NoError(b.t, err)
	b.Outbox, err = outbox.Open(b.st, b.opts)
	require.NoError(b.t, err)
}

func (b *box) reopen() {
	require.NoError(b.t, b.st.Close())
	b.open()
}

func (b *box) flush() { require.NoError(b.t, b.st.Flush(context.Background())) }

func rec(i int) outbox.Record {
	return outbox.Record{EventID: fmt.Sprint("e", i), Function: "f", Key: "k", Time: time.UnixMilli(int64(i)).UTC(), TimeOK: true,
		Data: fmt.Appendf(nil, `{"n":%d}`, i)}
}

// append appends records until the last is durable and returns the last sequence.
func (b *box) append(stream string, recs ...outbox.Record) (seq uint64) {
	for _, r := range recs {
		require.NoError(b.t, b.st.Update(func(tx store.Tx) (err error) {
			seq, err = b.Append(tx, stream, r)
			return err
		}))
	}
	b.flush()
	return seq
}

func many(from, n int) (list []outbox.Record) {
	for i := range n {
		list = append(list, rec(from+i))
	}
	return list
}

// next takes a batch that must be there.
func (b *box) next(q *outbox.Queue) (*outbox.Batch, []*record.Record) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	got, err := q.Next(ctx)
	require.NoError(b.t, err)
	recs, err := record.DecodeBatch(got.Payload)
	require.NoError(b.t, err)
	require.Len(b.t, recs, got.Records)
	return got, recs
}

// drain takes and acknowledges until n records and gaps have come.
func (b *box) drain(q *outbox.Queue, n int) (all []*record.Record) {
	for len(all) < n {
		batch, recs := b.next(q)
		all = append(all, recs...)
		require.NoError(b.t, q.Ack(batch))
	}
	b.flush()
	return all
}

func (b *box) status(stream string) outbox.Status {
	list, err := b.Status()
	require.NoError(b.t, err)
	for _, s := range list {
		if s.Name == stream {
			return s
		}
	}
	b.t.Fatalf("no stream %s", stream)
	return outbox.Status{}
}

// nothing asserts that the queue has no batch to give.
func (b *box) nothing(q *outbox.Queue) {
	q.Hurry()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	got, err := q.Next(ctx)
	require.ErrorIs(b.t, err, context.DeadlineExceeded, "got %v", got)
}

var eager = outbox.Config{Batch: outbox.Limits{Linger: -1}}

func TestARecordKeepsWhatWasAppended(t *testing.T) {
	b := newBox(t, map[string]outbox.Config{"alerts": eager})
	r := rec(7)
	r.Data = []byte("{\n \"n\": 7 }")
	assert.EqualValues(t, 1, b.append("alerts", r))
	assert.EqualValues(t, 2, b.append("alerts", rec(8)))
	_, recs := b.next(b.Queue("main"))
	assert.Equal(t, &record.Record{
		Identity: record.Identity{Gateway: "gw", Stream: "alerts", Epoch: b.st.Epoch(), Sequence: 1},
		EventID:  "e7", Function: "f", Key: "k", Time: time.UnixMilli(7).UTC(), TimeOK: true, Data: []byte(`{"n":7}`),
	}, recs[0])
	assert.EqualValues(t, 2, recs[1].Sequence)
}

// The time of a record from before the clock was right is corrected when it is sent, as far as that is known by then.
func TestTimesAreCorrectedWhenTheyAreSent(t *testing.T) {
	b := newBox(t, map[string]outbox.Config{"s": eager})
	began := time.Date(2026, 3, 1, 6, 0, 0, 0, time.UTC)
	early := rec(1)
	early.TimeOK, early.Boot, early.Up = false, 7, time.Minute
	other := rec(2)
	other.TimeOK, other.Boot, other.Up = false, 6, time.Minute
	unknown := rec(3)
	unknown.TimeOK = false
	b.append("s", early, other, unknown, rec(4))
	b.opts.Right = func(r *outbox.Record) {
		if !r.TimeOK && r.Boot == 7 {
			r.Time, r.TimeOK = began.Add(r.Up), true
		}
	}
	b.reopen()
	_, recs := b.next(b.Queue("main"))
	require.Len(t, recs, 4)
	require.Equal(t, []bool{true, false, false, true}, []bool{recs[0].TimeOK, recs[1].TimeOK, recs[2].TimeOK, recs[3].TimeOK})
	require.Equal(t, began.Add(time.Minute), recs[0].Time)
	require.Equal(t, other.Time, recs[1].Time)
	require.Equal(t, unknown.Time, recs[2].Time)
}

func TestNothingIsSentBeforeItIsDurable(t *testing.T) {
	b := newBox(t, map[string]outbox.Config{"s": eager})
	b.append("s", rec(1))
	q := b.Queue("main")
	b.drain(q, 1)
	// An update that fails leaves no trace: its sequence is given to the next one.
	err := b.st.Update(func(tx store.Tx) error {
		_, err := b.Append(tx, "s", rec(2))
		require.NoError(t, err)
		return fmt.Errorf("the invocation is not committed")
	})
	require.Error(t, err)
	b.nothing(q)
	assert.EqualValues(t, 2, b.append("s", rec(3)))
	assert.Equal(t, `{"n":3}`, string(b.drain(q, 1)[0].Data))
}

func TestBadRecordsAreRefused(t *testing.T) {
	b := newBox(t, nil)
	for name, r := range map[string]outbox.Record{
		"no JSON":     {Function: "f", Data: []byte("{")},
		"no function": {Data: []byte("1")},
		"deep":        {Function: "f", Data: []byte(strings.Repeat("[", 200) + strings.Repeat("]", 200))},
		"long key":    {Function: "f", Key: strings.Repeat("k", record.MaxText+1), Data: []byte("1")},
	} {
		err := b.st.Update(func(tx store.Tx) error {
			_, err := b.Append(tx, "s", r)
			return err
		})
		assert.ErrorIs(t, err, record.ErrBad, name)
	}
	err := b.st.Update(func(tx store.Tx) error {
		_, err := b.Append(tx, "a/b", rec(1))
		return err
	})
	assert.ErrorIs(t, err, record.ErrBad)
}

func TestAckMovesTheCursorAndRewindGoesBackToIt(t *testing.T) {
	c := eager
	c.Batch.Records = 10
	b := newBox(t, map[string]outbox.Config{"s": c})
	b.append("s", many(1, 35)...)
	q := b.Queue("main")
	one, _ := b.next(q)
	two, recs := b.next(q)
	assert.EqualValues(t, 11, recs[0].Sequence)
	assert.Zero(t, two.Resent)
	require.NoError(t, q.Ack(one))
	b.flush()
	s := b.status("s")
	assert.EqualValues(t, 25, s.Waiting)
	assert.EqualValues(t, 10, s.Acked)
	assert.EqualValues(t, 11, s.First)
	assert.EqualValues(t, 36, s.Next)

	q.Rewind()
	two, recs = b.next(q)
	assert.EqualValues(t, 11, recs[0].Sequence)
	assert.Equal(t, 10, two.Resent)

	b.reopen()
	q = b.Queue("main")
	all := b.drain(q, 25)
	for i, r := range all {
		assert.EqualValues(t, 11+i, r.Sequence)
	}
	s = b.status("s")
	assert.Zero(t, s.Waiting)
	assert.Zero(t, s.Bytes)
	b.nothing(q)
	b.reopen()
	assert.EqualValues(t, 36, b.append("s", rec(36)), "sequences go on after everything was sent")
}

func TestDropOldestLeavesOneGap(t *testing.T) {
	c := eager
	c.Retain.Bytes = 10 << 10
	b := newBox(t, map[string]outbox.Config{"s": c})
	b.append("s", many(1, 1000)...)
	s := b.status("s")
	assert.LessOrEqual(t, s.Bytes, int64(10<<10)+200)
	assert.Greater(t, s.Bytes, int64(8<<10))
	assert.EqualValues(t, 1000, s.Dropped+s.Waiting-1)

	q := b.Queue("main")
	all := b.drain(q, int(s.Waiting))
	require.NotNil(t, all[0].Gap)
	assert.Equal(t, &record.Gap{From: 1, To: uint64(s.Dropped), Reasons: map[string]uint64{record.Full: uint64(s.Dropped)}}, all[0].Gap)
	for i, r := range all[1:] {
		assert.Nil(t, r.Gap)
		assert.EqualValues(t, int(s.Dropped)+1+i, r.Sequence)
	}
	assert.Zero(t, b.status("s").Bytes)
}

func TestDropNewestLeavesOneGapAtTheEnd(t *testing.T) {
	c := eager
	c.Retain = outbox.Retain{Bytes: 2 << 10, Full: outbox.DropNewest}
	b := newBox(t, map[string]outbox.Config{"s": c})
	b.append("s", many(1, 200)...)
	s := b.status("s")
	kept := int(s.Waiting - 1)
	assert.EqualValues(t, 200, s.Dropped+int64(kept))
	all := b.drain(b.Queue("main"), kept+1)
	for i, r := range all[:kept] {
		assert.EqualValues(t, i+1, r.Sequence)
	}
	assert.Equal(t, &record.Gap{From: uint64(kept + 1), To: 200, Reasons: map[string]uint64{record.Full: uint64(200 - kept)}}, all[kept].Gap)
	assert.EqualValues(t, 201, b.append("s", rec(201)))
	assert.EqualValues(t, 201, b.drain(b.Queue("main"), 1)[0].Sequence)
}

func TestOldRecordsGo(t *testing.T) {
	c := eager
	c.Retain.Age = time.Hour
	b := newBox(t, map[string]outbox.Config{"s": c})
	b.append("s", many(1, 5)...)
	b.clock = b.clock.Add(40 * time.Minute)
	b.append("s", many(6, 5)...)
	assert.EqualValues(t, 10, b.status("s").Waiting)
	b.clock = b.clock.Add(40 * time.Minute)
	all := b.drain(b.Queue("main"), 6) // dropped when they would be sent, though nothing was appended
	assert.Equal(t, &record.Gap{From: 1, To: 5, Reasons: map[string]uint64{record.Age: 5}}, all[0].Gap)
	assert.EqualValues(t, 6, all[1].Sequence)
	assert.Equal(t, map[string]uint64{record.Age: 5}, b.status("s").Reasons)

	b.append("s", rec(11))
	b.clock = b.clock.Add(-1000 * time.Hour)
	b.append("s", rec(12))
	assert.Len(t, b.drain(b.Queue("main"), 2), 2, "a clock that goes back drops nothing")
}

func TestWhatIsDroppedWhileInFlightIsNotSentTwiceAsMissing(t *testing.T) {
	c := eager
	c.Retain.Bytes = 4 << 10
	c.Batch.Records = 10
	b := newBox(t, map[string]outbox.Config{"s": c})
	b.append("s", many(1, 20)...)
	q := b.Queue("main")
	one, recs := b.next(q)
	require.EqualValues(t, 10, recs[9].Sequence)
	b.append("s", many(21, 100)...)
	dropped := uint64(b.status("s").Dropped)
	require.Greater(t, dropped, uint64(10))
	require.NoError(t, q.Ack(one))
	_, recs = b.next(q)
	require.NotNil(t, recs[0].Gap)
	assert.Equal(t, dropped, recs[0].Gap.To)
	assert.Equal(t, dropped+1, recs[1].Sequence)
}

func TestQuarantine(t *testing.T) {
	c := eager
	c.Batch.Records = 10
	b := newBox(t, map[string]outbox.Config{"s": c})
	b.append("s", many(1, 25)...)
	q := b.Queue("main")
	one, _ := b.next(q)
	two, _ := b.next(q)
	require.NoError(t, q.Ack(one))
	require.NoError(t, q.Quarantine(two, "the topic is not allowed"))
	q.Rewind()
	b.flush()
	s := b.status("s")
	assert.EqualValues(t, 10, s.Quarantined)
	assert.Zero(t, s.Dropped)

	all := b.drain(q, 6)
	assert.Equal(t, &record.Gap{From: 11, To: 20, Reasons: map[string]uint64{record.Refused: 10}}, all[0].Gap)
	assert.EqualValues(t, 21, all[1].Sequence)

	b.reopen()
	held, err := b.Quarantined("s", 100)
	require.NoError(t, err)
	require.Len(t, held, 10)
	assert.Equal(t, "the topic is not allowed", held[3].Reason)
	assert.EqualValues(t, 14, held[3].Record.Sequence)
	assert.Equal(t, b.st.Epoch(), held[3].Record.Epoch)
	assert.Equal(t, `{"n":14}`, string(held[3].Record.Data))
}

func TestAGapAloneIsNotQuarantined(t *testing.T) {
	b := newBox(t, map[string]outbox.Config{"s": eager})
	b.append("s", many(1, 3)...)
	q := b.Queue("main")
	one, _ := b.next(q)
	require.NoError(t, q.Quarantine(one, "no"))
	q.Rewind()
	b.flush()
	gap, recs := b.next(q)
	require.NotNil(t, recs[0].Gap)
	require.ErrorIs(t, q.Quarantine(gap, "no"), outbox.ErrOnlyGaps)
	q.Rewind()
	b.append("s", rec(4))
	both, recs := b.next(q)
	require.Len(t, recs, 2)
	require.NoError(t, q.Quarantine(both, "no"))
	q.Rewind()
	b.flush()
	_, recs = b.next(q)
	assert.Equal(t, &record.Gap{From: 1, To: 4, Reasons: map[string]uint64{record.Refused: 4}}, recs[0].Gap, "gaps that touch become one")
}

func TestTheQuarantineIsBounded(t *testing.T) {
	c := eager
	c.Batch = outbox.Limits{Records: 10, Bytes: 1 << 20, Linger: -1}
	b := newBox(t, map[string]outbox.Config{"s": c})
	q := b.Queue("main")
	big := rec(1)
	big.Data = []byte(`"` + strings.Repeat("x", 60<<10) + `"`)
	for range 9 {
		for range 10 {
			b.append("s", big)
		}
		one, _ := b.next(q)
		require.NoError(t, q.Quarantine(one, "no"))
		b.flush()
		q.Rewind()
	}
	s := b.status("s")
	assert.Greater(t, s.Quarantined, int64(50))
	assert.LessOrEqual(t, s.Quarantined, int64(70))
	assert.EqualValues(t, 10+8*9, s.Reasons[record.Refused], "the gap takes a place in every batch but the first")
}

func TestPrioritiesShareTheLink(t *testing.T) {
	of := func(p string) outbox.Config {
		return outbox.Config{Priority: p, Batch: outbox.Limits{Records: 1, Linger: -1}}
	}
	b := newBox(t, map[string]outbox.Config{"h": of(outbox.High), "n": of(outbox.Normal), "l": of(outbox.Low)})
	for _, s := range []string{"l", "n", "h"} {
		b.append(s, many(1, 50)...)
	}
	got := map[string]int{}
	q := b.Queue("main")
	for range 42 {
		batch, _ := b.next(q)
		got[batch.Stream]++
	}
	assert.Equal(t, map[string]int{"h": 32, "n": 8, "l": 2}, got)
}

func TestBatchesAreBounded(t *testing.T) {
	b := newBox(t, map[string]outbox.Config{"s": {Batch: outbox.Limits{Records: 50, Bytes: 4 << 10, Linger: -1}}})
	b.append("s", many(1, 100)...)
	huge := rec(101)
	huge.Data = []byte(`"` + strings.Repeat("x", 10_000) + `"`)
	b.append("s", huge, rec(102))
	q, n := b.Queue("main"), 0
	for n < 102 {
		batch, recs := b.next(q)
		if recs[0].Sequence == 101 {
			assert.Len(t, recs, 1, "a record that is larger goes alone")
		} else {
			assert.LessOrEqual(t, len(batch.Payload), 4<<10)
		}
		n += len(recs)
	}
}

func TestLingerFillsBatches(t *testing.T) {
	b := newBox(t, map[string]outbox.Config{"s": {Batch: outbox.Limits{Records: 10, Linger: time.Hour}}})
	q := b.Queue("main")
	b.append("s", many(1, 9)...)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := q.Next(ctx)
	require.ErrorIs(t, err, context.DeadlineExceeded, "nine of ten linger")
	b.append("s", rec(10))
	_, recs := b.next(q)
	assert.Len(t, recs, 10, "a full batch goes at once")
	b.append("s", rec(11))
	q.Hurry()
	_, recs = b.next(q)
	assert.Len(t, recs, 1, "and so does what is asked for")
}

func TestStreamsGoToTheirUplink(t *testing.T) {
	b := newBox(t, map[string]outbox.Config{"a": {Uplink: "other", Batch: eager.Batch}, "b": eager})
	b.append("a", rec(1))
	b.append("b", rec(2))
	batch, _ := b.next(b.Queue("other"))
	assert.Equal(t, "a", batch.Stream)
	batch, _ = b.next(b.Queue("main"))
	assert.Equal(t, "b", batch.Stream)
	b.nothing(b.Queue("main"))
	require.NoError(t, b.Configure("main", map[string]outbox.Config{"a": eager, "b": eager}))
	batch, _ = b.next(b.Queue("main"))
	assert.Equal(t, "a", batch.Stream, "what was not acknowledged goes where the stream goes now")
	waiting, appended, err := b.Queue("main").Waiting()
	require.NoError(t, err)
	assert.EqualValues(t, 2, waiting)
	assert.EqualValues(t, 2, appended)
}

func TestConfigureNamesWhatIsWrong(t *testing.T) {
	b := newBox(t, nil)
	for want, c := range map[string]outbox.Config{
		"stream s: priority:":      {Priority: "urgent"},
		"stream s: retain.bytes:":  {Retain: outbox.Retain{Bytes: 1}},
		"stream s: retain.age:":    {Retain: outbox.Retain{Age: 1}},
		"stream s: retain.full:":   {Retain: outbox.Retain{Full: "drop"}},
		"stream s: batch.records:": {Batch: outbox.Limits{Records: 1e6}},
		"stream s: batch.bytes:":   {Batch: outbox.Limits{Bytes: 1}},
		"stream s: batch.linger:":  {Batch: outbox.Limits{Linger: 2 * time.Hour}},
	} {
		assert.ErrorContains(t, b.Configure("main", map[string]outbox.Config{"s": c}), want)
	}
	assert.ErrorContains(t, b.Configure("main", map[string]outbox.Config{"a/b": {}}), "stream: ")
}
