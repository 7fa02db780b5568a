package script

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	lua "github.com/yuin/gopher-lua"

	"github.com/perigee-iot/perigee/functions"
)

// hostFunctions are the functions of the gateway that stand alone.
func hostFunctions() map[string]builtin {
	return map[string]builtin{"publish": hostPublish, "retry": hostRetry}
}

func timerFunctions() map[string]builtin {
	return map[string]builtin{"set": timerSet, "cancel": timerCancel}
}

func deviceFunctions() map[string]builtin {
	return map[string]builtin{"read": deviceRead, "write": deviceWrite}
}

func streamFunctions() map[string]builtin {
	return map[string]builtin{"append": streamAppend}
}

func logFunctions() map[string]builtin {
	level := func(name string) builtin {
		return func(r *run, L *lua.LState) int { r.log(L, name, r.joined(L, 1)); return 0 }
	}
	return map[string]builtin{"debug": level("debug"), "info": level("info"), "warn": level("warn"), "error": level("error")}
}

// logCall is log(...) itself; its first argument is the table.
func logCall(r *run, L *lua.LState) int {
	r.log(L, "info", r.joined(L, 2))
	return 0
}

// joined are the arguments from first on as one text. Tables are written as JSON, where they can be.
func (r *run) joined(L *lua.LState, first int) string {
	var b strings.Builder
	for i := first; i <= L.GetTop() && b.Len() <= maxLogLine; i++ {
		if i > first {
			b.WriteByte(' ')
		}
		v := L.Get(i)
		if t, ok := v.(*lua.LTable); ok && L.GetMetaField(t, "__tostring") == lua.LNil {
			text, err := encodeJSON(t, maxLogLine, r.checker(L))
			if errors.Is(err, errTooLong) { // its beginning is worth more than "table: 0x…"
				text, err = encodeJSON(t, maxLoggedTable, r.checker(L))
			}
			if err == nil {
				b.Write(text)
				continue
			}
		}
		s := r.text(L, v)
		b.WriteString(s[:min(len(s), maxLogLine+1)])
	}
	return b.String()
}

// maxLogLine is the longest line that is kept whole.
const maxLogLine = 2000

// maxLoggedTable is the JSON of the largest table whose beginning is logged.
const maxLoggedTable = 256 << 10

// log keeps a line.
func (r *run) log(L *lua.LState, level, text string) {
	text = capped(text, maxLogLine)
	r.logBytes += len(text) + 1
	if r.logBytes > r.limits.LogBytes {
		r.over(L, "", functions.OverLog(r.logBytes, r.limits.LogBytes))
	}
	r.out.Logs = append(r.out.Logs, functions.LogLine{Level: level, Text: text})
}

// add appends an effect, within the limits, and returns its index.
func (r *run) add(L *lua.LState, e functions.Effect) int {
	if n := r.limits.Effects; len(r.out.Effects) >= n {
		r.over(L, "", functions.OverEffects(n+1, n))
	}
	r.count(L, len(e.Name)+len(e.Value))
	r.out.Effects = append(r.out.Effects, e)
	return len(r.out.Effects) - 1
}

// replace puts another effect in the place of an earlier one that it makes void.
func (r *run) replace(L *lua.LState, i int, e functions.Effect) {
	old := &r.out.Effects[i]
	r.count(L, len(e.Name)+len(e.Value)-len(old.Name)-len(old.Value))
	*old = e
}

// count adds to the bytes of all effects.
func (r *run) count(L *lua.LState, n int) {
	r.effects += n
	if r.effects > r.limits.EffectBytes {
		r.over(L, "", functions.OverEffectBytes(r.effects, r.limits.EffectBytes))
	}
}

// encode is a value as JSON for an effect; one that JSON does not have stops the script.
func (r *run) encode(L *lua.LState, what string, v lua.LValue) []byte {
	text, err := encodeJSON(v, functions.MaxMeasured, r.checker(L))
	switch {
	case errors.Is(err, errTooLong):
		r.over(L, "", functions.OverEffectBytes(functions.MaxMeasured+1, r.limits.EffectBytes))
	case errors.As(err, &nestingError{}):
		r.over(L, "", functions.OverNesting("a value"))
	case err != nil:
		r.haltf(L, functions.FaultBadOutput, "", "%s: %s", what, err)
	}
	return text
}

