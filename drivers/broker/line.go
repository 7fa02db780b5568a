package broker

import (
	"errors"
	"slices"
	"sync"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/perigee-iot/perigee/drivers"
)

// Bounds of what waits to be accepted and answered. Where one is reached the clients concerned are not read.
const (
	lineLen      = 64       // messages of a session; also the receive maximum that MQTT 5 clients are told
	lineBytes    = 2 << 20  // payload of a session; one message always fits
	allLen       = 8192     // messages of all sessions
	allBytes     = 32 << 20 // payload of all sessions
	releaseBound = 1024     // QoS 2 messages of a session that wait for their PUBREL
)

// pending is a message of QoS 1 or 2 between its arrival and its acknowledgement.
type pending struct {
	pk      packets.Packet
	s       *session
	arrived time.Time
	conn    *conn        // who gets the answer: the connection that sent it last; nil: nobody waits any more
	client  *mqtt.Client // of conn
	settled bool
	err     error // how it was settled
	kept    bool  // handed on, and stored for those who are away: it can be answered
	over    bool  // its session has ended: no repetition can come
}

// session is what the broker keeps about the messages from one client id.
type session struct {
	id    string
	order sync.Mutex // held from a message's arrival until it has been emitted: one at a time, in order

	// Guarded by line.mu.
	conn     *conn // the present one
	queue    []*pending
	passed   int // so many at the head of queue have been handed on
	byID     map[uint16]*pending
	received map[uint16]struct{} // PUBREC written, PUBREL not seen
	bytes    int
	draining bool
}

// line is the pending messages of all sessions.
type line struct {
	mu       sync.Mutex
	room     *sync.Cond // on mu: something left the line, or a connection ended
	sessions map[string]*session
	count    int
	bytes    int
	closed   bool
	work     sync.WaitGroup
	// pass hands a settled message on, and says whether it can be answered. If not yet, store follows.
	pass   func(p *pending) bool
	answer func(p *pending) // tells its sender
}

func newLine(pass func(p *pending) bool, answer func(p *pending)) *line {
	l := &line{sessions: map[string]*session{}, pass: pass, answer: answer}
	l.room = sync.NewCond(&l.mu)
	return l
}

func (l *line) pending() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.count
}

// attach makes c the connection of a session. clean forgets what the session's client no longer knows; messages that still
// wait are passed on when they are settled, but nobody is answered.
func (l *line) attach(id string, c *conn, clean bool) *session {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.sessions[id]
	if s == nil {
		s = &session{id: id, byID: map[uint16]*pending{}, received: map[uint16]struct{}{}}
		l.sessions[id] = s
	}
	s.conn = c
	if clean {
		s.forget()
	}
	return s
}

// forget drops the packet ids of a session. It needs line.mu.
func (s *session) forget() {
	for _, p := range s.byID {
		p.conn, p.over = nil, true
	}
	clear(s.byID)
	clear(s.received)
}

// detach ends c's use of its session; over says that the session has ended too.
func (l *line) detach(s *session, c *conn, over bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.conn != c {
		return
	}
	s.conn = nil
	if over {
		s.forget()
	}
	l.reap(s)
	l.room.Broadcast()
}

// drop forgets a session that is not connected.
func (l *line) drop(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := l.sessions[id]; s != nil && s.conn == nil {
		s.forget()
		l.reap(s)
	}
}

// reap removes a session about which nothing is left to know. It needs mu.
func (l *line) reap(s *session) {
	if s.conn == nil && len(s.queue) == 0 && !s.draining && len(s.received) == 0 && l.sessions[s.id] == s {
		delete(l.sessions, s.id)
	}
}

// verdict is what becomes of a message on arrival.
type verdict int

const (
	isNew    verdict = iota
	repeated         // it waits already
	known            // QoS 2, and its PUBREC has been written
	misused          // its id is in use for another message
	tooMany          // QoS 2 messages without PUBREL
	over             // the connection or the broker ended
)

// admit puts a message at the end of its session's line, and waits for room there. s.order is held.
func (l *line) admit(s *session, c *conn, cl *mqtt.Client, pk packets.Packet) (*pending, verdict) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		if l.closed || c.ctx.Err() != nil || s.conn != c {
			return nil, over
		}
		if v := s.judge(c, cl, pk); v != isNew {
			return nil, v
		}
		if l.fits(s, len(pk.Payload)) {
			break
		}
		l.room.Wait()
	}
	p := &pending{pk: pk, s: s, arrived: time.Now(), conn: c, client: cl}
	s.byID[pk.PacketID] = p
	s.queue = append(s.queue, p)
	s.bytes += len(pk.Payload)
	l.count++
	l.bytes += len(pk.Payload)
	return p, isNew
}

