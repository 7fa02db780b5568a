package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/perigee-iot/perigee/drivers"
	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/internal/event"
	"github.com/perigee-iot/perigee/internal/store"
)

// State is what a function may do now.
type State string

const (
	Active  State = "active"
	Paused  State = "paused"  // its events collect in its share of the inbox
	Blocked State = "blocked" // it names something that the gateway lacks, and runs on no events
)

// Deployment is one revision of a function as this gateway runs it. It does not change; a new one takes its place.
type Deployment struct {
	Bundle *functions.Bundle
	Env    []byte // JSON object: the function's env with this gateway's settings
	Origin string
	Since  time.Time
}

func (d *Deployment) spec() *functions.Spec { return d.Bundle.Spec }

// keepsSeen says that a trigger skips retained messages that bring nothing new.
func (d *Deployment) keepsSeen() bool {
	for _, t := range d.spec().Triggers {
		if t.MQTT != nil && (t.MQTT.Retained == "" || t.MQTT.Retained == "changed") {
			return true
		}
	}
	return false
}

// Install adds a function, or gives one its new revision: an invocation in flight ends on its own revision, and what
// waits runs on the new one. It returns when the broker has acknowledged the subscriptions, or with an error that wraps
// drivers.ErrNotConnected if that has to wait for a connection.
func (e *Engine) Install(ctx context.Context, d *Deployment, s State, reason string) error {
	name := d.Bundle.Spec.Name
	e.mu.Lock()
	f := e.fns[name]
	e.mu.Unlock()
	isNew := f == nil
	var waiting []*job
	var timers []setTimer
	if isNew {
		seen, err := loadSeen(e.st, name)
		if err != nil {
			return err
		}
		deduped, err := loadDeduped(e.st, name)
		if err != nil {
			return err
		}
		f = &function{Name: name, lanes: map[string]*lane{}, parked: map[*job]*entry{}, timers: map[timerID]*entry{}, seen: seen, deduped: deduped}
		if f.deads, err = e.countDeadOf(name); err != nil {
			return err
		}
		// Before it gets events: what those put into the inbox must not be found there.
		if waiting, err = e.loadInbox(f); err != nil {
			return err
		}
		if timers, err = e.loadTimers(name); err != nil {
			return err
		}
		f.timersSet.Store(int64(len(timers)))
	}
	e.mu.Lock()
	f.adopt(d, s, reason)
	f.targets = e.plant.targetsOf(d.spec())
	e.fns[name] = f
	for _, j := range waiting {
		f.count(j)
		e.requeue(j)
	}
	for _, t := range timers {
		e.armOf(f, t.id, t.due)
	}
	e.reroute()
	e.mu.Unlock()
	e.wakeAll()
	return e.subscribe(ctx)
}

// adopt makes d the revision of what starts from now on. The engine's mu is held.
func (f *function) adopt(d *Deployment, s State, reason string) {
	f.dep, f.State, f.Reason = d, s, reason
	spec := d.spec()
	f.parallel = spec.Key.Kind == functions.KeyNone
	f.hints, f.kills = nil, kills{}
}

// SetState pauses, resumes or blocks a function.
func (e *Engine) SetState(ctx context.Context, name string, s State, reason string) error {
	e.mu.Lock()
	f := e.fns[name]
	if f == nil {
		e.mu.Unlock()
		return fmt.Errorf("there is no function %q", name)
	}
	f.State, f.Reason = s, reason
	f.kills = kills{}
	e.reroute()
	e.mu.Unlock()
	e.wakeAll()
	return e.subscribe(ctx)
}

// Remove takes a function out: its waiting events become dead letters, its timers go, its state stays.
func (e *Engine) Remove(ctx context.Context, name string) error {
	e.mu.Lock()
	f := e.fns[name]
	if f == nil {
		e.mu.Unlock()
		return nil
	}
	f.State = Paused
	delete(e.fns, name)
	e.reroute()
	for _, t := range f.timers {
		e.wheel.cancel(t)
	}
	e.mu.Unlock()
	e.awaitIdle(ctx, f)
	_ = e.st.Flush(ctx) // if a group is dropped, what was in it is back now
	e.mu.Lock()
	waiting := e.takeAll(f)
	e.mu.Unlock()
	for try := 0; len(waiting) > 0 && try < orphanTries; try++ {
		for _, j := range waiting {
			if err := e.orphan(j, nil); err != nil {
				e.log.Warn("an event waits longer than its function", "error", err)
				break
			}
		}
		_ = e.st.Flush(ctx) // now those whose group was dropped have no outcome again
		waiting = slices.DeleteFunc(waiting, func(j *job) bool { return j.done.Load() || j.dropped.Load() })
	}
	for _, j := range waiting {
		e.orphanLater(j)
	}
	e.logs.forget(name)
	e.plant.forgetWeb(name)
	return errors.Join(e.dropTimers(ctx, name), e.forgetStreamed(name), e.subscribe(ctx))
}

