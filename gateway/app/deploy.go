package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/perigee-iot/perigee/drivers"
	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/functions/bundle"
	"github.com/perigee-iot/perigee/functions/catalog"
	"github.com/perigee-iot/perigee/functions/state"
	"github.com/perigee-iot/perigee/gateway/api"
	"github.com/perigee-iot/perigee/gateway/config"
	"github.com/perigee-iot/perigee/gateway/engine"
	"github.com/perigee-iot/perigee/internal/store"
	"github.com/perigee-iot/perigee/internal/topic"
	"github.com/perigee-iot/perigee/internal/units"
	"github.com/perigee-iot/perigee/internal/yamlfile"
)

// problems are what is wrong and stays so until somebody acts, by where it is: shown by status.
type problems struct {
	mu sync.Mutex
	at map[string]string
}

func (p *problems) set(where string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.at == nil {
		p.at = map[string]string{}
	}
	if err == nil {
		delete(p.at, where)
	} else {
		p.at[where] = err.Error()
	}
}

// clear forgets those whose place begins with prefix.
func (p *problems) clear(prefix string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	maps.DeleteFunc(p.at, func(where, _ string) bool { return strings.HasPrefix(where, prefix) })
}

func (p *problems) list() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]string, 0, len(p.at))
	for _, s := range p.at {
		out = append(out, s)
	}
	slices.Sort(out)
	return out
}

// loadFunctions installs what the catalog has, and brings what stands in the directory of functions up to date.
func (a *App) loadFunctions(ctx context.Context) error {
	a.deploying.Lock()
	defer a.deploying.Unlock()
	var entries []catalog.Entry
	err := a.st.View(func(r store.Reader) (err error) {
		entries, err = catalog.List(r)
		return err
	})
	if err != nil {
		a.log.Error("a function in the catalog is damaged", "error", err)
		a.problems.set("catalog", err)
	}
	defer func(whole bool) {
		if whole {
			a.sweep(entries)
		}
	}(err == nil)
	for _, e := range entries {
		e = a.verifyState(e)
		if err := a.installEntry(ctx, e); err != nil {
			a.problems.set("function "+e.Name, fmt.Errorf("function %s: %w", e.Name, err))
			a.log.Error("a function cannot be run", "function", e.Name, "error", err)
		}
	}
	_, err = a.syncDir(ctx)
	return err
}

// sweep ends the events of functions that are neither in the catalog, as it was at the start, nor new since.
func (a *App) sweep(entries []catalog.Entry) {
	known := map[string]bool{}
	for _, e := range entries {
		known[e.Name] = true
	}
	for _, f := range a.engine.Functions() {
		known[f.Name] = true
	}
	if err := a.engine.Sweep(func(fn string) bool { return known[fn] }); err != nil {
		a.log.Warn("events of removed functions stay in the inbox", "error", err)
	}
}

// verifyState checks a function's state after a stop that was not clean. If the disk has lost some of it the function is
// paused: state.get("n", 0) would quietly begin at 0 again. Who has looked at it resumes the function.
func (a *App) verifyState(e catalog.Entry) catalog.Entry {
	if !a.st.Stats().Unclean {
		return e
	}
	err := a.st.View(func(r store.Reader) error { return state.Verify(r, e.Name) })
	if err == nil {
		return e
	}
	a.log.Error("the state of a function is not what was stored; the function is paused", "function", e.Name, "error", err)
	a.problems.set("state "+e.Name, fmt.Errorf("function %s is paused: %w", e.Name, err))
	reason := fmt.Sprintf("its state is damaged: %v; look at it (perigee state list %s), then: perigee functions resume %s", err, e.Name, e.Name)
	err = a.st.Update(func(tx store.Tx) (err error) {
		e, err = catalog.Pause(tx, e.Name, reason, false, time.Now().UTC().Truncate(time.Second))
		return err
	})
	if err != nil {
		e.Paused = reason
	}
	return e
}

// installEntry installs the active revision of a catalog entry.
func (a *App) installEntry(ctx context.Context, e catalog.Entry) error {
	var files map[string][]byte
	err := a.st.View(func(r store.Reader) (err error) {
		files, err = catalog.Files(r, e.Revision)
		return err
	})
	if err != nil {
		return err
	}
	b, err := bundle.FromFiles(files, e.Name)
	if err != nil {
		return err
	}
	return a.install(ctx, e, b)
}

