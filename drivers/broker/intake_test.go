package broker

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/drivers"
)

func TestResendsAfterReconnecting(t *testing.T) {
	both(t, func(t *testing.T, version int) {
		e := &engine{hold: true}
		r := startWith(t, Options{}, e, "in/#")
		l := login{id: "pub", expiry: 100}
		c, _ := dialRaw(t, r.addr, version, l)
		c.publish("in/1", "one", 1, 1, false)
		c.publish("in/2", "two", 2, 2, false)
		got := e.wait(t, 2)
		require.True(t, got[0].Event.Time.IsZero(), "only the engine knows how good the clock is")
		c.Close()

		c, p := dialRaw(t, r.addr, version, l)
		require.Equal(t, byte(1), p.body[0], "session present")
		c.publish("in/1", "one", 1, 1, true)
		c.publish("in/2", "two", 2, 2, true)
		c.quiet()
		require.Len(t, e.deliveries(), 2, "a repetition of what waits is not taken again")
		got[0].Ack(nil)
		got[1].Ack(nil)
		c.expect(puback, 1)
		c.expect(pubrec, 2)
		c.Close()

		c, _ = dialRaw(t, r.addr, version, l)
		c.publish("in/2", "two", 2, 2, true) // the PUBREC was lost
		c.expect(pubrec, 2)
		c.publish("in/1", "one", 1, 1, true) // the PUBACK was lost: only the gateway can know
		got = e.wait(t, 3)
		require.True(t, got[2].Again)
		require.Equal(t, drivers.Mark("pub", 1), got[2].Mark)
		got[2].Ack(nil)
		c.expect(puback, 1)
		c.ack(pubrel, 2)
		c.expect(pubcomp, 2)
		c.ack(pubrel, 2)
		c.expect(pubcomp, 2)
		sessions, _ := e.forgotten()
		require.Empty(t, sessions)
	})
}

// A client that lost its state begins to count anew, without DUP, in a session that the broker still has.
func TestPacketIDInNewUse(t *testing.T) {
	both(t, func(t *testing.T, version int) {
		e := &engine{hold: true}
		r := startWith(t, Options{}, e, "in/#")
		l := login{id: "pub", expiry: 100}
		c, _ := dialRaw(t, r.addr, version, l)
		c.publish("in/1", "old", 1, 1, false)
		e.wait(t, 1)
		c.Close()
		c, _ = dialRaw(t, r.addr, version, l)
		c.publish("in/1", "new", 1, 1, false)
		got := e.wait(t, 2)
		require.Equal(t, []string{"old", "new"}, e.payloads())
		got[0].Ack(nil)
		c.quiet()
		got[1].Ack(nil)
		c.expect(puback, 1)
	})
}

func TestPacketIDMisused(t *testing.T) {
	both(t, func(t *testing.T, version int) {
		e := &engine{hold: true}
		r := startWith(t, Options{}, e, "in/#")
		c, _ := dialRaw(t, r.addr, version, login{id: "pub", clean: true})
		c.publish("in/1", "one", 1, 1, false)
		e.wait(t, 1)
		c.publish("in/1", "other", 1, 1, false)
		p := c.closed()
		if version == 5 {
			require.Equal(t, byte(disconnect), p.kind)
			require.Equal(t, byte(0x91), p.code())
		}
		require.EqualValues(t, 1, r.Stats().Refused["protocol"])
	})
}

func TestCleanSessionForgets(t *testing.T) {
	both(t, func(t *testing.T, version int) {
		e := &engine{hold: true}
		r := startWith(t, Options{}, e, "in/#")
		c, _ := dialRaw(t, r.addr, version, login{id: "pub", expiry: 100})
		c.publish("in/1", "one", 1, 1, false)
		got := e.wait(t, 1)
		c.Close()
		sessions, _ := e.forgotten()
		require.Empty(t, sessions)

		sub, _ := dialRaw(t, r.addr, version, login{id: "sub", clean: true})
		sub.subscribe("in/#", 1)
		c, p := dialRaw(t, r.addr, version, login{id: "pub", clean: true})
		require.Zero(t, p.body[0])
		sessions, _ = e.forgotten()
		require.Equal(t, []string{"sub", "pub"}, sessions)
		got[0].Ack(nil)
		require.Equal(t, byte(publish), sub.read().kind, "it was accepted, so others get it")
		c.quiet() // but its sender does not know it any more
		eventually(t, "its mark is dropped", func() bool { _, marks := e.forgotten(); return slices.Equal(marks, []string{drivers.Mark("pub", 1)}) })
		c.publish("in/1", "two", 1, 2, false)
		got = e.wait(t, 2)
		c.Close()
		eventually(t, "its session ends", func() bool { sessions, _ := e.forgotten(); return len(sessions) == 3 })
		got[1].Ack(nil)
		eventually(t, "nothing is left of it", func() bool { _, marks := e.forgotten(); return len(marks) == 2 })
	})
}

