package script

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	lua "github.com/yuin/gopher-lua"

	"github.com/perigee-iot/perigee/functions"
)

const (
	maxMessage   = 1000 // bytes of a fault's message
	maxTraceback = 10   // lines
	maxFrames    = 200  // frames looked at for a traceback or a position
)

// capped cuts a text to at most n bytes, at the border of a character, and makes it valid UTF-8.
func capped(s string, n int) string {
	if len(s) > n {
		s = s[:n]
		for len(s) > 0 && !utf8.ValidString(s[max(0, len(s)-4):]) && len(s) > n-4 {
			s = s[:len(s)-1]
		}
		s += "…"
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// oneLine joins the lines of a text.
func oneLine(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(c rune) bool { return c == '\n' || c == '\r' }), " ")
}

// panicFault is the fault of a Go panic, which is a mistake of ours, not of the script.
func panicFault(v any) *functions.Fault {
	return &functions.Fault{Kind: functions.FaultError,
		Message: "internal error while running Lua: " + capped(oneLine(fmt.Sprint(v)), 300),
		Hint:    "this is a defect of Perigee; please report it with the function"}
}

// stopped is the Lua error that unwinds a script which was stopped. The reason is in run.stop, where Lua cannot reach.
const stopped = lua.LString("the function was stopped")

// halt stops the script for good: no pcall catches it. The first reason counts.
func (r *run) halt(L *lua.LState, f *functions.Fault) {
	if r.stop == nil {
		if f.Traceback == nil {
			f.Traceback = r.traceback(L)
		}
		f.Hint = capped(f.Hint, maxMessage)
		r.stop = f
	}
	r.unwind(L)
}

// haltf stops the script with a message that starts with the line that is running.
func (r *run) haltf(L *lua.LState, kind functions.FaultKind, hint, format string, args ...any) {
	r.halt(L, &functions.Fault{Kind: kind, Message: r.where(L) + capped(fmt.Sprintf(format, args...), maxMessage), Hint: hint})
}

// over stops the script for the breach of a limit, with the line that is running, or where, if that is given.
func (r *run) over(L *lua.LState, where string, f *functions.Fault) {
	if where == "" {
		where = r.where(L)
	}
	f.Message = where + f.Message
	r.halt(L, f)
}

// unwind raises the error that leaves every Lua call.
func (r *run) unwind(L *lua.LState) { L.Error(stopped, 0) }

// mustStop says whether the script is being stopped, and notes the reason if it is time or memory.
func (r *run) mustStop(L *lua.LState) bool {
	if r.stop != nil || r.retry != nil {
		return true
	}
	if r.ctx.Err() == nil {
		return false
	}
	r.stop = r.interrupted()
	r.stop.Message = r.where(L) + r.stop.Message
	r.stop.Traceback = r.traceback(L)
	return true
}

// check ends the script if it must stop; built-in functions that work for long call it from time to time.
func (r *run) check(L *lua.LState) {
	if r.mustStop(L) {
		r.unwind(L)
	}
}

// checker is check for what knows nothing of Lua.
func (r *run) checker(L *lua.LState) func() { return func() { r.check(L) } }

// interrupted is the fault of a context that has ended.
func (r *run) interrupted() *functions.Fault {
	if used := r.guard.exceeded(); used > 0 {
		return functions.OverMemory(used, r.memory)
	}
	return functions.OverTimeout(time.Since(r.began), r.limits.Timeout)
}

