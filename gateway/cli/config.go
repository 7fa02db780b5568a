package cli

import (
	"bytes"
	"encoding/json"

	"github.com/urfave/cli/v2"

	"github.com/perigee-iot/perigee/gateway/config"
)

func configCommand() *command {
	flags := []cli.Flag{
		&cli.StringFlag{Name: "config", Usage: "the configuration `FILE` (default: ./gateway.yaml, else /etc/perigee/gateway.yaml)"},
		&cli.StringFlag{Name: "data-dir", Usage: "as if run with this data `DIR`"},
	}
	return &command{
		name: "config", brief: "look at the configuration",
		sub: []*command{
			{
				name: "check", brief: "say what is wrong with the file", local: true, plain: true, flags: flags,
				text:     "Every mistake is a line with file, line and column. The gateway need not run.",
				examples: []string{"perigee config check", "perigee config check --config gateway.yaml"},
				run: func(c *call) error {
					conf, err := c.p.validConfig(c.String("config"), config.Overrides{DataDir: c.String("data-dir")})
					if err != nil {
						return err
					}
					if conf.File == "" {
						c.out.line("there is no configuration file: the defaults hold")
					} else {
						c.out.line("%s is right", conf.File)
					}
					return nil
				},
			},
			{
				name: "show", brief: "what holds, with all defaults, as JSON",
				flags:    []cli.Flag{&cli.BoolFlag{Name: "running", Usage: "what the running gateway has, instead of the file"}},
				examples: []string{"perigee config show", "perigee config show --running | jq .store"},
				run:      showConfig,
			},
		},
	}
}

func showConfig(c *call) error {
	var raw json.RawMessage
	if c.Bool("running") {
		gw, err := c.gateway()
		if err != nil {
			return err
		}
		if raw, err = gw.Config(c.ctx); err != nil {
			return err
		}
	} else {
		conf, err := c.p.validConfig(c.String("config"), config.Overrides{DataDir: c.String("data-dir"), Socket: c.String("socket")})
		if err != nil {
			return err
		}
		if raw, err = conf.Redacted(); err != nil {
			return err
		}
	}
	var b bytes.Buffer
	if err := json.Indent(&b, raw, "", "  "); err != nil {
		return err
	}
	c.out.line("%s", b.Bytes())
	return nil
}
