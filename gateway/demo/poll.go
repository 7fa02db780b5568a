package demo

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/perigee-iot/perigee/gateway/api"
	"github.com/perigee-iot/perigee/internal/units"
)

// poller asks the gateway how it is, twice a second and when it is poked, and notices what changed: new revisions of functions,
// problems, messages that came again.
type poller struct {
	client *api.Client
	board  *board
	wire   *proxy
	child  *child
	ledger *ledger
	funcs  string        // the directory of functions
	poke   chan struct{} // capacity 1

	history    map[string][]float64 // of devices
	sampled    time.Time
	revisions  map[string]string
	problems   map[string]bool
	pid        int // of the gateway that duplicates were counted of
	duplicates int64
	cut        bool // the link was, when last seen
	behind     bool // the cloud has not caught up since
}

const (
	pollEvery   = 500 * time.Millisecond
	sampleEvery = time.Second // one character of a sparkline
	maxHistory  = 200
	askWithin   = 2 * time.Second
)

// Run polls until ctx ends.
func (p *poller) Run(ctx context.Context) {
	p.history, p.problems = map[string][]float64{}, map[string]bool{}
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		p.once(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-p.poke:
		}
	}
}

// again has the gateway asked at once.
func (p *poller) again() {
	select {
	case p.poke <- struct{}{}:
	default:
	}
}

func (p *poller) once(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	cut, d := p.wire.state()
	status, err := p.client.Status(ctx)
	var fns []api.Function
	var devs []api.Device
	if err == nil {
		fns, err = p.client.Functions(ctx)
	}
	if err == nil {
		devs, err = p.client.Devices(ctx)
	}
	gw, proof := p.child.status(), p.ledger.read()
	var rows []deviceRow
	if err == nil {
		p.notice(status, fns)
		rows = p.devices(devs)
	}
	p.caughtUp(cut, d, proof)
	p.board.change(func(m *model) {
		m.Gateway, m.Proof = gw, proof
		m.Link.Cut, m.Link.For = cut, d
		if err != nil {
			m.Link.Up = false
			return
		}
		m.Devices, m.Functions = rows, functionRows(fns)
		for _, u := range status.Uplinks[:min(1, len(status.Uplinks))] {
			m.Link.Up, m.Link.Waiting, m.Link.Sent, m.Link.Rate, m.Link.Drain = u.Connected, u.Waiting, u.Sent, u.Rate, u.Drain
		}
	})
}

// caughtUp tells when the cloud has, after a cut, all that the gateway has accepted but what is just on its way.
func (p *poller) caughtUp(cut bool, d time.Duration, c counts) {
	p.behind = (p.behind || p.cut) && !cut
	p.cut = cut
	if p.behind && c.Waiting <= maxInflight {
		p.behind = false
		p.board.tell(good, fmt.Sprintf("the cloud has caught up, %s after the link was mended", brief(d)))
	}
}

// onTheirWay is how many events, actions and records the gateway still has to deal with; it is not ok while the gateway does not answer.
func (p *poller) onTheirWay(ctx context.Context) (n int64, ok bool) {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	s, err := p.client.Status(ctx)
	if err != nil || !s.Ready {
		return 0, false
	}
	n = s.Events.Waiting + s.Events.Inbox + s.Events.Actions
	for _, u := range s.Uplinks {
		n += u.Waiting
	}
	return n, true
}

// notice tells what has changed.
func (p *poller) notice(s *api.Status, fns []api.Function) {
	now := map[string]string{}
	for _, f := range fns {
		now[f.Name] = f.Revision
		was, known := p.revisions[f.Name]
		switch {
		case p.revisions == nil || was == f.Revision || f.Name == hostileName:
		case known:
			p.board.tell(good, fmt.Sprintf("%s: new revision %.8s is %s (was %.8s)", f.Name, f.Revision, f.State, was))
		default:
			p.board.tell(good, fmt.Sprintf("%s: revision %.8s is %s", f.Name, f.Revision, orElse(f.State+" "+f.Reason, f.State)))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.revisions)) {
		if _, there := now[name]; !there {
			p.board.tell(good, name+": removed")
		}
	}
	p.revisions = now
	problems := map[string]bool{}
	for _, text := range s.Problems {
		problems[text] = true
		if !p.problems[text] {
			p.board.tell(bad, p.shortPath(text))
		}
	}
	p.problems = problems
	if s.PID != p.pid {
		p.pid, p.duplicates = s.PID, 0
	}
	if n := s.Events.Duplicates - p.duplicates; n > 0 {
		p.board.tell(good, fmt.Sprintf("%s came again and did not run again: the gateway knew", count(n, "message")))
	}
	p.duplicates = s.Events.Duplicates
}