// sizeText is a size as people read it.
func sizeText(n int64) string {
	switch {
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%d bytes", n)
}

// inBundle says whether a chunk's name is that of the user's own file; those that we embed are in brackets.
func inBundle(source string) bool { return source != "" && source[0] != '[' }

// where is "main.lua:12: " for the innermost line of the bundle that is running, "" if there is none.
func (r *run) where(L *lua.LState) string {
	for level := range maxFrames {
		at := positionAt(L, level)
		if at != "" && inBundle(at) {
			return at
		}
		if _, ok := L.GetStack(level); !ok {
			return ""
		}
	}
	return ""
}

// traceback lists the lines of the bundle that are running, innermost first.
func (r *run) traceback(L *lua.LState) []string {
	var lines []string
	for level := 0; level < maxFrames && len(lines) < maxTraceback; level++ {
		dbg, ok := L.GetStack(level)
		if !ok {
			break
		}
		if _, err := L.GetInfo("Sln", dbg, nil); err != nil {
			break
		}
		if !inBundle(dbg.Source) || dbg.CurrentLine <= 0 {
			continue
		}
		line := fmt.Sprintf("%s:%d: in %s", dbg.Source, dbg.CurrentLine, frameName(dbg))
		if n := len(lines); n > 0 && lines[n-1] == line {
			continue // what a tail call leaves
		}
		lines = append(lines, capped(line, 200))
	}
	return lines
}

// frameName is what a traceback calls a function.
func frameName(dbg *lua.Debug) string {
	switch {
	case dbg.What == "main" && dbg.LineDefined == 0:
		return "the file"
	case dbg.Name == "" || dbg.Name[0] == '<' || dbg.Name[0] == '(' || dbg.Name == "main chunk":
		if dbg.LineDefined == 0 {
			return "the file"
		}
		return fmt.Sprintf("the function of line %d", dbg.LineDefined)
	default:
		return fmt.Sprintf("function '%s'", dbg.Name)
	}
}

// onPanic replaces the state's own way of raising an error: it makes the error without the library's traceback, which grows
// without bound after tail calls, and keeps our own while the frames are still there.
func (r *run) onPanic(L *lua.LState) {
	object := L.Get(-1)
	if r.stop == nil && r.retry == nil {
		r.trace = r.traceback(L)
	}
	panic(&lua.ApiError{Type: lua.ApiErrorRun, Object: object, StackTrace: "none"})
}

// repanic, deferred within a protected call, makes an error of a panic inside the library while its frames are still there: the stack's end,
// or a defect.
func (r *run) repanic(L *lua.LState) {
	v := recover()
	if v == nil {
		return
	}
	if _, ok := v.(*lua.ApiError); ok {
		panic(v)
	}
	r.trace = r.traceback(L)
	text := fmt.Sprint(v)
	if strings.Contains(text, "callstack overflow") {
		panic(&lua.ApiError{Type: lua.ApiErrorRun, Object: lua.LString(r.where(L) + "stack overflow"), StackTrace: "none"})
	}
	panic(&lua.ApiError{Type: lua.ApiErrorPanic, Object: lua.LString(text), StackTrace: "none"})
}

// errorFault turns what ended a script into its fault.
func (r *run) errorFault(err error) *functions.Fault {
	if r.stop != nil {
		return r.stop
	}
	if r.ctx.Err() != nil {
		f := r.interrupted()
		f.Traceback = r.trace
		if len(r.trace) > 0 {
			f.Message = position(r.trace[0]) + f.Message
		}
		return f
	}
	f := &functions.Fault{Kind: functions.FaultError, Traceback: r.trace}
	var apiErr *lua.ApiError
	if !errors.As(err, &apiErr) {
		f.Message = capped(oneLine(err.Error()), maxMessage)
		return f
	}
	if apiErr.Type == lua.ApiErrorPanic {
		return panicFault(lua.LVAsString(apiErr.Object))
	}
	if s, ok := apiErr.Object.(lua.LString); ok {
		f.Message, f.Hint = plainer(string(s))
		return f
	}
	f.Message = r.describe(apiErr.Object)
	if len(f.Traceback) > 0 {
		f.Message = position(f.Traceback[0]) + f.Message
	}
	return f
}

const recursionHint = "a function calls itself without end, or too deep"

// position is the "main.lua:12: " of a line of a traceback.
func position(line string) string {
	if i := strings.Index(line, ": "); i >= 0 {
		return line[:i+2]
	}
	return ""
}

// describe says what was raised that is no text.
func (r *run) describe(v lua.LValue) string {
	switch v := v.(type) {
	case *lua.LTable:
		if f, ok := r.L.GetMetaField(v, "__tostring").(*lua.LFunction); ok {
			if err := r.L.CallByParam(lua.P{Fn: f, NRet: 1, Protect: true}, v); err == nil {
				s := lua.LVAsString(r.L.Get(-1))
				r.L.Pop(1)
				return capped(oneLine(s), maxMessage)
			}
		}
		if text, err := encodeJSON(v, maxMessage, func() {}); err == nil {
			return "error " + string(text)
		}
		return "error with a table"
	case lua.LNumber:
		return numberText(float64(v))
	default:
		return "error with a value of type " + v.Type().String()
	}
}

// plainer says some of the VM's messages in the words of reference Lua.
func plainer(s string) (message, hint string) {
	s = capped(oneLine(s), maxMessage)
	if strings.Contains(s, "callstack overflow") || strings.Contains(s, "stack overflow") || strings.Contains(s, "registry overflow") {
		return strings.NewReplacer("lua callstack overflow", "stack overflow", "registry overflow", "stack overflow").Replace(s), recursionHint
	}
	if i := strings.Index(s, "attempt to index a non-table object("); i >= 0 {
		rest := s[i+len("attempt to index a non-table object("):]
		if kind, key, ok := strings.Cut(rest, ") with key '"); ok {
			key = strings.TrimSuffix(key, "'")
			hint := ""
			if kind == "nil" {
				hint = fmt.Sprintf("what should have '%s' is nil; event.data is nil if the payload is not JSON", capped(key, 60))
			}
			return s[:i] + "attempt to index a " + kind + " value with '" + key + "'", hint
		}
	}
	s = strings.Replace(s, "attempt to call a non-function object", "attempt to call a value that is no function", 1)
	if i := strings.Index(s, "cannot perform "); i >= 0 {
		op, operands, _ := strings.Cut(s[i+len("cannot perform "):], " operation between ")
		left, right, _ := strings.Cut(operands, " and ")
		bad := left
		if left == "number" {
			bad = right
		}
		s = fmt.Sprintf("%sattempt to perform arithmetic on a %s value (%s of %s and %s)", s[:i], bad, op, left, right)
	}
	if strings.Contains(s, "attempt to compare ") && strings.Contains(s, "userdata") {
		return s, "a whole number that is too long for a Lua number compares with its like only: tonumber(value) makes the nearest Lua number"
	}
	s = strings.Replace(s, "__unm undefined", "attempt to perform arithmetic: minus of a value that is no number", 1)
	s = strings.Replace(s, "__len undefined", "attempt to get the length of a value that has none", 1)
	return s, ""
}
