package outbox_test

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/perigee-iot/perigee/internal/store"
	"github.com/perigee-iot/perigee/sync/outbox"
	"github.com/perigee-iot/perigee/sync/record"
)

// far is a far side that checks what it gets: everything in order, each record as it was appended, and nothing missing
// without a gap that says so.
type far struct {
	t        *rapid.T
	appended map[string][]int // by stream, values in the order of their sequences
	next     map[string]uint64
	missing  map[string]int
}

func (f *far) take(r *record.Record) {
	next := max(f.next[r.Stream], 1)
	switch {
	case r.Gap != nil:
		if r.Gap.From > next {
			f.t.Fatalf("%s: the gap %+v comes where %d is expected", r.Stream, *r.Gap, next)
		}
		if r.Gap.To >= next {
			f.missing[r.Stream] += int(r.Gap.To - next + 1)
		}
	case r.Sequence > next:
		f.t.Fatalf("%s: %d comes where %d is expected", r.Stream, r.Sequence, next)
	default:
		var d struct{ N int }
		require.NoError(f.t, json.Unmarshal(r.Data, &d))
		require.Equal(f.t, f.appended[r.Stream][r.Sequence-1], d.N)
	}
	f.next[r.Stream] = max(next, r.Sequence+1)
}

// Whatever is appended, sent, lost, acknowledged, refused and restarted in whatever order: the far side can account for every sequence.
func TestEverySequenceIsAccountedFor(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		oldest, newest := eager, eager
		oldest.Retain = outbox.Retain{Bytes: 3 << 10, Age: time.Hour}
		oldest.Batch.Records = 7
		newest.Retain = outbox.Retain{Bytes: 2 << 10, Full: outbox.DropNewest}
		newest.Batch.Bytes = 1 << 10
		b := newBox(t, map[string]outbox.Config{"old": oldest, "new": newest})
		q := b.Queue("main")
		f := &far{t: rt, appended: map[string][]int{}, next: map[string]uint64{}, missing: map[string]int{}}
		var inflight []*outbox.Batch
		n := 0
		step := func() {
			switch rapid.SampledFrom([]string{"append", "append", "next", "next", "next", "ack", "ack", "lose", "refuse", "restart", "later"}).Draw(rt, "step") {
			case "append":
				stream := rapid.SampledFrom([]string{"old", "new"}).Draw(rt, "stream")
				for range rapid.IntRange(1, 60).Draw(rt, "count") {
					n++
					require.NoError(rt, b.st.Update(func(tx store.Tx) error {
						seq, err := b.Append(tx, stream, rec(n))
						f.appended[stream] = append(f.appended[stream][:seq-1], n)
						return err
					}))
				}
				b.flush()
			case "next":
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Millisecond)
				batch, err := q.Next(ctx)
				cancel()
				if errors.Is(err, context.DeadlineExceeded) {
					return
				}
				require.NoError(rt, err)
				recs, err := record.DecodeBatch(batch.Payload)
				require.NoError(rt, err)
				for _, r := range recs {
					f.take(r)
				}
				inflight = append(inflight, batch)
			case "ack":
				if len(inflight) > 0 {
					require.NoError(rt, q.Ack(inflight[0]))
					inflight = inflight[1:]
					b.flush()
				}
			case "lose":
				q.Rewind()
				inflight = nil
			case "refuse":
				if len(inflight) > 0 {
					if err := q.Quarantine(inflight[0], "no"); !errors.Is(err, outbox.ErrOnlyGaps) {
						require.NoError(rt, err)
					}
					q.Rewind()
					inflight = nil
					b.flush()
				}
			case "restart":
				b.reopen()
				q, inflight = b.Queue("main"), nil
			case "later":
				b.clock = b.clock.Add(20 * time.Minute)
			}
		}
		for range rapid.IntRange(5, 60).Draw(rt, "steps") {
			step()
		}
		q.Rewind()
		for _, s := range []string{"old", "new"} {
			for b.waiting(s) > 0 {
				batch, err := q.Next(t.Context())
				require.NoError(rt, err)
				recs, err := record.DecodeBatch(batch.Payload)
				require.NoError(rt, err)
				for _, r := range recs {
					f.take(r)
				}
				require.NoError(rt, q.Ack(batch))
				b.flush()
			}
			require.EqualValues(rt, len(f.appended[s]), max(f.next[s], 1)-1, "everything of %s has come or is explained", s)
		}
		list, err := b.Status()
		require.NoError(rt, err)
		for _, s := range list {
			require.Zero(rt, s.Bytes, "%s: what is empty has no bytes", s.Name)
			require.Zero(rt, s.Reasons[record.Damaged], s.Name)
		}
		require.NoError(rt, b.st.Close())
	})
}

