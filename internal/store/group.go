package store

import (
	"strings"
)

// entry is a key's newest value within an overlay.
type entry struct {
	value   []byte
	deleted bool
	fresh   bool // put by PutNew: below this overlay the key does not exist
}

// overlay is a set of writes over what lies below it, one entry a key.
type overlay struct {
	entries map[string]entry
	size    size
}

// size is what an overlay asks of Badger and of memory.
type size struct {
	count int   // entries
	cost  int64 // as Badger counts towards its largest transaction
	bytes int64 // of keys and values
}

func (s size) plus(t size) size {
	return size{s.count + t.count, s.cost + t.cost, s.bytes + t.bytes}
}

func (s size) within(limit size) bool {
	return s.count <= limit.count && s.cost <= limit.cost && s.bytes <= limit.bytes
}

// Badger's own arithmetic (Txn.checkSize): the key, two meta bytes, ten for the version, and the value, or a pointer of
// twelve bytes to it if it goes to the value log.
const (
	costOfEntry   = 2 + 10
	costOfPointer = 12
)

func sizeOf(key string, e entry) size {
	cost := int64(len(key)) + costOfEntry
	if len(e.value) < valueThreshold {
		cost += int64(len(e.value))
	} else {
		cost += costOfPointer
	}
	return size{1, cost, int64(len(key) + len(e.value))}
}

func newOverlay() overlay { return overlay{entries: map[string]entry{}} }

func (o *overlay) remove(key string) {
	if old, ok := o.entries[key]; ok {
		s := sizeOf(key, old)
		o.size = size{o.size.count - s.count, o.size.cost - s.cost, o.size.bytes - s.bytes}
		delete(o.entries, key)
	}
}

func (o *overlay) set(key string, e entry) {
	o.remove(key)
	o.entries[key] = e
	o.size = o.size.plus(sizeOf(key, e))
}

// put writes a value. fresh is believed only if the overlay itself knows nothing of the key.
func (o *overlay) put(key string, value []byte, fresh bool) {
	if old, ok := o.entries[key]; ok {
		fresh = old.fresh
	}
	o.set(key, entry{value: value, fresh: fresh})
}

// del removes a key: without a trace if it did not exist below.
func (o *overlay) del(key string) {
	if o.entries[key].fresh {
		o.remove(key)
		return
	}
	o.set(key, entry{deleted: true})
}

// merge lays another overlay, whose writes are newer, over this one.
func (o *overlay) merge(top *overlay) {
	for key, e := range top.entries {
		if e.deleted {
			o.del(key)
		} else {
			o.put(key, e.value, e.fresh)
		}
	}
}

// collect adds to into the entries whose keys begin with prefix and are greater than after, except those that are there.
func (o *overlay) collect(prefix, after string, into map[string]entry) {
	for key, e := range o.entries {
		if !strings.HasPrefix(key, prefix) || (after != "" && key <= after) {
			continue
		}
		if _, ok := into[key]; !ok {
			into[key] = e
		}
	}
}

// group is a set of updates that is committed as one.
type group struct {
	overlay
	urgent    bool
	soon      bool // due has been brought forward
	updates   int64
	onDurable []func()
	onFail    []func(error)
	done      chan struct{} // closed when the group is durable or dropped, and its functions have returned
	err       error         // why it was dropped; valid once done is closed
}

func newGroup() *group { return &group{overlay: newOverlay(), done: make(chan struct{})} }

// empty says whether there is nothing to do for the group at all.
func (g *group) empty() bool {
	return len(g.entries) == 0 && len(g.onDurable) == 0 && len(g.onFail) == 0
}

func (g *group) finish(err error) {
	g.err = err
	if err != nil {
		for _, fn := range g.onFail {
			fn(err)
		}
	} else {
		for _, fn := range g.onDurable {
			fn()
		}
	}
	close(g.done)
}
