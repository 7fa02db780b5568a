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
//   - A message that waits because the subscriber's receive maximum is used up is deleted from the in-flight table in
//     the moment in which it is sent at last. It is not sent again after a lost connection, and its acknowledgement does
//     not give the quota back, so that after as many such messages as the quota is large the subscriber gets nothing more.
//     note remembers them, restore puts them back before the client's next packet is looked at.
//   - On resuming a session everything in flight is sent at once, beyond the receive maximum. setAside keeps the rest back,
//     putBack queues it.
//   - What is in flight is sorted by the 16 low bits of its time in seconds, that is, not at all. Created is therefore not a
//     time here but a count, and is made small where a session resumes.
//   - A session that expires leaves its subscriptions behind: endSession.

// mend is a connection's part in it.
type mend struct {
	mu    sync.Mutex
	sent  []packets.Packet // by mochi, which has forgotten them
	later []packets.Packet // waits for the session to be resumed; for the reading goroutine
	again int              // how many are sent again on resuming; the same
}

func (m *mend) note(pk packets.Packet) {
	m.mu.Lock()
	defer m.mu.Unlock()
	pk.Expiry = 0
	m.sent = append(m.sent, pk)
}

// restore is called by the reading goroutine, which is also the one that makes mochi forget.
func (m *mend) restore(cl *mqtt.Client) {
	m.mu.Lock()
	sent := m.sent
	m.sent = nil
	m.mu.Unlock()
	for _, pk := range sent {
		cl.State.Inflight.Set(pk)
	}
}

// setAside prepares the messages on their way to old to be resumed by cl.
func (s *serving) setAside(old, cl *mqtt.Client, c *conn) {
	if oc := connOf(old); oc != nil {
		oc.mend.restore(old)
	}
	all := old.State.Inflight.GetAll(false)
	slices.SortFunc(all, func(a, b packets.Packet) int {
		if ra, rb := a.FixedHeader.Type != packets.Pubrel, b.FixedHeader.Type != packets.Pubrel; ra != rb {
			if rb {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.Created, b.Created)
	})
	at := len(all)
	if limit := int(cl.Properties.Props.ReceiveMaximum); limit > 0 {
		at = min(at, limit)
		c.mend.again = at
	}
	for i, pk := range all[:at] {
		pk.Created = int64(i + 1)
		old.State.Inflight.Set(pk)
	}
	for _, pk := range all[at:] {
		old.State.Inflight.Delete(pk.PacketID)
	}
	c.mend.later = all[at:]
}

// putBack queues what setAside kept back.
func (s *serving) putBack(cl *mqtt.Client, c *conn) {
	for range c.mend.again {
		cl.State.Inflight.DecreaseSendQuota()
	}
	for _, pk := range c.mend.later {
		pk.Expiry = -1 // mochi's mark for: as soon as there is quota
		cl.State.Inflight.Set(pk)
		s.budget.add(cl.ID, pk.PacketID, len(pk.Payload))
	}
	c.mend.later, c.mend.again = nil, 0
}

// endSession forgets a session whose client is not connected.
func (s *serving) endSession(cl *mqtt.Client) {
	s.mqtt.UnsubscribeClient(cl)
	cl.ClearInflights()
	s.mqtt.Clients.Delete(cl.ID)
	s.line.drop(cl.ID)
	s.budget.forget(cl.ID)
	s.keep.session(cl.ID)
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
