package cli

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/perigee-iot/perigee/gateway/api"
	"github.com/perigee-iot/perigee/gateway/screen"
	"github.com/perigee-iot/perigee/internal/units"
)

func topCommand() *command {
	return &command{
		name: "top", brief: "what functions cost now, live",
		text: `On a terminal it goes on until q; each key of its last line sorts by another column. Elsewhere, and with --json, it measures once.
CPU is of one core: 100 % is a core that does nothing else. FLASH is bytes given to the store, before it compacts them.`,
		flags: []cli.Flag{
			&cli.StringFlag{Name: "every", Usage: "measure for this `TIME`, again and again", Value: "1s"},
			&cli.StringFlag{Name: "sort", Usage: "by this `COLUMN`: " + strings.Join(topNames(), ", "), Value: "cpu"},
		},
		examples: []string{"perigee top", "perigee top --sort memory", "perigee top --every 10s --json | jq '.functions[0]'"},
		run:      runTop,
	}
}

func runTop(c *call) error {
	every, err := units.ParseDuration(c.String("every"))
	if err != nil {
		return usagef("--every: %s", err)
	}
	if every < 100*time.Millisecond {
		return usagef("--every %v is too short: 100ms at least", every)
	}
	by := slices.Index(topNames(), c.String("sort"))
	if by < 0 {
		return usagef("--sort is %q, which is no column", c.String("sort")).withHint("there are: %s", strings.Join(topNames(), ", "))
	}
	gw, err := c.gateway()
	if err != nil {
		return err
	}
	first, err := gw.Top(c.ctx)
	if err != nil {
		return err
	}
	m := &topModel{by: by, every: every}
	m.take(first)
	if in, out, ok := screen.Terminal(c.p.opts.Stdin, c.p.opts.Stdout); ok && !c.json() {
		return liveTop(c.ctx, gw, m, in, out)
	}
	select {
	case <-c.ctx.Done():
		return nil
	case <-time.After(every):
	}
	second, err := gw.Top(c.ctx)
	if err != nil {
		return err
	}
	m.take(second)
	if c.json() {
		return c.out.json(m.report())
	}
	writeTop(c.out, m)
	return nil
}

// topReport is what is measured between two answers of the gateway.
type topReport struct {
	Gateway   string           `json:"gateway"`
	Uptime    time.Duration    `json:"uptime_ns"`
	Interval  time.Duration    `json:"interval_ns"` // 0: there is only one answer yet
	CPUs      int              `json:"cpus"`
	CPU       float64          `json:"cpu_percent"` // of one core, all functions
	Runs      float64          `json:"runs_per_second"`
	Workers   api.WorkerStatus `json:"workers"`
	Events    api.EventCounts  `json:"events"`
	Functions []topRow         `json:"functions"`
}

// topRow is one function.
type topRow struct {
	Name    string        `json:"name"`
	State   string        `json:"state"`
	CPU     float64       `json:"cpu_percent"`
	Runs    float64       `json:"runs_per_second"`
	Faults  float64       `json:"faults_per_second"`
	P99     time.Duration `json:"p99_ns"` // since the gateway's start
	Memory  int64         `json:"memory_max_bytes"`
	Waiting int64         `json:"waiting"`
	Flash   float64       `json:"written_bytes_per_second"`
	In      float64       `json:"in_bytes_per_second"`
	Out     float64       `json:"out_bytes_per_second"`
	Stored  int64         `json:"state_bytes"`
}

// topColumn is one column: how it is written, and what it is sorted by, the highest first.
type topColumn struct {
	key   byte // that sorts by it
	name  string
	head  string
	width int
	text  func(r *topRow) string
	value func(r *topRow) float64
}

