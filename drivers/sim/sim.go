// Package sim is devices without hardware: sensors that follow a wave or replay a recording, buttons and switches. With
// it the whole gateway can be tried, demonstrated and tested on a laptop.
//
//	cellar:  {sim: {wave: sine, min: 18, max: 34, period: 30s, every: 250ms, cooled_by: fan}}
//	meter:   {sim: {replay: day.csv, every: 1s}}
//	button:  {sim: {button: {every: 10s}}}       # also pressed by writing to it
//	fan:     {sim: {switch: off}}
//
// A sensor with cooled_by falls below its wave while that device is on and comes back after, so that a function that switches the
// fan can be seen to work. With a seed, noise and random waves are the same in every run.
package sim

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/perigee-iot/perigee/drivers"
	"github.com/perigee-iot/perigee/internal/event"
	"github.com/perigee-iot/perigee/internal/units"
	"github.com/perigee-iot/perigee/internal/yamlfile"
)

// config is what stands under sim.
type config struct {
	Wave     string         `yaml:"wave"`
	Min      float64        `yaml:"min"`
	Max      float64        `yaml:"max"`
	Period   units.Duration `yaml:"period"`
	Every    units.Duration `yaml:"every"`
	Noise    float64        `yaml:"noise"`
	Field    string         `yaml:"field"`
	Steps    []float64      `yaml:"steps"`
	Seed     uint64         `yaml:"seed"`
	CooledBy string         `yaml:"cooled_by"`
	Cooling  float64        `yaml:"cooling"`
	Replay   string         `yaml:"replay"`
	Button   yamlfile.Node  `yaml:"button"`
	Switch   yamlfile.Node  `yaml:"switch"`
}

const minEvery = units.Duration(time.Millisecond)

// Kind is the kind "sim".
func Kind() drivers.Kind {
	return drivers.Kind{Name: "sim", Doc: "a simulated sensor, button or switch", New: newDevice}
}

func newDevice(name string, decode func(into any) error, env drivers.Env) (*drivers.Device, error) {
	c := config{Period: units.Duration(time.Minute), Every: units.Duration(time.Second), Field: "temperature"}
	if err := decode(&c); err != nil {
		return nil, err
	}
	d := &drivers.Device{Name: name, Kind: "sim"}
	kind, err := c.kind()
	if err != nil {
		return nil, err
	}
	switch kind {
	case "button":
		b, err := newButton(name, c.Button)
		if err != nil {
			return nil, err
		}
		d.Source, d.Actuator = b, b
	case "switch":
		s, err := newSwitch(name, c.Switch)
		if err != nil {
			return nil, err
		}
		d.Source, d.Reader, d.Actuator = s, s, s
	case "replay":
		r, err := newReplay(name, c.Replay, time.Duration(c.Every), env.Dir)
		if err != nil {
			return nil, err
		}
		d.Source, d.Reader = r, r
	default:
		if err := c.checkWave(); err != nil {
			return nil, err
		}
		s := newSensor(name, c, env.Peer)
		d.Source, d.Reader = s, s
		if c.CooledBy != "" {
			d.Peers = map[string]string{"cooled_by": c.CooledBy}
		}
	}
	return d, nil
}

// kind says which of the four sorts of device it is; only one may be asked for.
func (c *config) kind() (string, error) {
	var kinds []string
	for _, k := range []struct {
		name string
		set  bool
	}{
		{"wave", c.Wave != "" || len(c.Steps) > 0}, {"replay", c.Replay != ""}, {"button", !c.Button.IsZero()}, {"switch", !c.Switch.IsZero()},
	} {
		if k.set {
			kinds = append(kinds, k.name)
		}
	}
	switch {
	case len(kinds) == 0:
		return "", fmt.Errorf("a simulated device is a wave, a replay, a button or a switch; write one, such as {wave: sine, min: 18, max: 26}")
	case len(kinds) > 1:
		return "", fmt.Errorf("%s in one simulated device; make them devices of their own", strings.Join(kinds, " and "))
	case c.Every < minEvery:
		return "", fmt.Errorf("every %v is too often; at least %v", c.Every, minEvery)
	}
	return kinds[0], nil
}

func (c *config) checkWave() error {
	if c.Wave == "" {
		c.Wave = "steps"
	}
	waves := []string{"sine", "triangle", "square", "random", "steps", "constant"}
	switch {
	case !slices.Contains(waves, c.Wave):
		if near := yamlfile.Nearest(c.Wave, waves); near != "" {
			return fmt.Errorf("wave %q is unknown; did you mean %q?", c.Wave, near)
		}
		return fmt.Errorf("wave %q is unknown; there are %s", c.Wave, strings.Join(waves, ", "))
	case (c.Wave == "steps") != (len(c.Steps) > 0):
		return fmt.Errorf("wave: steps and a list of steps belong together, such as {wave: steps, steps: [18, 20, 25]}")
	case len(c.Steps) > 10_000:
		return fmt.Errorf("%d steps are too many, at most 10000; use replay", len(c.Steps))
	case c.Max < c.Min && c.Wave != "constant" && c.Wave != "steps":
		return fmt.Errorf("max %g is below min %g", c.Max, c.Min)
	case c.Period < minEvery:
		return fmt.Errorf("a period of %v is too short; at least %v", c.Period, minEvery)
	case c.Noise < 0 || c.Cooling < 0:
		return fmt.Errorf("noise and cooling cannot be negative")
	case c.Field == "":
		return fmt.Errorf("field is empty; write one such as temperature")
	case c.CooledBy == "" && c.Cooling > 0:
		return fmt.Errorf("cooling needs cooled_by, the name of the device that cools")
	}
	return nil
}

// reading makes the event of a device's fields.
func reading(name string, fields drivers.Fields) (drivers.Delivery, error) {
	data, err := json.Marshal(fields)
	if err != nil {
		return drivers.Delivery{}, fmt.Errorf("device %s: encode its reading: %w", name, err)
	}
	return drivers.Delivery{Event: &event.Event{Source: "device/" + name, Type: event.Reading, Subject: name, Data: data}}, nil
}

// send emits a reading. done says that the source is to end, with the error to return.
func send(ctx context.Context, emit drivers.Emit, name string, fields drivers.Fields) (done bool, err error) {
	d, err := reading(name, fields)
	if err != nil {
		return true, err
	}
	if err := emit(ctx, d); err != nil {
		if ctx.Err() != nil {
			return true, nil
		}
		return true, fmt.Errorf("device %s: %w", name, err)
	}
	return false, nil
}
