package usage

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/internal/store"
)

// id is what a record is about: one revision of a function. Both "" is all for which there was no room, revision "" the
// revisions of a function for which there was none.
type id struct{ function, revision string }

// maxLive is how many records there are in memory, at most.
const maxLive = 2048

// foldAtOnce is how many records one update of the store has: each takes up to 1.5 KB, and the smallest store takes 300 KB.
const foldAtOnce = 64

// Book keeps the records. Its methods may be called from many goroutines.
type Book struct {
	st    *store.Store
	clock Clock
	log   *slog.Logger
	opt   Options

	mu     sync.Mutex // guards live; nothing waits while it is held
	live   map[id]*live
	merged int64 // samples that went to others, since Open

	folding sync.Mutex // held by who reads or writes what is in the store; taken before mu
	cal     calendar
	folds   uint64 // how many there were
	told    int64  // merged when that was logged last
}

// live is what is not in the store yet.
type live struct {
	Record
	dirty  bool
	second int64         // the last in which an invocation ended
	count  int64         // how many ended in it
	used   time.Duration // when a sample was added last
	folded uint64        // the last Fold that took it
}

// Options of Open.
type Options struct {
	Store *store.Store
	Clock Clock
	Zone  *time.Location // whose days those of a synchronised clock are; nil: time.Local
	Log   *slog.Logger   // nil: slog.Default()

	// StateSize says how many bytes of state a function has; nil: nobody knows.
	StateSize func(r store.Reader, function string) int64
	// With is called in every update of Fold that adds something, for what is to be written whenever that is; nil: nothing is.
	With func(tx store.Tx)
}

// Open finds the hours and days that are in the store. One that cannot be read is left there, and said.
func Open(o Options) (*Book, error) {
	b := &Book{st: o.Store, clock: o.Clock, log: o.Log, opt: o, live: map[id]*live{}, cal: calendar{zone: o.Zone}}
	if b.log == nil {
		b.log = slog.Default()
	}
	if b.cal.zone == nil {
		b.cal.zone = time.Local
	}
	err := b.st.View(func(r store.Reader) error {
		return r.Scan(bucketsPrefix(), nil, func(k, v []byte) bool {
			f := store.Parse(k)
			_ = f.String()
			number := f.Uint()
			info, err := decodeBucket(v)
			if err = errors.Join(f.Err(), err); err != nil {
				b.log.Error("an hour of usage cannot be read; it is left where it is", "number", number, "error", err)
				b.cal.next = max(b.cal.next, number+1)
				return true
			}
			info.number = number
			b.cal.add(info)
			return true
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read the hours of usage: %w", err)
	}
	return b, nil
}

// Add counts one invocation of a revision of a function. It takes less than a microsecond and allocates nothing but the first
// time that it sees a revision.
func (b *Book) Add(function, revision string, s *Sample) {
	now := b.clock.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	l := b.record(id{function, revision})
	l.sample(s)
	l.dirty, l.used = true, now
	if sec := int64(now / time.Second); sec != l.second {
		l.second, l.count = sec, 0
	}
	l.count++
	l.PerSecond = max(l.PerSecond, l.count)
}

// Failed turns an invocation that was added as a good one into a fault: what it decided could not be applied.
func (b *Book) Failed(function, revision string, k functions.FaultKind) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if l := b.live[id{function, revision}]; l != nil && l.Outcomes[endedOK] > 0 { // else it was folded a moment ago, and stays as it is
		l.Outcomes[endedOK]--
		l.Outcomes[endingOf(k)]++
	}
}

// Wrote counts bytes that were given to the store on behalf of a function.
func (b *Book) Wrote(function, revision string, bytes int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	l := b.record(id{function, revision})
	l.Written += bytes
	l.dirty = true
}

// record returns the one to add to. The caller holds mu.
func (b *Book) record(who id) *live {
	l := b.live[who]
	if l == nil {
		if len(b.live) >= maxLive && !b.forgetIdle() {
			b.merged++
			who = id{}
			if l = b.live[who]; l != nil {
				return l
			}
		}
		l = &live{}
		b.live[who] = l
	}
	return l
}

// forgetIdle makes room in memory: what is in the store already need not be here. The caller holds mu.
func (b *Book) forgetIdle() bool {
	before := len(b.live)
	for who, l := range b.live {
		if !l.dirty {
			delete(b.live, who)
		}
	}
	return len(b.live) < before
}

// Merged is how many samples went to the record of all others since Open, since there were too many functions at once.
func (b *Book) Merged() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.merged
}

// idleAfter is when a record that nothing was added to leaves memory.
const idleAfter = 10 * time.Minute

// take hands out up to n records that changed and begins them anew, each once a Fold. The caller holds folding.
func (b *Book) take(n int, now time.Duration) map[id]*Record {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := map[id]*Record{}
	for who, l := range b.live {
		switch {
		case l.dirty && len(out) < n && l.folded != b.folds:
			r := l.Record
			out[who] = &r
			l.Record, l.dirty, l.folded = Record{}, false, b.folds
		case !l.dirty && now-l.used > idleAfter:
			delete(b.live, who)
		}
	}
	return out
}

// giveBack adds records to memory again that did not reach the store.
func (b *Book) giveBack(records map[id]*Record) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for who, r := range records {
		l := b.record(who)
		l.Add(r)
		l.dirty = true
	}
}

