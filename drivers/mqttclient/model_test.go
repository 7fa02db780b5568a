package mqttclient

import (
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// model is a broker of one session that does all that a broker may do to it, on command: it sends messages with few
// payloads, leaves acknowledgements unread, cuts the connection, and forgets the session.
type model struct {
	l  net.Listener
	wg sync.WaitGroup

	mu      sync.Mutex
	change  *sync.Cond
	conns   map[net.Conn]bool // all, for closing
	in      net.Conn          // the session's connection, or nil
	subbed  bool              // on that connection
	paused  bool              // what arrives is not read,
	budget  int               // but for so many packets
	known   bool              // there is a session
	qos     byte
	queue   []string          // not sent yet
	flight  map[uint16]string // sent, and no acknowledgement read; for QoS 2 until PUBCOMP
	release map[uint16]bool   // of those: PUBREC was read
	order   []uint16          // ids in flight, in the order of sending
	lost    map[string]int    // in flight when the session was forgotten
	reuse   bool              // ids are used anew at once; else they are counted up
	lastID  uint16
}

const modelWindow = 2 // messages in flight

func newModel(t testing.TB, qos byte, reuse bool) *model {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	m := &model{l: l, qos: qos, reuse: reuse, conns: map[net.Conn]bool{}, flight: map[uint16]string{}, release: map[uint16]bool{}, lost: map[string]int{}}
	m.change = sync.NewCond(&m.mu)
	m.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			m.mu.Lock()
			m.conns[c] = true
			m.mu.Unlock()
			m.wg.Go(func() { m.serve(c) })
		}
	})
	return m
}

func (m *model) close() {
	m.l.Close()
	m.do(func() {
		m.paused = false
		for c := range m.conns {
			c.Close()
		}
	})
	m.wg.Wait()
}

// do changes the model and lets its goroutines look.
func (m *model) do(fn func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	fn()
	m.change.Broadcast()
}

func (m *model) serve(c net.Conn) {
	defer c.Close()
	p, err := packets.ReadPacket(c)
	if err != nil {
		return
	}
	hello, ok := p.(*packets.ConnectPacket)
	if !ok {
		return
	}
	events := !strings.HasSuffix(hello.ClientIdentifier, "-out")
	m.do(func() { m.welcome(c, events) })
	for {
		p, err := packets.ReadPacket(c)
		if err != nil {
			break
		}
		m.mu.Lock()
		for events && m.paused && m.budget == 0 && m.in == c {
			m.change.Wait()
		}
		m.budget = max(m.budget-1, 0)
		if events && m.in != c {
			m.mu.Unlock()
			break // cut: what has not been read never will be
		}
		m.handle(c, p)
		m.mu.Unlock()
	}
	m.do(func() {
		if m.in == c {
			m.in = nil
		}
	})
}

// welcome answers CONNECT and sends again what is in flight.
func (m *model) welcome(c net.Conn, events bool) {
	ack := packets.NewControlPacket(packets.Connack).(*packets.ConnackPacket)
	ack.SessionPresent = events && m.known
	_ = ack.Write(c)
	if !events {
		return
	}
	if m.in != nil {
		m.in.Close()
	}
	m.in, m.known, m.subbed = c, true, false
	for _, id := range m.order {
		if m.release[id] {
			m.pubrel(id)
		} else {
			m.publish(id, true)
		}
	}
}

func (m *model) publish(id uint16, dup bool) {
	p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	p.TopicName, p.Payload, p.MessageID, p.Qos, p.Dup = "m", []byte(m.flight[id]), id, m.qos, dup
	_ = p.Write(m.in)
}

func (m *model) pubrel(id uint16) {
	p := packets.NewControlPacket(packets.Pubrel).(*packets.PubrelPacket)
	p.MessageID = id
	_ = p.Write(m.in)
}

// pump sends what is queued as far as the window allows.
func (m *model) pump() {
	for len(m.queue) > 0 && len(m.flight) < modelWindow && m.in != nil && m.subbed {
		id := m.lastID%(1<<16-1) + 1
		if m.reuse {
			for id = 1; m.flight[id] != ""; id++ {
			}
		}
		m.flight[id], m.queue, m.order, m.lastID = m.queue[0], m.queue[1:], append(m.order, id), id
		m.publish(id, false)
	}
}

func (m *model) settle(id uint16) {
	delete(m.flight, id)
	delete(m.release, id)
	m.order = slices.DeleteFunc(m.order, func(x uint16) bool { return x == id })
	m.pump()
}

