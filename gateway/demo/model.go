package demo

import (
	"slices"
	"sync"
	"time"
)

// model is all that is shown, at one moment. The view and the log are functions of it.
type model struct {
	Now       time.Time
	Edit      string // the file that a person is invited to change
	Gateway   childState
	Devices   []deviceRow
	Functions []functionRow
	Link      linkRow
	Proof     counts
	Feed      []line // oldest first
	Ending    string // what is waited for before the demo ends
}

// deviceRow is one device. History is what its sparkline shows, the newest last; a device that has no numbers has Text.
type deviceRow struct {
	Name    string
	Value   float64
	Unit    string
	Text    string
	History []float64
}

// functionRow is one function since the gateway's start.
type functionRow struct {
	Name   string
	State  string
	Runs   int64
	OK     int64
	P99    time.Duration
	CPU    time.Duration // of a run, mean
	Remark string
}

// linkRow is the connection to the cloud.
type linkRow struct {
	Cut     bool          // by hand
	For     time.Duration // how long it has been cut or whole
	Up      bool
	Waiting int64
	Sent    int64
	Rate    float64       // records a second
	Drain   time.Duration // estimate; negative: none
}

// line is one line of the feed: one event with what was decided and what it caused, or something that happened to the demo itself.
type line struct {
	ID   string // of the event; "" for what is none
	Time time.Time
	Kind string
	Text string
}

// The kinds of lines: they choose the colour, and what a plain log shows.
const (
	plain = ""     // an event that caused nothing but a result
	did   = "did"  // an event that caused something
	good  = "good" // something came right
	bad   = "bad"  // something went wrong
	you   = "you"  // somebody pressed a key
)

// maxFeed is how many lines are kept.
const maxFeed = 200

// board is where the parts of the demo put what they know, and the view takes it.
type board struct {
	mu      sync.Mutex
	m       model
	fresh   []line // for the log: not yet taken
	changed bool
}

// change applies fn to the model.
func (b *board) change(fn func(m *model)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	fn(&b.m)
	b.changed = true
}

// tell adds a line of the demo's own.
func (b *board) tell(kind, text string) { b.add(line{Time: time.Now(), Kind: kind, Text: text}) }

// add adds a line, or replaces the one of the same event.
func (b *board) add(l line) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.changed = true
	if i := b.index(l.ID); i >= 0 {
		l.Time = b.m.Feed[i].Time
		b.m.Feed[i] = l
	} else {
		b.m.Feed = append(b.m.Feed, l)
	}
	if n := len(b.m.Feed) - maxFeed; n > 0 {
		b.m.Feed = slices.Delete(b.m.Feed, 0, n)
	}
	if i := slices.IndexFunc(b.fresh, func(f line) bool { return l.ID != "" && f.ID == l.ID }); i >= 0 {
		b.fresh[i] = l
	} else if len(b.fresh) < maxFeed {
		b.fresh = append(b.fresh, l)
	}
}

// has says whether a line of that event is in the feed.
func (b *board) has(id string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.index(id) >= 0
}

func (b *board) index(id string) int {
	if id == "" {
		return -1
	}
	for i := len(b.m.Feed) - 1; i >= 0; i-- {
		if b.m.Feed[i].ID == id {
			return i
		}
	}
	return -1
}

// snapshot returns the model and whether it has changed since the last one.
func (b *board) snapshot() (model, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	m := b.m
	m.Devices, m.Functions, m.Feed = slices.Clone(m.Devices), slices.Clone(m.Functions), slices.Clone(m.Feed)
	changed := b.changed
	b.changed = false
	return m, changed
}

// take returns the lines since the last call.
func (b *board) take() []line {
	b.mu.Lock()
	defer b.mu.Unlock()
	fresh := b.fresh
	b.fresh = nil
	return fresh
}
