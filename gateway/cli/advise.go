package cli

import (
	"cmp"
	"fmt"

	"github.com/perigee-iot/perigee/gateway/api"
)

func adviseCommand() *command {
	return &command{
		name: "advise", usage: "[NAME]", brief: "which limits suit what functions were seen to need", max: 1,
		text: `It rests on the usage of the present revision, sixty days at most. What is suggested is twice the highest value that was seen, or
four times what 99 of 100 invocations stay below, rounded up. The lines are for function.yaml.`,
		examples: []string{"perigee functions advise", "perigee functions advise overheat", "perigee functions advise --json"},
		run:      showAdvice,
	}
}

func showAdvice(c *call) error {
	gw, err := c.gateway()
	if err != nil {
		return err
	}
	name := ""
	if len(c.args) > 0 {
		name = c.args[0]
	}
	list, err := gw.Advise(c.ctx, name)
	if err != nil {
		return err
	}
	if c.json() {
		return c.out.json(list)
	}
	if len(list) == 0 {
		c.out.line("no functions yet; write one with: perigee new NAME")
	}
	for i := range list {
		if i > 0 {
			c.out.line("")
		}
		writeAdvice(c.out, &list[i])
	}
	return nil
}

func writeAdvice(out *printer, a *api.Advice) {
	since := ""
	if !a.Since.IsZero() {
		since = " since " + clock(a.Since)
	}
	out.line("%s  revision %s, %s%s", out.bold(a.Function), a.Revision, plural(a.Runs, "invocation"), since)
	known := false
	rows := [][]string{{"LIMIT", "NOW", "P99", "MAX", "SUGGESTED", ""}}
	var paste []string
	for _, l := range a.Limits {
		known = known || l.Fit != "unknown"
		rows = append(rows, []string{l.Limit, l.Now, cmp.Or(l.P99, "-"), cmp.Or(l.Max, "-"), cmp.Or(l.Suggest, "-"), remark(out, l)})
		if l.Suggest != "" && l.Suggest != l.Now {
			paste = append(paste, fmt.Sprintf("  %s: %s", l.Limit, l.Suggest))
		}
	}
	if !known {
		out.line("not enough is known yet to say anything about its limits")
		return
	}
	out.table(rows)
	if len(paste) == 0 {
		out.line("its limits fit")
		return
	}
	out.line("limits:")
	for _, l := range paste {
		out.line("%s", l)
	}
}

// remark is how a limit fits, in words.
func remark(out *printer, l api.LimitAdvice) string {
	switch l.Fit {
	case "tight":
		return out.warn("close: " + safe(l.Why, 0))
	case "wide":
		return "could be lower"
	case "good":
		return "fits"
	}
	return out.dim(safe(l.Why, 0))
}