// judge compares a message with what is known about its packet id. It needs line.mu.
func (s *session) judge(c *conn, cl *mqtt.Client, pk packets.Packet) verdict {
	dup := pk.FixedHeader.Dup
	if pk.FixedHeader.Qos == 2 {
		if _, ok := s.received[pk.PacketID]; ok && dup {
			return known
		}
		delete(s.received, pk.PacketID) // without DUP the id is in new use: the PUBREL got lost with a session
		if len(s.received) >= releaseBound {
			return tooMany
		}
	}
	p := s.byID[pk.PacketID]
	switch {
	case p == nil:
		return isNew
	case dup && p.same(pk):
		p.conn, p.client = c, cl
		return repeated
	case p.conn == c:
		if p.same(pk) {
			return repeated
		}
		return misused
	default: // the client lost its session and counts anew: nobody waits for the old one
		p.conn = nil
		delete(s.byID, pk.PacketID)
		return isNew
	}
}

func (p *pending) same(pk packets.Packet) bool {
	return p.pk.TopicName == pk.TopicName && p.pk.FixedHeader.Qos == pk.FixedHeader.Qos && string(p.pk.Payload) == string(pk.Payload)
}

func (l *line) fits(s *session, n int) bool {
	if len(s.queue) == 0 && l.count < 2*allLen { // a session can always have one
		return true
	}
	return len(s.queue) < lineLen && s.bytes+n <= lineBytes && l.count < allLen && l.bytes+n <= allBytes
}

// wake makes those who wait for room look again.
func (l *line) wake() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.room.Broadcast()
}

// withdraw takes back a message that the gateway did not take, so that a repetition of it is new.
func (l *line) withdraw(p *pending) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := p.s
	if s.byID[p.pk.PacketID] == p {
		delete(s.byID, p.pk.PacketID)
	}
	if i := slices.Index(s.queue, p); i >= 0 && !p.settled {
		p.settled = true
		s.queue = slices.Delete(s.queue, i, i+1)
		l.left(p)
		l.move(s)
	}
}

// left ends the account of a message. It needs mu.
func (l *line) left(p *pending) {
	n := len(p.pk.Payload)
	p.s.bytes -= n
	l.bytes -= n
	l.count--
	l.room.Broadcast()
}

// move starts to hand on and to answer what can be, if nobody does. It needs mu.
func (l *line) move(s *session) {
	if l.closed || s.draining || s.ready() == nil {
		return
	}
	s.draining = true
	l.work.Go(func() { l.drain(s) })
}

// ready is the message of a session's line whose turn it is: the first, if it can be answered, or else the first that was not handed on, if it
// is settled. It needs line.mu.
func (s *session) ready() *pending {
	if s.passed > 0 && s.queue[0].kept {
		return s.queue[0]
	}
	if s.passed < len(s.queue) && s.queue[s.passed].settled {
		return s.queue[s.passed]
	}
	return nil
}

// settle records the fate of a message and sees to it that the line moves. It does not wait.
func (l *line) settle(p *pending, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p.settled || l.closed {
		return
	}
	p.settled, p.err = true, err
	l.move(p.s)
}

// settleHere settles a message that nobody but its reading goroutine knows, which does what follows itself.
func (l *line) settleHere(p *pending) {
	l.mu.Lock()
	p.settled = true
	s := p.s
	if l.closed || s.draining || s.queue[s.passed] != p {
		l.mu.Unlock()
		return
	}
	s.draining = true
	l.work.Add(1)
	l.mu.Unlock()
	defer l.work.Done()
	l.drain(s)
}

// keep says that a message which was handed on can be answered. It does not wait.
func (l *line) keep(p *pending) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p.kept = true
	l.move(p.s)
}

// drain hands on and answers, each in order, until it has to wait for either.
func (l *line) drain(s *session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for !l.closed {
		p := s.ready()
		if p == nil {
			break
		}
		if !p.kept {
			s.passed++
			l.mu.Unlock()
			kept := l.pass(p)
			l.mu.Lock()
			p.kept = p.kept || kept
			continue
		}
		s.queue[0] = nil
		s.queue = s.queue[1:]
		s.passed--
		l.mu.Unlock()
		l.answer(p)
		l.mu.Lock()
		l.left(p)
	}
	s.draining = false
	l.reap(s)
}

// finish takes the packet id of a message out of use, just before its answer is written. It returns who gets the answer, and
// whether the message's mark serves nothing any more.
func (l *line) finish(p *pending) (c *conn, cl *mqtt.Client, unmark bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p.s.byID[p.pk.PacketID] == p {
		delete(p.s.byID, p.pk.PacketID)
		if p.pk.FixedHeader.Qos == 2 && p.err == nil {
			p.s.received[p.pk.PacketID] = struct{}{}
		}
	}
	if p.over {
		unmark = true
		if s := l.sessions[p.s.id]; s != nil {
			_, used := s.byID[p.pk.PacketID]
			unmark = !used
		}
	}
	return p.conn, p.client, unmark
}

// release ends a QoS 2 message: its PUBREL came.
func (l *line) release(s *session, id uint16) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, ok := s.received[id]
	delete(s.received, id)
	return ok
}

// close stops the line: what is not settled by now stays unanswered. It returns when the last answer has been written.
func (l *line) close() {
	l.mu.Lock()
	l.closed = true
	l.room.Broadcast()
	l.mu.Unlock()
	l.work.Wait()
}

// refusedFor says whether an error settles a message as one that can never be accepted.
func refusedFor(err error) bool { return errors.Is(err, drivers.ErrRefused) }
