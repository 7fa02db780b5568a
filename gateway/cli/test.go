package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/functions/bundle"
	"github.com/perigee-iot/perigee/functions/cases"
	"github.com/perigee-iot/perigee/functions/recording"
)

// Stage runs functions without a gateway: their cases, and recordings, one at a time. functions/cases/stage has the real one.
type Stage interface {
	Compile(ctx context.Context, b *functions.Bundle) *functions.Fault
	Run(ctx context.Context, b *functions.Bundle, c *cases.Case) *cases.Result
	recording.Runner
	Close()
}

func testCommand() *command {
	return &command{
		name: "test", usage: "PATH…", brief: "run the cases that functions bring along, without a gateway", min: 1, max: -1, local: true,
		text: `Each PATH is a folder of a function, a folder of such folders, or one file in a function's tests/. The functions run in a worker as on
a gateway, with a clock that only the cases move. It exits with 1 if a case fails and with 2 if a case file or a function.yaml is wrong.`,
		flags: []cli.Flag{
			&cli.StringFlag{Name: "run", Aliases: []string{"filter"}, Usage: "only cases with `TEXT` in their names"},
		},
		examples: []string{"perigee test overheat", "perigee test functions --run 'a warm room'", "perigee test overheat/tests/warm.yaml"},
		run: func(c *call) error {
			found, err := findTests(c.args)
			if err != nil {
				return err
			}
			t := &tester{out: c.out, json: c.json(), filter: strings.ToLower(c.String("run"))}
			if t.stage, err = c.p.opts.Stage(); err != nil {
				return err
			}
			defer t.stage.Close()
			for _, f := range found {
				if err := t.test(c.ctx, f); err != nil {
					return err
				}
			}
			return t.end(c)
		},
	}
}

// tests is a function's folder whose cases are to run.
type tests struct {
	dir  string
	file string // only this one, such as tests/warm.yaml; empty: all
}

// findTests finds the functions that paths mean.
func findTests(paths []string) (list []tests, err error) {
	for _, p := range paths {
		p = filepath.Clean(p)
		info, err := os.Stat(p)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil, usagef("there is no %s", p)
		case err != nil:
			return nil, err
		case !info.IsDir():
			folder := filepath.Dir(p)
			if filepath.Base(folder) != "tests" || filepath.Ext(p) != ".yaml" {
				return nil, usagef("%s is no case file", p).withHint("give a function's folder, or a file in its tests/")
			}
			list = append(list, tests{dir: filepath.Dir(folder), file: "tests/" + filepath.Base(p)})
			continue
		case exists(filepath.Join(p, "function.yaml")):
			list = append(list, tests{dir: p})
			continue
		}
		below, _ := filepath.Glob(filepath.Join(p, "*", "function.yaml"))
		if len(below) == 0 {
			return nil, noBundle(p)
		}
		for _, f := range below {
			list = append(list, tests{dir: filepath.Dir(f)})
		}
	}
	return list, nil
}

// tester runs cases and counts.
type tester struct {
	out    *printer
	stage  Stage
	json   bool
	filter string // in lower case
	brief  bool   // only what fails is shown

	passed, failed int
	wrong          int // files that could not be read
	chosen         int // cases that the filter let through
	without        []string
}

// test runs the cases of one function.
func (t *tester) test(ctx context.Context, in tests) error {
	b, err := bundle.Load(in.dir)
	if err != nil {
		t.bad(err)
		return nil
	}
	if in.file != "" {
		for _, p := range cases.Files(b) {
			if p != in.file {
				delete(b.Files, p) // the others are not to be read, either
			}
		}
	}
	return t.bundle(ctx, b, in.dir)
}

// bundle runs the cases of a function that stands in dir.
func (t *tester) bundle(ctx context.Context, b *functions.Bundle, dir string) error {
	list, err := cases.Load(b, func(p string) string { return filepath.Join(dir, filepath.FromSlash(p)) })
	if err != nil {
		t.bad(err)
	}
	if len(list) == 0 && err == nil {
		t.without = append(t.without, dir)
		return nil
	}
	compiled := false
	for _, c := range list {
		if !strings.Contains(strings.ToLower(c.Name), t.filter) {
			continue
		}
		t.chosen++
		if !compiled {
			if f := t.stage.Compile(ctx, b); f != nil {
				t.failed++
				t.say("%s  %s does not compile", t.out.bad("FAIL"), b.Spec.Name)
				writeIndented(t.out, safeLines(f.Text()))
				return ctx.Err()
			}
			compiled = true
		}
		r := t.stage.Run(ctx, b, c)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if r.Passed {
			t.passed++
		} else {
			t.failed++
		}
		if err := t.report(r); err != nil {
			return err
		}
	}
	return nil
}

// bad reports a function or case file that is wrong; the others are still run.
func (t *tester) bad(err error) {
	t.wrong++
	for _, l := range strings.Split(err.Error(), "\n") {
		t.say("%s  %s", t.out.bad("WRONG"), safe(l, 0))
	}
}

func (t *tester) say(format string, args ...any) {
	if !t.json {
		t.out.line(format, args...)
	}
}

func (t *tester) report(r *cases.Result) error {
	if t.json {
		return t.out.jsonLine(r)
	}
	if r.Passed {
		if !t.brief {
			t.out.line("%s    %s: %s", t.out.good("ok"), r.Function, safe(r.Name, 0))
		}
		return nil
	}
	t.out.line("%s  %s: %s %s", t.out.bad("FAIL"), r.Function, safe(r.Name, 0), t.out.dim(fmt.Sprintf("(%s:%d)", r.File, r.Line)))
	for _, f := range r.Failures {
		t.out.line("      %s %s", safe(f.Title(), 0), t.out.dim(fmt.Sprintf("(%s:%d)", r.File, f.Line)))
		for _, l := range f.Lines {
			t.out.line("        %s", t.paint(l))
		}
	}
	for _, l := range r.Logs {
		t.out.line("      log: %s", safe(l, 300))
	}
	return nil
}

// paint colours a line of a comparison.
func (t *tester) paint(l cases.Line) string {
	s := safe(l.String(), 0)
	switch l.Mark {
	case '-', 'e':
		return t.out.good(s)
	case '+', 'g', '≠':
		return t.out.bad(s)
	}
	return s
}

// safeLines is safe for text of several lines.
func safeLines(s string) string {
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		lines[i] = safe(l, 0)
	}
	return strings.Join(lines, "\n")
}

// end says how it went, and with which exit code.
func (t *tester) end(c *call) error {
	for _, dir := range t.without {
		t.say("%s  %s has no tests", t.out.dim("none"), dir)
	}
	if t.chosen == 0 && t.wrong == 0 {
		if t.filter != "" {
			return usagef("no case has %q in its name", c.String("run"))
		}
		return usagef("there is nothing to test: %s", strings.Join(t.without, ", ")).
			withHint("write cases into tests/ of the function's folder; perigee events save makes one of an event")
	}
	t.say("%s", t.sum())
	switch {
	case t.wrong > 0:
		if t.json {
			return usagef("%d of the functions or case files are wrong", t.wrong).withHint("see them without --json")
		}
		return &exitError{ExitUsage}
	case t.failed > 0:
		return &exitError{ExitFailed}
	}
	return nil
}

// sum is "12 passed, 1 failed".
func (t *tester) sum() string {
	s := fmt.Sprintf("%d passed, %d failed", t.passed, t.failed)
	if t.wrong > 0 {
		s += fmt.Sprintf(", %d wrong", t.wrong)
	}
	if t.failed > 0 || t.wrong > 0 {
		return t.out.bad(s)
	}
	return t.out.good(s)
}
