package api_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/gateway/api"
	"github.com/perigee-iot/perigee/gateway/api/apitest"
)

// streaming is a gateway whose backup is what a test says.
type streaming struct {
	*apitest.Fake
	write func(ctx context.Context, w io.Writer) error
}

func (s streaming) Backup(ctx context.Context, w io.Writer) error { return s.write(ctx, w) }

func TestAnErrorAfterTheBeginningOfABackupArrives(t *testing.T) {
	c, _ := serve(t, streaming{apitest.New(), func(_ context.Context, w io.Writer) error {
		_, err := w.Write(bytes.Repeat([]byte("x"), 1<<20))
		return errors.Join(err, api.Errorf(api.CodeUnavailable, "the disk „broke“"))
	}})
	var out bytes.Buffer
	err := c.Backup(t.Context(), &out)
	require.True(t, api.IsCode(err, api.CodeUnavailable), "%v", err)
	require.ErrorContains(t, err, "the disk „broke“")
	require.Equal(t, 1<<20, out.Len())
}

func TestABackupEndsWithItsReaderAndWithTheServer(t *testing.T) {
	ended := make(chan error, 1)
	c, stop := serve(t, streaming{apitest.New(), func(ctx context.Context, w io.Writer) error {
		for ctx.Err() == nil {
			if _, err := w.Write(make([]byte, 64<<10)); err != nil {
				break
			}
		}
		ended <- ctx.Err()
		return ctx.Err()
	}})
	full := errors.New("no room here")
	require.ErrorIs(t, c.Backup(t.Context(), writerFunc(func([]byte) (int, error) { return 0, full })), full)
	<-ended
	var once sync.Once
	stopped := make(chan struct{})
	err := c.Backup(t.Context(), writerFunc(func(p []byte) (int, error) {
		once.Do(func() { go func() { defer close(stopped); stop() }() })
		return len(p), nil
	}))
	require.ErrorContains(t, err, "stopping")
	require.ErrorIs(t, <-ended, context.Canceled)
	<-stopped
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
