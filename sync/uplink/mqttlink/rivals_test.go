package mqttlink_test

import (
	"errors"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/sync/outbox"
	"github.com/perigee-iot/perigee/sync/uplink"
	"github.com/perigee-iot/perigee/sync/uplink/mqttlink"
	"github.com/perigee-iot/perigee/sync/uplinktest"
)

// connect opens a connection and gets a batch acknowledged on it.
func connect(t *testing.T, link *mqttlink.Link) uplink.Conn {
	t.Helper()
	c, err := link.Connect(t.Context())
	require.NoError(t, err)
	r, err := c.Send(t.Context(), &outbox.Batch{Gateway: "gw", Stream: "s", Payload: []byte("[]")})
	require.NoError(t, err)
	require.NoError(t, r.Wait(t.Context()))
	return c
}

// lost waits for the end of a connection, and says why it ended.
func lost(c uplink.Conn) error {
	<-c.Lost()
	defer c.Close()
	return c.Err()
}

func TestTwoGatewaysWithOneIDAreNamed(t *testing.T) {
	m := startMosquitto(t)
	one := newLink(t, mqttlink.Options{URL: m.URL})
	two := newLink(t, mqttlink.Options{URL: m.URL})
	var contested *uplink.ContestedError
	for i := range 5 {
		a := connect(t, one)
		b := connect(t, two) // which throws a out
		err := lost(a)
		require.Equal(t, i >= 2, errors.As(err, &contested), "connection %d: %v", i+1, err)
		a = connect(t, one)
		require.Equal(t, i >= 2, errors.As(lost(b), &contested))
		a.Close() // by ourselves, which says nothing
	}
	assert.Contains(t, contested.Error(), `"perigee-gw-uplink"`)
	assert.Contains(t, contested.Error(), "its own id: in gateway.yaml")
	assert.Less(t, len(contested.Error()), 200, "so that sync status shows all of it")
}

// What a connection that ends says about rivals.
func TestWhatARivalDoes(t *testing.T) {
	l := listen(t)
	broker := startBroker(t, uplinktest.NewCloud(nil), l)
	link := newLink(t, mqttlink.Options{URL: "tcp://" + l.Addr().String()})
	away := func() bool { _, there := broker.server.Clients.Get("perigee-gw-uplink"); return !there }
	thrown := func() bool {
		c := connect(t, link)
		cl, ok := broker.server.Clients.Get("perigee-gw-uplink")
		require.True(t, ok)
		cl.Stop(packets.ErrSessionTakenOver)
		err := lost(c)
		uplinktest.Until(t, away)
		var contested *uplink.ContestedError
		if errors.As(err, &contested) {
			return true
		}
		require.ErrorContains(t, err, "the broker closed the connection")
		return false
	}
	for i := range 5 {
		require.Equal(t, i >= 2, thrown(), "connection %d", i+1)
	}
	admit := func(password string) {
		broker.mu.Lock()
		defer broker.mu.Unlock()
		broker.password = password
	}
	admit("nobody")
	_, err := link.Connect(t.Context())
	require.Error(t, err, "a rival does not keep others from connecting")
	admit("")
	require.False(t, thrown(), "the count began anew")
}

// A broker that drops the connection for what it is sent, or one that goes away, is no rival.
func TestARefusingBrokerIsNoRival(t *testing.T) {
	l := listen(t)
	cloud := uplinktest.NewCloud(func(int) uplinktest.Fault { return uplinktest.DropBefore })
	startBroker(t, cloud, l)
	link := newLink(t, mqttlink.Options{URL: "tcp://" + l.Addr().String()})
	for range 6 {
		c, err := link.Connect(t.Context())
		require.NoError(t, err)
		r, err := c.Send(t.Context(), &outbox.Batch{Gateway: "gw", Stream: "s", Payload: []byte("[]")})
		require.NoError(t, err)
		var contested *uplink.ContestedError
		err = r.Wait(t.Context())
		require.Error(t, err)
		require.False(t, errors.As(err, &contested), "%v", err)
		c.Close()
	}
}
