// Package engine carries one event from its source to its effects. The walk, step by step, with a file for each:
//
//	intake.go     Offer: limits, identity, duplicates; which functions does it match?
//	inbox.go      what cannot be acknowledged by an outcome soon is stored, and acknowledged by that
//	dispatch.go   lanes: per function and key in order, one at a time, as the pool of workers has room
//	commit.go     every effect is checked, and what the invocation decided becomes one update of the store
//	actions.go    publishes, device writes and HTTP calls (webcalls.go) in the journal; targets.go carries them out, in order per target, after their group is durable
//
// Beside it stand which functions there are and what they act on (install.go, invoke.go, routes.go, plant.go, ports.go); what tells
// one event from another that came before (delivery.go, marks.go, seen.go, dedupe.go); retries and timers (wheel.go, timers.go), deadletters.go,
// the gateway's clock (clock.go), and what people see of it all: lives.go, logs.go, stats.go, losses.go. What a function would do is said by
// dryrun.go, and what it did, to be played again, by records.go and recorder.go.
//
// # Who waits for whom
//
// An event is matched by the goroutine of its source, which also hands it to a worker if one is free. The worker's
// outcome arrives in a goroutine of the pool, which commits it and dispatches what comes next. Acknowledgements and
// actions start where the store commits the group: in its committer, or under Crash in the goroutine that hurried it.
// There is no goroutine per event.
//
// # When a group of the store is dropped
//
// What was in it, or may have read from it, runs again, in order. An outcome that is lost takes its event back to its lane, and raises
// the lane's gen: what was dispatched there since is stale and comes back, too, and nothing is dispatched until all of it stands in the queue
// again. An invocation that began before any drop is stale, whatever it read. Both are decided in the update that would commit the outcome, and
// the store begins none before all have heard of a drop. What is kept in memory beside the keys changes when its update joins a group
// and changes back when that is dropped (OnJoin, OnFail), so that a job is never stored, or done, in memory alone.
//
// # Locks
//
// Engine.mu guards lanes, functions and routes. It is never held during a call of the store's Update, of the pool or
// a driver. Functions run by Update hold the store's writer lock and never take Engine.mu; those given to OnJoin hold a lock
// of the store and take at most that of a small thing: a target, or what dedupe has seen.
package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/perigee-iot/perigee/drivers"
	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/functions/rules"
	"github.com/perigee-iot/perigee/functions/sandbox"
	"github.com/perigee-iot/perigee/functions/usage"
	"github.com/perigee-iot/perigee/gateway/webcall"
	"github.com/perigee-iot/perigee/internal/event"
	"github.com/perigee-iot/perigee/internal/retry"
	"github.com/perigee-iot/perigee/internal/store"
	"github.com/perigee-iot/perigee/sync/outbox"
)

// Pool runs invocations; functions/sandbox has the real one.
type Pool interface {
	Submit(jobs ...sandbox.Job)
	Room() int
	Takes(b *functions.Bundle) bool
}

// Options of New. All but the bounds are required; a zero bound means its default.
type Options struct {
	Gateway string // the gateway's id
	Store   *store.Store
	Clock   *Clock
	Outbox  *outbox.Outbox
	Broker  drivers.Broker
	Devices drivers.Set
	Prefix  string                                  // under which functions may not publish; "perigee"
	OnPause func(function, revision, reason string) // the engine has paused a function for its faults; must not block; may be nil
	Log     *slog.Logger
	Secrets Secrets         // nil: there are none
	Web     webcall.Options // of HTTP calls

	MaxPayload  int           // bytes of an event's data; 256 KiB
	MaxMemory   int64         // bytes of events that wait without an inbox entry; 8 MiB
	SpillAfter  time.Duration // how long an acknowledgement is held before the event goes to the inbox; 250 ms
	RedoAfter   time.Duration // the pause before what a full or failing disk refused or lost runs again; 1 s
	Concurrency int           // invocations at once of a function that is slow or new; 1
	MaxChain    int           // functions that may follow from one another; 16
	MaxJournal  int           // actions waiting for one target, beyond which its functions wait; 1000
	MaxWebBytes int           // bytes of one function's HTTP calls waiting for one origin, likewise; 4 MiB
	MaxDead     int           // dead letters kept for one function; 1000
	Lives       int           // events remembered for people; 1000
}