// install gives the engine a function's revision, in the state that it has to have now. A broker that is not connected is
// no error: it is subscribed when it is.
func (a *App) install(ctx context.Context, e catalog.Entry, b *functions.Bundle) error {
	env, state, reason := a.fit(a.config(), e, b)
	d := &engine.Deployment{Bundle: b, Env: env, Origin: e.Origin, Since: e.Since}
	err := a.engine.Install(ctx, d, state, reason)
	a.schedule.Set(a.engine.Ticks())
	if state == engine.Blocked {
		a.log.Warn("a function is blocked", "function", e.Name, "reason", reason)
	}
	if errors.Is(err, drivers.ErrNotConnected) {
		return nil
	}
	return err
}

// fit says how a function fits this gateway: its env with the settings, and whether it is active, paused or blocked.
func (a *App) fit(cfg *config.Config, e catalog.Entry, b *functions.Bundle) (env []byte, s engine.State, reason string) {
	env = []byte("{}")
	values, err := b.Spec.CheckSettings(cfg.Settings[e.Name])
	if err == nil {
		env, err = json.Marshal(values)
	}
	if err != nil {
		return env, engine.Blocked, err.Error()
	}
	if err := b.Spec.CheckRequires(a.opt.Version); err != nil {
		return env, engine.Blocked, err.Error()
	}
	if b.Spec.Durability == "power" && cfg.Store.Durability == "crash" {
		return env, engine.Blocked, "needs store.durability: power; this gateway's is crash"
	}
	if b.Spec.Inbox.Full == functions.Block && !cfg.Broker.Embedded() {
		return env, engine.Blocked, "needs the embedded broker for inbox: {full: block}; on another all functions share a session, and one that blocks would stop them all"
	}
	if why := a.lacks(b.Spec); why != "" {
		return env, engine.Blocked, why
	}
	if e.Paused != "" {
		return env, engine.Paused, e.Paused
	}
	return env, engine.Active, ""
}

// lacks says what a function needs that this gateway does not have.
func (a *App) lacks(spec *functions.Spec) string {
	need := spec.Needs()
	var missing, todo []string
	for _, name := range need.Devices {
		switch d := a.devices.get(name); {
		case d == nil:
			missing = append(missing, fmt.Sprintf("device %q", name))
			todo = append(todo, "devices:")
		case slices.Contains(need.Writes, name) && d.Actuator == nil && (d.Feed == nil || d.Feed.Write == ""):
			missing = append(missing, fmt.Sprintf("device %q to be writable", name))
		}
	}
	for _, name := range need.Secrets {
		if _, err := a.secrets.Get(name); err != nil {
			missing = append(missing, fmt.Sprintf("secret %q", name))
			todo = append(todo, "secrets:")
		}
	}
	if len(missing) == 0 {
		return ""
	}
	why := "needs " + strings.Join(missing, ", ")
	if todo = slices.Compact(todo); len(todo) > 0 {
		why += "; add it under " + strings.Join(todo, " or ") + " in gateway.yaml"
	}
	return why
}

// dirChanges is what bringing the directory of functions up to date did, and what is wrong with it.
type dirChanges struct {
	changed, problems []string
}

// syncDir applies the directory of functions to the functions of that origin: new and changed ones are applied, those
// whose folder has gone are removed. A folder that is wrong is reported and changes nothing.
func (a *App) syncDir(ctx context.Context) (done dirChanges, err error) {
	a.problems.clear("folder ")
	dir := a.config().Functions.Dir
	if dir == "" {
		return done, nil
	}
	wrong := func(folder string, err error) {
		a.problems.set("folder "+folder, err)
		done.problems = append(done.problems, err.Error())
		a.log.Error("a function was not taken over", "folder", folder, "error", err)
	}
	found, err := bundle.LoadAll(dir)
	if errors.Is(err, fs.ErrNotExist) {
		// A slip of the pen or a disk that is not there must not turn what waits into dead letters.
		if n := len(a.fromDir()); n > 0 {
			wrong(dir, fmt.Errorf("there is no directory %s, and %d functions came from it: they stay; make it again, empty to remove them", dir, n))
		}
		return done, nil
	}
	if err != nil {
		return done, err
	}
	here := map[string]bool{}
	var deployed []*functions.Bundle
	for _, f := range found {
		if f.Err != nil {
			here[f.Folder] = true
			wrong(f.Folder, f.Err)
			continue
		}
		name := f.Bundle.Spec.Name
		here[name] = true
		r, err := a.deploy(ctx, f.Bundle, catalog.FromDir, false, false)
		if err != nil {
			wrong(f.Folder, err)
			continue
		}
		if r.Action != "unchanged" {
			done.changed = append(done.changed, fmt.Sprintf("function %s %s", name, r.Action)+because(r.State, r.Reason))
			a.log.Info("a function was "+r.Action, "function", name, "revision", r.Revision, "state", r.State, "origin", catalog.FromDir)
			deployed = append(deployed, f.Bundle)
		}
	}
	for _, b := range deployed { // now that all are here, which they may wait for
		for _, w := range a.warnings(b) {
			a.log.Warn("a function was taken over with a warning", "function", b.Spec.Name, "warning", w)
		}
	}
	return done, a.removeGone(ctx, found, here, &done)
}

