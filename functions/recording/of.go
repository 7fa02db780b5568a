package recording

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/functions/cases"
	"github.com/perigee-iot/perigee/functions/rules"
	"github.com/perigee-iot/perigee/internal/event"
)

// ErrTooLarge is returned by Encode for a line longer than MaxLine.
var ErrTooLarge = errors.New("the line is too long for a recording")

// Encode is a line with its line break.
func Encode(l *Line) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(l); err != nil {
		return nil, fmt.Errorf("a line of a recording: %w", err)
	}
	if b.Len() > MaxLine {
		return nil, ErrTooLarge
	}
	return b.Bytes(), nil
}

// Of makes the lines of an invocation, without secrets: its own, and those that mask takes out (nil: there are no others).
func Of(r *cases.Record, mask func(string) string) (*Function, *Invocation) {
	h := newHider(mask, r.Inv.Secrets)
	inv := r.Inv
	f := &Function{Name: inv.Function, Revision: inv.Revision, Settings: settings(r, h)}
	i := &Invocation{
		Function: inv.Function, Revision: inv.Revision, Event: eventOf(inv.Event, h), Key: h.text(inv.Key),
		Attempt: inv.Attempt, Now: inv.Now.UTC(), NowOK: inv.NowOK, Seed: strconv.FormatUint(inv.Seed, 16),
		Outcome: outcomeOf(r.Outcome, r.Verdict, h), Wall: r.Outcome.Usage.Wall, CPU: r.Outcome.Usage.CPU,
	}
	if len(inv.Params) > 0 {
		i.Params = map[string]string{}
		for name, v := range inv.Params {
			i.Params[name] = h.text(v)
		}
	}
	known := map[functions.Read]bool{}
	for _, a := range r.Reads {
		known[a.Read] = true
		i.Reads = append(i.Reads, valueOf(a, false, h))
	}
	for _, a := range inv.Hints {
		if !known[a.Read] {
			i.Reads = append(i.Reads, valueOf(a, true, h))
		}
	}
	return f, i
}

// settings are the values of env that are not those of function.yaml.
func settings(r *cases.Record, h *hider) map[string]any {
	var env map[string]any
	if json.Unmarshal(r.Inv.Env, &env) != nil {
		return nil
	}
	out := map[string]any{}
	for name, v := range env {
		if had, ok := r.Bundle.Spec.Env[name]; ok && had == v {
			continue
		}
		if s, ok := v.(string); ok {
			v = h.text(s)
		}
		out[name] = v
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

// SameSettings says that two lines say the same of a function.
func (f *Function) SameSettings(o *Function) bool {
	return f.Name == o.Name && f.Revision == o.Revision && maps.Equal(f.Settings, o.Settings)
}

func payloadOf(b []byte, h *hider) Payload {
	b = h.bytes(b)
	var tight bytes.Buffer
	switch {
	case b == nil:
		return Payload{}
	case utf8.Valid(b) && json.Compact(&tight, b) == nil && bytes.Equal(tight.Bytes(), b):
		return Payload{Data: b}
	case utf8.Valid(b):
		s := string(b)
		return Payload{Text: &s}
	}
	return Payload{Base64: b}
}

// Bytes are the payload as it was; nil if there was none.
func (p *Payload) Bytes() []byte {
	switch {
	case p.Text != nil:
		return []byte(*p.Text)
	case p.Base64 != nil:
		return p.Base64
	case p.Data != nil:
		return p.Data
	}
	return nil
}

func eventOf(ev *event.Event, h *hider) Event {
	e := Event{ID: h.text(ev.ID), Source: h.text(ev.Source), Type: ev.Type, Subject: h.text(ev.Subject), Time: ev.Time.UTC(), TimeOK: ev.TimeOK, Seq: ev.Seq,
		Topic: h.text(ev.Topic), Retained: ev.Retained, Chain: ev.Chain, Payload: payloadOf(ev.Data, h)}
	if ev.HasKey {
		key := h.text(ev.Key)
		e.Key = &key
	}
	return e
}

// Event is the event as a function gets it.
func (e *Event) event() *event.Event {
	ev := &event.Event{ID: e.ID, Source: e.Source, Type: e.Type, Subject: e.Subject, Time: e.Time, TimeOK: e.TimeOK, Seq: e.Seq,
		Topic: e.Topic, Retained: e.Retained, Chain: e.Chain, Data: e.Bytes()}
	if e.Key != nil {
		ev.Key, ev.HasKey = *e.Key, true
	}
	return ev
}

func valueOf(a functions.ReadAnswer, ignored bool, h *hider) Value {
	return Value{Kind: readKinds()[a.Kind], Name: h.text(a.Name), Ignored: ignored, Err: h.text(a.Err), Payload: payloadOf(a.Value, h)}
}

// answer is the value as the gateway's answer.
func (v *Value) answer() (functions.ReadAnswer, error) {
	kind, err := kindOf(readKinds(), v.Kind)
	return functions.ReadAnswer{Read: functions.Read{Kind: kind, Name: v.Name}, Value: v.Bytes(), Err: v.Err}, err
}

func outcomeOf(o *functions.Outcome, v rules.Verdict, h *hider) Outcome {
	out := Outcome{What: v.What}
	for _, l := range o.Logs {
		out.Logs = append(out.Logs, Log{Level: l.Level, Text: h.text(l.Text)})
	}
	if o.Retry != nil {
		why := h.text(o.Retry.Why)
		out.Retry = &why
	}
	if f := o.Fault; f != nil {
		out.Fault = &functions.Fault{Kind: f.Kind, Message: h.text(f.Message), Hint: h.text(f.Hint), Traceback: slices.Clone(f.Traceback)}
		for i, l := range out.Fault.Traceback {
			out.Fault.Traceback[i] = h.text(l)
		}
	}
	if v.What != "committed" {
		return out
	}
	out.Result = h.bytes(o.Result)
	for i := range o.Effects {
		out.Effects = append(out.Effects, effectOf(&o.Effects[i], h))
	}
	return out
}

func effectOf(x *functions.Effect, h *hider) Effect {
	e := Effect{Do: effectKinds()[x.Kind], Name: h.text(x.Name), By: x.By, QoS: x.QoS, Retain: x.Retain, WithID: x.WithID, For: x.For, NotAfter: x.NotAfter}
	if x.Kind != functions.CallHTTP {
		e.Payload = payloadOf(x.Value, h)
		return e
	}
	call, err := functions.DecodeHTTPCall(x.Value)
	if err != nil { // it was checked before
		return e
	}
	e.Payload = payloadOf(call.Body, h)
	e.Call = &Call{Method: call.Method, Reply: h.text(call.Reply), Timeout: call.Timeout}
	for _, header := range call.Headers {
		e.Call.Headers = append(e.Call.Headers, header.Name)
	}
	return e
}
