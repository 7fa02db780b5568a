package cli

import (
	"time"

	"github.com/urfave/cli/v2"

	"github.com/perigee-iot/perigee/gateway/config"
)

func runCommand() *command {
	return &command{
		name: "run", brief: "run the gateway", local: true, plain: true,
		text: `It runs until it is interrupted (SIGINT, SIGTERM), and takes over a changed configuration on SIGHUP or "perigee reload".
Without a configuration file everything has a default: see configs/gateway.yaml.`,
		examples: []string{
			"perigee run",
			"perigee run --config /etc/perigee/gateway.yaml",
			"perigee run --data-dir /tmp/try --broker tcp://192.168.1.10:1883",
		},
		flags: []cli.Flag{
			&cli.StringFlag{Name: "config", Usage: "the configuration `FILE` (default: ./gateway.yaml, else /etc/perigee/gateway.yaml)"},
			&cli.StringFlag{Name: "data-dir", Usage: "keep everything in `DIR`"},
			&cli.StringFlag{Name: "socket", Usage: "the control `SOCKET` (default: perigee.sock in the data directory)"},
			&cli.StringFlag{Name: "broker", Usage: "use the MQTT broker at `URL`, or \"embedded\""},
			&cli.StringFlag{Name: "log-level", Usage: "`LEVEL` is debug, info, warn or error"},
		},
		run: func(c *call) error {
			o := RunOptions{File: c.String("config"), Overrides: config.Overrides{
				DataDir: c.String("data-dir"), Socket: c.String("socket"), Broker: c.String("broker"), LogLevel: c.String("log-level")}}
			conf, err := c.p.validConfig(o.File, o.Overrides)
			if err != nil {
				return err
			}
			o.Config = conf
			if c.p.opts.Run == nil {
				return usagef("this program has no gateway in it")
			}
			return c.p.opts.Run(c.ctx, o)
		},
	}
}

// validConfig loads and validates; what is wrong with it is an error of usage.
func (p *Program) validConfig(file string, o config.Overrides) (*config.Config, error) {
	conf, err := config.LoadValid(file, o, p.opts.Kinds, p.opts.Devices)
	if err != nil {
		return nil, usagef("%s", err)
	}
	return conf, nil
}

func demoCommand() *command {
	return &command{
		name: "demo", brief: "a gateway, devices, functions and a cloud in one, to look at", local: true, plain: true,
		text: `It runs a gateway with simulated devices and example functions, and counts at the far ends what arrives. Keys cut the link to the
cloud, kill the gateway with -9 and let hostile functions in. Everything lives in one directory, which stays: saving a function
there takes effect at once. Where there is no terminal, it writes a line a second.`,
		examples: []string{"perigee demo", "perigee demo --dir /tmp/try", "perigee demo --plain --seconds 30"},
		flags: []cli.Flag{
			&cli.StringFlag{Name: "dir", Usage: "keep everything in `DIR` (default: perigee-demo)"},
			&cli.IntFlag{Name: "seconds", Usage: "end after `N` seconds; 1 if anything was lost or doubled"},
			&cli.BoolFlag{Name: "plain", Usage: "lines instead of the live view"},
		},
		run: func(c *call) error {
			if c.p.opts.Demo == nil {
				return usagef("this program has no demo in it")
			}
			if c.Int("seconds") < 0 {
				return usagef("--seconds %d is not a time", c.Int("seconds"))
			}
			return c.p.opts.Demo(c.ctx, DemoOptions{Dir: c.String("dir"), For: time.Duration(c.Int("seconds")) * time.Second, Plain: c.Bool("plain"),
				Stdin: c.p.opts.Stdin, Stdout: c.p.opts.Stdout})
		},
	}
}
