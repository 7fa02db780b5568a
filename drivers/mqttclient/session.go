package mqttclient

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"github.com/perigee-iot/perigee/drivers"
	"github.com/perigee-iot/perigee/internal/event"
	"github.com/perigee-iot/perigee/internal/topic"
)

const (
	// proofDelay is how long after an acknowledgement the broker is asked for proof that it read it. Until the proof
	// the engine keeps a mark.
	proofDelay = 2 * time.Second
	// proofFilter is unsubscribed for its UNSUBACK; nobody ever subscribes it.
	proofFilter = "$perigee/never/subscribed"
	// subscribeMost is how many filters go into one SUBSCRIBE or UNSUBSCRIBE.
	subscribeMost = 50
)

// session is one connection of one persistent session for events.
//
// A message is handed to the engine by the goroutine on which paho delivers it, and as long as the engine has no room
// nothing more is read: on this connection nothing is published, so nobody waits for what is not read. What the engine
// acknowledges is queued here, and one goroutine writes all that has gathered in one go, straight to the connection:
// paho's own Ack blocks on paho's writer and would cost a system call and three hand-overs each.
type session struct {
	c     *Client
	run   *run
	id    string
	slot  int
	exact atomic.Bool // copies of what lower slots get may be dropped
	link  *link
	wake  chan struct{} // something is to be written

	mu   sync.Mutex // guards what follows; never held while anything blocks
	acks []ack      // to write; bounded by the packet ids that there are
	held idSet      // delivered on this connection, not yet acknowledged

	proof   sync.Mutex // guards what follows; held while marks are forgotten
	unread  idSet      // acknowledged, and no proof asked for yet
	proving idSet      // covered by the request for proof that is under way
}

// ack is an acknowledgement to write: the type of its packet, and the id.
type ack struct {
	kind byte
	id   uint16
}

// openSession connects a session and starts its writer. Messages may arrive before it returns.
func (r *run) openSession(slot int) (*session, error) {
	s := &session{c: r.c, run: r, slot: slot, id: r.c.sessionID(slot), wake: make(chan struct{}, 1)}
	s.exact.Store(r.known) // else what it holds may be older than the lower ones' subscriptions
	l, err := r.c.connect(r.ctx, linkOptions{id: s.id, handle: s.deliver, large: s.tooLarge, failed: r.fail})
	if err != nil {
		return nil, err
	}
	s.link = l
	if !l.present {
		s.exact.Store(true)
		s.lost()
	}
	r.wg.Go(s.write)
	return s, nil
}

// lost does what is to be done when the broker does not know the session, before anything is subscribed again.
func (s *session) lost() {
	had := s.c.active[s.slot].Swap(nil)
	if s.c.opts.Marks != nil {
		s.c.opts.Marks.Forget(s.id, nil)
	}
	if had != nil && len(*had) > 0 {
		s.c.count(func(st *Status) { st.LostSessions++ })
		s.c.log.Warn("the broker has lost this gateway's session: messages since the last connection may be missing",
			"broker", s.c.target.url, "session", s.id)
	}
}

// deliver hands a message to the engine. paho calls it for one message after another.
func (s *session) deliver(m mqtt.Message) {
	qos, id := m.Qos(), m.MessageID()
	if topic.CheckName(m.Topic()) != nil {
		s.settle(qos, id)
		s.c.count(func(st *Status) { st.Malformed++ })
		return
	}
	if s.exact.Load() && s.c.lowerGets(s.slot, m.Topic()) {
		s.settle(qos, id)
		s.c.count(func(st *Status) { st.Copies++ })
		return
	}
	d := drivers.Delivery{Event: &event.Event{
		Source: "mqtt", Type: event.Message, Subject: m.Topic(), Topic: m.Topic(), Data: m.Payload(), Retained: m.Retained(),
	}}
	if qos > 0 {
		if !s.take(id, m.Duplicate()) {
			return
		}
		s.watchReuse(id, m.Duplicate())
		d.Mark, d.Again = drivers.Mark(s.id, id), m.Duplicate() && !s.c.reuses.Load()
		d.Ack = func(err error) {
			if err == nil || errors.Is(err, drivers.ErrRefused) {
				s.settle(qos, id)
			}
		}
	}
	if err := s.run.emit(s.run.ctx, d); err != nil {
		s.run.fail(fmt.Errorf("the gateway takes no more messages: %w", err))
	}
}

// take notes a message as held. It returns false for the repetition of one that this connection has already brought and
// that has no acknowledgement yet: that of the first settles both.
func (s *session) take(id uint16, again bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if again && s.held.has(id) {
		return false
	}
	s.held.add(id)
	return true
}

// watchReuse notices a broker that uses a packet id anew as soon as it has read its acknowledgement. Of such a one nobody can
// tell, after a lost connection, whether a message with DUP set is the old one or a new one with the same content that got lost
// on the way. All of its messages count as new then: rather twice than never. Brokers usually count up to 65535 first,
// long after the mark of an id has been dropped.
func (s *session) watchReuse(id uint16, again bool) {
	if again {
		return
	}
	s.proof.Lock()
	soon := s.unread.has(id) || s.proving.has(id)
	s.proof.Unlock()
	if soon && !s.c.reuses.Swap(true) {
		s.c.log.Warn("the broker uses packet ids anew at once, so that its repetitions cannot be told from new messages: after lost connections messages may come twice",
			"broker", s.c.target.url)
	}
}

