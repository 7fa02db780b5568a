package broker

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/drivers"
	"github.com/perigee-iot/perigee/internal/store"
)

// committer is a gateway that accepts in groups, as the real one does, and can stall and die. What it had not
// accepted when it died is gone.
type committer struct {
	mu       sync.Mutex
	stalled  bool
	waiting  []drivers.Delivery
	accepted map[string]int // payload: how often
	last     map[string]int // sender: the last number seen by this life
	disorder []string
}

func (g *committer) emit(_ context.Context, d drivers.Delivery) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	var sender string
	var n int
	if _, err := fmt.Sscanf(string(d.Event.Data), "%s %d", &sender, &n); err != nil {
		return err
	}
	if was, ok := g.last[sender]; ok && n <= was {
		g.disorder = append(g.disorder, fmt.Sprintf("%s: %d after %d", sender, n, was))
	}
	g.last[sender] = n
	g.waiting = append(g.waiting, d)
	return nil
}

// commit accepts what waits, and then acknowledges it.
func (g *committer) commit() {
	g.mu.Lock()
	if g.stalled {
		g.mu.Unlock()
		return
	}
	group := g.waiting
	g.waiting = nil
	for _, d := range group {
		g.accepted[string(d.Event.Data)]++
	}
	g.mu.Unlock()
	for _, d := range group {
		d.Ack(nil)
	}
}

// life runs a broker with g until end is called; end is a crash for g.
func life(t *testing.T, g *committer, st *store.Store, addr string) (b *Broker, end func()) {
	g.mu.Lock()
	g.waiting, g.last = nil, map[string]int{}
	g.mu.Unlock()
	b, err := New(Options{Listen: []string{"tcp://" + addr}, Store: st, Log: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	_ = b.Subscribe(t.Context(), subs([]string{"in/#"}))
	eventually(t, "the port is free", func() bool { return b.Listen(t.Context()) == nil })
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := b.Run(ctx, g.emit); err != nil {
			t.Error(err)
		}
	})
	wg.Go(func() {
		for ctx.Err() == nil {
			g.commit()
			runtime.Gosched()
			time.Sleep(200 * time.Microsecond) // a group's sync
		}
	})
	return b, func() {
		cancel()
		wg.Wait()
	}
}

// sender publishes with QoS 1 and repeats what was not acknowledged, over any number of connections.
type sender struct {
	id      string
	version int
	addr    string
	total   int

	acked  []bool
	done   int
	nAcked *atomic.Int64 // of all senders
	ids    map[uint16]int
	flight []uint16 // the keys of ids, in order; some may be gone
	next   int      // the first number that was never sent
	nextID uint16
}

func (s *sender) run(ctx context.Context) error {
	for ctx.Err() == nil {
		err := s.connection(ctx)
		if err == nil {
			return nil
		}
		if errors.Is(err, errWrong) {
			return err
		}
		time.Sleep(5 * time.Millisecond)
	}
	return ctx.Err()
}

var errWrong = errors.New("wrong")

func (s *sender) connection(ctx context.Context) error {
	nc, err := net.Dial("tcp", s.addr)
	if err != nil {
		return err
	}
	defer nc.Close()
	defer context.AfterFunc(ctx, func() { nc.Close() })()
	r := bufio.NewReader(nc)
	body := append(str("MQTT"), byte(s.version), 0, 0, 0)
	if s.version == 5 {
		body = append(body, 5, 17, 0, 0, 255, 255)
	}
	body = append(body, str(s.id)...)
	if _, err := nc.Write(append([]byte{0x10, byte(len(body))}, body...)); err != nil {
		return err
	}
	if p, err := readPacket(r); err != nil || p.kind != connack {
		return errors.Join(err, io.ErrUnexpectedEOF)
	}
	if err := s.repeat(nc); err != nil {
		return err
	}
	for s.done < s.total {
		if err := s.fill(nc); err != nil {
			return err
		}
		p, err := readPacket(r)
		if err != nil {
			return err
		}
		if p.kind == disconnect {
			return io.EOF
		}
		n, known := s.ids[p.id()]
		if p.kind != puback || !known {
			return fmt.Errorf("%w: packet %v", errWrong, p)
		}
		delete(s.ids, p.id())
		s.acked[n] = true
		s.done++
		s.nAcked.Add(1)
	}
	return nil
}

