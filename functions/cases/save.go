package cases

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/functions/rules"
	"github.com/perigee-iot/perigee/internal/event"
	"github.com/perigee-iot/perigee/internal/units"
)

// Record is an invocation that happened, with all that it depended on, so that it can be played again.
type Record struct {
	Bundle  *functions.Bundle
	Inv     *functions.Invocation
	Reads   []functions.ReadAnswer // what it read, each once
	Outcome *functions.Outcome
	Verdict rules.Verdict
}

// File writes a record as a case file. The case expects what the invocation did, and Parse reads it for the function as it is now; an error says
// why there can be no such case.
// Mask takes secrets out of text; nil if there are none but those of the invocation.
func (r *Record) File(mask func(string) string) ([]byte, error) {
	mask = r.hiding(mask)
	w := &writer{r: r, spec: r.Bundle.Spec, mask: mask}
	inv, ev := r.Inv, r.Inv.Event
	w.line(0, "# Event %s, as gateway %s saw it; revision %.12s of function %s ran on it.", plain(rules.Printable(mask(ev.ID), 100)), plain(rules.Printable(inv.Gateway, 100)),
		r.Bundle.Digest, w.spec.Name)
	w.line(0, "- name: %s", w.quote(rules.Printable(ev.Type+" "+ev.Subject, 120)+" of "+ev.Time.UTC().Format(time.DateTime)))
	w.given()
	w.line(1, "steps:")
	if err := w.cause(); err != nil {
		return nil, err
	}
	w.expect()
	text := w.b.Bytes()
	if _, err := Parse("case", text, w.spec); err != nil {
		return nil, fmt.Errorf("the event cannot be written as a case: %w", err)
	}
	return text, nil
}

// hiding adds the invocation's own secrets to what mask takes out: the gateway may have others by now.
func (r *Record) hiding(mask func(string) string) func(string) string {
	return func(s string) string {
		if mask != nil {
			s = mask(s)
		}
		for _, secret := range r.Inv.Secrets {
			if len(secret.Value) >= shortSecret {
				s = strings.ReplaceAll(s, secret.Value, hidden)
			}
		}
		return s
	}
}

const (
	hidden      = "hidden" // what stands in the place of a secret
	shortSecret = 4        // bytes; shorter ones occur in any text
)

// writer writes one case.
type writer struct {
	r    *Record
	spec *functions.Spec
	mask func(string) string
	b    bytes.Buffer
}

// quote is text as YAML, without secrets; flow is JSON as YAML.
func (w *writer) quote(s string) string { return quote(w.mask(s)) }
func (w *writer) flow(b []byte) string  { return flow(b, w.mask) }

func (w *writer) line(level int, format string, args ...any) {
	w.b.WriteString(strings.Repeat("  ", level))
	fmt.Fprintf(&w.b, format+"\n", args...)
}

func (w *writer) given() {
	inv, ev := w.r.Inv, w.r.Inv.Event
	w.line(1, "given:")
	w.line(2, "now: %s", inv.Now.UTC().Format("2006-01-02T15:04:05.000Z"))
	if !inv.NowOK {
		w.line(2, "now_ok: false")
	}
	w.line(2, "gateway: %s", w.quote(inv.Gateway))
	w.line(2, "seed: %d", inv.Seed)
	if inv.Attempt > 1 {
		w.line(2, "attempt: %d", inv.Attempt-1)
	}
	if env := w.settings(); env != nil {
		w.line(2, "env: %s", w.flow(env))
	}
	state, shared, devices := map[string]json.RawMessage{}, map[string]json.RawMessage{}, map[string]json.RawMessage{}
	for _, a := range w.r.Reads {
		switch {
		case a.Value == nil || a.Err != "":
		case a.Kind == functions.ReadState:
			state[a.Name] = a.Value
		case a.Kind == functions.ReadShared:
			shared[a.Name] = a.Value
		case a.Kind == functions.ReadDevice:
			devices[a.Name] = a.Value
		}
	}
	w.names(functions.ReadStateKeys, state)
	w.names(functions.ReadSharedKeys, shared)
	keyed := w.spec.Key.Kind != functions.KeyFunction && w.spec.Key.Kind != functions.KeyNone
	if timed := ev.Type == event.Timer || ev.Type == event.Reply; keyed && (timed || len(state) > 0) {
		w.line(2, "key: %s", w.quote(inv.Key))
	}
	for _, m := range []struct {
		name   string
		values map[string]json.RawMessage
	}{{"state", state}, {"shared", shared}, {"devices", devices}} {
		if len(m.values) == 0 {
			continue
		}
		w.line(2, "%s:", m.name)
		for _, name := range slices.Sorted(maps.Keys(m.values)) {
			w.line(3, "%s: %s", w.quote(name), w.flow(m.values[name]))
		}
	}
	for i, secret := range inv.Secrets {
		if i == 0 {
			w.line(2, "secrets:")
		}
		value := w.mask(secret.Value)
		if value == secret.Value { // it is too short to be looked for
			value = hidden
		}
		w.line(3, "%s: %s", w.quote(secret.Name), quote(value))
	}
	if ev.Type == event.Timer {
		w.line(2, "timers: {%s: 0s}", w.quote(ev.Subject))
	}
}

