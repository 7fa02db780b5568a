package app

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/perigee-iot/perigee/gateway/api"
	"github.com/perigee-iot/perigee/gateway/config"
)

func TestDiskProblemSaysWhereAndWhatToDo(t *testing.T) {
	c := config.Default()
	c.DataDir = "/data"
	require.Equal(t, "the disk is nearly full, and nothing new is accepted: 47 MiB are free where /data is, and 64MiB must stay free (store.min_free); make room",
		diskProblem(47<<20+5, c))
}

func TestInvokeSaysThatTheDiskIsFull(t *testing.T) {
	s := newSite(t)
	s.function("note", "triggers: [{mqtt: in/+}]\n", "return function(event) state.set('last', event.data) end")
	a := s.open()
	require.NoError(t, a.Stop(context.Background()))
	var fs unix.Statfs_t
	require.NoError(t, unix.Statfs(s.dir, &fs))
	free := fs.Bavail * uint64(fs.Bsize) >> 20
	s.write("gateway.yaml", fmt.Sprintf("id: gw\ndata_dir: data\nbroker: {listen: [\"tcp://127.0.0.1:%d\"]}\nstore: {min_free: %dMiB}\n", s.port, 4*free))
	a = s.open()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	_, err := a.Invoke(ctx, "note", &api.InvokeRequest{Data: []byte("1")})
	var said *api.Error
	require.True(t, errors.As(err, &said), "%v", err)
	require.Equal(t, api.CodeUnavailable, said.Code)
	require.Regexp(t, `^event \S+ has no outcome: the disk is full: \d+ MiB are free where .+ is, and \d+ MiB must stay free \(store\.min_free\)$`, said.Message)
	require.Equal(t, "make room on the disk, or lower store.min_free", said.Hint)
	require.NoError(t, ctx.Err())
}
