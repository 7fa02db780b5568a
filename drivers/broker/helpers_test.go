package broker

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/drivers"
	"github.com/perigee-iot/perigee/internal/store"
)

const patience = 30 * time.Second

// eventually polls for a condition, generously.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("still waiting: %s", what)
		}
	}
}

// engine is a gateway that keeps what it is given. Unless hold is set it accepts at once.
type engine struct {
	mu    sync.Mutex
	hold  bool
	err   error // what Ack gets
	got   []drivers.Delivery
	acked int
	shown []string // what the broker had refused, and why
	forgot
	block chan struct{} // not nil: emit waits for it
}

type forgot struct {
	sessions []string
	marks    []string
}

func (e *engine) emit(ctx context.Context, d drivers.Delivery) error {
	e.mu.Lock()
	if d.Refused != "" {
		e.shown = append(e.shown, d.Event.Topic+": "+d.Refused)
		e.mu.Unlock()
		return nil
	}
	block := e.block
	e.mu.Unlock()
	if block != nil {
		select {
		case <-block:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	e.mu.Lock()
	e.got = append(e.got, d)
	ack, err := !e.hold && d.Ack != nil, e.err
	if ack {
		e.acked++
	}
	e.mu.Unlock()
	if ack {
		d.Ack(err)
	}
	return nil
}

func (e *engine) Forget(session string, marks []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(marks) == 0 {
		e.sessions = append(e.sessions, session)
	}
	e.marks = append(e.marks, marks...)
}

func (e *engine) forgotten() ([]string, []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.sessions), slices.Clone(e.marks)
}

func (e *engine) refusals() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.shown)
}

func (e *engine) deliveries() []drivers.Delivery {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.got)
}

func (e *engine) payloads() []string {
	var out []string
	for _, d := range e.deliveries() {
		out = append(out, string(d.Event.Data))
	}
	return out
}

func (e *engine) wait(t testing.TB, n int) []drivers.Delivery {
	t.Helper()
	eventually(t, fmt.Sprintf("%d events", n), func() bool { return len(e.deliveries()) >= n })
	return e.deliveries()
}

// running is a broker that serves.
type running struct {
	*Broker
	addr string
	e    *engine
	log  *bytes.Buffer
	stop func() // idempotent
}

type syncWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (s *syncWriter) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.w.Write(p)
}

func start(t testing.TB, opts Options, filters ...string) *running {
	t.Helper()
	e := &engine{}
	return startWith(t, opts, e, filters...)
}

func startWith(t testing.TB, opts Options, e *engine, filters ...string) *running {
	t.Helper()
	if opts.Listen == nil {
		opts.Listen = []string{"tcp://127.0.0.1:0"}
	}
	r := &running{e: e, log: &bytes.Buffer{}}
	if opts.Log == nil {
		opts.Log = slog.New(slog.NewTextHandler(&syncWriter{w: r.log}, nil))
	}
	opts.Marks = e
	b, err := New(opts)
	require.NoError(t, err)
	r.Broker = b
	if err := b.Subscribe(t.Context(), subs(filters)); !errors.Is(err, drivers.ErrNotConnected) {
		t.Fatalf("subscribe before run: %v", err)
	}
	require.NoError(t, b.Listen(t.Context()))
	r.addr = b.Addr()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx, e.emit) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-ended:
			require.NoError(t, err)
		case <-time.After(patience):
			t.Error("the broker does not stop")
		}
	})
	t.Cleanup(r.stop)
	eventually(t, "the broker runs", b.Connected)
	return r
}

func subs(topics []string) []drivers.Filter {
	var fs []drivers.Filter
	for _, f := range topics {
		fs = append(fs, drivers.Filter{Topic: f, QoS: 1})
	}
	return fs
}

