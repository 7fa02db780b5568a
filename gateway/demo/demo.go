// Package demo shows the whole of Perigee on one machine: a gateway, simulated devices, example functions and a cloud, with a live
// view, and keys that do harm to it.
//
// The gateway is a process of its own, started as any other with "perigee run", so that it can be killed; the demo starts it again.
// The cloud runs in this process, behind a wire that can be cut (proxy.go). Everything listens on this machine only.
//
//	sender.go   publishes numbers, and counts what the gateway acknowledges
//	house.go    sensors that publish, and a subscriber
//	child.go    the gateway
//	ledger.go   the proof: what was accepted, committed, lost, doubled
//	hostile.go  functions that mean harm
//	poll.go     how the gateway is; feed.go: what happens in it
//	view.go     the screen as a function of the model; plain.go where there is no terminal
//
// The proof does not ask the gateway. A client numbers its messages, a function makes a record and a message of each, and the demo
// counts at both ends: what the client got a PUBACK for, and what arrived at the cloud and at a subscriber.
package demo

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/perigee-iot/perigee/configs/examples"
	"github.com/perigee-iot/perigee/gateway/api"
	"github.com/perigee-iot/perigee/gateway/screen"
	"github.com/perigee-iot/perigee/sync/receiver"
	"github.com/perigee-iot/perigee/sync/record"
)

// Options of Run. The zero value of each field means the default given with it.
type Options struct {
	Dir    string        // where everything is kept; ./perigee-demo, or a directory of the user's if that cannot be made
	For    time.Duration // how long it runs; until it is ended
	Plain  bool          // lines instead of the live view; there they are anyway if Stdin or Stdout is no terminal
	Rate   int           // numbers of the proof a second; 20
	Stdin  io.Reader     // os.Stdin
	Stdout io.Writer     // os.Stdout
}

// Run shows the demo until ctx ends, o.For has passed, or somebody presses q; then it prints the numbers of the proof and what to do
// next. The gateway is stopped, and the directory stays. The error says what was lost or doubled, if anything was.
func Run(ctx context.Context, o Options) error {
	if o.Stdin == nil {
		o.Stdin = os.Stdin
	}
	if o.Stdout == nil {
		o.Stdout = os.Stdout
	}
	if o.Rate <= 0 {
		o.Rate = 20
	}
	w, err := openWorkspace(o.Dir)
	if err != nil {
		return err
	}
	defer w.Close()
	d, err := newDemo(o, w)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGHUP) // a terminal that goes ends the demo too
	defer stop()
	if o.For > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.For)
		defer cancel()
	}
	if err := d.run(ctx); err != nil {
		return err
	}
	c := d.ledger.read()
	writeSummary(o.Stdout, d.st, c, d.child.status().Kills, w)
	if c.Lost > 0 || c.Doubled > 0 {
		return fmt.Errorf("the proof failed: %d lost, %d doubled", c.Lost, c.Doubled)
	}
	return nil
}

// demo is all parts of one run.
type demo struct {
	o  Options
	w  *workspace
	st screen.Style

	crew   *crew
	board  *board
	ledger *ledger
	cloud  *receiver.Receiver
	wire   *proxy
	client *api.Client
	log    *rotate
	child  *child
	sender *sender
	house  *house
	feed   *feed
	poller *poller
	watch  *watcher
	evil   *hostile
	button chan struct{} // presses; capacity 1
}

// newDemo makes the parts. Only the ends of the wire are open when it returns.
func newDemo(o Options, w *workspace) (d *demo, err error) {
	d = &demo{o: o, w: w, st: screen.StyleOf(os.Getenv), crew: &crew{}, board: &board{}, ledger: newLedger(), client: api.Dial(w.socket), button: make(chan struct{}, 1)}
	id := make([]byte, 4)
	for i := range id {
		id[i] = byte(rand.Uint32())
	}
	run := hex.EncodeToString(id)
	edit := filepath.Join(w.funcs, examples.Overheat, "main.lua")
	d.board.m.Edit = shorten(edit)

	if d.log, err = newRotate(filepath.Join(w.dir, "gateway.log"), logBytes); err != nil {
		return nil, err
	}
	if d.cloud, err = receiver.New(receiver.Options{Listen: "tcp://127.0.0.1:0", Log: slog.New(slog.DiscardHandler)}); err != nil {
		return nil, fmt.Errorf("start the cloud: %w", err)
	}
	d.cloud.Subscribe(func(r record.Record) { d.arrived(run, &r) })
	if d.wire, err = newProxy(w.uplink, d.cloud.Addr()); err != nil {
		_ = d.cloud.Close() // the reason is more interesting
		return nil, err
	}
	d.wire.crew = d.crew
	tell := d.board.tell
	d.child = newChild(w, d.log, d.client, tell)
	d.sender = newSender(w.broker, run, time.Second/time.Duration(o.Rate), d.ledger)
	d.child.crew, d.sender.crew = d.crew, d.crew
	d.house = newHouse(w.broker, run, d.ledger)
	d.feed = &feed{client: d.client, board: d.board}
	d.poller = &poller{client: d.client, board: d.board, wire: d.wire, child: d.child, ledger: d.ledger, funcs: w.funcs, poke: make(chan struct{}, 1)}
	d.evil = &hostile{client: d.client, ledger: d.ledger, tell: tell, stays: hostileStays, ask: make(chan struct{}, 1)}
	if d.watch, err = newWatcher(w, tell, d.reload); err != nil {
		_ = d.wire.listen.Close()
		_ = d.cloud.Close() // the reason is more interesting
	}
	return d, err
}

