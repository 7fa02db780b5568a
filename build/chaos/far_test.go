package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/sync/receiver"
	"github.com/perigee-iot/perigee/sync/record"
)

// listener counts the actions: by id, and the numbers they carry.
type listener struct {
	mu      sync.Mutex
	ids     map[string]string // id → topic and n
	numbers map[string]int    // topic and n → how many ids
	last    map[string]int    // topic → the highest n
	repeats int
}

func listen(t *testing.T, url string) *listener {
	l := &listener{ids: map[string]string{}, numbers: map[string]int{}, last: map[string]int{}}
	o := mqtt.NewClientOptions().AddBroker(url).SetClientID("listener").SetCleanSession(false).SetAutoReconnect(true).
		SetMaxReconnectInterval(50 * time.Millisecond).SetConnectRetry(true).SetConnectRetryInterval(50 * time.Millisecond)
	o.SetDefaultPublishHandler(func(_ mqtt.Client, m mqtt.Message) {
		var v struct {
			ID string `json:"_id"`
			N  int    `json:"n"`
		}
		if json.Unmarshal(m.Payload(), &v) != nil || v.ID == "" {
			return
		}
		what := fmt.Sprintf("%s %d", m.Topic(), v.N)
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.ids[v.ID] != "" {
			l.repeats++
			return
		}
		l.ids[v.ID] = what
		l.numbers[what]++
		l.last[m.Topic()] = max(l.last[m.Topic()], v.N)
	})
	c := mqtt.NewClient(o)
	require.True(t, c.Connect().WaitTimeout(30*time.Second), "the listener connects")
	tok := c.Subscribe("done/#", 1, nil)
	require.True(t, tok.WaitTimeout(30*time.Second))
	require.NoError(t, tok.Error())
	t.Cleanup(func() { c.Disconnect(10) })
	return l
}

// seen is the highest number that came on a topic.
func (l *listener) seen(topic string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last[topic]
}

// times is how many ids a number came with.
func (l *listener) times(topic string, n int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.numbers[fmt.Sprintf("%s %d", topic, n)]
}

// count is how many numbers came on a topic.
func (l *listener) count(topic string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := 1; i <= l.last[topic]; i++ {
		if l.numbers[fmt.Sprintf("%s %d", topic, i)] > 0 {
			n++
		}
	}
	return n
}

// cloud is the far side of the uplink: it counts by identity and by the senders' numbers.
type cloud struct {
	r       *receiver.Receiver
	mu      sync.Mutex
	numbers map[string]int // stream, sender and n → how often
	last    map[string]int // stream and sender → the last n
	order   map[string]int // stream → how often a number was not above the last
}

func newCloud(t *testing.T) *cloud {
	t.Helper()
	r, err := receiver.New(receiver.Options{Listen: "tcp://127.0.0.1:0", Log: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	c := &cloud{r: r, numbers: map[string]int{}, last: map[string]int{}, order: map[string]int{}}
	r.Subscribe(func(rec record.Record) {
		var v struct {
			Sender string `json:"sender"`
			N      int    `json:"n"`
		}
		if json.Unmarshal(rec.Data, &v) != nil {
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.numbers[fmt.Sprintf("%s %s %d", rec.Stream, v.Sender, v.N)]++
		if at := rec.Stream + " " + v.Sender; v.N <= c.last[at] {
			c.order[rec.Stream]++
		} else {
			c.last[at] = v.N
		}
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = r.Run(ctx)
	}()
	t.Cleanup(func() { cancel(); <-done })
	return c
}

// times is how often a record came, by the identity of records.
func (c *cloud) times(stream, sender string, n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.numbers[fmt.Sprintf("%s %s %d", stream, sender, n)]
}

// count is how many of the numbers step, 2*step, … up to n came.
func (c *cloud) count(stream, sender string, step, n int) (came int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := step; i <= n; i += step {
		if c.numbers[fmt.Sprintf("%s %s %d", stream, sender, i)] > 0 {
			came++
		}
	}
	return came
}

// disorder is how often a record of a stream came after one with a higher number of the same sender.
func (c *cloud) disorder(stream string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.order[stream]
}

func eventually(t *testing.T, what string, within time.Duration, cond func() bool) {
	t.Helper()
	if !reached(within, cond) {
		t.Fatalf("waited too long for %s", what)
	}
}

func reached(within time.Duration, cond func() bool) bool {
	for deadline := time.Now().Add(within); !cond(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}

func freePort(t *testing.T) int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}