// denied stops the script because its permissions lack something.
func (r *run) denied(L *lua.LState, what, name, hint string) {
	r.haltf(L, functions.FaultDenied, hint, "may not %s '%s'", what, capped(name, 100))
}

func hostPublish(r *run, L *lua.LState) int {
	topic := checkString(L, 1)
	if err := functions.CheckPublish(topic); err != nil {
		r.haltf(L, functions.FaultBadOutput, "", "publish: %s", capped(err.Error(), 300))
	}
	if functions.IsOwnTopic(topic) {
		r.haltf(L, functions.FaultDenied, "", "functions may never publish under %s/, which is the gateway's own: '%s'", functions.OwnTopics, capped(topic, 80))
	}
	if !r.inv.Perms.AllowsPublish(topic) {
		r.denied(L, "publish to", topic, functions.PublishHint(topic))
	}
	e := functions.Effect{Kind: functions.Publish, Name: topic}
	if v := L.Get(2); v.Type() == lua.LTString {
		e.Value = []byte(v.(lua.LString))
	} else if v != lua.LNil {
		e.Value = r.encode(L, "publish", v)
	}
	opts := r.options(L, 3, "qos", "retain", "not_after", "id")
	if q, ok := opts["qos"]; ok {
		n, isNumber := q.(lua.LNumber)
		if !isNumber || n != 0 && n != 1 && n != 2 {
			L.ArgError(3, "qos is 0, 1 or 2")
		}
		e.QoS = byte(n)
	}
	e.Retain = lua.LVAsBool(option(opts, "retain"))
	e.WithID = lua.LVAsBool(option(opts, "id"))
	e.NotAfter = r.durationOption(L, opts, 3, "not_after")
	r.add(L, e)
	return 0
}

func streamAppend(r *run, L *lua.LState) int {
	name := checkString(L, 1)
	if !r.inv.Perms.AllowsStream(name) {
		r.denied(L, "append to the stream", name, functions.StreamHint(name))
	}
	r.add(L, functions.Effect{Kind: functions.Append, Name: name, Value: r.encode(L, "stream.append", L.Get(2))})
	return 0
}

func deviceWrite(r *run, L *lua.LState) int {
	name := checkString(L, 1)
	if !r.inv.Perms.AllowsWriteDevice(name) {
		r.denied(L, "write the device", name, functions.WriteDeviceHint(name))
	}
	if v := L.Get(2); v.Type() != lua.LTBool && !isText(v) {
		L.ArgError(2, "a boolean, a number or a string expected, got "+argType(L, 2))
	}
	e := functions.Effect{Kind: functions.WriteDevice, Name: name, Value: r.encode(L, "device.write", L.Get(2))}
	opts := r.options(L, 3, "for", "not_after")
	e.For = r.durationOption(L, opts, 3, "for")
	e.NotAfter = r.durationOption(L, opts, 3, "not_after")
	r.add(L, e)
	return 0
}

// deviceRead returns the only field of a reading, or a table of its fields; nil and why if there is no answer.
func deviceRead(r *run, L *lua.LState) int {
	name := checkString(L, 1)
	if !r.inv.Perms.AllowsReadDevice(name) {
		r.denied(L, "read the device", name, functions.ReadDeviceHint(name))
	}
	answer := r.read(L, functions.Read{Kind: functions.ReadDevice, Name: name})
	if answer.Err != "" {
		L.Push(lua.LNil)
		L.Push(lua.LString(capped(answer.Err, 300)))
		return 2
	}
	v := r.decode(L, answer.Value)
	if t, ok := v.(*lua.LTable); ok && t.Metatable == lua.LNil {
		k, only := t.Next(lua.LNil)
		if k != lua.LNil {
			if next, _ := t.Next(k); next == lua.LNil {
				v = only
			}
		}
	}
	L.Push(v)
	return 1
}

func timerSet(r *run, L *lua.LState) int {
	name := checkName(L, 1)
	after := checkDuration(L, 2)
	if after <= 0 {
		L.ArgError(2, "a timer needs a time that is longer than 0")
	}
	r.setTimer(L, functions.Effect{Kind: functions.SetTimer, Name: name, For: after})
	return 0
}

