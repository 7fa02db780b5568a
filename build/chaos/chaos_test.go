// Package chaos kills the gateway at moments that nobody chose, under load, and counts afterwards: what the broker told
// a sender is done must be done exactly once in state and streams, and at least once, distinct by id, in actions.
//
// The senders and receivers stand outside of the gateway and count by sequence numbers of their own. Every suite prints
// its counts. `go test ./build/chaos` is the short form, with more than 50 kills in all; `make chaos` the full one.
package chaos

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/internal/mosquittotest"
)

var full = flag.Bool("full", false, "200 kills in each suite")

const senders = 4

// counted is Lua that notes what is wrong with a number: it came "again", it came "late", after a higher one, or it
// is still "missing". All is well if only "count" and "last" are left.
const counted = `
local function counted(n, skips, of)
  of = of or ""
  local last, missing = state.get("last" .. of, 0), state.get("missing" .. of)
  if n > last then
    for i = last + 1, n - 1 do
      if not skips or i % skips ~= 0 then
        missing = missing or {}
        missing["n" .. i] = true
      end
    end
    state.set("last" .. of, n)
  elseif missing and missing["n" .. n] then
    missing["n" .. n] = nil
    state.incr("late" .. of)
  else
    state.incr("again" .. of)
  end
  if missing then
    if next(missing) then state.set("missing" .. of, missing) else state.delete("missing" .. of) end
  end
  state.incr("count" .. of)
end
`

// tally does on every message one of each: state, a record, a publish.
var tally = function{"tally", `triggers: [{mqtt: "load/{sender}"}]
key: "{sender}"
permissions: {publish: [done/#], streams: [tally]}
`, counted + `return function(event, ctx)
  local n, sender = event.data.n, event.params.sender
  counted(n)
  stream.append("tally", {sender = sender, n = n})
  publish("done/" .. sender, {n = n}, {qos = 1, id = true})
end
`}

// The functions of the workflow cause one another: gate parks its keys by asking to run again and sets timers; its results
// lead to follow, some of which fail for good; its state leads to watch.
var (
	gate = function{"gate", `triggers: [{mqtt: "load/{sender}"}]
key: "{sender}"
retry: {attempts: 3, first: 10ms, max: 100ms}
permissions: {publish: [done/#], streams: [gate, fired]}
`, counted + `return function(event, ctx)
  if event.timer then
    state.incr("fired")
    stream.append("fired", {sender = event.key, n = tonumber(event.timer:sub(2))})
    return
  end
  local n, sender = event.data.n, event.params.sender
  if n % 17 == 0 and event.attempt == 1 then retry("the first time never works", "30ms") end
  counted(n)
  if n % 5 == 0 then timer.set("t" .. n, "80ms") end
  stream.append("gate", {sender = sender, n = n})
  publish("done/" .. sender, {n = n}, {qos = 1, id = true})
  return {sender = sender, n = n}
end
`}
	follow = function{"follow", `triggers: [{function: gate}]
key: data.sender
retry: {attempts: 3, first: 10ms, max: 50ms}
permissions: {streams: [follow]}
`, counted + `return function(event, ctx)
  local n, sender = event.data.n, event.data.sender
  if n % 50 == 0 then error("poison") end
  if n % 50 == 25 then retry("it never works", "10ms") end
  counted(n, 25)
  stream.append("follow", {sender = sender, n = n})
end
`}
	watch = function{"watch", `triggers: [{state: gate/last}]
permissions: {streams: [watch]}
`, counted + `return function(event, ctx)
  counted(event.data, nil, event.params.key)
  stream.append("watch", {sender = event.params.key, n = event.data})
end
`}
)

// run is one suite.
type run struct {
	url    string // of the broker
	config string
	fns    []function
	kills  int
	link   bool // cut the uplink's link, too
	late   bool // the broker itself may change the order
	steps  []step
	also   func(t *testing.T, r *run, g *gateway, far *cloud, all []*sender) // checked in the end
}

// step is a function that counts in its state, and its stream of the same name.
type step struct {
	fn    string
	skips int  // the numbers that never get through: multiples of this
	whole bool // it has one key, and a name for each sender
}

// number asks for what a step has counted for a sender.
func (s step) number(g *gateway, name, sender string) int {
	if s.whole {
		return g.number(s.fn, name+sender, "")
	}
	return g.number(s.fn, name, sender)
}

// through is how many of the numbers up to n get through a step.
func (s step) through(n int) int {
	if s.skips == 0 {
		return n
	}
	return n - n/s.skips
}

func (s step) skipped(n int) bool { return s.skips > 0 && n%s.skips == 0 }

func kills(short int) int {
	if *full {
		return 200
	}
	return short
}

