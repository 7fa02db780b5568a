// Package app puts the gateway together. It is the only package that knows all parts: it makes them in the order in which they
// depend on each other, starts and stops them, and carries out what the control API asks for.
//
//	app.go        New, Start, Stop, Run: the life of a gateway
//	deploy.go     functions: found, applied, checked, blocked, removed
//	reload.go     a new configuration, live where that is possible
//	sources.go    what produces events: the broker, devices, schedules
//	control.go    the control API's requests; those about dead letters, and about state and devices, are in deadletters.go and values.go
//	notify.go     what systemd is told
//	backup.go     the store: opened, saved, restored
//	tidy.go       memory that is given back
package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/perigee-iot/perigee/drivers"
	"github.com/perigee-iot/perigee/drivers/schedule"
	"github.com/perigee-iot/perigee/functions/sandbox"
	"github.com/perigee-iot/perigee/gateway/api"
	"github.com/perigee-iot/perigee/gateway/config"
	"github.com/perigee-iot/perigee/gateway/engine"
	"github.com/perigee-iot/perigee/gateway/secrets"
	"github.com/perigee-iot/perigee/internal/memory"
	"github.com/perigee-iot/perigee/internal/store"
	"github.com/perigee-iot/perigee/sync/outbox"
)

// Options of New.
type Options struct {
	Config  *config.Config
	Load    func() (*config.Config, error) // reads the configuration anew, for a reload; nil: there is none
	Version string
	Log     *slog.Logger
	Level   *slog.LevelVar // of Log; nil: it does not change
	Worker  []string       // command of a worker process; nil: this program's "worker"
}

// App is one gateway in this process. New opens what it needs, Start makes it work, Stop ends it.
type App struct {
	opt Options
	log *slog.Logger
	cfg atomic.Pointer[config.Config]

	st       *store.Store
	box      *outbox.Outbox
	broker   drivers.Broker
	marks    *lateMarks
	devices  *deviceSet
	engine   *engine.Engine
	pool     *sandbox.Pool
	schedule *schedule.Schedule
	secrets  *secrets.Set
	links    *links

	deploying sync.Mutex // one change of the functions or the configuration at a time
	problems  problems
	started   time.Time
	ready     atomic.Bool
	failed    chan error // a part that cannot go on; capacity 1
	pauses    chan pause // of functions, by the engine

	undo []step // in the order of New and Start; Stop goes backwards
	once sync.Once
	err  error
}

// step undoes one thing that New or Start did.
type step struct {
	name string
	do   func(ctx context.Context) error
}

// New opens the store and makes the parts. If one cannot be made, what stands is undone as by Stop.
func New(o Options) (*App, error) {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	a := &App{opt: o, log: o.Log, started: time.Now(), failed: make(chan error, 1), pauses: make(chan pause, 64), schedule: schedule.New()}
	a.cfg.Store(o.Config)
	if err := a.build(o.Config); err != nil {
		return nil, errors.Join(err, a.Stop(context.Background()))
	}
	return a, nil
}