func TestRefusedByTheGateway(t *testing.T) {
	both(t, func(t *testing.T, version int) {
		e := &engine{err: fmt.Errorf("not wanted: %w", drivers.ErrRefused)}
		r := startWith(t, Options{}, e, "in/#")
		sub, _ := dialRaw(t, r.addr, version, login{id: "sub", clean: true})
		sub.subscribe("#", 1)
		c, _ := dialRaw(t, r.addr, version, login{id: "pub", clean: true})
		want := map[int]byte{4: 0, 5: 0x97}[version]
		c.publish("in/1", "one", 1, 1, false)
		require.Equal(t, want, c.expect(puback, 1).code())
		c.publish("in/1", "one", 2, 2, false)
		require.Equal(t, want, c.expect(pubrec, 2).code())
		c.ack(pubrel, 2)
		c.expect(pubcomp, 2)
		sub.quiet()
		require.EqualValues(t, 2, r.Stats().Refused["gateway"])
		require.Equal(t, 1, strings.Count(r.log.String(), "refuses a message"), "logged once")
	})
}

// What the gateway could not take is neither acknowledged nor passed over: the client has to say it again.
func TestAckWithAPassingError(t *testing.T) {
	both(t, func(t *testing.T, version int) {
		e := &engine{err: errors.New("the disk is full")}
		r := startWith(t, Options{}, e, "in/#")
		l := login{id: "pub", expiry: 100}
		c, _ := dialRaw(t, r.addr, version, l)
		c.publish("in/1", "one", 1, 1, false)
		require.NotEqual(t, byte(puback), c.closed().kind)
		e.mu.Lock()
		e.err = nil
		e.mu.Unlock()
		c, _ = dialRaw(t, r.addr, version, l)
		c.publish("in/1", "one", 1, 1, true)
		c.expect(puback, 1)
		require.Len(t, e.deliveries(), 2)
	})
}

func TestFullLineStopsReadingOneClient(t *testing.T) {
	both(t, func(t *testing.T, version int) {
		e := &engine{hold: true}
		r := startWith(t, Options{}, e, "in/#")
		c, _ := dialRaw(t, r.addr, version, login{id: "pub", clean: true})
		const n = 3 * lineLen
		for i := range n {
			c.publish("in/1", fmt.Sprint(i), 1, uint16(i+1), false)
		}
		e.wait(t, lineLen)
		other, _ := dialRaw(t, r.addr, version, login{id: "other", clean: true})
		other.publish("out/1", "x", 1, 1, false)
		other.expect(puback, 1)
		require.Len(t, e.deliveries(), lineLen)
		eventually(t, "the line is full", func() bool { return r.Stats().Pending == lineLen })
		for i := range n {
			got := e.wait(t, i+1)
			require.Equal(t, fmt.Sprint(i), string(got[i].Event.Data))
			got[i].Ack(nil)
			c.expect(puback, uint16(i+1))
		}
	})
}

// A connection whose reader waits, for room or in emit, is given up when its client comes back.
func TestTakeOverWhileBlocked(t *testing.T) {
	both(t, func(t *testing.T, version int) {
		e := &engine{hold: true}
		r := startWith(t, Options{}, e, "in/#")
		l := login{id: "pub", expiry: 100}
		c, _ := dialRaw(t, r.addr, version, l)
		for i := range lineLen + 1 {
			c.publish("in/1", fmt.Sprint(i), 1, uint16(i+1), false)
		}
		e.wait(t, lineLen)
		d, _ := dialRaw(t, r.addr, version, l)
		c.closed()
		e.deliveries()[0].Ack(nil)
		d.publish("in/1", fmt.Sprint(lineLen), 1, lineLen+1, true)
		got := e.wait(t, lineLen+1)

		block := make(chan struct{})
		e.mu.Lock()
		e.block = block
		e.mu.Unlock()
		got[1].Ack(nil)
		eventually(t, "room", func() bool { return r.Stats().Pending < lineLen })
		d.publish("in/1", "blocked", 1, 1000, false)
		f, _ := dialRaw(t, r.addr, version, l)
		d.closed()
		close(block)
		f.publish("in/1", "blocked", 1, 1000, true)
		got = e.wait(t, lineLen+2)
		for _, d := range got[2:] {
			d.Ack(nil)
		}
		for f.read().id() != 1000 { // the others' answers went to the connections that asked
		}
	})
}

