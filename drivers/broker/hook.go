package broker

import (
	"context"
	"errors"
	"fmt"
	"strings"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/perigee-iot/perigee/drivers"
	"github.com/perigee-iot/perigee/internal/topic"
)

const (
	maxClientID      = 256   // bytes
	maxSubscriptions = 256   // of one client
	maxKeepalive     = 43690 // mochi adds a half to it in 16 bits
	connackV3Last    = 5     // the highest return code before MQTT 5: not authorized
)

// hook is where mochi asks the broker. Its methods are called from the goroutine that reads the client, unless noted.
type hook struct {
	mqtt.HookBase
	s *serving
}

// ID names the hook.
func (h *hook) ID() string { return "perigee" }

// Provides says which of mochi's questions are answered here.
func (h *hook) Provides(b byte) bool {
	switch b {
	case mqtt.OnConnect, mqtt.OnConnectAuthenticate, mqtt.OnSessionEstablish, mqtt.OnSessionEstablished,
		mqtt.OnDisconnect, mqtt.OnClientExpired, mqtt.OnACLCheck, mqtt.OnPacketRead, mqtt.OnPacketEncode,
		mqtt.OnPacketProcessed, mqtt.OnSubscribe, mqtt.OnSubscribed, mqtt.OnUnsubscribed, mqtt.OnPublish, mqtt.OnWill, mqtt.OnWillSent,
		mqtt.OnRetainMessage, mqtt.OnRetainedExpired, mqtt.OnQosPublish, mqtt.OnQosComplete, mqtt.OnQosDropped, mqtt.OnPublishDropped:
		return true
	}
	return false
}

// connOf returns the broker's side of a client, nil for our own and for stored ones.
func connOf(cl *mqtt.Client) *conn {
	c, _ := cl.Net.Conn.(*conn)
	return c
}

// OnConnect refuses connections for which there is no room.
func (h *hook) OnConnect(cl *mqtt.Client, _ packets.Packet) error {
	b := h.s.b
	if cl.Properties.Props.AssignedClientID == "" && (len(cl.ID) > maxClientID || strings.ContainsRune(cl.ID, 0)) {
		_ = h.s.mqtt.SendConnack(cl, packets.ErrClientIdentifierNotValid, false, nil)
		return packets.ErrClientIdentifierNotValid
	}
	if h.s.connected() >= b.opts.MaxClients && !h.s.isConnected(cl.ID) {
		b.refuse(refusedClients, "", "too many clients", "client", cl.ID, "limit", b.opts.MaxClients)
		code := packets.ErrServerBusy
		if cl.Properties.ProtocolVersion < 5 {
			code = packets.ErrServerUnavailable
		}
		_ = h.s.mqtt.SendConnack(cl, code, false, nil)
		return code
	}
	cl.Properties.Props.TopicAliasMaximum = 0 // mochi's aliases do not survive a message that it drops
	connOf(cl).window.open(int(cl.Properties.Props.ReceiveMaximum))
	cl.Properties.Props.ReceiveMaximum = 0
	cl.State.Inflight.ResetSendQuota(0)
	cl.State.TopicAliases.Outbound = mqtt.NewOutboundTopicAliases(0)
	if cl.State.Keepalive > maxKeepalive {
		cl.State.Keepalive = maxKeepalive
	}
	return nil
}

// OnConnectAuthenticate checks name, password, and what the will wants. The id of a session is its user's.
func (h *hook) OnConnectAuthenticate(cl *mqtt.Client, pk packets.Packet) bool {
	b, c := h.s.b, connOf(cl)
	if c == nil {
		return false
	}
	if len(b.users.byName) > 0 {
		c.user = b.users.check(pk.Connect.Username, pk.Connect.Password)
		if c.user == nil {
			b.refuse(refusedAuth, "", "wrong user name or password", "client", cl.ID, "remote", cl.Net.Remote, "user", string(pk.Connect.Username))
			return false
		}
	} else {
		cl.Properties.Username = nil // a name that nobody checked is none
	}
	if old, ok := h.s.mqtt.Clients.Get(cl.ID); ok && string(old.Properties.Username) != userName(c.user) {
		b.refuse(refusedAuth, userName(c.user), "the client id has a session of another user", "client", cl.ID, "user", userName(c.user))
		return false
	}
	if !pk.Connect.WillFlag {
		return true
	}
	err := checkName(pk.Connect.WillTopic)
	if err == nil && b.mayPublish(c.user, pk.Connect.WillTopic) {
		return true
	}
	if err != nil {
		b.refuse(refusedTopic, cl.ID, "bad topic of a will", "client", cl.ID, "error", err)
	} else {
		b.denied(c.user, cl.ID, "publish", pk.Connect.WillTopic)
	}
	code := packets.ErrNotAuthorized
	if cl.Properties.ProtocolVersion < 5 {
		code = packets.ErrBadUsernameOrPassword // becomes 5, not authorized
	}
	_ = h.s.mqtt.SendConnack(cl, code, false, nil)
	cl.Stop(code)
	return false
}

