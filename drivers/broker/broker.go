// Package broker is the embedded MQTT broker: mochi-mqtt with the promises that the gateway makes to those who publish.
//
// # The way of a message
//
// What a client publishes with QoS 1 or 2 never reaches mochi's own inbound machinery. The broker takes it when the
// packet has been read, checks it, and puts it at the end of the line of its session. If functions want the topic,
// it is emitted to the gateway and waits there until the gateway has accepted it for good; otherwise it is settled
// at once. From the head of the line what is settled goes on, in order: to the retained messages, to the
// other clients, and then, and only then, its PUBACK or PUBREC is written. Where it joined the queue of a persistent session, that
// waits until the store has it, or the subscriber does. So an acknowledgement means that
// the gateway has the event, and a gateway that dies has acknowledged nothing that it does not have.
//
// A repetition of a packet that still waits is not taken again; the connection that repeated it gets the answer. The
// line of a session is bounded: where it is full, the client is not read. A stalled gateway costs a stalled
// client and a bounded amount of memory.
//
// QoS 0 goes mochi's way, and is emitted on it. Wills are emitted too. Deliveries to other clients are best
// effort: bounded queues in memory, with a counter for what they turned away.
//
// # Why not mochi's inbound QoS
//
// It acknowledges before it delivers. Besides, it keeps the packet ids of both directions in one table, so that a client's
// publish can erase a message that is on its way to that client. With inbound ids out of that table, and
// the mends in mend.go, what is left of mochi is its good part: protocol, sessions, subscriptions, retained messages.
//
// # What survives
//
// Retained messages and the persistent sessions with their queues are in the store, written shortly after they changed; of retained
// messages and of QoS 0 a power cut takes the last moments. What joined the queue of a persistent session is stored before its publisher has the
// acknowledgement, what the gateway publishes before its receipt says that it is done, and acknowledged events are the gateway's: all
// three have its promises.
package broker

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/perigee-iot/perigee/drivers"
	"github.com/perigee-iot/perigee/internal/store"
	"github.com/perigee-iot/perigee/internal/topic"
)

// Defaults of Options.
const (
	DefaultMaxPayload = 256 << 10
	DefaultMaxClients = 256
	DefaultPrefix     = "perigee"
)

// Options of New. The zero value of a field means the default given with it.
type Options struct {
	// Listen is where clients connect: "tcp://127.0.0.1:1883", "tls://0.0.0.0:8883", "unix:///run/perigee/mqtt.sock".
	// Default: tcp://127.0.0.1:1883.
	Listen []string
	// TLS is for tls:// listeners.
	TLS TLS
	// Users by name. Without any, clients are anonymous and only loopback and Unix sockets are served.
	Users map[string]User
	// Prefix is the first level of the gateway's own topics, which clients without a user can neither publish to nor read.
	Prefix string
	// Store keeps retained messages and sessions; nil: they end with the process.
	Store *store.Store
	// MaxPayload is the largest payload taken, in bytes; 256 KiB.
	MaxPayload int
	// MaxClients is how many may be connected at once; 256.
	MaxClients int
	// Log; slog.Default().
	Log *slog.Logger
	// Marks is told which deliveries cannot be repeated any more; nil: nobody.
	Marks drivers.Marks
}

// Broker is the embedded broker. Its methods may be called from any goroutine.
type Broker struct {
	opts  Options
	log   *slog.Logger
	users users
	count counters
	slow  *limiter

	want atomic.Pointer[wanted] // what functions want

	mu      sync.Mutex
	now     *serving // between Listen and the end of Run
	running bool
	fresh   []string // filters whose retained messages have not been emitted yet
	wake    chan struct{}
}

var _ drivers.Broker = (*Broker)(nil)

// New checks the options and reads the password files. It opens nothing else.
func New(opts Options) (*Broker, error) {
	if len(opts.Listen) == 0 {
		opts.Listen = []string{"tcp://127.0.0.1:1883"}
	}
	if opts.Prefix == "" {
		opts.Prefix = DefaultPrefix
	}
	if opts.MaxPayload <= 0 {
		opts.MaxPayload = DefaultMaxPayload
	}
	if opts.MaxClients <= 0 {
		opts.MaxClients = DefaultMaxClients
	}
	if opts.Log == nil {
		opts.Log = slog.Default()
	}
	us, err := loadUsers(opts.Users, opts.Log)
	if err != nil {
		return nil, err
	}
	for _, l := range opts.Listen {
		if _, _, err := splitListen(l); err != nil {
			return nil, err
		}
	}
	b := &Broker{opts: opts, log: opts.Log, users: us, slow: newLimiter(), wake: make(chan struct{}, 1)}
	b.want.Store(newWanted(nil))
	return b, nil
}

