package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/perigee-iot/perigee/gateway/api"
)

// maxPayload bounds what is read from a file or standard input; the gateway has a limit of its own and says it.
const maxPayload = 1 << 20

func invokeCommand() *command {
	return &command{
		name: "invoke", usage: "NAME", brief: "run a function once on an event made by hand", min: 1, max: 1,
		text: `The event is like any other: its effects happen. It exits with 1 if the function did not commit. With --dry-run it runs on the state of
now and says what it would do, and nothing is done.`,
		flags: []cli.Flag{
			&cli.StringFlag{Name: "data", Usage: "the payload: `JSON`, @FILE, or - for standard input"},
			&cli.StringFlag{Name: "topic", Usage: "as if it came on `TOPIC`"},
			&cli.StringSliceFlag{Name: "param", Usage: "event.params, as `NAME=VALUE`; may be repeated"},
			&cli.StringFlag{Name: "key", Usage: "the `KEY`, instead of the one that follows from the event"},
			&cli.BoolFlag{Name: "dry-run", Usage: "say what it would do, and do nothing"},
		},
		examples: []string{
			`perigee functions invoke overheat --data '{"temperature": 31}' --param room=cellar`,
			"perigee functions invoke overheat --data @reading.json --topic zigbee2mqtt/cellar",
			"perigee functions invoke overheat --data '{\"temperature\": 31}' --param room=cellar --dry-run",
		},
		run: invoke,
	}
}

func invoke(c *call) error {
	req := &api.InvokeRequest{Topic: c.String("topic"), Dry: c.Bool("dry-run")}
	if c.IsSet("data") {
		b, err := c.payload(c.String("data"))
		if err != nil {
			return err
		}
		if !json.Valid(b) {
			return usagef("--data is not JSON: %.60s", b).withHint(`a text needs quotes: '"warm"'`)
		}
		req.Data = b
	}
	for _, p := range c.StringSlice("param") {
		name, value, ok := strings.Cut(p, "=")
		if !ok || name == "" {
			return usagef("--param %s has no name: write NAME=VALUE", p)
		}
		if req.Params == nil {
			req.Params = map[string]string{}
		}
		req.Params[name] = value
	}
	if c.IsSet("key") {
		key := c.String("key")
		req.Key = &key
	}
	gw, err := c.gateway()
	if err != nil {
		return err
	}
	r, err := gw.Invoke(c.ctx, c.args[0], req)
	if err != nil {
		return err
	}
	if c.json() {
		err = c.out.json(r)
	} else {
		writeInvoked(c.out, r)
	}
	if err == nil && r.Outcome != "committed" {
		return &exitError{ExitFailed}
	}
	return err
}

func writeInvoked(out *printer, r *api.Invoked) {
	for _, l := range r.Logs {
		out.line("%-5s %s", out.state(l.Level), safe(l.Text, 0))
	}
	for _, e := range r.Effects {
		out.line("→ %s", safe(e, 0))
	}
	if len(r.Result) > 0 {
		out.line("= %s", r.Result)
	}
	if r.Fault != nil {
		writeIndented(out, r.Fault.Text())
	}
	if r.Dry {
		out.line("would be %s, in %s (%s CPU); nothing was done", out.state(r.Outcome), span(r.Wall), span(r.CPU))
		return
	}
	out.line("%s in %s (%s CPU), event %s", out.state(r.Outcome), span(r.Wall), span(r.CPU), r.EventID)
}

// payload reads a value of the command line: itself, @FILE, or - for standard input; 1 MiB at most.
func (c *call) payload(value string) ([]byte, error) {
	var in io.Reader
	switch {
	case value == "-":
		in = c.p.opts.Stdin
	case strings.HasPrefix(value, "@"):
		f, err := os.Open(value[1:])
		if errors.Is(err, fs.ErrNotExist) {
			return nil, usagef("there is no file %s", value[1:]).withHint("write @ before the name of a file with the payload, or the payload itself")
		}
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	default:
		return []byte(value), nil
	}
	b, err := io.ReadAll(io.LimitReader(in, maxPayload+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", value, err)
	}
	if len(b) > maxPayload {
		return nil, usagef("%s is larger than %s", value, size(maxPayload))
	}
	return b, nil
}
