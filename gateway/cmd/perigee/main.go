// Perigee is a gateway that runs small sandboxed functions next to the sensors, and the command line to manage it.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/perigee-iot/perigee/functions/worker"
	"github.com/perigee-iot/perigee/gateway/app"
	"github.com/perigee-iot/perigee/gateway/config"
)

func main() {
	worker.MainIfWorker()
	file := ""
	if len(os.Args) > 1 {
		file = os.Args[1]
	}
	load := func() (*config.Config, error) { return config.Load(file, config.Overrides{}) }
	cfg, err := load()
	if err == nil {
		err = cfg.Validate(app.KindNames())
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	log, level := app.NewLog(os.Stderr, cfg.Log)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	if err := app.Run(ctx, app.Options{Config: cfg, Load: load, Version: "0.1.0", Log: log, Level: level}, hup); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}
