package main

import (
	"context"

	"github.com/perigee-iot/perigee/gateway/cli"
	"github.com/perigee-iot/perigee/gateway/demo"
)

// showDemo shows everything on this machine until ctx ends or somebody has seen enough.
func showDemo(ctx context.Context, o cli.DemoOptions) error {
	return demo.Run(ctx, demo.Options{Dir: o.Dir, For: o.For, Plain: o.Plain, Stdin: o.Stdin, Stdout: o.Stdout})
}
