package rules

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/perigee-iot/perigee/functions"
)

const maxTimer = 366 * 24 * time.Hour // the longest a timer may run

// Surroundings is what effects are checked against beside the function's own spec.
type Surroundings struct {
	Prefix   string                 // topics under which functions may not publish
	Writable func(name string) bool // whether there is a device that takes values
}

// Check goes through what an invocation wants done and returns the fault that it is if any of it may not be.
//
// The worker checked all this before, to fault at the right line. It is checked again here because nothing that a
// worker says is believed: a worker that was taken over could send any frame.
func Check(spec *functions.Spec, o *functions.Outcome, s Surroundings) *functions.Fault {
	lim := spec.Limits.OrDefault()
	if fault := CheckReport(spec, o); fault != nil {
		return fault
	}
	if len(o.Effects) > lim.Effects {
		return functions.OverEffects(len(o.Effects), lim.Effects)
	}
	size := len(o.Result)
	for i := range o.Effects {
		size += len(o.Effects[i].Name) + len(o.Effects[i].Value)
	}
	switch {
	case functions.TooDeep(o.Result):
		return functions.OverNesting("the result")
	case len(o.Result) > lim.Result:
		return functions.OverResult(len(o.Result), lim.Result)
	case size > lim.EffectBytes:
		return functions.OverEffectBytes(size, lim.EffectBytes)
	}
	if o.Result != nil && !json.Valid(o.Result) {
		return BadOutput("its result is not JSON")
	}
	for i := range o.Effects {
		if fault := checkEffect(spec, &o.Effects[i], s); fault != nil {
			return fault
		}
	}
	return nil
}

// CheckReport is Check for what a failed invocation has, too: what it read and logged.
func CheckReport(spec *functions.Spec, o *functions.Outcome) *functions.Fault {
	lim := spec.Limits.OrDefault()
	if len(o.Reads) > lim.Reads {
		return functions.OverReads(len(o.Reads), lim.Reads)
	}
	size := 0
	for _, l := range o.Logs {
		size += len(l.Text) + 1
	}
	if size > lim.LogBytes {
		return functions.OverLog(size, lim.LogBytes)
	}
	return nil
}

func checkEffect(spec *functions.Spec, x *functions.Effect, s Surroundings) *functions.Fault {
	p := &spec.Permissions
	if x.Kind != functions.Publish && functions.TooDeep(x.Value) { // a payload is no value of ours
		return functions.OverNesting("a value")
	}
	switch x.Kind {
	case functions.SetState, functions.SetShared:
		if !json.Valid(x.Value) {
			return BadOutput("the value of state %q is not JSON", Printable(x.Name, functions.MaxValue))
		}
		fallthrough
	case functions.DeleteState, functions.DeleteShared, functions.IncrState, functions.IncrShared:
		if spec.Key.Kind == functions.KeyNone && (x.Kind == functions.SetState || x.Kind == functions.DeleteState || x.Kind == functions.IncrState) {
			return BadOutput("a function with key: none has no state of its own key; use shared")
		}
		return checkName("state", x.Name)
	case functions.SetTimer:
		if x.For <= 0 || x.For > maxTimer {
			return BadOutput("timer %q is set to %v; between 1ms and %v is possible", Printable(x.Name, functions.MaxValue), x.For, maxTimer)
		}
		return checkName("timer", x.Name)
	case functions.CancelTimer:
		return checkName("timer", x.Name)
	case functions.Append:
		if !p.AllowsStream(x.Name) {
			return denied("append to stream %q", "streams", x.Name)
		}
		if !json.Valid(x.Value) {
			return BadOutput("a record for stream %q is not JSON", x.Name)
		}
	case functions.Publish:
		if strings.HasPrefix(x.Name+"/", s.Prefix+"/") {
			return &functions.Fault{Kind: functions.FaultDenied,
				Message: fmt.Sprintf("functions may never publish under %s/, which is the gateway's own: %q", s.Prefix, Printable(x.Name, 80))}
		}
		if !p.AllowsPublish(x.Name) {
			return denied("publish to %q", "publish", x.Name)
		}
		if x.QoS > 2 {
			return BadOutput("a publish with QoS %d", x.QoS)
		}
	case functions.WriteDevice:
		if !p.AllowsWriteDevice(x.Name) {
			return denied("write device %q", "devices: {write", x.Name)
		}
		if !s.Writable(x.Name) {
			return BadOutput("device %q cannot be written", Printable(x.Name, functions.MaxValue))
		}
		if _, err := Scalar(x.Value); err != nil {
			return BadOutput("the value for device %q: %v", x.Name, err)
		}
	case functions.CallHTTP:
		return checkCall(p, x)
	default:
		return BadOutput("an effect of the unknown kind %d", x.Kind)
	}
	return nil
}

