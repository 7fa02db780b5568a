package cli

import (
	"cmp"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/perigee-iot/perigee/gateway/api"
	"github.com/perigee-iot/perigee/internal/units"
)

func usageCommand() *command {
	return &command{
		name: "usage", usage: "[NAME]", brief: "what functions have cost: invocations, time, memory, bytes", max: 1,
		text: `With NAME each revision is a line of its own. Hours are kept for two days, days for sixty.
FLASH is bytes of keys and values as they were given to the store, before it compacts them. A ~ marks times of a clock that was not set.`,
		flags: []cli.Flag{
			&cli.StringFlag{Name: "by", Usage: "a line for each `hour|day`"},
			&cli.StringFlag{Name: "since", Usage: "how far back, such as `24h` or 7d; whole hours and days count (default: 24h, with --by day: all days)"},
		},
		examples: []string{"perigee functions usage", "perigee functions usage overheat --by hour", "perigee functions usage --by day --since 7d --json"},
		run:      showUsage,
	}
}

func showUsage(c *call) error {
	q, err := usageQuery(c)
	if err != nil {
		return err
	}
	gw, err := c.gateway()
	if err != nil {
		return err
	}
	rows, err := gw.Usage(c.ctx, q)
	if err != nil {
		return err
	}
	if c.json() {
		return c.out.json(rows)
	}
	if len(rows) == 0 {
		c.out.line("nothing ran in that time")
		return nil
	}
	c.out.table(usageTable(c.out, q, rows))
	return nil
}

func usageQuery(c *call) (q api.UsageQuery, err error) {
	q = api.UsageQuery{By: c.String("by"), Since: 24 * time.Hour}
	if len(c.args) > 0 {
		q.Function, q.Revisions = c.args[0], true
	}
	switch q.By {
	case "", "hour":
	case "day":
		q.Since = 0
	default:
		return q, usagef("--by is %q, it should be hour or day", q.By)
	}
	if s := c.String("since"); s != "" {
		if q.Since, err = units.ParseDuration(s); err != nil {
			return q, usagef("--since: %s", err)
		}
		if q.Since == 0 {
			return q, usagef("--since 0 is no time at all")
		}
	}
	return q, nil
}

func usageTable(out *printer, q api.UsageQuery, rows []api.Usage) [][]string {
	head := []string{"FUNCTION", "RUNS", "FAULTS", "CPU", "WALL", "P50", "P99", "MAX", "MEMORY", "IN", "OUT", "STATE", "FLASH"}
	if q.Revisions {
		head = append([]string{"FUNCTION", "REVISION"}, head[1:]...)
	}
	if q.By != "" {
		head = append([]string{strings.ToUpper(q.By)}, head...)
	}
	table := [][]string{head}
	for i := range rows {
		u := &rows[i]
		var row []string
		if q.By != "" {
			row = append(row, bucketName(u, q.By))
		}
		row = append(row, cmp.Or(u.Function, "(others)"))
		if q.Revisions {
			row = append(row, cmp.Or(short(u.Revision), "(others)"))
		}
		faults := units.Group(u.Faults())
		if u.Faults() > 0 {
			faults = out.bad(faults)
		}
		memory := "-"
		if u.MemoryMax > 0 {
			memory = size(u.MemoryMax)
		}
		table = append(table, append(row, units.Group(u.Runs), faults, span(u.CPU), span(u.Wall), span(u.WallP50), span(u.WallP99), span(u.WallMax),
			memory, size(u.In), size(u.Out), size(u.State), size(u.Written)))
	}
	return table
}

// bucketName is an hour or a day.
func bucketName(u *api.Usage, by string) string {
	form := "2006-01-02 15:04"
	if by == "day" {
		form = "2006-01-02"
	}
	s := u.Start.Local().Format(form)
	if !u.TimeOK {
		s = "~" + s
	}
	return s
}
