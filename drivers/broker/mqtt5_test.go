package broker

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// properties cuts the properties out of a PUBLISH of MQTT 5 with QoS above 0.
func properties(p packet) []byte {
	b := p.body[2+int(binary.BigEndian.Uint16(p.body)):]
	if p.flags>>1&3 > 0 {
		b = b[2:]
	}
	return b[1 : 1+b[0]]
}

func (c *raw) publishProps(topic, payload string, id uint16, props []byte) {
	c.t.Helper()
	body := binary.BigEndian.AppendUint16(str(topic), id)
	body = append(append(body, byte(len(props))), props...)
	c.send(0x32, append(body, payload...))
}

func TestPropertiesGoOn(t *testing.T) {
	e := &engine{hold: true}
	r := startWith(t, Options{}, e, "in/#")
	sub, _ := dialRaw(t, r.addr, 5, login{id: "sub", clean: true})
	sub.subscribe("#", 1)
	c, _ := dialRaw(t, r.addr, 5, login{id: "pub", clean: true})
	user := append(append([]byte{38}, str("key")...), str("value")...)
	ttl := []byte{2, 0, 0, 1, 0}
	c.publishProps("in/1", "x", 1, append(append([]byte{}, user...), ttl...))
	e.wait(t, 1)[0].Ack(nil)
	c.expect(puback, 1)
	got := properties(sub.read())
	require.Contains(t, string(got), string(user))
	require.Contains(t, string(got), string([]byte{2, 0, 0})) // what is left of 256 s
	r.mustPublish(t, "out", "v", false)
	require.Contains(t, string(properties(sub.read())), string(append(append([]byte{38}, str("id")...), str("id-v")...)))
}

func TestNoLocal(t *testing.T) {
	r := start(t, Options{}, "in/#")
	c, _ := dialRaw(t, r.addr, 5, login{id: "a", clean: true})
	c.subscribe("#", 1|4) // no local
	for _, topic := range []string{"in/1", "out/1"} {
		c.publish(topic, "mine", 1, 1, false)
		c.expect(puback, 1)
		c.publish(topic, "mine", 0, 0, false)
	}
	c.quiet()
	r.mustPublish(t, "in/1", "yours", false)
	require.Contains(t, string(c.read().body), "yours")
}

func TestTopicAliasesAreNotOffered(t *testing.T) {
	r := start(t, Options{})
	c, p := dialRaw(t, r.addr, 5, login{id: "a", clean: true})
	require.Contains(t, string(p.body), string([]byte{33, 0, lineLen}), "receive maximum")
	c.publishProps("x", "y", 1, []byte{35, 0, 1})
	require.Equal(t, byte(0x94), c.closed().code())
}

func TestDelayedWill(t *testing.T) {
	r := start(t, Options{}, "gone/#")
	s := r.serving()
	for i := range 3 {
		pk := nothing
		pk.TopicName, pk.Payload = fmt.Sprint("gone/", i), []byte("x")
		pk.Connect.WillProperties.WillDelayInterval = 1
		(&hook{s: s}).OnWillSent(s.own, pk)
	}
	r.e.wait(t, 3)
}

// A client's own packet ids and those of the messages on their way to it are different things.
func TestPacketIDsOfBothDirections(t *testing.T) {
	both(t, func(t *testing.T, version int) {
		r := start(t, Options{}, "in/#")
		c, _ := dialRaw(t, r.addr, version, login{id: "a", clean: true, receive: 5})
		c.subscribe("x/#", 2)
		for i := range 5 {
			r.mustPublish(t, "x/1", fmt.Sprint(i), false)
		}
		var ids []uint16
		for range 5 {
			ids = append(ids, c.read().id())
		}
		for i, id := range ids {
			qos := byte(1 + i%2)
			c.publish("in/1", "x", qos, id, false)
			c.expect(3+qos, id)
			if qos == 2 {
				c.ack(pubrel, id)
				c.expect(pubcomp, id)
			}
		}
		for _, id := range ids {
			c.ack(puback, id)
		}
		c.quiet()
		s := r.serving()
		cl, _ := s.mqtt.Clients.Get("a")
		require.Zero(t, cl.State.Inflight.Len())
		for i := range 30 {
			r.mustPublish(t, "x/1", fmt.Sprint(i), false)
		}
		for i := range 30 {
			p := c.read()
			require.True(t, strings.HasSuffix(string(p.body), fmt.Sprint(i)))
			c.ack(puback, p.id())
		}
	})
}
