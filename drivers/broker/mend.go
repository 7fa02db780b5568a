package broker

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
)

// What is mended here of mochi's way to its subscribers (tested against v2.7.9):
//
//   - A message that had to wait because the subscriber's receive maximum was used up is deleted from the in-flight table in
//     the moment in which it is sent at last. It is not sent again after a lost connection, and its acknowledgement does
//     not give the quota back, so that after as many such messages as the quota is large the subscriber gets nothing more.
//     Newer messages overtake those that wait, which come in no order. So mochi is told of no maximum, and a window
//     keeps it.
//   - On resuming a session everything in flight is sent at once, beyond the receive maximum. setAside keeps the rest back,
//     putBack queues it.
//   - What is in flight is sorted by the 16 low bits of its time in seconds, that is, not at all. Created is therefore not a
//     time here but a count, and is made small where a session resumes.
//   - A SUBSCRIBE is refused if its packet id is that of a message in flight to the same client, which is another
//     direction and another count. freeID gives it one that is not.
//   - A session that expires leaves its subscriptions behind: endSession. A client that goes before it has its CONNACK
//     stays in the books: ended.
//   - A session is taken over in steps: its messages are copied, the old ones cleared, and only then the new client is the
//     one to find. A message that comes in between is lost with the old one, and whoever looks sees half of a queue.
//     beginMove and endMove keep both away.
//   - A connection that ends while its client comes back ends the new connection's place in the books with its own: that client hears nothing
//     any more. beginLeave and endLeave keep the two apart.

// beginMove begins the take-over of a session by a connection: until endMove nothing is published by the gateway or
// handed on from a line, and the keeper does not look. Nothing in between may wait for those who wait here.
func (s *serving) beginMove(c *conn) {
	s.moving.Lock()
	c.moving = true
}

// endMove ends it, if it has not ended before. Both are called by the goroutine that serves the connection.
func (s *serving) endMove(c *conn) {
	if c.moving {
		c.moving = false
		s.moving.Unlock()
	}
}

// beginLeave begins the end of a connection: until endLeave no session is taken over. One that has been by then is known to be.
func (s *serving) beginLeave(c *conn) {
	s.moving.RLock()
	c.leaving = true
}

// endLeave ends it, if it began. Both are called by the goroutine that serves the connection, and nothing in between publishes.
func (s *serving) endLeave(c *conn) {
	if c.leaving {
		c.leaving = false
		s.moving.RUnlock()
	}
}

// inSession publishes a packet while no session is on the move.
func (s *serving) inSession(pk packets.Packet) error {
	s.moving.RLock()
	defer s.moving.RUnlock()
	return s.mqtt.InjectPacket(s.own, pk)
}

// window keeps the receive maximum of one connection. It sees every packet that is about to be written and holds back
// what does not fit; mochi has it in its in-flight table all the same, for a later connection.
type window struct {
	size int // 0: unlimited

	mu    sync.Mutex
	sent  map[uint16]struct{} // not acknowledged
	held  []uint16            // waits, in order
	later []packets.Packet    // between setAside and putBack
	busy  bool                // somebody empties held, or a session is being resumed: whatever comes queues up behind
}

// pass says whether a PUBLISH may be written now. If not, it is held, and pump will send it.
func (w *window) pass(id uint16) bool {
	if w.size == 0 {
		return true
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, ok := w.sent[id]; ok {
		return true
	}
	if w.busy || len(w.held) > 0 || len(w.sent) >= w.size {
		w.held = append(w.held, id)
		return false
	}
	w.sent[id] = struct{}{}
	return true
}

// done ends the flight of a message, and sends what waited for that.
func (w *window) done(cl *mqtt.Client, id uint16) {
	if w.size == 0 {
		return
	}
	w.mu.Lock()
	delete(w.sent, id)
	w.mu.Unlock()
	w.pump(cl)
}

// pump sends what is held while there is room.
func (w *window) pump(cl *mqtt.Client) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.busy {
		return
	}
	w.busy = true
	for len(w.held) > 0 && len(w.sent) < w.size {
		id := w.held[0]
		w.held = w.held[1:]
		pk, ok := cl.State.Inflight.Get(id)
		if !ok {
			continue
		}
		w.sent[id] = struct{}{}
		w.mu.Unlock()
		_ = cl.WritePacket(pk) // if the connection is gone, the next one sends it
		w.mu.Lock()
	}
	w.busy = false
}

