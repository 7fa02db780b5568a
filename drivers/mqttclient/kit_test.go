package mqttclient

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/drivers"
)

// patience is how long a condition may take to come true; it is generous and says nothing about speed.
const patience = 60 * time.Second

func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !cond(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("still not true: %s", what)
		}
	}
}

// engine stands in for the gateway: it takes deliveries, keeps marks, and acknowledges at once unless it holds.
type engine struct {
	mu      sync.Mutex
	all     []drivers.Delivery // as they came
	run     []string           // "topic=payload" of those that were not dropped as repetitions
	marks   map[string]string  // of accepted deliveries: what they were
	held    []drivers.Delivery
	hold    bool
	full    bool // emit blocks
	room    *sync.Cond
	forgets []string // sessions whose marks were dropped as a whole
	proved  int      // marks dropped one by one
}

func newEngine() *engine {
	e := &engine{marks: map[string]string{}}
	e.room = sync.NewCond(&e.mu)
	return e
}

func what(d drivers.Delivery) string { return d.Event.Topic + "=" + string(d.Event.Data) }

func (e *engine) emit(ctx context.Context, d drivers.Delivery) error {
	stop := context.AfterFunc(ctx, func() { e.mu.Lock(); e.room.Broadcast(); e.mu.Unlock() })
	defer stop()
	e.mu.Lock()
	defer e.mu.Unlock()
	for e.full && ctx.Err() == nil {
		e.room.Wait()
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	e.all = append(e.all, d)
	if d.Mark != "" && !d.Again {
		delete(e.marks, d.Mark)
	}
	if e.hold {
		e.held = append(e.held, d)
		return nil
	}
	e.accept(d)
	return nil
}

// accept commits a delivery and acknowledges it.
func (e *engine) accept(d drivers.Delivery) {
	if d.Mark == "" {
		e.run = append(e.run, what(d))
		return
	}
	if e.marks[d.Mark] != what(d) || !d.Again {
		e.run = append(e.run, what(d))
		e.marks[d.Mark] = what(d)
	}
	d.Ack(nil)
}

// release accepts what is held, and no longer holds.
func (e *engine) release() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.hold = false
	for _, d := range e.held {
		e.accept(d)
	}
	e.held = nil
}

func (e *engine) setFull(full bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.full = full
	e.room.Broadcast()
}

// Forget implements drivers.Marks.
func (e *engine) Forget(session string, marks []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(marks) == 0 {
		e.forgets = append(e.forgets, session)
		clear(e.marks)
	}
	for _, m := range marks {
		e.proved++
		delete(e.marks, m)
	}
}

func (e *engine) ran() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.run)
}

func (e *engine) deliveries() []drivers.Delivery {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.all)
}

func (e *engine) marked() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.marks)
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// newClient makes a client that remembers its subscriptions, with short waits.
func newClient(t testing.TB, url string, e *engine, change ...func(*Options)) *Client {
	t.Helper()
	o := Options{URL: url, ClientID: "perigee-gw", KeepAlive: 2 * time.Second, Dir: t.TempDir(), Log: quiet(), Marks: e}
	for _, f := range change {
		f(&o)
	}
	c, err := New(o)
	require.NoError(t, err)
	c.proofDelay = 20 * time.Millisecond
	return c
}

// start runs a client, again and again as the gateway does, until the returned function is called.
func start(t testing.TB, c *Client, e *engine) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			err := c.Run(ctx, e.emit)
			if err != nil && !errors.Is(err, drivers.ErrNotConnected) {
				t.Errorf("Run: %v", err)
			}
			select {
			case <-ctx.Done():
			case <-time.After(5 * time.Millisecond):
			}
		}
	}()
	var once sync.Once
	stop = func() { once.Do(func() { cancel(); <-done }) }
	t.Cleanup(stop)
	return stop
}

// startWith is start with subscriptions, and waits for them.
func startWith(t testing.TB, c *Client, e *engine, filters ...drivers.Filter) (stop func()) {
	t.Helper()
	require.ErrorIs(t, c.Subscribe(context.Background(), filters), drivers.ErrNotConnected)
	stop = start(t, c, e)
	eventually(t, "connected", c.Connected)
	return stop
}

func filter(topic string, qos byte) drivers.Filter { return drivers.Filter{Topic: topic, QoS: qos} }

// peer is somebody else at the broker.
type peer struct {
	t testing.TB
	mqtt.Client
}

func newPeer(t testing.TB, url string) peer {
	t.Helper()
	c := mqtt.NewClient(mqtt.NewClientOptions().AddBroker(url).SetClientID(fmt.Sprintf("peer%d", time.Now().UnixNano())).
		SetAutoReconnect(false))
	done(t, c.Connect())
	t.Cleanup(func() { c.Disconnect(100) })
	return peer{t, c}
}

func done(t testing.TB, token mqtt.Token) {
	t.Helper()
	require.True(t, token.WaitTimeout(patience))
	require.NoError(t, token.Error())
}

func (p peer) publish(topic string, qos byte, retain bool, payload string) {
	p.t.Helper()
	done(p.t, p.Publish(topic, qos, retain, payload))
}

// proxy is a TCP proxy that can freeze and cut its connections.
type proxy struct {
	addr string
	mu   sync.Mutex
	cond *sync.Cond
	open []net.Conn

	frozen bool
}

func newProxy(t testing.TB, target string) *proxy {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &proxy{addr: l.Addr().String()}
	p.cond = sync.NewCond(&p.mu)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", target)
			if err != nil {
				in.Close()
				continue
			}
			p.mu.Lock()
			p.open = append(p.open, in, out)
			p.mu.Unlock()
			wg.Go(func() { p.copy(in, out) })
			wg.Go(func() { p.copy(out, in) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		p.freeze(false)
		p.cut()
		wg.Wait()
	})
	return p
}

func (p *proxy) copy(to, from net.Conn) {
	defer to.Close()
	b := make([]byte, 4096)
	for {
		n, err := from.Read(b)
		p.mu.Lock()
		for p.frozen {
			p.cond.Wait()
		}
		p.mu.Unlock()
		if n > 0 {
			if _, werr := to.Write(b[:n]); werr != nil {
				from.Close()
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func (p *proxy) freeze(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.frozen = on
	p.cond.Broadcast()
}

func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.open {
		c.Close()
	}
	p.open = nil
}

func sorted(s []string) []string {
	s = slices.Clone(s)
	slices.Sort(s)
	return s
}
