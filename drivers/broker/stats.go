package broker

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// cause is why something was turned away.
type cause int

const (
	refusedAuth     cause = iota // user or password
	refusedACL                   // not in the user's lists, or under the prefix
	refusedSize                  // payload above the limit
	refusedTopic                 // not UTF-8, NUL, wildcards, too many levels
	refusedGateway               // by the gateway, for good
	refusedClients               // too many connections
	refusedProtocol              // against the protocol
	refusedRetained              // no room for another retained message: delivered, not kept
	refusedSession               // sessions forgotten to make room for others
	refusedStore                 // could not be stored
	causes
)

// String is the name under which Stats counts.
func (c cause) String() string {
	return [...]string{"auth", "acl", "size", "topic", "gateway", "clients", "protocol", "retained", "session", "store"}[c]
}

type counters struct {
	refused [causes]atomic.Uint64
	dropped atomic.Uint64
	taken   atomic.Uint64
}

// Stats is the broker in numbers. Counters are of this process.
type Stats struct {
	Clients  int               // connected now
	Sessions int               // known, connected or not
	Retained int               // messages
	Pending  int               // messages that wait to be accepted or stored, and answered
	Taken    uint64            // events that the gateway took
	Refused  map[string]uint64 // what was turned away, by cause: auth, acl, size, topic, gateway, clients, protocol, retained, session, store
	Dropped  uint64            // deliveries to clients that did not keep up
}

// Stats returns the present numbers.
func (b *Broker) Stats() Stats {
	st := Stats{Refused: map[string]uint64{}, Dropped: b.count.dropped.Load(), Taken: b.count.taken.Load()}
	for c := range causes {
		if n := b.count.refused[c].Load(); n > 0 {
			st.Refused[c.String()] = n
		}
	}
	if s := b.serving(); s != nil {
		st.Clients = int(atomic.LoadInt64(&s.mqtt.Info.ClientsConnected))
		st.Sessions = s.mqtt.Clients.Len()
		st.Retained = s.retained.len()
		st.Pending = s.line.pending()
		st.Dropped += uint64(atomic.LoadInt64(&s.mqtt.Info.MessagesDropped) + atomic.LoadInt64(&s.mqtt.Info.InflightDropped))
	}
	return st
}

// refuse counts, and logs at most one of a kind a minute: whoever is turned away tends to come back at once.
func (b *Broker) refuse(c cause, who, msg string, args ...any) {
	b.count.refused[c].Add(1)
	if n, ok := b.slow.allow(c.String() + "\x00" + who); ok {
		if n > 0 {
			args = append(args, "same_since_last", n)
		}
		b.log.Warn("broker: "+msg, args...)
	}
}

// limiter lets one of a kind through a minute and counts the others.
type limiter struct {
	mu   sync.Mutex
	last map[string]*held
}

type held struct {
	at time.Time
	n  int
}

const (
	limiterEvery = time.Minute
	limiterKinds = 512
)

func newLimiter() *limiter { return &limiter{last: map[string]*held{}} }

func (l *limiter) allow(kind string) (suppressed int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	h := l.last[kind]
	if h == nil {
		if len(l.last) >= limiterKinds {
			clear(l.last)
		}
		l.last[kind] = &held{at: now}
		return 0, true
	}
	if now.Sub(h.at) < limiterEvery {
		h.n++
		return 0, false
	}
	suppressed, h.n, h.at = h.n, 0, now
	return suppressed, true
}

// quiet turns everything that mochi logs into debug lines, without packets, which can hold passwords.
type quiet struct{ slog.Handler }

func (q quiet) Enabled(ctx context.Context, _ slog.Level) bool {
	return q.Handler.Enabled(ctx, slog.LevelDebug)
}

func (q quiet) Handle(ctx context.Context, r slog.Record) error {
	out := slog.NewRecord(r.Time, slog.LevelDebug, "mqtt: "+r.Message, r.PC)
	r.Attrs(func(a slog.Attr) bool {
		if a.Key != "pk" && a.Key != "packet" && a.Key != "will" {
			out.AddAttrs(a)
		}
		return true
	})
	return q.Handler.Handle(ctx, out)
}

func (q quiet) WithAttrs(as []slog.Attr) slog.Handler { return quiet{q.Handler.WithAttrs(as)} }

func (q quiet) WithGroup(name string) slog.Handler { return quiet{q.Handler.WithGroup(name)} }
