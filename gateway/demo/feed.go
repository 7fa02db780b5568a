package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/perigee-iot/perigee/gateway/api"
)

// feed turns the gateway's account of its events into lines.
type feed struct {
	client *api.Client
	board  *board
	last   map[string]time.Time // by subject: when a line of an event that caused nothing was shown
}

const (
	calm        = 4 * time.Second // between two lines of a subject that causes nothing
	maxSubjects = 256
)

// Run follows the gateway's events until ctx ends, over its restarts.
func (f *feed) Run(ctx context.Context) {
	f.last = map[string]time.Time{}
	for ctx.Err() == nil {
		// Limit 1, since the events before that are of the gateway's life before the feed.
		_ = f.client.Events(ctx, api.EventQuery{Follow: true, Limit: 1}, func(l api.Life) error { // it ends with the gateway, and begins again
			f.see(l)
			return nil
		})
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// see shows an event, if it is worth a line.
func (f *feed) see(l api.Life) {
	if l.ID == "" {
		return // some were missed
	}
	n, ok := describe(l)
	if !ok {
		return
	}
	if n.Kind == plain && !f.board.has(l.ID) && !f.due(l.Subject, n.Time) {
		return
	}
	f.board.add(n)
}

// due says whether a subject may have a line again.
func (f *feed) due(subject string, now time.Time) bool {
	if len(f.last) >= maxSubjects {
		clear(f.last)
	}
	if d := now.Sub(f.last[subject]); d >= 0 && d < calm {
		return false
	}
	f.last[subject] = now
	return true
}

// describe makes the line of an event: what came in, what was decided, what it caused. It is not ok for events that nobody needs to
// see: the numbers of the proof, which would drown all others, what no function has seen, and attacks, of which hostile.go tells.
func describe(l api.Life) (n line, ok bool) {
	n = line{ID: l.ID, Time: l.Time.Local(), Text: l.Subject}
	if l.Type == "timer" || l.Type == "gateway" {
		n.Text = l.Type + " " + l.Subject
	}
	if s := facts(l.Preview); s != "" {
		n.Text += " " + s
	}
	if l.Refused != "" {
		n.Kind, n.Text = bad, n.Text+" → refused: "+l.Refused
		return n, true
	}
	var parts []string
	for _, o := range l.Outcomes {
		kind, text := outcome(o)
		if text == "" {
			continue
		}
		parts = append(parts, text)
		if kind == bad || kind == did && n.Kind != bad {
			n.Kind = kind
		}
	}
	if len(parts) == 0 || l.Subject == proofTopic && n.Kind != bad || l.Subject == proofOut || l.Subject == hostileName {
		return n, false
	}
	n.Text += " → " + strings.Join(parts, "; ")
	return n, true
}

// outcome says what a function did with an event. The text is empty while there is nothing to say.
func outcome(o api.LifeOutcome) (kind, text string) {
	switch o.What {
	case "skipped":
		return plain, fmt.Sprintf("%s not woken: %s", o.Function, strings.TrimPrefix(o.Why, "has: "))
	case "waiting":
		return plain, fmt.Sprintf("%s waits: %s", o.Function, o.Why)
	case "retry", "dead", "dropped":
		why := o.Why
		if o.Fault != nil {
			why = o.Fault.Error()
		}
		return bad, fmt.Sprintf("%s: %s", o.Function, why)
	case "committed":
	default:
		return plain, ""
	}
	if o.Fault != nil {
		return bad, fmt.Sprintf("%s: %s", o.Function, o.Fault.Error())
	}
	var acts []string
	for _, e := range o.Effects {
		if a := act(e); a != "" && !slices.Contains(acts, a) {
			acts = append(acts, a)
		}
	}
	if len(acts) > 0 {
		return did, o.Function + ": " + strings.Join(acts, ", ")
	}
	if s := facts(o.Result); s != "" {
		return plain, o.Function + ": " + s
	}
	return plain, o.Function + " ok"
}

// act is an effect in few words; what only the function itself can see is left out.
func act(effect string) string {
	verb, rest, _ := strings.Cut(effect, " ")
	switch verb {
	case "device":
		return rest
	case "publish":
		topic, _, _ := strings.Cut(rest, " ")
		return "publish " + topic
	case "stream":
		return "record " + rest
	}
	return ""
}

// facts picks what a line says of a payload: the field that people look for first.
func facts(data string) string {
	var fields map[string]any
	if json.Unmarshal([]byte(data), &fields) != nil {
		if data == "null" {
			return ""
		}
		return data // no object, or cut short
	}
	names := make([]string, 0, len(fields))
	for name := range fields {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int {
		if x, y := rank(a), rank(b); x != y {
			return x - y
		}
		return strings.Compare(a, b)
	})
	for _, name := range names {
		if v := scalar(fields[name]); v != "" {
			if unit := unitOf(name); unit != "" {
				return v + " " + unit
			}
			return name + " " + v
		}
	}
	return ""
}

// unitOf is the unit of a field that its unit alone explains.
func unitOf(field string) string {
	switch field {
	case "temperature":
		return "°C"
	case "power":
		return "W"
	}
	return ""
}

func rank(field string) int {
	first := []string{"hot", "temperature", "humidity", "action", "on", "presses", "state", "contact", "occupancy", "power", "cpu_temperature", "load", "memory_used"}
	if i := slices.Index(first, field); i >= 0 {
		return i
	}
	return len(first)
}

// scalar is a value in few characters, "" for what is no scalar.
func scalar(v any) string {
	switch v := v.(type) {
	case bool:
		return strconv.FormatBool(v)
	case float64:
		return strconv.FormatFloat(v, 'g', 6, 64)
	case string:
		return v
	}
	return ""
}
