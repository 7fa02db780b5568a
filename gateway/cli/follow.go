package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/perigee-iot/perigee/gateway/api"
)

func followFlags(what string) []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "follow", Aliases: []string{"f"}, Usage: "go on with what comes, until interrupted"},
		&cli.IntFlag{Name: "limit", Usage: "the last `N` " + what, Value: 100},
	}
}

func logsCommand() *command {
	return &command{
		name: "logs", usage: "[NAME]", brief: "what functions logged, faults included", max: 1,
		flags:    followFlags("lines"),
		examples: []string{"perigee functions logs overheat", "perigee functions logs -f", "perigee fn logs overheat --limit 5 --json"},
		run: func(c *call) error {
			q := api.LogQuery{Follow: c.Bool("follow"), Limit: c.Int("limit")}
			if len(c.args) > 0 {
				q.Function = c.args[0]
			}
			gw, err := c.gateway()
			if err != nil {
				return err
			}
			return c.followed(gw.Logs(c.ctx, q, func(l api.LogLine) error {
				if c.json() {
					return c.out.jsonLine(l)
				}
				writeLog(c.out, l)
				return nil
			}))
		},
	}
}

func writeLog(out *printer, l api.LogLine) {
	out.line("%s %s %s %s", out.dim(clock(l.Time)), pad(out.state(l.Level), 5), l.Function, safe(l.Text, 0))
	if l.Fault == nil {
		return
	}
	for _, t := range l.Fault.Traceback {
		out.line("    %s", safe(t, 0))
	}
	if l.Fault.Hint != "" {
		out.line("    hint: %s", safe(l.Fault.Hint, 0))
	}
}

func pad(s string, width int) string {
	return s + strings.Repeat(" ", max(width-visible(s), 0))
}

func eventsCommand() *command {
	return &command{
		name: "events", brief: "what came in, what it caused, and why a function did not run",
		flags: append(followFlags("events"),
			&cli.StringFlag{Name: "topic", Usage: "only those whose subject matches the MQTT `FILTER`"},
			&cli.StringFlag{Name: "function", Usage: "only those that concern function `NAME`"}),
		examples: []string{"perigee events -f", "perigee events --topic 'zigbee2mqtt/#' --limit 10", "perigee events show 01J9ZQ4W"},
		run: func(c *call) error {
			q := api.EventQuery{Follow: c.Bool("follow"), Limit: c.Int("limit"), Topic: c.String("topic"), Function: c.String("function")}
			gw, err := c.gateway()
			if err != nil {
				return err
			}
			view := newLives(c.out)
			return c.followed(gw.Events(c.ctx, q, func(l api.Life) error {
				if c.json() {
					return c.out.jsonLine(l)
				}
				view.show(l)
				return nil
			}))
		},
		sub: []*command{{
			name: "show", usage: "ID", brief: "one event, from its source to the acknowledgement of the cloud", min: 1, max: 1,
			text: `ID is an event that is remembered: one of the last 1000, one that waits, or one whose function failed for good; or a dead letter.
Times are since the event came in.`,
			examples: []string{"perigee events show 01J9ZQ4W", "perigee events show overheat:3f"},
			run: func(c *call) error {
				gw, err := c.gateway()
				if err != nil {
					return err
				}
				l, err := gw.Event(c.ctx, c.args[0])
				if err != nil {
					return err
				}
				if c.json() {
					return c.out.json(l)
				}
				writeLife(c.out, l)
				return nil
			},
		}, eventSaveCommand()},
	}
}

// maxShown is how many events a lives remembers; the oldest is forgotten first, and would only be shown twice.
const maxShown = 4096

// lives shows events as they come: the same event comes again when more has happened, and each thing is shown once.
type lives struct {
	out   *printer
	shown map[string]map[string]bool
	order []string
}

func newLives(out *printer) *lives { return &lives{out: out, shown: map[string]map[string]bool{}} }

