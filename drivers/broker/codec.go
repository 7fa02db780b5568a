package broker

import (
	"fmt"
	"slices"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/perigee-iot/perigee/internal/wire"
)

// codecVersion begins everything that the broker stores; a new layout gets a new one.
const codecVersion = 1

// encodePacket is a retained message, or a message or PUBREL on its way to a subscriber.
func encodePacket(pk packets.Packet) []byte {
	var w wire.Writer
	w.Byte(codecVersion)
	w.Byte(pk.FixedHeader.Type)
	w.Byte(pk.FixedHeader.Qos)
	w.Bool(pk.FixedHeader.Retain)
	w.Byte(pk.ProtocolVersion)
	w.Uint(uint64(pk.PacketID))
	w.Int(pk.Created)
	w.Int(pk.Expiry)
	w.String(pk.Origin)
	w.String(pk.TopicName)
	w.Bytes(pk.Payload)
	p := pk.Properties
	w.Bool(p.PayloadFormatFlag)
	w.Byte(p.PayloadFormat)
	w.Uint(uint64(p.MessageExpiryInterval))
	w.String(p.ContentType)
	w.String(p.ResponseTopic)
	w.Bytes(p.CorrelationData)
	w.Uint(uint64(len(p.User)))
	for _, u := range p.User {
		w.String(u.Key)
		w.String(u.Val)
	}
	return w.Data()
}

func decodePacket(data []byte) (packets.Packet, error) {
	r, err := open(data)
	if err != nil {
		return packets.Packet{}, err
	}
	pk := packets.Packet{
		FixedHeader:     packets.FixedHeader{Type: r.Byte(), Qos: r.Byte(), Retain: r.Bool()},
		ProtocolVersion: r.Byte(),
		PacketID:        uint16(r.Uint()),
		Created:         r.Int(),
		Expiry:          r.Int(),
		Origin:          r.String(),
		TopicName:       r.String(),
		Payload:         r.Bytes(),
	}
	p := &pk.Properties
	p.PayloadFormatFlag = r.Bool()
	p.PayloadFormat = r.Byte()
	p.MessageExpiryInterval = uint32(r.Uint())
	p.ContentType = r.String()
	p.ResponseTopic = r.String()
	p.CorrelationData = r.Bytes()
	for range r.Count(1 << 16) {
		p.User = append(p.User, packets.UserProperty{Key: r.String(), Val: r.String()})
	}
	return pk, r.Done()
}

// open begins to read a record.
func open(data []byte) (*wire.Reader, error) {
	if len(data) == 0 || data[0] != codecVersion {
		return nil, fmt.Errorf("%w: not a record of version %d", wire.ErrCorrupt, codecVersion)
	}
	return wire.NewReader(slices.Clone(data[1:])), nil
}

// encodeSession is what is kept of a session besides its messages.
func encodeSession(cl *mqtt.Client) []byte {
	var w wire.Writer
	w.Byte(codecVersion)
	w.String(string(cl.Properties.Username))
	w.Byte(cl.Properties.ProtocolVersion)
	w.Bool(cl.Properties.Clean)
	w.Uint(uint64(cl.Properties.Props.SessionExpiryInterval))
	w.Bool(cl.Properties.Props.SessionExpiryIntervalFlag)
	subs := cl.State.Subscriptions.GetAll()
	names := make([]string, 0, len(subs))
	for name := range subs {
		names = append(names, name)
	}
	slices.Sort(names)
	w.Uint(uint64(len(names)))
	for _, name := range names {
		s := subs[name]
		w.String(s.Filter)
		w.Byte(s.Qos)
		w.Byte(s.RetainHandling)
		w.Bool(s.RetainAsPublished)
		w.Bool(s.NoLocal)
		w.Uint(uint64(s.Identifier))
	}
	return w.Data()
}

// decodeSession fills a new client and returns its subscriptions.
func decodeSession(data []byte, cl *mqtt.Client) ([]packets.Subscription, error) {
	r, err := open(data)
	if err != nil {
		return nil, err
	}
	cl.Properties.Username = []byte(r.String())
	cl.Properties.ProtocolVersion = r.Byte()
	cl.Properties.Clean = r.Bool()
	cl.Properties.Props.SessionExpiryInterval = uint32(r.Uint())
	cl.Properties.Props.SessionExpiryIntervalFlag = r.Bool()
	var subs []packets.Subscription
	for range r.Count(maxSubscriptions) {
		subs = append(subs, packets.Subscription{
			Filter: r.String(), Qos: r.Byte(), RetainHandling: r.Byte(),
			RetainAsPublished: r.Bool(), NoLocal: r.Bool(), Identifier: int(r.Uint()),
		})
	}
	return subs, r.Done()
}
