package broker

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/perigee-iot/perigee/drivers"
	"github.com/perigee-iot/perigee/internal/event"
)

const (
	// headRoom is what a PUBLISH may have besides its payload: topic, packet id, properties.
	headRoom = 128 << 10
	// maxQueued is how many messages may wait for one subscriber, in memory and in its session.
	maxQueued = 1024
	// maxWrites is how many packets may wait to be written to a client; all retained messages fit.
	maxWrites = maxRetained + maxQueued
	// maxWills is how many delayed wills may wait to be emitted at once.
	maxWills = 64
	// ownID is the client that the broker publishes as. No real client can have it: clients' ids have no NUL.
	ownID = "\x00perigee"
)

// serving is the broker between Listen and the end of Run.
type serving struct {
	b         *Broker
	mqtt      *mqtt.Server
	own       *mqtt.Client
	listeners []*listener
	line      *line
	retained  *retained
	keep      *keeper
	budget    budget
	ids       string        // begins the ids of this serving's events
	lastID    atomic.Uint64 // and this goes on
	order     atomic.Int64  // of outgoing messages; see mend.go
	moving    sync.RWMutex  // held while a session is taken over; see mend.go

	ctx    context.Context // ends when serving does
	cancel context.CancelFunc
	emit   drivers.Emit
	wills  chan struct{} // slots
	work   sync.WaitGroup
}

func newServing(ctx context.Context, b *Broker) (*serving, error) {
	s := &serving{b: b, retained: newRetained(), wills: make(chan struct{}, maxWills)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.line = newLine(s.pass, s.reply)
	var seed [6]byte
	_, _ = rand.Read(seed[:])
	s.ids = hex.EncodeToString(seed[:]) + "-"

	for _, url := range b.opts.Listen {
		l, err := bind(ctx, s, url)
		if err != nil {
			s.unbind()
			return nil, err
		}
		s.listeners = append(s.listeners, l)
	}
	if err := s.build(); err != nil {
		s.unbind()
		return nil, err
	}
	return s, nil
}

func (s *serving) unbind() {
	s.cancel()
	for _, l := range s.listeners {
		_ = l.ln.Close()
	}
}

// build sets mochi up and fills it from the store.
func (s *serving) build() error {
	caps := mqtt.NewDefaultServerCapabilities()
	caps.MaximumMessageExpiryInterval = 0 // what has no expiry is kept
	caps.MaximumClientWritesPending = maxWrites
	caps.MaximumSessionExpiryInterval = 30 * 24 * 60 * 60
	caps.MaximumPacketSize = uint32(s.b.opts.MaxPayload + headRoom + 8)
	caps.MaximumInflight = maxQueued
	caps.ReceiveMaximum = 2 * maxQueued // never reached: inbound QoS is ours; clients are told lineLen
	caps.TopicAliasMaximum = 0          // mochi asks for permission before it resolves them
	s.mqtt = mqtt.New(&mqtt.Options{
		Capabilities: caps,
		// mochi would hold a packet back while another waits behind it, and that one may not be written.
		ClientNetWriteBufferSize: 1,
		Logger:                   slog.New(quiet{s.b.log.Handler()}),
		SysTopicResendInterval:   int64((5 * 365 * 24 * time.Hour) / time.Second),
	})
	if err := s.mqtt.AddHook(&hook{s: s}, nil); err != nil {
		return fmt.Errorf("broker: %w", err)
	}
	for _, l := range s.listeners {
		if err := s.mqtt.AddListener(l); err != nil {
			return fmt.Errorf("broker: listen on %s: %w", l.url, err)
		}
	}
	s.own = s.mqtt.NewClient(nil, "own", ownID, true)
	s.own.Properties.ProtocolVersion = 5
	s.keep = newKeeper(s)
	return s.keep.load()
}

func (s *serving) start(ctx context.Context, emit drivers.Emit) error {
	s.emit = emit
	context.AfterFunc(ctx, s.cancel)
	s.keep.start()
	if err := s.mqtt.Serve(); err != nil {
		return fmt.Errorf("broker: %w", err)
	}
	// What mochi has just said about itself would stand there unchanged for ever.
	for t := range s.mqtt.Topics.Retained.GetAll() {
		if strings.HasPrefix(t, mqtt.SysPrefix) {
			s.mqtt.Topics.RetainMessage(packets.Packet{TopicName: t})
		}
	}
	for _, l := range s.listeners {
		s.b.log.Info("broker: listening", "url", l.url, "address", l.Address())
	}
	return nil
}

// stop closes everything.
func (s *serving) stop() {
	s.cancel()
	_ = s.mqtt.Close()
	s.line.close()
	s.work.Wait()
	s.keep.stop()
}

// event makes the event of a message.
func (s *serving) event(topic string, payload []byte, retained bool) *event.Event {
	return &event.Event{
		ID:       s.ids + strconv.FormatUint(s.lastID.Add(1), 36),
		Source:   "mqtt",
		Type:     event.Message,
		Subject:  topic,
		Data:     payload,
		Topic:    topic,
		Retained: retained,
	}
}

// receive takes a PUBLISH of QoS 1 or 2. An error ends the connection.
func (s *serving) receive(cl *mqtt.Client, c *conn, pk packets.Packet) error {
	ss := c.held
	ss.order.Lock()
	defer ss.order.Unlock()
	p, v := s.line.admit(ss, c, cl, pk)
	switch v {
	case repeated:
		return nil
	case known:
		return s.answer(cl, packets.Pubrec, pk.PacketID, packets.CodeSuccess)
	case misused:
		s.b.refuse(refusedProtocol, "id", "a client used the packet id of a message that waits for another one", "client", cl.ID, "topic", pk.TopicName)
		return s.hangUp(cl, packets.ErrPacketIdentifierInUse)
	case tooMany:
		s.b.refuse(refusedProtocol, "release", "a client does not finish its QoS 2 messages", "client", cl.ID)
		return s.hangUp(cl, packets.ErrReceiveMaximum)
	case over:
		return errHangUp
	}
	if !s.b.want.Load().match(pk.TopicName) {
		s.line.settleHere(p)
		return nil
	}
	d := drivers.Delivery{
		Event: s.event(pk.TopicName, pk.Payload, false),
		Ack:   func(err error) { s.line.settle(p, err) },
		Mark:  drivers.Mark(ss.id, pk.PacketID),
		Again: pk.FixedHeader.Dup,
	}
	if err := s.emit(c.ctx, d); err != nil {
		s.line.withdraw(p)
		return errHangUp
	}
	s.b.count.taken.Add(1)
	return nil
}

// pass hands on a message whose fate is known. It is called in order for each session. Where the message joined a queue that outlives
// the process, its sender is answered when the store has it.
func (s *serving) pass(p *pending) bool {
	if p.err != nil {
		return true
	}
	mark := s.keep.mark()
	if err := s.inject(p); err != nil {
		s.b.log.Debug("broker: handing on a message", "topic", p.pk.TopicName, "error", err)
	}
	return !s.keep.holdSince(mark, func() { s.line.keep(p) })
}

// reply answers the sender of a message, in order for each session.
func (s *serving) reply(p *pending) {
	c, cl, unmark := s.line.finish(p)
	if unmark {
		s.forget(p.s.id, drivers.Mark(p.s.id, p.pk.PacketID))
	}
	code := packets.CodeSuccess
	switch {
	case p.err == nil:
	case refusedFor(p.err):
		s.b.refuse(refusedGateway, p.s.id, "the gateway refuses a message for good", "client", p.s.id, "topic", p.pk.TopicName, "error", p.err)
		code = packets.ErrQuotaExceeded
	default: // not accepted, perhaps later: without an answer the client sends it again
		if c != nil {
			_ = c.Close()
		}
		return
	}
	if c == nil {
		return
	}
	kind := packets.Puback
	if p.pk.FixedHeader.Qos == 2 {
		kind = packets.Pubrec
	}
	_ = s.answer(cl, kind, p.pk.PacketID, code)
}

// forget tells the gateway that marks of a session, or all of them, serve nothing any more.
func (s *serving) forget(session string, marks ...string) {
	if m := s.b.opts.Marks; m != nil {
		m.Forget(session, marks)
	}
}

// answer writes PUBACK, PUBREC or PUBCOMP. Before MQTT 5 they have no reason code.
func (s *serving) answer(cl *mqtt.Client, kind byte, id uint16, code packets.Code) error {
	pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: kind}, PacketID: id, ReasonCode: code.Code}
	if code.Code >= packets.ErrUnspecifiedError.Code {
		pk.Properties.ReasonString = code.Reason
	}
	if cl.WritePacket(pk) != nil {
		return errHangUp
	}
	return nil
}

