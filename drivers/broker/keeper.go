package broker

import (
	"errors"
	"fmt"
	"hash/maphash"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/perigee-iot/perigee/drivers"
	"github.com/perigee-iot/perigee/internal/store"
)

// keeper writes retained messages and sessions to the store. The hooks only say what has changed; a goroutine that
// sleeps while nothing does writes what is true by then. So a message that comes and goes in between costs nothing, no order of
// hooks can leave a stale value behind, and what could not be written is simply still to be written.
type keeper struct {
	s    *serving
	st   *store.Store // nil: nothing is kept
	seed maphash.Seed
	wake chan struct{} // something has changed, or somebody waits
	// hurry: somebody waits for what has changed.
	hurry chan struct{}
	// now: somebody waits, and nothing of what has changed is on its way to a subscriber any more.
	now  chan struct{}
	quit chan struct{}
	done chan struct{}

	mu       sync.Mutex
	topics   map[string]struct{} // changed
	sessions map[string]struct{} // changed
	unsure   map[string]struct{} // sessions of which it is not known what the store has
	lost     uint64              // how often a session joined them
	changes  changes             // until now
	next     *batch              // what the next flush will have written

	// The rest belongs to the goroutine.
	late  []*batch           // whose flush did not write all
	known map[string]*stored // sessions in the store
	wrote bool               // this flush changed the store
}

// stored is what the store has of a session.
type stored struct {
	head   uint64            // hash of its first record
	queued map[uint16]uint64 // packet ids, and what tells their states apart
}

const (
	keepLinger = 100 * time.Millisecond // after a change, for more of them
	keepSoon   = 20 * time.Millisecond  // the same, where somebody waits for it
	keepRetry  = 5 * time.Second        // after the store refused
	keepChunk  = 64                     // deletes in one update
)

func newKeeper(s *serving) *keeper {
	return &keeper{
		s: s, st: s.b.opts.Store, seed: maphash.MakeSeed(),
		wake: make(chan struct{}, 1), hurry: make(chan struct{}, 1), now: make(chan struct{}, 1),
		quit: make(chan struct{}), done: make(chan struct{}),
		topics: map[string]struct{}{}, sessions: map[string]struct{}{}, unsure: map[string]struct{}{},
		known: map[string]*stored{}, next: newBatch(),
	}
}

func (k *keeper) topic(name string) { k.changed(&k.topics, name) }

func (k *keeper) session(id string) { k.changed(&k.sessions, id) }

// changed is bounded by what there is to keep: topics that are retained, or were when the store was last written, and sessions.
func (k *keeper) changed(set *map[string]struct{}, name string) {
	if k.st == nil {
		return
	}
	k.mu.Lock()
	_, old := (*set)[name]
	(*set)[name] = struct{}{}
	k.mu.Unlock()
	if !old {
		signal(k.wake)
	}
}

// signal wakes who listens to c, now or next.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (k *keeper) start() { go k.run() }

// stop writes what is left, and waits.
func (k *keeper) stop() {
	close(k.quit)
	<-k.done
}

var errStopped = fmt.Errorf("the broker stopped before it had stored a message for those who are away: %w", drivers.ErrNotConnected)

func (k *keeper) run() {
	defer close(k.done)
	pause := time.NewTimer(0)
	<-pause.C
	defer func() {
		k.flush()
		k.mu.Lock()
		last := k.next
		k.mu.Unlock()
		for _, b := range append(k.late, last) {
			b.end(errStopped)
		}
	}()
	wait := keepLinger
	for {
		select {
		case <-k.quit:
			return
		case <-k.wake:
		}
		if !k.pause(pause, wait) {
			return
		}
		wait = keepLinger
		if !k.flush() {
			wait = keepRetry
		}
	}
}

// pause lets more changes gather, less long where somebody waits for them. It returns false when the broker stops.
func (k *keeper) pause(t *time.Timer, wait time.Duration) bool {
	t.Reset(wait)
	hurry, now := k.hurry, k.now
	if wait != keepLinger {
		hurry, now = nil, nil // the store has just refused
	}
	for {
		select {
		case <-k.quit:
			return false
		case <-hurry:
			t.Reset(keepSoon)
			hurry = nil
		case <-now:
			return true
		case <-t.C:
			return true
		}
	}
}

