package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/perigee-iot/perigee/drivers"
	"github.com/perigee-iot/perigee/drivers/all"
	"github.com/perigee-iot/perigee/drivers/broker"
	"github.com/perigee-iot/perigee/drivers/mqttclient"
	"github.com/perigee-iot/perigee/gateway/api"
	"github.com/perigee-iot/perigee/gateway/config"
	"github.com/perigee-iot/perigee/gateway/engine"
	"github.com/perigee-iot/perigee/internal/store"
)

// lateMarks passes on what the broker tells about its deliveries: the broker is made before the engine that keeps the marks.
type lateMarks struct{ to atomic.Pointer[engine.Engine] }

// Forget drops marks.
func (l *lateMarks) Forget(session string, marks []string) {
	if e := l.to.Load(); e != nil {
		e.Forget(session, marks)
	}
}

// newBroker makes the local broker: the embedded one, or a client of another.
func newBroker(cfg *config.Config, st *store.Store, marks drivers.Marks, log *slog.Logger) (drivers.Broker, error) {
	b := cfg.Broker
	log = log.With("part", "broker")
	if !b.Embedded() {
		return mqttclient.New(mqttclient.Options{
			URL:          b.URL,
			Username:     b.Username,
			PasswordFile: b.PasswordFile,
			TLS:          mqttclient.TLS{CA: b.TLS.CA, Cert: b.TLS.Cert, Key: b.TLS.Key},
			ClientID:     "perigee-" + cfg.ID,
			Dir:          cfg.DataDir,
			Log:          log,
			Marks:        marks,
		})
	}
	users := map[string]broker.User{}
	for name, u := range b.Users {
		users[name] = broker.User{PasswordFile: u.PasswordFile, Publish: u.Publish, Subscribe: u.Subscribe}
	}
	return broker.New(broker.Options{
		Listen: b.Listen,
		TLS:    broker.TLS{CA: b.TLS.CA, Cert: b.TLS.Cert, Key: b.TLS.Key},
		Users:  users,
		Store:  st,
		Log:    log,
		Marks:  marks,
	})
}

// source is one running source and what people see of it.
type source struct {
	name   string
	cancel context.CancelFunc
	done   chan struct{}

	mu      sync.Mutex
	running bool
	events  int64
	faults  int64
	lastErr string
}

func (s *source) status(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running = err == nil
	if err != nil {
		s.faults++
		s.lastErr = err.Error()
	}
}

// counted is a source whose events are counted.
type counted struct {
	drivers.Source
	as *source
}

// Run runs the source.
func (c counted) Run(ctx context.Context, emit drivers.Emit) error {
	return c.Source.Run(ctx, func(ctx context.Context, d drivers.Delivery) error {
		c.as.mu.Lock()
		c.as.events++
		c.as.mu.Unlock()
		return emit(ctx, d)
	})
}

func (s *source) show() api.SourceStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	return api.SourceStatus{Name: s.name, Connected: s.running, Events: s.events, Faults: s.faults, LastError: s.lastErr}
}

// deviceSet is the devices of the configuration, and the sources that run.
type deviceSet struct {
	log *slog.Logger

	mu      sync.Mutex
	devices drivers.Set
	as      map[string]string // how each was configured, to see what a reload changes
	running map[string]*source
}

// newDevices makes the devices of a configuration without touching hardware yet.
func newDevices(cfg *config.Config, log *slog.Logger) (*deviceSet, error) {
	s := &deviceSet{log: log, running: map[string]*source{}}
	devices, as, err := s.build(cfg, nil, nil)
	s.devices, s.as = devices, as
	return s, err
}

// CheckDevices says all that is wrong with the devices of a configuration beyond what Validate sees: what each kind says of its
// settings. Nothing is opened or started.
func CheckDevices(cfg *config.Config) error {
	_, _, err := (&deviceSet{}).build(cfg, nil, nil)
	return err
}

