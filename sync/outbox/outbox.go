// Package outbox keeps streams: named, ordered, bounded queues of records for the cloud, on the gateway's store.
//
// # In
//
// The engine appends in the transaction that commits an invocation, so a record exists exactly if its outcome does. The
// sequence is assigned there too. A record becomes visible to the uplink only when its group is durable: nothing that a
// power cut could take back has left the box.
//
// # Out
//
// Each uplink has a [Queue], which hands out batches of its streams by priority. Handing out moves nothing: [Queue.Ack] deletes
// what the far side has acknowledged, and [Queue.Rewind] starts again behind that. So a record may be sent twice, and is never sent zero times.
//
// # Bounds
//
// A stream that reaches its size, or whose head reaches its age, drops records and puts one gap in their place, which
// is sent as they would have been: the receiver learns which sequences are missing, and why. Gaps that touch become one. What the far side
// refuses for good goes to a quarantine and leaves a gap as well. What the store itself has lost, a reader notices by the missing positions.
package outbox

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/perigee-iot/perigee/internal/store"
	"github.com/perigee-iot/perigee/sync/record"
)

// MaxStreams is how many streams there can be.
const MaxStreams = 256

// Record is what a function appends. Data is JSON; Append keeps it compact.
type Record struct {
	EventID  string
	Function string
	Key      string
	Time     time.Time
	TimeOK   bool          // the clock was synchronised then
	Boot     uint32        // if it was not: the machine's boot, and how long it had been up; 0: unknown
	Up       time.Duration // since that boot
	Data     []byte
}

// Options of Open.
type Options struct {
	Gateway string            // the gateway's id, part of every identity
	Uplink  string            // of streams that name none; "": they wait
	Streams map[string]Config // those that differ from the defaults
	// Now is the gateway's clock for retain.age. It must not jump with the wall clock, or a box that boots in the past
	// takes its records for old; nil: the process's start and the monotonic time since.
	Now func() time.Time
	// Right corrects the time of a record from before the clock was synchronised, if that is known by the time that the record is sent; nil: it
	// stays as it was.
	Right func(r *Record)
	Log   *slog.Logger // slog.Default()
}

// Outbox is all streams of a gateway. Its methods may be called from any goroutine, Append only inside store.Update.
type Outbox struct {
	st      *store.Store
	gateway string
	now     func() time.Time
	right   func(r *Record)
	log     *slog.Logger

	mu      sync.Mutex // guards everything below; held for moments only
	uplink  string
	configs map[string]Config
	streams map[string]*stream
	queues  map[string]*Queue
}

// stream is what memory knows of a stream: what is durable, and how far its queue is. What must survive stands in meta.
type stream struct {
	name     string
	cfg      Config
	head     uint64    // positions below are durable
	edits    uint64    // gaps with a higher edit are not durable yet, and not sent
	blocked  uint64    // the edit that the queue waits for; 0: none
	read     uint64    // highest position handed out since the last Rewind; 0: none
	sent     uint64    // highest position ever handed out
	turn     uint64    // rises with every Rewind
	due      time.Time // when what is unread is sent, if it does not fill a batch before; zero: nothing is unread
	hurry    uint64    // positions up to here do not linger
	expires  time.Time // before then nothing of the stream can be too old
	appended int64     // since the start
	credit   int       // of the queue's turn-taking

	fresh, freshBytes int // records and bytes that became durable and are unread, at most
}

