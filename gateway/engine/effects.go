package engine

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/perigee-iot/perigee/drivers"
	"github.com/perigee-iot/perigee/functions"
)

// The worker checked all this before, to fault at the right line. It is checked again here because nothing that a
// worker says is believed: a worker that was taken over could send any frame.

const (
	maxName  = 128                  // bytes of a state value's, timer's or stream's name
	maxTimer = 366 * 24 * time.Hour // the longest a timer may run
)

// check goes through what an invocation wants done and returns the fault that it is if any of it may not be.
func (e *Engine) check(f *function, spec *functions.Spec, o *functions.Outcome) *functions.Fault {
	lim := spec.Limits
	if len(o.Effects) > lim.Effects {
		return bad("limits.effects is %d, and it has %d effects", lim.Effects, len(o.Effects))
	}
	size := len(o.Result)
	for i := range o.Effects {
		size += len(o.Effects[i].Name) + len(o.Effects[i].Value)
	}
	if size > lim.EffectBytes {
		return bad("its effects and result have %d bytes in all, more than the %d of limits.effects", size, lim.EffectBytes)
	}
	if o.Result != nil && !json.Valid(o.Result) {
		return bad("its result is not JSON")
	}
	for i := range o.Effects {
		if fault := e.checkEffect(f, spec, &o.Effects[i]); fault != nil {
			return fault
		}
	}
	return nil
}

func (e *Engine) checkEffect(f *function, spec *functions.Spec, x *functions.Effect) *functions.Fault {
	p := &spec.Permissions
	switch x.Kind {
	case functions.SetState, functions.SetShared:
		if !json.Valid(x.Value) {
			return bad("the value of state %q is not JSON", printable(x.Name, maxName))
		}
		fallthrough
	case functions.DeleteState, functions.DeleteShared, functions.IncrState, functions.IncrShared:
		if spec.Key.Kind == functions.KeyNone && (x.Kind == functions.SetState || x.Kind == functions.DeleteState || x.Kind == functions.IncrState) {
			return bad("a function with key: none has no state of its own key; use shared")
		}
		return checkName("state", x.Name)
	case functions.SetTimer:
		if x.For <= 0 || x.For > maxTimer {
			return bad("timer %q is set to %v; between 1ms and %v is possible", printable(x.Name, maxName), x.For, maxTimer)
		}
		return checkName("timer", x.Name)
	case functions.CancelTimer:
		return checkName("timer", x.Name)
	case functions.Append:
		if !p.AllowsStream(x.Name) {
			return denied("append to stream %q", "streams", x.Name)
		}
		if !json.Valid(x.Value) {
			return bad("a record for stream %q is not JSON", x.Name)
		}
	case functions.Publish:
		if !p.AllowsPublish(x.Name) || strings.HasPrefix(x.Name+"/", e.opt.Prefix+"/") {
			return denied("publish to %q", "publish", x.Name)
		}
		if x.QoS > 2 {
			return bad("a publish with QoS %d", x.QoS)
		}
	case functions.WriteDevice:
		if !p.AllowsWriteDevice(x.Name) {
			return denied("write device %q", "devices: {write", x.Name)
		}
		d := e.plant.device(x.Name)
		if d == nil || !writable(d) {
			return bad("device %q cannot be written", printable(x.Name, maxName))
		}
		if _, err := scalar(x.Value); err != nil {
			return bad("the value for device %q: %v", x.Name, err)
		}
	default:
		return bad("an effect of the unknown kind %d", x.Kind)
	}
	return nil
}

func writable(d *drivers.Device) bool {
	return d.Actuator != nil || (d.Feed != nil && d.Feed.Write != "")
}

func checkName(what, name string) *functions.Fault {
	if name == "" || len(name) > maxName || !utf8.ValidString(name) || strings.ContainsRune(name, 0) {
		return bad("%q is no name for a %s: 1 to %d bytes of text", printable(name, 40), what, maxName)
	}
	return nil
}

func bad(format string, args ...any) *functions.Fault {
	return &functions.Fault{Kind: functions.FaultBadOutput, Message: fmt.Sprintf(format, args...)}
}

func denied(format, permission, name string) *functions.Fault {
	list := fmt.Sprintf("%s: [%s]", permission, name)
	if strings.Contains(permission, "{") {
		list += "}"
	}
	return &functions.Fault{Kind: functions.FaultDenied, Message: "not permitted: " + fmt.Sprintf(format, printable(name, 80)),
		Hint: "add to function.yaml: permissions: {" + list + "}"}
}

// scalar decodes a value for a device: a bool, a number, a string or nil.
func scalar(b []byte) (any, error) {
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

// actionID is the identity of an action: the same whenever its event runs again in this function.
func actionID(event, fn string, index int) string {
	h := sha256.New()
	for _, s := range []string{event, "\x00", fn, "\x00", strconv.Itoa(index)} {
		h.Write([]byte(s))
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// withID adds "_id" to a payload that is a JSON object, and leaves any other as it is.
func withID(payload []byte, id string) []byte {
	trimmed := bytes.TrimSpace(payload)
	if len(trimmed) < 2 || trimmed[0] != '{' || !json.Valid(trimmed) {
		return payload
	}
	rest := bytes.TrimSpace(trimmed[1:])
	out := append(make([]byte, 0, len(trimmed)+48), `{"_id":"`+id+`"`...)
	if rest[0] != '}' {
		out = append(out, ',')
	}
	return append(out, rest...)
}

// describe says what an effect does, in a few words for people.
func describe(x *functions.Effect) string {
	val := func() string { return printable(string(x.Value), 60) }
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
	}
	return "?"
}

// printable cuts text for people to at most n bytes and replaces what a terminal should not get.
func printable(s string, n int) string {
	cut := len(s) > n
	if cut {
		s = s[:n]
	}
	s = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || r < ' ' || (r >= 0x7f && r < 0xa0) {
			return '.'
		}
		return r
	}, s)
	if cut {
		s += "..."
	}
	return s
}
