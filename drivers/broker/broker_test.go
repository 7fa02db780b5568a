package broker

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/drivers"
)

func both(t *testing.T, fn func(t *testing.T, version int)) {
	for _, v := range []int{4, 5} {
		t.Run(map[int]string{4: "3.1.1", 5: "5"}[v], func(t *testing.T) { fn(t, v) })
	}
}

func TestAcknowledgesOnlyWhatTheGatewayAccepted(t *testing.T) {
	both(t, func(t *testing.T, version int) {
		e := &engine{hold: true}
		r := startWith(t, Options{}, e, "in/#")
		c, _ := dialRaw(t, r.addr, version, login{id: "pub", clean: true})
		sub, _ := dialRaw(t, r.addr, version, login{id: "sub", clean: true})
		require.Equal(t, byte(suback), sub.subscribe("#", 2).kind)

		c.publish("in/1", "one", 1, 7, false)
		c.publish("in/2", "two", 2, 8, false)
		c.publish("out/3", "three", 1, 9, false) // nobody's, but in line
		got := e.wait(t, 2)
		c.quiet()
		sub.quiet()
		require.Equal(t, 3, r.Stats().Pending)

		c.publish("in/1", "one", 1, 7, true) // impatient
		c.quiet()
		require.Len(t, e.deliveries(), 2)

		got[1].Ack(nil) // the line keeps its order
		c.quiet()
		got[0].Ack(nil)
		c.expect(puback, 7)
		c.expect(pubrec, 8)
		c.expect(puback, 9)
		c.ack(pubrel, 8)
		c.expect(pubcomp, 8)
		for i, want := range []string{"in/1", "in/2", "out/3"} {
			p := sub.read()
			require.Equal(t, byte(publish), p.kind)
			require.Equal(t, want, string(p.body[2:2+len(want)]), i)
			require.Equal(t, []byte{1, 2, 1}[i], p.flags>>1&3, "the QoS of the origin")
		}
		require.Equal(t, drivers.Mark("pub", 7), got[0].Mark)
		require.False(t, got[0].Again)
		_, marks := e.forgotten()
		require.Equal(t, []string{drivers.Mark("pub", 8)}, marks)
		eventually(t, "the line is empty", func() bool { return r.Stats().Pending == 0 })
	})
}

func TestQoS0(t *testing.T) {
	both(t, func(t *testing.T, version int) {
		r := start(t, Options{}, "in/+")
		c, _ := dialRaw(t, r.addr, version, login{id: "pub", clean: true})
		sub, _ := dialRaw(t, r.addr, version, login{id: "sub", clean: true})
		sub.subscribe("in/#", 0)
		for i := range 100 {
			c.publish("in/x", fmt.Sprint(i), 0, 0, false)
			c.publish("in/x/y", fmt.Sprint(i), 0, 0, false)
		}
		for i, d := range r.e.wait(t, 100) {
			require.Nil(t, d.Ack)
			require.Equal(t, fmt.Sprint(i), string(d.Event.Data))
		}
		for range 200 {
			require.Equal(t, byte(publish), sub.read().kind)
		}
	})
}