func (m *model) handle(c net.Conn, p packets.ControlPacket) {
	switch p := p.(type) {
	case *packets.PubackPacket:
		m.settle(p.MessageID)
	case *packets.PubrecPacket:
		if _, ok := m.flight[p.MessageID]; ok {
			m.release[p.MessageID] = true
			m.pubrel(p.MessageID)
		}
	case *packets.PubcompPacket:
		m.settle(p.MessageID)
	case *packets.SubscribePacket:
		ack := packets.NewControlPacket(packets.Suback).(*packets.SubackPacket)
		ack.MessageID, ack.ReturnCodes = p.MessageID, p.Qoss
		_ = ack.Write(c)
		m.subbed = true
		m.pump()
	case *packets.UnsubscribePacket:
		ack := packets.NewControlPacket(packets.Unsuback).(*packets.UnsubackPacket)
		ack.MessageID = p.MessageID
		_ = ack.Write(c)
	case *packets.PingreqPacket:
		_ = packets.NewControlPacket(packets.Pingresp).Write(c)
	}
}

func (m *model) cut() {
	if m.in != nil {
		m.in.Close()
		m.in = nil
	}
}

// forget ends the connection and the session.
func (m *model) forget() {
	m.cut()
	for _, p := range m.flight {
		m.lost[p]++
	}
	m.known, m.order, m.paused, m.lastID = false, nil, false, 0
	clear(m.flight)
	clear(m.release)
}

// idle says whether everything has been sent and acknowledged.
func (m *model) idle() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.queue)+len(m.flight) == 0
}

// Every message is committed exactly once, though payloads come again and again, acknowledgements are lost, and sessions begin
// anew with the first id.
func TestExactlyOnceProperty(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) { checkDelivery(t, rt, false) })
}

// A broker that uses an id anew at once is found out, and then nothing is lost.
func TestReusedIDsProperty(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) { checkDelivery(t, rt, true) })
}

func checkDelivery(t *testing.T, rt *rapid.T, reuse bool) {
	m := newModel(t, byte(rapid.IntRange(1, 2).Draw(rt, "qos")), reuse)
	defer m.close()
	e := newEngine()
	c := newClient(t, "tcp://"+m.l.Addr().String(), e)
	c.proofDelay = time.Duration(rapid.IntRange(0, 1000).Draw(rt, "proof after µs")) * time.Microsecond
	if reuse {
		c.proofDelay = time.Minute
	}
	stop := startWith(t, c, e, filter("m", m.qos))
	defer stop()
	sent := map[string]int{}
	send := func(p string) {
		sent[p]++
		m.do(func() { m.queue = append(m.queue, p); m.pump() })
	}
	if reuse {
		for range 2 * modelWindow {
			send("x")
		}
		eventually(t, "the broker is found out", c.reuses.Load)
	}
	pause := rapid.IntRange(0, 2000)
	wait := func(rt *rapid.T) { <-time.After(time.Duration(pause.Draw(rt, "µs")) * time.Microsecond) }
	rt.Repeat(map[string]func(*rapid.T){
		"send": func(rt *rapid.T) {
			for range rapid.IntRange(1, 4).Draw(rt, "how many") {
				send(rapid.SampledFrom([]string{"x", "y"}).Draw(rt, "payload"))
			}
		},
		"leave unread": func(*rapid.T) { m.do(func() { m.paused = true }) },
		"read":         func(*rapid.T) { m.do(func() { m.paused = false }) },
		"read a few": func(rt *rapid.T) {
			n := rapid.IntRange(1, 4).Draw(rt, "packets")
			m.do(func() { m.paused, m.budget = true, n })
		},
		"hold":    func(*rapid.T) { e.mu.Lock(); e.hold = true; e.mu.Unlock() },
		"release": func(*rapid.T) { e.release() },
		"wait":    wait,
		"cut":     func(*rapid.T) { m.do(func() { m.cut(); m.paused = false }) },
		// The connection ends with acknowledgements and messages on their way.
		"worst": func(rt *rapid.T) {
			m.do(func() { m.paused, m.budget = true, 0 })
			for range modelWindow + 1 {
				send("x")
			}
			wait(rt)
			n := rapid.IntRange(1, 4).Draw(rt, "packets")
			m.do(func() { m.budget = n })
			wait(rt)
			m.do(func() { m.cut(); m.paused = false })
		},
		"forget": func(*rapid.T) { m.do(m.forget) },
	})
	m.do(func() { m.paused = false })
	eventually(t, "everything is acknowledged", func() bool { e.release(); return m.idle() })
	runs := map[string]int{}
	for _, r := range e.ran() {
		runs[strings.TrimPrefix(r, "m=")]++
	}
	for _, p := range []string{"x", "y"} {
		if (runs[p] > sent[p] && !reuse) || runs[p] < sent[p]-m.lost[p] {
			rt.Fatalf("%s was sent %d times, of which %d may be lost, and committed %d times", p, sent[p], m.lost[p], runs[p])
		}
	}
}