// orphanTries is how often the dead letters of a removed function are written, at most, before Remove returns.
const orphanTries = 10

// takeAll takes everything that waits out of a function's lanes. The caller holds mu.
func (e *Engine) takeAll(f *function) (waiting []*job) {
	for _, l := range f.lanes {
		e.wheel.cancel(l.retry)
		waiting = append(append(waiting, l.queue...), l.redo...)
		f.waiting -= len(l.queue)
		l.queue, l.redo = nil, nil
	}
	for j, due := range f.parked {
		e.wheel.cancel(due)
		waiting = append(waiting, j)
	}
	clear(f.parked)
	for _, j := range waiting {
		e.unhold(j)
		f.uncount(j)
		j.active = true // so that its event stays where it is
	}
	return waiting
}

// awaitIdle waits until a removed function's last invocation has been committed, so that a new function of the name
// does not find its entries in the inbox. No invocation runs longer than its timeout.
func (e *Engine) awaitIdle(ctx context.Context, f *function) {
	for ctx.Err() == nil {
		e.mu.Lock()
		running := f.running
		e.mu.Unlock()
		if running == 0 {
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(2 * time.Millisecond):
		}
	}
}

var errRemoved = errors.New("the function was removed while this event waited")

// orphan makes a dead letter of an event whose function has gone. lost, if not nil, is called if that is dropped with its group.
func (e *Engine) orphan(j *job, lost func()) error {
	if j.ev == nil {
		if err := e.loadJob(j); errors.Is(err, errDropped) {
			j.dropped.Store(true)
			return nil
		} else if err != nil {
			e.log.Error("an event of a removed function cannot be read and is lost", "function", j.fn.Name, "error", err)
			e.losses.add("damaged", 1)
			j.dropped.Store(true)
			return nil
		}
	}
	fault := &functions.Fault{Kind: functions.FaultError, Message: errRemoved.Error()}
	err := e.update(func(tx store.Tx) error {
		if j.done.Load() || j.dropped.Load() {
			return nil
		}
		stored := j.stored.Load()
		if stored {
			if err := owns(tx, j); err != nil {
				return err
			}
		}
		e.writeDead(tx, j, "removed", fault)
		if stored {
			tx.Delete(inboxKey(j.fn.Name, j.order))
		} else {
			e.marks.put(tx, j)
			tx.OnDurable(func() { j.from.settled() })
		}
		if j.waiter != nil {
			tx.OnDurable(func() { j.waiter(&outcomeReport{event: j.ev.ID, err: errRemoved}) })
		}
		tx.OnJoin(func() { j.done.Store(true) })
		tx.OnFail(func(error) {
			j.done.Store(false)
			if lost != nil {
				lost()
			}
		})
		return nil
	})
	if errors.Is(err, errDropped) {
		j.dropped.Store(true)
		return nil
	}
	if err != nil {
		return fmt.Errorf("keep an event of the removed function %q as a dead letter: %w", j.fn.Name, err)
	}
	j.life.outcome(j.fn, "dead", "removed")
	return nil
}

// orphanLater has a job that no lane has started anew after a pause: its function may be back by then, or else its dead letter
// is written again.
func (e *Engine) orphanLater(j *job) {
	e.wheel.add(e.clock.Now()+e.opt.RedoAfter, func() {
		e.mu.Lock()
		back := e.fns[j.fn.Name] != nil && j.stored.Load() // then it has found the event in the inbox
		e.mu.Unlock()
		if !back {
			e.start([]*job{j})
		}
	})
}

// Sweep makes dead letters of what waits in the inbox for functions that there are no more: a removal was cut short, or the disk had no room
// for them. known says which functions there are, in whatever state.
func (e *Engine) Sweep(known func(fn string) bool) error {
	gone := map[string]bool{}
	err := e.st.View(func(r store.Reader) error {
		return r.Scan(store.NewKey(store.Inbox), nil, func(k, _ []byte) bool {
			fields := store.Parse(k)
			if fn := fields.String(); fields.Err() == nil && !known(fn) {
				gone[fn] = true
			}
			return true
		})
	})
	if err != nil {
		return fmt.Errorf("look for events of removed functions: %w", err)
	}
	for fn := range gone {
		f := &function{Name: fn, lanes: map[string]*lane{}, deduped: &deduped{until: map[string]sighting{}}}
		waiting, err := e.loadInbox(f)
		if err != nil {
			return err
		}
		e.log.Warn("events that waited for a removed function are dead letters now", "function", fn, "events", len(waiting))
		for _, j := range waiting {
			j.active = true // as of one that is being removed
			if err := e.orphan(j, func() { e.orphanLater(j) }); err != nil {
				e.orphanLater(j)
			}
		}
	}
	return nil
}

