package mqttclient

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/perigee-iot/perigee/drivers"
	"github.com/perigee-iot/perigee/internal/topic"
)

// Client is an external broker as the gateway's local broker. It implements drivers.Broker.
type Client struct {
	opts       Options
	target     *target
	keepAlive  time.Duration
	patience   time.Duration // with a broker that accepts a connection and says nothing; connectTimeout
	proofDelay time.Duration
	log        *slog.Logger

	// active are the filters that each session has acknowledged, for telling copies apart.
	active [maxSessions]atomic.Pointer[[]string]

	reuses atomic.Bool // the broker uses packet ids anew too soon for marks to mean anything

	changing sync.Mutex // one change of subscriptions at a time; guards memory and a run's sessions. Taken before mu
	memory   *memory

	mu     sync.Mutex // guards what follows; never held while anything blocks
	want   []drivers.Filter
	run    *run // nil while there is no connection
	status Status
}

// Status is the client at a glance. The numbers count since New.
type Status struct {
	URL          string // without user and password
	Connected    bool
	LastError    string   // why there is no connection, or why the last one ended
	Connects     int64    // connections to the broker that came up
	LostSessions int64    // sessions that the broker had forgotten: what was published meanwhile is missing
	Sessions     int      // sessions for events that are open
	Refused      []string // filters that the broker does not let this gateway subscribe
	Copies       int64    // messages that two sessions got, so that one was dropped
	TooLarge     int64    // messages above 1 MiB, dropped
	Malformed    int64    // messages with a topic that MQTT forbids, dropped
}

// New checks the options and returns a client that is not connected yet: Run connects it.
func New(o Options) (*Client, error) {
	t, err := parseTarget(o)
	if err != nil {
		return nil, err
	}
	if o.ClientID == "" {
		return nil, errors.New("the connection to the broker has no client id")
	}
	c := &Client{opts: o, target: t, keepAlive: o.KeepAlive.Round(time.Second), proofDelay: proofDelay, patience: connectTimeout, log: o.Log}
	if c.keepAlive <= 0 {
		c.keepAlive = 30 * time.Second
	}
	c.keepAlive = min(c.keepAlive, math.MaxUint16*time.Second)
	if c.log == nil {
		c.log = slog.Default()
	}
	c.status.URL = t.url
	if c.memory, err = openMemory(o.Dir, t.url, o.ClientID); err != nil {
		c.log.Warn("messages may come twice until the subscriptions have settled", "error", err)
	}
	for i := range c.active {
		c.setActive(i, c.memory.Sessions.filters(i))
	}
	return c, nil
}

// InProcess is false: what is published comes back through Run if it is subscribed.
func (c *Client) InProcess() bool { return false }

// Connected says whether the broker is connected and everything is subscribed.
func (c *Client) Connected() bool { return c.Status().Connected }

// Status returns the client at a glance.
func (c *Client) Status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.status
	s.Refused = slices.Clone(s.Refused)
	return s
}

func (c *Client) count(fn func(*Status)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fn(&c.status)
}

// sessionID is the client id, and the name for marks, of a slot's session.
func (c *Client) sessionID(slot int) string {
	if slot == 0 {
		return c.opts.ClientID
	}
	return fmt.Sprintf("%s-in%d", c.opts.ClientID, slot+1)
}

func (c *Client) setActive(slot int, filters []string) { c.active[slot].Store(&filters) }

// slots is how many sessions may be used. Without a memory there is one: two would bring duplicates, or lose messages,
// after a restart.
func (c *Client) slots() int {
	if c.opts.Dir == "" {
		return 1
	}
	return maxSessions
}

// run is one life of the connections: what ends one of them ends all.
type run struct {
	c      *Client
	ctx    context.Context // ends with the connections; its cause says why
	cancel context.CancelCauseFunc
	emit   drivers.Emit
	wg     sync.WaitGroup // the sessions' writers

	out      *publisher
	sessions [maxSessions]*session // guarded by Client.changing, as is refused
	refused  []string              // filters that the broker did not grant at the last change
	known    bool                  // what the sessions were subscribed to at the start was known
}

