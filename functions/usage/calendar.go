package usage

import (
	"slices"
	"time"
)

// How much is kept. Buckets in which nothing ran do not exist, and do not count.
const (
	keepHours = 48
	keepDays  = 60

	maxRecords   = 4096 // of one bucket; what would be more is added to others
	maxRevisions = 8    // of one function in one bucket; what would be more is added to its revision ""

	// openEvery is the shortest time between two buckets of a synchronised clock. One that jumps again and again does not
	// push what was true out of the calendar faster than this.
	openEvery = 10 * time.Minute
)

// grain is the length of a bucket.
type grain string

const (
	hours grain = "h"
	days  grain = "d"
)

// bucketInfo is one hour or day in which something ran.
type bucketInfo struct {
	number  uint64 // in the order in which they were opened
	grain   grain
	ok      bool          // label is of a synchronised clock
	label   int64         // when it begins: Unix seconds, or seconds of the gateway's clock
	opened  time.Duration // on the gateway's clock
	records int           // in the store, or on their way there
}

// Clock is both clocks: Now the gateway's own, which never jumps, and Wall the wall clock with whether it is synchronised.
type Clock interface {
	Now() time.Duration
	Wall() (now time.Time, ok bool)
}

// calendar is the buckets that there are, each kind in the order in which they were opened: the oldest first.
type calendar struct {
	hours, days []*bucketInfo
	next        uint64 // number of the next bucket
	zone        *time.Location
}

// labelOf is the hour that a moment belongs to.
func labelOf(gateway time.Duration, wall time.Time, ok bool) int64 {
	if ok {
		return floor(wall.Unix(), 3600)
	}
	return floor(int64(gateway/time.Second), 3600)
}

func floor(n, by int64) int64 {
	if r := n % by; r < 0 {
		return n - r - by
	}
	return n - n%by
}

// dayOf is the day that an hour belongs to: where the gateway is, or on its own clock.
func (c *calendar) dayOf(h *bucketInfo) int64 {
	if !h.ok {
		return floor(h.label, 24*3600)
	}
	y, m, d := time.Unix(h.label, 0).In(c.zone).Date()
	return time.Date(y, m, d, 0, 0, 0, 0, c.zone).Unix()
}

// hour is the bucket of this moment. isNew says that it is not in the store yet.
func (c *calendar) hour(gateway time.Duration, wall time.Time, ok bool) (b *bucketInfo, isNew bool) {
	label := labelOf(gateway, wall, ok)
	if i := slices.IndexFunc(c.hours, func(b *bucketInfo) bool { return b.ok == ok && b.label == label }); i >= 0 {
		return c.hours[i], false
	}
	if n := len(c.hours); n > 0 {
		if last := c.hours[n-1]; last.ok && ok && gateway-last.opened < openEvery && gateway >= last.opened {
			return last, false
		}
	}
	return c.open(hours, ok, label, gateway), true
}

// day is the bucket that an hour is added to when it is old.
func (c *calendar) day(h *bucketInfo) (b *bucketInfo, isNew bool) {
	label := c.dayOf(h)
	if i := slices.IndexFunc(c.days, func(b *bucketInfo) bool { return b.ok == h.ok && b.label == label }); i >= 0 {
		return c.days[i], false
	}
	return c.open(days, h.ok, label, h.opened), true
}

// open makes a bucket and does not add it: whoever writes it does.
func (c *calendar) open(g grain, ok bool, label int64, opened time.Duration) *bucketInfo {
	return &bucketInfo{number: c.next, grain: g, ok: ok, label: label, opened: opened}
}

func (c *calendar) add(b *bucketInfo) {
	list := &c.hours
	if b.grain == days {
		list = &c.days
	}
	*list = append(*list, b)
	slices.SortFunc(*list, func(a, b *bucketInfo) int { return int(int64(a.number - b.number)) })
	c.next = max(c.next, b.number+1)
}

func (c *calendar) remove(b *bucketInfo) {
	is := func(x *bucketInfo) bool { return x == b }
	c.hours, c.days = slices.DeleteFunc(c.hours, is), slices.DeleteFunc(c.days, is)
}

// old is the oldest bucket of those that are too many or too old, if there is one.
func (c *calendar) old(g grain, now time.Duration) *bucketInfo {
	list, most, age := c.hours, keepHours, keepHours*time.Hour
	if g == days {
		list, most, age = c.days, keepDays, keepDays*24*time.Hour
	}
	// The last hour may be the present one.
	if n := len(list); n > most || n > 1 && now-list[0].opened > age {
		return list[0]
	}
	return nil
}

// start is when a bucket began, as near as that is known.
func (b *bucketInfo) start(gateway time.Duration, wall time.Time) time.Time {
	if b.ok {
		return time.Unix(b.label, 0).UTC()
	}
	return wall.Add(time.Duration(b.label)*time.Second - gateway).UTC().Truncate(time.Second)
}
