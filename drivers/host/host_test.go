package host

import (
	"errors"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/drivers"
	"github.com/perigee-iot/perigee/drivers/drivertest"
	"github.com/perigee-iot/perigee/internal/yamlfile"
)

func file(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }

func pi() fstest.MapFS {
	return fstest.MapFS{
		"proc/loadavg":                         file("0.52 0.58 0.59 1/467 12345\n"),
		"proc/uptime":                          file("35021.57 68012.11\n"),
		"proc/meminfo":                         file("MemTotal:         400000 kB\nMemFree:           10000 kB\nMemAvailable:     300000 kB\n"),
		"sys/class/thermal/thermal_zone0/type": file("battery\n"),
		"sys/class/thermal/thermal_zone0/temp": file("20000\n"),
		"sys/class/thermal/thermal_zone1/type": file("cpu-thermal\n"),
		"sys/class/thermal/thermal_zone1/temp": file("48312\n"),
	}
}

func TestRead(t *testing.T) {
	files := pi()
	h := &host{name: "box", every: time.Second, files: files, disk: func() (float64, error) { return 12.345, nil }}
	read := func() drivers.Fields {
		f, err := h.Read(t.Context())
		require.NoError(t, err)
		return f
	}
	require.Equal(t, drivers.Fields{"cpu_temperature": 48.31, "load": 0.52, "memory_used": 25.0, "disk_used": 12.35, "uptime": 35021.57}, read())

	files["sys/class/thermal/thermal_zone1/type"] = file("wifi")
	require.Equal(t, 20.0, read()["cpu_temperature"], "the first zone, if none is the processor's")
	delete(files, "sys/class/thermal/thermal_zone0/type")
	delete(files, "sys/class/thermal/thermal_zone1/type")
	files["proc/meminfo"] = file("MemTotal: x kB")
	files["proc/loadavg"] = file("")
	h.disk = func() (float64, error) { return 0, errors.New("no") }
	require.Equal(t, drivers.Fields{"uptime": 35021.57}, read(), "what cannot be read is left out")
	h.files = fstest.MapFS{}
	_, err := h.Read(t.Context())
	require.ErrorContains(t, err, "device box: nothing can be read of this machine")
	require.ErrorContains(t, h.Run(t.Context(), nil), "nothing can be read")
}

func TestSuite(t *testing.T) {
	drivertest.Run(t, func(*testing.T) drivertest.Subject {
		h := &host{name: "box", every: 2 * time.Millisecond, files: pi(), disk: func() (float64, error) { return 1, nil }}
		return drivertest.Subject{Source: h, Reader: h}
	})
}

func TestThisMachine(t *testing.T) {
	d, err := makeDevice(t, "{}")
	require.NoError(t, err)
	f, err := d.Reader.Read(t.Context())
	require.NoError(t, err)
	used, ok := f["disk_used"].(float64)
	require.True(t, ok)
	require.True(t, used >= 0 && used <= 100, "%v", used)
}

func makeDevice(t *testing.T, spec string) (*drivers.Device, error) {
	root, err := yamlfile.Parse("gateway.yaml", []byte(spec))
	require.NoError(t, err)
	return Kind().New("box", root.Decode, drivers.Env{})
}

func TestErrors(t *testing.T) {
	for spec, want := range map[string]string{
		"{every: 1ms}":  "every 1ms is too often; at least 100ms",
		"{path: data}":  `path "data" must begin with /`,
		"{evry: 1s}":    `did you mean "every"?`,
		"{every: fast}": `"fast" is no duration`,
	} {
		_, err := makeDevice(t, spec)
		require.ErrorContains(t, err, want, spec)
	}
}