// links returns the connections that were opened.
func (r *run) links() (all []*link) {
	if r.out != nil {
		all = append(all, r.out.link)
	}
	for _, s := range r.sessions {
		if s != nil {
			all = append(all, s.link)
		}
	}
	return all
}

// fail ends the run; the first reason counts.
func (r *run) fail(err error) { r.cancel(err) }

// gone is the error of whoever depended on a run that has ended.
func (r *run) gone() error {
	return fmt.Errorf("%w to the broker at %s: %w", drivers.ErrNotConnected, r.c.target.url, context.Cause(r.ctx))
}

// Run connects, subscribes what is wanted, and emits messages until ctx ends or a connection is lost. All errors but that of a
// broker that talks nonsense wrap drivers.ErrNotConnected; a RefusedError need not be tried again soon.
func (c *Client) Run(ctx context.Context, emit drivers.Emit) error {
	r := &run{c: c, emit: emit}
	r.ctx, r.cancel = context.WithCancelCause(ctx)
	err := c.open(r)
	if err == nil {
		c.log.Info("connected to the broker", "broker", c.target.url)
		<-r.ctx.Done()
		err = r.gone()
	}
	r.cancel(err)
	c.close(r)
	if ctx.Err() != nil {
		err = nil
	}
	c.count(func(s *Status) {
		s.Connected, s.Sessions = false, 0
		if err != nil {
			s.LastError = c.reason(err)
		}
	})
	return err
}

// reason is why there is no connection, without that there is none and to where: whoever reads it sees that already.
func (c *Client) reason(err error) string {
	text := strings.TrimPrefix(err.Error(), drivers.ErrNotConnected.Error())
	text = strings.TrimPrefix(text, " to the broker at "+c.target.url)
	return strings.TrimPrefix(text, ": ")
}

