package demo

import (
	"fmt"
	"strings"
	"time"

	"github.com/perigee-iot/perigee/gateway/screen"
	"github.com/perigee-iot/perigee/internal/units"
)

// frame draws the model on a screen of that many columns and rows: exactly rows lines, none of them wider than the screen.
//
// At 24x80 there is room for everything. What is taller gets more feed; what is smaller loses the feed, then functions, then devices, and last
// of all the numbers of the proof. On a narrow screen the devices give way to the proof.
func frame(m *model, st screen.Style, cols, rows int) []string {
	if cols < 1 || rows < 1 {
		return nil
	}
	p := painter{m: m, st: st, cols: cols}
	head, tail := []string{p.title()}, p.foot()
	mid := p.upper()
	mid = append(mid, p.link())
	room := rows - len(head) - len(tail)
	if room < len(mid) {
		mid = p.proofLines(cols)
		mid = mid[:max(0, min(room, len(mid)))]
	}
	if room -= len(mid); room >= 3 {
		fns := p.functions()
		if keep := max(2, room-3); len(fns) > keep { // a header and two lines of feed at least
			fns = fns[:keep]
		}
		mid = append(mid, fns...)
		room -= len(fns)
	}
	if room >= 1 {
		mid = append(mid, p.feed(room)...)
	}
	all := append(append(head, mid...), tail...)
	if len(all) > rows {
		all = all[:rows]
	}
	for len(all) < rows {
		all = append(all, "")
	}
	return all
}

// painter draws the parts.
type painter struct {
	m    *model
	st   screen.Style
	cols int
}

// line cleans text, fits it to the screen and colours it.
func (p *painter) line(text string, codes ...string) string {
	return p.st.Paint(p.st.Fit(p.st.Clean(text), p.cols), codes...)
}

func (p *painter) title() string {
	g := p.m.Gateway
	state, colour := "gateway starting", screen.Yellow
	switch {
	case g.Ready:
		state, colour = fmt.Sprintf("gateway running, pid %d, up %s", g.PID, brief(p.m.Now.Sub(g.Since))), screen.Green
	case g.PID == 0:
		state, colour = "gateway down, starting it again", screen.Red
	}
	left := " PERIGEE demo  "
	dot := p.st.Clean("●") + " "
	clock := " " + p.m.Now.Format("15:04:05") + " "
	room := p.cols - screen.Cells(left) - screen.Cells(dot) - screen.Cells(clock)
	if room < 10 {
		return p.line(left+state, screen.Bold)
	}
	return p.st.Paint(left, screen.Bold) + p.st.Paint(dot, colour) + p.st.Fit(p.st.Clean(state), room) + p.st.Paint(clock, screen.Dim)
}

// upper is devices at the left and the proof at the right, or the proof alone where it is narrow.
func (p *painter) upper() []string {
	const right = 40
	left := p.cols - right
	if left < 32 {
		return p.proofLines(p.cols)
	}
	proof, devs := p.proofLines(right), p.deviceLines(left, 5)
	out := make([]string, 0, len(proof))
	for i := range proof {
		out = append(out, devs[i]+proof[i])
	}
	return out
}

// deviceLines are a header and n lines, each width cells wide.
func (p *painter) deviceLines(width, n int) []string {
	out := []string{p.st.Paint(p.st.Fit(" DEVICES", width), screen.Bold)}
	var measuring, others []deviceRow
	for _, d := range p.m.Devices {
		if d.Unit != "" {
			measuring = append(measuring, d)
		} else {
			others = append(others, d)
		}
	}
	for _, d := range measuring[:min(len(measuring), n-1)] {
		unit := p.st.Clean(d.Unit)
		text := fmt.Sprintf(" %s %s %s ", p.st.Fit(p.st.Clean(d.Name), 8), p.st.Right(fmt.Sprintf("%.1f", d.Value), 6), p.st.Fit(unit, 4))
		spark := width - screen.Cells(text) - 2
		out = append(out, text+p.st.Paint(p.st.Spark(d.History, spark), screen.Cyan)+"  ")
	}
	var parts []string
	for _, d := range others {
		parts = append(parts, d.Name+" "+d.Text)
	}
	out = append(out, p.st.Fit(p.st.Clean(" "+strings.Join(parts, ", ")), width))
	for len(out) < n+1 {
		out = append(out, strings.Repeat(" ", width))
	}
	return out
}

