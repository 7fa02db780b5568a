// Package host is the machine itself as a device: temperature of the processor, load, memory, disk and uptime, so that a function can
// warn before an SD card is full or a box in the sun throttles.
//
//	box: {host: {every: 10s, path: /var/lib/perigee}}
//
// Fields are cpu_temperature (°C), load (runnable processes, mean of a minute), memory_used (%), disk_used (% of the file system of path) and
// uptime (s). What a machine does not have is left out.
package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/perigee-iot/perigee/drivers"
	"github.com/perigee-iot/perigee/internal/event"
	"github.com/perigee-iot/perigee/internal/units"
)

// config is what stands under host.
type config struct {
	Every units.Duration `yaml:"every"`
	Path  string         `yaml:"path"`
}

const minEvery = 100 * time.Millisecond

// Kind is the kind "host".
func Kind() drivers.Kind {
	return drivers.Kind{Name: "host", Doc: "the machine itself: temperature, load, memory, disk, uptime", New: newDevice}
}

func newDevice(name string, decode func(into any) error, _ drivers.Env) (*drivers.Device, error) {
	c := config{Every: units.Duration(10 * time.Second), Path: "/"}
	if err := decode(&c); err != nil {
		return nil, err
	}
	if time.Duration(c.Every) < minEvery {
		return nil, fmt.Errorf("every %v is too often; at least %v", c.Every, units.Duration(minEvery))
	}
	if !strings.HasPrefix(c.Path, "/") {
		return nil, fmt.Errorf("path %q must begin with /; its file system is watched", c.Path)
	}
	h := &host{name: name, every: time.Duration(c.Every), files: os.DirFS("/"), disk: func() (float64, error) { return diskUsed(c.Path) }}
	return &drivers.Device{Name: name, Kind: "host", Source: h, Reader: h}, nil
}

// host reads files and the usage of a disk, both of which tests replace.
type host struct {
	name  string
	every time.Duration
	files fs.FS // of the whole machine
	disk  func() (float64, error)
}

// Run emits a reading at once and then every period.
func (h *host) Run(ctx context.Context, emit drivers.Emit) error {
	t := time.NewTicker(h.every)
	defer t.Stop()
	for ctx.Err() == nil {
		fields, err := h.Read(ctx)
		if err != nil {
			return err
		}
		data, err := json.Marshal(fields)
		if err != nil {
			return fmt.Errorf("device %s: encode its reading: %w", h.name, err)
		}
		e := &event.Event{Source: "device/" + h.name, Type: event.Reading, Subject: h.name, Data: data}
		if err := emit(ctx, drivers.Delivery{Event: e}); err != nil && ctx.Err() == nil {
			return fmt.Errorf("device %s: %w", h.name, err)
		}
		select {
		case <-ctx.Done():
		case <-t.C:
		}
	}
	return nil
}

// Read measures everything now.
func (h *host) Read(context.Context) (drivers.Fields, error) {
	fields := drivers.Fields{}
	for name, measure := range map[string]func() (float64, error){
		"cpu_temperature": h.temperature, "load": h.load, "memory_used": h.memory, "disk_used": h.disk, "uptime": h.uptime,
	} {
		if v, err := measure(); err == nil && !math.IsNaN(v) && !math.IsInf(v, 0) {
			fields[name] = math.Round(v*100) / 100
		}
	}
	if len(fields) == 0 {
		return nil, fmt.Errorf("device %s: nothing can be read of this machine; are /proc and /sys mounted?", h.name)
	}
	return fields, nil
}

var errNoValue = errors.New("no such value")

// text reads a small file of /proc or /sys.
func (h *host) text(name string) (string, error) {
	f, err := h.files.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close() //nolint:errcheck // only read from
	data, err := io.ReadAll(io.LimitReader(f, 16<<10))
	return strings.TrimSpace(string(data)), err
}

// first reads the first number of a file.
func (h *host) first(name string) (float64, error) {
	s, err := h.text(name)
	if err != nil {
		return 0, err
	}
	s, _, _ = strings.Cut(s, " ")
	return strconv.ParseFloat(s, 64)
}

func (h *host) load() (float64, error)   { return h.first("proc/loadavg") }
func (h *host) uptime() (float64, error) { return h.first("proc/uptime") }

// temperature is that of the zone whose type speaks of the processor, else of the first one.
func (h *host) temperature() (float64, error) {
	const zones = 32
	best := ""
	for i := range zones {
		dir := fmt.Sprintf("sys/class/thermal/thermal_zone%d/", i)
		kind, err := h.text(dir + "type")
		if err != nil {
			continue
		}
		kind = strings.ToLower(kind)
		cpu := strings.Contains(kind, "cpu") || strings.Contains(kind, "soc") || strings.Contains(kind, "pkg")
		if best == "" || cpu {
			best = dir
		}
		if cpu {
			break
		}
	}
	if best == "" {
		return 0, errNoValue
	}
	milli, err := h.first(best + "temp")
	return milli / 1000, err
}

// memory is what is not available to new programs, in percent.
func (h *host) memory() (float64, error) {
	s, err := h.text("proc/meminfo")
	if err != nil {
		return 0, err
	}
	value := func(name string) float64 {
		for line := range strings.SplitSeq(s, "\n") {
			if rest, ok := strings.CutPrefix(line, name+":"); ok {
				v, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 64)
				if err == nil {
					return v
				}
			}
		}
		return math.NaN()
	}
	return 100 * (1 - value("MemAvailable")/value("MemTotal")), nil
}

// diskUsed is what a user cannot write any more, in percent of what he could on an empty disk, as df shows it.
func diskUsed(path string) (float64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return 0, err
	}
	used, free := float64(st.Blocks-st.Bfree), float64(st.Bavail)
	if used+free == 0 {
		return 0, errNoValue
	}
	return 100 * used / (used + free), nil
}