// build makes the parts, each after those that it needs.
func (a *App) build(cfg *config.Config) error {
	if err := a.openStore(cfg); err != nil {
		return err
	}
	clock, err := engine.OpenClock(a.st, a.log)
	if err != nil {
		return err
	}
	if err := a.openOutbox(cfg, clock); err != nil {
		return err
	}
	a.marks = &lateMarks{}
	if a.broker, err = newBroker(cfg, a.st, a.marks, a.log); err != nil {
		return err
	}
	if a.devices, err = newDevices(cfg, a.log); err != nil {
		return err
	}
	a.secrets = secrets.Open(secretFiles(cfg), os.Getenv("CREDENTIALS_DIRECTORY"))
	a.noteSecrets()
	a.engine, err = engine.New(engine.Options{
		Secrets:     a.secrets,
		Gateway:     cfg.ID,
		Store:       a.st,
		Clock:       clock,
		Outbox:      a.box,
		Broker:      a.broker,
		Devices:     a.devices.set(),
		Log:         a.log.With("part", "engine"),
		Concurrency: max(1, cfg.Workers.Max-1),
		OnPause:     a.notePause,
	})
	if err != nil {
		return err
	}
	a.marks.to.Store(a.engine)
	a.pool, err = sandbox.New(sandbox.Options{
		Command: a.opt.Worker,
		Max:     cfg.Workers.Max,
		Warm:    cfg.Workers.Warm,
		Idle:    time.Duration(cfg.Workers.Idle),
		Memory:  int64(cfg.Workers.Memory),
		Thrifty: a.st.Stats().Profile == "small",
		Log:     a.log.With("part", "workers"),
		OnRoom:  a.engine.Pump,
	})
	if err != nil {
		return fmt.Errorf("start the pool of workers: %w", err)
	}
	a.later("workers", func(context.Context) error { a.pool.Close(); return nil })
	a.engine.Use(a.pool)
	a.links, err = newLinks(cfg, a.box, a.log)
	return err
}

func (a *App) openStore(cfg *config.Config) error {
	o, err := storeOptions(cfg, a.log.With("part", "store"))
	if err != nil {
		return err
	}
	o.SetAside = true
	st, err := store.Open(cfg.DataDir, o)
	if err != nil {
		return err
	}
	a.st = st
	if st.Stats().Profile == "small" {
		memory.Thrift()
	}
	if dir := st.Stats().SetAside; dir != "" {
		err := damageOf(dir, st.Stats().Salvaged)
		a.log.Error(err.Error())
		a.problems.set("store", err)
	}
	if lost := st.Stats().Lost; lost != "" {
		a.problems.set("store", errors.New(lost))
	}
	a.later("store", func(context.Context) error { return st.Close() })
	return nil
}

func (a *App) openOutbox(cfg *config.Config, clock *engine.Clock) (err error) {
	first := ""
	if len(cfg.Uplinks) > 0 {
		first = cfg.Uplinks[0].Name
	}
	a.box, err = outbox.Open(a.st, outbox.Options{Gateway: cfg.ID, Uplink: first, Streams: streams(cfg),
		Now: func() time.Time { return time.Unix(0, int64(clock.Now())) }, Right: clock.Right, Log: a.log.With("part", "streams")})
	return err
}

// streams is the configuration of the streams, as the outbox wants it.
func streams(cfg *config.Config) map[string]outbox.Config {
	out := map[string]outbox.Config{}
	for name, s := range cfg.Streams {
		linger := time.Duration(s.Batch.Linger)
		if linger == 0 {
			linger = -1
		}
		out[name] = outbox.Config{
			Uplink:   s.Uplink,
			Priority: s.Priority,
			Retain:   outbox.Retain{Bytes: int64(s.Retain.Bytes), Age: time.Duration(s.Retain.Age), Full: s.Retain.Full},
			Batch:    outbox.Limits{Records: s.Batch.Records, Bytes: int(s.Batch.Bytes), Linger: linger},
		}
	}
	return out
}

// later registers how something is undone.
func (a *App) later(name string, do func(ctx context.Context) error) {
	a.undo = append(a.undo, step{name, do})
}