func checkCall(p *functions.Permissions, x *functions.Effect) *functions.Fault {
	u, err := functions.ParseURL(x.Name)
	if err != nil {
		return BadOutput("an HTTP call: %v", err)
	}
	if _, ok := p.AllowsHTTP(u); !ok {
		return &functions.Fault{Kind: functions.FaultDenied, Message: fmt.Sprintf("not permitted: call %q", Printable(x.Name, 80)), Hint: functions.HTTPHint(x.Name)}
	}
	if x.NotAfter <= 0 || x.NotAfter > functions.MaxHTTPLife {
		return BadOutput("an HTTP call with not_after %v; up to %v is possible", x.NotAfter, functions.MaxHTTPLife)
	}
	if _, err := functions.DecodeHTTPCall(x.Value); err != nil {
		return BadOutput("an HTTP call: %v", err)
	}
	return nil
}

func checkName(what, name string) *functions.Fault {
	if name == "" || len(name) > functions.MaxValue || !utf8.ValidString(name) || strings.ContainsRune(name, 0) {
		return BadOutput("%q is no name for a %s: 1 to %d bytes of text", Printable(name, 40), what, functions.MaxValue)
	}
	return nil
}

// BadOutput is the fault of an outcome that cannot be carried out.
func BadOutput(format string, args ...any) *functions.Fault {
	return &functions.Fault{Kind: functions.FaultBadOutput, Message: fmt.Sprintf(format, args...)}
}

func denied(format, permission, name string) *functions.Fault {
	list := fmt.Sprintf("%s: [%s]", permission, name)
	if strings.Contains(permission, "{") {
		list += "}"
	}
	return &functions.Fault{Kind: functions.FaultDenied, Message: "not permitted: " + fmt.Sprintf(format, Printable(name, 80)),
		Hint: "add to function.yaml: permissions: {" + list + "}"}
}

// Scalar decodes a value for a device: a bool, a number, a string or nil.
func Scalar(b []byte) (any, error) {
	if len(b) == 0 {
		return nil, nil
	}
	var v any
	if err := json.Unmarshal(b, &v); err != nil {
		return nil, fmt.Errorf("it is not JSON: %w", err)
	}
	switch v.(type) {
	case nil, bool, float64, string:
		return v, nil
	}
	return nil, fmt.Errorf("a device takes true, false, a number or a text, not %s", b)
}

// Describe says what an effect does, in a few words for people.
func Describe(x *functions.Effect) string {
	val := func() string { return Printable(string(x.Value), 60) }
	switch x.Kind {
	case functions.SetState:
		return fmt.Sprintf("state %s = %s", x.Name, val())
	case functions.SetShared:
		return fmt.Sprintf("shared %s = %s", x.Name, val())
	case functions.DeleteState:
		return "state " + x.Name + " deleted"
	case functions.DeleteShared:
		return "shared " + x.Name + " deleted"
	case functions.IncrState:
		return fmt.Sprintf("state %s + %v", x.Name, x.By)
	case functions.IncrShared:
		return fmt.Sprintf("shared %s + %v", x.Name, x.By)
	case functions.SetTimer:
		return fmt.Sprintf("timer %s in %v", x.Name, x.For)
	case functions.CancelTimer:
		return "timer " + x.Name + " cancelled"
	case functions.Publish:
		return "publish " + x.Name + " " + val()
	case functions.WriteDevice:
		return fmt.Sprintf("device %s = %s", x.Name, val())
	case functions.Append:
		return "stream " + x.Name
	case functions.CallHTTP:
		if c, err := functions.DecodeHTTPCall(x.Value); err == nil {
			return "http " + c.Method + " " + Printable(x.Name, 200)
		}
		return "http " + Printable(x.Name, 200)
	}
	return "?"
}
