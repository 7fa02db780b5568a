package app

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/sync/outbox"
)

func TestWhereARecordIs(t *testing.T) {
	s := &outbox.Status{Uplink: "main", First: 10, Next: 20, Acked: 7}
	for seq, want := range map[uint64]string{5: "acknowledged", 7: "acknowledged", 8: "dropped", 10: "waiting", 19: "waiting"} {
		what, _ := whereIs(seq, s)
		require.Equal(t, want, what, seq)
	}
	_, why := whereIs(12, &outbox.Status{First: 1})
	require.Equal(t, "no uplink takes the stream", why)
	s.Dropped, s.Quarantined = 2, 1
	what, why := whereIs(5, s)
	require.Equal(t, "acknowledged", what)
	require.Equal(t, "unless it is one of 3 that retention dropped or the far side refused", why)
}