// OnSessionEstablish readies the session that mochi is about to take over or make.
func (h *hook) OnSessionEstablish(cl *mqtt.Client, pk packets.Packet) {
	c := connOf(cl)
	c.v5 = cl.Properties.ProtocolVersion == 5
	old, known := h.s.mqtt.Clients.Get(cl.ID)
	fresh := pk.Connect.Clean || known && old.Properties.Clean && old.Properties.ProtocolVersion < 5
	c.held = h.s.line.attach(cl.ID, c, fresh)
	context.AfterFunc(c.ctx, h.s.line.wake)
	if fresh {
		h.s.forget(cl.ID)
	}
	if !known {
		h.s.makeRoom()
	}
	h.s.beginMove(c)
	if known && !pk.Connect.Clean {
		c.window.setAside(old)
	}
}

// OnSessionEstablished is called when the client has its CONNACK and what was on its way to it.
func (h *hook) OnSessionEstablished(cl *mqtt.Client, _ packets.Packet) {
	c := connOf(cl)
	h.s.putBack(cl, &c.window)
	h.s.endMove(c)
	h.s.keep.session(cl.ID)
}

// OnDisconnect ends a connection; over says that its session ends too.
func (h *hook) OnDisconnect(cl *mqtt.Client, err error, over bool) {
	c := connOf(cl)
	if c == nil {
		return
	}
	if errors.Is(err, packets.ErrMalformedInvalidUTF8) || errors.Is(err, packets.ErrMalformedTopic) {
		h.s.b.refuse(refusedTopic, cl.ID, "a text that is not UTF-8, or has NUL: the client was disconnected, as the protocol demands", "client", cl.ID)
	}
	h.s.beginLeave(c)
	if !cl.IsTakenOver() {
		h.s.line.detach(c.held, c, over)
		if over {
			h.s.budget.forget(cl.ID)
			h.s.forget(cl.ID)
		}
	}
	h.s.keep.session(cl.ID)
}

// OnClientExpired finishes what mochi leaves of a session that nobody came back for. It is called from mochi's clock.
func (h *hook) OnClientExpired(cl *mqtt.Client) { h.s.endSession(cl) }

// OnPacketRead takes what mochi's inbound QoS would see, and gives mochi a packet without effect instead.
func (h *hook) OnPacketRead(cl *mqtt.Client, pk packets.Packet) (packets.Packet, error) {
	c := connOf(cl)
	if c == nil || c.held == nil { // CONNECT
		return pk, nil
	}
	switch pk.FixedHeader.Type {
	case packets.Publish:
		missing := c.wasCut()
		if pk.PublishValidate(0) != packets.CodeSuccess {
			h.s.b.refuse(refusedProtocol, cl.ID, "a PUBLISH against the protocol", "client", cl.ID)
			return pk, nil // mochi says so and hangs up
		}
		return h.publish(cl, c, pk, missing)
	case packets.Pubrel:
		code := packets.CodeSuccess
		if h.s.line.release(c.held, pk.PacketID) {
			h.s.forget(cl.ID, drivers.Mark(cl.ID, pk.PacketID)) // the client has seen the PUBREC
		} else {
			code = packets.ErrPacketIdentifierNotFound
		}
		return nothing, h.s.answer(cl, packets.Pubcomp, pk.PacketID, code)
	case packets.Subscribe, packets.Unsubscribe:
		if pk.PacketID > 0 {
			c.asked, pk.PacketID = pk.PacketID, freeID(cl)
		}
	}
	return pk, nil
}

// nothing is a packet that mochi does nothing about: the acknowledgement of a message that it did not send.
var nothing = packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Puback}}

