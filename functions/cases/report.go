package cases

import (
	"fmt"
	"strings"
	"time"

	"github.com/perigee-iot/perigee/functions/rules"
)

// Result is what became of a case.
type Result struct {
	Function string        `json:"function"`
	Name     string        `json:"name"`
	File     string        `json:"file"`
	Line     int           `json:"line"`
	Passed   bool          `json:"passed"`
	Wall     time.Duration `json:"wall_ns"`
	Failures []Failure     `json:"failures,omitempty"`
	Logs     []string      `json:"logs,omitempty"` // of a case that failed: what the function logged, "info …"
}

// Failure is one thing that was not as expected.
type Failure struct {
	Step  int    `json:"step,omitempty"` // from 1; 0: the case could not run
	At    string `json:"at,omitempty"`   // what happened in the step: "after 2m"
	Line  int    `json:"line"`           // in the case's file
	What  string `json:"what"`           // expect, result, fault, state, …
	Lines []Line `json:"lines,omitempty"`
}

// Line is one line of a comparison.
type Line struct {
	Mark rune   `json:"-"` // '=' as expected, '≠' not quite, '-' missing, '+' not expected, 'e' expected, 'g' got, 0 a remark
	Text string `json:"text"`
}

// MarshalText writes the line with its mark.
func (l Line) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// String is the line with its mark: "- stream alerts", "    expected  data.hot  true".
func (l Line) String() string {
	switch l.Mark {
	case 0:
		return "  " + l.Text
	case 'e':
		return "    expected  " + l.Text
	case 'g':
		return "    got       " + l.Text
	}
	return string(l.Mark) + " " + l.Text
}

// pair is what was expected and what there was.
func pair(expected, got string) []Line {
	return []Line{{Mark: 'e', Text: rules.Printable(expected, maxShown)}, {Mark: 'g', Text: rules.Printable(got, maxShown)}}
}

// differences are pairs of lines for values that differ, their paths aligned.
func differences(list []difference) (lines []Line) {
	width := 0
	for _, d := range list {
		width = max(width, len(d.path))
	}
	for _, d := range list {
		got := d.got
		if d.missing {
			got = "nothing"
		}
		path := ""
		if width > 0 {
			path = fmt.Sprintf("%-*s  ", width, d.path)
		}
		lines = append(lines, pair(path+d.expected, path+got)...)
	}
	if len(list) == maxDifferences {
		lines = append(lines, Line{Text: "perhaps more"})
	}
	return lines
}

// Text is the failure without colours, a line each.
func (f *Failure) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s", f.Title())
	for _, l := range f.Lines {
		b.WriteString("\n  " + l.String())
	}
	return b.String()
}

// Title says which step it is about: "step 2, after 2m: expect".
func (f *Failure) Title() string {
	if f.Step == 0 {
		return f.What
	}
	return fmt.Sprintf("step %d, %s: %s", f.Step, f.At, f.What)
}
