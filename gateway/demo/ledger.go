package demo

import "sync"

// ledger keeps the books of the proof. It believes nobody but the receivers: accepted is what the gateway has
// acknowledged to the client that sent it, committed is what has arrived at the cloud. Numbers run from 1 without holes; one bit each
// is what the ledger keeps of them.
type ledger struct {
	mu        sync.Mutex
	accepted  bits // acknowledged to the sender
	arrived   bits // at the cloud
	published bits // at the subscriber
	ids       map[uint64]string
	oldest    uint64 // the lowest number in ids

	highest uint64 // that has arrived at the cloud
	counts  counts
	drained bool // nothing waits any more: what has not arrived is lost
}

// counts are the numbers of the proof.
type counts struct {
	Accepted  int64 // numbers acknowledged with a PUBACK
	Committed int64 // numbers that have arrived at the cloud
	Lost      int64 // accepted, and not arrived though a later one has
	Doubled   int64 // numbers that arrived as two different records, or two different messages
	Published int64 // numbers that have arrived at the subscriber
	Repeats   int64 // messages that came again with the same id, so that a receiver can drop them
	Waiting   int64 // accepted, and neither arrived nor lost
}

// keepIDs is of how many messages the ledger remembers the id, to tell a repeat from a double.
const keepIDs = 1 << 14

func newLedger() *ledger { return &ledger{ids: map[uint64]string{}, oldest: 1} }

// accept notes that the gateway has acknowledged n.
func (l *ledger) accept(n uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.accepted.set(n) {
		return
	}
	l.counts.Accepted++
	if n < l.highest && !l.arrived.has(n) {
		l.counts.Lost++
	}
}

// arrive notes a record of n at the cloud. Each call is a record with an identity of its own.
func (l *ledger) arrive(n uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.arrived.set(n) {
		l.counts.Doubled++
		return
	}
	l.counts.Committed++
	if n < l.highest {
		if l.accepted.has(n) {
			l.counts.Lost-- // it was only late
		}
		return
	}
	for m := l.highest + 1; m < n; m++ {
		if l.accepted.has(m) {
			l.counts.Lost++
		}
	}
	l.highest = n
}

// hear notes a message about n at the subscriber.
func (l *ledger) hear(n uint64, id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.published.set(n) {
		if was, known := l.ids[n]; known && was != id {
			l.counts.Doubled++
		} else {
			l.counts.Repeats++
		}
		return
	}
	l.counts.Published++
	l.ids[n] = id
	for ; len(l.ids) > keepIDs; l.oldest++ {
		delete(l.ids, l.oldest)
	}
}

// drain says that nothing is on its way any more: what has been accepted and has not arrived is lost.
func (l *ledger) drain() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.drained = true
}

// read returns the counts as they are now.
func (l *ledger) read() counts {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.counts
	for n := l.highest + 1; n <= l.accepted.top; n++ {
		if l.accepted.has(n) {
			c.Waiting++
		}
	}
	if l.drained {
		c.Lost, c.Waiting = c.Lost+c.Waiting, 0
	}
	return c
}

// bits is a set of numbers.
type bits struct {
	words []uint64
	top   uint64 // the highest number in it
}

// maxNumber bounds what the set holds, 128 MiB of bits: at fifty a second, two hundred days.
const maxNumber = 1 << 30

// set adds n and says whether it was there before.
func (b *bits) set(n uint64) (before bool) {
	if n >= maxNumber {
		return true
	}
	for uint64(len(b.words)) <= n/64 {
		b.words = append(b.words, 0)
	}
	before = b.has(n)
	b.words[n/64] |= 1 << (n % 64)
	b.top = max(b.top, n)
	return before
}

func (b *bits) has(n uint64) bool {
	return n/64 < uint64(len(b.words)) && b.words[n/64]&(1<<(n%64)) != 0
}
