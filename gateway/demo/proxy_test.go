package demo

import (
	"bytes"
	"context"
	"crypto/rand"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// patience is how long a test waits for what must happen soon.
const patience = 30 * time.Second

// testWire is a proxy in front of a server that echoes.
func testWire(t *testing.T) (p *proxy, dial func() net.Conn) {
	server, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p, err = newProxy("127.0.0.1:0", server.Addr().String())
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	wait.Go(func() { p.Run(ctx) })
	wait.Go(func() {
		for {
			c, err := server.Accept()
			if err != nil {
				return
			}
			wait.Go(func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			})
		}
	})
	t.Cleanup(func() { cancel(); server.Close(); wait.Wait() })
	return p, func() net.Conn {
		c, err := net.Dial("tcp", p.listen.Addr().String())
		require.NoError(t, err)
		require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
		t.Cleanup(func() { c.Close() })
		return c
	}
}

func echo(t *testing.T, c net.Conn, n int) {
	t.Helper()
	data := make([]byte, n)
	_, _ = rand.Read(data)
	var wait sync.WaitGroup
	defer wait.Wait()
	wait.Go(func() { _, _ = c.Write(data) })
	got := make([]byte, n)
	_, err := io.ReadFull(c, got)
	require.NoError(t, err)
	require.True(t, bytes.Equal(data, got))
}

func TestProxyPassesBytesOn(t *testing.T) {
	_, dial := testWire(t)
	a, b := dial(), dial()
	echo(t, a, 1<<20)
	echo(t, b, 10)
	a.Close()
	echo(t, b, 1000)
}

func TestProxyCanBeCut(t *testing.T) {
	p, dial := testWire(t)
	old := dial()
	echo(t, old, 10)
	p.set(true)
	_, err := old.Read(make([]byte, 1))
	require.Error(t, err, "a cut ends what is connected")
	cut, _ := p.state()
	require.True(t, cut)

	fresh := dial()
	_, err = fresh.Write([]byte("ping"))
	require.NoError(t, err)
	require.NoError(t, fresh.SetReadDeadline(time.Now().Add(50*time.Millisecond)))
	_, err = fresh.Read(make([]byte, 4))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded, "nothing passes a cut wire")

	p.set(false)
	require.NoError(t, fresh.SetDeadline(time.Now().Add(patience)))
	got := make([]byte, 4)
	_, err = io.ReadFull(fresh, got)
	require.NoError(t, err, "who has waited goes on")
	require.Equal(t, "ping", string(got))
	echo(t, fresh, 1000)
}

// TestProxyEnds: Run returns although connections are open, and some hang.
func TestProxyEnds(t *testing.T) {
	p, err := newProxy("127.0.0.1:0", "127.0.0.1:1")
	require.NoError(t, err)
	p.set(true)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); p.Run(ctx) }()
	for range 2 * maxConns { // more than it takes
		c, err := net.Dial("tcp", p.listen.Addr().String())
		require.NoError(t, err)
		defer c.Close()
	}
	cancel()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatal("the proxy does not end")
	}
}
