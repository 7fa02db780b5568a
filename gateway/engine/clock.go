package engine

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/perigee-iot/perigee/internal/store"
	"github.com/perigee-iot/perigee/internal/wire"
)

// Clock is the gateway's own clock: it never jumps and never goes back, whatever the wall clock does. Within a boot of
// the machine it is monotonic time; at the next boot it goes on from the last value that was stored, so that the time
// in which the box was off does not count. Durable deadlines (retries, timers) are points on it.
type Clock struct {
	base  time.Duration // its value at start
	start time.Time
	boot  uint32
	bootS string

	mu     sync.Mutex
	synced bool
	asked  time.Time
}

// clockPersist is how often the clock is stored while something waits for it: the most that a deadline can be late
// after a power cut.
const clockPersist = time.Minute

var clockKey = store.NewKey(store.Meta).String("clock")

// OpenClock carries the gateway's clock on from what the store has of it.
func OpenClock(st *store.Store, log *slog.Logger) (*Clock, error) {
	c := &Clock{start: time.Now(), boot: 1, bootS: bootID()}
	err := st.View(func(r store.Reader) error {
		v, ok, err := r.Get(clockKey)
		if err != nil || !ok {
			return err
		}
		w := wire.NewReader(v)
		was, n, gw, up := w.String(), w.Uint(), time.Duration(w.Int()), time.Duration(w.Int())
		if err := w.Done(); err != nil {
			log.Warn("the stored clock is damaged and starts anew; waiting retries and timers may be early", "error", err)
			return nil
		}
		c.boot, c.base = uint32(n), gw
		if was == c.bootS {
			c.base += max(0, uptime()-up)
		} else {
			c.boot++
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the gateway's clock: %w", err)
	}
	return c, st.Update(func(tx store.Tx) error { c.put(tx); return nil })
}

// put stores the clock's present value.
func (c *Clock) put(tx store.Tx) {
	w := wire.NewWriter(nil)
	w.String(c.bootS)
	w.Uint(uint64(c.boot))
	w.Int(int64(c.Now()))
	w.Int(int64(uptime()))
	tx.Put(clockKey, w.Data())
}

// Now is the gateway's time, counted from its first start.
func (c *Clock) Now() time.Duration { return c.base + time.Since(c.start) }

// Mono is the time since the machine's boot, as near as it is known.
func (c *Clock) Mono() time.Duration { return uptime() }

// Boot counts the machine's boots, from 1.
func (c *Clock) Boot() uint32 { return c.boot }

// Wall is the wall clock and whether the kernel says that it is synchronised.
func (c *Clock) Wall() (time.Time, bool) {
	now := time.Now().UTC().Truncate(time.Millisecond)
	c.mu.Lock()
	defer c.mu.Unlock()
	if mono := time.Now(); mono.Sub(c.asked) > 5*time.Second {
		c.asked = mono
		c.synced = clockSynced()
	}
	return now, c.synced
}

// clockSynced asks the kernel, as every time daemon tells it.
func clockSynced() bool {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	return err == nil && state != unix.TIME_ERROR
}

func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

func uptime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

// persistClock stores the clock while something waits for it, and comes again.
func (e *Engine) persistClock() {
	if e.wheel.len() > 0 {
		if err := e.st.Update(func(tx store.Tx) error { e.clock.put(tx); return nil }); err != nil {
			e.log.Debug("the clock was not stored", "error", err)
		}
	}
	e.wheel.add(e.clock.Now()+clockPersist, e.persistClock)
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
