package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/perigee-iot/perigee/gateway/api"
	"github.com/perigee-iot/perigee/gateway/config"
	"github.com/perigee-iot/perigee/internal/backup"
	"github.com/perigee-iot/perigee/internal/store"
)

// storeOptions are the store's options that a configuration says.
func storeOptions(cfg *config.Config, log *slog.Logger) (store.Options, error) {
	o := store.Options{Durability: store.Power, Linger: time.Duration(cfg.Store.Linger), Profile: cfg.Store.Profile, MinFree: int64(cfg.Store.MinFree), Log: log}
	if cfg.Store.Durability == "crash" {
		o.Durability = store.Crash
	}
	if o.Linger == 0 {
		o.Linger = -1
	}
	for _, k := range []struct {
		file string
		into *[]byte
	}{{cfg.Store.KeyFile, &o.Key}, {cfg.Store.OldKeyFile, &o.OldKey}} {
		if k.file == "" {
			continue
		}
		key, err := config.ReadKey(k.file)
		if err != nil {
			return o, fmt.Errorf("the key of the store: %w", err)
		}
		*k.into = key
	}
	return o, nil
}

// Backup writes a backup of the store while the gateway works on.
func (a *App) Backup(ctx context.Context, w io.Writer) error {
	began := time.Now()
	sum, err := a.st.Backup(ctx, w, backup.Header{Gateway: a.config().ID, Version: a.opt.Version})
	switch {
	case errors.Is(err, store.ErrDamaged):
		a.problems.set("backup", fmt.Errorf("no backup can be made: %w", err))
		return api.Errorf(api.CodeUnavailable, "%v", err).WithHint("the disk has changed what was written; after a restart the gateway sets the store aside, and begins with what can be read")
	case err != nil:
		return err
	}
	a.problems.set("backup", nil)
	a.log.Info("a backup was made", "keys", sum.Keys, "bytes", sum.Size, "took", time.Since(began).Round(time.Millisecond))
	return nil
}

// BackupOf writes a backup of a store that no gateway has open.
func BackupOf(ctx context.Context, cfg *config.Config, version string, log *slog.Logger, w io.Writer) error {
	if !store.Exists(cfg.DataDir) {
		return fmt.Errorf("there is no store in %s", cfg.DataDir)
	}
	o, err := storeOptions(cfg, log)
	if err != nil {
		return err
	}
	st, err := store.Open(cfg.DataDir, o)
	if err != nil {
		return err
	}
	_, err = st.Backup(ctx, w, backup.Header{Gateway: cfg.ID, Version: version})
	return errors.Join(err, st.Close(), store.KeepOwner(cfg.DataDir))
}

// Restore makes the store of a gateway that does not run from a backup. KeyFile opens the backup if it is sealed with another key than the
// gateway's; empty if not.
func Restore(ctx context.Context, cfg *config.Config, log *slog.Logger, keyFile string, o store.RestoreOptions, file io.ReadSeeker) (store.Restored, error) {
	var err error
	if o.Options, err = storeOptions(cfg, log); err != nil {
		return store.Restored{}, err
	}
	if keyFile != "" {
		if o.FileKey, err = config.ReadKey(keyFile); err != nil {
			return store.Restored{}, fmt.Errorf("the key of the backup: %w", err)
		}
	}
	done, err := store.Restore(ctx, cfg.DataDir, o, file)
	return done, errors.Join(err, store.KeepOwner(cfg.DataDir))
}

// damageOf says what became of a damaged store.
func damageOf(dir string, s store.Salvaged) error {
	if s.Err != nil {
		return fmt.Errorf("the store was damaged and is set aside in %s; nothing could be taken over (%w), and the gateway began with an empty one: functions of the directory are back, what waited and all state are not",
			dir, s.Err)
	}
	return fmt.Errorf("the store was damaged and is set aside in %s; %d keys could be read and were taken over, the rest is lost (%d damaged tables, %d unreadable values): functions whose state is not whole are paused, and some of what was done may be done again",
		dir, s.Keys, s.Tables, s.Lost)
}
