package mqttlink_test

import (
	"context"
	"sync"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/internal/mosquittotest"
	"github.com/perigee-iot/perigee/sync/uplink"
	"github.com/perigee-iot/perigee/sync/uplink/mqttlink"
	"github.com/perigee-iot/perigee/sync/uplinktest"
)

// startMosquitto runs a real broker that bounds nothing, and keeps its queues over a shutdown.
func startMosquitto(t *testing.T) *mosquittotest.Broker {
	return mosquittotest.Start(t, mosquittotest.Options{Persistence: true, Config: []string{"max_queued_messages 0", "max_inflight_messages 0"}})
}

// reader is a far side behind the broker: a client with a session of its own that takes all batches.
type reader struct {
	cloud  *uplinktest.Cloud
	client paho.Client

	mu    sync.Mutex
	ready chan struct{} // closed while it is subscribed
}

func startReader(t *testing.T, m *mosquittotest.Broker, cloud *uplinktest.Cloud) *reader {
	r := &reader{cloud: cloud, ready: make(chan struct{})}
	o := paho.NewClientOptions().AddBroker(m.URL).SetClientID("reader").SetCleanSession(false).
		SetMaxReconnectInterval(20 * time.Millisecond).SetConnectRetry(true).SetConnectRetryInterval(20 * time.Millisecond).
		SetDefaultPublishHandler(func(_ paho.Client, msg paho.Message) { cloud.Take(msg.Payload()) })
	o.SetOnConnectHandler(func(c paho.Client) {
		t := c.Subscribe("perigee/+/streams/+", 1, nil)
		if t.Wait() && t.Error() == nil {
			r.mu.Lock()
			defer r.mu.Unlock()
			select {
			case <-r.ready:
			default:
				close(r.ready)
			}
		}
	})
	r.client = paho.NewClient(o)
	r.client.Connect()
	t.Cleanup(func() { r.client.Disconnect(100) })
	return r
}

func (r *reader) reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ready = make(chan struct{})
}

// gated is a link that connects only once the reader has its subscription: a broker that nobody listens on acknowledges and forgets.
type gated struct {
	uplink.Link
	r *reader
}

func (g *gated) Connect(ctx context.Context) (uplink.Conn, error) {
	g.r.mu.Lock()
	ready := g.r.ready
	g.r.mu.Unlock()
	select {
	case <-ready:
		return g.Link.Connect(ctx)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Ten thousand records go through mosquitto, which ends and starts again while they do: twice in the middle of the traffic
// by SIGTERM, when it saves what it has acknowledged, and twice by SIGKILL. What mosquitto acknowledges it keeps in memory only until
// it saves or passes it on, so a kill comes when everything that it has acknowledged has been passed on.
func TestMosquittoKilledInBetween(t *testing.T) {
	m := startMosquitto(t)
	cloud := uplinktest.NewCloud(nil)
	r := startReader(t, m, cloud)
	b := uplinktest.NewBox(t)
	b.Fill(5000, "a", "b")
	u, stop := b.Start(&gated{newLink(t, mqttlink.Options{URL: m.URL}), r})
	sent := func() int64 {
		s, err := u.Status()
		require.NoError(t, err)
		return s.Sent
	}
	for i, kill := range []bool{false, true, false, true} {
		uplinktest.Until(t, func() bool { return sent() >= int64(700*(i+1)) })
		if kill {
			u.Pause()
			uplinktest.Until(t, func() bool {
				rep, err := cloud.Report()
				s, serr := u.Status()
				return err == nil && serr == nil && !s.Connected && int64(rep.Taken-rep.Repeats) >= 10_000-s.Waiting
			})
		}
		r.reset()
		if kill {
			m.Kill()
		} else {
			m.Stop()
		}
		u.Resume()
		m.Restart()
	}
	b.Drain(u)
	stop()
	uplinktest.Until(t, func() bool {
		rep, err := cloud.Report()
		return err == nil && len(rep.Streams["a"]) == 5000 && len(rep.Streams["b"]) == 5000
	})
	uplinktest.Check(t, cloud, 5000, "a", "b")
}
