package app

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestSourcesCountTheirEvents: the schedule of a function that ticks has said something.
func TestSourcesCountTheirEvents(t *testing.T) {
	s := newSite(t)
	s.function("tick", "triggers: [{every: 1s}]\n", "return function() end")
	a := s.open()
	require.Eventually(t, func() bool {
		st, err := a.Status(context.Background())
		require.NoError(t, err)
		for _, src := range st.Sources {
			if src.Name == "schedule" {
				return src.Events > 0 && src.Faults == 0
			}
		}
		return false
	}, 20*time.Second, 10*time.Millisecond)
}
