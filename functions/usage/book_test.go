package usage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/internal/store"
)

// world is a book with a clock that a test moves and a disk that it can make fail.
type world struct {
	t    require.TestingT
	dir  string
	zone *time.Location
	st   *store.Store
	book *Book

	mu      sync.Mutex // guards the clocks
	gateway time.Duration
	wall    time.Time
	ok      bool

	failing atomic.Bool // the store drops its groups
}

var errDisk = errors.New("a failing disk")

func newWorld(t testing.TB) *world {
	w := &world{t: t, dir: t.TempDir(), zone: time.UTC, gateway: time.Hour, wall: time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC), ok: true}
	w.open()
	t.Cleanup(func() { w.st.Close() })
	return w
}

func (w *world) open() {
	st, err := store.Open(w.dir, store.Options{Profile: "small", Durability: store.Crash, Linger: -1, MinFree: 1 << 20, Log: slog.New(slog.DiscardHandler), Fault: func() error {
		if w.failing.Load() {
			return errDisk
		}
		return nil
	}})
	require.NoError(w.t, err)
	w.st = st
	w.begin()
}

// begin makes a book of what is in the store.
func (w *world) begin() {
	var err error
	w.book, err = Open(Options{Store: w.st, Clock: w, Zone: w.zone, Log: slog.New(slog.DiscardHandler)})
	require.NoError(w.t, err)
}

func (w *world) Now() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.gateway
}

func (w *world) Wall() (time.Time, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.wall, w.ok
}

// pass moves both clocks.
func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.gateway += d
	w.wall = w.wall.Add(d)
}

// jump sets the wall clock alone.
func (w *world) jump(to time.Time, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wall, w.ok = to, ok
}

// reopen stops the gateway, in peace or not.
func (w *world) reopen(peace bool) {
	if peace {
		require.NoError(w.t, w.book.Fold())
	}
	require.NoError(w.t, w.st.Close())
	w.open()
}

func (w *world) run(function, revision string, n int) {
	for range n {
		w.book.Add(function, revision, &Sample{Wall: time.Millisecond, CPU: 500 * time.Microsecond, In: 10, Out: 20, Effects: 2})
	}
}

func (w *world) query(q Query) []Row {
	rows, err := w.book.Query(q)
	require.NoError(w.t, err)
	return rows
}

// runs is how many invocations are in the rows.
func (w *world) runs(q Query) (n int64) {
	for _, r := range w.query(q) {
		n += r.Runs()
	}
	return n
}

func (w *world) fold() {
	require.NoError(w.t, w.book.Fold())
	require.NoError(w.t, w.st.Flush(context.Background()))
}

// keys counts what there is in the store.
func (w *world) keys(prefix store.Key) (n int) {
	require.NoError(w.t, w.st.View(func(r store.Reader) error {
		return r.Scan(prefix, nil, func(_, _ []byte) bool { n++; return true })
	}))
	return n
}

func TestNothingIsWrittenWhenNothingRan(t *testing.T) {
	w := newWorld(t)
	for range 100 {
		w.pass(time.Minute)
		w.fold()
	}
	require.Zero(t, w.st.Stats().Updates)
	w.run("a", "1", 1000)
	w.fold()
	w.fold()
	require.EqualValues(t, 1, w.st.Stats().Updates, "one update for all that ran")
	require.Equal(t, 2, w.keys(store.NewKey(store.Usage)), "the record and its hour")
}

