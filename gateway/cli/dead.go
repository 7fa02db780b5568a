package cli

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/urfave/cli/v2"

	"github.com/perigee-iot/perigee/gateway/api"
)

func deadCommand() *command {
	selection := func(all bool) []cli.Flag {
		f := []cli.Flag{
			&cli.StringFlag{Name: "function", Usage: "only those of function `NAME`"},
			&cli.StringFlag{Name: "revision", Usage: "only those that `REVISION` failed on"},
		}
		if all {
			f = append(f, &cli.BoolFlag{Name: "all", Usage: "all that --function and --revision select"})
		}
		return f
	}
	return &command{
		name: "dead", brief: "events whose function failed for good",
		text: "They are kept with their fault until they are replayed or dropped.",
		sub: []*command{
			{
				name: "list", brief: "the letters, newest first",
				flags:    append(selection(false), &cli.IntFlag{Name: "limit", Usage: "`N` at most", Value: 100}),
				examples: []string{"perigee dead list", "perigee dead list --function overheat --json"},
				run:      listDead,
			},
			{
				name: "show", usage: "ID", brief: "one letter with its fault and its payload", min: 1, max: 1,
				flags:    []cli.Flag{&cli.BoolFlag{Name: "payload", Usage: "the payload alone, as it came"}},
				examples: []string{"perigee dead show d1", "perigee dead show d1 --payload > letter.json"},
				run:      showDead,
			},
			{
				name: "replay", usage: "ID… | --all", brief: "run the function again, outside the order of its key", max: -1,
				text: `The oldest goes first. With --dry-run each letter is run on the state of now and it is said what would come of it: nothing is done, the
letters stay, and it exits with 1 if one would fail again.`,
				flags: append(selection(true),
					&cli.StringFlag{Name: "data", Usage: "with this payload instead: a `FILE`, or - for standard input"},
					&cli.BoolFlag{Name: "edit", Usage: "change the payload in $VISUAL or $EDITOR first"},
					&cli.BoolFlag{Name: "dry-run", Usage: "say what it would do, and do nothing"}),
				examples: []string{"perigee dead replay d1", "perigee dead replay d1 --edit", "perigee dead replay d1 --data mended.json --dry-run",
					"perigee dead replay --all --function overheat", "perigee dead replay --all --revision 1f0c5a2b9e77 --dry-run"},
				run: replayDead,
			},
			{
				name: "drop", usage: "ID… | --all", brief: "remove letters for good", max: -1,
				flags:    append(selection(true), &cli.BoolFlag{Name: "dry-run", Usage: "say which letters, and do nothing"}),
				examples: []string{"perigee dead drop d1 d2", "perigee dead drop --all --function overheat --revision 1f0c5a2b9e77"},
				run: func(c *call) error {
					return c.eachLetter("dropped", "", func(gw *api.Client, id string) error {
						if !c.Bool("dry-run") {
							return gw.Drop(c.ctx, id)
						}
						d, err := gw.DeadLetter(c.ctx, id)
						if err == nil && !c.json() {
							c.out.line("%s  %s, %s %s", d.ID, d.Function, d.Type, safe(d.Subject, 80))
						}
						return err
					})
				},
			},
		},
	}
}

func listDead(c *call) error {
	gw, err := c.gateway()
	if err != nil {
		return err
	}
	letters, err := gw.DeadLetters(c.ctx, api.DeadQuery{Function: c.String("function"), Revision: c.String("revision"), Limit: c.Int("limit")})
	if err != nil {
		return err
	}
	if c.json() {
		return c.out.json(letters)
	}
	if len(letters) == 0 {
		c.out.line("no dead letters")
		return nil
	}
	rows := [][]string{{"ID", "FUNCTION", "REVISION", "KEY", "SUBJECT", "SINCE", "TRIED", "REASON"}}
	for _, d := range letters {
		reason := d.Reason
		if d.Fault != nil && reason != "removed" { // the word that the guides have for it
			reason = d.Fault.Error()
		}
		rows = append(rows, []string{d.ID, d.Function, short(d.Revision), safe(d.Key, 24), safe(d.Subject, 40), clock(d.Since), fmt.Sprint(d.Attempts), safe(reason, 80)})
	}
	c.out.table(rows)
	return nil
}