// reroute builds the table of routes anew. The caller holds mu.
func (e *Engine) reroute() { e.routes = build(e.fns, e.plant.all()) }

// subscribe makes the broker's subscriptions what the routes need.
func (e *Engine) subscribe(ctx context.Context) error {
	e.subscribing.Lock()
	defer e.subscribing.Unlock()
	e.mu.Lock()
	filters := e.routes.subscriptions(e.opt.Broker.InProcess())
	e.mu.Unlock()
	if err := e.opt.Broker.Subscribe(ctx, filters); err != nil {
		return fmt.Errorf("subscribe to what the functions are triggered by: %w", err)
	}
	return nil
}

// Ticks are the periods of the functions that are triggered by one: a further one of a function is "name#2", …
func (e *Engine) Ticks() map[string]time.Duration {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := map[string]time.Duration{}
	for name, list := range e.routes.ticks {
		for i, r := range list {
			key := name
			if i > 0 {
				key = fmt.Sprintf("%s#%d", name, i+1)
			}
			out[key] = r.trigger.Every
		}
	}
	return out
}

// Event offers an event of the gateway's own life: start, online, offline.
func (e *Engine) Event(ctx context.Context, what string) {
	ev := &event.Event{Source: "gateway", Type: event.Gateway, Subject: what, Data: []byte(`{"what":"` + what + `"}`)}
	_ = e.Offer(ctx, drivers.Delivery{Event: ev})
}

// FunctionInfo is a function as it stands.
type FunctionInfo struct {
	Name      string
	State     State
	Reason    string
	Dep       *Deployment
	Runs, OK  int64
	Faults    map[string]int64
	LastFault *functions.Fault
	Waiting   int64
	Dead      int64
	P50, P99  time.Duration
	CPU       time.Duration // mean of an invocation
	AllCPU    time.Duration // of all invocations
	Busy      time.Duration // wall time of all invocations
	In, Out   int64         // bytes of payloads, and of effects and results
	Wrote     int64         // bytes given to the store on its behalf
	Memory    int64         // bytes: the most of an invocation within the last minute or two
}

// Functions returns every installed function, in no order.
func (e *Engine) Functions() []FunctionInfo {
	e.mu.Lock()
	list := make([]*function, 0, len(e.fns))
	out := make([]FunctionInfo, 0, len(e.fns))
	for _, f := range e.fns {
		list = append(list, f)
		out = append(out, FunctionInfo{Name: f.Name, State: f.State, Reason: f.Reason, Dep: f.dep, Waiting: int64(f.waiting), Dead: int64(f.deads)})
	}
	e.mu.Unlock()
	for i, f := range list {
		f.stats.fill(&out[i], e.clock.Now())
	}
	return out
}

func (s *stats) fill(out *FunctionInfo, now time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out.Runs, out.OK, out.LastFault = s.runs, s.ok, s.last
	out.AllCPU, out.Busy, out.In, out.Out, out.Wrote, out.Memory = s.cpu, s.busy, s.in, s.out, s.wrote.Load(), s.memory.highest(minuteOf(now))
	out.P50, out.P99 = s.wall.quantile(0.5), s.wall.quantile(0.99)
	if s.runs > 0 {
		out.CPU = s.cpu / time.Duration(s.runs)
	}
	out.Faults = map[string]int64{}
	for k, n := range s.faults {
		out.Faults[k] = n
	}
}

// Counts are the engine's figures since its start; Losses go back further.
type Counts struct {
	Received, Accepted, Committed, Duplicates, Faults int64
	Dead, Waiting, Inbox, Actions                     int64
	Repeated                                          int64 // actions that were sent again, with the same id, since they may not have arrived
	Refused, Losses                                   map[string]int64
}

// Counts returns them.
func (e *Engine) Counts() Counts {
	c := Counts{Received: e.counts.received.Load(), Accepted: e.counts.accepted.Load(), Committed: e.counts.committed.Load(),
		Duplicates: e.counts.duplicates.Load(), Repeated: e.counts.actionsRepeated.Load(), Faults: e.counts.faults.Load(), Refused: map[string]int64{}, Losses: e.losses.all()}
	e.counts.mu.Lock()
	for k, n := range e.counts.refused {
		c.Refused[k] = n
	}
	e.counts.mu.Unlock()
	e.mu.Lock()
	for _, f := range e.fns {
		c.Dead += int64(f.deads)
		c.Waiting += int64(f.waiting)
		c.Inbox += int64(f.inboxN)
	}
	e.mu.Unlock()
	c.Actions = e.plant.pending()
	return c
}