func TestHoursBecomeDays(t *testing.T) {
	w := newWorld(t)
	for range 24 * 70 {
		w.run("a", "1", 3)
		w.run("b", "1", 1)
		w.fold()
		w.pass(time.Hour)
	}
	require.LessOrEqual(t, len(w.book.cal.hours), keepHours)
	require.LessOrEqual(t, len(w.book.cal.days), keepDays)
	require.Equal(t, 2*(len(w.book.cal.hours)+len(w.book.cal.days)), w.keys(store.NewKey(store.Usage).String("h"))+w.keys(store.NewKey(store.Usage).String("d")))
	byDay := w.query(Query{Function: "a", By: ByDay})
	require.Equal(t, keepDays, len(byDay))
	for i, r := range byDay {
		require.True(t, r.StartOK)
		if i > 0 {
			require.Equal(t, 24*time.Hour, r.Start.Sub(byDay[i-1].Start))
		}
		if i > 0 && i < len(byDay)-1 {
			require.EqualValues(t, 72, r.Runs())
		}
	}
	byHour := w.query(Query{By: ByHour, Since: 24 * time.Hour})
	require.Equal(t, 48, len(byHour), "two functions, a day")
	require.EqualValues(t, 3, byHour[0].Runs())
	require.Equal(t, "b", byHour[1].Function)
	require.EqualValues(t, 24*3, w.runs(Query{Function: "a", Since: 24 * time.Hour}))
}

func TestWhatIsNotFoldedCountsToo(t *testing.T) {
	w := newWorld(t)
	w.run("a", "1", 2)
	w.fold()
	w.run("a", "1", 3)
	w.run("b", "2", 1)
	w.book.Wrote("b", "2", 77)
	w.book.Failed("a", "1", functions.FaultBadOutput)
	w.book.Failed("nobody", "1", functions.FaultBadOutput)
	rows := w.query(Query{})
	require.Equal(t, 2, len(rows))
	require.EqualValues(t, 1, rows[0].Count(functions.FaultBadOutput))
	require.EqualValues(t, 5, rows[0].Runs())
	require.Equal(t, 5*time.Millisecond, rows[0].Wall)
	require.EqualValues(t, 77, rows[1].Written)
	require.EqualValues(t, 5, rows[0].PerSecond, "the clock stands still")
}

func TestRestart(t *testing.T) {
	w := newWorld(t)
	w.run("a", "1", 5)
	w.reopen(true)
	require.EqualValues(t, 5, w.runs(Query{}))
	w.run("a", "1", 2)
	w.reopen(false) // killed: what was not folded is lost, and nothing else
	require.EqualValues(t, 5, w.runs(Query{}))
	w.run("a", "1", 1)
	w.fold()
	require.Equal(t, 1, len(w.query(Query{By: ByHour})), "the same hour goes on")
	require.EqualValues(t, 6, w.runs(Query{}))
}

// TestDroppedGroup: what the disk refused is in memory still, and counted once.
func TestDroppedGroup(t *testing.T) {
	w := newWorld(t)
	w.run("a", "1", 5)
	w.failing.Store(true)
	_ = w.book.Fold()
	_ = w.st.Flush(context.Background())
	require.EqualValues(t, 5, w.runs(Query{}))
	w.failing.Store(false)
	w.fold()
	require.EqualValues(t, 5, w.runs(Query{}))
	w.reopen(false)
	require.EqualValues(t, 5, w.runs(Query{}))
}

func TestClosedStore(t *testing.T) {
	w := newWorld(t)
	w.run("a", "1", 5)
	require.NoError(t, w.st.Close())
	require.ErrorIs(t, w.book.Fold(), store.ErrClosed)
	require.Zero(t, w.book.cal.next, "no bucket was opened")
	require.EqualValues(t, 5, w.book.live[id{"a", "1"}].Runs())
}

