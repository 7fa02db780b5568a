package chaos

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

// sender publishes 1, 2, 3, … at QoS 1, a few at a time, on a session that lasts. After a lost connection it sends again
// what was not acknowledged: in order, with the same packet ids and DUP, before anything new, as MQTT 3.1.1 (4.4, 4.6)
// asks. It speaks the protocol itself since the client libraries at hand do not keep that order.
type sender struct {
	name    string
	address string
	seen    func() int // the highest number whose action has come back

	accepted *atomic.Int64 // as acked, for others to read while it runs; may be nil

	acked int     // how many numbers were acknowledged; all up to it
	out   []*sent // on their way, oldest first
	next  int     // the last number sent
	id    uint16  // the last packet id used
	began time.Time
}

type sent struct {
	packet *packets.PublishPacket
	acked  bool
}

const (
	senderWindow = 8
	senderRate   = 250 // messages a second
	senderAhead  = 200 // of what has come back: on any machine the gateway keeps up, and the broker need not queue without bound
)

// run sends until ctx ends, and then until nothing is outstanding.
func (s *sender) run(ctx context.Context) {
	s.began = time.Now()
	for ctx.Err() == nil || len(s.out) > 0 {
		if err := s.connection(ctx); err != nil {
			time.Sleep(10 * time.Millisecond) // the gateway is not there yet
		}
	}
}

// connection works on one connection until it breaks, or all is done.
func (s *sender) connection(ctx context.Context) error {
	conn, err := net.DialTimeout("tcp", s.address, time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	connect := packets.NewControlPacket(packets.Connect).(*packets.ConnectPacket)
	connect.ProtocolName, connect.ProtocolVersion = "MQTT", 4
	connect.ClientIdentifier, connect.CleanSession, connect.Keepalive = "sender-"+s.name, false, 60
	if err := connect.Write(conn); err != nil {
		return err
	}
	if _, err := packets.ReadPacket(conn); err != nil {
		return err
	}
	for _, o := range s.out {
		o.packet.Dup = true
		if err := o.packet.Write(conn); err != nil {
			return err
		}
	}
	for {
		for len(s.out) < senderWindow && ctx.Err() == nil && s.may() {
			if err := s.more().Write(conn); err != nil {
				return err
			}
		}
		if len(s.out) == 0 {
			if ctx.Err() != nil {
				return nil
			}
			time.Sleep(2 * time.Millisecond) // too far ahead
			continue
		}
		_ = conn.SetReadDeadline(time.Now().Add(30 * time.Second))
		p, err := packets.ReadPacket(conn)
		if err != nil {
			return err
		}
		if ack, ok := p.(*packets.PubackPacket); ok {
			s.take(ack.MessageID)
		}
	}
}

// may says that the next message is due.
func (s *sender) may() bool {
	return float64(s.next) < senderRate*time.Since(s.began).Seconds() && s.next < s.seen()+senderAhead
}

// more makes the next message.
func (s *sender) more() *packets.PublishPacket {
	s.next++
	s.id = s.id%65535 + 1
	p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	p.Qos, p.TopicName, p.MessageID = 1, "load/"+s.name, s.id
	p.Payload = fmt.Appendf(nil, `{"n":%d}`, s.next)
	s.out = append(s.out, &sent{packet: p})
	return p
}

// take counts an acknowledgement; the window moves over what is acknowledged from its front.
func (s *sender) take(id uint16) {
	for _, o := range s.out {
		if o.packet.MessageID == id {
			o.acked = true
		}
	}
	for len(s.out) > 0 && s.out[0].acked {
		s.out = s.out[1:]
		s.acked++
		if s.accepted != nil {
			s.accepted.Add(1)
		}
	}
}
