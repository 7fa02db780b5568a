package script

import (
	"fmt"
	"strings"
	"time"

	lua "github.com/yuin/gopher-lua"
)

// osFunctions are what is left of the library os. The time is the invocation's, and does not move while it runs; all of it is UTC.
func osFunctions() map[string]builtin {
	return map[string]builtin{"clock": osClock, "date": osDate, "time": osTime, "difftime": osDifftime}
}

// osClock is how long the invocation has run, in seconds.
func osClock(r *run, L *lua.LState) int {
	L.Push(lua.LNumber(time.Since(r.began).Seconds()))
	return 1
}

func osTime(r *run, L *lua.LState) int {
	if L.Get(1) == lua.LNil {
		L.Push(lua.LNumber(r.inv.Now.Unix()))
		return 1
	}
	t := L.CheckTable(1)
	field := func(name string, or int) int {
		v := t.RawGetString(name)
		if n, ok := toNumber(v); ok && n > -1e9 && n < 1e9 {
			return int(n)
		}
		if or < 0 || v != lua.LNil {
			L.ArgError(1, fmt.Sprintf("field '%s' missing in date table, or no number", name))
		}
		return or
	}
	at := time.Date(field("year", -1), time.Month(field("month", -1)), field("day", -1), field("hour", 12), field("min", 0), field("sec", 0), 0, time.UTC)
	L.Push(lua.LNumber(at.Unix()))
	return 1
}

func osDifftime(_ *run, L *lua.LState) int {
	since := 0.0
	if L.Get(2) != lua.LNil {
		since = checkNumber(L, 2)
	}
	L.Push(lua.LNumber(checkNumber(L, 1) - since))
	return 1
}

func osDate(r *run, L *lua.LState) int {
	format := strings.TrimPrefix(optString(L, 1, "%c"), "!")
	at := r.inv.Now.UTC()
	if L.Get(2) != lua.LNil {
		n := checkNumber(L, 2)
		if !(n > -1e11 && n < 1e11) {
			L.ArgError(2, "time out of range")
		}
		at = time.Unix(int64(n), 0).UTC()
	}
	if strings.HasPrefix(format, "*t") {
		L.Push(dateTable(L, at))
		return 1
	}
	b := r.buffer(L, "os.date")
	for i := 0; i < len(format); i++ {
		if format[i] != '%' || i+1 == len(format) {
			b.byte(format[i])
			continue
		}
		i++
		b.text(datePart(at, format[i]))
	}
	L.Push(b.value())
	return 1
}

func dateTable(L *lua.LState, at time.Time) *lua.LTable {
	t := L.CreateTable(0, 9)
	for name, n := range map[string]int{"year": at.Year(), "month": int(at.Month()), "day": at.Day(), "hour": at.Hour(),
		"min": at.Minute(), "sec": at.Second(), "wday": int(at.Weekday()) + 1, "yday": at.YearDay()} {
		t.RawSetString(name, lua.LNumber(n))
	}
	t.RawSetString("isdst", lua.LFalse)
	return t
}

// datePart is what one letter of strftime stands for, in the C locale.
func datePart(at time.Time, c byte) string {
	if layout, ok := map[byte]string{'a': "Mon", 'A': "Monday", 'b': "Jan", 'h': "Jan", 'B': "January", 'c': "Mon Jan _2 15:04:05 2006",
		'd': "02", 'e': "_2", 'D': "01/02/06", 'F': "2006-01-02", 'H': "15", 'I': "03", 'm': "01", 'M': "04", 'p': "PM", 'r': "03:04:05 PM",
		'R': "15:04", 'S': "05", 'T': "15:04:05", 'x': "01/02/06", 'X': "15:04:05", 'y': "06", 'Y': "2006", 'z': "-0700", 'Z': "MST"}[c]; ok {
		return at.Format(layout)
	}
	year, week := at.ISOWeek()
	switch c {
	case 'j':
		return fmt.Sprintf("%03d", at.YearDay())
	case 'w':
		return fmt.Sprint(int(at.Weekday()))
	case 'u':
		return fmt.Sprint((int(at.Weekday())+6)%7 + 1)
	case 'U':
		return fmt.Sprintf("%02d", (at.YearDay()+6-int(at.Weekday()))/7)
	case 'W':
		return fmt.Sprintf("%02d", (at.YearDay()+6-(int(at.Weekday())+6)%7)/7)
	case 'V':
		return fmt.Sprintf("%02d", week)
	case 'G':
		return fmt.Sprintf("%04d", year)
	case 'g':
		return fmt.Sprintf("%02d", year%100)
	case 'C':
		return fmt.Sprintf("%02d", at.Year()/100)
	case 's':
		return fmt.Sprint(at.Unix())
	case 'n':
		return "\n"
	case 't':
		return "\t"
	case '%':
		return "%"
	}
	return "%" + string([]byte{c})
}