func TestWallClock(t *testing.T) {
	start := time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)
	t.Run("set after the start", func(t *testing.T) {
		w := newWorld(t)
		w.jump(time.Unix(0, 0), false)
		w.run("a", "1", 1)
		w.fold()
		w.pass(10 * time.Second)
		w.jump(start, true)
		w.run("a", "1", 2)
		w.fold()
		rows := w.query(Query{By: ByHour})
		require.Equal(t, 2, len(rows))
		require.False(t, rows[0].StartOK)
		require.Equal(t, start.Add(-10*time.Second), rows[0].Start, "as near as it is known")
		require.Equal(t, start, rows[1].Start)
		require.True(t, rows[1].StartOK)
	})
	t.Run("never set", func(t *testing.T) {
		w := newWorld(t)
		for range 24 * 4 {
			w.jump(time.Unix(int64(w.gateway), 0), false) // it says anything
			w.run("a", "1", 1)
			w.fold()
			w.pass(time.Hour)
		}
		require.EqualValues(t, 24*4, w.runs(Query{}))
		require.Equal(t, keepHours, len(w.query(Query{By: ByHour})))
		require.EqualValues(t, 24, w.runs(Query{Since: 24 * time.Hour}))
	})
	t.Run("a year ahead and back", func(t *testing.T) {
		w := newWorld(t)
		for range 24 {
			w.run("a", "1", 1)
			w.fold()
			w.pass(time.Hour)
		}
		at := w.wall
		w.jump(at.AddDate(1, 0, 0), true)
		w.run("a", "1", 1)
		w.fold()
		w.pass(time.Hour)
		w.jump(at.Add(time.Hour), true)
		w.run("a", "1", 1)
		w.fold()
		require.EqualValues(t, 26, w.runs(Query{}), "nothing is thrown away")
		require.Equal(t, 26, len(w.book.cal.hours))
	})
	t.Run("back and forth", func(t *testing.T) {
		w := newWorld(t)
		for i := range 1000 {
			w.jump(start.AddDate(0, 0, (i*7919)%3000), i%5 != 0)
			w.run("a", "1", 1)
			w.fold()
			w.pass(time.Minute)
		}
		require.LessOrEqual(t, len(w.book.cal.hours)+len(w.book.cal.days), keepHours+keepDays+1)
		require.LessOrEqual(t, w.keys(store.NewKey(store.Usage)), 2*(keepHours+keepDays+1))
		require.Greater(t, w.runs(Query{}), int64(500))
	})
}

// TestDaysOfTheZone: days begin at midnight where the gateway is, also where a day has 23 or 25 hours.
func TestDaysOfTheZone(t *testing.T) {
	zone, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		zone = time.FixedZone("CET", 3600)
	}
	for _, day := range []time.Time{time.Date(2026, 3, 29, 0, 0, 0, 0, zone), time.Date(2026, 10, 25, 0, 0, 0, 0, zone), time.Date(2026, 7, 1, 0, 0, 0, 0, zone)} {
		w := newWorld(t)
		w.book.cal.zone = zone
		w.jump(day, true)
		long := day.AddDate(0, 0, 1).Sub(day)
		for range 5 * 24 {
			w.run("a", "1", 1)
			w.fold()
			w.pass(time.Hour)
		}
		rows := w.query(Query{By: ByDay})
		require.Equal(t, day.UTC(), rows[0].Start)
		require.EqualValues(t, long/time.Hour, rows[0].Runs())
		require.EqualValues(t, 24, rows[1].Runs())
	}
}

func TestManyRevisions(t *testing.T) {
	w := newWorld(t)
	for i := range 3 * maxRevisions {
		w.run("a", fmt.Sprint("r", i), 1)
	}
	w.run("b", "1", 1)
	w.fold()
	w.run("a", "new", 1)
	w.fold()
	rows := w.query(Query{Function: "a", Revisions: true})
	require.Equal(t, maxRevisions+1, len(rows))
	require.Empty(t, rows[0].Revision, "the others")
	require.EqualValues(t, 2*maxRevisions+1, rows[0].Runs())
	require.EqualValues(t, 3*maxRevisions+1, w.runs(Query{Function: "a"}))
	require.EqualValues(t, 1, w.runs(Query{Function: "b"}))
	for range keepHours + 1 { // and the same in days
		w.pass(time.Hour)
		w.run("b", "1", 1)
		w.fold()
	}
	require.EqualValues(t, 3*maxRevisions+1, w.runs(Query{Function: "a"}))
}

