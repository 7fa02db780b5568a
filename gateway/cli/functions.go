package cli

import (
	"fmt"
	"sort"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/perigee-iot/perigee/gateway/api"
	"github.com/perigee-iot/perigee/internal/units"
)

func functionsCommand() *command {
	return &command{
		name: "functions", alias: "fn", brief: "deploy functions and look after them",
		sub: []*command{
			{
				name: "list", brief: "what is deployed, and how it does",
				examples: []string{"perigee functions list", "perigee fn list --json | jq -r '.[].name'"},
				run:      listFunctions,
			},
			{
				name: "show", usage: "NAME", brief: "everything about one function", min: 1, max: 1,
				flags:    []cli.Flag{&cli.StringFlag{Name: "file", Usage: "print this `FILE` of it, and nothing else"}},
				examples: []string{"perigee functions show overheat", "perigee functions show overheat --file main.lua"},
				run:      showFunction,
			},
			applyCommand(),
			{
				name: "remove", usage: "NAME…", brief: "take functions away", min: 1, max: -1,
				text:     `Events that wait become dead letters with the reason "removed". State stays for a later function of that name, unless --purge.`,
				flags:    []cli.Flag{&cli.BoolFlag{Name: "purge", Usage: "its state too"}},
				examples: []string{"perigee functions remove overheat", "perigee functions remove overheat --purge"},
				run: func(c *call) error {
					return c.eachFunction("removed", func(gw *api.Client, name string) error { return gw.Remove(c.ctx, name, c.Bool("purge")) })
				},
			},
			{
				name: "pause", usage: "NAME…", brief: "stop functions from running; their events collect", min: 1, max: -1,
				flags:    []cli.Flag{&cli.StringFlag{Name: "reason", Usage: "why, for whoever looks at the list", Value: "asked for"}},
				examples: []string{"perigee functions pause overheat --reason 'fan is being repaired'"},
				run: func(c *call) error {
					return c.eachFunction("paused", func(gw *api.Client, name string) error { return gw.Pause(c.ctx, name, c.String("reason")) })
				},
			},
			{
				name: "resume", usage: "NAME…", brief: "let paused functions run, first on what has collected", min: 1, max: -1,
				examples: []string{"perigee functions resume overheat"},
				run: func(c *call) error {
					return c.resume()
				},
			},
			allowCommand(),
			invokeCommand(),
			logsCommand(),
			usageCommand(),
			adviseCommand(),
		},
	}
}

// resume resumes the functions that are named, and says of which there was nothing to resume.
func (c *call) resume() error {
	gw, err := c.gateway()
	if err != nil {
		return err
	}
	return c.each(c.args, func(name string) error {
		f, err := gw.Function(c.ctx, name)
		if err != nil {
			return err
		}
		if err := gw.Resume(c.ctx, name); err != nil {
			return err
		}
		did := "resumed"
		if f.State == "active" {
			did = "was not paused"
		}
		if c.json() {
			return c.out.jsonLine(map[string]string{"name": name, "did": did})
		}
		c.out.line("%s %s", name, did)
		return nil
	})
}

// eachFunction does one thing to every function that is named, and goes on after an error.
func (c *call) eachFunction(did string, do func(gw *api.Client, name string) error) error {
	gw, err := c.gateway()
	if err != nil {
		return err
	}
	return c.each(c.args, func(name string) error {
		if err := do(gw, name); err != nil {
			return err
		}
		if c.json() {
			return c.out.jsonLine(map[string]string{"name": name, "did": did})
		}
		c.out.line("%s %s", name, did)
		return nil
	})
}

// each calls do for all names, says what went wrong with each, and returns the worst.
func (c *call) each(names []string, do func(name string) error) error {
	var failed error
	for _, name := range names {
		err := do(name)
		if err == nil {
			continue
		}
		if api.IsCode(err, api.CodeNoGateway) || c.ctx.Err() != nil {
			return err
		}
		if failed != nil {
			c.p.report(failed)
		}
		failed = err
	}
	return failed
}

