package recording

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/functions/rules"
	"github.com/perigee-iot/perigee/internal/units"
)

// Marks of an effect in a comparison.
const (
	Same    = "="
	Changed = "≠"
	Gone    = "-" // only the recorded revision had it
	New     = "+" // only the other has it
)

// Comparison is what is different between a recorded outcome and another one. What is the same is nil, but for effects: they are
// all listed if one of them differs, so that a reader sees where it stands.
type Comparison struct {
	What    *Pair    `json:"outcome,omitempty"` // committed, retry, dead
	Fault   *Pair    `json:"fault,omitempty"`
	Retry   *Pair    `json:"retry,omitempty"`
	Result  []Field  `json:"result,omitempty"`
	Effects []Differ `json:"effects,omitempty"`
}

// Pair is something as it was recorded and as it is now.
type Pair struct {
	Recorded string `json:"recorded"`
	Now      string `json:"now"`
}

// Field is one place in a value: "data.rooms.2".
type Field struct {
	Path string `json:"path,omitempty"`
	Pair
}

// Differ is one effect of either or both outcomes.
type Differ struct {
	Mark   string  `json:"mark"`
	Do     string  `json:"do"`
	Effect string  `json:"effect"`           // in words; of a changed one as it was recorded
	Fields []Field `json:"fields,omitempty"` // of a changed one
}

// Same says that nothing differs.
func (c *Comparison) Same() bool {
	return c.What == nil && c.Fault == nil && c.Retry == nil && len(c.Result) == 0 && len(c.Effects) == 0
}

const (
	maxFields = 8       // that are listed of one value
	maxShown  = 300     // bytes of text of one effect or value
	maxCells  = 1 << 20 // of the table that aligns two lists of effects
)

// Compare compares two outcomes. Logs, tracebacks, the lines of the code that faults name, and what an invocation cost do not count.
func Compare(was, is *Outcome) *Comparison {
	c := &Comparison{What: pair(was.What, is.What), Fault: pair(faultText(was.Fault), faultText(is.Fault)), Retry: pair(retryText(was.Retry), retryText(is.Retry))}
	if was.What == "committed" && is.What == "committed" {
		c.Result = fields("", orNull(was.Result), orNull(is.Result))
	}
	c.Effects = align(was.Effects, is.Effects)
	if !slices.ContainsFunc(c.Effects, func(d Differ) bool { return d.Mark != Same }) {
		c.Effects = nil
	}
	return c
}

func pair(was, is string) *Pair {
	if was == is {
		return nil
	}
	return &Pair{shown(was), shown(is)}
}

func shown(s string) string { return rules.Printable(s, maxShown) }

func orNull(b json.RawMessage) []byte {
	if b == nil {
		return []byte("null")
	}
	return b
}

// faultText is a fault without the line that it names: any change of the code moves that.
func faultText(f *functions.Fault) string {
	if f == nil {
		return "none"
	}
	msg := f.Message
	if file, rest, ok := strings.Cut(msg, ":"); ok && strings.HasSuffix(file, ".lua") {
		if line, text, ok := strings.Cut(rest, ":"); ok {
			if _, err := strconv.Atoi(line); err == nil {
				msg = strings.TrimSpace(text)
			}
		}
	}
	return string(f.Kind) + ": " + msg
}

func retryText(why *string) string {
	switch {
	case why == nil:
		return "no"
	case *why == "":
		return "without a reason"
	}
	return *why
}

// Count counts effects of one kind.
type Count struct {
	Recorded int `json:"recorded"`
	Now      int `json:"now"`
	Same     int `json:"same"`
	Changed  int `json:"changed"`
	Gone     int `json:"gone"`
	New      int `json:"new"`
}

// CountEffects adds the effects of two outcomes to counts, which are by kind.
func CountEffects(counts map[string]Count, was, is *Outcome) {
	for _, d := range align(was.Effects, is.Effects) {
		n := counts[d.Do]
		switch d.Mark {
		case Same:
			n.Same++
		case Changed:
			n.Changed++
		case Gone:
			n.Gone++
		case New:
			n.New++
		}
		n.Recorded, n.Now = n.Same+n.Changed+n.Gone, n.Same+n.Changed+n.New
		counts[d.Do] = n
	}
}