// Fold adds what is in memory to the store and deletes there what is old. It writes nothing if nothing has changed. After an
// error (the disk is full, the gateway ends) what did not reach the store is still in memory.
func (b *Book) Fold() error {
	b.folding.Lock()
	defer b.folding.Unlock()
	now := b.clock.Now()
	wall, ok := b.clock.Wall()
	b.folds++
	if n := b.Merged(); n > b.told {
		b.log.Warn("usage of some invocations was added to that of all others, since too many functions ran at once", "invocations", n-b.told, "functions", maxLive)
		b.told = n
	}
	for {
		part := b.take(foldAtOnce, now)
		if len(part) == 0 {
			break
		}
		if err := b.fold(part, now, wall, ok); err != nil {
			b.giveBack(part)
			return fmt.Errorf("store the usage of functions: %w", err)
		}
	}
	return b.age(now)
}

func (b *Book) fold(part map[id]*Record, now time.Duration, wall time.Time, ok bool) error {
	hour, isNew := b.cal.hour(now, wall, ok)
	err := b.update(hour, func(tx store.Tx) error {
		for who, r := range part {
			if b.opt.StateSize != nil && who.function != "" {
				r.State = max(r.State, b.opt.StateSize(tx, who.function))
			}
		}
		if b.opt.With != nil {
			b.opt.With(tx)
		}
		if err := b.put(tx, hour, part); err != nil {
			return err
		}
		tx.OnFail(func(error) { b.giveBack(part) })
		return nil
	})
	if err == nil && isNew {
		b.cal.add(hour)
	}
	return err
}

// update is the store's Update for what puts records into a bucket. It runs again if the group before it was dropped meanwhile.
func (b *Book) update(to *bucketInfo, fn func(tx store.Tx) error) (err error) {
	was := to.records
	for range updateTries {
		if err = b.st.Update(fn); err == nil {
			return nil
		}
		to.records = was
		if !errors.Is(err, store.ErrDropped) {
			break
		}
	}
	return err
}

// updateTries is how many groups may be dropped, one after the other, before an update gives up.
const updateTries = 5

// put adds records to those of a bucket in the store.
func (b *Book) put(tx store.Tx, to *bucketInfo, part map[id]*Record) error {
	before := to.records
	fresh := map[id]*Record{}
	for _, who := range sorted(part) {
		known, err := b.find(tx, to, who, fresh)
		if err != nil {
			return err
		}
		known.r.Add(part[who])
		fresh[known.id] = known.r
	}
	for who, r := range fresh {
		tx.Put(recordKey(to.grain, to.number, who), r.encode())
	}
	if to.records != before || to.records == 0 {
		tx.Put(bucketKey(to.number), to.encode())
	}
	return nil
}

func sorted(part map[id]*Record) []id {
	out := make([]id, 0, len(part))
	for who := range part {
		out = append(out, who)
	}
	slices.SortFunc(out, func(a, b id) int {
		if c := strings.Compare(a.function, b.function); c != 0 {
			return c
		}
		return strings.Compare(a.revision, b.revision)
	})
	return out
}