// topColumns stand in the order in which a narrow screen leaves them out, the last first.
func topColumns() []topColumn {
	rate := func(f float64) string {
		if f > 0 && f < 9.95 {
			return fmt.Sprintf("%.1f", f)
		}
		return units.Group(int64(f + 0.5))
	}
	bytes := func(f float64) string { return strings.ReplaceAll(size(int64(f+0.5)), "iB", "") }
	return []topColumn{
		{'c', "cpu", "CPU %", 7, func(r *topRow) string { return fmt.Sprintf("%.1f", r.CPU) }, func(r *topRow) float64 { return r.CPU }},
		{'r', "runs", "RUNS/s", 8, func(r *topRow) string { return rate(r.Runs) }, func(r *topRow) float64 { return r.Runs }},
		{'f', "faults", "FAULT/s", 9, func(r *topRow) string { return rate(r.Faults) }, func(r *topRow) float64 { return r.Faults }},
		{'t', "time", "P99", 8, func(r *topRow) string { return span(r.P99) }, func(r *topRow) float64 { return float64(r.P99) }},
		{'m', "memory", "MEMORY", 8, func(r *topRow) string {
			if r.Memory == 0 {
				return "-"
			}
			return bytes(float64(r.Memory))
		}, func(r *topRow) float64 { return float64(r.Memory) }},
		{'w', "waiting", "WAIT", 7, func(r *topRow) string { return units.Group(r.Waiting) }, func(r *topRow) float64 { return float64(r.Waiting) }},
		{'l', "flash", "FLASH/s", 9, func(r *topRow) string { return bytes(r.Flash) }, func(r *topRow) float64 { return r.Flash }},
		{'i', "in", "IN/s", 8, func(r *topRow) string { return bytes(r.In) }, func(r *topRow) float64 { return r.In }},
		{'o', "out", "OUT/s", 8, func(r *topRow) string { return bytes(r.Out) }, func(r *topRow) float64 { return r.Out }},
		{'s', "state", "STATE", 8, func(r *topRow) string { return bytes(float64(r.Stored)) }, func(r *topRow) float64 { return float64(r.Stored) }},
		{'n', "name", "", 0, nil, func(*topRow) float64 { return 0 }}, // the first on the screen, and never left out
	}
}

func topNames() (names []string) {
	for _, c := range topColumns() {
		names = append(names, c.name)
	}
	return names
}

// topModel is the last two answers of the gateway.
type topModel struct {
	by      int // index of the column that it is sorted by
	every   time.Duration
	was, is *api.Top
	err     error // why there is no newer answer
}

// take takes a new answer. One that counts from a later start than the last begins anew.
func (m *topModel) take(t *api.Top) {
	m.was, m.is, m.err = m.is, t, nil
	if m.was != nil && m.was.Uptime >= t.Uptime {
		m.was = nil
	}
}

// report is what happened between the two answers, sorted.
func (m *topModel) report() topReport {
	r := topReport{Gateway: m.is.Gateway, Uptime: m.is.Uptime, CPUs: m.is.CPUs, Workers: m.is.Workers, Events: m.is.Events, Functions: []topRow{}}
	before := map[string]*api.TopFunction{}
	if m.was != nil {
		r.Interval = m.is.Uptime - m.was.Uptime
		for i := range m.was.Functions {
			before[m.was.Functions[i].Name] = &m.was.Functions[i]
		}
	}
	for i := range m.is.Functions {
		f := &m.is.Functions[i]
		row := topRow{Name: f.Name, State: f.State, P99: f.P99, Memory: f.Memory, Waiting: f.Waiting, Stored: f.Stored}
		if b := before[f.Name]; b != nil && b.Runs <= f.Runs {
			rate := func(was, is int64) float64 { return float64(max(is-was, 0)) / r.Interval.Seconds() }
			row.CPU = rate(int64(b.CPU), int64(f.CPU)) / 1e7
			row.Runs, row.Faults = rate(b.Runs, f.Runs), rate(b.Faults, f.Faults)
			row.Flash, row.In, row.Out = rate(b.Written, f.Written), rate(b.In, f.In), rate(b.Out, f.Out)
		}
		r.CPU += row.CPU
		r.Runs += row.Runs
		r.Functions = append(r.Functions, row)
	}
	value := topColumns()[m.by].value
	slices.SortStableFunc(r.Functions, func(a, b topRow) int {
		return cmp.Or(cmp.Compare(value(&b), value(&a)), strings.Compare(a.Name, b.Name))
	})
	return r
}

// summary is the gateway in one line.
func (r *topReport) summary() string {
	return fmt.Sprintf("%s runs/s   CPU %.1f %% of %d %%   workers %d of %d, %d busy   %s waiting, %s in the inbox, %s dead",
		units.Group(int64(r.Runs+0.5)), r.CPU, 100*r.CPUs, r.Workers.Running, r.Workers.Max, r.Workers.Busy,
		units.Group(r.Events.Waiting), units.Group(r.Events.Inbox), units.Group(r.Events.Dead))
}

func writeTop(out *printer, m *topModel) {
	r := m.report()
	out.line("%s  up %s", out.bold(r.Gateway), span(r.Uptime.Round(time.Second)))
	out.line("%s", r.summary())
	cols := topColumns()
	head := []string{"FUNCTION"}
	for _, c := range cols[:len(cols)-1] {
		head = append(head, c.head)
	}
	rows := [][]string{head}
	for i := range r.Functions {
		f := &r.Functions[i]
		row := []string{f.Name}
		for _, c := range cols[:len(cols)-1] {
			row = append(row, c.text(f))
		}
		rows = append(rows, row)
	}
	out.table(rows)
}

// redrawEvery is how soon a new size of the terminal shows.
const redrawEvery = 200 * time.Millisecond