// names adds the names that keys() returned, whose values nobody asked for.
func (w *writer) names(kind functions.ReadKind, values map[string]json.RawMessage) {
	for _, a := range w.r.Reads {
		var names []string
		if a.Kind != kind || json.Unmarshal(a.Value, &names) != nil {
			continue
		}
		for _, n := range names {
			if values[n] == nil {
				values[n] = json.RawMessage("null")
			}
		}
	}
}

// settings are the values of env that are not those of function.yaml, as a JSON object; nil if there are none.
func (w *writer) settings() []byte {
	var env map[string]any
	if json.Unmarshal(w.r.Inv.Env, &env) != nil {
		return nil
	}
	for name, v := range env {
		if had, ok := w.spec.Env[name]; ok && had == v {
			delete(env, name)
		}
	}
	if len(env) == 0 {
		return nil
	}
	b, err := json.Marshal(env)
	if err != nil {
		return nil
	}
	return b
}

func (w *writer) cause() error {
	inv, ev := w.r.Inv, w.r.Inv.Event
	payload := true
	switch {
	case ev.Source == "invoke":
		w.line(2, "- invoke: %s", w.quote(ev.Topic))
		if w.spec.Key.Kind != functions.KeyNone {
			w.line(3, "key: %s", w.quote(inv.Key))
		}
		if len(inv.Params) > 0 {
			params, err := json.Marshal(inv.Params)
			if err != nil {
				return fmt.Errorf("write the params: %w", err)
			}
			w.line(3, "params: %s", w.flow(params))
		}
	case ev.Type == event.Message:
		w.line(2, "- mqtt: %s", w.quote(ev.Topic))
		if ev.Retained {
			w.line(3, "retained: true")
		}
	case ev.Type == event.Reading:
		w.line(2, "- device: %s", w.quote(ev.Subject))
	case ev.Type == event.Tick:
		var tick struct{ Every float64 }
		if err := json.Unmarshal(ev.Data, &tick); err != nil {
			return fmt.Errorf("the data of a tick: %w", err)
		}
		w.line(2, "- every: %s", units.Duration(tick.Every*float64(time.Second)))
		payload = false
	case ev.Type == event.Timer:
		w.line(2, "- timer: %s", w.quote(ev.Subject))
		payload = false
	case ev.Type == event.Reply:
		w.line(2, "- reply: %s", w.quote(ev.Subject))
		if w.spec.Key.Kind != functions.KeyNone {
			w.line(3, "key: %s", w.quote(inv.Key))
		}
	case ev.Type == event.State:
		w.line(2, "- changed: %s", w.quote(ev.Subject))
		w.line(3, "key: %s", w.quote(inv.Params["key"]))
	case ev.Type == event.Result:
		w.line(2, "- function: %s", w.quote(ev.Subject))
	case ev.Type == event.Gateway:
		w.line(2, "- gateway: %s", w.quote(ev.Subject))
		payload = false
	default:
		return fmt.Errorf("events of type %q cannot be written as a case yet", ev.Type)
	}
	w.line(3, "id: %s", w.quote(ev.ID))
	w.line(3, "time: %s", ev.Time.UTC().Format("2006-01-02T15:04:05.000Z"))
	if payload {
		w.payload(ev.Data)
	}
	if !utf8.Valid(ev.Data) && w.mask(string(ev.Data)) != string(ev.Data) {
		return errors.New("its payload is bytes with a secret in them")
	}
	return nil
}

// payload writes what an event brings in the form that is best to read and gives the same bytes but for blanks.
func (w *writer) payload(b []byte) {
	var tight bytes.Buffer
	switch {
	case len(b) == 0:
	case json.Compact(&tight, b) == nil && survives(tight.Bytes()):
		w.line(3, "data: %s", w.flow(b))
	case utf8.Valid(b) && bytes.IndexFunc(b, func(r rune) bool { return r < ' ' && r != '\n' && r != '\t' || r == 0x7f }) < 0:
		w.line(3, "text: %s", w.quote(string(b)))
	default:
		w.line(3, "base64: %s", quote(base64Text(b)))
	}
}

