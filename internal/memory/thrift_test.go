package memory

import (
	"runtime/debug"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestThrift(t *testing.T) {
	was := debug.SetGCPercent(100)
	t.Cleanup(func() { debug.SetGCPercent(was) })
	t.Setenv("GOGC", "70")
	Thrift()
	require.Equal(t, 100, debug.SetGCPercent(100), "what somebody has set stays")
	t.Setenv("GOGC", "")
	Thrift()
	require.Equal(t, thrift, debug.SetGCPercent(100))
}