func showDead(c *call) error {
	gw, err := c.gateway()
	if err != nil {
		return err
	}
	d, err := gw.DeadLetter(c.ctx, c.args[0])
	if err != nil {
		return err
	}
	if c.Bool("payload") {
		_, err := c.out.Write(d.Data)
		return err
	}
	if c.json() {
		return c.out.json(d)
	}
	out := c.out
	row := func(name, format string, args ...any) { out.line("%-9s %s", name, fmt.Sprintf(format, args...)) }
	out.line("%s  %s of %s", out.bold(d.ID), out.bad(d.Reason), d.Function)
	row("event", "%s, %s %s", d.EventID, d.Type, safe(d.Subject, 0))
	row("key", "%q", d.Key)
	row("time", "%s, dead since %s", clock(d.Time), clock(d.Since))
	row("tried", "%d times, last by revision %s", d.Attempts, short(d.Revision))
	if utf8.Valid(d.Data) {
		row("payload", "%s: %s", size(int64(d.Size)), safe(string(d.Data), 2000))
	} else {
		row("payload", "%s, not text", size(int64(d.Size)))
	}
	if d.Fault != nil {
		writeIndented(out, d.Fault.Text())
	}
	return nil
}

func replayDead(c *call) error {
	data, err := c.newPayload()
	if err != nil {
		return err
	}
	again := 0
	err = c.eachLetter("replayed", ", outside the order of its key", func(gw *api.Client, id string) error {
		if !c.Bool("dry-run") {
			return gw.Replay(c.ctx, id, data)
		}
		r, err := gw.TryReplay(c.ctx, id, data)
		if err != nil {
			return err
		}
		if r.Outcome != "committed" {
			again++
		}
		if c.json() {
			return c.out.jsonLine(struct {
				Letter string `json:"letter"`
				*api.Invoked
			}{id, r})
		}
		c.out.line("%s", c.out.bold(id))
		writeInvoked(c.out, r)
		return nil
	})
	if err == nil && again > 0 {
		return &exitError{ExitFailed}
	}
	return err
}

// newPayload is what --data or --edit give a letter; nil: it keeps its own.
func (c *call) newPayload() ([]byte, error) {
	name, edit := c.String("data"), c.Bool("edit")
	switch {
	case name == "" && !edit:
		return nil, nil
	case name != "" && edit:
		return nil, usagef("--data and --edit exclude each other")
	case c.Bool("all") || len(c.args) != 1:
		return nil, usagef("--data and --edit are for one letter: give its ID")
	case edit:
		return c.edited(c.args[0])
	}
	source := name
	if name != "-" {
		source = "@" + name
	}
	b, err := c.payload(source)
	if b == nil {
		b = []byte{}
	}
	return b, err
}

// eachLetter does one thing to the letters that are named, or with --all to all that are selected.
// more stands behind what was done to one.
func (c *call) eachLetter(did, more string, do func(gw *api.Client, id string) error) error {
	all := c.Bool("all")
	switch {
	case all && len(c.args) > 0:
		return usagef("--all and an ID exclude each other")
	case !all && (c.String("function") != "" || c.String("revision") != ""):
		return usagef("--function and --revision select among all: add --all")
	case !all && len(c.args) == 0:
		return usagef("which letters? give IDs, or --all").withHint("see: perigee dead list")
	}
	gw, err := c.gateway()
	if err != nil {
		return err
	}
	ids := c.args
	if all {
		letters, err := gw.DeadLetters(c.ctx, api.DeadQuery{Function: c.String("function"), Revision: c.String("revision"), Limit: math.MaxInt32})
		if err != nil {
			return err
		}
		for _, d := range slices.Backward(letters) { // the oldest first
			ids = append(ids, d.ID)
		}
	}
	n := 0
	err = c.each(ids, func(id string) error {
		if err := do(gw, id); err != nil {
			return err
		}
		n++
		return nil
	})
	if c.Bool("dry-run") {
		if !c.json() {
			c.out.line("%s would be %s; nothing was done", plural(int64(n), "letter"), did)
		} else if err == nil {
			err = c.out.jsonLine(map[string]any{did: n, "dry_run": true})
		}
		return err
	}
	if c.json() {
		return orElse(err, c.out.jsonLine(map[string]int{did: n}))
	}
	if n != 1 {
		more = strings.Replace(more, "its key", "their keys", 1)
	}
	if n == 0 {
		more = ""
	}
	c.out.line("%s %s%s", plural(int64(n), "letter"), did, more)
	return err
}

func orElse(first, second error) error {
	if first != nil {
		return first
	}
	return second
}