func (o *Options) defaults() {
	def := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	def(&o.MaxPayload, 256<<10)
	def(&o.Concurrency, 1)
	def(&o.MaxChain, rules.MaxChain)
	def(&o.MaxJournal, 1000)
	def(&o.MaxWebBytes, 4<<20)
	def(&o.MaxDead, 1000)
	def(&o.Lives, 1000)
	if o.Secrets == nil {
		o.Secrets = noSecrets{}
	}
	if o.Prefix == "" {
		o.Prefix = functions.OwnTopics
	}
	if o.MaxMemory == 0 {
		o.MaxMemory = 8 << 20
	}
	if o.SpillAfter == 0 {
		o.SpillAfter = 250 * time.Millisecond
	}
	if o.RedoAfter == 0 {
		o.RedoAfter = time.Second
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
}

// Engine is the path of events. Make one with New, give it its pool and functions, Start it, and offer it events.
type Engine struct {
	opt       Options
	log       *slog.Logger
	st        *store.Store
	pool      Pool
	clock     *Clock
	seq       *sequence
	lives     *lives
	records   records
	recorders recorders
	logs      *logs
	counts    counts
	losses    *losses
	gaps      lastGaps
	marks     *marks
	usage     *usage.Book
	echoes    echoes

	wheel *wheel
	plant *plant

	subscribing sync.Mutex // one change of the subscriptions at a time; taken before mu

	mu        sync.Mutex
	fns       map[string]*function
	routes    *routes
	ready     []*function // functions with a lane that could run, in turn
	held      heldList    // jobs in memory only, oldest first
	heldSize  int64
	room      *sync.Cond    // of mu: heldSize has shrunk, or the engine stops
	spillSaid time.Duration // when the log said last that nothing can be stored
	spillAt   *entry        // the wheel's entry that will spill the oldest, if any
	pumping   bool
	pumpMore  bool
	started   bool // before that nothing runs: an outcome could be for a function that is not installed yet
	stopping  bool

	readings readings
	marked   markedDeliveries
	nextInv  atomic.Uint64

	runners sync.WaitGroup
	stop    context.CancelFunc
}

// New makes an engine over an open store and loads what the last run left there: the clock, the inbox, timers and the
// journal. Nothing runs before Start.
func New(o Options) (*Engine, error) {
	o.defaults()
	wheel := newWheel(o.Clock.Now)
	seq, err := openSequence(o.Store, func(fn func()) { wheel.add(0, fn) })
	if err != nil {
		return nil, err
	}
	e := &Engine{
		opt:    o,
		log:    o.Log,
		st:     o.Store,
		clock:  o.Clock,
		wheel:  wheel,
		seq:    seq,
		lives:  newLives(o.Lives, o.Secrets, o.Clock),
		logs:   newLogs(o.Clock),
		fns:    map[string]*function{},
		routes: newRoutes(),
	}
	e.room = sync.NewCond(&e.mu)
	e.clock.tell(func() { wheel.add(0, e.keepBoots) })
	if e.marks, err = openMarks(o.Store); err != nil {
		return nil, err
	}
	if e.losses, err = openLosses(o.Store, e.Later); err != nil {
		return nil, err
	}
	if e.usage, err = openUsage(o); err != nil {
		return nil, err
	}
	e.plant = newPlant(e, o.Broker, o.Devices)
	e.routes = build(nil, o.Devices)
	if err := e.loadJournal(); err != nil {
		return nil, err
	}
	return e, nil
}

// Use gives the engine the pool that runs its functions; it comes after New since a pool reports room to its engine.
func (e *Engine) Use(p Pool) { e.pool = p }

// Start begins to run what waits, to carry out actions and to fire timers. Sources are run by RunSource.
func (e *Engine) Start(ctx context.Context) {
	ctx, e.stop = context.WithCancel(ctx)
	e.plant.start(ctx)
	e.runners.Add(1)
	go func() {
		defer e.runners.Done()
		e.wheel.run(ctx)
	}()
	e.runners.Go(func() { e.foldUsage(ctx) })
	e.wheel.add(e.clock.Now()+clockPersist, e.persistClock)
	e.mu.Lock()
	e.started = true
	e.mu.Unlock()
	e.pump()
}

// Drain stops the dispatch of what waits and returns when every invocation that runs has been committed, or ctx ends.
func (e *Engine) Drain(ctx context.Context) error {
	e.mu.Lock()
	e.stopping = true
	e.room.Broadcast()
	e.mu.Unlock()
	for {
		e.mu.Lock()
		running := 0
		for _, f := range e.fns {
			running += f.running
		}
		e.mu.Unlock()
		if running == 0 {
			return e.st.Flush(ctx)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d invocations still run: %w", running, ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// Stop ends the engine's goroutines and waits for them. What waits stays in the inbox or with its source.
func (e *Engine) Stop() {
	e.plant.rest()
	if e.stop != nil {
		e.stop()
	}
	e.runners.Wait()
	e.plant.wg.Wait()
	e.foldNow()
	if err := e.st.Update(func(tx store.Tx) error { e.clock.put(tx); return nil }); err != nil {
		e.log.Debug("the clock was not stored at the end", "error", err)
	}
}

// Clock is the gateway's clock.
func (e *Engine) Clock() *Clock { return e.clock }

// RunSource runs a source until ctx ends, again and again with a back-off when it fails. status hears of every change:
// nil when the source runs, its error when it has ended.
func (e *Engine) RunSource(ctx context.Context, name string, s drivers.Source, status func(err error)) {
	const first, most = 500 * time.Millisecond, 30 * time.Second
	back := retry.Backoff{First: first, Max: most}
	for ctx.Err() == nil {
		began := time.Now()
		status(nil)
		err := s.Run(ctx, e.Offer)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			err = errors.New("it ended without an error")
		}
		status(err)
		if time.Since(began) > most {
			back.Reset()
		}
		pause := back.Next()
		e.log.Warn("a source stopped and will be tried again", "source", name, "error", err, "in", pause.Round(time.Millisecond))
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// stamp fills in what the gateway knows better than the source: identity, sequence and time.
func (e *Engine) stamp(ev *event.Event) {
	ev.Seq = e.seq.next()
	if ev.Time.IsZero() {
		ev.Time, ev.Mono, ev.TimeOK = e.clock.look()
		ev.Boot = e.clock.Boot()
	}
	if ev.ID == "" {
		ev.ID = fmt.Sprintf("%s-%x", e.st.Epoch()[:8], ev.Seq)
	}
}