// align lists the effects of both outcomes in order, so that as little as possible differs.
func align(was, is []Effect) (list []Differ) {
	head := 0
	for head < len(was) && head < len(is) && cost(&was[head], &is[head]) == 0 {
		list = append(list, same(&was[head]))
		head++
	}
	tail := 0
	for tail < len(was)-head && tail < len(is)-head && cost(&was[len(was)-1-tail], &is[len(is)-1-tail]) == 0 {
		tail++
	}
	a, b := was[head:len(was)-tail], is[head:len(is)-tail]
	best := table(a, b)
	for i, j := 0, 0; i < len(a) || j < len(b); {
		both := i < len(a) && j < len(b)
		c := 2
		if both {
			c = cost(&a[i], &b[j])
		}
		switch {
		case both && c < 2 && (best == nil || best[i][j] == best[i+1][j+1]+c):
			if c == 0 {
				list = append(list, same(&a[i]))
			} else {
				list = append(list, changed(&a[i], &b[j]))
			}
			i, j = i+1, j+1
		case i < len(a) && (best == nil || best[i][j] == best[i+1][j]+1):
			list = append(list, Differ{Mark: Gone, Do: class(a[i].Do), Effect: a[i].String()})
			i++
		default:
			list = append(list, Differ{Mark: New, Do: class(b[j].Do), Effect: b[j].String()})
			j++
		}
	}
	for i := len(was) - tail; i < len(was); i++ {
		list = append(list, same(&was[i]))
	}
	return list
}

// table is the least that the rests of two lists from i and j cost; an effect without a partner costs 1. It is nil if it would be too large: then
// only neighbours are partners.
func table(a, b []Effect) [][]int {
	if (len(a)+1)*(len(b)+1) > maxCells {
		return nil
	}
	best := make([][]int, len(a)+1)
	for i := len(a); i >= 0; i-- {
		best[i] = make([]int, len(b)+1)
		for j := len(b); j >= 0; j-- {
			switch {
			case i == len(a):
				best[i][j] = len(b) - j
			case j == len(b):
				best[i][j] = len(a) - i
			default:
				best[i][j] = min(best[i+1][j]+1, best[i][j+1]+1, best[i+1][j+1]+cost(&a[i], &b[j]))
			}
		}
	}
	return best
}

// class is what effects on the same name have in common: a value that is deleted instead of set has changed.
func class(do string) string {
	space, _, _ := strings.Cut(do, ".")
	return space
}

// cost is 0 for effects that are the same, 1 for two on the same name, 2 for others.
func cost(a, b *Effect) int {
	switch {
	case class(a.Do) != class(b.Do) || a.Name != b.Name:
		return 2
	case len(differs(a, b)) > 0:
		return 1
	}
	return 0
}

func same(x *Effect) Differ { return Differ{Mark: Same, Do: class(x.Do), Effect: x.String()} }

func changed(was, is *Effect) Differ {
	return Differ{Mark: Changed, Do: class(was.Do), Effect: was.String(), Fields: differs(was, is)}
}

// differs lists what is different between two effects on the same name.
func differs(was, is *Effect) (list []Field) {
	if was.Do != is.Do {
		return []Field{{Pair: Pair{was.String(), is.String()}}}
	}
	add := func(path, a, b string) {
		if a != b {
			list = append(list, Field{path, Pair{shown(a), shown(b)}})
		}
	}
	if was.Call != nil && is.Call != nil {
		add("method", was.Call.Method, is.Call.Method)
		add("headers", strings.Join(was.Call.Headers, ", "), strings.Join(is.Call.Headers, ", "))
		add("reply", orNone(was.Call.Reply), orNone(is.Call.Reply))
		add("timeout", duration(was.Call.Timeout), duration(is.Call.Timeout))
	}
	list = append(list, fields(valueName(was.Do), was.Bytes(), is.Bytes())...)
	add("by", number(was.By), number(is.By))
	add("qos", fmt.Sprint(was.QoS), fmt.Sprint(is.QoS))
	add("retain", fmt.Sprint(was.Retain), fmt.Sprint(is.Retain))
	add("id", fmt.Sprint(was.WithID), fmt.Sprint(is.WithID))
	add("for", duration(was.For), duration(is.For))
	add("not_after", duration(was.NotAfter), duration(is.NotAfter))
	return list
}

