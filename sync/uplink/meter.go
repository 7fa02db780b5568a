package uplink

import "time"

// meter tells how fast records come and go, from samples at least a second apart of the last ten or so.
type meter struct {
	samples [12]sample
	n       int
}

type sample struct {
	at              time.Time
	acked, appended int64
}

// due says whether it is time for another sample.
func (m *meter) due(now time.Time) bool {
	return m.n == 0 || now.Sub(m.samples[m.n-1].at) >= time.Second
}

// sample records the counters as they are now. One that comes too early replaces the last.
func (m *meter) sample(now time.Time, acked, appended int64) {
	s := sample{now, acked, appended}
	switch {
	case m.n > 1 && now.Sub(m.samples[m.n-2].at) < time.Second:
		m.samples[m.n-1] = s
		return
	case m.n == len(m.samples):
		copy(m.samples[:], m.samples[1:])
		m.n--
	}
	m.samples[m.n] = s
	m.n++
}

// rate returns the records acknowledged a second, and how long until the ones that wait are gone if it goes on like
// that; negative if they do not get fewer.
func (m *meter) rate(waiting int64) (perSecond float64, drain time.Duration) {
	if m.n >= 2 {
		a, b := m.samples[0], m.samples[m.n-1]
		for i := 0; i < m.n-2 && b.at.Sub(a.at) > 15*time.Second; i++ {
			a = m.samples[i+1]
		}
		if d := b.at.Sub(a.at).Seconds(); d > 0 {
			perSecond = float64(b.acked-a.acked) / d
			drain = -1
			if net := perSecond - float64(b.appended-a.appended)/d; net > 0 {
				drain = time.Duration(min(float64(waiting)/net, 1e9) * float64(time.Second))
			}
		}
	}
	switch {
	case waiting == 0:
		drain = 0
	case drain == 0:
		drain = -1
	}
	return perSecond, drain
}

// shrinker makes batches smaller while none gets through: a broker may cut the connection at a message that is too
// large for it, and a slow line may never finish one in time.
type shrinker struct {
	q  Queue
	by int
	ok int // acknowledgements since the last change
	no int // sessions in a row without one
}

const (
	shrinkMost  = 128
	shrinkAfter = 3 // sessions: a connection may break for other reasons
)

func newShrinker(q Queue) *shrinker { return &shrinker{q: q, by: 1} }

// failed notes a session in which batches were sent and none was acknowledged.
func (s *shrinker) failed() {
	if s.no++; s.no >= shrinkAfter && s.by < shrinkMost {
		s.set(2 * s.by)
	}
}

// worked notes an acknowledgement; many of them make batches larger again.
func (s *shrinker) worked() {
	s.no = 0
	if s.ok++; s.by > 1 && s.ok >= 256 {
		s.set(s.by / 2)
	}
}

func (s *shrinker) set(by int) {
	s.by, s.ok = by, 0
	s.q.Shrink(by)
}
