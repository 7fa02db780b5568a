// Package receiver is the far side for development and tests: an MQTT broker in the process that takes what gateways
// send and hands on each new record once, in order.
//
// A batch is acknowledged to its gateway only when its new records are in the output file, on the disk: what the
// gateway then deletes is safe here. If the file cannot be written, the batch is not acknowledged and the connection
// ends; the gateway tries again later. After a restart the receiver reads the file back to know what it has.
//
// It counts what a far side must notice: records that came again (by their identity), sequences that are missing and that no
// gap explains, and gateways under whose id two boxes live. Everything else on the broker is passed on between its clients as
// on any other, so that pushes and remote commands work through it too.
package receiver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/listeners"

	"github.com/perigee-iot/perigee/sync/record"
)

// Options of New. The zero value of each field means the default given with it.
type Options struct {
	Listen   string       // tcp://host:port; tcp://127.0.0.1:1884, port 0 for any free one. Others than this machine need a password
	Username string       // of clients; "": any
	Password string       // "": clients need none, on this machine only
	Out      string       // file for the records, one CloudEvent in JSON a line; "": none
	Log      *slog.Logger // slog.Default()
}

// Receiver takes what gateways send.
type Receiver struct {
	o      Options
	listen net.Listener
	server *mqtt.Server

	closing sync.Once

	mu     sync.Mutex // guards what follows; held while a batch is written, so that records come out in one order
	out    *file
	tracks map[streamID]*track
	subs   map[int]func(record.Record)
	subID  int
	stats  Stats
}

type streamID struct{ gateway, stream string }

// Stats count since the beginning of the file, or of the receiver without one; Refused and Failed since the start.
type Stats struct {
	Records    int64    // new records
	Gaps       int64    // gaps that gateways have sent
	Duplicates int64    // records and gaps that had been received before
	Missing    int64    // sequences that are missing, with no gap that says why
	Explained  int64    // sequences that are missing, with one
	Late       int64    // records that came after later ones
	Earlier    int64    // sequences before the first that was seen of a stream
	Refused    int64    // batches that made no sense; they are acknowledged, since they never will
	Failed     int64    // batches that could not be written, and were not acknowledged
	Clashes    []string // gateways of which two live at once
	Streams    []StreamStats
}

// StreamStats are the counts of one epoch of one stream.
type StreamStats struct {
	Gateway, Stream, Epoch                                       string
	Next                                                         uint64 // the sequence that is expected
	Records, Gaps, Duplicates, Missing, Explained, Late, Earlier int64
}

// New opens the file and listens. Run serves; whoever does not call it calls Close.
func New(o Options) (*Receiver, error) {
	if o.Listen == "" {
		o.Listen = "tcp://127.0.0.1:1884"
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	addr, err := address(o)
	if err != nil {
		return nil, err
	}
	r := &Receiver{o: o, tracks: map[streamID]*track{}, subs: map[int]func(record.Record){}}
	if o.Out != "" {
		if r.out, err = openFile(o.Out, func(rec *record.Record) {
			id := streamID{rec.Gateway, rec.Stream}
			if r.tracks[id] == nil {
				r.tracks[id] = &track{}
			}
			r.tracks[id].take(rec)
		}); err != nil {
			return nil, err
		}
	}
	if r.listen, err = net.Listen("tcp", addr); err != nil {
		return nil, errors.Join(fmt.Errorf("listen for gateways: %w", err), r.closeFile())
	}
	if err := r.serve(); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// address checks where to listen.
func address(o Options) (string, error) {
	addr, ok := strings.CutPrefix(o.Listen, "tcp://")
	host, _, err := net.SplitHostPort(addr)
	if !ok || err != nil {
		return "", fmt.Errorf("listen: %q must look like tcp://127.0.0.1:1884", o.Listen)
	}
	ip := net.ParseIP(host)
	local := host == "localhost" || ip != nil && ip.IsLoopback()
	if !local && o.Password == "" {
		return "", fmt.Errorf("listen: %s can be reached from other machines; set a password, or listen on 127.0.0.1", o.Listen)
	}
	return addr, nil
}

// serve sets up the broker.
func (r *Receiver) serve() error {
	limits := mqtt.NewDefaultServerCapabilities()
	limits.MaximumPacketSize = 32 << 20
	limits.MaximumClients = 4096
	r.server = mqtt.New(&mqtt.Options{
		Capabilities: limits, Logger: slog.New(quiet{r.o.Log.Handler()}),
		ClientNetReadBufferSize: 64 << 10, SysTopicResendInterval: 60,
	})
	if err := r.server.AddHook(&hook{r: r}, nil); err != nil {
		return fmt.Errorf("start the broker: %w", err)
	}
	if err := r.server.AddListener(listeners.NewNet("receiver", r.listen)); err != nil {
		return fmt.Errorf("start the broker: %w", err)
	}
	return nil
}

// Addr is where it listens: host:port.
func (r *Receiver) Addr() string { return r.listen.Addr().String() }

// Run serves gateways until ctx ends, then closes everything.
func (r *Receiver) Run(ctx context.Context) error {
	if err := r.server.Serve(); err != nil {
		return errors.Join(fmt.Errorf("serve gateways: %w", err), r.Close())
	}
	<-ctx.Done()
	return r.Close()
}

// Close ends every connection and closes the file. It may be called again.
func (r *Receiver) Close() error {
	var err error
	r.closing.Do(func() {
		if r.server != nil {
			err = r.server.Close()
		}
		_ = r.listen.Close() // the broker may have closed it already
	})
	if err != nil {
		return fmt.Errorf("close the broker: %w", err)
	}
	return r.closeFile()
}

func (r *Receiver) closeFile() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.out == nil {
		return nil
	}
	return r.out.close()
}

// Subscribe has fn called with every new record and gap from now on, in order, after it was written. fn must return soon: the gateway
// waits for it. The function returned ends that.
func (r *Receiver) Subscribe(fn func(record.Record)) (cancel func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.subID++
	id := r.subID
	r.subs[id] = fn
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.subs, id)
	}
}

// Stats returns the counts as they are now.
func (r *Receiver) Stats() Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.stats
	clash := map[string]bool{}
	for id, t := range r.tracks {
		if t.clashes > 0 && !clash[id.gateway] {
			clash[id.gateway] = true
			s.Clashes = append(s.Clashes, id.gateway)
		}
		for _, c := range t.epochs {
			e := StreamStats{
				Gateway: id.gateway, Stream: id.stream, Epoch: c.epoch, Next: c.next, Records: c.records, Gaps: c.gaps,
				Duplicates: c.duplicates, Missing: c.absent(), Explained: c.explained, Late: c.late, Earlier: c.earlier,
			}
			s.add(e)
			s.Streams = append(s.Streams, e)
		}
	}
	slices.Sort(s.Clashes)
	slices.SortStableFunc(s.Streams, func(a, b StreamStats) int {
		return cmp.Or(cmp.Compare(a.Gateway, b.Gateway), cmp.Compare(a.Stream, b.Stream))
	})
	return s
}

func (s *Stats) add(e StreamStats) {
	s.Records += e.Records
	s.Gaps += e.Gaps
	s.Duplicates += e.Duplicates
	s.Missing += e.Missing
	s.Explained += e.Explained
	s.Late += e.Late
	s.Earlier += e.Earlier
}