func (e *Engine) countDeadOf(fn string) (n int, err error) {
	err = e.st.View(func(r store.Reader) error {
		return r.Scan(store.NewKey(store.DeadLetters).String(fn), nil, func(_, _ []byte) bool {
			n++
			return true
		})
	})
	if err != nil {
		return 0, fmt.Errorf("count the dead letters of function %q: %w", fn, err)
	}
	return n, nil
}

// readings are the last readings of the devices.
type readings struct {
	mu      sync.Mutex
	last    map[string]Reading
	unreads map[string]*unread // devices behind MQTT that sent what cannot be read
}

// unread is what a device sent that is no reading.
type unread struct {
	why  string        // "" since it was read again
	told time.Duration // when it was logged last
}

// unreadEvery is how often such messages of one device are logged, at most.
const unreadEvery = time.Minute

// unread notes that a message brought no reading, and says whether that is worth a line in the log.
func (r *readings) unread(name, why string, now time.Duration) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	u := r.unreads[name]
	if u == nil {
		if r.unreads == nil {
			r.unreads = map[string]*unread{}
		}
		r.unreads[name] = &unread{why, now}
		return true
	}
	u.why = why
	if now-u.told < unreadEvery {
		return false
	}
	u.told = now
	return true
}

// Reading is what a device said last.
type Reading struct {
	Fields drivers.Fields
	At     time.Time
}

func (r *readings) set(ev *event.Event) {
	name := strings.TrimPrefix(ev.Source, "device/")
	var fields drivers.Fields
	if err := json.Unmarshal(ev.Data, &fields); err != nil || fields == nil {
		return
	}
	r.mu.Lock()
	if r.last == nil {
		r.last = map[string]Reading{}
	}
	r.last[name] = Reading{fields, ev.Time}
	if u := r.unreads[name]; u != nil {
		u.why = ""
	}
	r.mu.Unlock()
}

// Unread says why the last message of a device brought no reading, "" if it did.
func (e *Engine) Unread(name string) string {
	e.readings.mu.Lock()
	defer e.readings.mu.Unlock()
	if u := e.readings.unreads[name]; u != nil {
		return u.why
	}
	return ""
}

// LastReading returns what a device said last.
func (e *Engine) LastReading(name string) (Reading, bool) {
	e.readings.mu.Lock()
	defer e.readings.mu.Unlock()
	r, ok := e.readings.last[name]
	return r, ok
}

// ReadDevice asks a device, or returns its last reading if it only speaks by itself.
func (e *Engine) ReadDevice(ctx context.Context, name string) (drivers.Fields, error) {
	d := e.plant.device(name)
	if d == nil {
		return nil, fmt.Errorf("there is no device %q", name)
	}
	if d.Reader != nil {
		ctx, cancel := context.WithTimeout(ctx, deviceTimeout)
		defer cancel()
		f, err := d.Reader.Read(ctx)
		if err != nil {
			return nil, fmt.Errorf("read device %q: %w", name, err)
		}
		return f, nil
	}
	if r, ok := e.LastReading(name); ok {
		return r.Fields, nil
	}
	if why := e.Unread(name); why != "" {
		return nil, fmt.Errorf("device %q has said nothing that can be read: %s", name, why)
	}
	return nil, fmt.Errorf("device %q has not said anything yet", name)
}

// WriteDevice writes a device on behalf of a person, in the order of its other writes.
func (e *Engine) WriteDevice(ctx context.Context, name string, value any) error {
	d := e.plant.device(name)
	switch {
	case d == nil:
		return fmt.Errorf("there is no device %q", name)
	case d.Actuator != nil:
		p := e.plant.target(deviceTarget(name)).port.(*devicePort)
		p.supersede()
		return p.write(ctx, value)
	case d.Feed != nil && d.Feed.Write != "":
		payload, err := json.Marshal(value)
		if err != nil {
			return fmt.Errorf("the value for device %q: %w", name, err)
		}
		if s, ok := value.(string); ok {
			payload = []byte(s)
		}
		r, err := e.opt.Broker.Publish(ctx, drivers.Message{Topic: d.Feed.Write, Payload: payload, QoS: 1})
		if err == nil && r != nil {
			err = r.Wait(ctx)
		}
		if err != nil {
			return fmt.Errorf("publish to %s for device %q: %w", d.Feed.Write, name, err)
		}
		return nil
	}
	return fmt.Errorf("device %q cannot be written", name)
}