// open begins a connection: size is the client's receive maximum.
func (w *window) open(size int) {
	w.size, w.sent = size, map[uint16]struct{}{}
}

// setAside prepares the messages on their way to old to be resumed by another connection: mochi will send again what it finds.
func (w *window) setAside(old *mqtt.Client) {
	all := old.State.Inflight.GetAll(false)
	slices.SortFunc(all, func(a, b packets.Packet) int {
		if ra, rb := a.FixedHeader.Type == packets.Pubrel, b.FixedHeader.Type == packets.Pubrel; ra != rb {
			if ra {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.Created, b.Created)
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	w.busy = true
	at := len(all)
	if w.size > 0 {
		at = min(at, w.size)
		w.later = all[at:]
	}
	for i, pk := range all[:at] {
		pk.Created = int64(i + 1)
		old.State.Inflight.Set(pk)
		w.sent[pk.PacketID] = struct{}{}
	}
	for _, pk := range w.later {
		old.State.Inflight.Delete(pk.PacketID)
	}
}

// putBack queues what setAside kept back, before what has come since.
func (s *serving) putBack(cl *mqtt.Client, w *window) {
	w.mu.Lock()
	ids := make([]uint16, 0, len(w.later)+len(w.held))
	for _, pk := range w.later {
		cl.State.Inflight.Set(pk)
		s.budget.add(cl.ID, pk.PacketID, len(pk.Payload))
		ids = append(ids, pk.PacketID)
	}
	w.held = append(ids, w.held...)
	w.later, w.busy = nil, false
	w.mu.Unlock()
	w.pump(cl)
}

// endSession forgets a session whose client is not connected.
func (s *serving) endSession(cl *mqtt.Client) {
	s.mqtt.UnsubscribeClient(cl)
	cl.ClearInflights()
	s.mqtt.Clients.Delete(cl.ID)
	s.line.drop(cl.ID)
	s.budget.forget(cl.ID)
	s.forget(cl.ID)
	s.keep.session(cl.ID)
}

// ended finishes what mochi leaves of a connection that is closed.
func (s *serving) ended(c *conn) {
	defer s.endLeave(c)
	if c.held == nil {
		return
	}
	if cl, ok := s.mqtt.Clients.Get(c.held.id); ok && connOf(cl) == c && c.moving {
		s.putBack(cl, &c.window)
	}
	s.endMove(c)
	if !c.leaving {
		s.beginLeave(c)
	}
	s.line.detach(c.held, c, false)
	if cl, ok := s.mqtt.Clients.Get(c.held.id); ok && connOf(cl) == c && !persistent(cl) {
		s.endSession(cl)
	}
}

// maxSessions is how many sessions are known at once.
const maxSessions = 1024

// makeRoom ends the session that has been without its client for longest, if there are too many.
func (s *serving) makeRoom() {
	if s.mqtt.Clients.Len() < maxSessions {
		return
	}
	var oldest *mqtt.Client
	for _, cl := range s.mqtt.Clients.GetAll() {
		if t := cl.StopTime(); t != 0 && (oldest == nil || t < oldest.StopTime()) {
			oldest = cl
		}
	}
	if oldest != nil {
		s.b.refuse(refusedSession, "", "too many sessions: the one that was away for longest is forgotten", "client", oldest.ID, "limit", maxSessions)
		s.endSession(oldest)
	}
}

func (s *serving) connected() int { return int(atomic.LoadInt64(&s.mqtt.Info.ClientsConnected)) }

func (s *serving) isConnected(id string) bool {
	cl, ok := s.mqtt.Clients.Get(id)
	return ok && !cl.Closed()
}

// freeID returns a packet id under which nothing is on its way to a client.
func freeID(cl *mqtt.Client) uint16 {
	for id := uint16(65535); id > 1; id-- {
		if _, taken := cl.State.Inflight.Get(id); !taken {
			return id
		}
	}
	return 1
}
