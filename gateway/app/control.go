package app

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/perigee-iot/perigee/drivers/broker"
	"github.com/perigee-iot/perigee/drivers/mqttclient"
	"github.com/perigee-iot/perigee/functions/bundle"
	"github.com/perigee-iot/perigee/functions/catalog"
	"github.com/perigee-iot/perigee/functions/state"
	"github.com/perigee-iot/perigee/gateway/api"
	"github.com/perigee-iot/perigee/gateway/config"
	"github.com/perigee-iot/perigee/gateway/engine"
	"github.com/perigee-iot/perigee/internal/store"
	"github.com/perigee-iot/perigee/internal/topic"
)

var _ api.Gateway = (*App)(nil)

// gapsShown is how many gaps status has, at most.
const gapsShown = 10

// Status is the gateway at a glance.
func (a *App) Status(context.Context) (*api.Status, error) {
	cfg, c, ss, ws := a.config(), a.engine.Counts(), a.st.Stats(), a.pool.Stats()
	s := &api.Status{
		Gateway:  cfg.ID,
		Version:  a.opt.Version,
		PID:      os.Getpid(),
		Uptime:   time.Since(a.started),
		Problems: a.problems.list(),
		Events: api.EventCounts{Received: c.Received, Accepted: c.Accepted, Committed: c.Committed, Duplicates: c.Duplicates,
			Faults: c.Faults, Dead: c.Dead, Waiting: c.Waiting, Inbox: c.Inbox, Actions: c.Actions, Repeated: c.Repeated},
		Functions: map[string]int{},
		Store: api.StoreStatus{Dir: cfg.DataDir, Durability: cfg.Store.Durability, Profile: ss.Profile, Bytes: ss.Bytes,
			Free: ss.Free, Groups: ss.Groups, Syncs: ss.Syncs},
		Workers: api.WorkerStatus{Running: ws.Running, Busy: ws.Busy, Max: ws.Max, Started: int64(ws.Started), Killed: int64(ws.Killed),
			StartError: ws.StartError, Layers: layersOf(ws.Layers)},
		Sources: a.devices.status(),
		Losses:  c.Losses,
		Refused: c.Refused,
		Uplinks: a.links.status(),
	}
	gaps, err := a.engine.Gaps(gapsShown)
	if err != nil {
		a.log.Warn("gaps are not shown", "error", err)
	}
	for _, g := range gaps {
		s.Gaps = append(s.Gaps, api.Gap{Function: g.Function, Cause: g.Cause, Events: g.Events, From: g.From, To: g.To})
	}
	for _, f := range a.engine.Functions() {
		s.Functions[string(f.State)]++
	}
	if ss.Full {
		s.Problems = append(s.Problems, diskProblem(ss.Free, cfg))
	}
	s.Broker = api.BrokerStatus{Embedded: cfg.Broker.Embedded(), Connected: a.broker.Connected(), URL: cfg.Broker.URL, Listen: cfg.Broker.Listen}
	switch b := a.broker.(type) {
	case *broker.Broker:
		st := b.Stats()
		s.Broker.Clients = st.Clients
		if st.Dropped > 0 {
			s.Refused["broker: deliveries to clients that did not keep up"] += int64(st.Dropped)
		}
		for cause, n := range st.Refused {
			s.Refused["broker: "+cause] += int64(n)
		}
	case *mqttclient.Client:
		st := b.Status()
		s.Broker.URL, s.Broker.LastError = st.URL, st.LastError
		s.Broker.LostSessions = st.LostSessions
	}
	s.Ready = a.ready.Load() && s.Broker.Connected
	return s, nil
}

// diskProblem is what status says while the store takes nothing more.
func diskProblem(free int64, cfg *config.Config) string {
	return fmt.Sprintf("the disk is nearly full, and nothing new is accepted: %d MiB are free where %s is, and %v must stay free (store.min_free); make room",
		free>>20, cfg.DataDir, cfg.Store.MinFree)
}

// Functions lists the functions by name.
func (a *App) Functions(context.Context) ([]api.Function, error) {
	var out []api.Function
	for _, f := range a.engine.Functions() {
		out = append(out, a.function(f))
	}
	slices.SortFunc(out, func(x, y api.Function) int { return strings.Compare(x.Name, y.Name) })
	return out, nil
}

func (a *App) function(f engine.FunctionInfo) api.Function {
	spec := f.Dep.Bundle.Spec
	out := api.Function{
		Name: f.Name, Description: spec.Description, State: string(f.State), Reason: f.Reason, Origin: f.Dep.Origin,
		Revision: short(f.Dep.Bundle.Digest), Since: f.Dep.Since, Key: spec.Key.Text,
		Runs: f.Runs, OK: f.OK, Faults: f.Faults, LastFault: f.LastFault, Waiting: f.Waiting, Dead: f.Dead,
		P50: f.P50, P99: f.P99, CPU: f.CPU,
	}
	for _, t := range spec.Triggers {
		out.Triggers = append(out.Triggers, t.String())
	}
	_ = a.st.View(func(r store.Reader) error {
		n, err := state.Size(r, f.Name)
		out.StateBytes = n.Bytes
		return err
	})
	return out
}

