package app

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/perigee-iot/perigee/drivers"
	"github.com/perigee-iot/perigee/drivers/all"
	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/functions/bundle"
	"github.com/perigee-iot/perigee/gateway/api"
	"github.com/perigee-iot/perigee/gateway/config"
)

// Reload reads the configuration anew and takes over what can change while the gateway runs: functions, devices,
// streams, settings and the log level. All that can be wrong is checked first, so that a bad configuration leaves the
// old one in force. Other changes are named and need a restart.
func (a *App) Reload(ctx context.Context) (*api.ReloadResult, error) {
	a.deploying.Lock()
	defer a.deploying.Unlock()
	res := &api.ReloadResult{}
	if a.opt.Load != nil {
		next, err := a.opt.Load()
		if err != nil {
			return nil, api.Errorf("bad-request", "%v", err)
		}
		if err := next.Validate(kindNames()); err != nil {
			return nil, api.Errorf("bad-request", "%v", err)
		}
		if err := a.checkSettings(next); err != nil {
			return nil, api.Errorf("bad-request", "%v", err)
		}
		if err := a.takeOver(ctx, next, res); err != nil {
			return nil, err
		}
	}
	a.secrets.Load(secretFiles(a.config())) // the files may have changed where the configuration has not
	a.noteSecrets()
	done, err := a.syncDir(ctx)
	res.Changed, res.Problems = append(res.Changed, done.changed...), done.problems
	if err != nil {
		return res, fmt.Errorf("read the functions anew: %w", err)
	}
	changed, err := a.refit(ctx)
	res.Changed = append(res.Changed, changed...)
	return res, err
}

// checkSettings finds settings that would block a function which runs well with those in force. Where a function is to be taken over from the
// directory, its new revision counts: both may change together.
func (a *App) checkSettings(next *config.Config) error {
	specs := map[string]*functions.Spec{}
	for _, f := range a.engine.Functions() {
		specs[f.Name] = f.Dep.Bundle.Spec
	}
	was := maps.Clone(specs)
	if next.Functions.Dir != "" {
		found, _ := bundle.LoadAll(next.Functions.Dir) // what is wrong with it is said where it is taken over
		for _, f := range found {
			if f.Err == nil {
				specs[f.Bundle.Spec.Name] = f.Bundle.Spec
			}
		}
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(was)) {
		if _, err := was[name].CheckSettings(a.config().Settings[name]); err != nil {
			continue
		}
		_, err := specs[name].CheckSettings(next.Settings[name])
		errs = append(errs, next.At(err, "settings", name))
	}
	return errors.Join(errs...)
}

// takeOver puts the live parts of a new configuration in force.
func (a *App) takeOver(ctx context.Context, next *config.Config, res *api.ReloadResult) error {
	live, restart := config.Diff(a.config(), next)
	res.Restart = restart
	set, as, err := a.devices.build(next, a.devices.set(), a.devices.as)
	if err != nil {
		return api.Errorf("bad-request", "%v", err)
	}
	if err := a.box.Configure(firstUplink(a.config()), streams(next)); err != nil {
		return api.Errorf("bad-request", "streams: %v", err)
	}
	changed, err := a.changeDevices(ctx, set, as)
	if err != nil && !errors.Is(err, drivers.ErrNotConnected) {
		return err
	}
	if a.opt.Level != nil {
		a.opt.Level.Set(next.Log.SlogLevel())
	}
	// What needs a restart stays as it is, in the configuration in force too.
	merged := *a.config()
	merged.Functions, merged.Devices, merged.Streams, merged.Settings = next.Functions, next.Devices, next.Streams, next.Settings
	merged.Secrets = next.Secrets
	merged.Log.Level = next.Log.Level
	a.cfg.Store(&merged)
	res.Changed = append(append(res.Changed, live...), changed...)
	return nil
}

// secretFiles are the files of the secrets by their names.
func secretFiles(cfg *config.Config) map[string]string {
	files := map[string]string{}
	for name, s := range cfg.Secrets {
		files[name] = s.File
	}
	return files
}

// noteSecrets keeps what is wrong with the files of secrets where status shows it.
func (a *App) noteSecrets() {
	a.problems.clear("secret ")
	for i, err := range a.secrets.Problems() {
		a.problems.set(fmt.Sprintf("secret %d", i), err)
		a.log.Warn("a secret cannot be read", "error", err)
	}
}

func firstUplink(cfg *config.Config) string {
	if len(cfg.Uplinks) == 0 {
		return ""
	}
	return cfg.Uplinks[0].Name
}

// kindNames lists the kinds of devices that this version has.
func kindNames() (out []string) {
	for _, k := range all.Kinds() {
		out = append(out, k.Name)
	}
	return out
}

// KindNames lists the kinds of devices that this version has, for the check of a configuration.
func KindNames() []string { return kindNames() }
