package app

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/gateway/config"
)

func TestDiskProblemSaysWhereAndWhatToDo(t *testing.T) {
	c := config.Default()
	c.DataDir = "/data"
	require.Equal(t, "the disk is nearly full, and nothing new is accepted: 47 MiB are free where /data is, and 64MiB must stay free (store.min_free); make room",
		diskProblem(47<<20+5, c))
}
