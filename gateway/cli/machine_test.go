package cli

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMeminfo(t *testing.T) {
	var m machine
	for _, line := range []string{"MemTotal:         948280 kB", "MemFree: 1 kB", "MemAvailable:     520100 kB", "HugePages_Total: 0", "", "x"} {
		m.meminfo(line)
	}
	require.EqualValues(t, 948280<<10, m.memory)
	require.EqualValues(t, 520100<<10, m.available)
}

func TestNearest(t *testing.T) {
	dir := t.TempDir()
	at, missing := nearest(dir)
	require.Equal(t, dir, at)
	require.False(t, missing)
	at, missing = nearest(filepath.Join(dir, "a", "b"))
	require.Equal(t, dir, at)
	require.True(t, missing)
}

func TestDiskOf(t *testing.T) {
	d, err := diskOf(t.TempDir())
	require.NoError(t, err)
	require.Positive(t, d.free)
	require.False(t, d.readOnly)
	d, err = diskOf("/proc")
	require.NoError(t, err)
	require.Zero(t, d.free)
	require.Empty(t, d.device)
	_, err = diskOf(filepath.Join(t.TempDir(), "none"))
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestMachineFindings(t *testing.T) {
	for name, c := range map[string]struct {
		m             machine
		clock, memory string
	}{
		"well":     {machine{memory: 1 << 30, available: 1 << 29, synced: true}, stateOK, stateOK},
		"no clock": {machine{memory: 1 << 30, available: 1 << 29}, stateWarning, stateOK},
		"no room":  {machine{memory: 1 << 30, available: 1 << 20, synced: true}, stateOK, stateWarning},
	} {
		r := &report{}
		r.ofMachine(c.m)
		require.Equal(t, c.clock, r.Findings[0].State, name)
		require.Equal(t, c.memory, r.Findings[1].State, name)
	}
	r := &report{}
	r.ofMachine(machine{available: -1, synced: true})
	require.Len(t, r.Findings, 1, "a kernel that does not say what is left")
}