// open connects the publisher and the sessions, and makes the run the present one.
func (c *Client) open(r *run) (err error) {
	c.changing.Lock()
	defer c.changing.Unlock()
	r.known = c.memory.known
	if r.out, err = r.openPublisher(); err != nil {
		return err
	}
	c.mu.Lock()
	want := c.want
	c.mu.Unlock()
	if err := r.apply(r.ctx, want, true); err != nil {
		return err
	}
	for _, f := range r.refused {
		c.log.Error("the broker does not let this gateway subscribe a filter", "broker", c.target.url, "filter", f)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.run = r
	c.status.Connected = true
	c.status.LastError = ""
	c.status.Connects++
	return nil
}

// close ends what open opened, whatever that was.
func (c *Client) close(r *run) {
	c.mu.Lock()
	c.run = nil
	c.mu.Unlock()
	c.changing.Lock()
	defer c.changing.Unlock()
	hurry := time.AfterFunc(goodbye, func() { // a broker that reads nothing
		for _, l := range r.links() {
			_ = l.conn.Close()
		}
	})
	defer hurry.Stop()
	r.wg.Wait()
	clean := true
	for _, l := range r.links() {
		clean = l.close() && clean
	}
	if !clean {
		c.log.Error("a connection to the broker has ended but something of it still runs", "broker", c.target.url)
	}
}

// Subscribe makes filters the set of subscriptions. It returns once the broker has acknowledged what is new; the error names
// filters that the broker refused, while the others are subscribed. A filter that is given up is unsubscribed after
// what is new has been acknowledged, so that nothing falls between the two; where a new filter replaces one that it
// covers, a message of that moment may come twice.
func (c *Client) Subscribe(ctx context.Context, filters []drivers.Filter) error {
	for _, f := range filters {
		if err := topic.CheckFilter(f.Topic); err != nil {
			return fmt.Errorf("subscribing %q: %w", f.Topic, err)
		}
		if f.QoS > 2 {
			return fmt.Errorf("subscribing %q: QoS %d does not exist", f.Topic, f.QoS)
		}
	}
	c.changing.Lock()
	defer c.changing.Unlock()
	c.mu.Lock()
	c.want = slices.Clone(filters)
	r, last := c.run, c.status.LastError
	c.mu.Unlock()
	if r == nil {
		if last != "" {
			last = ": " + last
		}
		return fmt.Errorf("%w to the broker at %s%s", drivers.ErrNotConnected, c.target.url, last)
	}
	if err := r.apply(ctx, filters, false); err != nil {
		return err
	}
	if len(r.refused) > 0 {
		return fmt.Errorf("the broker at %s does not let this gateway subscribe %q: allow it there for the gateway's user", c.target.url, r.refused)
	}
	return nil
}

// apply makes want what the sessions subscribe: what is new first, from the lowest session up, then what goes. With
// all, everything is subscribed, since a broker that knows the session may have lost its last subscriptions. The filters that
// the broker refused are in r.refused then; they count as not subscribed, and are asked for again with the next change. Called with
// c.changing held.
func (r *run) apply(ctx context.Context, want []drivers.Filter, all bool) error {
	c := r.c
	old := c.memory.Sessions.clone()
	next, notes := old.next(want, c.slots())
	for _, n := range notes {
		c.log.Warn("subscriptions were widened", "note", n)
	}
	both := old.clone()
	for i := range next {
		maps.Copy(both[i], next[i])
	}
	if err := c.memory.save(both); err != nil {
		return err
	}
	r.refused = nil
	for i := range next {
		if err := r.extend(ctx, i, old[i], next[i], all); err != nil {
			return err
		}
	}
	// From here on a message that only a session with a filter to go still gets counts as nobody's copy: rather twice than never.
	for i := range next {
		c.setActive(i, next.filters(i))
	}
	for i := range next {
		if gone := without(old.filters(i), next.filters(i)); len(gone) > 0 {
			if err := r.sessions[i].unsubscribe(ctx, gone); err != nil {
				return err
			}
		}
	}
	c.count(func(s *Status) {
		s.Refused, s.Sessions = slices.Clone(r.refused), len(r.links())-1
	})
	return c.memory.save(next)
}

// extend subscribes what a slot has to have beyond what it had, opening its session if need be. It removes from next what the
// broker refused.
func (r *run) extend(ctx context.Context, slot int, old, next map[string]sub, all bool) error {
	if r.sessions[slot] == nil && (slot == 0 || len(old)+len(next) > 0) {
		s, err := r.openSession(slot)
		if err != nil {
			r.fail(err)
			return err
		}
		r.sessions[slot] = s
	}
	add := maps.Clone(next)
	maps.DeleteFunc(add, func(f string, s sub) bool { return !all && old[f] == s })
	if len(add) == 0 {
		return nil
	}
	refused, err := r.sessions[slot].subscribe(ctx, add)
	for _, f := range refused {
		delete(next, f)
	}
	r.refused = append(r.refused, refused...)
	return err
}

// without returns the elements of a that are not in b.
func without(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(a), func(f string) bool { return slices.Contains(b, f) })
}

// Publish sends a message, in order with the other calls, and returns its receipt without waiting for the broker unless
// very many are under way. An error that does not wrap drivers.ErrNotConnected, nor comes from ctx, will never pass: the message itself is wrong.
func (c *Client) Publish(ctx context.Context, m drivers.Message) (drivers.Receipt, error) {
	if err := topic.CheckName(m.Topic); err != nil {
		return nil, fmt.Errorf("publishing: %w", err)
	}
	if m.QoS > 2 || len(m.Payload) > maxPayload {
		return nil, fmt.Errorf("publishing: QoS %d with %d bytes is not possible", m.QoS, len(m.Payload))
	}
	c.mu.Lock()
	r := c.run
	c.mu.Unlock()
	if r == nil {
		return nil, fmt.Errorf("%w to the broker at %s", drivers.ErrNotConnected, c.target.url)
	}
	return r.out.publish(ctx, m)
}

// maxPayload is what MQTT allows, less the longest topic.
const maxPayload = 1<<28 - 1<<17