// liveTop shows the model until q, the end of the input, or ctx ends.
func liveTop(ctx context.Context, gw *api.Client, m *topModel, in, out *os.File) error {
	s, err := screen.Open(in, out)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	keys, answers := make(chan byte), make(chan func())
	var helpers sync.WaitGroup
	defer func() {
		stop()
		s.Close()
		helpers.Wait()
	}()
	helpers.Go(func() { readKeys(ctx, s, keys) })
	helpers.Go(func() { askTop(ctx, gw, m, answers) })
	tick := time.NewTicker(redrawEvery)
	defer tick.Stop()
	st := screen.StyleOf(os.Getenv)
	for {
		cols, rows := s.Size()
		if err := s.Draw(topFrame(m, st, time.Now(), cols, rows), cols, rows); err != nil {
			return nil // the terminal has gone
		}
		select {
		case <-ctx.Done():
			return nil
		case take := <-answers:
			take()
		case <-tick.C:
		case k := <-keys:
			if !m.press(k) {
				return nil
			}
		}
	}
}

func readKeys(ctx context.Context, s *screen.Screen, to chan<- byte) {
	for {
		k := s.Key(ctx.Done())
		select {
		case <-ctx.Done():
			return
		case to <- k:
		}
		if k == 0 {
			return
		}
	}
}

// askTop asks again and again; what it sends is for the goroutine that owns the model.
func askTop(ctx context.Context, gw *api.Client, m *topModel, to chan<- func()) {
	tick := time.NewTicker(m.every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		t, err := gw.Top(ctx)
		take := func() { m.take(t) }
		if err != nil {
			take = func() { m.err = err }
		}
		select {
		case <-ctx.Done():
			return
		case to <- take:
		}
	}
}

// press does what a key asks for, and says whether it is not the end. The end of the input, Ctrl-C and Ctrl-D are.
func (m *topModel) press(key byte) (more bool) {
	switch key {
	case 'q', 'Q', 0, 3, 4:
		return false
	}
	for i, c := range topColumns() {
		if key|0x20 == c.key {
			m.by = i
		}
	}
	return true
}

// topFrame draws the model: exactly rows lines, none of them wider than the screen.
func topFrame(m *topModel, st screen.Style, now time.Time, cols, rows int) []string {
	if cols < 1 || rows < 1 {
		return nil
	}
	line := func(text string, codes ...string) string { return st.Paint(st.Fit(st.Clean(text), cols), codes...) }
	r := m.report()
	columns := topColumns()
	shown, room := 0, cols-minName
	for shown < len(columns)-1 && room >= columns[shown].width {
		room -= columns[shown].width
		shown++
	}
	name := max(cols-1, 0)
	for _, c := range columns[:shown] {
		name -= c.width
	}
	table := func(first string, cell func(c topColumn) string) string {
		text := " " + st.Fit(st.Clean(first), name)
		for _, c := range columns[:shown] {
			text += st.Right(st.Clean(cell(c)), c.width)
		}
		return text
	}
	out := []string{line(fmt.Sprintf(" PERIGEE top  %s  up %s  %s", r.Gateway, span(r.Uptime.Round(time.Second)), now.Format("15:04:05")), screen.Bold)}
	switch {
	case m.err != nil:
		text, _, _ := strings.Cut(m.err.Error(), "\n")
		out = append(out, line(" "+text, screen.Red))
	case r.Interval == 0:
		out = append(out, line(" measuring …", screen.Dim))
	default:
		out = append(out, line(" "+r.summary()))
	}
	out = append(out, line(table(topHead("FUNCTION", columns[m.by].name == "name", st), func(c topColumn) string { return topHead(c.head, c.name == columns[m.by].name, st) }), screen.Turned))
	for i := range r.Functions[:min(len(r.Functions), max(rows-len(out)-1, 0))] {
		f := &r.Functions[i]
		label, colour := f.Name, ""
		switch {
		case f.State != "active":
			label, colour = f.Name+" ("+f.State+")", screen.Yellow
		case f.Faults > 0:
			colour = screen.Red
		}
		out = append(out, line(table(label, func(c topColumn) string { return c.text(f) }), colour))
	}
	for len(out) < rows-1 {
		out = append(out, "")
	}
	out = append(out[:min(len(out), rows-1)], line(topKeys(), screen.Dim))
	return out
}

// minName is how many cells a function's name gets at least.
const minName = 14

// topHead marks the column that the rows are sorted by.
func topHead(head string, by bool, st screen.Style) string {
	switch {
	case !by:
		return head
	case st.ASCII:
		return head + "*"
	}
	return head + "▾"
}

func topKeys() string {
	text := " sort by"
	for _, c := range topColumns() {
		text += fmt.Sprintf(" %c:%s", c.key, c.name)
	}
	return text + "   q:quit"
}