// valueName is what the value of an effect is called in paths.
func valueName(do string) string {
	switch do {
	case "publish", "stream":
		return "data"
	case "http":
		return "body"
	}
	return "value"
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

func duration(d time.Duration) string {
	if d == 0 {
		return "none"
	}
	return units.Duration(d).String()
}

func number(f float64) string { return strconv.FormatFloat(f, 'g', -1, 64) }

// fields lists where two payloads differ: by paths if both are JSON.
func fields(path string, was, is []byte) (list []Field) {
	if bytes.Equal(was, is) && (was == nil) == (is == nil) {
		return nil
	}
	a, aOK := decode(was)
	b, bOK := decode(is)
	if aOK && bOK {
		walk(path, a, b, &list)
		return list
	}
	return []Field{{path, Pair{raw(was), raw(is)}}}
}

func raw(b []byte) string {
	if b == nil {
		return "nothing"
	}
	if json.Valid(b) {
		return shown(string(b))
	}
	return shown(strconv.Quote(string(b)))
}

func decode(b []byte) (v any, ok bool) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	return v, d.Decode(&v) == nil && !d.More()
}

func walk(path string, was, is any, out *[]Field) {
	if len(*out) >= maxFields {
		return
	}
	switch a := was.(type) {
	case map[string]any:
		if b, ok := is.(map[string]any); ok {
			names := slices.AppendSeq(slices.Collect(maps.Keys(a)), maps.Keys(b))
			slices.Sort(names)
			for _, n := range slices.Compact(names) {
				va, inA := a[n]
				vb, inB := b[n]
				if inA && inB {
					walk(join(path, n), va, vb, out)
				} else {
					note(join(path, n), text(va, inA), text(vb, inB), out)
				}
			}
			return
		}
	case []any:
		if b, ok := is.([]any); ok && len(a) == len(b) {
			for i := range a {
				walk(join(path, strconv.Itoa(i+1)), a[i], b[i], out)
			}
			return
		}
	case json.Number:
		if b, ok := is.(json.Number); ok && equalNumbers(a, b) {
			return
		}
	}
	note(path, text(was, true), text(is, true), out)
}

func note(path, was, is string, out *[]Field) {
	if was != is && len(*out) < maxFields {
		*out = append(*out, Field{path, Pair{was, is}})
	}
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

func text(v any, there bool) string {
	if !there {
		return "nothing"
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return fmt.Sprint(v)
	}
	return shown(strings.TrimSpace(b.String()))
}

// equalNumbers compares by value: 1 and 1.0 are the same, two whole numbers beyond 2⁵³ are not.
func equalNumbers(a, b json.Number) bool {
	if a == b {
		return true
	}
	if strings.ContainsAny(a.String(), ".eE") || strings.ContainsAny(b.String(), ".eE") {
		x, errX := a.Float64()
		y, errY := b.Float64()
		return errX == nil && errY == nil && x == y
	}
	return false
}

// String is the effect in words: "publish alerts/overheat {…}", "state hot = true".
func (e *Effect) String() string {
	space, does, _ := strings.Cut(e.Do, ".")
	s := space + " " + e.Name
	value := ""
	if b := e.Bytes(); b != nil {
		value = raw(b)
	}
	switch {
	case e.Do == "http":
		s = "http " + e.Name + " " + value
		if e.Call != nil {
			s = "http " + e.Call.Method + " " + e.Name + " " + value
		}
	case does == "delete":
		s += " deleted"
	case does == "incr":
		s += " + " + number(e.By)
	case does == "cancel":
		s += " cancelled"
	case e.Do == "timer.set":
		s += " in " + duration(e.For)
	case e.Do == "publish" || e.Do == "stream":
		s += " " + value
	default:
		s += " = " + value
		if e.For > 0 {
			s += " for " + duration(e.For)
		}
	}
	return shown(strings.TrimSpace(s))
}