// flush writes what has changed, and says whether all of it could be written.
func (k *keeper) flush() bool {
	if k.st == nil {
		return true
	}
	k.mu.Lock()
	topics, sessions := k.topics, k.sessions
	k.topics, k.sessions = map[string]struct{}{}, map[string]struct{}{}
	for id := range k.unsure {
		delete(k.known, id)
	}
	clear(k.unsure)
	lost := k.lost
	k.late = append(k.late, k.next)
	k.next = newBatch()
	k.mu.Unlock()

	ok := true
	k.wrote = false
	for name := range topics {
		if err := k.writeTopic(name); err != nil {
			ok = k.failed(err) && ok
			k.topic(name)
		}
	}
	for id := range sessions {
		if err := k.writeSession(id); err != nil {
			ok = k.failed(err) && ok
			k.notWritten(id)
		}
	}
	if !ok {
		return false
	}
	var held []func() // what failed before has been written, too
	for _, b := range k.late {
		b.end(nil)
		held = append(held, b.held...)
	}
	k.late = nil
	if err := k.letGo(held, lost); err != nil {
		k.hold(held)
		return k.failed(err)
	}
	return true
}

func (k *keeper) failed(err error) bool {
	k.s.b.refuse(refusedStore, "", "retained messages and sessions cannot be stored now; they are kept in memory", "error", err)
	return false
}

// notWritten is also called by the store.
func (k *keeper) notWritten(id string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.unsure[id] = struct{}{}
	k.sessions[id] = struct{}{}
	k.lost++
	signal(k.wake)
}

// put writes or, with nil, deletes one key. fail is called if it is lost with its group. What is too big for the store is
// given up.
func (k *keeper) put(key, value []byte, fail func()) error {
	err := k.st.Update(func(tx store.Tx) error {
		if value == nil {
			tx.Delete(key)
		} else {
			tx.Put(key, value)
		}
		tx.OnFail(func(error) { fail() })
		return nil
	})
	k.wrote = true
	if errors.Is(err, store.ErrTooBig) {
		k.s.b.refuse(refusedStore, "big", "a message is too big for the store and will not survive a restart", "bytes", len(value), "error", err)
		return nil
	}
	return err
}

func topicKey(name string) []byte { return store.NewKey(store.Retained).String(name) }

func (k *keeper) writeTopic(name string) error {
	if strings.HasPrefix(name, mqtt.SysPrefix) {
		return nil
	}
	var value []byte
	if pk, ok := k.s.mqtt.Topics.Retained.Get(name); ok {
		value = encodePacket(pk)
	}
	return k.put(topicKey(name), value, func() { k.topic(name) })
}

func sessionKey(id string) store.Key { return store.NewKey(store.Sessions).String(id) }

// persistent says whether a session outlives its connection.
func persistent(cl *mqtt.Client) bool {
	if cl.Properties.ProtocolVersion == 5 {
		return cl.Properties.Props.SessionExpiryInterval > 0
	}
	return !cl.Properties.Clean
}

// snapshot is a session as it is now: its record and its messages; false if there is nothing to keep.
func (k *keeper) snapshot(id string) (head []byte, queue []packets.Packet, ok bool) {
	k.s.moving.RLock()
	defer k.s.moving.RUnlock()
	cl, ok := k.s.mqtt.Clients.Get(id)
	if !ok || !persistent(cl) {
		return nil, nil, false
	}
	return encodeSession(cl), cl.State.Inflight.GetAll(false), true
}

func (k *keeper) writeSession(id string) error {
	has := k.known[id]
	if has == nil {
		var err error
		if has, err = k.look(id); err != nil {
			return err
		}
		k.known[id] = has
	}
	head, queue, ok := k.snapshot(id)
	if !ok {
		if err := k.erase(id, has); err != nil {
			return err
		}
		delete(k.known, id)
		return nil
	}
	fail := func() { k.notWritten(id) }
	if sum := maphash.Bytes(k.seed, head); sum != has.head {
		if err := k.put(sessionKey(id).Uint(0), head, fail); err != nil {
			return err
		}
		has.head = sum
	}
	return k.writeQueue(id, queue, has, fail)
}

// stateOf tells the states of one packet id apart.
func stateOf(pk packets.Packet) uint64 { return uint64(pk.Created)<<4 | uint64(pk.FixedHeader.Type) }

func (k *keeper) writeQueue(id string, queue []packets.Packet, has *stored, fail func()) error {
	gone := maps.Clone(has.queued)
	for _, pk := range queue {
		delete(gone, pk.PacketID)
		state := stateOf(pk)
		if old, ok := has.queued[pk.PacketID]; ok && old == state {
			continue
		}
		if err := k.put(sessionKey(id).Uint(uint64(pk.PacketID)), encodePacket(pk), fail); err != nil {
			return err
		}
		has.queued[pk.PacketID] = state
	}
	for packet := range gone {
		if err := k.put(sessionKey(id).Uint(uint64(packet)), nil, fail); err != nil {
			return err
		}
		delete(has.queued, packet)
	}
	return nil
}