func (b *box) waiting(stream string) int64 {
	list, err := b.Status()
	require.NoError(b.t, err)
	for _, s := range list {
		if s.Name == stream {
			return s.Waiting
		}
	}
	return 0
}

func recordKey(p uint64) []byte {
	return store.NewKey(store.Streams).String("r").String("s").Uint(p)
}

// The store may lose records without an error. The queue notices, says so to the far side, and goes on.
func TestDamageLeavesAGap(t *testing.T) {
	for name, c := range map[string]struct{ gone, garbled, want []uint64 }{
		"in the middle": {gone: []uint64{4, 5, 6}, want: []uint64{1, 2, 3, 0, 7, 8, 9, 10}},
		"at the head":   {gone: []uint64{1, 2}, want: []uint64{0, 3, 4, 5, 6, 7, 8, 9, 10}},
		"at the end":    {gone: []uint64{9, 10}, want: []uint64{1, 2, 3, 4, 5, 6, 7, 8, 0}},
		"all":           {gone: []uint64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, want: []uint64{0}},
		"unreadable":    {garbled: []uint64{4}, want: []uint64{1, 2, 3, 0, 5, 6, 7, 8, 9, 10}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t, map[string]outbox.Config{"s": eager})
			b.append("s", many(1, 10)...)
			require.NoError(t, b.st.Update(func(tx store.Tx) error {
				for _, p := range c.gone {
					tx.Delete(recordKey(p))
				}
				for _, p := range c.garbled {
					tx.Put(recordKey(p), []byte("garbage"))
				}
				return nil
			}))
			b.reopen()
			var got []uint64
			for _, r := range b.drain(b.Queue("main"), len(c.want)) {
				if r.Gap != nil {
					assert.Equal(t, r.Gap.To-r.Gap.From+1, r.Gap.Reasons[record.Damaged])
					got = append(got, 0)
				} else {
					got = append(got, r.Sequence)
				}
			}
			assert.Equal(t, c.want, got)
			assert.EqualValues(t, len(c.gone)+len(c.garbled), b.status("s").Reasons[record.Damaged])
			assert.EqualValues(t, 11, b.append("s", rec(11)))
		})
	}
}

func TestRetentionCountsDamageToo(t *testing.T) {
	c := eager
	c.Retain.Age = time.Hour
	b := newBox(t, map[string]outbox.Config{"s": c})
	b.append("s", many(1, 10)...)
	require.NoError(t, b.st.Update(func(tx store.Tx) error {
		tx.Delete(recordKey(1))
		tx.Delete(recordKey(5))
		tx.Put(recordKey(7), []byte("garbage"))
		return nil
	}))
	b.clock = b.clock.Add(2 * time.Hour)
	b.append("s", rec(11))
	all := b.drain(b.Queue("main"), 2)
	assert.Equal(t, &record.Gap{From: 1, To: 10, Reasons: map[string]uint64{record.Age: 7, record.Damaged: 3}}, all[0].Gap)
	assert.EqualValues(t, 11, all[1].Sequence)
}

