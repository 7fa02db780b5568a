package outbox

import (
	"fmt"
	"time"

	"github.com/perigee-iot/perigee/internal/store"
	"github.com/perigee-iot/perigee/internal/wire"
	"github.com/perigee-iot/perigee/sync/record"
)

// Inside the store a record has a position: it rises by one from record to record for as long as the stream exists,
// over epochs too, and is the end of the key. Position minus the start of its segment is the sequence.

func metaPrefix() store.Key           { return store.NewKey(store.Streams).String("m") }
func metaKey(stream string) store.Key { return metaPrefix().String(stream) }
func recordPrefix(stream string) store.Key {
	return store.NewKey(store.Streams).String("r").String(stream)
}
func recordKey(stream string, p uint64) store.Key { return recordPrefix(stream).Uint(p) }
func heldPrefix(stream string) store.Key {
	return store.NewKey(store.Streams).String("q").String(stream)
}
func heldKey(stream string, p uint64) store.Key { return heldPrefix(stream).Uint(p) }

// position reads the position at the end of a record's key.
func position(key []byte) uint64 {
	f := store.Parse(key)
	_, _ = f.String(), f.String()
	return f.Uint()
}

// segment is a run of positions that belong to one count of sequences.
type segment struct {
	gateway, epoch string
	start          uint64 // position of sequence 1
}

func (g segment) sequence(p uint64) uint64 { return p - g.start + 1 }

// meta is what a stream remembers about itself. It changes in the transactions that change the stream, so that it is
// never wrong after a crash.
type meta struct {
	segments []segment // ascending; of the records that wait, and the present one last
	first    uint64    // lowest position that may hold something
	next     uint64    // position of the next record
	acked    uint64    // highest position that the far side has acknowledged
	count    uint64    // records and gaps that wait
	bytes    int64     // of their keys and values
	edits    uint64    // rises with every change to a gap: see stream.edits
	dropped  counts    // since the stream exists
	held     uint64    // records in quarantine
	heldSize int64     // bytes of keys and values in quarantine
}

// counts count records by the reasons of package record.
type counts struct{ full, age, refused, damaged uint64 }

func (c *counts) add(why string, n uint64) {
	switch why {
	case record.Full:
		c.full += n
	case record.Age:
		c.age += n
	case record.Refused:
		c.refused += n
	default:
		c.damaged += n
	}
}

func (c *counts) addAll(d counts) {
	c.full += d.full
	c.age += d.age
	c.refused += d.refused
	c.damaged += d.damaged
}

// reasons are the counts that are not zero.
func (c counts) reasons() map[string]uint64 {
	m := map[string]uint64{}
	for why, n := range map[string]uint64{record.Full: c.full, record.Age: c.age, record.Refused: c.refused, record.Damaged: c.damaged} {
		if n > 0 {
			m[why] = n
		}
	}
	return m
}

func (c counts) encode(w *wire.Writer) {
	for _, n := range []uint64{c.full, c.age, c.refused, c.damaged} {
		w.Uint(n)
	}
}

func decodeCounts(r *wire.Reader) counts {
	return counts{full: r.Uint(), age: r.Uint(), refused: r.Uint(), damaged: r.Uint()}
}

// current makes the present gateway and epoch the last segment. A restored store thereby starts a new count, while what waits keeps its identity.
func (m *meta) current(gateway, epoch string) segment {
	if n := len(m.segments); n > 0 {
		if g := m.segments[n-1]; g.gateway == gateway && g.epoch == epoch {
			return g
		}
	}
	if m.count == 0 {
		m.segments = nil
	}
	g := segment{gateway: gateway, epoch: epoch, start: m.next}
	m.segments = append(m.segments, g)
	return g
}

// segment returns the run that a position belongs to.
func (m *meta) segment(p uint64) segment {
	g := segment{start: 1}
	for _, s := range m.segments {
		if s.start <= p {
			g = s
		}
	}
	return g
}

// end is the last position of a segment, as far as it is known.
func (m *meta) end(g segment) uint64 {
	for _, s := range m.segments {
		if s.start > g.start {
			return s.start - 1
		}
	}
	return m.next - 1
}

// forget drops the segments that nothing below first needs any more.
func (m *meta) forget() {
	for len(m.segments) > 1 && m.segments[1].start <= m.first {
		m.segments = m.segments[1:]
	}
}

const metaVersion = 1

