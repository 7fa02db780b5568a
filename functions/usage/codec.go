package usage

import (
	"fmt"
	"math"
	"time"

	"github.com/perigee-iot/perigee/internal/store"
	"github.com/perigee-iot/perigee/internal/wire"
)

// Keys: Usage / "h" or "d" / bucket / function / revision → record, and Usage / "b" / bucket → the bucket itself. Buckets are
// numbered as they are opened, so that neither order nor age depends on what the wall clock said.

func recordsOf(g grain, number uint64) store.Key {
	return store.NewKey(store.Usage).String(string(g)).Uint(number)
}

func recordKey(g grain, number uint64, who id) store.Key {
	return recordsOf(g, number).String(who.function).String(who.revision)
}

func bucketsPrefix() store.Key { return store.NewKey(store.Usage).String("b") }

func bucketKey(number uint64) store.Key { return bucketsPrefix().Uint(number) }

// whose takes function and revision off a record's key.
func whose(key []byte) (id, error) {
	f := store.Parse(key)
	_, _ = f.String(), f.Uint()
	who := id{f.String(), f.String()}
	return who, f.Err()
}

const (
	recordVersion = 1
	bucketVersion = 1
)

// positive reads a number that is none below zero.
func positive(r *wire.Reader) int64 {
	n := r.Uint()
	if n > math.MaxInt64 {
		r.Fail("a number of %d", n)
		return 0
	}
	return int64(n)
}

func (r *Record) encode() []byte {
	w := wire.NewWriter(make([]byte, 0, 256))
	w.Byte(recordVersion)
	w.Uint(ended)
	for _, n := range r.Outcomes {
		w.Uint(uint64(n))
	}
	for _, n := range []int64{int64(r.Wall), int64(r.CPU), r.In, r.Out, r.Written, r.State, r.Effects, r.Reads, r.Log, r.PerSecond} {
		w.Uint(uint64(max(n, 0)))
	}
	for _, h := range []*Histogram{&r.Walls, &r.CPUs, &r.Memories, &r.Outs} {
		h.encode(w)
	}
	return w.Data()
}

// decodeRecord reads what encode wrote. A newer version is an error, as damage is: who adds to it would destroy it.
func decodeRecord(b []byte) (*Record, error) {
	d := wire.NewReader(b)
	if v := d.Byte(); d.Err() == nil && v != recordVersion {
		return nil, fmt.Errorf("%w: usage in version %d, this gateway reads version %d", wire.ErrCorrupt, v, recordVersion)
	}
	r := &Record{}
	n := d.Count(64)
	for i := range n {
		if i >= ended {
			i = endedOther
		}
		r.Outcomes[i] += positive(d)
	}
	r.Wall, r.CPU = time.Duration(positive(d)), time.Duration(positive(d))
	for _, to := range []*int64{&r.In, &r.Out, &r.Written, &r.State, &r.Effects, &r.Reads, &r.Log, &r.PerSecond} {
		*to = positive(d)
	}
	for _, h := range []*Histogram{&r.Walls, &r.CPUs, &r.Memories, &r.Outs} {
		h.decode(d)
	}
	return r, d.Done()
}

func (b *bucketInfo) encode() []byte {
	w := wire.NewWriter(make([]byte, 0, 32))
	w.Byte(bucketVersion)
	w.String(string(b.grain))
	w.Bool(b.ok)
	w.Int(b.label)
	w.Int(int64(b.opened))
	w.Uint(uint64(b.records))
	return w.Data()
}

func decodeBucket(v []byte) (*bucketInfo, error) {
	r := wire.NewReader(v)
	if v := r.Byte(); r.Err() == nil && v != bucketVersion {
		return nil, fmt.Errorf("%w: a bucket of usage in version %d, this gateway reads version %d", wire.ErrCorrupt, v, bucketVersion)
	}
	b := &bucketInfo{grain: grain(r.String()), ok: r.Bool(), label: r.Int(), opened: time.Duration(r.Int()), records: int(min(r.Uint(), maxRecords))}
	if r.Err() == nil && b.grain != hours && b.grain != days {
		r.Fail("a bucket of the kind %q", b.grain)
	}
	return b, r.Done()
}
