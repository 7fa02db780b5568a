package confine_test

import (
	"crypto/sha256"
	"encoding/hex"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/functions/confine"
	"github.com/perigee-iot/perigee/functions/frame"
)

// TestRealWorkerWorks: a real worker does in its confinement what functions ask of it: it computes, takes much memory and gives it back, is interrupted
// at its deadline, and goes on, in the same process.
func TestRealWorkerWorks(t *testing.T) {
	p := pool(t, "worker")
	for name, l := range states(t, p) {
		t.Logf("%-18s %s %s", name, l.State, l.Why)
		require.NotEqual(t, frame.Off, l.State, "%s: %s", name, l.Why)
	}
	require.Equal(t, frame.On, states(t, p)[confine.Seccomp].State)
	bundle := func(source string) *functions.Bundle {
		sum := sha256.Sum256([]byte(source))
		return &functions.Bundle{Digest: hex.EncodeToString(sum[:]), Files: map[string][]byte{"main.lua": []byte(source)}}
	}
	sum := bundle(`return function(event)
		local t = {}
		for i = 1, 20000 do t[i] = {name = "n" .. i, value = i} end
		local n = 0
		for _, e in ipairs(t) do n = n + e.value end
		return n * event.data
	end`)
	endless := bundle("return function() while true do end end")
	rounds := 30
	if testing.Short() {
		rounds = 4
	}
	for i := range rounds {
		o := run(t, p, sum, "2")
		require.Nil(t, o.Fault, "%d: %v", i, o.Fault)
		require.Equal(t, "400020000", string(o.Result))
	}
	o := runFor(t, p, endless, "1", 300)
	require.NotNil(t, o.Fault)
	require.Equal(t, functions.FaultTimeout, o.Fault.Kind)
	require.Equal(t, "600030000", string(run(t, p, sum, "3").Result))
	s := p.Stats()
	require.EqualValues(t, 1, s.Started, "%+v", s)
	require.Zero(t, s.Crashes+s.Breaches+s.Killed)
}
