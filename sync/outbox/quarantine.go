package outbox

import (
	"errors"
	"fmt"
	"time"

	"github.com/perigee-iot/perigee/internal/store"
	"github.com/perigee-iot/perigee/internal/wire"
	"github.com/perigee-iot/perigee/sync/record"
)

// ErrOnlyGaps is what Quarantine returns for a batch without records: there is nothing to set aside, so the uplink tries again later.
var ErrOnlyGaps = errors.New("the batch has no records to set aside")

// heldMost bounds the quarantine of one stream, in bytes as stored; beyond it the oldest go.
const heldMost = 4 << 20

// Held is one record in quarantine.
type Held struct {
	Record *record.Record // with its identity
	Reason string         // what the far side said
	At     time.Time      // when, on the gateway's clock
}

// Quarantine sets a batch aside that the far side will never take. Its records are kept with the reason, out of the
// way of those behind them, and a gap takes their place. Everything handed out so far must be taken back with Rewind, so that the gap
// is sent where it belongs.
func (q *Queue) Quarantine(b *Batch, reason string) error {
	if b.gaps == b.Records {
		return ErrOnlyGaps
	}
	o := q.o
	s, err := o.stream(b.Stream)
	if err != nil {
		return err
	}
	if len(reason) > 1024 {
		reason = reason[:1024]
	}
	for more := true; more; {
		err := o.update(func(tx store.Tx) error {
			more = false
			return o.hold(tx, s, b.last, reason, &more)
		})
		if err != nil {
			return fmt.Errorf("set a batch of stream %s aside: %w", s.name, err)
		}
	}
	o.log.Warn("the far side refused a batch for good; its records are in quarantine",
		"stream", s.name, "records", b.Records-b.gaps, "reason", reason)
	return nil
}

// hold moves records up to position upto to the quarantine, as many as fit one update; more says whether some are left.
func (o *Outbox) hold(tx store.Tx, s *stream, upto uint64, reason string, more *bool) error {
	m, err := readMeta(tx, s.name)
	if err != nil || m.first > upto {
		return err
	}
	var puts, size int64
	at := o.now()
	keep := func(v *victim, seq uint64, g segment) {
		if v.it == nil {
			return
		}
		key, value := heldKey(s.name, v.p), encodeHeld(at, reason, g, seq, v.value)
		tx.Put(key, value)
		puts++
		size += int64(len(key) + len(value))
	}
	taken := 0
	_, err = o.shed(tx, s, m, keep, func(n int, p uint64, it *item) string {
		switch {
		case p > upto:
			return ""
		case taken > shedSize || n == shedOnce:
			*more = true
			return ""
		case it == nil:
			return record.Damaged
		}
		taken += len(it.rec.Data) + len(it.rec.EventID) + len(it.rec.Function) + len(it.rec.Key) + 64
		return record.Refused
	})
	if err != nil {
		return err
	}
	m.held += uint64(puts)
	m.heldSize += size
	if err := o.thin(tx, s, m); err != nil {
		return err
	}
	tx.Put(metaKey(s.name), m.encode())
	return nil
}

// thin drops the oldest of the quarantine until it is within its bound.
func (o *Outbox) thin(tx store.Tx, s *stream, m *meta) error {
	if m.heldSize <= heldMost {
		return nil
	}
	var keys [][]byte
	err := tx.Scan(heldPrefix(s.name), nil, func(key, value []byte) bool {
		keys = append(keys, key)
		m.held--
		m.heldSize -= int64(len(key) + len(value))
		return m.heldSize > heldMost && len(keys) < shedMost
	})
	for _, key := range keys {
		tx.Delete(key)
	}
	return err
}

// Quarantined returns up to limit records of a stream's quarantine, oldest first.
func (o *Outbox) Quarantined(name string, limit int) (list []Held, err error) {
	err = o.st.View(func(r store.Reader) error {
		var bad error
		err := r.Scan(heldPrefix(name), nil, func(_, value []byte) bool {
			if len(list) >= limit {
				return false
			}
			h, err := decodeHeld(name, value)
			if err != nil {
				bad = fmt.Errorf("quarantine of stream %s: %w", name, err)
				return true
			}
			list = append(list, h)
			return true
		})
		return errors.Join(err, bad)
	})
	return list, err
}

func encodeHeld(at time.Time, reason string, g segment, seq uint64, value []byte) []byte {
	w := wire.NewWriter(make([]byte, 0, len(value)+len(reason)+64))
	w.Int(at.UnixMilli())
	w.String(reason)
	w.String(g.gateway)
	w.String(g.epoch)
	w.Uint(seq)
	w.Bytes(value)
	return w.Data()
}

func decodeHeld(stream string, b []byte) (Held, error) {
	r := wire.NewReader(b)
	h := Held{At: time.UnixMilli(r.Int()).UTC(), Reason: r.String()}
	g := segment{gateway: r.String(), epoch: r.String(), start: 1}
	seq, value := r.Uint(), r.Bytes()
	if err := r.Done(); err != nil {
		return h, err
	}
	it, err := decodeItem(value)
	if err != nil {
		return h, err
	}
	h.Record = it.event(stream, g, seq)
	return h, nil
}
