package app

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/perigee-iot/perigee/functions/state"
	"github.com/perigee-iot/perigee/gateway/api"
	"github.com/perigee-iot/perigee/internal/store"
)

// State lists values of state.
func (a *App) State(_ context.Context, ref api.StateRef) ([]api.StateEntry, error) {
	out := []api.StateEntry{}
	add := func(e state.Entry) bool {
		if ref.Name == "" || e.Name == ref.Name {
			out = append(out, api.StateEntry{Function: ref.Function, Key: e.Key, Shared: e.Shared, Name: e.Name, Value: slices.Clone(e.Value)})
		}
		return len(out) < maxState
	}
	err := a.st.View(func(r store.Reader) error {
		switch {
		case ref.Shared:
			return state.Each(r, state.Shared(ref.Function), add)
		case ref.Key != nil:
			return state.Each(r, state.Keyed(ref.Function, *ref.Key), add)
		}
		return state.EachOf(r, ref.Function, add)
	})
	if err != nil {
		return nil, err
	}
	if len(out) == 0 && ref.Name != "" {
		return nil, a.noState(ref)
	}
	if len(out) == 0 {
		if _, err := a.find(ref.Function); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// maxState bounds a list of state values.
const maxState = 10000

func (a *App) noState(ref api.StateRef) error {
	if _, err := a.find(ref.Function); err != nil {
		return err
	}
	what := "state"
	if ref.Shared {
		what = "shared state"
	}
	return api.Errorf("not-found", "function %q has no %s %q", ref.Function, what, ref.Name).WithHint("what it has: perigee state list %s", ref.Function)
}

func stateRef(ref api.StateRef) state.Ref {
	switch {
	case ref.Shared:
		return state.Shared(ref.Function)
	case ref.Key != nil:
		return state.Keyed(ref.Function, *ref.Key)
	}
	return state.Keyed(ref.Function, "")
}

// SetState writes a value. The function's next invocation of that key sees it.
func (a *App) SetState(ctx context.Context, ref api.StateRef, value json.RawMessage) error {
	f, err := a.find(ref.Function)
	if err != nil {
		return err
	}
	err = a.st.Update(func(tx store.Tx) error {
		tx.Urgent()
		return state.Set(tx, stateRef(ref), ref.Name, value, f.Dep.Bundle.Spec.Limits.State)
	})
	if err != nil {
		return api.Errorf("bad-request", "%v", err)
	}
	return a.st.Flush(ctx)
}

// DeleteState deletes values and says how many.
func (a *App) DeleteState(ctx context.Context, ref api.StateRef) (int, error) {
	list, err := a.State(ctx, ref)
	if err != nil {
		return 0, err
	}
	count := len(list)
	for len(list) > 0 {
		n := min(len(list), 200)
		err := a.st.Update(func(tx store.Tx) error {
			for _, e := range list[:n] {
				r := state.Keyed(e.Function, e.Key)
				if e.Shared {
					r = state.Shared(e.Function)
				}
				if err := state.Delete(tx, r, e.Name); err != nil {
					return err
				}
			}
			tx.Urgent()
			return nil
		})
		if err != nil {
			return 0, err
		}
		list = list[n:]
	}
	return count, a.st.Flush(ctx)
}

// Devices lists the devices with their last readings.
func (a *App) Devices(context.Context) ([]api.Device, error) {
	out := []api.Device{}
	for name := range a.devices.set() {
		out = append(out, a.device(name))
	}
	slices.SortFunc(out, func(x, y api.Device) int { return strings.Compare(x.Name, y.Name) })
	return out, nil
}

func (a *App) device(name string) api.Device {
	d := a.devices.get(name)
	out := api.Device{Name: name, Kind: d.Kind, Connected: true,
		Reads:  d.Reader != nil || d.Source != nil || (d.Feed != nil && d.Feed.Topic != ""),
		Writes: d.Actuator != nil || (d.Feed != nil && d.Feed.Write != "")}
	for _, s := range a.devices.status() {
		if s.Name == "device/"+name {
			out.Connected, out.LastError = s.Connected, s.LastError
		}
	}
	if d.Feed != nil {
		out.Connected = a.broker.Connected()
	}
	a.lastReading(&out)
	out.Written = a.engine.LastWritten(name)
	return out
}

func (a *App) hasDevice(name string) error {
	set := a.devices.set()
	if set[name] != nil {
		return nil
	}
	e := api.Errorf("not-found", "there is no device %q", name)
	names := []string{}
	for n := range set {
		names = append(names, n)
	}
	slices.Sort(names)
	if len(names) > 0 {
		return e.WithHint("there are: %s", strings.Join(names, ", "))
	}
	return e.WithHint("devices are named under devices: in the configuration")
}

// Device asks a device for its present reading.
func (a *App) Device(ctx context.Context, name string) (*api.Device, error) {
	if err := a.hasDevice(name); err != nil {
		return nil, err
	}
	out := a.device(name)
	fields, err := a.engine.ReadDevice(ctx, name)
	if err != nil {
		return nil, api.Errorf("unavailable", "%v", err)
	}
	if out.Fields == nil || a.devices.get(name).Reader != nil {
		out.Fields, out.At = fields, time.Now().UTC()
	}
	return &out, nil
}

// WriteDevice writes a device.
func (a *App) WriteDevice(ctx context.Context, name string, value any) error {
	if err := a.hasDevice(name); err != nil {
		return err
	}
	if err := a.engine.WriteDevice(ctx, name, value); err != nil {
		return api.Errorf("unavailable", "%v", err)
	}
	a.log.Info("a device was written by hand", "device", name, "value", value)
	return nil
}