func listFunctions(c *call) error {
	gw, err := c.gateway()
	if err != nil {
		return err
	}
	fns, err := gw.Functions(c.ctx)
	if err != nil {
		return err
	}
	if c.json() {
		return c.out.json(fns)
	}
	if len(fns) == 0 {
		c.out.line("no functions yet; write one with: perigee new NAME")
		return nil
	}
	rows := [][]string{{"NAME", "STATE", "ORIGIN", "REVISION", "RUNS", "FAULTS", "DEAD", "WAITING", "P50", "P99"}}
	for _, f := range fns {
		rows = append(rows, []string{f.Name, c.out.state(f.State), f.Origin, short(f.Revision), units.Group(f.Runs), units.Group(total(f.Faults)), units.Group(f.Dead), units.Group(f.Waiting), span(f.P50), span(f.P99)})
	}
	c.out.table(rows)
	for _, f := range fns {
		if f.Reason != "" {
			c.out.line("%s is %s: %s", f.Name, f.State, safe(f.Reason, 200))
		}
	}
	return nil
}

func short(revision string) string {
	if len(revision) > 12 {
		return revision[:12]
	}
	return revision
}

func total(m map[string]int64) int64 {
	var n int64
	for _, v := range m {
		n += v
	}
	return n
}

func showFunction(c *call) error {
	gw, err := c.gateway()
	if err != nil {
		return err
	}
	f, err := gw.Function(c.ctx, c.args[0])
	if err != nil {
		return err
	}
	if name := c.String("file"); name != "" {
		text, ok := f.Files[name]
		if !ok {
			return api.Errorf(api.CodeNotFound, "%s has no file %s", f.Name, name).WithHint("it has: %s", strings.Join(sortedCounts(f.Files), ", "))
		}
		fmt.Fprint(c.out, text)
		return nil
	}
	if c.json() {
		return c.out.json(f)
	}
	writeFunction(c.out, f)
	return nil
}

func writeFunction(out *printer, f *api.Function) {
	row := func(name, format string, args ...any) {
		out.line("%-12s %s", name, fmt.Sprintf(format, args...))
	}
	out.line("%s  %s%s", out.bold(f.Name), out.state(f.State), because(f.Reason))
	if f.Description != "" {
		out.line("%s", safe(f.Description, 0))
	}
	row("revision", "%s, %s, since %s", f.Revision, f.Origin, clock(f.Since))
	row("triggers", "%s", strings.Join(f.Triggers, ", "))
	if f.Key != "" {
		row("key", "%s", f.Key)
	}
	for i, p := range f.Permissions {
		if i == 0 {
			row("may", "%s", p)
		} else {
			row("", "%s", p)
		}
	}
	var env []string
	for _, k := range sortedCounts(f.Env) {
		env = append(env, fmt.Sprintf("%s=%v", k, f.Env[k]))
	}
	if len(env) > 0 {
		row("env", "%s", strings.Join(env, " "))
	}
	row("runs", "%s, %s ok, %s waiting", units.Group(f.Runs), units.Group(f.OK), units.Group(f.Waiting))
	if len(f.Faults) > 0 {
		var faults []string
		for _, k := range sortedCounts(f.Faults) {
			faults = append(faults, fmt.Sprintf("%s %s", units.Group(f.Faults[k]), k))
		}
		sort.Strings(faults)
		row("faults", "%s", strings.Join(faults, ", "))
	}
	if f.Dead > 0 {
		row("dead", "%s: see perigee dead list --function %s", plural(f.Dead, "letter"), f.Name)
	}
	row("takes", "%s (half), %s (99 %%), %s CPU", span(f.P50), span(f.P99), span(f.CPU))
	row("state", "%s", size(f.StateBytes))
	var files []string
	for _, n := range sortedCounts(f.Files) {
		files = append(files, fmt.Sprintf("%s (%s)", n, size(int64(len(f.Files[n])))))
	}
	if len(files) > 0 {
		row("files", "%s", strings.Join(files, ", "))
	}
	if f.LastFault != nil {
		out.line("last fault")
		writeIndented(out, f.LastFault.Text())
	}
}

func writeIndented(out *printer, text string) {
	for l := range strings.SplitSeq(text, "\n") {
		out.line("  %s", safe(l, 0))
	}
}
