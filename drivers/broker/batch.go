package broker

import (
	mqtt "github.com/mochi-mqtt/server/v2"

	"github.com/perigee-iot/perigee/internal/store"
)

// batch is what one flush of the keeper writes, for those who wait for it.
type batch struct {
	done chan struct{} // closed when it is in an update of the store, or never will be
	err  error         // valid once done is closed
	held []func()      // called when the store has it for good; guarded by keeper.mu until the flush takes the batch
}

func newBatch() *batch { return &batch{done: make(chan struct{})} }

func (b *batch) end(err error) {
	b.err = err
	close(b.done)
}

// changes counts what somebody may wait for.
type changes struct {
	retained uint64 // messages set or removed
	queued   uint64 // messages that joined the queue of a persistent session
}

// queue notes that a message joined the queue of a session.
func (k *keeper) queue(cl *mqtt.Client) {
	if persistent(cl) {
		k.mu.Lock()
		k.changes.queued++
		k.mu.Unlock()
	}
	k.session(cl.ID)
}

// retained notes that a retained message has changed.
func (k *keeper) retained(name string) {
	k.mu.Lock()
	k.changes.retained++
	k.mu.Unlock()
	k.topic(name)
}

// taken notes that a subscriber has a message.
func (k *keeper) taken(id string) {
	k.session(id)
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.next.held) > 0 {
		k.hasten()
	}
}

// mark is what has changed until now, for since and holdSince.
func (k *keeper) mark() changes {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.changes
}

// since returns what will have written the changes after mark; nil if there were none, or nothing is kept.
func (k *keeper) since(mark changes) *batch {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.st == nil || k.changes == mark {
		return nil
	}
	k.hurryLocked()
	return k.next
}

// holdSince calls fn once what was queued after mark is in the store for good, or in the hands of its subscribers; never, if the broker stops
// first. It returns false, and does not call fn, if there is nothing to wait for. fn must not block.
func (k *keeper) holdSince(mark changes, fn func()) bool {
	k.mu.Lock()
	queued := k.st != nil && k.changes.queued != mark.queued
	k.mu.Unlock()
	if queued {
		k.hold([]func(){fn})
	}
	return queued
}

// hold adds to what the next flush lets go.
func (k *keeper) hold(held []func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.next.held = append(k.next.held, held...)
	k.hurryLocked()
	k.hasten()
}

// hurryLocked makes the next flush come soon, also where the last one has written all that has changed. It needs mu.
func (k *keeper) hurryLocked() {
	if len(k.topics)+len(k.sessions) == 0 {
		signal(k.wake)
	}
	signal(k.hurry)
}

// hasten ends the keeper's pause if nothing of what has changed is on its way any more: subscribers that are there take messages
// sooner than the disk would. It needs mu.
func (k *keeper) hasten() {
	for id := range k.sessions {
		if cl, ok := k.s.mqtt.Clients.Get(id); ok && cl.State.Inflight.Len() > 0 {
			return
		}
	}
	signal(k.now)
}

// letGo calls held when all that has been written until now is durable. If a part of it has been lost since lost was counted, it
// waits for the next flush, which writes that again.
func (k *keeper) letGo(held []func(), lost uint64) error {
	if len(held) == 0 {
		return nil
	}
	return k.st.Update(func(tx store.Tx) error {
		if k.wrote {
			tx.Urgent()
		}
		again := func() { k.hold(held) }
		tx.OnFail(func(error) { again() })
		tx.OnDurable(func() {
			k.mu.Lock()
			whole := k.lost == lost
			k.mu.Unlock()
			if !whole {
				again()
				return
			}
			for _, fn := range held {
				fn()
			}
		})
		return nil
	})
}