const inFlight = 40

// fill publishes while there is room in flight.
func (s *sender) fill(nc net.Conn) error {
	var out []byte
	for len(s.ids) < inFlight && s.next < s.total {
		s.nextID++
		if s.nextID == 0 {
			s.nextID = 1
		}
		s.ids[s.nextID] = s.next
		s.flight = append(s.flight, s.nextID)
		s.next++
		out = append(out, s.frame(s.nextID, false)...)
	}
	_, err := nc.Write(out)
	return err
}

// repeat publishes again what is in flight, in order.
func (s *sender) repeat(nc net.Conn) error {
	var out []byte
	var still []uint16
	for _, id := range s.flight {
		if _, ok := s.ids[id]; ok {
			still = append(still, id)
			out = append(out, s.frame(id, true)...)
		}
	}
	s.flight = still
	_, err := nc.Write(out)
	return err
}

func (s *sender) frame(id uint16, dup bool) []byte {
	return frame(s.version == 5, "in/"+s.id, s.payload(s.ids[id]), 1, id, dup, false)
}

func (s *sender) payload(n int) []byte {
	return append(fmt.Appendf(nil, "%s %d ", s.id, n), bytes.Repeat([]byte("x"), 500)...)
}

func readPacket(r *bufio.Reader) (packet, error) {
	first, err := r.ReadByte()
	if err != nil {
		return packet{}, err
	}
	n, err := binary.ReadUvarint(r)
	if err != nil {
		return packet{}, err
	}
	body := make([]byte, n)
	_, err = io.ReadFull(r, body)
	return packet{first >> 4, first & 15, body}, err
}

// A gateway that stalls, dies and comes back, again and again, while many publish: whatever was acknowledged
// has been accepted, and a stall costs a bounded amount of memory.
func TestNothingAcknowledgedIsLost(t *testing.T) {
	const clients, each = 8, 6250
	st := openStore(t, t.TempDir())
	defer st.Close()
	g := &committer{accepted: map[string]int{}, stalled: true}
	b, end := life(t, g, st, "127.0.0.1:0")
	addr := b.Addr()

	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	var acked atomic.Int64
	var senders []*sender
	ended := make(chan error, clients)
	for i := range clients {
		s := &sender{id: fmt.Sprint("client", i), version: 4 + i%2, addr: addr, total: each,
			acked: make([]bool, each), nAcked: &acked, ids: map[uint16]int{}}
		senders = append(senders, s)
		go func() { ended <- s.run(ctx) }()
	}

	eventually(t, "all clients wait", func() bool { return b.Stats().Pending == clients*inFlight })
	require.Zero(t, acked.Load())
	require.Less(t, heap(), uint64(64<<20))
	end()

	for lives := 1; acked.Load() < clients*each && ctx.Err() == nil; lives++ {
		g.mu.Lock()
		g.stalled = false
		g.mu.Unlock()
		b, end = life(t, g, st, addr)
		want := min(int64(lives)*clients*each/6, clients*each)
		eventually(t, fmt.Sprintf("%d acknowledgements", want), func() bool { return acked.Load() >= want })
		g.mu.Lock()
		g.stalled = acked.Load() < clients*each
		g.mu.Unlock()
		if acked.Load() < clients*each {
			eventually(t, fmt.Sprintf("the gateway has something to lose (life %d)", lives), func() bool {
				g.mu.Lock()
				defer g.mu.Unlock()
				return len(g.waiting) > 0
			})
			require.LessOrEqual(t, b.Stats().Pending, clients*(lineLen+1))
			end()
		}
	}
	for range clients {
		require.NoError(t, <-ended)
	}
	end()

	repeats := 0
	for _, s := range senders {
		for n := range each {
			require.True(t, s.acked[n])
			times := g.accepted[string(s.payload(n))]
			require.Positive(t, times, "%s %d was acknowledged and is lost", s.id, n)
			repeats += times - 1
		}
	}
	require.Empty(t, g.disorder)
	t.Logf("%d acknowledged, %d repeats", acked.Load(), repeats)
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
