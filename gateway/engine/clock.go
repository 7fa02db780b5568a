package engine

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/perigee-iot/perigee/internal/event"
	"github.com/perigee-iot/perigee/internal/store"
	"github.com/perigee-iot/perigee/internal/wire"
	"github.com/perigee-iot/perigee/sync/outbox"
)

// Clock is the gateway's own clock: it never jumps and never goes back, whatever the wall clock does. Within a boot of
// the machine it is monotonic time; at the next boot it goes on from the last value that was stored, so that the time
// in which the box was off does not count. Durable deadlines (retries, timers, windows) are points on it.
//
// It also knows when the machine's boots were on the wall clock, for those in which that was synchronised at some time. A box without
// a clock battery boots in the past, and stamps events before it knows better: such stamps are corrected by the time since the boot.
type Clock struct {
	m    machine
	base time.Duration // the clock's value when the machine had been up for upAt
	upAt time.Duration
	boot uint32
	id   string // of the boot

	mu      sync.Mutex
	synced  bool
	asked   time.Duration        // when the kernel was asked last, since the boot
	began   time.Time            // when the machine booted, by the wall clock of the last look
	boots   map[uint32]time.Time // when it booted truly
	learned func()               // when this boot's time becomes known, or another; nil: nobody wants to know. It must not block
}

const (
	// clockPersist is how often the clock is stored while something waits for it: the most that a deadline can be late
	// after a power cut.
	clockPersist = time.Minute
	// clockAsk is how long the kernel's word holds that the wall clock is synchronised, if that does not jump.
	clockAsk = 5 * time.Second
	// clockJump is how far the wall clock may go astray from monotonic time, between two looks, without having jumped.
	clockJump = 500 * time.Millisecond
	// clockBoots bounds the boots whose time is remembered; events that wait for longer keep their stamps.
	clockBoots = 64
)

var (
	clockKey = store.NewKey(store.Meta).String("clock")
	bootsKey = store.NewKey(store.Meta).String("boots")
)

// OpenClock carries the gateway's clock on from what the store has of it.
func OpenClock(st *store.Store, log *slog.Logger) (*Clock, error) {
	return openClock(st, log, newLinux())
}

