package demo

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestNumbersForPeople(t *testing.T) {
	for d, want := range map[time.Duration]string{
		340 * time.Microsecond: "0.34 ms", 59 * time.Millisecond: "59 ms", 1500 * time.Millisecond: "1.5 s",
		45 * time.Second: "45 s", 83 * time.Second: "1m 23s", 7500 * time.Second: "2h 5m", -1: "-",
	} {
		require.Equal(t, want, brief(d))
	}
	require.Equal(t, "-", ratio(0, 0))
	require.Equal(t, "100", ratio(5, 5))
	require.Equal(t, "99.9", ratio(99999, 100000), "not everything is not 100 %")
	require.Equal(t, "1 repeat", count(1, "repeat"))
	require.Equal(t, "18 000 repeats", count(18000, "repeat"))
}
