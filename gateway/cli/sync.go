package cli

import (
	"fmt"

	"github.com/perigee-iot/perigee/gateway/api"
	"github.com/perigee-iot/perigee/internal/units"
)

func syncCommand() *command {
	return &command{
		name: "sync", brief: "what goes to the cloud",
		sub: []*command{
			{
				name: "status", brief: "the uplinks",
				examples: []string{"perigee sync status"},
				run: func(c *call) error {
					gw, err := c.gateway()
					if err != nil {
						return err
					}
					links, err := gw.Uplinks(c.ctx)
					if err != nil {
						return err
					}
					if c.json() {
						return c.out.json(links)
					}
					if len(links) == 0 {
						c.out.line("no uplinks; they are named under uplinks: in gateway.yaml")
					}
					for _, u := range links {
						c.out.line("%s", uplinkLine(c.out, u))
					}
					return nil
				},
			},
			{
				name: "streams", brief: "the queues of records, and how far each has got",
				examples: []string{"perigee sync streams", "perigee sync streams --json | jq '.[].waiting'"},
				run:      listStreams,
			},
		},
	}
}

// uplinkLine is "main tcp://cloud:1883 connected since 12:30, 12 waiting, 9 000 sent, 42/s, empty in 1m30s".
func uplinkLine(out *printer, u api.UplinkStatus) string {
	state := "connected"
	if !u.Connected {
		state = "not connected"
	}
	s := fmt.Sprintf("%s %s %s", u.Name, u.URL, out.state(state))
	if !u.Since.IsZero() {
		s += " since " + clock(u.Since)
	}
	s += because(u.LastError) // of a connection too, if it will not last
	if u.Paused {
		s += ", " + out.state("paused")
	}
	s += fmt.Sprintf(", %s waiting, %s sent", units.Group(u.Waiting), units.Group(u.Sent))
	if u.Resent > 0 {
		s += fmt.Sprintf(", %s again", units.Group(u.Resent))
	}
	if u.Rate > 0 {
		s += fmt.Sprintf(", %.3g/s", u.Rate)
	}
	if u.Waiting > 0 && u.Drain > 0 {
		s += ", empty in " + span(u.Drain)
	}
	return s
}

func listStreams(c *call) error {
	gw, err := c.gateway()
	if err != nil {
		return err
	}
	streams, err := gw.Streams(c.ctx)
	if err != nil {
		return err
	}
	if c.json() {
		return c.out.json(streams)
	}
	if len(streams) == 0 {
		c.out.line("no streams; they begin with a function's permission")
		return nil
	}
	rows := [][]string{{"NAME", "UPLINK", "PRIORITY", "WAITING", "BYTES", "OLDEST", "NEXT", "ACKED", "DROPPED", "QUARANTINED"}}
	for _, s := range streams {
		rows = append(rows, []string{s.Name, s.Uplink, s.Priority, units.Group(s.Waiting), size(s.Bytes), span(s.Oldest), fmt.Sprint(s.Next), fmt.Sprint(s.Acked), lost(c.out, s.Dropped), lost(c.out, s.Quarantined)})
	}
	c.out.table(rows)
	return nil
}

func lost(out *printer, n int64) string {
	if n == 0 {
		return "0"
	}
	return out.bad(units.Group(n))
}
