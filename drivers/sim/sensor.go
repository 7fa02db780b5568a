package sim

import (
	"context"
	"hash/fnv"
	"maps"
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/perigee-iot/perigee/drivers"
)

// sensor follows a wave.
type sensor struct {
	name string
	c    config
	peer func(string) (*drivers.Device, bool)

	mu     sync.Mutex // guards what follows
	rand   *rand.Rand
	begin  time.Time // of the wave; zero until the first reading
	last   time.Time // of the last reading
	count  int       // readings
	walk   float64   // the random wave, 0 to 1
	cooled float64   // how far below the wave
	value  drivers.Fields
}

func newSensor(name string, c config, peer func(string) (*drivers.Device, bool)) *sensor {
	seed := c.Seed
	if seed == 0 {
		seed = rand.Uint64()
	}
	h := fnv.New64a()
	h.Write([]byte(name))
	s := &sensor{name: name, c: c, peer: peer, rand: rand.New(rand.NewPCG(seed, h.Sum64())), walk: 0.5}
	if c.CooledBy != "" && c.Cooling == 0 {
		s.c.Cooling = max((c.Max-c.Min)/2, 1)
	}
	return s
}

// Run emits a reading at once and then every period.
func (s *sensor) Run(ctx context.Context, emit drivers.Emit) error {
	t := time.NewTicker(time.Duration(s.c.Every))
	defer t.Stop()
	for ctx.Err() == nil {
		if done, err := send(ctx, emit, s.name, s.sample(ctx)); done {
			return err
		}
		select {
		case <-ctx.Done():
		case <-t.C:
		}
	}
	return nil
}

// Read returns the last reading, or a new one if that is older than a period.
func (s *sensor) Read(ctx context.Context) (drivers.Fields, error) {
	s.mu.Lock()
	fresh := s.value != nil && time.Since(s.last) < time.Duration(s.c.Every)
	value := maps.Clone(s.value)
	s.mu.Unlock()
	if fresh {
		return value, nil
	}
	return s.sample(ctx), nil
}

// sample takes a reading.
func (s *sensor) sample(ctx context.Context) drivers.Fields {
	on := s.cooling(ctx) // asks another device: not under the lock
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if s.begin.IsZero() {
		s.begin, s.last = now, now
	}
	s.cool(on, now.Sub(s.last))
	v := s.wave(now.Sub(s.begin)) - s.cooled
	if s.c.Noise > 0 {
		v += (2*s.rand.Float64() - 1) * s.c.Noise
	}
	s.last = now
	s.count++
	s.value = drivers.Fields{s.c.Field: math.Round(v*100) / 100}
	return maps.Clone(s.value)
}

// wave returns the undisturbed value at a time since the beginning. A sine and a triangle begin at min and are at max after half
// a period.
func (s *sensor) wave(t time.Duration) float64 {
	period := time.Duration(s.c.Period)
	phase := float64(t%period) / float64(period)
	span := s.c.Max - s.c.Min
	switch s.c.Wave {
	case "sine":
		return s.c.Min + span*(1-math.Cos(2*math.Pi*phase))/2
	case "triangle":
		return s.c.Min + span*(1-math.Abs(1-2*phase))
	case "square":
		if phase < 0.5 {
			return s.c.Min
		}
		return s.c.Max
	case "random": // a walk, a tenth of the span a reading at most
		s.walk = min(max(s.walk+(s.rand.Float64()-0.5)/5, 0), 1)
		return s.c.Min + span*s.walk
	case "steps":
		return s.c.Steps[s.count%len(s.c.Steps)]
	}
	return s.c.Min
}

// cool moves towards the wave less cooling while the other device is on, and back to the wave while it is not: exponentially, with a
// tenth of the period as time constant, so that it can be seen within one period.
func (s *sensor) cool(on bool, since time.Duration) {
	if s.c.CooledBy == "" {
		return
	}
	target := 0.0
	if on {
		target = s.c.Cooling
	}
	tau := float64(s.c.Period) / 10
	s.cooled = target + (s.cooled-target)*math.Exp(-float64(since)/tau)
}

// cooling asks whether the device that cools is on. One that is absent or does not answer is off.
func (s *sensor) cooling(ctx context.Context) bool {
	if s.c.CooledBy == "" || s.peer == nil {
		return false
	}
	d, ok := s.peer(s.c.CooledBy)
	if !ok || d.Reader == nil || d.Name == s.name {
		return false
	}
	fields, err := d.Reader.Read(ctx)
	return err == nil && isOn(fields)
}

// isOn understands the readings of switches: a state that is true or "ON"; else a field that is true or a number that is not 0.
func isOn(fields drivers.Fields) bool {
	truthy := func(v any) bool {
		switch v := v.(type) {
		case bool:
			return v
		case float64:
			return v != 0
		case string:
			return v == "ON" || v == "on"
		}
		return false
	}
	if v, ok := fields["state"]; ok {
		return truthy(v)
	}
	for _, v := range fields {
		if truthy(v) {
			return true
		}
	}
	return false
}