// A lost or damaged description is made again from the records; no sequence is given twice.
func TestALostDescriptionIsRebuilt(t *testing.T) {
	for name, breakIt := range map[string]func(tx store.Tx, key []byte){
		"lost":    func(tx store.Tx, key []byte) { tx.Delete(key) },
		"garbled": func(tx store.Tx, key []byte) { tx.Put(key, []byte("garbage")) },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t, map[string]outbox.Config{"s": eager})
			b.append("other", many(1, 3)...)
			b.append("s", many(1, 10)...)
			q := b.Queue("main")
			b.drain(q, 10)
			b.append("s", many(11, 5)...)
			require.NoError(t, b.st.Update(func(tx store.Tx) error {
				breakIt(tx, store.NewKey(store.Streams).String("m").String("s"))
				return nil
			}))
			b.reopen()
			assert.EqualValues(t, 16, b.append("s", rec(16)))
			var got []uint64
			for _, r := range b.drain(b.Queue("main"), 9) {
				if r.Stream == "s" {
					got = append(got, r.Sequence)
				}
			}
			assert.Equal(t, []uint64{11, 12, 13, 14, 15, 16}, got)
			assert.Zero(t, b.status("s").Bytes)
		})
	}
}

// Another identity (a restored store has another epoch, a renamed gateway another id) starts a new count; what waits keeps its own.
func TestANewIdentityStartsANewCount(t *testing.T) {
	c := eager
	c.Retain.Bytes = 2 << 10
	b := newBox(t, map[string]outbox.Config{"s": c})
	b.append("s", many(1, 3)...)
	b.opts.Gateway = "new"
	b.reopen()
	assert.EqualValues(t, 1, b.append("s", rec(4)))
	s := b.status("s")
	assert.EqualValues(t, 1, s.First)
	assert.EqualValues(t, 2, s.Next)
	assert.EqualValues(t, 0, s.Acked)
	q := b.Queue("main")
	one, recs := b.next(q)
	assert.Equal(t, "gw", one.Gateway)
	assert.Len(t, recs, 3, "a batch is of one gateway and epoch")
	assert.Equal(t, "gw", recs[2].Gateway)
	two, recs := b.next(q)
	assert.Equal(t, "new", two.Gateway)
	assert.EqualValues(t, 1, recs[0].Sequence)

	// Dropping leaves a gap for each count.
	b.append("s", many(5, 100)...)
	q.Rewind()
	_, recs = b.next(q)
	require.Len(t, recs, 1)
	assert.Equal(t, &record.Gap{From: 1, To: 3, Reasons: map[string]uint64{record.Full: 3}}, recs[0].Gap)
	two, recs = b.next(q)
	require.NotNil(t, recs[0].Gap)
	assert.EqualValues(t, 1, recs[0].Gap.From)
	assert.Equal(t, recs[0].Gap.To+1, recs[1].Sequence)
	require.NoError(t, q.Ack(two))
	b.reopen()
	assert.EqualValues(t, 102, b.append("s", rec(105)))
}

// A restart in the middle of a backlog neither loses nor repeats what was acknowledged.
func TestABacklogOfThousands(t *testing.T) {
	b := newBox(t, nil)
	const n = 20_000
	for i := 0; i < n; i += 100 {
		require.NoError(t, b.st.Update(func(tx store.Tx) error {
			for k := range 100 {
				if _, err := b.Append(tx, "s", rec(i+k)); err != nil {
					return err
				}
			}
			return nil
		}))
	}
	b.flush()
	want := uint64(1)
	for range 4 {
		for _, r := range b.drain(b.Queue("main"), n/4) {
			require.Equal(t, want, r.Sequence)
			want++
		}
		b.reopen()
	}
	assert.Zero(t, b.status("s").Waiting)
}

func BenchmarkAppend(b *testing.B) {
	box := newBox(b, nil)
	r := rec(1)
	b.ReportAllocs()
	for b.Loop() {
		if err := box.st.Update(func(tx store.Tx) error {
			_, err := box.Append(tx, "s", r)
			return err
		}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDrain(b *testing.B) {
	box := newBox(b, nil)
	for i := 0; i < b.N; i += 100 {
		if err := box.st.Update(func(tx store.Tx) error {
			for range 100 {
				if _, err := box.Append(tx, "s", rec(i)); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			b.Fatal(err)
		}
	}
	box.flush()
	q := box.Queue("main")
	b.ResetTimer()
	b.ReportAllocs()
	for n := 0; n < b.N; {
		batch, err := q.Next(context.Background())
		if err != nil {
			b.Fatal(err)
		}
		if err := q.Ack(batch); err != nil {
			b.Fatal(err)
		}
		n += batch.Records
	}
}
