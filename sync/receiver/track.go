package receiver

import (
	"slices"

	"github.com/perigee-iot/perigee/sync/record"
)

// Bounds on what is remembered.
const (
	maxStreams = 1 << 16 // streams of all gateways
	maxEpochs  = 64      // of one stream; the oldest are forgotten
	maxSpans   = 1024    // runs of missing sequences of one epoch; the oldest are only counted
)

// track is what has arrived of one stream of one gateway.
type track struct {
	epochs  []*count // in the order in which they were first seen
	last    string   // the epoch of the newest record
	clashes int64    // how often an epoch went on after a newer one had begun: two boxes live under one id
}

// count follows the sequences of one epoch.
type count struct {
	epoch      string
	next       uint64 // the lowest sequence that may still come
	missing    []span // below next, ascending
	forgotten  int64  // missing sequences that are no longer in the list
	records    int64
	gaps       int64
	duplicates int64
	explained  int64 // missing sequences that gaps have explained
	late       int64 // records that came after later ones
	earlier    int64 // sequences before the first that was seen
}

// span is a run of sequences, both ends included.
type span struct{ from, to uint64 }

func (s span) len() int64 { return int64(s.to - s.from + 1) }

func (t *track) clone() *track {
	c := *t
	c.epochs = make([]*count, len(t.epochs))
	for i, e := range t.epochs {
		n := *e
		n.missing = slices.Clone(e.missing)
		c.epochs[i] = &n
	}
	return &c
}

// take notes a record and says whether it is new.
func (t *track) take(r *record.Record) bool {
	i := slices.IndexFunc(t.epochs, func(e *count) bool { return e.epoch == r.Epoch })
	known := i >= 0
	if !known {
		if len(t.epochs) == maxEpochs {
			t.epochs = slices.Delete(t.epochs, 0, 1)
		}
		from := first(r)
		t.epochs = append(t.epochs, &count{epoch: r.Epoch, next: from, earlier: int64(from - 1)})
		i = len(t.epochs) - 1
	}
	if !t.epochs[i].take(r) {
		return false
	}
	if known && t.last != r.Epoch {
		t.clashes++
	}
	t.last = r.Epoch
	return true
}

// first is the first sequence that a record or gap stands for.
func first(r *record.Record) uint64 {
	if r.Gap != nil {
		return r.Gap.From
	}
	return r.Sequence
}

func (c *count) take(r *record.Record) bool {
	from := first(r)
	fills := c.fill(from, r.Sequence) // sequences that were missing until now
	switch {
	case r.Sequence >= c.next:
		if from > c.next {
			c.miss(span{c.next, from - 1})
		}
		if r.Gap != nil {
			c.explained += fills + int64(r.Sequence-max(from, c.next)+1)
		}
		c.next = r.Sequence + 1
	case fills == 0:
		c.duplicates++
		return false
	case r.Gap != nil:
		c.explained += fills
	default:
		c.late++
	}
	if r.Gap != nil {
		c.gaps++
	} else {
		c.records++
	}
	return true
}

// miss adds a run of missing sequences, behind all others.
func (c *count) miss(s span) {
	if len(c.missing) == maxSpans {
		c.forgotten += c.missing[0].len()
		c.missing = slices.Delete(c.missing, 0, 1)
	}
	c.missing = append(c.missing, s)
}

// fill takes from..to off the missing ones and returns how many of them were missing.
func (c *count) fill(from, to uint64) (n int64) {
	if len(c.missing) == 0 || c.missing[len(c.missing)-1].to < from {
		return 0
	}
	left := make([]span, 0, len(c.missing)+1)
	for _, s := range c.missing {
		if s.to < from || s.from > to {
			left = append(left, s)
			continue
		}
		n += span{max(s.from, from), min(s.to, to)}.len()
		if s.from < from {
			left = append(left, span{s.from, from - 1})
		}
		if s.to > to {
			left = append(left, span{to + 1, s.to})
		}
	}
	c.missing = left
	return n
}

// absent is how many sequences are missing without an explanation.
func (c *count) absent() int64 {
	n := c.forgotten
	for _, s := range c.missing {
		n += s.len()
	}
	return n
}