// arrived takes a record at the cloud. Those of earlier runs, which a cut link has kept back, do not count.
func (d *demo) arrived(run string, r *record.Record) {
	var v struct {
		Run string `json:"run"`
		N   uint64 `json:"n"`
	}
	if r.Gap == nil && r.Stream == examples.Proof && json.Unmarshal(r.Data, &v) == nil && v.Run == run && v.N > 0 {
		d.ledger.arrive(v.N)
	}
}

func (d *demo) reload(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	_, err := d.client.Reload(ctx)
	d.poller.again()
	return err
}

// run runs all parts, and ends them in order: first what sends, then what looks, then the gateway, then the cloud.
func (d *demo) run(ctx context.Context) error {
	defer d.log.Close()
	defer d.client.Close()
	base := context.WithoutCancel(ctx)
	defer d.crew.run(base, func(ctx context.Context) { _ = d.cloud.Run(ctx) }, d.wire.Run)() // errors end nothing here: the gateway shows them
	defer d.crew.run(base, d.child.Run)()
	stop, stopSending := context.WithCancel(base)
	defer stopSending()
	defer d.crew.run(base, func(ctx context.Context) { d.sender.Run(ctx, stop) }, d.house.Run, d.feed.Run, d.poller.Run, d.watch.Run, d.evil.Run, d.presser)()

	quit := make(chan struct{}) // closed by the first q, and a second one ends the wait for what is on its way
	hurry := make(chan struct{})
	in, out, ok := screen.Terminal(d.o.Stdin, d.o.Stdout)
	var show func(ctx context.Context)
	if ok && !d.o.Plain {
		s, err := screen.Open(in, out)
		if err != nil {
			return err
		}
		d.crew.show(s)
		defer s.Close()
		show = func(ctx context.Context) { d.view(ctx, s, quit, hurry) }
	} else {
		show = d.plainLog
	}
	defer d.crew.run(base, show)()

	select {
	case <-ctx.Done():
	case <-quit:
	}
	stopSending()
	d.board.change(func(m *model) { m.Ending = "waiting for what is on its way; q again ends at once" })
	d.settle(base, hurry)
	return nil
}

// snapshot is the model with the counts as they are at this moment.
func (d *demo) snapshot() (model, bool) {
	m, changed := d.board.snapshot()
	m.Now, m.Proof, m.Gateway = time.Now(), d.ledger.read(), d.child.status()
	m.Link.Cut, m.Link.For = d.wire.state()
	return m, changed
}

const (
	settleWithin = 15 * time.Second
	settleQuiet  = 20 // times that the gateway has to say that nothing is on its way, before what is missing counts as lost
)

// settle waits until what has been sent is acknowledged and has arrived, as far as the link lets it. What is still
// missing when the gateway has nothing left is lost.
func (d *demo) settle(ctx context.Context, hurry <-chan struct{}) {
	ctx, cancel := context.WithTimeout(ctx, settleWithin)
	defer cancel()
	quiet := 0
	for {
		cut, _ := d.wire.state()
		c := d.ledger.read()
		switch flying := d.sender.waiting(); {
		case flying == 0 && (c.Waiting == 0 || cut):
			return
		case flying == 0:
			if n, ok := d.poller.onTheirWay(ctx); ok && n == 0 {
				quiet++
			} else {
				quiet = 0
			}
			if quiet >= settleQuiet {
				d.ledger.drain()
				return
			}
		}
		select {
		case <-hurry:
			return
		case <-ctx.Done():
			return
		case <-time.After(50 * time.Millisecond):
		}
	}
}
