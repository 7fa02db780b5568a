package apitest

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/perigee-iot/perigee/gateway/api"
)

// Logs lists, and follows until ctx ends.
func (f *Fake) Logs(ctx context.Context, q api.LogQuery, emit func(api.LogLine) error) error {
	if q.Function != "" {
		if _, err := f.Function(ctx, q.Function); err != nil {
			return err
		}
	}
	return follow(ctx, f, "Logs", q.Follow, q.Limit, func() []api.LogLine { return f.logs }, func(l api.LogLine) bool {
		return q.Function == "" || q.Function == l.Function
	}, emit)
}

// Events lists, and follows until ctx ends. The filter on the topic is a prefix here.
func (f *Fake) Events(ctx context.Context, q api.EventQuery, emit func(api.Life) error) error {
	return follow(ctx, f, "Events", q.Follow, q.Limit, func() []api.Life { return f.lives }, func(l api.Life) bool {
		if q.Function != "" {
			for _, o := range l.Outcomes {
				if o.Function == q.Function {
					return true
				}
			}
			return false
		}
		return strings.HasPrefix(l.Subject, strings.TrimSuffix(q.Topic, "#"))
	}, emit)
}

func follow[T any](ctx context.Context, f *Fake, method string, on bool, limit int, all func() []T, want func(T) bool, emit func(T) error) error {
	f.mu.Lock()
	err := f.fail[method]
	if on {
		f.following++
	}
	f.mu.Unlock()
	if on {
		defer func() { f.mu.Lock(); f.following--; f.mu.Unlock() }()
	}
	if err != nil {
		return err
	}
	next, first := 0, true
	for {
		f.mu.Lock()
		var fresh []T
		list := all()
		for ; next < len(list); next++ {
			if want(list[next]) {
				fresh = append(fresh, list[next])
			}
		}
		changed := f.changed
		err := f.fail[method]
		f.mu.Unlock()
		if first && limit > 0 && len(fresh) > limit {
			fresh = fresh[len(fresh)-limit:]
		}
		first = false
		for _, v := range fresh {
			if err := emit(v); err != nil {
				return err
			}
		}
		if err != nil {
			return err
		}
		if !on {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// Event returns one life.
func (f *Fake) Event(_ context.Context, id string) (*api.Life, error) {
	defer f.mu.Unlock()
	if err := f.enter("Event"); err != nil {
		return nil, err
	}
	for i := range f.lives {
		if f.lives[i].ID == id {
			l := f.lives[i]
			return &l, nil
		}
	}
	return nil, api.Errorf(api.CodeNotFound, "there is no event %q in memory", id).WithHint("only the last events are kept")
}

// EventCase answers with a case that expects nothing to leave the function.
func (f *Fake) EventCase(_ context.Context, id, function string) (*api.EventCase, error) {
	defer f.mu.Unlock()
	if err := f.enter("EventCase"); err != nil {
		return nil, err
	}
	f.record("EventCase %s function=%s", id, function)
	if function == "" {
		function = "overheat"
	}
	if _, err := f.find(function); err != nil {
		return nil, err
	}
	return &api.EventCase{Function: function, Revision: "1a2b3c4d5e6f", Event: id,
		Text: "- name: message zigbee2mqtt/cellar\n  steps:\n    - mqtt: zigbee2mqtt/cellar\n      data: {temperature: 31}\n      expect: []\n"}, nil
}

// Record passes on the lines that there are. If the last one is no end, the recording goes on until ctx ends.
func (f *Fake) Record(ctx context.Context, q api.RecordQuery, emit func(json.RawMessage) error) error {
	f.mu.Lock()
	if err := f.fail["Record"]; err != nil {
		f.mu.Unlock()
		return err
	}
	if q.Function != "" {
		if _, err := f.find(q.Function); err != nil {
			f.mu.Unlock()
			return err
		}
	}
	key := "-"
	if q.Key != nil {
		key = fmt.Sprintf("%q", *q.Key)
	}
	f.record("Record function=%s key=%s for=%v bytes=%d invocations=%d", q.Function, key, q.For, q.Bytes, q.Invocations)
	list := slices.Clone(f.recording)
	f.mu.Unlock()
	for _, l := range list {
		if err := emit(json.RawMessage(l)); err != nil {
			return err
		}
	}
	if len(list) > 0 && strings.Contains(list[len(list)-1], `"end"`) {
		return nil
	}
	f.mu.Lock()
	f.following++
	f.mu.Unlock()
	defer func() { f.mu.Lock(); f.following--; f.mu.Unlock() }()
	<-ctx.Done()
	return ctx.Err()
}

// DeadLetters lists without data.
func (f *Fake) DeadLetters(_ context.Context, q api.DeadQuery) ([]api.DeadLetter, error) {
	defer f.mu.Unlock()
	if err := f.enter("DeadLetters"); err != nil {
		return nil, err
	}
	out := []api.DeadLetter{}
	for _, d := range f.dead {
		if (q.Function == "" || q.Function == d.Function) && (q.Revision == "" || q.Revision == d.Revision) && (q.Limit == 0 || len(out) < q.Limit) {
			d.Data = nil
			out = append(out, d)
		}
	}
	return out, nil
}

func (f *Fake) findDead(id string) (int, error) {
	for i, d := range f.dead {
		if d.ID == id {
			return i, nil
		}
	}
	return 0, api.Errorf(api.CodeNotFound, "there is no dead letter %q", id).WithHint("see: perigee dead list")
}

// DeadLetter returns one with data.
func (f *Fake) DeadLetter(_ context.Context, id string) (*api.DeadLetter, error) {
	defer f.mu.Unlock()
	if err := f.enter("DeadLetter"); err != nil {
		return nil, err
	}
	i, err := f.findDead(id)
	if err != nil {
		return nil, err
	}
	d := f.dead[i]
	return &d, nil
}

// Replay removes the letter and records the data.
func (f *Fake) Replay(_ context.Context, id string, data []byte) error {
	defer f.mu.Unlock()
	if err := f.enter("Replay"); err != nil {
		return err
	}
	i, err := f.findDead(id)
	if err != nil {
		return err
	}
	if data == nil {
		f.record("Replay %s as it was", id)
	} else {
		f.record("Replay %s %q", id, data)
	}
	f.dead = append(f.dead[:i:i], f.dead[i+1:]...)
	return nil
}

// TryReplay says that the function would fail again, unless its payload has a temperature.
func (f *Fake) TryReplay(_ context.Context, id string, data []byte) (*api.Invoked, error) {
	defer f.mu.Unlock()
	if err := f.enter("TryReplay"); err != nil {
		return nil, err
	}
	i, err := f.findDead(id)
	if err != nil {
		return nil, err
	}
	f.record("TryReplay %s %q", id, data)
	got := &api.Invoked{Dry: true, EventID: f.dead[i].EventID, Outcome: "dead", Fault: f.dead[i].Fault}
	if strings.Contains(string(data), "temperature") {
		got.Outcome, got.Fault, got.Effects = "committed", nil, []string{"device fan = true"}
	}
	return got, nil
}

// Drop removes the letter.
func (f *Fake) Drop(_ context.Context, id string) error {
	defer f.mu.Unlock()
	if err := f.enter("Drop"); err != nil {
		return err
	}
	i, err := f.findDead(id)
	if err != nil {
		return err
	}
	f.record("Drop %s", id)
	f.dead = append(f.dead[:i:i], f.dead[i+1:]...)
	return nil
}

func refers(ref api.StateRef, e api.StateEntry) bool {
	return e.Function == ref.Function && (ref.Name == "" || e.Name == ref.Name) && (ref.Key == nil || e.Key == *ref.Key && !e.Shared) && (!ref.Shared || e.Shared)
}

// State lists what ref names.
func (f *Fake) State(_ context.Context, ref api.StateRef) ([]api.StateEntry, error) {
	defer f.mu.Unlock()
	if err := f.enter("State"); err != nil {
		return nil, err
	}
	if _, err := f.find(ref.Function); err != nil {
		return nil, err
	}
	out := []api.StateEntry{}
	for _, e := range f.state {
		if refers(ref, e) {
			out = append(out, e)
		}
	}
	return out, nil
}

// SetState sets.
func (f *Fake) SetState(_ context.Context, ref api.StateRef, value json.RawMessage) error {
	defer f.mu.Unlock()
	if err := f.enter("SetState"); err != nil {
		return err
	}
	if _, err := f.find(ref.Function); err != nil {
		return err
	}
	key := ""
	if ref.Key != nil {
		key = *ref.Key
	}
	f.record("SetState %s %s key=%q shared=%v %s", ref.Function, ref.Name, key, ref.Shared, value)
	for i, e := range f.state {
		if e.Function == ref.Function && e.Name == ref.Name && e.Key == key && e.Shared == ref.Shared {
			f.state[i].Value = value
			return nil
		}
	}
	f.state = append(f.state, api.StateEntry{Function: ref.Function, Key: key, Shared: ref.Shared, Name: ref.Name, Value: value})
	return nil
}

// DeleteState deletes what ref names.
func (f *Fake) DeleteState(_ context.Context, ref api.StateRef) (int, error) {
	defer f.mu.Unlock()
	if err := f.enter("DeleteState"); err != nil {
		return 0, err
	}
	if _, err := f.find(ref.Function); err != nil {
		return 0, err
	}
	var keep []api.StateEntry
	for _, e := range f.state {
		if !refers(ref, e) {
			keep = append(keep, e)
		}
	}
	n := len(f.state) - len(keep)
	f.state = keep
	f.record("DeleteState %s %s shared=%v: %d", ref.Function, ref.Name, ref.Shared, n)
	return n, nil
}

// Devices lists.
func (f *Fake) Devices(context.Context) ([]api.Device, error) {
	defer f.mu.Unlock()
	if err := f.enter("Devices"); err != nil {
		return nil, err
	}
	return append([]api.Device{}, f.devices...), nil
}

func (f *Fake) findDevice(name string) (*api.Device, error) {
	for i := range f.devices {
		if f.devices[i].Name == name {
			return &f.devices[i], nil
		}
	}
	return nil, api.Errorf(api.CodeNotFound, "there is no device %q", name).WithHint("see: perigee devices list")
}

// Device reads one.
func (f *Fake) Device(_ context.Context, name string) (*api.Device, error) {
	defer f.mu.Unlock()
	if err := f.enter("Device"); err != nil {
		return nil, err
	}
	d, err := f.findDevice(name)
	if err != nil {
		return nil, err
	}
	c := *d
	return &c, nil
}

// WriteDevice writes.
func (f *Fake) WriteDevice(_ context.Context, name string, value any) error {
	defer f.mu.Unlock()
	if err := f.enter("WriteDevice"); err != nil {
		return err
	}
	d, err := f.findDevice(name)
	if err != nil {
		return err
	}
	f.record("WriteDevice %s %T %v", name, value, value)
	d.Written = value
	return nil
}

// Uplinks lists.
func (f *Fake) Uplinks(context.Context) ([]api.UplinkStatus, error) {
	defer f.mu.Unlock()
	if err := f.enter("Uplinks"); err != nil {
		return nil, err
	}
	return append([]api.UplinkStatus{}, f.uplinks...), nil
}

// Streams lists.
func (f *Fake) Streams(context.Context) ([]api.Stream, error) {
	defer f.mu.Unlock()
	if err := f.enter("Streams"); err != nil {
		return nil, err
	}
	return append([]api.Stream{}, f.streams...), nil
}

// Usage lists what Data.Usage has. It does not sum up: a query that is not split gets the rows of the newest hour.
func (f *Fake) Usage(_ context.Context, q api.UsageQuery) ([]api.Usage, error) {
	defer f.mu.Unlock()
	if err := f.enter("Usage"); err != nil {
		return nil, err
	}
	f.record("Usage %s by=%s since=%s revisions=%v", q.Function, q.By, q.Since, q.Revisions)
	if q.Function != "" {
		if _, err := f.find(q.Function); err != nil {
			return nil, err
		}
	}
	out := []api.Usage{}
	for _, u := range f.usage {
		newest := f.usage[len(f.usage)-1].Start
		if (q.Function != "" && u.Function != q.Function) || (q.By == "" && !u.Start.Equal(newest)) {
			continue
		}
		if !q.Revisions {
			u.Revision = ""
		}
		if q.By == "" {
			u.Length = 0
		}
		out = append(out, u)
	}
	return out, nil
}

// Advise lists.
func (f *Fake) Advise(_ context.Context, function string) ([]api.Advice, error) {
	defer f.mu.Unlock()
	if err := f.enter("Advise"); err != nil {
		return nil, err
	}
	if function != "" {
		if _, err := f.find(function); err != nil {
			return nil, err
		}
	}
	out := []api.Advice{}
	for _, a := range f.advice {
		if function == "" || a.Function == function {
			out = append(out, a)
		}
	}
	return out, nil
}

// Top asks Data.Top.
func (f *Fake) Top(context.Context) (*api.Top, error) {
	defer f.mu.Unlock()
	if err := f.enter("Top"); err != nil {
		return nil, err
	}
	return f.top(), nil
}
