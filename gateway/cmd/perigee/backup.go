package main

import (
	"context"
	"io"
	"log/slog"
	"os"

	"github.com/perigee-iot/perigee/gateway/app"
	"github.com/perigee-iot/perigee/gateway/cli"
	"github.com/perigee-iot/perigee/gateway/config"
	"github.com/perigee-iot/perigee/internal/store"
)

// storeLog tells a person what the store warns of.
func storeLog() *slog.Logger {
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// saveStore writes a backup of a gateway that does not run.
func saveStore(ctx context.Context, c *config.Config, w io.Writer) error {
	return app.BackupOf(ctx, c, app.Version(version, buildInfo()), storeLog(), w)
}

// restoreStore makes the store of a gateway that does not run from a backup.
func restoreStore(ctx context.Context, c *config.Config, o cli.RestoreOptions) (*cli.Restored, error) {
	got, err := app.Restore(ctx, c, storeLog(), o.KeyFile, store.RestoreOptions{Replace: o.Replace, OnProgress: o.OnProgress}, o.File)
	if err != nil {
		return nil, err
	}
	return &cli.Restored{Summary: got.Summary, NewEpoch: got.NewEpoch, Replaced: got.Replaced}, nil
}