// publish checks a PUBLISH, of which missing bytes were left out, and takes it, if it is more than QoS 0.
func (h *hook) publish(cl *mqtt.Client, c *conn, pk packets.Packet, missing int) (packets.Packet, error) {
	s, b := h.s, h.s.b
	if n := max(missing, len(pk.Payload)); missing > 0 || n > b.opts.MaxPayload {
		b.refuse(refusedSize, cl.ID, "a payload above the limit", "client", cl.ID, "topic", pk.TopicName, "bytes", n, "limit", b.opts.MaxPayload,
			"hint", "send it in parts, or less often and only what changed")
		s.show(c, pk, fmt.Sprintf("its payload has %d bytes, more than the %d that are allowed", n, b.opts.MaxPayload))
		if c.v5 && missing > 0 { // longer than CONNACK allowed: the protocol demands it
			return nothing, s.hangUp(cl, packets.ErrPacketTooLarge)
		}
		return nothing, s.turnAway(cl, c, pk, packets.ErrQuotaExceeded)
	}
	if err := checkName(pk.TopicName); err != nil {
		b.refuse(refusedTopic, cl.ID, "bad topic", "client", cl.ID, "error", err)
		s.show(c, pk, err.Error())
		return nothing, s.turnAway(cl, c, pk, packets.ErrTopicNameInvalid)
	}
	if !b.mayPublish(c.user, pk.TopicName) {
		b.denied(c.user, cl.ID, "publish", pk.TopicName)
		s.show(c, pk, "its client may not publish to this topic")
		if !c.v5 && pk.FixedHeader.Qos > 0 { // it cannot be told, and must not be told that all is well
			return nothing, s.hangUp(cl, packets.ErrNotAuthorized)
		}
		return nothing, s.turnAway(cl, c, pk, packets.ErrNotAuthorized)
	}
	if pk.FixedHeader.Qos == 0 {
		return pk, nil // on to OnPublish
	}
	return nothing, s.receive(cl, c, pk)
}

// OnPacketEncode adds what mochi does not say in CONNACK, holds back what 3.1.1 does not have, and notes what mochi is
// about to forget. It is called from whoever writes.
func (h *hook) OnPacketEncode(cl *mqtt.Client, pk packets.Packet) packets.Packet {
	switch pk.FixedHeader.Type {
	case packets.Connack:
		if cl.Properties.ProtocolVersion < 5 && pk.ReasonCode > connackV3Last {
			pk.ReasonCode = connackV3Last // mochi sends codes of MQTT 5 where it knows no other
		}
		pk.Properties.ReceiveMaximum = lineLen
		pk.Properties.MaximumPacketSize = h.s.mqtt.Options.Capabilities.MaximumPacketSize
	case packets.Disconnect:
		if cl.Properties.ProtocolVersion < 5 { // there the server just closes
			pk.FixedHeader.Type = packets.Reserved
		}
	case packets.Suback, packets.Unsuback:
		if c := connOf(cl); c != nil {
			pk.PacketID = c.asked
		}
	case packets.Publish:
		if c := connOf(cl); c != nil && pk.FixedHeader.Qos > 0 && !c.window.pass(pk.PacketID) {
			pk.FixedHeader.Type = packets.Reserved // which cannot be written: mochi gives up, and the window has it
		}
	}
	return pk
}

// show tells the gateway of a message that will not be taken, so that people see it among the events.
func (s *serving) show(c *conn, pk packets.Packet, why string) {
	_ = s.emit(c.ctx, drivers.Delivery{Event: s.event(pk.TopicName, pk.Payload, false), Refused: why})
}

// turnAway answers a message that will not be taken so that it is not sent again.
func (s *serving) turnAway(cl *mqtt.Client, c *conn, pk packets.Packet, code packets.Code) error {
	switch pk.FixedHeader.Qos {
	case 1:
		return s.answer(cl, packets.Puback, pk.PacketID, code)
	case 2:
		return s.answer(cl, packets.Pubrec, pk.PacketID, code)
	}
	return nil
}

// OnPublish sees QoS 0 from clients, and everything that the broker itself hands to mochi.
func (h *hook) OnPublish(cl *mqtt.Client, pk packets.Packet) (packets.Packet, error) {
	s := h.s
	if c := connOf(cl); c != nil && s.b.want.Load().match(pk.TopicName) {
		c.held.order.Lock()
		err := s.emit(c.ctx, drivers.Delivery{Event: s.event(pk.TopicName, pk.Payload, false)})
		c.held.order.Unlock()
		if err != nil {
			return pk, packets.ErrRejectPacket
		}
		s.b.count.taken.Add(1)
	}
	if pk.Connect.ClientIdentifier != "" {
		pk.Origin, pk.Connect.ClientIdentifier = pk.Connect.ClientIdentifier, ""
	}
	pk.Created = s.order.Add(1)
	if pk.FixedHeader.Retain && !s.mayRetain(pk.TopicName, len(pk.Payload)) {
		pk.FixedHeader.Retain = false
	}
	return pk, nil
}

