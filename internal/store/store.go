// Package store is the gateway's one durable memory: ordered keys and values in Badger, written in groups.
//
// # One writer
//
// All changes go through [Store.Update]. The functions given to it run one at a time and see every earlier update,
// whether that is on disk yet or not, so that whoever comes next need not wait for the disk. Their writes join the
// open group: a set of updates that is committed in one Badger transaction and, under [Power], followed by one sync.
// A group is all or nothing; group n+1 is not committed before the sync of group n has returned, because Badger's
// Sync reaches only the active memtable's log.
//
// Nothing may leave the box on the strength of an update before its group is durable: [Tx.OnDurable] says when.
//
// # Failure
//
// When a group cannot be committed, it and the group that was being filled meanwhile (which may have read from it)
// are dropped, every OnFail of theirs is called, and reads see the state from before. The callers run again what they
// did. No update begins before the last OnFail has returned, so that whoever is in one knows of every drop before it.
// A failed sync breaks the store for good, since nobody can know what reached the disk: every later Update returns
// [ErrBroken], and the gateway must end and start anew.
package store

import (
	"errors"
	"log/slog"
	"time"
)

// Durability says what a durable update survives.
type Durability int

const (
	Power Durability = iota // a power cut: synced before it is called durable
	Crash                   // the death of the process, not a power cut
)

var (
	// ErrFull: the free space of the file system is below Options.MinFree. Sources hold back and try again.
	ErrFull = errors.New("the disk is full")
	// ErrBroken: a sync failed; the gateway must end.
	ErrBroken = errors.New("the store is broken")
	// ErrClosed: the store was closed.
	ErrClosed = errors.New("the store is closed")
	// ErrLocked: another process has the directory open.
	ErrLocked = errors.New("another process uses the data directory")
	// ErrDropped: a group could not be written, and this update was in it or had read from it. Run again what made it.
	ErrDropped = errors.New("the group was dropped")
	// ErrDamaged: the files of the store cannot be read.
	ErrDamaged = errors.New("the store is damaged")
	// ErrNewer: the store was written by a newer version of Perigee.
	ErrNewer = errors.New("the store was written by a newer version")
	// ErrTooBig: one update wrote more than fits a transaction. Nothing of it was written.
	ErrTooBig = errors.New("too much for one transaction")
)

// Options of Open. The zero value of each field means the default given with it.
type Options struct {
	Durability Durability
	Linger     time.Duration // how long a group in which nobody waits may wait for more; 50 ms, negative: not at all
	Profile    string        // "small", "normal", or "auto" (small under 1 GiB of memory and on 32 bits)
	MinFree    int64         // bytes; 64 MiB
	SetAside   bool          // move a damaged store out of the way and begin a new one, with a new epoch
	Key        []byte        // encrypts the store and its backups, KeyBytes long; nil: they are plain
	OldKey     []byte        // the store takes Key over if it has this one
	Log        *slog.Logger  // slog.Default()

	// Fault, if not nil, is asked before each group is written, and an error drops the group: for tests of what
	// builds on the store, since real disks fail too rarely.
	Fault func() error
}

// Stats says how the store is doing. Counts are since Open.
type Stats struct {
	Profile      string   // "small" or "normal"
	Durability   string   // "power" or "crash"
	Updates      int64    // that joined a group
	Groups       int64    // committed
	Syncs        int64    // of the disk
	Dropped      int64    // groups that could not be written
	BytesWritten int64    // of keys and values, as given to Put and Delete
	Bytes        int64    // that the store takes on the disk
	Free         int64    // of the file system
	Full         bool     // updates that add are refused
	Unclean      bool     // the store was not closed the last time: the power failed, or the gateway was killed
	SetAside     string   // where Open moved a damaged store, empty if it did not
	Salvaged     Salvaged // what it took over from that
	Lost         string   // what Open found missing of what was written last, empty if nothing: the epoch is a new one then
}

// Reader reads keys. Values are valid until the function that got the Reader returns.
type Reader interface {
	// Get returns a key's value and whether it is there.
	Get(key []byte) (value []byte, ok bool, err error)
	// Scan calls fn for every key that begins with prefix and is greater than after (nil: from the first), in
	// ascending order, until fn returns false.
	Scan(prefix, after []byte, fn func(key, value []byte) bool) error
}

// Tx is one update in the making: it reads everything earlier and its own writes. It is valid only inside the function given to Update.
type Tx interface {
	Reader
	// Put sets a key. The store keeps neither slice.
	Put(key, value []byte)
	// PutNew is Put for a key that is not in the store. If it is deleted again before its group is written, neither is
	// ever written: that is how an event whose outcome follows at once costs no inbox entry.
	PutNew(key, value []byte)
	// Delete removes a key; removing an absent one is fine.
	Delete(key []byte)
	// Size is how many bytes of keys and values the update has put or deleted so far.
	Size() int64
	// Urgent says that somebody waits for this update: its group does not linger.
	Urgent()
	// Soon says that somebody waits, and that more is about to come: its group lingers for a millisecond at most.
	Soon()
	// OnJoin registers what happens when the update has joined its group, before another update begins or the group is
	// written: for what is kept in memory beside the keys, and must not be there if the update is refused. It must not
	// call the store.
	OnJoin(fn func())
	// OnDurable registers what happens once the group is durable. All of a group's functions are called from one
	// goroutine, in the order in which they were registered; they must not block and not call Update.
	OnDurable(fn func())
	// OnFail registers what happens if the group is dropped instead, under the same rules. All of them have returned
	// before the next update begins.
	OnFail(fn func(err error))
}
