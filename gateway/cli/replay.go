package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/perigee-iot/perigee/functions/bundle"
	"github.com/perigee-iot/perigee/functions/recording"
)

func replayCommand() *command {
	return &command{
		name: "replay", usage: "FILE", brief: "run a function on a recording, and show what it does differently", min: 1, max: 1, local: true,
		text: `FILE is from perigee record. The function in the folder PATH runs in a worker on every recorded event, with the state, the time and the
random numbers that the recorded revision had, and its effects are compared with the recorded ones. No gateway is asked and nothing is
done. What it reads and the recorded revision did not is taken from what is known of the recording, else it is nil, and shown as unknown.
With --carry its own writes to state count, too, so that what follows from a difference shows. Logs are not compared. It exits with 1 if
anything differs.`,
		flags: []cli.Flag{
			&cli.StringFlag{Name: "function", Usage: "the folder `PATH` of the function"},
			&cli.StringFlag{Name: "event", Usage: "only the event `ID`"},
			&cli.StringFlag{Name: "key", Usage: "only invocations of `KEY`"},
			&cli.StringSliceFlag{Name: "set", Usage: "a setting instead of the recorded one, as `NAME=VALUE`; may be repeated"},
			&cli.BoolFlag{Name: "carry", Usage: "the function reads what it wrote to state itself"},
			&cli.BoolFlag{Name: "all", Usage: "show what is the same, too"},
			&cli.IntFlag{Name: "limit", Usage: "show the first `N` invocations that differ; 0, and with --json: all", Value: 20},
		},
		examples: []string{"perigee replay afternoon.ndjson --function overheat", "perigee replay afternoon.ndjson --function overheat --key cellar --set on=27 --carry"},
		run:      replay,
	}
}

func replay(c *call) error {
	if c.String("function") == "" {
		return usagef("which function? give its folder with --function")
	}
	b, err := bundle.Load(c.String("function"))
	if err != nil {
		return usagef("%s", err)
	}
	override, err := settingsOf(c.StringSlice("set"))
	if err != nil {
		return err
	}
	v := &replayer{c: c, out: c.out, file: c.args[0], limit: c.Int("limit")}
	if c.json() && !c.IsSet("limit") { // a program wants all of it
		v.limit = 0
	}
	if err := v.survey(b.Spec.Name); err != nil {
		return err
	}
	if v.stage, err = c.p.opts.Stage(); err != nil {
		return err
	}
	defer v.stage.Close()
	if f := v.stage.Compile(c.ctx, b); f != nil {
		c.out.line("%s  %s does not compile", c.out.bad("FAIL"), b.Spec.Name)
		writeIndented(c.out, safeLines(f.Text()))
		return &exitError{ExitFailed}
	}
	v.player, err = recording.NewPlayer(recording.Options{Runner: v.stage, Bundle: b, Function: v.function, Gateway: v.begin.Gateway, Override: override, Carry: c.Bool("carry")})
	if err != nil {
		return usagef("--set: %s", err)
	}
	if err := v.each(v.line); err != nil {
		return err
	}
	return v.end()
}

// settingsOf reads NAME=VALUE: JSON, or a text as it stands.
func settingsOf(list []string) (map[string]any, error) {
	out := map[string]any{}
	for _, s := range list {
		name, text, ok := strings.Cut(s, "=")
		if !ok || name == "" {
			return nil, usagef("--set %s has no name: write NAME=VALUE", s)
		}
		var v any
		switch err := json.Unmarshal([]byte(text), &v); v.(type) {
		case bool, float64, string:
			out[name] = v
		default:
			if err == nil {
				return nil, usagef("--set %s: a setting is a number, text, true or false", s)
			}
			out[name] = text
		}
	}
	return out, nil
}

// replayer plays a recording and says what differs.
type replayer struct {
	c        *call
	out      *printer
	file     string
	stage    Stage
	player   *recording.Player
	function string // as the recording calls it
	begin    *recording.Begin
	limit    int // of those that differ, 0: none
	shown    int
	sum      replaySum
}

// replaySum is how it went.
type replaySum struct {
	Function    string                     `json:"function"`
	Invocations int                        `json:"invocations"`
	Same        int                        `json:"same"`
	Differ      int                        `json:"differ"`
	Skipped     int                        `json:"skipped"` // of those that differ: it would not run
	Unknown     int                        `json:"unknown"` // of all: it read what the recording does not know
	Effects     map[string]recording.Count `json:"effects"`
	LeftOut     map[string]int             `json:"left_out,omitempty"`
	Cut         bool                       `json:"cut,omitempty"` // the recording has no end
	Foreign     []string                   `json:"settings_not_taken,omitempty"`
}