func (a *App) find(name string) (engine.FunctionInfo, error) {
	var near []string
	for _, f := range a.engine.Functions() {
		if f.Name == name {
			return f, nil
		}
		near = append(near, f.Name)
	}
	slices.Sort(near)
	e := api.Errorf("not-found", "there is no function %q", name)
	if len(near) > 0 {
		e = e.WithHint("there are: %s", strings.Join(near, ", "))
	}
	return engine.FunctionInfo{}, e
}

// Function returns one, with its files.
func (a *App) Function(_ context.Context, name string) (*api.Function, error) {
	f, err := a.find(name)
	if err != nil {
		return nil, err
	}
	out := a.function(f)
	out.Files = map[string]string{}
	for p, data := range f.Dep.Bundle.Files {
		out.Files[p] = string(data)
	}
	out.Permissions = f.Dep.Bundle.Spec.Permissions.Lines()
	_ = json.Unmarshal(f.Dep.Env, &out.Env)
	return &out, nil
}

// Apply checks a bundle and makes it the active revision.
func (a *App) Apply(ctx context.Context, r *api.ApplyRequest) (*api.ApplyResult, error) {
	b, err := bundle.FromFiles(r.Files, r.Name)
	if err != nil {
		return nil, api.Errorf("bad-request", "%v", err)
	}
	a.deploying.Lock()
	defer a.deploying.Unlock()
	res, err := a.deploy(ctx, b, catalog.Applied, r.Take, r.Dry)
	if err == nil && !r.Dry && res.Action != "unchanged" {
		a.log.Info("a function was "+res.Action, "function", res.Name, "revision", res.Revision, "state", res.State, "origin", catalog.Applied)
	}
	return res, err
}

// Remove takes a function away; its state stays unless purge is set.
func (a *App) Remove(ctx context.Context, name string, purge bool) error {
	a.deploying.Lock()
	defer a.deploying.Unlock()
	if _, err := a.find(name); err != nil {
		return err
	}
	if err := a.remove(ctx, name); err != nil {
		return err
	}
	a.log.Info("a function was removed", "function", name, "purge", purge)
	for left := int64(1); purge && left > 0; {
		err := a.st.Update(func(tx store.Tx) (err error) {
			left, err = state.Purge(tx, name, 500)
			return err
		})
		if err != nil {
			return fmt.Errorf("the function is removed, its state is not: %w", err)
		}
	}
	return nil
}

// Pause lets a function's events collect.
func (a *App) Pause(ctx context.Context, name, reason string) error {
	a.deploying.Lock()
	defer a.deploying.Unlock()
	if _, err := a.find(name); err != nil {
		return err
	}
	return a.pausing(ctx, name, func(tx store.Tx) (catalog.Entry, error) {
		return catalog.Pause(tx, name, orElse(reason, "by hand"), false, time.Now().UTC().Truncate(time.Second))
	})
}

// Resume lets it run again. One that is blocked stays so: what blocks it is not that somebody paused it.
func (a *App) Resume(ctx context.Context, name string) error {
	a.deploying.Lock()
	defer a.deploying.Unlock()
	if _, err := a.find(name); err != nil {
		return err
	}
	err := a.pausing(ctx, name, func(tx store.Tx) (catalog.Entry, error) {
		if err := state.Verify(tx, name); err != nil {
			if err := state.Accept(tx, name); err != nil { // somebody has looked at it
				return catalog.Entry{}, err
			}
		}
		return catalog.Resume(tx, name)
	})
	if err != nil {
		return err
	}
	a.problems.set("state "+name, nil)
	if f, err := a.find(name); err == nil && f.State == engine.Blocked {
		return api.Errorf("conflict", "function %s stays blocked: %s", name, f.Reason).
			WithHint("it is not paused, and runs as soon as this gateway has what it needs")
	}
	return nil
}

func (a *App) pausing(ctx context.Context, name string, change func(tx store.Tx) (catalog.Entry, error)) error {
	var e catalog.Entry
	err := a.st.Update(func(tx store.Tx) (err error) {
		tx.Urgent()
		e, err = change(tx)
		return err
	})
	if err == nil {
		err = a.st.Flush(ctx)
	}
	if err != nil {
		return deployError(err)
	}
	f, err := a.find(name)
	if err != nil {
		return err
	}
	return a.install(ctx, e, f.Dep.Bundle)
}