func timerCancel(r *run, L *lua.LState) int {
	r.setTimer(L, functions.Effect{Kind: functions.CancelTimer, Name: checkName(L, 1)})
	return 0
}

// setTimer keeps one effect for each timer, the last.
func (r *run) setTimer(L *lua.LState, e functions.Effect) {
	if i, ok := r.timers[e.Name]; ok {
		r.replace(L, i, e)
		return
	}
	i := r.add(L, e)
	if r.timers == nil {
		r.timers = map[string]int{}
	}
	r.timers[e.Name] = i
}

// hostRetry ends the invocation and asks for the event again.
func hostRetry(r *run, L *lua.LState) int {
	why := optString(L, 1, "")
	var after time.Duration
	if L.Get(2) != lua.LNil {
		after = checkDuration(L, 2)
	}
	if r.stop == nil && r.retry == nil {
		r.retry = &functions.RetryAsk{Why: capped(oneLine(why), 300), After: after}
	}
	r.unwind(L)
	return 0
}

// options are the fields of the table that is argument n; one with another name is an error, since it would do nothing.
func (r *run) options(L *lua.LState, n int, names ...string) map[string]lua.LValue {
	if L.Get(n) == lua.LNil {
		return nil
	}
	opts := map[string]lua.LValue{}
	t := L.CheckTable(n)
	for k, v := t.Next(lua.LNil); k != lua.LNil; k, v = t.Next(k) {
		if !slices.Contains(names, k.String()) {
			L.ArgError(n, fmt.Sprintf("no option is called '%s'; there are: %s", capped(k.String(), 40), strings.Join(names, ", ")))
		}
		opts[k.String()] = v
	}
	return opts
}

func option(opts map[string]lua.LValue, name string) lua.LValue {
	if v, ok := opts[name]; ok {
		return v
	}
	return lua.LNil
}

func (r *run) durationOption(L *lua.LState, opts map[string]lua.LValue, n int, name string) time.Duration {
	v, ok := opts[name]
	if !ok {
		return 0
	}
	d, problem := toDuration(v)
	if problem != "" {
		L.ArgError(n, name+": "+problem)
	}
	return d
}

// checkDuration is argument n as a duration: a number of seconds, or a text like "1h30m".
func checkDuration(L *lua.LState, n int) time.Duration {
	d, problem := toDuration(L.Get(n))
	if problem != "" {
		L.ArgError(n, problem)
	}
	return d
}

func toDuration(v lua.LValue) (d time.Duration, problem string) {
	switch v := v.(type) {
	case lua.LNumber:
		if !(v >= 0 && v <= lua.LNumber(maxTimerDuration/time.Second)) {
			return 0, "a duration is between 0 and ten years"
		}
		return time.Duration(float64(v) * float64(time.Second)), ""
	case lua.LString:
		s := strings.TrimSpace(string(v))
		if days, ok := strings.CutSuffix(s, "d"); ok {
			n, ok := parseNumber(days)
			if ok && n >= 0 && n <= 3650 {
				return time.Duration(n * 24 * float64(time.Hour)), ""
			}
		} else if d, err := time.ParseDuration(s); err == nil && d >= 0 && d <= maxTimerDuration {
			return d, ""
		} else if n, ok := parseNumber(s); ok {
			return toDuration(lua.LNumber(n))
		}
		return 0, fmt.Sprintf("'%s' is no duration; write \"90s\", \"15m\", \"2h\", \"7d\" or a number of seconds", capped(s, 40))
	}
	return 0, "a duration is a text like \"90s\" or a number of seconds, got " + aType(v)
}

// checkName is argument n as the name of a state value or a timer.
func checkName(L *lua.LState, n int) string {
	name := checkString(L, n)
	switch {
	case name == "":
		L.ArgError(n, "a name is not empty")
	case len(name) > functions.MaxValue:
		L.ArgError(n, fmt.Sprintf("a name has at most %d bytes", functions.MaxValue))
	case !utf8.ValidString(name) || strings.ContainsRune(name, 0):
		L.ArgError(n, "a name is UTF-8 without NUL")
	}
	return name
}