// proofLines are a header and five numbers, each width cells wide.
func (p *painter) proofLines(width int) []string {
	c := p.m.Proof
	repeats := ""
	if c.Repeats > 0 {
		repeats = units.Group(c.Repeats) + " repeated"
	}
	rows := []struct {
		name, note string
		n          int64
		colour     string
	}{
		{"accepted", "by PUBACK", c.Accepted, ""},
		{"committed", "at the cloud", c.Committed, ""},
		{"lost", "", c.Lost, alarm(c.Lost)},
		{"doubled", repeats, c.Doubled, alarm(c.Doubled)},
		{"kills survived", "kill -9", int64(p.m.Gateway.Kills), ""},
	}
	out := []string{p.st.Paint(p.st.Fit(" PROOF, counted at the receivers", width), screen.Bold)}
	for _, r := range rows {
		if width < 26 {
			out = append(out, p.st.Fit(fmt.Sprintf(" %s %s", r.name, units.Group(r.n)), width))
			continue
		}
		number := p.st.Right(units.Group(r.n), 8)
		note := p.st.Fit(p.st.Clean(" "+r.note), width-24)
		out = append(out, p.st.Fit(" "+r.name, 16)+p.st.Paint(number, screen.Bold, r.colour)+p.st.Paint(note, screen.Dim))
	}
	return out
}

func alarm(n int64) string {
	if n != 0 {
		return screen.Red
	}
	return screen.Green
}

func (p *painter) link() string {
	l := p.m.Link
	head, colour := " CLOUD  link up", screen.Green
	switch {
	case l.Cut:
		head, colour = fmt.Sprintf(" CLOUD  link cut for %s", brief(l.For)), screen.Red
	case !p.m.Gateway.Ready:
		head, colour = " CLOUD  waits for the gateway", screen.Yellow
	case !l.Up:
		head, colour = " CLOUD  connecting", screen.Yellow
	}
	text := fmt.Sprintf("   %s   %s sent", waits(l.Waiting), units.Group(l.Sent))
	if l.Rate >= 0.5 {
		text += fmt.Sprintf("   %.0f/s", l.Rate)
	}
	if l.Waiting > backlog && l.Rate > 0 && !l.Cut {
		text += drains(l.Drain)
	}
	head = p.st.Clean(head)
	if screen.Cells(head) >= p.cols {
		return p.line(head, colour)
	}
	return p.st.Paint(head, colour) + p.st.Fit(p.st.Clean(text), p.cols-screen.Cells(head))
}

// backlog is how many records are more than what is just on its way.
const backlog = 50

func waits(n int64) string {
	if n == 1 {
		return "1 record waits"
	}
	return units.Group(n) + " records wait"
}

func drains(d time.Duration) string {
	if d < 0 {
		return ""
	}
	return fmt.Sprintf("   drained in %s", brief(max(d.Round(time.Second), time.Second)))
}

func (p *painter) functions() []string {
	out := []string{p.line(fmt.Sprintf(" %-12s%8s%6s%9s%9s  %s", "FUNCTIONS", "runs", "ok %", "p99", "CPU/run", "what it does, or its last fault"), screen.Bold)}
	for _, f := range p.m.Functions {
		name := p.st.Fit(p.st.Clean(f.Name), 12)
		text := fmt.Sprintf(" %s%8s%6s%9s%9s  ", name, units.Group(f.Runs), ratio(f.OK, f.Runs), timing(f.P99, f.Runs), timing(f.CPU, f.Runs))
		remark := f.Remark
		if f.State != "active" {
			remark = f.State + ": " + remark
		}
		colour := ""
		if f.State != "active" {
			colour = screen.Yellow
		}
		out = append(out, p.line(text+remark, colour))
	}
	return out
}

func timing(d time.Duration, runs int64) string {
	if runs == 0 {
		return "-"
	}
	return brief(d)
}

// feed is a header and the newest lines, n in all.
func (p *painter) feed(n int) []string {
	out := []string{p.line(" FEED  what came in → what was decided and what it caused", screen.Bold)}
	for _, l := range p.m.Feed[max(0, len(p.m.Feed)-(n-1)):] {
		at := " " + l.Time.Format("15:04:05") + " "
		if screen.Cells(at) >= p.cols {
			out = append(out, p.line(l.Text))
			continue
		}
		out = append(out, p.st.Paint(at, screen.Dim)+p.st.Paint(p.st.Fit(p.st.Clean(l.Text), p.cols-screen.Cells(at)), kindColour(l.Kind)))
	}
	for len(out) < n {
		out = append(out, "")
	}
	return out
}

func kindColour(kind string) string {
	switch kind {
	case did, you:
		return screen.Cyan
	case good:
		return screen.Green
	case bad:
		return screen.Red
	}
	return ""
}

// foot is what to do: the file to edit, or what is wrong; and the keys.
func (p *painter) foot() []string {
	hint, codes := " edit "+p.m.Edit+"   (saving it takes effect)", []string{screen.Dim}
	switch {
	case p.m.Ending != "":
		hint, codes = " "+p.m.Ending, []string{screen.Yellow}
	case p.m.Gateway.Trouble != "":
		hint, codes = " "+p.m.Gateway.Trouble, []string{screen.Red}
	}
	cut := "c cut the link"
	if p.m.Link.Cut {
		cut = "c mend the link"
	}
	keys := fmt.Sprintf(" %s   k kill -9   x hostile function   q quit   b button", cut)
	return []string{p.line(hint, codes...), p.line(keys, screen.Turned)}
}
