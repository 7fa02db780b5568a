// Package apitest has a gateway for the tests of what talks to one: a Gateway in memory that behaves like a real one as
// far as its caller can tell, records what it was asked, and fails when it is told to.
package apitest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/perigee-iot/perigee/gateway/api"
	"github.com/perigee-iot/perigee/internal/backup"
)

// Fake is a Gateway in memory. Its methods may be called from many goroutines.
type Fake struct {
	mu      sync.Mutex
	changed chan struct{} // closed and renewed at every new log line or life

	status    api.Status
	functions map[string]*api.Function
	logs      []api.LogLine
	lives     []api.Life
	dead      []api.DeadLetter
	state     []api.StateEntry
	devices   []api.Device
	uplinks   []api.UplinkStatus
	streams   []api.Stream
	usage     []api.Usage
	advice    []api.Advice
	top       func() *api.Top
	problems  []string
	config    json.RawMessage
	recording []string
	calls     []string
	fail      map[string]error
	following int
}

var _ api.Gateway = (*Fake)(nil)

// New returns a Fake that is ready and empty.
func New() *Fake {
	return &Fake{
		changed:   make(chan struct{}),
		functions: map[string]*api.Function{},
		fail:      map[string]error{},
		top:       func() *api.Top { return &api.Top{Gateway: "gw-01"} },
		config:    json.RawMessage(`{"id":"gw-01"}`),
		status:    api.Status{Gateway: "gw-01", Version: "0.1.0", PID: 812, Ready: true},
	}
}

// Fail makes a method, by its name, return err; nil makes it work again.
func (f *Fake) Fail(method string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail[method] = err
}

// Calls returns what was asked so far and changed something, and queries of usage, one line each.
func (f *Fake) Calls() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.calls)
}

// Following says how many lists are being followed now.
func (f *Fake) Following() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.following
}

// Edit changes the gateway's data while nobody reads it.
func (f *Fake) Edit(change func(d *Data)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	d := Data{&f.status, f.functions, &f.logs, &f.lives, &f.dead, &f.state, &f.devices, &f.uplinks, &f.streams, &f.usage, &f.advice, &f.top, &f.problems, &f.config, &f.recording}
	change(&d)
	close(f.changed)
	f.changed = make(chan struct{})
}

// Data is what a Fake holds, for Edit.
type Data struct {
	Status    *api.Status
	Functions map[string]*api.Function
	Logs      *[]api.LogLine
	Lives     *[]api.Life
	Dead      *[]api.DeadLetter
	State     *[]api.StateEntry
	Devices   *[]api.Device
	Uplinks   *[]api.UplinkStatus
	Streams   *[]api.Stream
	Usage     *[]api.Usage // by hour
	Advice    *[]api.Advice
	Top       *func() *api.Top // called under the lock, for each time that somebody asks
	Problems  *[]string        // of the next reload
	Config    *json.RawMessage
	Recording *[]string // the lines of the next recordings
}

// enter locks and returns the error that the method was told to return.
func (f *Fake) enter(method string) error {
	f.mu.Lock()
	return f.fail[method]
}

func (f *Fake) record(format string, args ...any) {
	f.calls = append(f.calls, fmt.Sprintf(format, args...))
}

// Status returns what Edit made of it.
func (f *Fake) Status(context.Context) (*api.Status, error) {
	defer f.mu.Unlock()
	if err := f.enter("Status"); err != nil {
		return nil, err
	}
	s := f.status
	return &s, nil
}

// Reload says that settings changed and the broker needs a restart.
func (f *Fake) Reload(context.Context) (*api.ReloadResult, error) {
	defer f.mu.Unlock()
	if err := f.enter("Reload"); err != nil {
		return nil, err
	}
	f.record("Reload")
	return &api.ReloadResult{Changed: []string{"settings.overheat"}, Restart: []string{"broker.listen"},
		Problems: slices.Clone(f.problems)}, nil
}

// Backup writes a small store: that of a function with three values.
func (f *Fake) Backup(_ context.Context, w io.Writer) error {
	f.mu.Lock()
	err := f.fail["Backup"]
	f.mu.Unlock()
	if err != nil {
		return err
	}
	out, err := backup.NewWriter(w, backup.Header{Gateway: "gw-01", Version: "0.1.0", Schema: 1, Epoch: "5f0c9a1e5f0c9a1e",
		Created: time.Date(2026, 5, 4, 12, 30, 15, 0, time.UTC)}, nil, func(byte) string { return "state" })
	for _, key := range []string{"s/a", "s/b", "s/c"} {
		if err == nil {
			err = out.Add([]byte(key), []byte("42"))
		}
	}
	if err == nil {
		_, err = out.Close()
	}
	return err
}

// Config returns a configuration.
func (f *Fake) Config(context.Context) (json.RawMessage, error) {
	defer f.mu.Unlock()
	if err := f.enter("Config"); err != nil {
		return nil, err
	}
	return f.config, nil
}

