package demo

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/perigee-iot/perigee/internal/retry"
)

// sender publishes the numbers of the proof, {"run": …, "n": 1}, {"run": …, "n": 2} and so on, with QoS 1 and a persistent session. It is a small MQTT
// client of its own, since the proof rests on what was acknowledged: a library's token may complete, after a lost connection, without a
// PUBACK for it. Here a number counts as accepted when its PUBACK has been read, and not before.
//
// After a lost connection it sends what was not acknowledged again, in order, with the same packet ids and DUP set.
type sender struct {
	addr   string // of the broker
	run    string
	every  time.Duration
	ledger *ledger
	crew   *crew

	mu       sync.Mutex // guards what follows
	next     uint64     // the next number
	id       uint16     // the last packet id
	inflight []flying   // in the order of their numbers
	conn     net.Conn   // nil: not connected
}

// flying is a number that has been sent and not been acknowledged.
type flying struct {
	id uint16
	n  uint64
}

const (
	proofTopic  = "demo/proof"
	proofOut    = "demo/proof/out"
	senderID    = "demo-proof"
	maxInflight = 32
	keepAlive   = 15 * time.Second
	mqttWait    = 5 * time.Second // for one packet to be written, and for the CONNACK
)

func newSender(addr, run string, every time.Duration, l *ledger) *sender {
	return &sender{addr: addr, run: run, every: every, ledger: l, next: 1}
}

// waiting is how many numbers have been sent and not been acknowledged.
func (s *sender) waiting() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.inflight)
}

// Run sends until ctx ends. When stop ends it sends no new numbers, but still what was not acknowledged.
func (s *sender) Run(ctx, stop context.Context) {
	back := retry.Backoff{First: 100 * time.Millisecond, Max: time.Second}
	clean := true // of what an earlier demo left
	for ctx.Err() == nil {
		err := s.session(ctx, stop, clean)
		if err == nil {
			clean = false
			back.Reset()
			continue
		}
		if back.Wait(ctx) != nil {
			return
		}
	}
}

// session is one connection, until it breaks. A clean one only makes the broker forget. It returns nil if it was of use.
func (s *sender) session(ctx, stop context.Context, clean bool) error {
	d := net.Dialer{Timeout: mqttWait}
	conn, err := d.DialContext(ctx, "tcp", s.addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	end := context.AfterFunc(ctx, func() { conn.Close() })
	defer end()
	in := bufio.NewReader(conn)
	if err := connect(conn, in, senderID, clean); err != nil {
		return err
	}
	if clean {
		return write(conn, packets.NewControlPacket(packets.Disconnect))
	}
	s.setConn(conn)
	defer s.setConn(nil)
	var wait sync.WaitGroup
	defer wait.Wait()
	reading, cancel := context.WithCancel(ctx)
	defer cancel()
	s.crew.start(&wait, func() {
		defer cancel()
		defer conn.Close()
		s.read(conn, in)
	})
	defer conn.Close() // before the wait
	s.write(reading, stop, conn)
	return nil
}

func (s *sender) setConn(c net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conn = c
}

// connect opens the session.
func connect(conn net.Conn, in io.Reader, id string, clean bool) error {
	c := packets.NewControlPacket(packets.Connect).(*packets.ConnectPacket)
	c.ProtocolName, c.ProtocolVersion = "MQTT", 4
	c.ClientIdentifier, c.CleanSession, c.Keepalive = id, clean, uint16(keepAlive/time.Second)
	if err := write(conn, c); err != nil {
		return err
	}
	if err := conn.SetReadDeadline(time.Now().Add(mqttWait)); err != nil {
		return err
	}
	p, err := packets.ReadPacket(in)
	if err != nil {
		return fmt.Errorf("wait for the CONNACK: %w", err)
	}
	ack, ok := p.(*packets.ConnackPacket)
	if !ok || ack.ReturnCode != packets.Accepted {
		return errors.New("the broker does not let the demo in")
	}
	return nil
}

func write(conn net.Conn, p packets.ControlPacket) error {
	if err := conn.SetWriteDeadline(time.Now().Add(mqttWait)); err != nil {
		return err
	}
	return p.Write(conn)
}

// read takes acknowledgements until the connection ends.
func (s *sender) read(conn net.Conn, in io.Reader) {
	for {
		if conn.SetReadDeadline(time.Now().Add(2*keepAlive)) != nil {
			return
		}
		p, err := packets.ReadPacket(in)
		if err != nil {
			return
		}
		if ack, ok := p.(*packets.PubackPacket); ok {
			s.acked(ack.MessageID)
		}
	}
}

func (s *sender) acked(id uint16) {
	s.mu.Lock()
	var n uint64
	for i, f := range s.inflight {
		if f.id == id {
			n = f.n
			s.inflight = append(s.inflight[:i], s.inflight[i+1:]...)
			break
		}
	}
	s.mu.Unlock()
	if n > 0 {
		s.ledger.accept(n)
	}
}

// write sends what was not acknowledged, then a number at every tick, and pings.
func (s *sender) write(ctx, stop context.Context, conn net.Conn) {
	s.mu.Lock()
	old := append([]flying(nil), s.inflight...)
	s.mu.Unlock()
	for _, f := range old {
		if write(conn, s.packet(f, true)) != nil {
			return
		}
	}
	tick := time.NewTicker(s.every)
	defer tick.Stop()
	ping := time.NewTicker(keepAlive / 2)
	defer ping.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ping.C:
			if write(conn, packets.NewControlPacket(packets.Pingreq)) != nil {
				return
			}
		case <-tick.C:
			if stop.Err() != nil {
				continue
			}
			if f, ok := s.take(); ok && write(conn, s.packet(f, false)) != nil {
				return
			}
		}
	}
}

// take makes the next number, unless too many are on their way.
func (s *sender) take() (flying, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.inflight) >= maxInflight {
		return flying{}, false
	}
	s.id++
	for s.id == 0 || s.flies(s.id) {
		s.id++
	}
	f := flying{id: s.id, n: s.next}
	s.next++
	s.inflight = append(s.inflight, f)
	return f, true
}

func (s *sender) flies(id uint16) bool {
	for _, f := range s.inflight {
		if f.id == id {
			return true
		}
	}
	return false
}

func (s *sender) packet(f flying, again bool) packets.ControlPacket {
	p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	p.TopicName, p.Qos, p.MessageID, p.Dup = proofTopic, 1, f.id, again
	p.Payload = fmt.Appendf(nil, `{"run":%q,"n":%d}`, s.run, f.n)
	return p
}
