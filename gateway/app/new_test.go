package app_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/gateway/app"
	"github.com/perigee-iot/perigee/gateway/config"
)

// load reads a configuration whose data is in a directory of the test's own.
func load(t *testing.T, text string) *config.Config {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "gateway.yaml")
	require.NoError(t, os.WriteFile(file, []byte("id: gw-01\ndata_dir: data\nbroker: {listen: [\"unix://"+filepath.Join(dir, "mqtt.sock")+"\"]}\n"+text), 0o600))
	c, err := config.Load(file, config.Overrides{})
	require.NoError(t, err)
	require.NoError(t, c.Validate(app.KindNames()))
	return c
}

const wrongDevices = `devices:
  cellar: {sim: {wave: sine, min: 5, max: 1}}
  fan: {sim: {kind: fan}}
`

// TestCheckDevices finds everything that the kinds say, with its place, and opens nothing.
func TestCheckDevices(t *testing.T) {
	c := load(t, wrongDevices)
	err := app.CheckDevices(c)
	require.ErrorContains(t, err, "gateway.yaml:5:12: devices.cellar.sim: max 1 is below min 5")
	require.ErrorContains(t, err, "gateway.yaml:6:15: devices.fan.sim: unknown key")
	require.NoDirExists(t, c.DataDir)
	require.NoError(t, app.CheckDevices(load(t, "devices: {fan: {sim: {switch: off}}}\n")))
}

// TestCheckDevicesThatReadOthers: a device that is named by another must be there, and say something.
func TestCheckDevicesThatReadOthers(t *testing.T) {
	const cellar = "  cellar: {sim: {wave: sine, max: 9, cooled_by: fan}}\n"
	require.NoError(t, app.CheckDevices(load(t, "devices:\n"+cellar+"  fan: {sim: {switch: off}}\n")))
	for devices, want := range map[string]string{
		"":                                   `gateway.yaml:5:38: devices.cellar.sim.cooled_by: there is no device "fan"; there is no other`,
		"  fam: {sim: {switch: off}}\n":      `gateway.yaml:5:38: devices.cellar.sim.cooled_by: there is no device "fan"; did you mean "fam"? There are fam`,
		"  a: {host: {}}\n  b: {host: {}}\n": `there is no device "fan"; there are a, b`,
		"  fan: {sim: {button: {}}}\n":       `gateway.yaml:5:38: devices.cellar.sim.cooled_by: device "fan" cannot be read`,
		"  fan: {sim: {wave: sine, max: 9, cooled_by: fan}}\n": `gateway.yaml:6:35: devices.fan.sim.cooled_by: must name another device, not this one`,
	} {
		require.ErrorContains(t, app.CheckDevices(load(t, "devices:\n"+cellar+devices)), want, devices)
	}
}

// TestNewUndoes gives the store back when a part cannot be made: the next New with a right configuration works.
func TestNewUndoes(t *testing.T) {
	c := load(t, wrongDevices)
	log := slog.New(slog.DiscardHandler)
	_, err := app.New(app.Options{Config: c, Log: log})
	require.ErrorContains(t, err, "devices.cellar.sim")
	c.Devices = nil
	a, err := app.New(app.Options{Config: c, Log: log})
	require.NoError(t, err)
	require.NoError(t, a.Stop(t.Context()))
}
