package mqttclient

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/stretchr/testify/require"
)

// feed returns a conn whose far side has written b and, if end, closed.
func feed(t testing.TB, b []byte, end bool) *conn {
	here, there := net.Pipe()
	c := newConn(here, patience, patience)
	go func() {
		_, _ = there.Write(b)
		if end {
			there.Close()
		}
	}()
	t.Cleanup(func() { here.Close(); there.Close() })
	return c
}

func publishPacket(qos byte, id uint16, payload int) []byte {
	p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	p.TopicName, p.Qos, p.MessageID, p.Payload = "a/b", qos, id, bytes.Repeat([]byte("x"), payload)
	var b bytes.Buffer
	_ = p.Write(&b)
	return b.Bytes()
}

func TestConnPassesPackets(t *testing.T) {
	var all []byte
	for i, size := range []int{0, 1, 100, 130, 20000, 5000, maxPacket - 100} {
		all = append(all, publishPacket(byte(i%3), uint16(i+1), size)...)
	}
	c := feed(t, all, true)
	for i, size := range []int{0, 1, 100, 130, 20000, 5000, maxPacket - 100} {
		p, err := packets.ReadPacket(c)
		require.NoError(t, err)
		require.Len(t, p.(*packets.PublishPacket).Payload, size)
		require.Equal(t, byte(i%3), p.Details().Qos)
	}
	_, err := packets.ReadPacket(c)
	require.ErrorIs(t, err, io.EOF)
}

func TestConnSkipsWhatIsTooLarge(t *testing.T) {
	small := publishPacket(1, 7, 10)
	c := feed(t, bytes.Join([][]byte{publishPacket(2, 5, maxPacket), small, publishPacket(0, 0, maxPacket+5), small}, nil), true)
	var seen []string
	c.tooLarge = func(first byte, id uint16, topic string, size int) {
		require.Equal(t, "a/b", topic)
		require.GreaterOrEqual(t, size, maxPacket)
		seen = append(seen, string(rune('0'+first>>1&3))+string(rune('0'+id)))
	}
	for range 2 {
		p, err := packets.ReadPacket(c)
		require.NoError(t, err)
		require.EqualValues(t, 7, p.Details().MessageID)
	}
	require.Equal(t, []string{"25", "00"}, seen)
}

func TestConnRefusesNonsense(t *testing.T) {
	for name, b := range map[string][]byte{
		"an endless length":  {0x30, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF},
		"a huge SUBACK":      {0x90, 0xFF, 0xFF, 0xFF, 0x7F},
		"more return codes":  {0x90, 4, 0, 1, 0, 0},
		"a huge topic":       {0x30, 0xFF, 0xFF, 0x7F, 0xFF, 0xFF},
		"half a header":      {0x30},
		"half a long header": {0x30, 0x80},
		"nothing":            {},
	} {
		t.Run(name, func(t *testing.T) {
			c := feed(t, b, true)
			c.codes.Store(1)
			var why error
			c.failed = func(err error) { why = err }
			_, err := packets.ReadPacket(c)
			require.Error(t, err)
			require.Error(t, why)
		})
	}
}

func TestConnFailsOnce(t *testing.T) {
	c := feed(t, nil, false)
	var why []string
	c.failed = func(err error) { why = append(why, err.Error()) }
	c.fail(errors.New("first"))
	c.fail(errors.New("second"))
	c.Close()
	_, err := c.Write([]byte{pingreq, 0})
	require.ErrorIs(t, err, io.EOF)
	_, err = c.Read(make([]byte, 1))
	require.Equal(t, io.EOF, err, "paho stops without a word on any other text")
	require.Equal(t, []string{"first"}, why)
}

func TestConnNoticesSilence(t *testing.T) {
	here, there := net.Pipe()
	defer there.Close()
	c := newConn(here, 10*time.Millisecond, 10*time.Millisecond)
	var why error
	c.failed = func(err error) { why = err }
	_, err := c.Read(make([]byte, 1))
	require.Equal(t, io.EOF, err)
	require.ErrorContains(t, why, "has said nothing")

	here, there = net.Pipe()
	defer there.Close()
	c = newConn(here, patience, 10*time.Millisecond)
	c.failed = func(err error) { why = err }
	_, err = c.Write([]byte{pingreq, 0})
	require.Equal(t, io.EOF, err)
	require.ErrorContains(t, why, "has read nothing")
}

func FuzzConn(f *testing.F) {
	f.Add([]byte{0x30, 2, 0, 0})
	f.Add(publishPacket(1, 1, 10))
	f.Add([]byte{0x32, 0x81, 0x80, 0x40, 0, 1, 'a', 0, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		c := feed(t, b, true)
		for {
			if _, err := packets.ReadPacket(c); err != nil {
				break
			}
		}
	})
}

func TestOptions(t *testing.T) {
	for _, c := range []struct {
		o    Options
		want string
	}{
		{Options{URL: ""}, "tcp://host:1883"},
		{Options{URL: "tcp://u:geheim@h:port"}, "tcp://host:1883"},
		{Options{URL: "tcp://u:geheim@"}, "tcp://host:1883"},
		{Options{URL: "ws://u:geheim@h"}, `"ws"`},
		{Options{URL: "u:geheim@h"}, "tcp://host:1883"},
		{Options{URL: "tcp://h/path"}, "after h"},
		{Options{URL: "tcp://h?geheim"}, "after h"},
		{Options{URL: "tcp://h", PasswordFile: "f"}, "username"},
		{Options{URL: "tcp://h", TLS: TLS{CA: "f"}}, "mqtts://"},
		{Options{URL: "mqtts://h", TLS: TLS{CA: "/no/such"}}, "broker.tls.ca"},
		{Options{URL: "mqtts://h", TLS: TLS{CA: "conn_test.go"}}, "no certificate"},
		{Options{URL: "mqtts://h", TLS: TLS{Cert: "a"}}, "together"},
		{Options{URL: "mqtts://h", TLS: TLS{Cert: "/no/a", Key: "/no/b"}}, "broker.tls.cert"},
		{Options{URL: "tcp://h"}, "client id"},
	} {
		_, err := New(c.o)
		require.ErrorContains(t, err, c.want, c.o.URL)
		require.NotContains(t, err.Error(), "geheim")
		require.False(t, strings.HasPrefix(err.Error(), "parse"))
	}
	for url, want := range map[string]string{
		"tcp://h": "tcp://h:1883", "mqtt://u:p@h": "mqtt://h:1883", "ssl://h": "ssl://h:8883", "mqtts://h:1": "mqtts://h:1", "tcp://[::1]/": "tcp://[::1]:1883",
	} {
		c, err := New(Options{URL: url, ClientID: "x", Log: quiet()})
		require.NoError(t, err)
		require.Equal(t, want, c.Status().URL)
		require.False(t, c.InProcess())
	}
}
