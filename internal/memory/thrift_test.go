package memory

import (
	"runtime/debug"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestThrift(t *testing.T) {
	was, limit := debug.SetGCPercent(100), debug.SetMemoryLimit(-1)
	t.Cleanup(func() { debug.SetGCPercent(was); debug.SetMemoryLimit(limit) })
	t.Setenv("GOMEMLIMIT", "1GiB")
	t.Setenv("GOGC", "70")
	Thrift()
	require.Equal(t, 100, debug.SetGCPercent(100), "what somebody has set stays")
	require.Equal(t, limit, debug.SetMemoryLimit(-1))
	t.Setenv("GOGC", "")
	t.Setenv("GOMEMLIMIT", "")
	Thrift()
	require.Equal(t, thrift, debug.SetGCPercent(100))
	require.EqualValues(t, enough, debug.SetMemoryLimit(-1))
}
