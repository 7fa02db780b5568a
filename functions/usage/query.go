package usage

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/perigee-iot/perigee/internal/store"
)

// By is how an answer is split.
type By string

const (
	All    By = "" // not at all
	ByHour By = "hour"
	ByDay  By = "day"
)

// Query selects usage.
type Query struct {
	Function  string        // "": all
	Since     time.Duration // how far back; 0: all there is
	By        By
	Revisions bool // each on its own
}

// Row is one line of an answer.
type Row struct {
	Function string // "": functions for which there was no room
	Revision string // "": all of them, or with Query.Revisions those for which there was no room
	Start    time.Time
	StartOK  bool          // Start is of a synchronised clock; otherwise it is an estimate
	Length   time.Duration // of the bucket, 0 with All
	Record
}

// rowKey is what is summed up in one row.
type rowKey struct {
	id
	ok    bool
	label int64
}

// Query reads what there is, what was not folded yet included, ordered by time and function.
func (b *Book) Query(q Query) ([]Row, error) {
	b.folding.Lock()
	defer b.folding.Unlock()
	now := b.clock.Now()
	wall, ok := b.clock.Wall()
	rows := map[rowKey]*Row{}
	add := func(in *bucketInfo, who id, r *Record) {
		if q.Function != "" && who.function != q.Function {
			return
		}
		b.addRow(rows, q, in, who, r, now, wall)
	}
	err := b.st.View(func(r store.Reader) error {
		for _, in := range b.cal.within(q, now, wall, ok) {
			prefix := recordsOf(in.grain, in.number)
			if q.Function != "" {
				prefix = prefix.String(q.Function)
			}
			err := r.Scan(prefix, nil, func(k, v []byte) bool {
				who, err := whose(k)
				if err != nil {
					return true
				}
				if rec, err := decodeRecord(v); err == nil {
					add(in, who, rec)
				}
				return true
			})
			if err != nil {
				return err
			}
		}
		present, _ := b.cal.hour(now, wall, ok)
		for who, rec := range b.unfolded() {
			if b.opt.StateSize != nil && who.function != "" {
				rec.State = max(rec.State, b.opt.StateSize(r, who.function))
			}
			add(present, who, rec)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return ordered(rows), nil
}

// unfolded is a copy of what is in memory only.
func (b *Book) unfolded() map[id]*Record {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := map[id]*Record{}
	for who, l := range b.live {
		if l.dirty {
			r := l.Record
			out[who] = &r
		}
	}
	return out
}

// within is the buckets that a query is about.
func (c *calendar) within(q Query, now time.Duration, wall time.Time, ok bool) (out []*bucketInfo) {
	list := c.hours
	if q.By != ByHour {
		list = slices.Concat(c.days, c.hours)
	}
	for _, b := range list {
		length, label := time.Hour, b.label
		if b.grain == days || q.By == ByDay {
			length = 24 * time.Hour
		}
		if b.grain == hours && q.By == ByDay {
			label = c.dayOf(b) // no day in part
		}
		age := now - b.opened
		if ok && b.ok { // the clock that people look at
			age = wall.Sub(time.Unix(label, 0))
		} else if !b.ok {
			age = now - time.Duration(label)*time.Second
		}
		if q.Since == 0 || age-length < q.Since {
			out = append(out, b)
		}
	}
	return out
}

func (b *Book) addRow(rows map[rowKey]*Row, q Query, in *bucketInfo, who id, r *Record, now time.Duration, wall time.Time) {
	if !q.Revisions {
		who.revision = ""
	}
	key, at, length := rowKey{id: who}, *in, time.Duration(0)
	switch q.By {
	case ByHour:
		key.ok, key.label, length = in.ok, in.label, time.Hour
	case ByDay:
		if in.grain == hours {
			at.label = b.cal.dayOf(in)
		}
		key.ok, key.label, length = in.ok, at.label, 24*time.Hour
	}
	start := at.start(now, wall)
	row := rows[key]
	if row == nil {
		row = &Row{Function: who.function, Revision: who.revision, Start: start, StartOK: in.ok, Length: length}
		rows[key] = row
	}
	if start.Before(row.Start) {
		row.Start, row.StartOK = start, in.ok
	}
	row.Add(r)
}

func ordered(rows map[rowKey]*Row) []Row {
	out := make([]Row, 0, len(rows))
	for _, r := range rows {
		out = append(out, *r)
	}
	slices.SortFunc(out, func(a, b Row) int {
		byTime := 0
		if a.Length > 0 {
			byTime = a.Start.Compare(b.Start)
		}
		return cmp.Or(byTime, strings.Compare(a.Function, b.Function), a.Start.Compare(b.Start), strings.Compare(a.Revision, b.Revision))
	})
	return out
}
