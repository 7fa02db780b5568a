// Perigee is a gateway that runs small sandboxed functions next to the sensors, and the command line to manage it.
package main

import (
	"context"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/perigee-iot/perigee/functions/cases/stage"
	"github.com/perigee-iot/perigee/functions/worker"
	"github.com/perigee-iot/perigee/gateway/app"
	"github.com/perigee-iot/perigee/gateway/cli"
	"github.com/perigee-iot/perigee/gateway/config"
)

// version is set by the linker.
var version string

func main() {
	worker.MainIfWorker()
	os.Exit(run())
}

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	p := cli.New(cli.Options{
		Version: app.Version(version, buildInfo()),
		Kinds:   app.KindNames(),
		Devices: app.CheckDevices,
		Run:     gateway,
		Layers:  app.Layers,
		Worker:  worker.Main,
		Demo:    showDemo,
		Backup:  saveStore,
		Restore: restoreStore,
		Stage:   func() (cli.Stage, error) { return stage.Open(nil) },
	})
	return p.Main(ctx, os.Args)
}

// gateway runs the daemon until ctx ends. SIGHUP makes it read its configuration anew.
func gateway(ctx context.Context, o cli.RunOptions) error {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	log, level := app.NewLog(os.Stderr, o.Config.Log)
	return app.Run(ctx, app.Options{
		Config: o.Config,
		Load: func() (*config.Config, error) {
			return config.LoadValid(o.File, o.Overrides, app.KindNames(), app.CheckDevices)
		},
		Version: app.Version(version, buildInfo()),
		Log:     log,
		Level:   level,
	}, hup)
}

func buildInfo() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		return info.Main.Version
	}
	return ""
}