// fromDir lists the functions that came from the directory.
func (a *App) fromDir() (names []string) {
	for _, f := range a.engine.Functions() {
		if f.Dep.Origin == catalog.FromDir {
			names = append(names, f.Name)
		}
	}
	return names
}

// removeGone removes the functions whose folder has gone. A folder that cannot be read and bears no function's name may be that
// of any of them: then all stay until it is mended.
func (a *App) removeGone(ctx context.Context, found []bundle.Found, here map[string]bool, done *dirChanges) error {
	names := a.fromDir()
	for _, f := range found {
		if f.Err != nil && !slices.Contains(names, f.Folder) {
			return nil
		}
	}
	for _, name := range names {
		if here[name] {
			continue
		}
		if err := a.remove(ctx, name); err != nil {
			return err
		}
		done.changed = append(done.changed, fmt.Sprintf("function %s removed", name))
		a.log.Info("a function was removed since its folder is gone", "function", name)
	}
	return nil
}

// because adds why a function does not run, and its state if the words before do not say it.
func because(state, reason string) string {
	switch {
	case reason == "":
		return ""
	case state == "":
		return ": " + reason
	}
	return ", " + state + ": " + reason
}

// deploy checks a bundle and makes it the active revision of its function. The caller holds deploying.
func (a *App) deploy(ctx context.Context, b *functions.Bundle, origin string, take, dry bool) (*api.ApplyResult, error) {
	name := b.Spec.Name
	if err := b.Spec.CheckRequires(a.opt.Version); err != nil {
		return nil, api.Errorf("bad-request", "%v", err)
	}
	var was catalog.Entry
	err := a.st.View(func(r store.Reader) (err error) {
		was, err = catalog.Get(r, name)
		return err
	})
	if err != nil && !errors.Is(err, catalog.ErrNotFound) {
		a.log.Warn("a damaged entry of the catalog is replaced", "function", name, "error", err)
	}
	res := &api.ApplyResult{Name: name, Revision: short(b.Digest), Previous: short(was.Revision), Action: "changed"}
	switch was.Revision {
	case "":
		res.Action = "created"
	case b.Digest:
		res.Action = "unchanged"
	}
	e := catalog.Entry{Name: name, Origin: origin, Revision: b.Digest, Since: time.Now().UTC().Truncate(time.Second)}
	if res.Action == "unchanged" && was.Origin == origin {
		return a.unchanged(res, was, b), nil
	}
	if fault := a.pool.Check(ctx, b); fault != nil {
		return nil, api.Errorf("bad-request", "function %s: %s", name, fault.Message).WithHint("%s", orElse(fault.Hint, "correct it and apply it again; function "+name+" was not changed"))
	}
	now := e
	if dry {
		now.Paused = was.Paused
	} else {
		err := a.st.Update(func(tx store.Tx) (err error) {
			now, err = catalog.Put(tx, e, b.Files, take)
			tx.Urgent()
			return err
		})
		if err == nil {
			err = a.st.Flush(ctx)
		}
		if err != nil {
			return nil, deployError(err)
		}
	}
	if res.Action == "created" && !dry {
		now = a.verifyState(now) // it may be back after damage, and its state is not
	}
	_, state, reason := a.fit(a.config(), now, b)
	res.State, res.Reason = string(state), reason
	res.Warnings = a.warnings(b)
	if dry {
		if was.Origin != "" && was.Origin != origin && !take {
			return nil, deployError(&catalog.OriginError{Name: name, Has: was.Origin, Want: origin})
		}
		return res, nil
	}
	a.problems.set("function "+name, nil)
	return res, a.install(ctx, now, b)
}