// Invoke runs a function once.
func (a *App) Invoke(ctx context.Context, name string, r *api.InvokeRequest) (*api.Invoked, error) {
	if _, err := a.find(name); err != nil {
		return nil, err
	}
	run := a.engine.Invoke
	if r.Dry {
		run = a.engine.DryRun
	}
	got, err := run(ctx, name, engine.Request{Data: r.Data, Topic: r.Topic, Params: r.Params, Key: r.Key})
	if errors.Is(err, store.ErrFull) {
		return nil, api.Errorf("unavailable", "%v", err).WithHint("make room on the disk, or lower store.min_free")
	}
	if err != nil {
		return nil, api.Errorf("unavailable", "%v", err)
	}
	return invoked(name, got, r.Dry), nil
}

func invoked(name string, got *engine.Report, dry bool) *api.Invoked {
	out := &api.Invoked{Dry: dry, EventID: got.EventID, Outcome: got.Outcome, Result: got.Result, Effects: got.Effects, Fault: got.Fault,
		Wall: got.Usage.Wall, CPU: got.Usage.CPU}
	for _, l := range got.Logs {
		out.Logs = append(out.Logs, api.LogLine{Time: time.Now().UTC(), Function: name, Level: l.Level, Text: l.Text, EventID: got.EventID})
	}
	return out
}

// follow passes on what is there and, if more is not nil, what comes, until ctx or the follower ends.
func follow[T any](ctx context.Context, past []T, more <-chan T, emit func(T) error) error {
	for _, x := range past {
		if err := emit(x); err != nil {
			return err
		}
	}
	for more != nil {
		select {
		case <-ctx.Done():
			return nil
		case x := <-more:
			if err := emit(x); err != nil {
				return err
			}
		}
	}
	return nil
}

// Logs passes on a function's log.
func (a *App) Logs(ctx context.Context, q api.LogQuery, emit func(api.LogLine) error) error {
	if _, err := a.find(q.Function); err != nil && q.Function != "" {
		return err
	}
	past, more, stop := a.engine.Logs(q.Function, limit(q.Limit), q.Follow)
	defer stop()
	return follow(ctx, past, more, func(l engine.LogLine) error {
		if l.Function == "" || (q.Function != "" && l.Function != q.Function) {
			return nil
		}
		return emit(api.LogLine{Time: l.Time, Function: l.Function, Revision: short(l.Revision), Level: l.Level, Text: l.Text, EventID: l.EventID, Fault: l.Fault})
	})
}

func limit(n int) int {
	if n <= 0 {
		return 100
	}
	return n
}

// Events passes on events and what they caused.
func (a *App) Events(ctx context.Context, q api.EventQuery, emit func(api.Life) error) error {
	if q.Topic != "" {
		if err := topic.CheckFilter(q.Topic); err != nil {
			return api.Errorf("bad-request", "--topic: %v", err)
		}
	}
	past, more, stop := a.engine.Lives(math.MaxInt, q.Follow)
	defer stop()
	other := func(l engine.Life) bool {
		return l.ID == "" || (q.Topic != "" && !topic.Match(q.Topic, l.Subject)) ||
			(q.Function != "" && !slices.ContainsFunc(l.Outcomes, func(o engine.LifeOutcome) bool { return o.Function == q.Function }))
	}
	past = slices.DeleteFunc(past, other)
	if len(past) == 0 && q.Function != "" { // one that was removed may still have events
		if _, err := a.find(q.Function); err != nil {
			return err
		}
	}
	return follow(ctx, past[max(0, len(past)-limit(q.Limit)):], more, func(l engine.Life) error {
		if other(l) {
			return nil
		}
		return emit(life(l))
	})
}

// EventCase makes a test case of what a function did with an event.
func (a *App) EventCase(ctx context.Context, id, function string) (*api.EventCase, error) {
	if function != "" {
		if _, err := a.find(function); err != nil {
			return nil, err
		}
	}
	r, err := a.engine.Record(ctx, id, function)
	if errors.Is(err, engine.ErrNoRecord) {
		return nil, api.Errorf("not-found", "%v", err).WithHint("the newest events are: perigee events")
	}
	if err != nil {
		return nil, err
	}
	text, err := r.File(a.secrets.Mask)
	if err != nil {
		return nil, api.Errorf("bad-request", "%v", err)
	}
	return &api.EventCase{Function: r.Inv.Function, Revision: short(r.Bundle.Digest), Event: r.Inv.Event.ID, Text: string(text)}, nil
}

// Record passes on a recording of what happens from now on.
func (a *App) Record(ctx context.Context, q api.RecordQuery, emit func(json.RawMessage) error) error {
	if q.Function != "" {
		if _, err := a.find(q.Function); err != nil {
			return err
		}
	}
	o := engine.RecordOptions{Function: q.Function, Key: q.Key, For: q.For, Bytes: q.Bytes, Invocations: q.Invocations, Version: a.opt.Version}
	err := a.engine.RecordWindow(ctx, o, func(line []byte) error { return emit(bytes.TrimSpace(line)) })
	if errors.Is(err, engine.ErrRecording) {
		return api.Errorf("bad-request", "%v", err)
	}
	return err
}

// Config is the configuration in force.
func (a *App) Config(context.Context) (json.RawMessage, error) { return a.config().Redacted() }