// hangUp ends a connection, with the reason if the client speaks MQTT 5.
func (s *serving) hangUp(cl *mqtt.Client, code packets.Code) error {
	_ = s.mqtt.DisconnectClient(cl, code)
	return errHangUp
}

// inject publishes an accepted message to the other clients, as its sender would have.
func (s *serving) inject(p *pending) error {
	pk := packets.Packet{
		FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: p.pk.FixedHeader.Qos, Retain: p.pk.FixedHeader.Retain},
		TopicName:   p.pk.TopicName,
		Payload:     p.pk.Payload,
		Properties:  p.pk.Properties,
		PacketID:    1, // not used, but checked
		Connect:     packets.ConnectParams{ClientIdentifier: p.s.id},
	}
	if ttl := pk.Properties.MessageExpiryInterval; ttl > 0 {
		waited := uint32(time.Since(p.arrived) / time.Second)
		if waited >= ttl {
			return nil // nobody wants it any more
		}
		pk.Properties.MessageExpiryInterval = ttl - waited
	}
	return s.inSession(pk)
}

// publish sends a message of the gateway's own. The batch, if it is not nil, is what will have stored it for those who
// are away.
func (s *serving) publish(m drivers.Message) (*batch, error) {
	pk := packets.Packet{
		FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: min(m.QoS, 2), Retain: m.Retain},
		TopicName:   m.Topic,
		Payload:     m.Payload,
	}
	if m.QoS > 0 {
		pk.PacketID = 1
	}
	if m.ID != "" {
		pk.Properties.User = []packets.UserProperty{{Key: "id", Val: m.ID}}
	}
	mark := s.keep.mark()
	err := s.inSession(pk)
	return s.keep.since(mark), err
}

// emitWill lets functions see a will. It is called where a client has gone, or, for a delayed will, from mochi's
// clock, which must not wait.
func (s *serving) emitWill(pk packets.Packet) {
	if pk.TopicName == "" || !s.b.want.Load().match(pk.TopicName) {
		return
	}
	d := drivers.Delivery{Event: s.event(pk.TopicName, pk.Payload, false)}
	send := func() {
		if s.emit(s.ctx, d) == nil {
			s.b.count.taken.Add(1)
		}
	}
	if pk.Connect.WillProperties.WillDelayInterval == 0 {
		send()
		return
	}
	select {
	case s.wills <- struct{}{}:
		s.work.Go(func() {
			defer func() { <-s.wills }()
			send()
		})
	default:
		s.b.refuse(refusedGateway, "will", "too many delayed wills wait for the gateway", "topic", pk.TopicName)
	}
}