// settle queues an acknowledgement. It does not block.
func (s *session) settle(qos byte, id uint16) {
	if qos == 0 {
		return
	}
	a := ack{typePuback, id}
	if qos == 2 {
		a.kind = typePubrec // paho answers the PUBREL by itself
	}
	s.mu.Lock()
	s.held.remove(id)
	s.acks = append(s.acks, a)
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// tooLarge settles a message that was skipped.
func (s *session) tooLarge(first byte, id uint16, name string, size int) {
	s.settle(first>>1&3, id)
	s.c.count(func(st *Status) { st.TooLarge++ })
	s.c.log.Warn("a message was too large and was dropped", "topic", name, "bytes", size, "limit", maxPacket)
}

// write is the session's own goroutine: it writes acknowledgements, keeps the connection alive, and asks for proof.
func (s *session) write() {
	beat := time.NewTicker(s.c.keepAlive / 4)
	defer beat.Stop()
	proof := time.NewTimer(proofDelay)
	proof.Stop()
	defer proof.Stop()
	var asked mqtt.Token
	var answer <-chan struct{}
	armed := false
	for {
		select {
		case <-s.run.ctx.Done():
			s.flush()
			return
		case <-s.wake:
			if s.flush() && !armed && answer == nil {
				proof.Reset(s.c.proofDelay)
				armed = true
			}
		case <-beat.C:
			s.link.conn.ping(s.c.keepAlive / 2)
		case <-proof.C:
			armed = false
			s.proof.Lock()
			s.proving, s.unread = s.unread, idSet{}
			s.proof.Unlock()
			asked = s.link.paho.Unsubscribe(proofFilter)
			answer = asked.Done()
		case <-answer:
			answer = nil
			if asked.Error() != nil {
				continue // the connection is ending
			}
			if s.proved() {
				proof.Reset(s.c.proofDelay)
				armed = true
			}
		}
	}
}

// flush writes the acknowledgements that have gathered, in the order in which they came. It returns whether there were any.
func (s *session) flush() bool {
	s.mu.Lock()
	acks := s.acks
	s.acks = nil
	s.mu.Unlock()
	if len(acks) == 0 {
		return false
	}
	s.proof.Lock()
	for _, a := range acks {
		s.unread.add(a.id)
	}
	s.proof.Unlock()
	b := make([]byte, 0, 4*len(acks))
	for _, a := range acks {
		b = append(b, a.kind, 2, byte(a.id>>8), byte(a.id))
	}
	_, _ = s.link.conn.Write(b) // an error ends the connection, and the broker sends again
	return true
}

// proved tells the engine which acknowledgements have been read, and returns whether others wait for their proof.
func (s *session) proved() bool {
	s.proof.Lock()
	defer s.proof.Unlock()
	var marks []string
	s.proving.each(func(id uint16) { marks = append(marks, drivers.Mark(s.id, id)) })
	s.proving = idSet{}
	if len(marks) > 0 && s.c.opts.Marks != nil {
		s.c.opts.Marks.Forget(s.id, marks)
	}
	return !s.unread.empty()
}

// subscribe adds filters and returns those that the broker refused. Any other problem ends the connection, since nobody knows
// then what is subscribed.
func (s *session) subscribe(ctx context.Context, subs map[string]sub) (refused []string, err error) {
	for part := range chunks(subs) {
		s.link.conn.codes.Store(int32(len(part)))
		token := s.link.paho.SubscribeMultiple(part, nil).(*mqtt.SubscribeToken)
		if err := s.await(ctx, token); err != nil {
			return refused, fmt.Errorf("subscribing: %w", err)
		}
		for f, code := range token.Result() {
			switch {
			case code > 2:
				refused = append(refused, f)
			case code < part[f]:
				s.c.log.Warn("the broker grants a lower QoS than asked for", "filter", f, "asked", part[f], "granted", code)
			}
		}
	}
	return refused, nil
}

// unsubscribe removes filters.
func (s *session) unsubscribe(ctx context.Context, filters []string) error {
	for len(filters) > 0 {
		n := min(len(filters), subscribeMost)
		if err := s.await(ctx, s.link.paho.Unsubscribe(filters[:n]...)); err != nil {
			return fmt.Errorf("unsubscribing: %w", err)
		}
		filters = filters[n:]
	}
	return nil
}

// await waits for a token, the end of its connection, or ctx.
func (s *session) await(ctx context.Context, t mqtt.Token) error {
	select {
	case <-t.Done():
		if t.Error() == nil {
			return nil
		}
		s.run.fail(t.Error())
	case <-s.run.ctx.Done():
	case <-ctx.Done():
		s.run.fail(fmt.Errorf("the broker has not answered: %w", ctx.Err())) // unless the run has ended anyway
	}
	return s.run.gone()
}

// lowerGets says whether a session of a lower slot gets the messages of a topic too.
func (c *Client) lowerGets(slot int, name string) bool {
	for i := range slot {
		if filters := c.active[i].Load(); filters != nil {
			for _, f := range *filters {
				if topic.Match(f, name) {
					return true
				}
			}
		}
	}
	return false
}

// chunks splits subscriptions into what one SUBSCRIBE carries, in paho's form.
func chunks(subs map[string]sub) iter.Seq[map[string]byte] {
	return func(yield func(map[string]byte) bool) {
		for part := range slices.Chunk(slices.Sorted(maps.Keys(subs)), subscribeMost) {
			m := make(map[string]byte, len(part))
			for _, f := range part {
				m[f] = subs[f].QoS
			}
			if !yield(m) {
				return
			}
		}
	}
}
