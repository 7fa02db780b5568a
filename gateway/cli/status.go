package cli

import (
	"context"
	"fmt"
	"runtime"
	"sort"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/perigee-iot/perigee/gateway/api"
	"github.com/perigee-iot/perigee/internal/units"
)

func statusCommand() *command {
	return &command{
		name: "status", brief: "the gateway at a glance",
		text:     "It exits with 0 only when the gateway is ready: its sources are subscribed and its functions loaded.",
		examples: []string{"perigee status", "perigee status --wait 30s", "perigee status --json | jq .events.committed"},
		flags: []cli.Flag{
			&cli.DurationFlag{Name: "wait", Usage: "if the gateway is not ready, or does not run yet, wait at most `TIME` for it"},
		},
		run: func(c *call) error {
			gw, err := c.gateway()
			if err != nil {
				return err
			}
			if c.Duration("wait") < 0 {
				return usagef("--wait %v is not a time to wait", c.Duration("wait"))
			}
			s, err := readyStatus(c.ctx, gw, c.Duration("wait"))
			if err != nil {
				return err
			}
			if c.json() {
				err = c.out.json(s)
			} else {
				writeStatus(c.out, s)
			}
			if err == nil && !s.Ready {
				return &exitError{ExitFailed}
			}
			return err
		},
	}
}

// statusPoll is how often a gateway that is not ready is asked again.
const statusPoll = 100 * time.Millisecond

// readyStatus asks until the gateway is ready or the time is over, and returns the last answer.
func readyStatus(ctx context.Context, gw *api.Client, wait time.Duration) (*api.Status, error) {
	over := time.After(wait)
	for {
		s, err := gw.Status(ctx)
		if err == nil && s.Ready || err != nil && !api.IsCode(err, api.CodeNoGateway) {
			return s, err
		}
		select {
		case <-ctx.Done():
			return s, err
		case <-over:
			return s, err
		case <-time.After(statusPoll):
		}
	}
}

func writeStatus(out *printer, s *api.Status) {
	ready := "ready"
	if !s.Ready {
		ready = "not ready"
	}
	out.line("%s  %s, for %s  (version %s, process %d)", out.bold(s.Gateway), out.state(ready), span(s.Uptime), s.Version, s.PID)
	for _, p := range s.Problems {
		out.line("  %s %s", out.bad("!"), paragraph(p))
	}
	row := func(name, format string, args ...any) { out.line("%-10s %s", name, fmt.Sprintf(format, args...)) }

	switch b := s.Broker; {
	case b.Embedded:
		row("broker", "embedded, %s, %s", strings.Join(b.Listen, " "), plural(int64(b.Clients), "client"))
	case b.Connected:
		row("broker", "%s, %s", b.URL, out.state("connected"))
	default:
		row("broker", "%s, %s%s", b.URL, out.state("not connected"), because(b.LastError))
	}
	if n := s.Broker.LostSessions; n > 0 {
		row("lost", "%s of the broker's for this gateway: what came meanwhile may be missing", out.bad(plural(n, "session")))
	}
	e := s.Events
	row("events", "%s received, %s committed, %s, %s", units.Group(e.Received), units.Group(e.Committed), plural(e.Faults, "fault"), plural(e.Duplicates, "duplicate"))
	if e.Waiting+e.Inbox+e.Actions > 0 {
		row("waiting", "%s to run, %s stored in the inbox, %s", units.Group(e.Waiting), units.Group(e.Inbox), plural(e.Actions, "action"))
	}
	if e.Repeated > 0 {
		row("repeated", "%s sent again with the same id", plural(e.Repeated, "action"))
	}
	if e.Dead > 0 {
		row("dead", "%s: see perigee dead list", out.bad(plural(e.Dead, "letter")))
	}
	row("functions", "%s", tally(out, s.Functions))
	w := s.Workers
	row("workers", "%d of %d running, %d busy, %s started, %s killed", w.Running, w.Max, w.Busy, units.Group(w.Started), units.Group(w.Killed))
	row("store", "%s, %s used, %s free, durability %s", s.Store.Dir, size(s.Store.Bytes), size(s.Store.Free), s.Store.Durability)
	for _, src := range s.Sources {
		if !src.Connected {
			row("source", "%s %s%s", src.Name, out.state("not connected"), because(src.LastError))
		}
	}
	for _, u := range s.Uplinks {
		row("uplink", "%s", uplinkLine(out, u))
	}
	for _, l := range sortedCounts(s.Losses) {
		row("lost", "%s by %s", out.bad(units.Group(s.Losses[l])), l)
	}
	for _, g := range s.Gaps {
		row("gap", "%s of %s by %s, %s to %s", plural(g.Events, "event"), g.Function, g.Cause, g.From.Local().Format(time.DateTime), g.To.Local().Format(time.DateTime))
	}
	for _, l := range sortedCounts(s.Refused) {
		row("refused", "%s: %s", out.warn(units.Group(s.Refused[l])), l)
	}
}

func because(err string) string {
	if err == "" {
		return ""
	}
	return ": " + safe(err, 200)
}

func plural(n int64, what string) string {
	if n != 1 {
		what += "s"
	}
	return units.Group(n) + " " + what
}

func tally(out *printer, states map[string]int) string {
	if len(states) == 0 {
		return "none"
	}
	var parts []string
	for _, s := range sortedCounts(states) {
		parts = append(parts, fmt.Sprintf("%d %s", states[s], out.state(s)))
	}
	return strings.Join(parts, ", ")
}

func sortedCounts[V any](m map[string]V) []string {
	var names []string
	for n := range m {
		names = append(names, n)
	}
	sort.Strings(names)
	return names
}

func versionCommand() *command {
	return &command{
		name: "version", brief: "this program's version", local: true,
		examples: []string{"perigee version"},
		run: func(c *call) error {
			if c.json() {
				return c.out.json(map[string]string{"version": c.p.opts.Version, "os": runtime.GOOS, "arch": runtime.GOARCH, "go": runtime.Version()})
			}
			c.out.line("perigee %s %s/%s %s", c.p.opts.Version, runtime.GOOS, runtime.GOARCH, runtime.Version())
			return nil
		},
	}
}

func reloadCommand() *command {
	return &command{
		name: "reload", brief: "take over the changed configuration and functions' directory",
		text: `Functions, devices, streams, settings and the log level are taken over. What else has changed is named: it needs a restart.
A folder that is wrong is named too: its function stays as it was, the others are taken over, and the exit code is 1.`,
		examples: []string{"perigee reload"},
		run: func(c *call) error {
			gw, err := c.gateway()
			if err != nil {
				return err
			}
			r, err := gw.Reload(c.ctx)
			if err != nil {
				return err
			}
			if err := showReload(c, r); err != nil || len(r.Problems) == 0 {
				return err
			}
			return &exitError{ExitFailed}
		},
	}
}

func showReload(c *call, r *api.ReloadResult) error {
	if c.json() {
		return c.out.json(r)
	}
	if len(r.Changed)+len(r.Restart)+len(r.Problems) == 0 {
		c.out.line("nothing has changed")
	}
	for _, k := range r.Changed {
		c.out.line("%s %s", c.out.good("changed"), paragraph(k))
	}
	for _, k := range r.Restart {
		c.out.line("%s %s", c.out.warn("needs a restart:"), k)
	}
	for _, k := range r.Problems {
		c.out.line("%s %s", c.out.bad("not taken over:"), paragraph(k))
	}
	return nil
}