// Listen binds the listeners and loads what the store has, so that a start that cannot work fails early. Clients
// are served from Run on. Calling it again before Run has ended does nothing.
func (b *Broker) Listen(ctx context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.now != nil {
		return nil
	}
	s, err := newServing(ctx, b)
	if err != nil {
		return err
	}
	b.now = s
	return nil
}

// Unlisten lets go of what Listen has bound, if Run never came to serve it. It must not be called while Run runs.
func (b *Broker) Unlisten() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.now != nil {
		b.now.unbind()
		b.now = nil
	}
}

// Addr is the address of the first listener, "127.0.0.1:1883", or "" while there is none.
func (b *Broker) Addr() string {
	if s := b.serving(); s != nil {
		return s.listeners[0].Address()
	}
	return ""
}

func (b *Broker) serving() *serving {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.now
}

// Run serves clients until ctx ends, and then closes them; it listens first, if Listen was not called. A Broker can
// be run again afterwards. Deliveries are emitted from the goroutine that reads the publishing client: where emit
// blocks, that client alone is not read. The context that emit gets ends with that client's connection, too: emit
// then returns an error and has not taken the delivery, which the client will send again.
func (b *Broker) Run(ctx context.Context, emit drivers.Emit) error {
	if err := b.Listen(ctx); err != nil {
		return err
	}
	s := b.serving()
	err := s.start(ctx, emit)
	if err == nil {
		b.mu.Lock()
		b.running, b.fresh = true, slices.Clone(b.want.Load().filters)
		b.mu.Unlock()
		err = b.announce(ctx, s)
	}
	b.mu.Lock()
	b.running = false
	b.mu.Unlock()
	s.stop()
	b.mu.Lock()
	b.now = nil
	b.mu.Unlock()
	return err
}

// announce emits the retained messages of new filters as they come, until ctx ends.
func (b *Broker) announce(ctx context.Context, s *serving) error {
	for {
		b.mu.Lock()
		fresh := b.fresh
		b.fresh = nil
		b.mu.Unlock()
		if err := s.emitRetained(ctx, fresh); err != nil && ctx.Err() == nil {
			return fmt.Errorf("retained messages for functions: %w", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-b.wake:
		}
	}
}

// Subscribe makes filters what functions want. The retained messages that match new ones are emitted by Run, each
// once, marked as retained and without Ack. While the broker is not running the set is kept and the error wraps
// drivers.ErrNotConnected. Filters may overlap; a message is emitted once, with the QoS of its sender: a filter's own
// QoS does not matter here.
func (b *Broker) Subscribe(_ context.Context, filters []drivers.Filter) error {
	for _, f := range filters {
		if err := topic.CheckFilter(f.Topic); err != nil {
			return fmt.Errorf("subscribe to %q: %w", f.Topic, err)
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	old := b.want.Load()
	w := newWanted(filters)
	b.want.Store(w)
	if !b.running {
		return fmt.Errorf("the broker is not running yet: %w", drivers.ErrNotConnected)
	}
	for _, t := range w.filters {
		if !old.has(t) {
			b.fresh = append(b.fresh, t)
		}
	}
	if len(b.fresh) > 0 {
		select {
		case b.wake <- struct{}{}:
		default:
		}
	}
	return nil
}

// Publish hands a message to the clients that subscribed to it, and retains it if asked. It carries m.ID as the MQTT 5
// user property "id". It does not come back through Run. The receipt's Wait returns nil when the message is delivered as
// far as the broker can: what has become of it in persistent sessions and retained messages is in an update of the
// store, which is at once if it changed nothing there. What is stored later is not durable before it. If the
// broker stops first the error wraps drivers.ErrNotConnected.
func (b *Broker) Publish(_ context.Context, m drivers.Message) (drivers.Receipt, error) {
	s := b.serving()
	if s == nil {
		return nil, fmt.Errorf("publish to %q: the broker does not listen: %w", m.Topic, drivers.ErrNotConnected)
	}
	if err := checkName(m.Topic); err != nil {
		return nil, fmt.Errorf("publish to %q: %w", m.Topic, err)
	}
	if len(m.Payload) > b.opts.MaxPayload {
		return nil, fmt.Errorf("publish to %q: %d bytes where the broker takes at most %d", m.Topic, len(m.Payload), b.opts.MaxPayload)
	}
	stored, err := s.publish(m)
	if err != nil {
		return nil, fmt.Errorf("publish to %q: %w", m.Topic, err)
	}
	return receipt{stored}, nil
}

// receipt waits for what a publish changed to be stored; nil: nothing.
type receipt struct{ stored *batch }

// Wait waits for it, or for ctx or the broker to end.
func (r receipt) Wait(ctx context.Context) error {
	if r.stored == nil {
		return nil
	}
	select {
	case <-r.stored.done:
		return r.stored.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Connected says whether clients are served.
func (b *Broker) Connected() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.running
}

// InProcess is true: the engine routes what it publishes itself.
func (b *Broker) InProcess() bool { return true }
