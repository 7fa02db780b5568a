package cli

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/perigee-iot/perigee/gateway/api"
)

func devicesCommand() *command {
	return &command{
		name: "devices", brief: "what hangs on the gateway",
		sub: []*command{
			{
				name: "list", brief: "all devices with their last reading",
				examples: []string{"perigee devices list"},
				run:      listDevices,
			},
			{
				name: "read", usage: "NAME", brief: "read one device now", min: 1, max: 1,
				examples: []string{"perigee devices read cellar", "perigee devices read cellar --json | jq .fields.temperature"},
				run: func(c *call) error {
					gw, err := c.gateway()
					if err != nil {
						return err
					}
					d, err := gw.Device(c.ctx, c.args[0])
					if err != nil {
						return err
					}
					if c.json() {
						return c.out.json(d)
					}
					if !d.At.IsZero() {
						c.out.line("%s, read at %s", c.out.bold(d.Name), clock(d.At))
					} else {
						c.out.line("%s%s", c.out.bold(d.Name), because(d.LastError))
					}
					for _, f := range sortedCounts(d.Fields) {
						c.out.line("  %s = %s", safe(f, 60), value(d.Fields[f]))
					}
					return nil
				},
			},
			{
				name: "write", usage: "NAME VALUE", brief: "write a value to a device", min: 2, max: 2,
				text:     "VALUE is true, false, on, off, a number, null or text.",
				examples: []string{"perigee devices write fan on", "perigee devices write heater 21.5"},
				run: func(c *call) error {
					gw, err := c.gateway()
					if err != nil {
						return err
					}
					return gw.WriteDevice(c.ctx, c.args[0], parseValue(c.args[1]))
				},
			},
		},
	}
}

// parseValue reads what people write for a device: on and off are true and false, JSON scalars are themselves, and all else is text.
func parseValue(s string) any {
	switch s {
	case "on":
		return true
	case "off":
		return false
	}
	var v any
	if json.Unmarshal([]byte(s), &v) == nil {
		switch v.(type) {
		case nil, bool, float64, string:
			return v
		}
	}
	return s
}

func value(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	if p, err := plainJSON(b); err == nil {
		b = p
	}
	return safe(string(b), 120)
}

func listDevices(c *call) error {
	gw, err := c.gateway()
	if err != nil {
		return err
	}
	devices, err := gw.Devices(c.ctx)
	if err != nil {
		return err
	}
	if c.json() {
		return c.out.json(devices)
	}
	if len(devices) == 0 {
		c.out.line("no devices; they are named under devices: in gateway.yaml")
		return nil
	}
	rows := [][]string{{"NAME", "KIND", "STATE", "CAN", "LAST"}}
	for _, d := range devices {
		rows = append(rows, []string{d.Name, d.Kind, deviceState(c.out, d), abilities(d), lastOf(d)})
	}
	c.out.table(rows)
	for _, d := range devices {
		if why := strings.TrimPrefix(d.LastError, "not connected"); !d.Connected && why != "" {
			c.out.line("%s is not connected: %s", d.Name, safe(strings.TrimPrefix(why, ": "), 0))
		} else if d.Connected && d.LastError != "" && d.Kind == "mqtt" {
			c.out.line("%s: %s", d.Name, safe(d.LastError, 0))
		}
	}
	return nil
}

func deviceState(out *printer, d api.Device) string {
	if d.Connected {
		return out.state("connected")
	}
	return out.state("not connected")
}

func abilities(d api.Device) string {
	switch {
	case d.Reads && d.Writes:
		return "read, write"
	case d.Reads:
		return "read"
	case d.Writes:
		return "write"
	}
	return "events"
}

func lastOf(d api.Device) string {
	var parts []string
	for _, f := range sortedCounts(d.Fields) {
		parts = append(parts, safe(f, 40)+"="+value(d.Fields[f]))
	}
	if d.Written != nil {
		parts = append(parts, "written "+value(d.Written))
	}
	if !d.At.IsZero() {
		parts = append(parts, "at "+clock(d.At))
	}
	return strings.Join(parts, " ")
}