func embedded(t *testing.T, durability string) (url, config string) {
	url = fmt.Sprintf("tcp://127.0.0.1:%d", freePort(t))
	return url, fmt.Sprintf("broker: {listen: [%s]}\nstore: {durability: %s}\n", url, durability)
}

func TestKilledWithTheEmbeddedBroker(t *testing.T) {
	for _, durability := range []string{"power", "crash"} {
		t.Run(durability, func(t *testing.T) {
			url, config := embedded(t, durability)
			(&run{url: url, config: config, kills: kills(15), fns: []function{tally}, steps: []step{{fn: "tally"}}}).do(t)
		})
	}
}

// Mosquitto 2.0 itself changes the order of what it sends while more waits than it sends at once, 20 messages as Debian ships it: what comes
// in the moment in which there is room overtakes the queue. So there what comes late is only printed, and must be exactly once all the same. Where
// it sends all at once it keeps the order, and so must the gateway.
func TestKilledWithAnExternalBroker(t *testing.T) {
	for name, inflight := range map[string]int{"20 in flight": 20, "any number in flight": 0} {
		t.Run(name, func(t *testing.T) {
			b := mosquittotest.Start(t, mosquittotest.Options{Config: []string{
				"max_queued_messages 0", // else it drops what the killed gateway has not fetched
				fmt.Sprintf("max_inflight_messages %d", inflight),
			}})
			(&run{url: b.URL, config: fmt.Sprintf("broker: {url: %q}\nstore: {durability: power}\n", b.URL), late: inflight > 0,
				kills: kills(10), fns: []function{tally}, steps: []step{{fn: "tally"}}}).do(t)
		})
	}
}

func TestKilledWhileTheLinkIsCut(t *testing.T) {
	url, config := embedded(t, "power")
	(&run{url: url, config: config, kills: kills(10), link: true, fns: []function{tally}, steps: []step{{fn: "tally"}}}).do(t)
}

func TestKilledWhileFunctionsWaitAndCauseOneAnother(t *testing.T) {
	url, config := embedded(t, "power")
	(&run{url: url, config: config, kills: kills(15), fns: []function{gate, follow, watch},
		steps: []step{{fn: "gate"}, {fn: "follow", skips: 25}, {fn: "watch", whole: true}}, also: checkWorkflow}).do(t)
}

// checkWorkflow counts what is not in order: timers, and dead letters.
func checkWorkflow(t *testing.T, r *run, g *gateway, far *cloud, all []*sender) {
	timers, dead := 0, 0
	for _, s := range all {
		timers += s.acked / 5
		dead += s.acked / 25
		eventually(t, "every timer", time.Minute, func() bool { return g.number("gate", "fired", s.name) >= s.acked/5 })
	}
	var status struct {
		Events struct {
			Dead, Waiting, Inbox int
		}
	}
	eventually(t, "nothing to be waiting", time.Minute, func() bool {
		g.json(&status, "status")
		return status.Events.Dead >= dead && status.Events.Waiting == 0 && status.Events.Inbox == 0
	})
	var letters []struct {
		EventID  string `json:"event_id"`
		Reason   string
		Attempts int
	}
	g.json(&letters, "dead", "list", "--limit", "100000")
	require.Len(t, letters, min(dead, 1000), "dead letters")
	ids := map[string]bool{}
	for _, l := range letters {
		require.False(t, ids[l.EventID], "two dead letters of one event")
		ids[l.EventID] = true
		if l.Reason == "asked" {
			require.Equal(t, 3, l.Attempts)
		} else {
			require.Equal(t, "error", l.Reason)
			require.Equal(t, 1, l.Attempts)
		}
	}
	for _, s := range all {
		require.Equal(t, s.acked/5, g.number("gate", "fired", s.name), "%s: every timer fired once", s.name)
		eventually(t, "every record of a timer", time.Minute, func() bool { return far.count("fired", s.name, 5, s.acked) == s.acked/5 })
		for n := 5; n <= s.acked; n += 5 {
			require.Equal(t, 1, far.times("fired", s.name, n), "%s: timer %d", s.name, n)
		}
	}
	t.Logf("timers %d, dead letters %d", timers, dead)
}

