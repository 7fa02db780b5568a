package cases

import (
	"fmt"
	"strings"
	"time"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/functions/rules"
	"github.com/perigee-iot/perigee/internal/units"
	"github.com/perigee-iot/perigee/internal/yamlfile"
)

// Run is one invocation that a step caused.
type Run struct {
	Text    string // the event, for people: "mqtt zigbee2mqtt/cellar", "timer dark"
	Own     bool   // it ran on the step's own event, not on what followed from that
	Key     string
	Outcome *functions.Outcome
	Verdict rules.Verdict
}

// Did is what a step caused, and how things stand after it.
type Did struct {
	Runs    []Run
	Skipped string // why the step's event did not run, if it did not
	State   func(name string) []byte
	Shared  func(name string) []byte
	Timer   func(name string) (left time.Duration, set bool)
}

// own is the invocation that result, fault and retry are about: that of the step's event, else the last.
func (d *Did) own() *Run {
	for i := range d.Runs {
		if d.Runs[i].Own {
			return &d.Runs[i]
		}
	}
	if n := len(d.Runs); n > 0 {
		return &d.Runs[n-1]
	}
	return nil
}

// actions are the effects that left the function, in order.
func (d *Did) actions() (list []functions.Effect) {
	for _, r := range d.Runs {
		if r.Verdict.What != "committed" {
			continue
		}
		for _, x := range r.Outcome.Effects {
			switch x.Kind {
			case functions.SetState, functions.DeleteState, functions.IncrState, functions.SetShared, functions.DeleteShared, functions.IncrShared,
				functions.SetTimer, functions.CancelTimer:
			default:
				list = append(list, x)
			}
		}
	}
	return list
}

// checker compares one step.
type checker struct {
	e   *Expect
	did *Did
	out []Failure
}

func (c *checker) fail(n yamlfile.Node, what string, lines ...Line) {
	c.out = append(c.out, Failure{Line: n.Line(), What: what, Lines: lines})
}

// Check compares what a step caused with what it expects, and returns what is different.
func (e *Expect) Check(did *Did) []Failure {
	c := &checker{e: e, did: did}
	c.faults()
	if !e.effectsAt.IsZero() {
		c.effects()
	}
	c.result()
	c.retried()
	c.skipped()
	c.values("state", e.state, did.State)
	c.values("shared", e.shared, did.Shared)
	c.timers()
	c.log()
	return c.out
}

// faults: a fault that nobody expects fails every case, wherever it comes from.
func (c *checker) faults() {
	w, _ := wantedFault(c.e.fault)
	own := c.did.own()
	for i := range c.did.Runs {
		r := &c.did.Runs[i]
		if r.Outcome.Fault == nil || (r == own && w != nil) {
			continue
		}
		lines := []Line{}
		for _, l := range strings.Split(r.Outcome.Fault.Text(), "\n") {
			lines = append(lines, Line{Text: strings.TrimRight(l, " ")})
		}
		c.fail(c.e.fault, "fault on "+r.Text, lines...)
	}
	if w == nil {
		return
	}
	expected := strings.Trim(string(w.Kind)+": "+w.Message, ": ")
	switch {
	case own == nil:
		c.fail(c.e.fault, "fault", pair(expected, c.idle())...)
	case own.Outcome.Fault == nil:
		c.fail(c.e.fault, "fault", pair(expected, "none")...)
	case (w.Kind != "" && own.Outcome.Fault.Kind != w.Kind) || !strings.Contains(own.Outcome.Fault.Text(), w.Message):
		c.fail(c.e.fault, "fault", pair(expected, own.Outcome.Fault.Error())...)
	}
}

// idle says why nothing ran.
func (c *checker) idle() string {
	if c.did.Skipped != "" {
		return "nothing: the function did not run, " + c.did.Skipped
	}
	return "nothing: the function did not run"
}

func (c *checker) result() {
	n := c.e.result
	if n.IsZero() {
		return
	}
	own := c.did.own()
	if own == nil {
		if n.Kind() != yamlfile.Null {
			c.fail(n, "result", pair(string(toJSON(n)), c.idle())...)
		}
		return
	}
	c.different(n, "result", matchJSON(n, "", own.Outcome.Result))
}

// different reports the differences of one value.
func (c *checker) different(n yamlfile.Node, what string, list []difference) {
	if len(list) > 0 {
		c.fail(n, what, differences(list)...)
	}
}

// reason compares a reason with true, false or a part of it.
func (c *checker) reason(n yamlfile.Node, what, got string) {
	expected := n.Text()
	switch yes, isBool := n.Value().(bool); {
	case n.IsZero(), isBool && yes == (got != ""), !isBool && got != "" && strings.Contains(got, expected):
		return
	}
	if got == "" {
		got = "no"
	}
	c.fail(n, what, pair(expected, got)...)
}

func (c *checker) retried() {
	got := ""
	if own := c.did.own(); own != nil && own.Outcome.Retry != nil {
		got = own.Outcome.Retry.Why
		if got == "" {
			got = "without a reason"
		}
	}
	c.reason(c.e.retry, "retry", got)
}

func (c *checker) skipped() { c.reason(c.e.skipped, "skipped", c.did.Skipped) }

func (c *checker) values(what string, n yamlfile.Node, get func(string) []byte) {
	var list []difference
	keys := n.Keys()
	for i, w := range n.Items() {
		v := get(keys[i])
		if v == nil && w.Kind() != yamlfile.Null {
			list = append(list, difference{path: keys[i], expected: string(toJSON(w)), missing: true})
			continue
		}
		list = append(list, matchJSON(w, keys[i], v)...)
	}
	c.different(n, what, list)
}

func (c *checker) timers() {
	var list []difference
	keys := c.e.timers.Keys()
	for i, n := range c.e.timers.Items() {
		left, set := c.did.Timer(keys[i])
		var want units.Duration
		_ = n.Decode(&want) // it was checked when it was read
		switch {
		case n.Kind() == yamlfile.Null && set:
			list = append(list, difference{path: keys[i], expected: "not set", got: units.Duration(left).String()})
		case n.Kind() != yamlfile.Null && !set:
			list = append(list, difference{path: keys[i], expected: want.String(), got: "not set"})
		case n.Kind() != yamlfile.Null && time.Duration(want) != left:
			list = append(list, difference{path: keys[i], expected: want.String(), got: units.Duration(left).String()})
		}
	}
	c.different(c.e.timers, "timers", list)
}

func (c *checker) log() {
	if c.e.log.IsZero() {
		return
	}
	var got []functions.LogLine
	for _, r := range c.did.Runs {
		got = append(got, r.Outcome.Logs...)
	}
	wanted := c.e.log.Items()
	fits := func(i, j int) bool {
		level, part, _ := logEntry(wanted[i])
		return (level == "" || level == got[j].Level) && strings.Contains(got[j].Text, part)
	}
	show := func(i int) string {
		level, part, _ := logEntry(wanted[i])
		return strings.TrimSpace(level + " " + fmt.Sprintf("%q", part))
	}
	c.lists(c.e.log, "log", len(wanted), len(got), func(i, j int) int {
		if fits(i, j) {
			return 0
		}
		return 2
	}, func(i, j int) []Line {
		switch {
		case j < 0:
			return []Line{{Mark: '-', Text: show(i) + missing}}
		case i < 0:
			return []Line{{Mark: '+', Text: got[j].Level + " " + rules.Printable(got[j].Text, 200) + surplus}}
		}
		return []Line{{Mark: '=', Text: got[j].Level + " " + rules.Printable(got[j].Text, 200)}}
	})
}