// build makes the devices of a configuration; those that are configured as before stay the same.
func (s *deviceSet) build(cfg *config.Config, was drivers.Set, wasAs map[string]string) (drivers.Set, map[string]string, error) {
	kinds := map[string]drivers.Kind{}
	for _, k := range all.Kinds() {
		kinds[k.Name] = k
	}
	set, as := drivers.Set{}, map[string]string{}
	var errs []error
	env := drivers.Env{Dir: cfg.Dir, Peer: func(name string) (*drivers.Device, bool) {
		d := s.get(name)
		return d, d != nil
	}}
	for _, name := range slices.Sorted(maps.Keys(cfg.Devices)) {
		c := cfg.Devices[name]
		text, err := json.Marshal(c)
		if err != nil {
			return nil, nil, err
		}
		as[name] = string(text)
		if d := was[name]; d != nil && wasAs[name] == as[name] {
			set[name] = d
			continue
		}
		kind, ok := kinds[c.Kind]
		if !ok {
			errs = append(errs, cfg.At(fmt.Errorf("there is no kind %q", c.Kind), "devices", name, c.Kind))
			continue
		}
		d, err := kind.New(name, c.Node.Decode, env)
		if err != nil {
			errs = append(errs, c.Node.Wrap(err))
			continue
		}
		d.Name, d.Kind = name, c.Kind
		set[name] = d
	}
	errs = append(errs, checkPeers(cfg, set)...)
	if len(errs) > 0 {
		return nil, nil, errors.Join(errs...)
	}
	return set, as, nil
}

func (s *deviceSet) set() drivers.Set {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.devices
}

func (s *deviceSet) get(name string) *drivers.Device {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.devices[name]
}

// startSources runs the broker, the schedule and the devices' sources until Stop.
func (a *App) startSources() {
	a.devices.run(a, "broker", a.broker)
	a.devices.run(a, "schedule", a.schedule)
	for name, d := range a.devices.set() {
		if d.Source != nil {
			a.devices.run(a, "device/"+name, d.Source)
		}
	}
	a.later("sources", func(context.Context) error {
		a.devices.mu.Lock()
		list := slices.Collect(maps.Values(a.devices.running))
		a.devices.mu.Unlock()
		for _, r := range list {
			r.cancel()
		}
		for _, r := range list {
			<-r.done
		}
		return nil
	})
}

// run starts a source.
func (s *deviceSet) run(a *App, name string, src drivers.Source) {
	ctx, cancel := context.WithCancel(context.Background())
	r := &source{name: name, cancel: cancel, done: make(chan struct{})}
	s.mu.Lock()
	s.running[name] = r
	s.mu.Unlock()
	go func() {
		defer close(r.done)
		a.engine.RunSource(ctx, name, counted{src, r}, r.status)
	}()
}

// end stops a source and waits for it.
func (s *deviceSet) end(name string) {
	s.mu.Lock()
	r := s.running[name]
	delete(s.running, name)
	s.mu.Unlock()
	if r != nil {
		r.cancel()
		<-r.done
	}
}

func (s *deviceSet) status() []api.SourceStatus {
	s.mu.Lock()
	list := slices.Collect(maps.Values(s.running))
	s.mu.Unlock()
	out := make([]api.SourceStatus, 0, len(list))
	for _, r := range list {
		out = append(out, r.show())
	}
	slices.SortFunc(out, func(a, b api.SourceStatus) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return out
}

// change makes devices the ones of a configuration: sources of those that went or changed stop before, new ones start
// after the engine knows them.
func (a *App) changeDevices(ctx context.Context, set drivers.Set, as map[string]string) ([]string, error) {
	s := a.devices
	s.mu.Lock()
	was := s.devices
	s.devices, s.as = set, as
	s.mu.Unlock()
	var changed []string
	for name, d := range was {
		if set[name] != d {
			s.end("device/" + name)
			if set[name] == nil {
				changed = append(changed, fmt.Sprintf("device %s removed", name))
			}
		}
	}
	err := a.engine.SetDevices(ctx, set)
	for name, d := range set {
		if was[name] == d {
			continue
		}
		what := "added"
		if was[name] != nil {
			what = "changed"
		}
		changed = append(changed, fmt.Sprintf("device %s %s", name, what))
		if d.Source != nil {
			s.run(a, "device/"+name, d.Source)
		}
	}
	slices.Sort(changed)
	return changed, err
}

// lastReading is what a device said last, for people.
func (a *App) lastReading(d *api.Device) {
	if r, ok := a.engine.LastReading(d.Name); ok {
		d.Fields, d.At = r.Fields, r.At
	}
	if why := a.engine.Unread(d.Name); why != "" {
		d.LastError = "its last message could not be read: " + why
	}
}
