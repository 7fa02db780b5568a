package mqttclient

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/drivers"
	"github.com/perigee-iot/perigee/internal/mosquittotest"
)

func TestPublishInOrderWithReceipts(t *testing.T) {
	b := mosquittotest.Start(t)
	for qos := range byte(3) {
		t.Run(fmt.Sprint(qos), func(t *testing.T) {
			p := newPeer(t, b.URL)
			var mu sync.Mutex
			var got []string
			topic := fmt.Sprintf("out/%d", qos)
			done(t, p.Subscribe(topic, 2, func(_ mqtt.Client, m mqtt.Message) {
				mu.Lock()
				defer mu.Unlock()
				got = append(got, string(m.Payload()))
			}))
			e := newEngine()
			c := newClient(t, b.URL, e)
			stop := startWith(t, c, e)
			defer stop()
			const n = 3 * inFlight
			receipts := make([]drivers.Receipt, n)
			for i := range n {
				var err error
				receipts[i], err = c.Publish(context.Background(), drivers.Message{Topic: topic, QoS: qos, Payload: []byte(fmt.Sprint(i))})
				require.NoError(t, err)
			}
			for _, r := range receipts {
				require.NoError(t, r.Wait(context.Background()))
			}
			eventually(t, "all messages", func() bool { mu.Lock(); defer mu.Unlock(); return len(got) == n })
			for i, s := range got {
				require.Equal(t, fmt.Sprint(i), s)
			}
		})
	}
}

func TestPublishRetained(t *testing.T) {
	b := mosquittotest.Start(t)
	e := newEngine()
	c := newClient(t, b.URL, e)
	startWith(t, c, e)
	r, err := c.Publish(context.Background(), drivers.Message{Topic: "kept", QoS: 1, Retain: true, Payload: []byte("1")})
	require.NoError(t, err)
	require.NoError(t, r.Wait(context.Background()))
	require.NoError(t, c.Subscribe(context.Background(), []drivers.Filter{filter("kept", 1)}))
	eventually(t, "the retained message", func() bool { return len(e.ran()) == 1 })
	require.True(t, e.deliveries()[0].Event.Retained)
}

// A receipt is worth something only with the acknowledgement on its own connection.
func TestReceiptsOfALostConnection(t *testing.T) {
	b := mosquittotest.Start(t)
	proxy := newProxy(t, b.Address)
	e := newEngine()
	c := newClient(t, "tcp://"+proxy.addr, e)
	startWith(t, c, e)
	proxy.freeze(true)
	m := drivers.Message{Topic: "lost", QoS: 1, Payload: []byte("1")}
	r, err := c.Publish(context.Background(), m)
	require.NoError(t, err)

	short, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	require.ErrorIs(t, r.Wait(short), context.DeadlineExceeded)

	proxy.cut()
	proxy.freeze(false)
	require.ErrorIs(t, r.Wait(context.Background()), drivers.ErrNotConnected)
	eventually(t, "connected again", func() bool { return c.Connected() && c.Status().Connects == 2 })
	require.ErrorIs(t, r.Wait(context.Background()), drivers.ErrNotConnected, "it stays unknown")
	r, err = c.Publish(context.Background(), m)
	require.NoError(t, err)
	require.NoError(t, r.Wait(context.Background()))
}

func TestPublishIsBoundedInFlight(t *testing.T) {
	b := mosquittotest.Start(t)
	proxy := newProxy(t, b.Address)
	e := newEngine()
	c := newClient(t, "tcp://"+proxy.addr, e, func(o *Options) { o.KeepAlive = time.Minute })
	startWith(t, c, e)
	proxy.freeze(true)
	m := drivers.Message{Topic: "x", QoS: 1}
	for range inFlight {
		_, err := c.Publish(context.Background(), m)
		require.NoError(t, err)
	}
	short, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	_, err := c.Publish(short, m)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	proxy.freeze(false)
	r, err := c.Publish(context.Background(), m)
	require.NoError(t, err)
	require.NoError(t, r.Wait(context.Background()))
}

func TestPublishRefusesWhatNoBrokerTakes(t *testing.T) {
	e := newEngine()
	c := newClient(t, "tcp://127.0.0.1:1", e)
	for _, m := range []drivers.Message{
		{Topic: ""}, {Topic: "a/+"}, {Topic: "#"}, {Topic: "a\x00b"}, {Topic: "\xff"}, {Topic: "a", QoS: 3},
	} {
		_, err := c.Publish(context.Background(), m)
		require.Error(t, err)
		require.NotErrorIs(t, err, drivers.ErrNotConnected, "it will never pass")
	}
}