func openStore(t testing.TB, dir string) *store.Store {
	t.Helper()
	st, err := store.Open(dir, store.Options{Durability: store.Crash, MinFree: 1 << 20, Log: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	return st
}

// pahoClient connects a 3.1.1 client.
func pahoClient(t testing.TB, addr, id string, change func(*paho.ClientOptions)) paho.Client {
	t.Helper()
	o := paho.NewClientOptions().AddBroker("tcp://" + addr).SetClientID(id).SetAutoReconnect(false).SetOrderMatters(true).SetConnectTimeout(patience)
	if change != nil {
		change(o)
	}
	c := paho.NewClient(o)
	tok := c.Connect()
	require.True(t, tok.WaitTimeout(patience))
	require.NoError(t, tok.Error())
	t.Cleanup(func() { c.Disconnect(0) })
	return c
}

func ok(t testing.TB, tok paho.Token) {
	t.Helper()
	require.True(t, tok.WaitTimeout(patience), "no answer")
	require.NoError(t, tok.Error())
}

// raw is an MQTT client that does what it is told, packet ids and DUP included.
type raw struct {
	t testing.TB
	net.Conn
	r  *bufio.Reader
	v5 bool
}

// packet is what a raw client read.
type packet struct {
	kind  byte
	flags byte
	body  []byte
}

const (
	connack    = 2
	publish    = 3
	puback     = 4
	pubrec     = 5
	pubrel     = 6
	pubcomp    = 7
	suback     = 9
	pingresp   = 13
	disconnect = 14
)

func (p packet) id() uint16 {
	b := p.body
	if p.kind == publish {
		b = b[2+int(binary.BigEndian.Uint16(b)):]
	}
	return binary.BigEndian.Uint16(b)
}

// code is the reason of an acknowledgement of MQTT 5.
func (p packet) code() byte {
	if p.kind == disconnect {
		if len(p.body) == 0 {
			return 0
		}
		return p.body[0]
	}
	if len(p.body) < 3 {
		return 0
	}
	return p.body[2]
}

func str(s string) []byte { return append(binary.BigEndian.AppendUint16(nil, uint16(len(s))), s...) }

type login struct {
	id       string
	clean    bool
	user, pw string
	expiry   uint32 // MQTT 5 session expiry
	receive  uint16 // MQTT 5 receive maximum
	will     string // topic of a retained will, QoS 1, "gone"
}

func dialRaw(t testing.TB, addr string, version int, l login) (*raw, packet) {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	return rawOver(t, nc, version, l)
}

func rawOver(t testing.TB, nc net.Conn, version int, l login) (*raw, packet) {
	t.Helper()
	t.Cleanup(func() { nc.Close() })
	c := &raw{t: t, Conn: nc, r: bufio.NewReader(nc), v5: version == 5}
	var flags byte
	if l.clean {
		flags |= 2
	}
	if l.will != "" {
		flags |= 4 | 1<<3 | 1<<5
	}
	if l.user != "" {
		flags |= 0xC0
	}
	level := byte(4)
	if c.v5 {
		level = 5
	}
	body := append(str("MQTT"), level, flags, 0, 0)
	if c.v5 {
		var props []byte
		if l.expiry > 0 {
			props = binary.BigEndian.AppendUint32(append(props, 17), l.expiry)
		}
		if l.receive > 0 {
			props = binary.BigEndian.AppendUint16(append(props, 33), l.receive)
		}
		body = append(append(body, byte(len(props))), props...)
	}
	body = append(body, str(l.id)...)
	if l.will != "" {
		if c.v5 {
			body = append(body, 0)
		}
		body = append(append(body, str(l.will)...), str("gone")...)
	}
	if l.user != "" {
		body = append(append(body, str(l.user)...), str(l.pw)...)
	}
	c.send(0x10, body)
	p := c.read()
	require.Equal(t, byte(connack), p.kind)
	return c, p
}

func (c *raw) send(first byte, body []byte) {
	c.t.Helper()
	_, err := c.Write(append(binary.AppendUvarint([]byte{first}, uint64(len(body))), body...))
	require.NoError(c.t, err)
}

func frame(v5 bool, topic string, payload []byte, qos byte, id uint16, dup, retain bool) []byte {
	first := byte(0x30) | qos<<1
	if dup {
		first |= 8
	}
	if retain {
		first |= 1
	}
	body := str(topic)
	if qos > 0 {
		body = binary.BigEndian.AppendUint16(body, id)
	}
	if v5 {
		body = append(body, 0)
	}
	body = append(body, payload...)
	return append(binary.AppendUvarint([]byte{first}, uint64(len(body))), body...)
}

func (c *raw) publish(topic, payload string, qos byte, id uint16, dup bool) {
	c.t.Helper()
	_, err := c.Write(frame(c.v5, topic, []byte(payload), qos, id, dup, false))
	require.NoError(c.t, err)
}

func (c *raw) ack(kind byte, id uint16) {
	c.t.Helper()
	first := kind << 4
	if kind == pubrel {
		first |= 2
	}
	c.send(first, binary.BigEndian.AppendUint16(nil, id))
}

func (c *raw) subscribe(filter string, qos byte) packet {
	c.t.Helper()
	body := []byte{0, 1}
	if c.v5 {
		body = append(body, 0)
	}
	c.send(0x82, append(append(body, str(filter)...), qos))
	return c.read()
}

func (c *raw) tryRead() (packet, error) {
	_ = c.SetReadDeadline(time.Now().Add(patience))
	first, err := c.r.ReadByte()
	if err != nil {
		return packet{}, err
	}
	n, err := binary.ReadUvarint(c.r)
	if err != nil {
		return packet{}, err
	}
	body := make([]byte, n)
	_, err = io.ReadFull(c.r, body)
	return packet{first >> 4, first & 15, body}, err
}

func (c *raw) read() packet {
	c.t.Helper()
	p, err := c.tryRead()
	require.NoError(c.t, err)
	return p
}

// expect reads one packet of a kind with an id.
func (c *raw) expect(kind byte, id uint16) packet {
	c.t.Helper()
	p := c.read()
	require.Equal(c.t, kind, p.kind, "kind of %v", p)
	if kind != disconnect && kind != pingresp {
		require.Equal(c.t, id, p.id())
	}
	return p
}

// quiet makes sure that nothing came before the answer to a ping.
func (c *raw) quiet() {
	c.t.Helper()
	c.send(0xC0, nil)
	c.expect(pingresp, 0)
}

// closed reads until the broker hangs up, and returns the last packet.
func (c *raw) closed() (last packet) {
	c.t.Helper()
	for {
		p, err := c.tryRead()
		if err != nil {
			var ne net.Error
			require.False(c.t, errors.As(err, &ne) && ne.Timeout(), "the broker does not hang up")
			return last
		}
		last = p
	}
}

func (r *running) mustPublish(t testing.TB, topic, payload string, retain bool) {
	t.Helper()
	rc, err := r.Publish(t.Context(), drivers.Message{ID: "id-" + payload, Topic: topic, Payload: []byte(payload), QoS: 1, Retain: retain})
	require.NoError(t, err)
	require.NoError(t, rc.Wait(t.Context()))
}