// replayed is one invocation, as --json shows it.
type replayed struct {
	Event   string    `json:"event"`
	Type    string    `json:"type"`
	Subject string    `json:"subject,omitempty"`
	Time    time.Time `json:"time"`
	Key     string    `json:"key"`
	KeyNow  *string   `json:"key_now,omitempty"`
	Attempt int       `json:"attempt"`
	Same    bool      `json:"same"`
	Skipped string    `json:"skipped,omitempty"`
	Unknown []string  `json:"unknown,omitempty"`
	*recording.Comparison
	Logs []recording.Log `json:"logs,omitempty"` // of one that differs
}

// each calls fn for every line of the recording.
func (v *replayer) each(fn func(*recording.Line) error) error {
	f, err := os.Open(v.file)
	if errors.Is(err, fs.ErrNotExist) {
		return usagef("there is no %s", v.file)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	r, err := recording.NewReader(f)
	if err != nil {
		return usagef("%s: %s", v.file, err).withHint("a recording is made with: perigee record FILE")
	}
	v.begin = r.Begin()
	for {
		l, err := r.Next()
		switch {
		case errors.Is(err, io.EOF):
			v.sum.Cut = r.Cut()
			return nil
		case err != nil:
			return usagef("%s: %s", v.file, err)
		}
		if err := fn(l); err != nil {
			return err
		}
	}
}

// survey looks through the recording for the function that is to be played.
func (v *replayer) survey(name string) error {
	seen := map[string]bool{}
	left := map[string]int{}
	err := v.each(func(l *recording.Line) error {
		if l.Invocation != nil {
			seen[l.Invocation.Function] = true
		}
		if l.LeftOut != nil {
			for why, n := range l.LeftOut.Invocations {
				left[why] += n
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if v.function, err = recording.Choose(slices.Sorted(maps.Keys(seen)), name); err != nil {
		return usagef("%s: %s", v.file, err)
	}
	v.sum = replaySum{Function: v.function, Effects: map[string]recording.Count{}, LeftOut: left}
	return nil
}

func (v *replayer) line(l *recording.Line) error {
	switch {
	case l.Function != nil && l.Function.Name == v.function:
		foreign, err := v.player.Settings(l.Function.Settings)
		for _, name := range foreign {
			if !slices.Contains(v.sum.Foreign, name) {
				v.sum.Foreign = append(v.sum.Foreign, name)
			}
		}
		return err
	case l.Invocation != nil && l.Invocation.Function == v.function:
		return v.play(l.Invocation)
	}
	return nil
}

// play runs the function on one invocation. Those that are not to be shown are played, too, where they lead to what others read.
func (v *replayer) play(i *recording.Invocation) error {
	c := v.c
	got, err := v.player.Play(c.ctx, i)
	if err != nil {
		return err
	}
	if (c.String("event") != "" && c.String("event") != i.Event.ID) || (c.IsSet("key") && c.String("key") != i.Key) {
		return nil
	}
	r := &replayed{Event: i.Event.ID, Type: i.Event.Type, Subject: i.Event.Subject, Time: i.Event.Time, Key: i.Key, Attempt: i.Attempt,
		Skipped: got.Skipped, Unknown: got.Unknown, Comparison: &recording.Comparison{}}
	if got.Key != i.Key {
		r.KeyNow = &got.Key
	}
	if got.Skipped == "" {
		r.Comparison = recording.Compare(&i.Outcome, &got.Outcome)
	}
	recording.CountEffects(v.sum.Effects, &i.Outcome, &got.Outcome)
	r.Same = r.Comparison.Same() && r.KeyNow == nil && r.Skipped == ""
	v.count(r)
	if r.Same && !c.Bool("all") {
		return nil
	}
	if !r.Same {
		r.Logs = got.Outcome.Logs
		v.shown++
		if v.limit > 0 && v.shown > v.limit {
			return nil
		}
	}
	if c.json() {
		return v.out.jsonLine(r)
	}
	v.write(r)
	return nil
}

func (v *replayer) count(r *replayed) {
	v.sum.Invocations++
	if len(r.Unknown) > 0 {
		v.sum.Unknown++
	}
	switch {
	case r.Same:
		v.sum.Same++
		return
	case r.Skipped != "":
		v.sum.Skipped++
	}
	v.sum.Differ++
}

func (v *replayer) write(r *replayed) {
	out := v.out
	mark := out.bad("≠")
	if r.Same {
		mark = out.good("=")
	}
	key := ""
	if r.Key != "" {
		key = "  key " + safe(r.Key, 60)
	}
	if r.KeyNow != nil {
		key += out.bad(" → " + safe(orDefault(*r.KeyNow, `""`), 60))
	}
	attempt := ""
	if r.Attempt > 1 {
		attempt = fmt.Sprintf("  attempt %d", r.Attempt)
	}
	out.line("%s %s%s%s  %s", mark, out.bold(safe(r.Type+" "+r.Subject, 120)), key, attempt, out.dim(r.Time.Local().Format("2006-01-02 15:04:05.000")+"  "+safe(r.Event, 80)))
	if r.Skipped != "" {
		out.line("    it would not run: %s", safe(r.Skipped, 300))
	}
	v.pair("outcome", r.What)
	v.pair("fault", r.Fault)
	v.pair("retry", r.Retry)
	for _, f := range r.Result {
		v.pair(strings.TrimSuffix("result."+f.Path, "."), &f.Pair)
	}
	for _, d := range r.Effects {
		v.effect(&d)
	}
	if len(r.Unknown) > 0 {
		out.line("    %s", out.warn("unknown, so it got nil: "+safe(strings.Join(r.Unknown, ", "), 300)))
	}
	for _, l := range r.Logs {
		out.line("    log: %s %s", l.Level, safe(l.Text, 300))
	}
}

func orDefault(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func (v *replayer) pair(what string, p *recording.Pair) {
	if p != nil {
		v.out.line("    %s  %s → %s", what, v.out.good(safe(p.Recorded, 300)), v.out.bad(safe(p.Now, 300)))
	}
}

func (v *replayer) effect(d *recording.Differ) {
	out := v.out
	text := d.Mark + " " + safe(d.Effect, 300)
	switch d.Mark {
	case recording.Gone:
		text = out.good(text)
	case recording.New, recording.Changed:
		text = out.bad(text)
	default:
		text = out.dim(text)
	}
	out.line("    %s", text)
	for _, f := range d.Fields {
		v.pair(strings.TrimSuffix("    "+f.Path, " "), &f.Pair)
	}
}

// end says how it went, and with which exit code.
func (v *replayer) end() error {
	if v.sum.Invocations == 0 {
		return usagef("%s has no such invocation of %s", v.file, v.function)
	}
	if v.c.json() {
		if err := v.out.jsonLine(map[string]replaySum{"summary": v.sum}); err != nil {
			return err
		}
	} else {
		v.summary()
	}
	if v.sum.Differ > 0 {
		return &exitError{ExitFailed}
	}
	return nil
}

func (v *replayer) summary() {
	out, s := v.out, v.sum
	if v.limit > 0 && s.Differ > v.limit {
		out.line("… and %d more that differ: --limit 0 shows all", s.Differ-v.limit)
	}
	if len(s.Effects) > 0 {
		rows := [][]string{{"EFFECTS", "RECORDED", "NOW", "SAME", "CHANGED", "GONE", "NEW"}}
		for _, do := range slices.Sorted(maps.Keys(s.Effects)) {
			n := s.Effects[do]
			row := []string{do}
			for _, x := range []int{n.Recorded, n.Now, n.Same, n.Changed, n.Gone, n.New} {
				row = append(row, fmt.Sprint(x))
			}
			rows = append(rows, row)
		}
		out.table(rows)
	}
	for _, name := range s.Foreign {
		out.line("%s", out.warn(fmt.Sprintf("the recorded setting %s is not for this revision: its env has no such name, or another type there", name)))
	}
	if s.Unknown > 0 {
		out.line("%s", out.warn(fmt.Sprintf("%s read what the recording does not know, and got nil", plural(int64(s.Unknown), "invocation"))))
	}
	writeLeftOut(out, s.LeftOut)
	if s.Cut {
		out.line("%s", out.warn("the recording was cut off: it has no end"))
	}
	text := fmt.Sprintf("%d the same, %d differ", s.Same, s.Differ)
	if s.Skipped > 0 {
		text += fmt.Sprintf(" (%d would not run)", s.Skipped)
	}
	if s.Differ > 0 {
		out.line("%s", out.bad(text))
	} else {
		out.line("%s", out.good(text))
	}
}
