package broker

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/drivers"
)

// publishing publishes one message and returns its receipt.
func publishing(t *testing.T, r *running, topic string, retain bool) drivers.Receipt {
	t.Helper()
	rc, err := r.Publish(t.Context(), drivers.Message{ID: "id", Topic: topic, Payload: []byte("x"), QoS: 1, Retain: retain})
	require.NoError(t, err)
	return rc
}

func TestAReceiptComesWithWhatIsStored(t *testing.T) {
	st := openStore(t, t.TempDir())
	defer st.Close()
	r := start(t, Options{Store: st})
	away := pahoClient(t, r.addr, "away", func(o *paho.ClientOptions) { o.SetCleanSession(false) })
	ok(t, away.Subscribe("a/#", 1, nil))
	away.Disconnect(0)
	eventually(t, "the client is gone", func() bool { return r.Stats().Clients == 0 })

	for i := range 20 {
		require.NoError(t, publishing(t, r, fmt.Sprint("a/", i), false).Wait(t.Context()))
		_, sessions := keys(t, st)
		require.Equal(t, 1+i+1, sessions, "the session and its messages")
		require.NoError(t, publishing(t, r, fmt.Sprint("b/", i), true).Wait(t.Context()))
		retained, _ := keys(t, st)
		require.Equal(t, i+1, retained)
	}
}

func TestAReceiptOfWhatNobodyStoresIsImmediate(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	st := openStore(t, t.TempDir())
	defer st.Close()
	r := start(t, Options{Store: st})
	clean := pahoClient(t, r.addr, "clean", nil)
	ok(t, clean.Subscribe("a/#", 1, nil))
	require.NoError(t, publishing(t, r, "a/1", false).Wait(ended), "a session that ends with its connection")
	require.NoError(t, publishing(t, r, "b", false).Wait(ended), "no subscriber")

	r = start(t, Options{})
	require.NoError(t, publishing(t, r, "a", true).Wait(ended), "no store")
}

func TestAReceiptOfABrokerThatStops(t *testing.T) {
	st := openStore(t, t.TempDir())
	r := start(t, Options{Store: st})
	require.NoError(t, st.Close()) // so that nothing can be stored
	rc := publishing(t, r, "a", true)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, rc.Wait(ended), context.Canceled, "it waits for the store")
	r.stop()
	require.ErrorIs(t, rc.Wait(t.Context()), drivers.ErrNotConnected)
}

// As many receipts as the gateway waits for at once must not hold up the rate: the messages that a subscriber takes at once
// are never stored at all.
func TestReceiptsDoNotHoldUp(t *testing.T) {
	st := openStore(t, t.TempDir())
	defer st.Close()
	r := start(t, Options{Store: st})
	var got atomic.Int64
	c := pahoClient(t, r.addr, "persistent", func(o *paho.ClientOptions) { o.SetCleanSession(false) })
	ok(t, c.Subscribe("a/#", 1, func(paho.Client, paho.Message) { got.Add(1) }))
	const n, window = 4000, 512
	receipts := make(chan drivers.Receipt, window)
	waited := make(chan error, 1)
	go func() {
		for rc := range receipts {
			if err := rc.Wait(t.Context()); err != nil {
				waited <- err
				return
			}
		}
		waited <- nil
	}()
	for i := range n {
		eventually(t, "the subscriber keeps up", func() bool { return int64(i)-got.Load() < window })
		receipts <- publishing(t, r, "a/1", false)
	}
	close(receipts)
	require.NoError(t, <-waited)
	eventually(t, "all messages", func() bool { return got.Load() == n })
	eventually(t, "an empty queue in the store", func() bool { _, sessions := keys(t, st); return sessions == 1 })
}

// A session that is taken over again and again while the gateway publishes loses nothing, in memory or in the store.
func TestNothingIsLostWhileASessionIsTakenOver(t *testing.T) {
	st := openStore(t, t.TempDir())
	defer st.Close()
	r := start(t, Options{Store: st})
	var mu sync.Mutex
	got := map[string]bool{}
	client := func() paho.Client {
		return pahoClient(t, r.addr, "moves", func(o *paho.ClientOptions) {
			o.SetCleanSession(false).SetAutoReconnect(false)
			o.SetDefaultPublishHandler(func(_ paho.Client, m paho.Message) {
				mu.Lock()
				defer mu.Unlock()
				got[string(m.Payload())] = true
			})
		})
	}
	have := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(got)
	}
	ok(t, client().Subscribe("a", 1, nil))
	const n = 6000
	published := make(chan struct{})
	go func() {
		defer close(published)
		for i := range n {
			for cl, _ := r.serving().mqtt.Clients.Get("moves"); cl.State.Inflight.Len() > maxQueued/2; {
				time.Sleep(time.Millisecond)
				cl, _ = r.serving().mqtt.Clients.Get("moves")
			}
			if _, err := r.Publish(t.Context(), drivers.Message{Topic: "a", Payload: fmt.Append(nil, i), QoS: 1}); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	for going := true; going; {
		client()
		select {
		case <-published:
			going = false
		default:
		}
	}
	eventually(t, "every message", func() bool { return have() == n })
}
