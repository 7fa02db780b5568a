package engine

import (
	"errors"
	"fmt"
	"sort"
	"sync"
	"time"

	"github.com/perigee-iot/perigee/internal/store"
	"github.com/perigee-iot/perigee/internal/wire"
)

// A gap says that accepted events have left without an outcome: Meta / "gap" / function / order → how many, why, and when. It is
// written in the update that loses them. Losses that follow one another closely are one gap.

// Gap is one of them.
type Gap struct {
	Function    string
	Cause       string
	Events      int64
	From, To    time.Time // when the first and the last were lost
	first, last gapTime
}

// gapTime is a moment on all clocks.
type gapTime struct {
	at   time.Time
	ok   bool
	boot uint32
	up   time.Duration
	own  time.Duration // on the gateway's clock
}

const (
	// gapClose is how long after a loss the next one belongs to the same gap.
	gapClose = time.Minute
	// gapsMost bounds the gaps that are kept of one function; the oldest goes. What was lost in all stays counted.
	gapsMost = 16
)

const gapVersion = 1

func gapKey(fn string, order uint64) store.Key { return gapPrefix(fn).Uint(order) }

func gapPrefix(fn string) store.Key { return store.NewKey(store.Meta).String("gap").String(fn) }

// lastGaps are the orders of the newest gaps, by function. One that came to nothing with its group is not in the store.
type lastGaps struct {
	mu sync.Mutex
	by map[string]uint64
}

func (l *lastGaps) get(fn string) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.by[fn]
}

func (l *lastGaps) set(fn string, order uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.by == nil {
		l.by = map[string]uint64{}
	}
	l.by[fn] = order
}

func (e *Engine) gapNow() gapTime {
	at, up, ok := e.clock.look()
	return gapTime{at: at, ok: ok, boot: e.clock.Boot(), up: up, own: e.clock.Now()}
}

// putGap notes a loss, in the update in which it happens.
func (e *Engine) putGap(tx store.Tx, f *function, cause string) error {
	now := e.gapNow()
	if last := e.gaps.get(f.Name); last != 0 {
		v, ok, err := tx.Get(gapKey(f.Name, last))
		if err != nil {
			return fmt.Errorf("read a gap: %w", err)
		}
		if g, err := decodeGap(f.Name, v); ok && err == nil && g.Cause == cause && now.own-g.last.own < gapClose {
			g.Events++
			g.last = now
			tx.Put(gapKey(f.Name, last), g.encode())
			return nil
		}
	}
	var oldest []byte
	n := 0
	err := tx.Scan(gapPrefix(f.Name), nil, func(k, _ []byte) bool {
		if n++; n == 1 {
			oldest = append(oldest, k...)
		}
		return n < gapsMost
	})
	if err != nil {
		return fmt.Errorf("count the gaps of function %q: %w", f.Name, err)
	}
	if n == gapsMost {
		tx.Delete(oldest)
	}
	g := &Gap{Cause: cause, Events: 1, first: now, last: now}
	order := e.seq.next()
	tx.Put(gapKey(f.Name, order), g.encode())
	e.gaps.set(f.Name, order)
	return nil
}

func (g *Gap) encode() []byte {
	w := wire.NewWriter(nil)
	w.Byte(gapVersion)
	w.String(g.Cause)
	w.Uint(uint64(g.Events))
	for _, t := range []gapTime{g.first, g.last} {
		w.Int(t.at.UnixMilli())
		w.Bool(t.ok)
		w.Uint(uint64(t.boot))
		w.Int(int64(t.up))
		w.Int(int64(t.own))
	}
	return w.Data()
}

func decodeGap(fn string, v []byte) (*Gap, error) {
	r := wire.NewReader(v)
	if v := r.Byte(); r.Err() == nil && v != gapVersion {
		return nil, fmt.Errorf("a gap of version %d, this gateway reads version %d", v, gapVersion)
	}
	g := &Gap{Function: fn, Cause: r.String(), Events: int64(r.Uint())}
	for _, t := range []*gapTime{&g.first, &g.last} {
		t.at, t.ok, t.boot = time.UnixMilli(r.Int()).UTC(), r.Bool(), uint32(r.Uint())
		t.up, t.own = time.Duration(r.Int()), time.Duration(r.Int())
	}
	return g, r.Done()
}

// Gaps lists the gaps of all functions, the latest first, at most limit.
func (e *Engine) Gaps(limit int) ([]Gap, error) {
	var out []Gap
	err := e.st.View(func(r store.Reader) error {
		return r.Scan(store.NewKey(store.Meta).String("gap"), nil, func(k, v []byte) bool {
			fields := store.Parse(k)
			_ = fields.String()
			g, err := decodeGap(fields.String(), v)
			if err = errors.Join(err, fields.Err()); err != nil {
				e.log.Error("a gap cannot be read", "error", err)
				return true
			}
			g.From, _ = e.clock.right(g.first.at, g.first.ok, g.first.boot, g.first.up)
			g.To, _ = e.clock.right(g.last.at, g.last.ok, g.last.boot, g.last.up)
			out = append(out, *g)
			return true
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read the gaps: %w", err)
	}
	sort.SliceStable(out, func(a, b int) bool { return out[a].last.own > out[b].last.own })
	return out[:min(len(out), limit)], nil
}