func orElse(s, other string) string {
	if s = strings.TrimSpace(s); s == "" {
		return other
	}
	return s
}

// shortPath is the first line of a problem, with paths as the user would type them.
func (p *poller) shortPath(text string) string {
	const sep = string(filepath.Separator)
	text = strings.ReplaceAll(firstLine(text), p.funcs+sep, "")
	text = strings.ReplaceAll(text, filepath.Dir(p.funcs)+sep, "")
	switch {
	case strings.HasPrefix(text, "gateway.yaml"):
		text += "; what was there stays"
	case strings.Contains(text, ".lua") || strings.Contains(text, ".yaml"):
		text += "; the old revision stays"
	}
	return text
}

// firstLine is the first line of a text; a problem with several has one to a mistake.
func firstLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	return s
}

// count is a number of things: "1 message", "3 messages".
func count(n int64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return units.Group(n) + " " + what + "s"
}

func functionRows(fns []api.Function) (rows []functionRow) {
	for _, f := range fns {
		r := functionRow{Name: f.Name, State: f.State, Runs: f.Runs, OK: f.OK, P99: f.P99, CPU: f.CPU, Remark: f.Description}
		switch {
		case f.Reason != "":
			r.Remark = f.Reason
		case f.LastFault != nil:
			r.Remark = firstLine(f.LastFault.Error())
		}
		rows = append(rows, r)
	}
	return rows
}

// devices makes the rows: first those that measure, in the order of their names, then switches and buttons.
func (p *poller) devices(devs []api.Device) []deviceRow {
	sample := time.Since(p.sampled) >= sampleEvery-pollEvery/2
	if sample {
		p.sampled = time.Now()
	}
	slices.SortStableFunc(devs, func(a, b api.Device) int { return cmp.Compare(place(a), place(b)) })
	var measuring, others []deviceRow
	for _, d := range devs {
		r := deviceRow{Name: d.Name}
		field, unit := "", ""
		for _, f := range [][2]string{{"temperature", "°C"}, {"cpu_temperature", "°C"}, {"load", "load"}, {"humidity", "%"}, {"power", "W"}} {
			if _, ok := number(d.Fields[f[0]]); ok {
				field, unit = f[0], f[1]
				break
			}
		}
		if field == "" {
			r.Text = deviceText(d)
			others = append(others, r)
			continue
		}
		v, _ := number(d.Fields[field])
		if sample {
			h := append(p.history[d.Name], v)
			p.history[d.Name] = h[max(0, len(h)-maxHistory):]
		}
		r.Value, r.Unit, r.History = v, unit, slices.Clone(p.history[d.Name])
		measuring = append(measuring, r)
	}
	return append(measuring, others...)
}

// place is where a device stands: what functions act on goes first, and buttons last.
func place(d api.Device) int {
	switch {
	case !d.Reads:
		return 2
	case d.Kind != "sim":
		return 1
	}
	return 0
}

func number(v any) (float64, bool) {
	switch v := v.(type) {
	case float64:
		return v, true
	case json.Number:
		f, err := v.Float64()
		return f, err == nil
	}
	return 0, false
}

// deviceText is how a switch or a button is.
func deviceText(d api.Device) string {
	if a, ok := d.Fields["action"].(string); ok {
		return strings.TrimPrefix(a+" at ", "single ") + d.At.Local().Format("15:04:05")
	}
	if !d.Reads {
		return "-" // a button that nobody has pressed
	}
	state, known := d.Fields["state"]
	if !known {
		state = d.Written
	}
	switch v := state.(type) {
	case bool:
		if v {
			return "on"
		}
		return "off"
	case string:
		return v
	}
	if d.Kind == "sim" && d.Writes && d.Reads {
		return "off" // a switch that nobody has touched
	}
	return "-"
}