// Functions lists by name, without files.
func (f *Fake) Functions(context.Context) ([]api.Function, error) {
	defer f.mu.Unlock()
	if err := f.enter("Functions"); err != nil {
		return nil, err
	}
	out := []api.Function{}
	for _, fn := range f.functions {
		c := *fn
		c.Files, c.Permissions, c.Env = nil, nil, nil
		out = append(out, c)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out, nil
}

func (f *Fake) find(name string) (*api.Function, error) {
	fn, ok := f.functions[name]
	if !ok {
		return nil, api.Errorf(api.CodeNotFound, "there is no function %q", name).WithHint("see: perigee functions list")
	}
	return fn, nil
}

// Function returns one, with files.
func (f *Fake) Function(_ context.Context, name string) (*api.Function, error) {
	defer f.mu.Unlock()
	if err := f.enter("Function"); err != nil {
		return nil, err
	}
	fn, err := f.find(name)
	if err != nil {
		return nil, err
	}
	c := *fn
	return &c, nil
}

// Apply takes any bundle that has a function.yaml, and refuses one whose main.lua contains "syntax error".
func (f *Fake) Apply(_ context.Context, r *api.ApplyRequest) (*api.ApplyResult, error) {
	defer f.mu.Unlock()
	if err := f.enter("Apply"); err != nil {
		return nil, err
	}
	names := make([]string, 0, len(r.Files))
	for n := range r.Files {
		names = append(names, n)
	}
	sort.Strings(names)
	f.record("Apply %s %s take=%v dry=%v", r.Name, strings.Join(names, ","), r.Take, r.Dry)
	if _, ok := r.Files["function.yaml"]; !ok {
		return nil, api.Errorf(api.CodeBadRequest, "function %s: function.yaml is missing", r.Name)
	}
	if strings.Contains(string(r.Files["main.lua"]), "syntax error") {
		return nil, api.Errorf(api.CodeBadRequest, "main.lua:3: unexpected symbol near 'error'")
	}
	res := &api.ApplyResult{Name: r.Name, Revision: fmt.Sprintf("%012x", sum(r.Files)), State: "active", Action: "created"}
	old, ok := f.functions[r.Name]
	if ok {
		if old.Origin == "pushed" && !r.Take {
			return nil, api.Errorf(api.CodeConflict, "function %s was pushed", r.Name).WithHint("take it over with --take")
		}
		res.Previous, res.Action = old.Revision, "changed"
		if old.Revision == res.Revision {
			res.Previous, res.Action = "", "unchanged"
		}
	}
	if strings.Contains(string(r.Files["function.yaml"]), "debug: true") {
		res.Warnings = []string{"debug is on"}
	}
	if !r.Dry && res.Action != "unchanged" {
		f.functions[r.Name] = &api.Function{Name: r.Name, State: "active", Origin: "applied", Revision: res.Revision}
	}
	return res, nil
}

func sum(files map[string][]byte) uint32 {
	var total uint32
	for n, b := range files {
		h := uint32(2166136261)
		for _, c := range n + "\x00" + string(b) {
			h = (h ^ uint32(c)) * 16777619
		}
		total += h
	}
	return total
}

// Remove removes.
func (f *Fake) Remove(_ context.Context, name string, purge bool) error {
	defer f.mu.Unlock()
	if err := f.enter("Remove"); err != nil {
		return err
	}
	if _, err := f.find(name); err != nil {
		return err
	}
	f.record("Remove %s purge=%v", name, purge)
	delete(f.functions, name)
	return nil
}

// Pause pauses.
func (f *Fake) Pause(_ context.Context, name, reason string) error {
	defer f.mu.Unlock()
	if err := f.enter("Pause"); err != nil {
		return err
	}
	fn, err := f.find(name)
	if err != nil {
		return err
	}
	f.record("Pause %s %q", name, reason)
	fn.State, fn.Reason = "paused", reason
	return nil
}

// Resume resumes.
func (f *Fake) Resume(_ context.Context, name string) error {
	defer f.mu.Unlock()
	if err := f.enter("Resume"); err != nil {
		return err
	}
	fn, err := f.find(name)
	if err != nil {
		return err
	}
	f.record("Resume %s", name)
	fn.State, fn.Reason = "active", ""
	return nil
}

// Invoke answers with the request's data as result.
func (f *Fake) Invoke(_ context.Context, name string, r *api.InvokeRequest) (*api.Invoked, error) {
	defer f.mu.Unlock()
	if err := f.enter("Invoke"); err != nil {
		return nil, err
	}
	if _, err := f.find(name); err != nil {
		return nil, err
	}
	key := "-"
	if r.Key != nil {
		key = fmt.Sprintf("%q", *r.Key)
	}
	dry := ""
	if r.Dry {
		dry = " dry"
	}
	f.record("Invoke%s %s data=%s topic=%s params=%v key=%s", dry, name, r.Data, r.Topic, r.Params, key)
	return &api.Invoked{Dry: r.Dry, EventID: "01J9", Outcome: "committed", Result: r.Data, Effects: []string{"device fan = true"}, Wall: 1_200_000, CPU: 800_000,
		Logs: []api.LogLine{{Function: name, Level: "info", Text: "warm"}}}, nil
}
