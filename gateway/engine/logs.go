package engine

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/perigee-iot/perigee/functions"
)

// LogLine is one line of a function's log. Faults stand in it too.
type LogLine struct {
	Time     time.Time
	Function string
	Revision string
	Level    string
	Text     string
	EventID  string
	Fault    *functions.Fault

	timeOK bool // the clock was synchronised; else up is how long the machine had been
	up     time.Duration
}

// logLines bounds the lines remembered of one function.
const logLines = 200

// logs are the newest lines of every function, and those who follow them.
type logs struct {
	clock *Clock

	mu        sync.Mutex
	lines     map[string][]LogLine
	followers map[*follower[LogLine]]struct{}
}

func newLogs(c *Clock) *logs {
	return &logs{clock: c, lines: map[string][]LogLine{}, followers: map[*follower[LogLine]]struct{}{}}
}

// outcome keeps what an invocation logged, and its fault.
func (l *logs) outcome(f *function, j *job, o *functions.Outcome) {
	if len(o.Logs) == 0 && o.Fault == nil {
		return
	}
	base := LogLine{Function: f.Name, Revision: j.dep.Bundle.Digest, EventID: j.ev.ID}
	base.Time, base.up, base.timeOK = l.clock.look()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, x := range o.Logs {
		line := base
		line.Level, line.Text = x.Level, x.Text
		l.add(line)
	}
	if o.Fault != nil {
		line := base
		line.Level, line.Text, line.Fault = "error", o.Fault.Error(), o.Fault
		l.add(line)
	}
}

// note adds what the gateway has to say about a function, at the level error.
func (l *logs) note(fn, eventID, text string) {
	line := LogLine{Function: fn, EventID: eventID, Level: "error", Text: text}
	line.Time, line.up, line.timeOK = l.clock.look()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.add(line)
}

func (l *logs) add(line LogLine) {
	lines := append(l.lines[line.Function], line)
	if len(lines) > logLines {
		lines = append(lines[:0:0], lines[len(lines)-logLines:]...)
	}
	l.lines[line.Function] = lines
	for f := range l.followers {
		f.send(line)
	}
}

func (l *logs) forget(fn string) {
	l.mu.Lock()
	delete(l.lines, fn)
	l.mu.Unlock()
}

// Logs returns the newest lines of a function, of all if fn is "", oldest first, and follows as Lives does.
func (e *Engine) Logs(fn string, limit int, follow bool) (past []LogLine, more <-chan LogLine, stop func()) {
	l := e.logs
	l.mu.Lock()
	defer l.mu.Unlock()
	lines := l.lines[fn]
	if fn == "" {
		for _, of := range l.lines {
			lines = append(lines, of...)
		}
		slices.SortStableFunc(lines, func(a, b LogLine) int { return cmp.Compare(a.up, b.up) })
	}
	past = append(past, lines[max(0, len(lines)-limit):]...)
	for i := range past {
		past[i].Time, past[i].timeOK = l.clock.right(past[i].Time, past[i].timeOK, l.clock.Boot(), past[i].up)
	}
	if !follow {
		return past, nil, func() {}
	}
	f := newFollower[LogLine]()
	l.followers[f] = struct{}{}
	return past, f.ch, func() {
		l.mu.Lock()
		delete(l.followers, f)
		l.mu.Unlock()
	}
}
