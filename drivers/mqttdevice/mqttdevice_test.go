package mqttdevice

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/drivers"
	"github.com/perigee-iot/perigee/internal/yamlfile"
)

func makeDevice(t *testing.T, spec string) (*drivers.Device, error) {
	root, err := yamlfile.Parse("gateway.yaml", []byte(spec))
	require.NoError(t, err)
	return Kind().New("heater", root.Decode, drivers.Env{})
}

func TestNew(t *testing.T) {
	for spec, want := range map[string]drivers.Feed{
		"{topic: meter/1/json, field: power, write: meter/1/set}": {Topic: "meter/1/json", Field: "power", Write: "meter/1/set"},
		"{topic: meter/+/json}":                                   {Topic: "meter/+/json"},
		"{write: meter/1/set}":                                    {Write: "meter/1/set"},
		"{topic: $SYS/broker/uptime}":                             {Topic: "$SYS/broker/uptime"},
	} {
		d, err := makeDevice(t, spec)
		require.NoError(t, err, spec)
		require.Equal(t, &drivers.Device{Name: "heater", Kind: "mqtt", Feed: &want}, d)
	}
}

func TestErrors(t *testing.T) {
	for spec, want := range map[string]string{
		"{}":                       "an mqtt device has a topic to read",
		"{field: x, write: a}":     "field belongs to a topic",
		"{topic: a/#/b}":           "gateway.yaml:1:2: topic: filter \"a/#/b\": # must be the last level",
		"{topic: [a]}":             "gateway.yaml:1:2: topic: must be text, not a list",
		"{write: a/+}":             "gateway.yaml:1:2: write: topic \"a/+\": it has a wildcard",
		"{write: $SYS/x}":          "under $",
		"{topic: a/#, write: a/b}": "would come back as a reading",
		"{topic: a, wirte: b}":     `did you mean "write"?`,
	} {
		_, err := makeDevice(t, spec)
		require.ErrorContains(t, err, want, spec)
	}
}