func TestManyFunctions(t *testing.T) {
	w := newWorld(t)
	for i := range maxLive + 100 {
		w.run(fmt.Sprint("f", i), "1", 1)
	}
	require.EqualValues(t, 100, w.book.Merged())
	require.LessOrEqual(t, len(w.book.live), maxLive+1)
	require.EqualValues(t, maxLive+100, w.runs(Query{}))
	w.fold()
	for i := range 3 * maxLive { // more than one bucket takes
		w.run(fmt.Sprint("g", i), "1", 1)
		if i%1000 == 999 {
			w.fold()
		}
	}
	w.fold()
	require.EqualValues(t, 4*maxLive+100, w.runs(Query{}))
	require.LessOrEqual(t, w.keys(store.NewKey(store.Usage).String("h")), maxRecords)
	require.Empty(t, w.query(Query{})[0].Function, "the others are a row of their own")
	w.pass(time.Hour)
	w.fold()
	require.Empty(t, w.book.live, "what is idle leaves memory")
}

func TestStateSize(t *testing.T) {
	w := newWorld(t)
	w.book.opt.StateSize = func(_ store.Reader, function string) int64 { return int64(len(function)) * 100 }
	with := 0
	w.book.opt.With = func(store.Tx) { with++ }
	w.fold()
	require.Zero(t, with)
	w.run("abc", "1", 1)
	require.EqualValues(t, 300, w.query(Query{})[0].State, "before it is folded, too")
	w.fold()
	require.EqualValues(t, 300, w.query(Query{})[0].State)
	require.Equal(t, 1, with)
}

// TestDamage: what cannot be read is left out, and nothing else.
func TestDamage(t *testing.T) {
	w := newWorld(t)
	w.run("a", "1", 1)
	w.run("b", "1", 1)
	w.fold()
	require.NoError(t, w.st.Update(func(tx store.Tx) error {
		tx.Put(recordKey(hours, 0, id{"a", "1"}), []byte{99})
		tx.Put(bucketKey(7), []byte("?"))
		tx.Put(store.NewKey(store.Usage).String("h").Uint(0).Prefix("x"), nil)
		return nil
	}))
	w.reopen(true)
	require.EqualValues(t, 1, w.runs(Query{}))
	w.run("a", "1", 3)
	w.fold()
	require.EqualValues(t, 4, w.runs(Query{}))
	require.EqualValues(t, 8, w.book.cal.next, "its number is not used again")
	for range keepHours + 2 {
		w.pass(time.Hour)
		w.run("c", "1", 1)
		w.fold()
	}
	require.EqualValues(t, 4, w.runs(Query{})-w.runs(Query{Function: "c"}))
}

func TestConcurrently(t *testing.T) {
	w := newWorld(t)
	var all sync.WaitGroup
	for g := range 4 {
		all.Go(func() {
			for i := range 500 {
				w.run(fmt.Sprint("f", (g+i)%3), "1", 1)
				w.book.Wrote("f0", "1", 1)
				if i%100 == 99 {
					_ = w.book.Fold()
					w.pass(20 * time.Minute)
					_, _ = w.book.Query(Query{})
				}
			}
		})
	}
	all.Wait()
	w.fold()
	require.EqualValues(t, 2000, w.runs(Query{}))
	require.EqualValues(t, 2000, w.query(Query{})[0].Written)
}