func (w *writer) expect() {
	o := w.r.Outcome
	switch {
	case o.Retry != nil:
		if w.line(3, "expect: []"); o.Retry.Why != "" {
			w.line(3, "retry: %s", w.quote(rules.Printable(o.Retry.Why, 300)))
		} else {
			w.line(3, "retry: true")
		}
		return
	case w.r.Verdict.Fault != nil:
		w.line(3, "expect: []")
		w.line(3, "fault: {kind: %s, message: %s}", w.r.Verdict.Fault.Kind, w.quote(w.r.Verdict.Fault.Message))
		return
	}
	did := Did{Runs: []Run{{Outcome: o, Verdict: w.r.Verdict}}}
	actions := did.actions()
	if len(actions) == 0 {
		w.line(3, "expect: []")
	} else {
		w.line(3, "expect:")
	}
	for i := range actions {
		w.effect(&actions[i])
	}
	result := o.Result
	if result == nil {
		result = []byte("null")
	}
	w.line(3, "result: %s", w.flow(result))
	written := false
	for i := range o.Effects {
		x := &o.Effects[i]
		if x.Kind != functions.SetState && x.Kind != functions.DeleteState {
			continue
		}
		if !written {
			w.line(3, "state:")
			written = true
		}
		value := []byte("null")
		if x.Kind == functions.SetState {
			value = x.Value
		}
		w.line(4, "%s: %s", w.quote(x.Name), w.flow(value))
	}
}

func (w *writer) effect(x *functions.Effect) {
	var f []string
	add := func(name, value string) { f = append(f, name+": "+value) }
	add(kindName(x.Kind), w.quote(x.Name))
	payload := x.Value
	if call, err := functions.DecodeHTTPCall(x.Value); x.Kind == functions.CallHTTP && err == nil {
		if payload = call.Body; payload == nil {
			payload = []byte{}
		}
		add("method", call.Method)
		if call.Reply != "" {
			add("reply", w.quote(call.Reply))
		}
	}
	switch {
	case x.Kind == functions.WriteDevice:
		add("write", w.flow(payload))
	case json.Valid(payload):
		add("data", w.flow(payload))
	case x.Kind != functions.Append && utf8.Valid(payload):
		add("text", w.quote(string(payload)))
	}
	if x.QoS > 0 {
		add("qos", fmt.Sprint(x.QoS))
	}
	if x.Retain {
		add("retain", "true")
	}
	if x.WithID {
		add("id", "true")
	}
	if x.For > 0 {
		add("for", units.Duration(x.For).String())
	}
	if x.NotAfter > 0 {
		add("not_after", units.Duration(x.NotAfter).String())
	}
	w.line(4, "- {%s}", strings.Join(f, ", "))
}

// survives says that JSON is the same after it was written and read as YAML.
func survives(tight []byte) bool {
	return sameJSON(tight, "{x: "+flow(tight, func(s string) string { return s })+"}")
}

var plainText = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_.-]*(/[A-Za-z0-9_.-]+)*$`)

// quote writes text for YAML, without quotes where it needs none.
func quote(s string) string {
	if plainText.MatchString(s) && !slices.Contains([]string{"true", "false", "null", "yes", "no", "on", "off", "y", "n"}, strings.ToLower(s)) {
		return s
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(s); err != nil {
		return `""`
	}
	return strings.TrimRight(b.String(), "\n")
}

// plain is text for a comment.
func plain(s string) string { return strings.Join(strings.Fields(s), " ") }

// flow writes JSON as YAML on one line.
func flow(b []byte, mask func(string) string) string {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var out strings.Builder
	if err := flowValue(d, &out, mask); err != nil {
		return string(b)
	}
	return out.String()
}

func flowValue(d *json.Decoder, out *strings.Builder, mask func(string) string) error {
	t, err := d.Token()
	if err != nil {
		return err
	}
	switch t := t.(type) {
	case json.Delim:
		out.WriteString(t.String())
		for first := true; d.More(); first = false {
			if !first {
				out.WriteString(", ")
			}
			if t == '{' {
				name, err := d.Token()
				if err != nil {
					return err
				}
				out.WriteString(quote(mask(fmt.Sprint(name))) + ": ")
			}
			if err := flowValue(d, out, mask); err != nil {
				return err
			}
		}
		end, err := d.Token()
		if err != nil {
			return err
		}
		out.WriteString(end.(json.Delim).String())
	case string:
		out.WriteString(quote(mask(t)))
	case nil:
		out.WriteString("null")
	default:
		fmt.Fprint(out, t)
	}
	return nil
}