func openClock(st *store.Store, log *slog.Logger, m machine) (*Clock, error) {
	wall, up := m.now()
	c := &Clock{m: m, upAt: up, boot: 1, id: m.bootID(), began: wall.Add(-up), asked: up - clockAsk, boots: map[uint32]time.Time{}}
	err := st.View(func(r store.Reader) error {
		v, ok, err := r.Get(clockKey)
		if err != nil || !ok {
			return err
		}
		w := wire.NewReader(v)
		was, n, gw, then := w.String(), w.Uint(), time.Duration(w.Int()), time.Duration(w.Int())
		if err := w.Done(); err != nil {
			log.Warn("the stored clock is damaged and starts anew; waiting retries and timers may be early", "error", err)
			return nil
		}
		c.boot, c.base = uint32(n), gw
		if was == c.id {
			c.base += max(0, up-then)
		} else {
			c.boot++
		}
		v, _, err = r.Get(bootsKey)
		if err == nil {
			c.decodeBoots(v)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the gateway's clock: %w", err)
	}
	return c, st.Update(func(tx store.Tx) error { c.put(tx); return nil })
}

// put stores the clock's present value.
func (c *Clock) put(tx store.Tx) {
	_, up := c.m.now()
	w := wire.NewWriter(nil)
	w.String(c.id)
	w.Uint(uint64(c.boot))
	w.Int(int64(c.at(up)))
	w.Int(int64(up))
	tx.Put(clockKey, w.Data())
}

// putBoots stores when the machine's boots were.
func (c *Clock) putBoots(tx store.Tx) {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := wire.NewWriter(nil)
	w.Uint(uint64(len(c.boots)))
	for n, at := range c.boots {
		w.Uint(uint64(n))
		w.Int(at.UnixMilli())
	}
	tx.Put(bootsKey, w.Data())
}

// decodeBoots reads what putBoots wrote; what is damaged is not known.
func (c *Clock) decodeBoots(v []byte) {
	r := wire.NewReader(v)
	for range r.Count(clockBoots) {
		n, at := uint32(r.Uint()), time.UnixMilli(r.Int()).UTC()
		if r.Err() == nil {
			c.boots[n] = at
		}
	}
}

func (c *Clock) at(up time.Duration) time.Duration { return c.base + up - c.upAt }

// Now is the gateway's time, counted from its first start.
func (c *Clock) Now() time.Duration {
	_, up := c.m.now()
	return c.at(up)
}

// Boot counts the machine's boots, from 1.
func (c *Clock) Boot() uint32 { return c.boot }

// Wall is the wall clock and whether the kernel says that it is synchronised.
func (c *Clock) Wall() (time.Time, bool) {
	now, _, ok := c.look()
	return now, ok
}

// look is Wall, with the time since the machine's boot at that very moment.
func (c *Clock) look() (now time.Time, up time.Duration, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now, up = c.m.now()
	began := now.Add(-up)
	jumped := began.Sub(c.began).Abs() > clockJump
	if jumped || up-c.asked >= clockAsk {
		c.began, c.asked, c.synced = began, up, c.m.synced()
		if c.synced {
			now, up = c.m.now() // what was true before the question need not be what the answer is about
			c.learn(now.Add(-up))
		}
	}
	return now.UTC().Truncate(time.Millisecond), up, c.synced
}

// learn notes when the machine booted truly. The caller holds mu.
func (c *Clock) learn(began time.Time) {
	c.began = began
	was, known := c.boots[c.boot]
	if known && began.Sub(was).Abs() <= clockJump {
		return
	}
	c.boots[c.boot] = began
	for n := range c.boots {
		if n+clockBoots <= c.boot {
			delete(c.boots, n)
		}
	}
	if c.learned != nil {
		c.learned()
	}
}

// tell has fn called when the time of a boot becomes known, with the clock's lock held.
func (c *Clock) tell(fn func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.learned = fn
}

// right returns what a stamp is by the right clock, if that is known by now: up is how long the machine had been up at its boot of
// that number. Stamps that were made with a synchronised clock are right.
func (c *Clock) right(at time.Time, ok bool, boot uint32, up time.Duration) (time.Time, bool) {
	if ok || boot == 0 {
		return at, ok
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	began, known := c.boots[boot]
	if !known {
		return at, false
	}
	return began.Add(up).UTC().Truncate(time.Millisecond), true
}

// corrected is an event with the time that it has by the right clock, the event itself if there is nothing to correct.
func (c *Clock) corrected(ev *event.Event) *event.Event {
	at, ok := c.right(ev.Time, ev.TimeOK, ev.Boot, ev.Mono)
	if ok == ev.TimeOK {
		return ev
	}
	better := *ev
	better.Time, better.TimeOK = at, ok
	return &better
}

// Right is the time of a record's event by the right clock; it is outbox.Options.Right.
func (c *Clock) Right(r *outbox.Record) {
	r.Time, r.TimeOK = c.right(r.Time, r.TimeOK, r.Boot, r.Up)
}

// persistClock stores the clock while something waits for it, and comes again.
func (e *Engine) persistClock() {
	e.clock.Wall() // so that it is known in time that it has become right
	if e.wheel.len() > 0 || e.windowsOpen() {
		if err := e.st.Update(func(tx store.Tx) error { e.clock.put(tx); return nil }); err != nil {
			e.log.Debug("the clock was not stored", "error", err)
		}
	}
	e.wheel.add(e.clock.Now()+clockPersist, e.persistClock)
}

// keepBoots stores when the machine booted, since that has just become known.
func (e *Engine) keepBoots() {
	e.log.Info("the clock is synchronised; earlier times of this boot are corrected")
	if err := e.st.Update(func(tx store.Tx) error { e.clock.putBoots(tx); return nil }); err != nil {
		e.log.Debug("the time of the boot was not stored", "error", err)
	}
}

// sequence numbers events, jobs and actions. It is stored in blocks: after a crash it goes on at the next block, so
// that it never repeats. The next block is reserved in time and from a goroutine of its own accord, since numbers are also
// taken inside updates of the store, which must not start another.
type sequence struct {
	st    *store.Store
	later func(fn func()) // runs fn soon, outside of any update

	mu        sync.Mutex
	at        uint64
	until     uint64 // numbers below this are ours
	reserving bool
}

// sequenceBlock is so large that half of it lasts for many seconds at any rate that a gateway reaches.
const sequenceBlock = 1 << 20

// sequenceAfterDamage is how far numbers leap when a damaged store was salvaged: beyond all that the old one can have given out.
const sequenceAfterDamage = 1 << 40

var sequenceKey = store.NewKey(store.Meta).String("sequence")

func openSequence(st *store.Store, later func(fn func())) (*sequence, error) {
	s := &sequence{st: st, later: later}
	err := st.View(func(r store.Reader) error {
		v, ok, err := r.Get(sequenceKey)
		if err == nil && ok && len(v) == 8 {
			s.at = binary.BigEndian.Uint64(v)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the sequence of events: %w", err)
	}
	if st.Stats().SetAside != "" { // the number may be older than what waits, or gone
		s.at += sequenceAfterDamage
	}
	s.until = s.at
	return s, s.reserve()
}

// reserve makes the next block ours.
func (s *sequence) reserve() error {
	s.mu.Lock()
	next := max(s.until, s.at) + sequenceBlock
	s.mu.Unlock()
	err := s.st.Update(func(tx store.Tx) error {
		tx.Put(sequenceKey, uint64Bytes(next))
		return nil
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reserving = false
	if err != nil {
		return fmt.Errorf("reserve sequence numbers: %w", err)
	}
	s.until = next
	return nil
}

// next never waits. Should a reservation fail (the disk is full), numbers go on: they are stored only once the store
// takes updates again, and half a block before that the reservation is tried again with every number.
func (s *sequence) next() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.at+sequenceBlock/2 >= s.until && !s.reserving {
		s.reserving = true
		s.later(func() { _ = s.reserve() })
	}
	s.at++
	return s.at
}