// Open reads the streams that the store has. What it finds is durable.
func Open(st *store.Store, o Options) (*Outbox, error) {
	if err := record.Name(o.Gateway); err != nil {
		return nil, fmt.Errorf("the gateway's id: %w", err)
	}
	if o.Now == nil {
		start := time.Now()
		o.Now = func() time.Time { return start.Add(time.Since(start)) }
	}
	if o.Right == nil {
		o.Right = func(*Record) {}
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	b := &Outbox{
		st: st, gateway: o.Gateway, now: o.Now, right: o.Right, log: o.Log,
		streams: map[string]*stream{}, queues: map[string]*Queue{},
	}
	if err := b.Configure(o.Uplink, o.Streams); err != nil {
		return nil, err
	}
	if err := b.load(); err != nil {
		return nil, fmt.Errorf("read the streams: %w", err)
	}
	return b, nil
}

// Configure replaces the configuration of all streams. On an error nothing changes.
func (o *Outbox) Configure(uplink string, streams map[string]Config) error {
	filled := map[string]Config{}
	for name, c := range streams {
		if err := record.Name(name); err != nil {
			return fmt.Errorf("stream: %w", err)
		}
		c = c.Filled()
		if err := c.Check(); err != nil {
			return fmt.Errorf("stream %s: %w", name, err)
		}
		filled[name] = c
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.uplink, o.configs = uplink, filled
	for _, s := range o.streams {
		old := s.cfg.Uplink
		s.cfg = o.config(s.name)
		s.expires = time.Time{}
		if s.cfg.Uplink != old {
			s.rewind()
		}
	}
	for _, q := range o.queues {
		q.signal()
	}
	return nil
}

// config is a stream's configuration. It needs mu.
func (o *Outbox) config(name string) Config {
	c, ok := o.configs[name]
	if !ok {
		c = Config{}.Filled()
	}
	if c.Uplink == "" {
		c.Uplink = o.uplink
	}
	return c
}

// stream returns the stream of that name and makes it if need be.
func (o *Outbox) stream(name string) (*stream, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if s, ok := o.streams[name]; ok {
		return s, nil
	}
	if err := record.Name(name); err != nil {
		return nil, fmt.Errorf("stream: %w", err)
	}
	if len(o.streams) >= MaxStreams {
		return nil, fmt.Errorf("stream %s: there are %d streams already, no more are allowed", name, MaxStreams)
	}
	s := &stream{name: name, cfg: o.config(name), head: 1}
	o.streams[name] = s
	return s, nil
}

// Append adds a record to a stream, as part of the update tx, and returns its sequence. Retention may drop older records
// for it, or the record itself. An error that wraps record.ErrBad is about the record; any other is the store's.
func (o *Outbox) Append(tx store.Tx, name string, r Record) (seq uint64, err error) {
	if r.Function == "" {
		return 0, fmt.Errorf("stream %s: %w: it has no function", name, record.ErrBad)
	}
	if err := record.CheckText(r.EventID, r.Function, r.Key); err != nil {
		return 0, fmt.Errorf("stream %s: %w", name, err)
	}
	if r.Data, err = record.Normalize(r.Data); err != nil {
		return 0, fmt.Errorf("stream %s: %w", name, err)
	}
	s, err := o.stream(name)
	if err != nil {
		return 0, err
	}
	m, err := readMeta(tx, name)
	if err != nil {
		return 0, err
	}
	g := m.current(o.gateway, o.st.Epoch())
	p := m.next
	m.next++
	value := encodeRecord(o.now(), &r)
	size := int64(len(recordKey(name, p)) + len(value))
	fits, err := o.makeRoom(tx, s, m, size)
	if err != nil {
		return 0, err
	}
	if fits {
		tx.PutNew(recordKey(name, p), value)
		m.count++
		m.bytes += size
	} else if err := o.dropNewest(tx, s, m, p); err != nil {
		return 0, err
	}
	tx.Put(metaKey(name), m.encode())
	tx.OnDurable(func() { o.durable(s, p, int(size)) })
	return g.sequence(p), nil
}

// durable makes a record visible to its queue.
func (o *Outbox) durable(s *stream, p uint64, size int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	s.head = max(s.head, p+1)
	s.fresh++
	s.freshBytes += size
	s.appended++
	if s.due.IsZero() {
		s.due = time.Now().Add(max(s.cfg.Batch.Linger, 0))
	}
	if q := o.queues[s.cfg.Uplink]; q != nil {
		q.signal()
	}
}

func readMeta(r store.Reader, name string) (*meta, error) {
	b, ok, err := r.Get(metaKey(name))
	if err != nil {
		return nil, fmt.Errorf("stream %s: %w", name, err)
	}
	if !ok {
		return &meta{first: 1, next: 1}, nil
	}
	m, err := decodeMeta(b)
	if err != nil {
		return nil, fmt.Errorf("stream %s: %w", name, err)
	}
	return m, nil
}

// update is store.Update that runs again if the group before it was dropped: an update of the outbox only looks at what there is.
func (o *Outbox) update(fn func(tx store.Tx) error) error {
	for range 10 {
		err := o.st.Update(fn)
		if !errors.Is(err, store.ErrDropped) {
			return err
		}
	}
	return o.st.Update(fn)
}

// Status is a stream at a glance.
type Status struct {
	Name, Uplink, Priority string
	Epoch                  string            // of the newest record
	First                  uint64            // oldest sequence of that epoch that is kept
	Next                   uint64            // sequence of the next record
	Acked                  uint64            // highest sequence of that epoch that was acknowledged
	Waiting                int64             // records and gaps, not yet durable ones too
	Bytes                  int64             // of what waits, as stored
	Oldest                 time.Duration     // age of the oldest record that waits
	Dropped                int64             // by retention or damage, since the stream exists
	Reasons                map[string]uint64 // the same by reason, and what was refused
	Quarantined            int64             // records in quarantine
	Appended               int64             // since the start
}

// Status returns all streams, by name.
func (o *Outbox) Status() ([]Status, error) {
	o.mu.Lock()
	list := make([]Status, 0, len(o.streams))
	for _, s := range o.streams {
		list = append(list, Status{Name: s.name, Uplink: s.cfg.Uplink, Priority: s.cfg.Priority, Appended: s.appended})
	}
	o.mu.Unlock()
	slices.SortFunc(list, func(a, b Status) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	err := o.st.View(func(r store.Reader) error {
		for i := range list {
			if err := o.fill(r, &list[i]); err != nil {
				return err
			}
		}
		return nil
	})
	return list, err
}

func (o *Outbox) fill(r store.Reader, s *Status) error {
	m, err := readMeta(r, s.Name)
	if err != nil {
		return err
	}
	g := m.segment(m.next)
	s.Epoch = g.epoch
	if g.epoch == "" {
		s.Epoch = o.st.Epoch()
	}
	s.First, s.Next = g.sequence(max(m.first, g.start)), g.sequence(m.next)
	if m.acked >= g.start {
		s.Acked = g.sequence(m.acked)
	}
	s.Waiting, s.Bytes, s.Quarantined = int64(m.count), m.bytes, int64(m.held)
	s.Reasons = m.dropped.reasons()
	s.Dropped = int64(m.dropped.full + m.dropped.age + m.dropped.damaged)
	return r.Scan(recordPrefix(s.Name), after(s.Name, m.first), func(_, value []byte) bool {
		it, err := decodeItem(value)
		if err != nil || it.gap != nil {
			return true
		}
		s.Oldest = max(o.now().Sub(it.at), 0)
		return false
	})
}

// after is the key behind which a scan finds position p first. Scans never start at the prefix: what was deleted there costs.
func after(stream string, p uint64) []byte {
	if p == 0 {
		return nil
	}
	return recordKey(stream, p-1)
}