// Start makes the gateway work: functions first, so that what waits for them stands in order before the first source
// opens; then actions and uplinks; then the control API; sources last.
func (a *App) Start(ctx context.Context) error {
	ln, err := api.Listen(a.config().API.Socket)
	if err != nil {
		return err
	}
	a.background("control API", func(ctx context.Context) error { return api.NewServer(a, a.log.With("part", "api")).Serve(ctx, ln) })
	if l, ok := a.broker.(interface {
		Listen(context.Context) error
		Unlisten()
	}); ok {
		if err := l.Listen(ctx); err != nil {
			return err
		}
		a.later("listening", func(context.Context) error { l.Unlisten(); return nil }) // a stop can come before the broker runs
	}
	if err := a.loadFunctions(ctx); err != nil {
		return err
	}
	a.engine.Start(context.WithoutCancel(ctx))
	a.later("engine", func(context.Context) error { a.engine.Stop(); return nil })
	a.links.start(a)
	a.later("running invocations", a.engine.Drain)
	a.startSources()
	a.watchStore()
	a.background("pauses", a.keepPauses)
	a.tidy()
	a.ready.Store(true)
	a.log.Info("the gateway runs", "gateway", a.config().ID, "version", a.opt.Version, "data_dir", a.config().DataDir,
		"socket", a.config().API.Socket, "functions", len(a.engine.Functions()))
	a.engine.Event(ctx, "start")
	return nil
}

// background runs part of the gateway until Stop, which waits for it. If it ends by itself, the gateway cannot go on.
func (a *App) background(name string, run func(ctx context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := run(ctx); err != nil && ctx.Err() == nil {
			a.fail(fmt.Errorf("%s: %w", name, err))
		}
	}()
	a.later(name, func(stop context.Context) error {
		cancel()
		select {
		case <-done:
			return nil
		case <-stop.Done():
			return stop.Err()
		}
	})
}

// fail says that the gateway cannot go on.
func (a *App) fail(err error) {
	select {
	case a.failed <- err:
	default:
	}
}

// watchStore ends the gateway when the store is broken: only a new start can tell what reached the disk.
func (a *App) watchStore() {
	a.background("store", func(ctx context.Context) error {
		select {
		case <-ctx.Done():
			return nil
		case <-a.st.Failed():
			return a.st.Err()
		}
	})
}

// Failed gets the reason why the gateway cannot go on.
func (a *App) Failed() <-chan error { return a.failed }

// config is the configuration in force.
func (a *App) config() *config.Config { return a.cfg.Load() }

// Stop undoes what New and Start did, the last first: sources stop, what runs is committed, then the rest ends. It is
// safe to call twice, and before Start.
func (a *App) Stop(ctx context.Context) error {
	a.once.Do(func() {
		a.ready.Store(false)
		var errs []error
		for i := len(a.undo) - 1; i >= 0; i-- {
			began := time.Now()
			if err := a.undo[i].do(ctx); err != nil {
				errs = append(errs, fmt.Errorf("stop %s: %w", a.undo[i].name, err))
			}
			a.log.Debug("stopped", "part", a.undo[i].name, "took", time.Since(began).Round(time.Millisecond))
		}
		a.err = errors.Join(errs...)
	})
	return a.err
}

// stopWithin bounds a stop: systemd kills after 90 s, a person loses patience before.
const stopWithin = 10 * time.Second

// Run is the whole life of a gateway: until ctx ends, or a part cannot go on. Each value on reload makes it read its
// configuration anew.
func Run(ctx context.Context, o Options, reload <-chan os.Signal) error {
	a, err := New(o)
	if err != nil {
		return err
	}
	stop := func() error {
		notify("STOPPING=1")
		ctx, cancel := context.WithTimeout(context.Background(), stopWithin)
		defer cancel()
		return a.Stop(ctx)
	}
	if err := a.Start(ctx); err != nil {
		return errors.Join(err, stop())
	}
	notify("READY=1")
	for {
		select {
		case <-ctx.Done():
			a.log.Info("the gateway stops")
			return stop()
		case err := <-a.failed:
			a.log.Error("the gateway cannot go on", "error", err)
			return errors.Join(err, stop())
		case <-reload:
			notify("RELOADING=1")
			r, err := a.Reload(ctx)
			if err != nil {
				a.log.Error("the new configuration was not taken over; the old one stays in force", "error", err)
			} else {
				a.log.Info("the configuration was read anew", "changed", r.Changed, "needs_restart", r.Restart)
			}
			notify("READY=1")
		}
	}
}