// do kills a gateway under load, lets everything drain, and counts.
func (r *run) do(t *testing.T) {
	far := newCloud(t)
	uplink := far.r.Addr()
	var cuts *link
	if r.link {
		cuts = newLink(t, uplink)
		uplink = cuts.addr()
	}
	g := newGateway(t, r.config+fmt.Sprintf("uplinks: {main: {mqtt: {url: \"tcp://%s\"}}}\n", uplink), r.fns)
	g.start()
	g.ready()
	acts := listen(t, r.url)
	g.stop() // so that the listener's session, which a killed gateway could have forgotten, is stored
	g.start()
	g.ready()

	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	var sending sync.WaitGroup
	var all []*sender
	for i := range senders {
		s := &sender{name: fmt.Sprintf("s%d", i), address: strings.TrimPrefix(r.url, "tcp://")}
		s.seen = func() int { return acts.seen("done/" + s.name) }
		all = append(all, s)
		sending.Go(func() { s.run(ctx) })
	}
	for range r.kills {
		time.Sleep(time.Duration(50+rand.IntN(350)) * time.Millisecond) // a moment that nobody chose
		g.kill()
		g.start()
	}
	g.ready()
	stop()
	sending.Wait()
	if cuts != nil {
		cuts.mend()
	}
	r.drain(t, g, far, acts, all)
	r.check(t, g, far, acts, all)
	if cuts != nil {
		t.Logf("the link was cut %d times", cuts.cut)
	}
}

// drain waits until everything has had time to arrive that will.
func (r *run) drain(t *testing.T, g *gateway, far *cloud, acts *listener, all []*sender) {
	for _, s := range all {
		for _, st := range r.steps {
			want := st.through(s.acked)
			if !reached(time.Minute, func() bool { return st.number(g, "count", s.name) >= want }) {
				status, _ := g.ask("status")
				t.Fatalf("%s in %s: of %d accepted %d should be in state, but only %d are (again %d, late %d, last %d)\n%s", s.name, st.fn, s.acked, want,
					st.number(g, "count", s.name), st.number(g, "again", s.name), st.number(g, "late", s.name), st.number(g, "last", s.name), status)
			}
			eventually(t, fmt.Sprintf("every record of %s at the cloud", st.fn), time.Minute, func() bool { return far.count(st.fn, s.name, 1, s.acked) >= want })
		}
		if !reached(time.Minute, func() bool { return acts.count("done/"+s.name) >= s.acked }) {
			var lost []int
			for n := 1; n <= s.acked; n++ {
				if acts.times("done/"+s.name, n) == 0 {
					lost = append(lost, n)
				}
			}
			status, _ := g.ask("status")
			t.Fatalf("%s: of %d actions %d never came: %v\n%s", s.name, s.acked, len(lost), lost, status)
		}
	}
}

// totals are what a suite prints. All but accepted and repeated must be 0.
type totals struct {
	accepted, lost, again, late     int // in state
	streamLost, streamAgain, astray int // records at the cloud; astray: out of order
	actionLost, actionAgain         int // after de-duplication by id
}

// count adds up one sender's numbers.
func (c *totals) count(r *run, g *gateway, far *cloud, acts *listener, s *sender) {
	c.accepted += s.acked
	for _, st := range r.steps {
		c.lost += st.through(s.acked) - st.number(g, "count", s.name)
		c.again += st.number(g, "again", s.name)
		c.late += st.number(g, "late", s.name)
		for n := 1; n <= s.acked; n++ {
			if times := far.times(st.fn, s.name, n); !st.skipped(n) && times == 0 {
				c.streamLost++
			} else if times > 1 {
				c.streamAgain += times - 1
			}
		}
	}
	for n := 1; n <= s.acked; n++ {
		if times := acts.times("done/"+s.name, n); times == 0 {
			c.actionLost++
		} else {
			c.actionAgain += times - 1
		}
	}
}

func (r *run) check(t *testing.T, g *gateway, far *cloud, acts *listener, all []*sender) {
	var c totals
	for _, s := range all {
		c.count(r, g, far, acts, s)
	}
	for _, step := range r.steps {
		c.astray += far.disorder(step.fn)
	}
	st := far.r.Stats()
	acts.mu.Lock()
	t.Logf("%d kills; accepted %d; lost %d; doubled in state %d, in streams %d; out of order %d; actions %d, lost %d, doubled %d; sent again and told by their ids: records %d, actions %d",
		r.kills, c.accepted, c.lost+c.streamLost, c.again, c.streamAgain, c.late+c.astray, len(acts.ids), c.actionLost, c.actionAgain, st.Duplicates, acts.repeats)
	acts.mu.Unlock()
	if r.late { // exactly once, but in the broker's own order
		c.late, c.astray = 0, 0
	}
	require.Equal(t, totals{accepted: c.accepted}, c)
	require.Zero(t, st.Missing)
	var status struct{ Losses map[string]int64 }
	g.json(&status, "status")
	require.Empty(t, status.Losses)
	if r.also != nil {
		r.also(t, r, g, far, all)
	}
}

// json runs a client command and decodes what it prints.
func (g *gateway) json(into any, args ...string) {
	g.t.Helper()
	out, err := g.ask(append(args, "--json")...)
	require.NoError(g.t, err)
	require.NoError(g.t, json.Unmarshal([]byte(out), into))
}