// OnWill decides whether a will can be retained. When it is the broker that goes, and not the client, there is no will: one
// without a topic reaches nobody.
func (h *hook) OnWill(_ *mqtt.Client, will mqtt.Will) (mqtt.Will, error) {
	if h.s.ctx.Err() != nil {
		return mqtt.Will{}, nil
	}
	if will.Retain && !h.s.mayRetain(will.TopicName, len(will.Payload)) {
		will.Retain = false
	}
	return will, nil
}

// OnWillSent lets functions see a will.
func (h *hook) OnWillSent(_ *mqtt.Client, pk packets.Packet) { h.s.emitWill(pk) }

// OnACLCheck answers for deliveries and filters; what clients publish was checked when it was read. Deliveries are asked
// about from any goroutine.
func (h *hook) OnACLCheck(cl *mqtt.Client, name string, write bool) bool {
	if write || cl.Net.Inline {
		return true
	}
	c := connOf(cl)
	u := h.s.b.users.byName[string(cl.Properties.Username)]
	if !h.s.b.mayRead(u, unshared(name)) {
		return false
	}
	if c != nil && c.subscribing.Load() {
		return true
	}
	if c != nil && c.sink.slow() || !h.s.hasRoom(cl) {
		h.s.b.count.dropped.Add(1)
		return false
	}
	return true
}

// OnSubscribe logs what will be denied, and bounds a client's subscriptions.
func (h *hook) OnSubscribe(cl *mqtt.Client, pk packets.Packet) packets.Packet {
	c := connOf(cl)
	if c == nil {
		return pk
	}
	c.subscribing.Store(true)
	have := cl.State.Subscriptions.Len()
	for i, f := range pk.Filters {
		plain := unshared(f.Filter)
		switch err := topic.CheckFilter(plain); {
		case err != nil:
			h.s.b.refuse(refusedTopic, cl.ID, "bad filter", "client", cl.ID, "error", err)
			pk.Filters[i].Filter = "" // which mochi refuses
		case !h.s.b.mayRead(c.user, plain):
			h.s.b.denied(c.user, cl.ID, "subscribe", plain)
		case have >= maxSubscriptions:
			h.s.b.refuse(refusedSession, cl.ID, "too many subscriptions", "client", cl.ID, "limit", maxSubscriptions)
			pk.Filters[i].Filter = ""
		default:
			have++
		}
	}
	return pk
}

// OnSubscribed stores a session's subscriptions.
func (h *hook) OnSubscribed(cl *mqtt.Client, _ packets.Packet, _ []byte) {
	h.s.keep.session(cl.ID)
}

// OnPacketProcessed ends what OnSubscribe began.
func (h *hook) OnPacketProcessed(cl *mqtt.Client, _ packets.Packet, _ error) {
	if c := connOf(cl); c != nil {
		c.subscribing.Store(false)
	}
}

// OnUnsubscribed stores a session's subscriptions.
func (h *hook) OnUnsubscribed(cl *mqtt.Client, _ packets.Packet) { h.s.keep.session(cl.ID) }

// OnRetainMessage is called from whoever publishes.
func (h *hook) OnRetainMessage(_ *mqtt.Client, pk packets.Packet, _ int64) {
	h.s.retained.set(pk.TopicName, len(pk.Payload))
	h.s.keep.retained(pk.TopicName)
}

// OnRetainedExpired is called from mochi's clock.
func (h *hook) OnRetainedExpired(name string) {
	h.s.retained.set(name, 0)
	h.s.keep.topic(name)
}

// OnQosPublish: a message is on its way to a subscriber. It is called from whoever publishes.
func (h *hook) OnQosPublish(cl *mqtt.Client, pk packets.Packet, _ int64, _ int) {
	h.s.budget.add(cl.ID, pk.PacketID, len(pk.Payload))
	h.s.keep.queue(cl)
}

// OnQosComplete: the subscriber has it.
func (h *hook) OnQosComplete(cl *mqtt.Client, pk packets.Packet) {
	h.s.budget.remove(cl.ID, pk.PacketID)
	h.s.keep.taken(cl.ID)
	if c := connOf(cl); c != nil {
		c.window.done(cl, pk.PacketID)
	}
}

// OnQosDropped: it was given up.
func (h *hook) OnQosDropped(cl *mqtt.Client, pk packets.Packet) { h.OnQosComplete(cl, pk) }

// OnPublishDropped: it did not fit; mochi does not say under which packet id it had been counted.
func (h *hook) OnPublishDropped(cl *mqtt.Client, _ packets.Packet) { h.s.budget.recount(cl) }