// found is a record of a bucket and whose it is.
type found struct {
	id
	r *Record
}

// find returns the record in a bucket that who's is added to: its own, or where there are too many, one for several. fresh are those
// that this update has changed already.
func (b *Book) find(tx store.Tx, in *bucketInfo, who id, fresh map[id]*Record) (found, error) {
	for {
		if r := fresh[who]; r != nil {
			return found{who, r}, nil
		}
		v, ok, err := tx.Get(recordKey(in.grain, in.number, who))
		if err != nil {
			return found{}, err
		}
		if ok {
			r, err := decodeRecord(v)
			if err != nil {
				b.log.Error("a record of usage cannot be read and begins anew", "function", who.function, "error", err)
				r = &Record{}
			}
			return found{who, r}, nil
		}
		n, err := revisions(tx, in, who.function, fresh)
		if err != nil {
			return found{}, err
		}
		switch {
		case who.revision != "" && n >= maxRevisions:
			who.revision = ""
		case who.function != "" && in.records >= maxRecords-1:
			who = id{}
		default:
			in.records++
			return found{who, &Record{}}, nil
		}
	}
}

// revisions counts those of a function in a bucket.
func revisions(tx store.Tx, in *bucketInfo, function string, fresh map[id]*Record) (n int, err error) {
	stored := map[string]bool{}
	err = tx.Scan(recordsOf(in.grain, in.number).String(function), nil, func(k, _ []byte) bool {
		if who, err := whose(k); err == nil && who.revision != "" {
			stored[who.revision] = true
		}
		return true
	})
	for who := range fresh {
		if who.function == function && who.revision != "" {
			stored[who.revision] = true
		}
	}
	return len(stored), err
}

// age adds hours that are too old or too many to their days, and deletes such days.
func (b *Book) age(now time.Duration) error {
	for {
		h := b.cal.old(hours, now)
		if h == nil {
			break
		}
		if err := b.retire(h); err != nil {
			return fmt.Errorf("add an hour of usage to its day: %w", err)
		}
	}
	for {
		d := b.cal.old(days, now)
		if d == nil {
			return nil
		}
		if err := b.drop(d); err != nil {
			return fmt.Errorf("delete a day of usage: %w", err)
		}
	}
}

// retire moves the records of an hour to its day, some with each update: each is in one of the two at any time.
func (b *Book) retire(h *bucketInfo) error {
	for done := false; !done; {
		day, isNew := b.cal.day(h)
		err := b.update(day, func(tx store.Tx) error {
			part, keys, err := b.some(tx, h)
			if err != nil {
				return err
			}
			if err := b.put(tx, day, part); err != nil {
				return err
			}
			for _, k := range keys {
				tx.Delete(k)
			}
			if done = len(keys) < foldAtOnce; done {
				tx.Delete(bucketKey(h.number))
			}
			return nil
		})
		if err != nil {
			return err
		}
		if isNew {
			b.cal.add(day)
		}
	}
	b.cal.remove(h)
	return nil
}

// drop deletes a bucket with its records.
func (b *Book) drop(d *bucketInfo) error {
	for done := false; !done; {
		err := b.update(d, func(tx store.Tx) error {
			_, keys, err := b.some(tx, d)
			if err != nil {
				return err
			}
			for _, k := range keys {
				tx.Delete(k)
			}
			if done = len(keys) < foldAtOnce; done {
				tx.Delete(bucketKey(d.number))
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	b.cal.remove(d)
	return nil
}

// some reads the first records of a bucket, foldAtOnce at most. What cannot be read is only in keys.
func (b *Book) some(r store.Reader, of *bucketInfo) (part map[id]*Record, keys [][]byte, err error) {
	part = map[id]*Record{}
	err = r.Scan(recordsOf(of.grain, of.number), nil, func(k, v []byte) bool {
		keys = append(keys, slices.Clone(k))
		who, err := whose(k)
		if err == nil {
			part[who], err = decodeRecord(v)
		}
		if err != nil {
			delete(part, who)
			b.log.Error("a record of usage cannot be read and is dropped", "key", fmt.Sprintf("%x", k), "error", err)
		}
		return len(keys) < foldAtOnce
	})
	return part, keys, err
}