// unchanged answers for a bundle that is active already. Its state may have changed with the configuration.
func (a *App) unchanged(res *api.ApplyResult, e catalog.Entry, b *functions.Bundle) *api.ApplyResult {
	_, state, reason := a.fit(a.config(), e, b)
	res.State, res.Reason = string(state), reason
	return res
}

// warnings are what is not wrong but most likely not meant.
func (a *App) warnings(b *functions.Bundle) (out []string) {
	if !a.broker.Connected() && a.ready.Load() && !a.config().Broker.Embedded() {
		out = append(out, "the broker is not connected: the function is subscribed when it is")
	}
	if len(b.Spec.Permissions.Streams) > 0 && len(a.config().Uplinks) == 0 {
		out = append(out, "it appends to a stream, and there is no uplink: records wait on this gateway (see uplinks: in the configuration)")
	}
	if most := a.config().Workers.Memory / 2; units.Size(b.Spec.Limits.Memory) > most {
		out = append(out, fmt.Sprintf("limits.memory: it gets %v, half of what a worker of this gateway may use (see workers.memory in the configuration)", most))
	}
	for _, t := range b.Spec.Triggers {
		if w := a.missingTrigger(b.Spec, t); w != "" {
			out = append(out, w)
		}
	}
	for _, f := range b.Spec.Permissions.Publish {
		if topic.Covers(ownTopics, f) {
			out = append(out, fmt.Sprintf("permissions.publish: %s has no effect, functions may never publish under the gateway's own topics (%s)", f, ownTopics))
		}
	}
	if w := a.circleWarning(b); w != "" {
		out = append(out, w)
	}
	return out
}

// ownTopics are those under the engine's prefix, where only the gateway publishes.
const ownTopics = functions.OwnTopics + "/#"

// missingTrigger says that a trigger waits for a function that this gateway does not have, "" if it does not.
func (a *App) missingTrigger(spec *functions.Spec, t functions.Trigger) string {
	name := t.Function
	if t.State != "" {
		name, _, _ = strings.Cut(t.State, "/")
	}
	if name == "" || name == spec.Name {
		return ""
	}
	var names []string
	for _, f := range a.engine.Functions() {
		if f.Name == name {
			return ""
		}
		names = append(names, f.Name)
	}
	w := fmt.Sprintf("it waits for the function %q, which this gateway does not have", name)
	if near := yamlfile.Nearest(name, names); near != "" {
		return w + fmt.Sprintf("; did you mean %q?", near)
	}
	return w + " yet: apply that too"
}

func deployError(err error) error {
	var origin *catalog.OriginError
	switch {
	case errors.As(err, &origin):
		return api.Errorf("conflict", "%v", err)
	case errors.Is(err, catalog.ErrBounds):
		return api.Errorf("bad-request", "%v", err)
	case errors.Is(err, store.ErrFull):
		return api.Errorf("unavailable", "the function was not stored: %v", err).WithHint("make room on the disk, or lower store.min_free")
	}
	return err
}

// remove takes a function out of the catalog and the engine. The caller holds deploying.
func (a *App) remove(ctx context.Context, name string) error {
	err := a.st.Update(func(tx store.Tx) error {
		tx.Urgent()
		return catalog.Remove(tx, name)
	})
	if err == nil {
		err = a.st.Flush(ctx)
	}
	if err != nil && !errors.Is(err, catalog.ErrNotFound) {
		return err
	}
	a.problems.set("function "+name, nil)
	a.problems.set("state "+name, nil)
	err = a.engine.Remove(ctx, name)
	a.schedule.Set(a.engine.Ticks())
	if errors.Is(err, drivers.ErrNotConnected) {
		return nil
	}
	return err
}

// refit looks again at which functions fit, after the configuration has changed.
func (a *App) refit(ctx context.Context) (changed []string, err error) {
	for _, f := range a.engine.Functions() {
		var e catalog.Entry
		err := a.st.View(func(r store.Reader) (err error) {
			e, err = catalog.Get(r, f.Name)
			return err
		})
		if err != nil {
			return changed, err
		}
		env, state, reason := a.fit(a.config(), e, f.Dep.Bundle)
		if state == f.State && reason == f.Reason && string(env) == string(f.Dep.Env) {
			continue
		}
		if err := a.install(ctx, e, f.Dep.Bundle); err != nil {
			return changed, err
		}
		changed = append(changed, fmt.Sprintf("function %s %s", f.Name, state)+because("", reason))
	}
	return changed, nil
}

func short(digest string) string { return digest[:min(len(digest), 12)] }

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}
