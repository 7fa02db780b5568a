package demo

import (
	"context"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/stretchr/testify/require"
)

// moody is a broker that acknowledges some packets, forgets others, and hangs up often.
type moody struct {
	t      *testing.T
	listen net.Listener

	mu     sync.Mutex
	acked  map[string]bool // payloads
	seen   map[string]uint16
	order  []string // payloads, as they first came
	dups   int
	steady bool
}

func (m *moody) serve(c net.Conn) {
	defer c.Close()
	for {
		p, err := packets.ReadPacket(c)
		if err != nil {
			return
		}
		switch p := p.(type) {
		case *packets.ConnectPacket:
			ack := packets.NewControlPacket(packets.Connack)
			_ = ack.Write(c)
		case *packets.PublishPacket:
			if !m.publish(c, p) {
				return
			}
		}
	}
}

func (m *moody) publish(c net.Conn, p *packets.PublishPacket) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	text := string(p.Payload)
	if id, again := m.seen[text]; again {
		if id != p.MessageID || !p.Dup {
			m.t.Errorf("%s came as packet %d and again as %d, DUP %v", text, id, p.MessageID, p.Dup)
		}
		m.dups++
	} else {
		m.seen[text] = p.MessageID
		m.order = append(m.order, text)
	}
	mood := rand.IntN(10)
	if !m.steady && mood == 0 {
		return false // hangs up
	}
	if !m.steady && mood == 1 {
		return true // and forgets
	}
	ack := packets.NewControlPacket(packets.Puback).(*packets.PubackPacket)
	ack.MessageID = p.MessageID
	if ack.Write(c) != nil {
		return false
	}
	m.acked[text] = true
	return m.steady || mood != 2 // hangs up: the PUBACK may have been read or not
}

// TestSenderKeepsItsWord: what counts as accepted was acknowledged, nothing is left out, and what comes again is marked as such.
func TestSenderKeepsItsWord(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	m := &moody{t: t, listen: ln, acked: map[string]bool{}, seen: map[string]uint16{}}
	var wait sync.WaitGroup
	wait.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wait.Go(func() { m.serve(c) })
		}
	})
	l := newLedger()
	s := newSender(ln.Addr().String(), "r", time.Millisecond, l)
	ctx, cancel := context.WithCancel(context.Background())
	stop, stopSending := context.WithCancel(ctx)
	wait.Go(func() { s.Run(ctx, stop) })
	require.Eventually(t, func() bool { return l.read().Accepted > 300 }, patience, 5*time.Millisecond)
	stopSending()
	m.mu.Lock()
	m.steady = true
	m.mu.Unlock()
	// A PUBACK that the broker forgot comes only with the next connection.
	require.Eventually(t, func() bool {
		if s.waiting() > 0 {
			hangUp(s)
		}
		return s.waiting() == 0
	}, patience, 20*time.Millisecond)
	cancel()
	ln.Close()
	wait.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	sent := s.next - 1
	require.Equal(t, int64(sent), l.read().Accepted)
	require.Len(t, m.seen, int(sent))
	require.Len(t, m.acked, int(sent))
	require.Positive(t, m.dups, "the broker was not moody enough for this test")
	for i, text := range m.order {
		require.Equal(t, string(s.packet(flying{n: uint64(i + 1)}, false).(*packets.PublishPacket).Payload), text, "in order")
	}
}

// hangUp ends the sender's connection.
func hangUp(s *sender) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != nil {
		s.conn.Close()
	}
}