func (m *meta) encode() []byte {
	w := wire.NewWriter(make([]byte, 0, 128))
	w.Byte(metaVersion)
	w.Uint(uint64(len(m.segments)))
	for _, g := range m.segments {
		w.String(g.gateway)
		w.String(g.epoch)
		w.Uint(g.start)
	}
	for _, n := range []uint64{m.first, m.next, m.acked, m.count, uint64(m.bytes), m.edits} {
		w.Uint(n)
	}
	m.dropped.encode(w)
	w.Uint(m.held)
	w.Uint(uint64(m.heldSize))
	return w.Data()
}

func decodeMeta(b []byte) (*meta, error) {
	r := wire.NewReader(b)
	if v := r.Byte(); r.Err() == nil && v != metaVersion {
		return nil, fmt.Errorf("%w: a stream's description in version %d, this gateway reads version %d", wire.ErrCorrupt, v, metaVersion)
	}
	m := &meta{}
	for range r.Count(1 << 16) {
		m.segments = append(m.segments, segment{gateway: r.String(), epoch: r.String(), start: r.Uint()})
	}
	m.first, m.next, m.acked, m.count, m.bytes, m.edits = r.Uint(), r.Uint(), r.Uint(), r.Uint(), int64(r.Uint()), r.Uint()
	m.dropped = decodeCounts(r)
	m.held, m.heldSize = r.Uint(), int64(r.Uint())
	if err := r.Done(); err != nil {
		return nil, err
	}
	if m.first == 0 || m.first > m.next || m.bytes < 0 || m.heldSize < 0 {
		return nil, fmt.Errorf("%w: a stream's description from position %d to %d", wire.ErrCorrupt, m.first, m.next)
	}
	return m, nil
}

// item is a record or a gap as it is stored: without its identity, which follows from its position.
type item struct {
	at  time.Time // when it was appended, on the gateway's clock
	rec Record
	gap *gap
}

// gap stands for the positions from from to its own.
type gap struct {
	from uint64
	edit uint64 // meta.edits when it was written
	why  counts
}

const (
	kindRecord byte = 1
	kindGap    byte = 2
	kindUnsure byte = 3 // a record whose time may be corrected
)

func encodeRecord(at time.Time, r *Record) []byte {
	w := wire.NewWriter(make([]byte, 0, 48+len(r.EventID)+len(r.Function)+len(r.Key)+len(r.Data)))
	if unsure := !r.TimeOK && r.Boot != 0; unsure {
		w.Byte(kindUnsure)
		w.Uint(uint64(r.Boot))
		w.Int(int64(r.Up))
	} else {
		w.Byte(kindRecord)
	}
	w.Int(at.UnixMilli())
	w.Int(r.Time.UnixMilli())
	w.Bool(r.TimeOK)
	w.String(r.EventID)
	w.String(r.Function)
	w.String(r.Key)
	w.Bytes(r.Data)
	return w.Data()
}

func (g *gap) encode() []byte {
	w := wire.NewWriter(make([]byte, 0, 32))
	w.Byte(kindGap)
	w.Uint(g.from)
	w.Uint(g.edit)
	g.why.encode(w)
	return w.Data()
}

// decodeItem reads what encodeRecord or gap.encode wrote. Its data is a copy.
func decodeItem(b []byte) (*item, error) {
	r := wire.NewReader(b)
	it := &item{}
	switch kind := r.Byte(); kind {
	case kindRecord, kindUnsure:
		rec := &it.rec
		if kind == kindUnsure {
			rec.Boot, rec.Up = uint32(r.Uint()), time.Duration(r.Int())
		}
		it.at = time.UnixMilli(r.Int()).UTC()
		rec.Time, rec.TimeOK, rec.EventID, rec.Function, rec.Key = time.UnixMilli(r.Int()).UTC(), r.Bool(), r.String(), r.String(), r.String()
		rec.Data = append([]byte{}, r.Bytes()...)
	case kindGap:
		it.gap = &gap{from: r.Uint(), edit: r.Uint(), why: decodeCounts(r)}
	default:
		return nil, fmt.Errorf("%w: a stream's entry of kind %d", wire.ErrCorrupt, kind)
	}
	if err := r.Done(); err != nil {
		return nil, err
	}
	return it, nil
}

// event gives an item its identity.
func (it *item) event(stream string, g segment, p uint64) *record.Record {
	id := record.Identity{Gateway: g.gateway, Stream: stream, Epoch: g.epoch, Sequence: g.sequence(p)}
	if it.gap != nil {
		from := g.sequence(max(it.gap.from, g.start))
		return &record.Record{Identity: id, Gap: &record.Gap{From: from, To: id.Sequence, Reasons: it.gap.why.reasons()}}
	}
	r := it.rec
	return &record.Record{Identity: id, EventID: r.EventID, Function: r.Function, Key: r.Key, Time: r.Time, TimeOK: r.TimeOK, Data: r.Data}
}