func (v *lives) show(l api.Life) {
	seen, again := v.shown[l.ID]
	if !again {
		if len(v.order) == maxShown {
			delete(v.shown, v.order[0])
			v.order = v.order[1:]
		}
		seen = map[string]bool{}
		v.shown[l.ID], v.order = seen, append(v.order, l.ID)
		end := ""
		if l.Refused != "" {
			end = "  " + v.out.state("refused") + because(l.Refused)
		}
		if l.Replayed != "" {
			end += "  " + v.out.dim("(replayed)")
		}
		v.out.line("%s %s %s%s", v.out.dim(clock(l.Time)), v.out.bold(safe(l.Subject, 200)), safe(l.Preview, 120), end)
	}
	for _, o := range l.Outcomes {
		if o.What == "running" || o.What == "waiting" && o.Why == "" {
			continue
		}
		key := fmt.Sprint(o.Function, " ", o.What, " ", o.Attempt)
		if seen[key] {
			continue
		}
		seen[key] = true
		subject := ""
		if again {
			subject = safe(l.Subject, 200) + " "
		}
		v.out.line("  %s→ %s", subject, outcomeLine(v.out, o))
	}
}

// outcomeLine is "overheat committed in 1.0ms: publish alerts/overheat, device fan = true".
func outcomeLine(out *printer, o api.LifeOutcome) string {
	s := o.Function + " " + out.state(o.What)
	if o.Attempt > 1 {
		s += fmt.Sprintf(" (attempt %d)", o.Attempt)
	}
	if o.Wall > 0 {
		s += " in " + span(o.Wall)
	}
	var more []string
	if o.Why != "" {
		more = append(more, o.Why)
	}
	if o.Fault != nil {
		more = append(more, o.Fault.Error())
	}
	more = append(more, o.Effects...)
	if len(more) > 0 {
		s += ": " + safe(strings.Join(more, ", "), 400)
	}
	return s
}

func writeLife(out *printer, l *api.Life) {
	row := func(name, format string, args ...any) { out.line("%-9s %s", name, fmt.Sprintf(format, args...)) }
	out.line("%s  %s from %s", out.bold(safe(l.Subject, 0)), l.Type, l.Source)
	row("id", "%s (number %d)", l.ID, l.Seq)
	sure := ""
	if !l.TimeOK {
		sure = ", by a clock that was not synchronised"
	}
	row("time", "%s%s", l.Time.Local().Format("2006-01-02 15:04:05.000 -07:00"), sure)
	row("payload", "%s: %s", size(int64(l.Size)), safe(l.Preview, 0))
	if l.Refused != "" {
		row("refused", "%s", safe(l.Refused, 0))
	}
	if l.Replayed != "" {
		row("replayed", "it was dead letter %s, and ran outside the order of its key", safe(l.Replayed, 0))
	}
	if len(l.Outcomes) == 0 && l.Refused == "" {
		row("outcome", "no function has a trigger for it")
	}
	if l.Took > 0 {
		row("accepted", "after %s", span(l.Took))
	}
	for _, o := range l.Outcomes {
		out.line("→ %s", outcomeLine(out, o))
		if o.Result != "" {
			out.line("  = %s", safe(o.Result, 0))
		}
		if o.Fault != nil {
			writeIndented(out, o.Fault.Text())
		}
		writeSteps(out, &o)
	}
}

// writeSteps shows what happened to one outcome, with the time since the event came in.
func writeSteps(out *printer, o *api.LifeOutcome) {
	step := func(at time.Duration, what, format string, args ...any) {
		when := ""
		if at > 0 {
			when = "+" + span(at)
		}
		out.line("  %8s  %s %s", when, out.state(what), fmt.Sprintf(format, args...))
	}
	for _, a := range o.Attempts {
		step(a.At, fmt.Sprintf("attempt %d", a.Number), "of revision %s, in %s: %s", a.Revision, span(a.Wall), safe(a.Fault, 300))
	}
	if o.What == "committed" && o.At > 0 {
		step(o.At, fmt.Sprintf("attempt %d", o.Attempt), "of revision %s, in %s", o.Revision, span(o.Wall))
	}
	if o.Durable > 0 {
		step(o.Durable, "durable", "in the store")
	}
	if o.Letter != "" {
		step(o.Durable, "dead letter", "%s: perigee dead show %s", o.Letter, quoteArg(o.Letter))
	}
	for _, a := range o.Actions {
		step(a.At, a.What, "%s%s", safe(a.Action, 200), safe(because(a.Why), 300))
	}
	for _, r := range o.Records {
		step(0, orDefault(r.What, "appended"), "record %d of stream %s%s", r.Sequence, r.Stream, safe(because(r.Why), 300))
	}
}