// TestFoldingEqualsSums: whatever runs, whenever it is folded, restarted or the disk fails, and whatever the clock says, the sums are those
// of all samples.
func TestFoldingEqualsSums(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "w")
		require.NoError(t, err)
		w := &world{t: r, dir: filepath.Join(dir, "s"), zone: time.UTC, gateway: time.Hour, wall: time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC), ok: true}
		require.NoError(r, os.Mkdir(w.dir, 0o700))
		w.open()
		defer func() { w.st.Close() }()
		sums := map[id]*Record{}
		for range rapid.IntRange(1, 40).Draw(r, "steps") {
			switch rapid.IntRange(0, 19).Draw(r, "what") {
			case 0:
				w.fold()
				w.begin()
			case 1, 2, 3:
				w.jump(time.Unix(rapid.Int64Range(0, 1<<32).Draw(r, "wall"), 0), rapid.Bool().Draw(r, "ok"))
			case 4, 5:
				w.failing.Store(true)
				_ = w.book.Fold()
				_ = w.st.Flush(context.Background())
				w.failing.Store(false)
			case 6, 7, 8, 9, 10:
				w.fold()
				w.pass(time.Duration(rapid.IntRange(0, 5*60).Draw(r, "minutes")) * time.Minute)
			default:
				who := id{rapid.SampledFrom([]string{"a", "b"}).Draw(r, "function"), rapid.SampledFrom([]string{"1", "2"}).Draw(r, "revision")}
				s := Sample{Fault: rapid.SampledFrom([]functions.FaultKind{"", "", functions.FaultError, functions.FaultTimeout, "new"}).Draw(r, "fault"),
					Retry: rapid.Bool().Draw(r, "retry"), Wall: time.Duration(rapid.Int64Range(0, 1e12).Draw(r, "wall")), CPU: time.Duration(rapid.Int64Range(0, 1e9).Draw(r, "cpu")),
					Memory: rapid.Int64Range(0, 1<<40).Draw(r, "memory"), In: rapid.Int64Range(0, 1<<20).Draw(r, "in"), Out: rapid.Int64Range(0, 1<<20).Draw(r, "out"),
					Effects: rapid.IntRange(0, 100).Draw(r, "effects"), Reads: rapid.IntRange(0, 100).Draw(r, "reads"), Log: rapid.Int64Range(0, 1<<14).Draw(r, "log")}
				w.book.Add(who.function, who.revision, &s)
				w.book.Wrote(who.function, who.revision, s.In)
				if sums[who] == nil {
					sums[who] = &Record{}
				}
				sums[who].sample(&s)
				sums[who].Written += s.In
			}
		}
		got := map[id]*Record{}
		for _, row := range w.query(Query{Revisions: true}) {
			require.LessOrEqual(r, row.PerSecond, row.Runs())
			row.PerSecond = 0
			got[id{row.Function, row.Revision}] = &row.Record
		}
		require.Equal(r, sums, got)
		for _, by := range []By{ByDay, All} {
			require.Equal(r, total(sums), w.runs(Query{By: by}))
		}
		w.fold()
		w.begin()
		require.Equal(r, total(sums), w.runs(Query{}))
	})
}

func total(sums map[id]*Record) (n int64) {
	for _, s := range sums {
		n += s.Runs()
	}
	return n
}

// sinceStart is a world's clock that runs as the gateway's does.
type sinceStart struct {
	*world
	start time.Time
}

func (s sinceStart) Now() time.Duration { return time.Since(s.start) }

func BenchmarkAdd(b *testing.B) {
	w := newWorld(b)
	w.book.clock = sinceStart{w, time.Now()}
	o := &functions.Outcome{Result: []byte(`{"ok":true}`), Effects: []functions.Effect{{Kind: functions.SetState, Name: "n", Value: []byte("1")}, {Kind: functions.Publish, Name: "a/b", Value: []byte("2")}},
		Usage: functions.Usage{Wall: 300 * time.Microsecond, CPU: 200 * time.Microsecond}}
	w.run("overheat", "1f0c5a2b9e77", 1)
	b.ReportAllocs()
	for b.Loop() {
		s := SampleOf(64, o)
		w.book.Add("overheat", "1f0c5a2b9e77", &s)
		w.book.Wrote("overheat", "1f0c5a2b9e77", 200)
	}
}
