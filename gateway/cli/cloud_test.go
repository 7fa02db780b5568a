package cli_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/gateway/cli"
	"github.com/perigee-iot/perigee/sync/record"
)

// TestCloud: what a gateway sends is printed once, one CloudEvent a line, and the end says what there was.
func TestCloud(t *testing.T) {
	out := &lockedBuffer{}
	errs, errWriter := io.Pipe()
	p := cli.New(cli.Options{Stdout: out, Stderr: errWriter})
	ctx, cancel := context.WithCancel(t.Context())
	code := make(chan int, 1)
	go func() { code <- p.Main(ctx, []string{"perigee", "cloud", "--listen", "tcp://127.0.0.1:0"}) }()

	said := bufio.NewReader(errs)
	addr := ""
	for addr == "" {
		line, err := said.ReadString('\n')
		require.NoError(t, err)
		if _, rest, ok := strings.Cut(line, "receiving at "); ok {
			addr, _, _ = strings.Cut(rest, ";")
		}
	}
	var rest bytes.Buffer
	var reading sync.WaitGroup
	reading.Go(func() { io.Copy(&rest, said) })

	c := mqtt.NewClient(mqtt.NewClientOptions().AddBroker(addr).SetClientID("gw").SetConnectTimeout(10 * time.Second))
	tok := c.Connect()
	require.True(t, tok.WaitTimeout(20*time.Second))
	require.NoError(t, tok.Error())
	r := record.Record{Identity: record.Identity{Gateway: "gw-01", Stream: "alerts", Epoch: "9f3a9f3a", Sequence: 1}, Time: time.Unix(1, 0).UTC(), TimeOK: true, Function: "overheat", EventID: "01A", Data: []byte(`{"hot":true}`)}
	batch := append(r.Append([]byte("[")), ']')
	for range 2 {
		tok = c.Publish("perigee/gw-01/streams/alerts", 1, false, batch)
		require.True(t, tok.WaitTimeout(20*time.Second))
		require.NoError(t, tok.Error())
	}
	var v map[string]any
	require.NoError(t, json.Unmarshal([]byte(out.String()), &v), "one line, and the second time is a duplicate")
	require.Equal(t, map[string]any{"hot": true}, v["data"])
	c.Disconnect(100)
	cancel()
	require.Equal(t, 0, <-code)
	errWriter.Close()
	reading.Wait()
	require.Contains(t, rest.String(), "1 record, 1 duplicate, 0 gaps, 0 missing")
}

// TestCloudPortInUse: the error says what to do.
func TestCloudPortInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	var out bytes.Buffer
	p := cli.New(cli.Options{Stdout: io.Discard, Stderr: &out})
	require.Equal(t, 1, p.Main(t.Context(), []string{"perigee", "cloud", "--listen", "tcp://" + l.Addr().String()}))
	require.Contains(t, out.String(), "choose another port")
}

// lockedBuffer is a buffer that one writes and another reads.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
