package engine

import (
	"context"
	"sync"

	"github.com/perigee-iot/perigee/drivers"
	"github.com/perigee-iot/perigee/functions"
)

// plant is what the engine acts on: the broker and the devices, each with the actions that wait for it. Devices come
// and go with the configuration.
type plant struct {
	engine *Engine

	mu      sync.RWMutex
	devices drivers.Set
	targets map[string]*target
	ctx     context.Context // of the targets' goroutines; nil before start
	wg      sync.WaitGroup
}

func newPlant(e *Engine, broker drivers.Broker, devices drivers.Set) *plant {
	p := &plant{engine: e, targets: map[string]*target{}}
	p.targets[brokerTarget] = newTarget(e, brokerTarget, &brokerPort{broker: broker, engine: e})
	p.set(devices)
	return p
}

// set makes devices the ones there are. A device that is the same as before keeps its waiting actions.
func (p *plant) set(devices drivers.Set) (gone []*target) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for name, was := range p.devices {
		if t := p.targets[deviceTarget(name)]; t != nil && devices[name] != was {
			delete(p.targets, deviceTarget(name))
			gone = append(gone, t)
		}
	}
	for name, d := range devices {
		if d.Actuator == nil || p.devices[name] == d {
			continue
		}
		t := newTarget(p.engine, deviceTarget(name), &devicePort{device: d})
		p.targets[t.name] = t
		p.run(t)
	}
	p.devices = devices
	return gone
}

// start runs the targets.
func (p *plant) start(ctx context.Context) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ctx = ctx
	for _, t := range p.targets {
		if !t.lazy || !t.idle() {
			p.run(t)
		}
	}
}

func (p *plant) run(t *target) {
	if p.ctx == nil {
		return
	}
	ctx, cancel := context.WithCancel(p.ctx)
	t.stop = cancel
	p.wg.Add(1)
	go func() {
		defer p.wg.Done()
		t.run(ctx)
	}()
}

// rest takes back what devices hold only for a while.
func (p *plant) rest() {
	p.mu.RLock()
	defer p.mu.RUnlock()
	for _, t := range p.targets {
		if d, ok := t.port.(*devicePort); ok {
			d.rest()
		}
	}
}

func (p *plant) device(name string) *drivers.Device {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.devices[name]
}

func (p *plant) all() drivers.Set {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.devices
}

func (p *plant) target(name string) *target {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.targets[name]
}

// targetLeft is the target of an action that the last run left; nil if there is none any more.
func (p *plant) targetLeft(name string) *target {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.targets[name]
	if fn, _, ok := ofWebTarget(name); t == nil && ok {
		t = p.newWebTarget(name, fn)
	}
	return t
}

// targetsOf are the targets that a function may write to.
func (p *plant) targetsOf(spec *functions.Spec) []*target {
	return append(p.written(spec), p.web(spec)...)
}

// written are those of its publishes and of the devices that it writes.
func (p *plant) written(spec *functions.Spec) (out []*target) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	publishes := len(spec.Permissions.Publish) > 0
	for _, name := range spec.Permissions.WriteDevices {
		if t := p.targets[deviceTarget(name)]; t != nil {
			out = append(out, t)
		} else {
			publishes = true // a device behind MQTT
		}
	}
	if publishes {
		out = append(out, p.targets[brokerTarget])
	}
	return out
}

func (p *plant) pending() (n int64) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	for _, t := range p.targets {
		t.mu.Lock()
		n += int64(t.pending)
		t.mu.Unlock()
	}
	return n
}

// SetDevices makes devices the ones there are: after a reload of the configuration.
func (e *Engine) SetDevices(ctx context.Context, devices drivers.Set) error {
	for _, t := range e.plant.set(devices) {
		t.abandon()
	}
	e.mu.Lock()
	for _, f := range e.fns {
		f.targets = e.plant.targetsOf(f.dep.spec())
	}
	e.reroute()
	e.mu.Unlock()
	return e.subscribe(ctx)
}

// LastWritten is the value that was written to a device last, nil if none was.
func (e *Engine) LastWritten(name string) any {
	t := e.plant.target(deviceTarget(name))
	if t == nil {
		return nil
	}
	p := t.port.(*devicePort)
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last
}

// Later calls fn soon from the engine's own goroutine, for callers that must not wait.
func (e *Engine) Later(fn func()) { e.wheel.add(0, fn) }