// look finds out what the store has of a session: nothing that could be relied on is known about states.
func (k *keeper) look(id string) (*stored, error) {
	has := &stored{queued: map[uint16]uint64{}}
	err := k.st.View(func(r store.Reader) error {
		return r.Scan(sessionKey(id), nil, func(key, _ []byte) bool {
			f := store.Parse(key)
			_ = f.String()
			if packet := f.Uint(); f.Err() == nil && packet > 0 {
				has.queued[uint16(packet)] = 0
			} else {
				has.head = 1 // there is one, and it will be written again
			}
			return true
		})
	})
	return has, err
}

// erase deletes all of a session.
func (k *keeper) erase(id string, has *stored) error {
	var keys [][]byte
	if has.head != 0 {
		keys = append(keys, sessionKey(id).Uint(0))
	}
	for packet := range has.queued {
		keys = append(keys, sessionKey(id).Uint(uint64(packet)))
	}
	for chunk := range slices.Chunk(keys, keepChunk) {
		err := k.st.Update(func(tx store.Tx) error {
			for _, key := range chunk {
				tx.Delete(key)
			}
			tx.OnFail(func(error) { k.notWritten(id) })
			return nil
		})
		k.wrote = true
		if err != nil {
			return err
		}
	}
	return nil
}

// load fills mochi from the store. Records that cannot be read are left out, and said so.
func (k *keeper) load() error {
	if k.st == nil {
		return nil
	}
	return k.st.View(func(r store.Reader) error {
		err := r.Scan(store.NewKey(store.Retained), nil, func(_, value []byte) bool {
			pk, err := decodePacket(value)
			if err != nil {
				k.unreadable("a retained message", err)
				return true
			}
			k.s.mqtt.Topics.RetainMessage(pk)
			k.s.retained.set(pk.TopicName, len(pk.Payload))
			k.counted(pk)
			return true
		})
		if err != nil {
			return err
		}
		var cl *mqtt.Client
		return r.Scan(store.NewKey(store.Sessions), nil, func(key, value []byte) bool {
			cl = k.loadSession(cl, key, value)
			return true
		})
	})
}

// loadSession reads one record; those of a session follow its first, which makes the client.
func (k *keeper) loadSession(cl *mqtt.Client, key, value []byte) *mqtt.Client {
	f := store.Parse(key)
	id, packet := f.String(), f.Uint()
	if f.Err() != nil {
		k.unreadable("a session's key", f.Err())
		return cl
	}
	if packet == 0 {
		return k.loadHead(id, value)
	}
	if cl == nil || cl.ID != id {
		k.session(id) // nothing to belong to: delete it
		return cl
	}
	pk, err := decodePacket(value)
	if err != nil {
		k.unreadable("a message of a session", err)
		return cl
	}
	pk.PacketID = uint16(packet)
	pk.Expiry = max(pk.Expiry, 0)
	cl.State.Inflight.Set(pk)
	k.known[id].queued[pk.PacketID] = stateOf(pk)
	k.s.budget.add(id, pk.PacketID, len(pk.Payload))
	if pk.FixedHeader.Type == packets.Publish {
		k.counted(pk)
	}
	return cl
}

func (k *keeper) loadHead(id string, value []byte) *mqtt.Client {
	cl := k.s.mqtt.NewClient(nil, "", id, false)
	subs, err := decodeSession(value, cl)
	if err != nil {
		k.unreadable("a session", err)
		k.session(id)
		return nil
	}
	name := string(cl.Properties.Username)
	if us := k.s.b.users.byName; us[name] == nil && (len(us) > 0 || name != "") {
		k.s.b.log.Info("broker: a session is forgotten, since its user is not in the configuration any more", "client", id, "user", name)
		k.session(id)
		return nil
	}
	cl.Stop(packets.ErrServerShuttingDown)
	for _, sub := range subs {
		k.s.mqtt.Topics.Subscribe(id, sub)
		cl.State.Subscriptions.Add(sub.Filter, sub)
	}
	atomic.AddInt64(&k.s.mqtt.Info.Subscriptions, int64(len(subs)))
	k.s.mqtt.Clients.Add(cl)
	k.known[id] = &stored{head: maphash.Bytes(k.seed, value), queued: map[uint16]uint64{}}
	return cl
}

// counted keeps the count of messages going on where it was.
func (k *keeper) counted(pk packets.Packet) {
	if pk.Created > k.s.order.Load() {
		k.s.order.Store(pk.Created)
	}
}

func (k *keeper) unreadable(what string, err error) {
	k.s.b.refuse(refusedStore, "load", what+" in the store cannot be read", "error", err)
}
