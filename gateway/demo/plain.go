package demo

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/perigee-iot/perigee/configs/examples"
	"github.com/perigee-iot/perigee/gateway/screen"
	"github.com/perigee-iot/perigee/internal/units"
)

// plainLog writes a line with the numbers every second, and one for each event of note, until ctx ends.
func (d *demo) plainLog(ctx context.Context) {
	fmt.Fprintf(d.o.Stdout, "perigee demo in %s; edit %s\n", shorten(d.w.dir), d.board.m.Edit)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, l := range d.board.take() {
			if l.Kind != plain {
				fmt.Fprintf(d.o.Stdout, "%s %s\n", l.Time.Format("15:04:05"), d.st.Clean(l.Text))
			}
		}
		m, _ := d.snapshot()
		fmt.Fprintln(d.o.Stdout, numbers(&m))
	}
}

// numbers is the model as a line of a log.
func numbers(m *model) string {
	gateway, link := "running", "up"
	if !m.Gateway.Ready {
		gateway = "starting"
	}
	if m.Gateway.PID == 0 {
		gateway = "down"
	}
	switch {
	case m.Link.Cut:
		link = "cut"
	case !m.Link.Up:
		link = "connecting"
	}
	c := m.Proof
	return fmt.Sprintf("%s accepted=%d committed=%d lost=%d doubled=%d kills=%d waiting=%d repeats=%d gateway=%s link=%s", m.Now.Format("15:04:05"),
		c.Accepted, c.Committed, c.Lost, c.Doubled, m.Gateway.Kills, c.Waiting, c.Repeats, gateway, link)
}

// writeSummary prints the numbers and what to do next.
func writeSummary(out io.Writer, st screen.Style, c counts, kills int, w *workspace) {
	row := func(name string, n int64, text string) {
		fmt.Fprintf(out, "%-10s %10s   %s\n", name, units.Group(n), text)
	}
	fmt.Fprintln(out)
	row("accepted", c.Accepted, "the gateway answered with a PUBACK")
	row("committed", c.Committed, "arrived at the cloud")
	row("lost", c.Lost, "accepted, and did not arrive")
	row("doubled", c.Doubled, "arrived twice")
	row("kills", int64(kills), "survived: kill -9")
	if c.Waiting > 0 {
		row("waiting", c.Waiting, "on the gateway's disk, until it has its link again")
	}
	program := programName()
	funcs := shorten(w.funcs)
	// A function that is written where the others are needs no other command: the next run of either kind has it.
	fmt.Fprintf(out, `
What next:
  %s %s
  %s new %s --on 'mqtt:zigbee2mqtt/{room}'
  %s cloud --listen tcp://%s &
  %s run --config %s
`, editor(), quoted(filepath.Join(funcs, examples.Overheat, "main.lua")), program, quoted(filepath.Join(funcs, "hello")),
		program, w.uplink, program, quoted(shorten(w.config)))
}

// editor is the user's editor, or one that is there.
func editor() string {
	if e := orElse(os.Getenv("VISUAL"), os.Getenv("EDITOR")); e != "" {
		return e
	}
	if _, err := exec.LookPath("nano"); err == nil {
		return "nano"
	}
	return "vi"
}

// programName is how the user calls this program.
func programName() string {
	if p, err := exec.LookPath("perigee"); err == nil && p != "" {
		return "perigee"
	}
	return quoted(shorten(os.Args[0]))
}

// quoted makes one word of a path for a shell.
func quoted(s string) string {
	if strings.ContainsAny(s, " '\"$&;()*?<>|\\`") {
		return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
	}
	return s
}
