package broker

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/drivers"
)

// BenchmarkAcknowledge is one QoS 1 message from a client through a gateway that accepts it at once, client included.
func BenchmarkAcknowledge(b *testing.B) {
	br, err := New(Options{Listen: []string{"tcp://127.0.0.1:0"}})
	require.NoError(b, err)
	_ = br.Subscribe(b.Context(), subs([]string{"in/#"}))
	require.NoError(b, br.Listen(b.Context()))
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan error)
	go func() {
		ended <- br.Run(ctx, func(_ context.Context, d drivers.Delivery) error {
			d.Ack(nil)
			return nil
		})
	}()
	c, _ := dialRaw(b, br.Addr(), 4, login{id: "pub", clean: true})
	payload := make([]byte, 100)
	b.ReportAllocs()
	b.ResetTimer()
	sent := 0
	for got := 0; got < b.N; got++ {
		for sent < b.N && sent-got < 32 {
			sent++
			_, err := c.Write(frame(false, "in/1", payload, 1, uint16(1+sent%1000), false, false))
			require.NoError(b, err)
		}
		c.expect(puback, uint16(1+(got+1)%1000))
	}
	b.StopTimer()
	cancel()
	require.NoError(b, <-ended)
}