func TestTooLarge(t *testing.T) {
	both(t, func(t *testing.T, version int) {
		r := start(t, Options{MaxPayload: 1000}, "in/#")
		dial := func() *raw {
			c, _ := dialRaw(t, r.addr, version, login{id: "pub", clean: true})
			return c
		}
		c := dial()
		for i, n := range []int{1001, 200 << 10, 5 << 20} {
			big := strings.Repeat("x", n)
			for qos := range byte(3) {
				c.publish("in/big", big, qos, uint16(qos), false)
				switch {
				case version == 5 && n > headRoom+1000: // longer than CONNACK allowed
					require.Equal(t, byte(0x95), c.closed().code())
					c = dial()
				case version == 5 && qos > 0:
					require.Equal(t, byte(0x97), c.expect(3+qos, uint16(qos)).code())
				case qos == 1:
					c.expect(puback, 1)
				case qos == 2:
					c.expect(pubrec, 2)
					c.ack(pubrel, 2)
					c.expect(pubcomp, 2)
				}
			}
			c.publish("in/fits", strings.Repeat("y", 1000), 1, 9, false)
			c.expect(puback, 9)
			require.EqualValues(t, 3*(i+1), r.Stats().Refused["size"])
			if version == 4 || n < headRoom {
				require.Contains(t, r.e.refusals()[3*i], fmt.Sprintf("in/big: its payload has %d bytes, more than the 1000", n))
			}
			require.Contains(t, r.log.String(), "bytes=1001 limit=1000 hint=")
			require.Len(t, r.e.deliveries(), i+1)
		}
	})
}

func TestBadTopics(t *testing.T) {
	both(t, func(t *testing.T, version int) {
		r := start(t, Options{}, "#")
		dial := func() *raw {
			c, _ := dialRaw(t, r.addr, version, login{id: "pub", clean: true})
			return c
		}
		for i, topic := range []string{"a\xff", "a\x00b"} { // the protocol leaves no choice
			c := dial()
			c.publish(topic, "x", 1, 1, false)
			c.closed()
			eventually(t, "it is counted", func() bool { return r.Stats().Refused["topic"] == uint64(i+1) })
		}
		for _, topic := range []string{"a/+", "#", ""} {
			c := dial()
			c.publish(topic, "x", 1, 1, false)
			c.closed()
		}
		c := dial()
		for i, topic := range []string{"$SYS/broker", strings.Repeat("/", 300)} {
			c.publish(topic, "x", 0, 0, false)
			c.publish(topic, "x", 1, 1, false)
			require.Equal(t, map[int]byte{4: 0, 5: 0x90}[version], c.expect(puback, 1).code())
			require.EqualValues(t, 4+2*i, r.Stats().Refused["topic"])
		}
		for _, filter := range []string{"a/#/b", "a+", strings.Repeat("/", 300), "$share/g/a#"} {
			require.GreaterOrEqual(t, last(c.subscribe(filter, 1)), byte(0x80), filter)
		}
		require.Empty(t, r.e.deliveries())
	})
}

func TestWills(t *testing.T) {
	both(t, func(t *testing.T, version int) {
		r := start(t, Options{}, "gone/#")
		c, _ := dialRaw(t, r.addr, version, login{id: "a", clean: true, will: "gone/a"})
		c.Close()
		got := r.e.wait(t, 1)
		require.Equal(t, "gone/a", got[0].Event.Topic)
		require.Nil(t, got[0].Ack)
		eventually(t, "it is retained", func() bool { return r.Stats().Retained == 1 })

		c, _ = dialRaw(t, r.addr, version, login{id: "a", clean: true, will: "gone/a"})
		c.send(0xE0, nil) // DISCONNECT
		c.closed()
		_, _ = dialRaw(t, r.addr, version, login{id: "a", clean: true, will: "gone/b"})
		r.stop() // the broker goes, not the client
		require.Len(t, r.e.deliveries(), 1)
	})
}
