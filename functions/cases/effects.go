package cases

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/functions/rules"
	"github.com/perigee-iot/perigee/internal/units"
	"github.com/perigee-iot/perigee/internal/yamlfile"
)

func (c *checker) effects() {
	got := c.did.actions()
	wanted := c.e.effects
	compared := map[[2]int][]difference{}
	differ := func(i, j int) []difference {
		d, ok := compared[[2]int{i, j}]
		if !ok {
			d = wanted[i].differs(&got[j])
			compared[[2]int{i, j}] = d
		}
		return d
	}
	c.lists(c.e.effectsAt, "expect", len(wanted), len(got), func(i, j int) int {
		switch {
		case wanted[i].kind != got[j].Kind || wanted[i].name != got[j].Name:
			return 2
		case len(differ(i, j)) > 0:
			return 1
		}
		return 0
	}, func(i, j int) []Line {
		switch {
		case j < 0:
			return []Line{{Mark: '-', Text: wanted[i].String() + missing}}
		case i < 0:
			return []Line{{Mark: '+', Text: show(&got[j]) + surplus}}
		case len(differ(i, j)) == 0:
			return []Line{{Mark: '=', Text: show(&got[j])}}
		}
		return append([]Line{{Mark: '≠', Text: kindName(got[j].Kind) + " " + got[j].Name}}, differences(differ(i, j))...)
	})
	if n := len(c.out); n > 0 && len(got) == 0 && len(wanted) > 0 && c.out[n-1].What == "expect" && len(c.did.Runs) == 0 {
		c.out[n-1].Lines = append(c.out[n-1].Lines, Line{Text: c.idle()})
	}
}

// lists aligns what was expected with what there is, so that as little as possible differs, and reports it if anything does. cost is
// 0 for two that fit, 1 for two that are the same thing but for details, 2 for others; show gets -1 for what has no partner.
func (c *checker) lists(n yamlfile.Node, what string, wanted, got int, cost func(i, j int) int, show func(i, j int) []Line) {
	// best[i][j] is the least that the rests from i and j cost; one without a partner costs 1.
	best := make([][]int, wanted+1)
	for i := wanted; i >= 0; i-- {
		best[i] = make([]int, got+1)
		for j := got; j >= 0; j-- {
			switch {
			case i == wanted:
				best[i][j] = got - j
			case j == got:
				best[i][j] = wanted - i
			default:
				best[i][j] = min(best[i+1][j]+1, best[i][j+1]+1, best[i+1][j+1]+cost(i, j))
			}
		}
	}
	if best[0][0] == 0 {
		return
	}
	var lines []Line
	for i, j := 0, 0; i < wanted || j < got; {
		switch {
		case i < wanted && j < got && cost(i, j) < 2 && best[i][j] == best[i+1][j+1]+cost(i, j):
			lines = append(lines, show(i, j)...)
			i, j = i+1, j+1
		case i < wanted && best[i][j] == best[i+1][j]+1:
			lines = append(lines, show(i, -1)...)
			i++
		default:
			lines = append(lines, show(-1, j)...)
			j++
		}
	}
	c.fail(n, what, lines...)
}

// differs compares an effect of the same kind and name.
func (w *want) differs(x *functions.Effect) (list []difference) {
	add := func(path, expected, got string) {
		if expected != got {
			list = append(list, difference{path: path, expected: expected, got: got})
		}
	}
	payload := x.Value
	if x.Kind == functions.CallHTTP {
		call, err := functions.DecodeHTTPCall(x.Value)
		if err != nil {
			return []difference{{path: "call", expected: "one that can be read", got: err.Error()}}
		}
		payload = call.Body
		w.differsCall(call, add)
	}
	if !w.Data.IsZero() {
		list = append(list, matchJSON(w.Data, "data", payload)...)
	}
	if w.Text != nil {
		add("text", fmt.Sprintf("%q", *w.Text), fmt.Sprintf("%q", payload))
	}
	if !w.Write.IsZero() {
		list = append(list, matchJSON(w.Write, "write", x.Value)...)
	}
	if w.QoS != nil {
		add("qos", fmt.Sprint(*w.QoS), fmt.Sprint(x.QoS))
	}
	if w.Retain != nil {
		add("retain", fmt.Sprint(*w.Retain), fmt.Sprint(x.Retain))
	}
	if w.ID != nil {
		add("id", fmt.Sprint(*w.ID), fmt.Sprint(x.WithID))
	}
	if w.For != nil {
		add("for", w.For.String(), units.Duration(x.For).String())
	}
	if w.NotAfter != nil {
		add("not_after", w.NotAfter.String(), units.Duration(x.NotAfter).String())
	}
	return list
}

// differsCall compares what only HTTP calls have.
func (w *want) differsCall(c *functions.HTTPCall, add func(path, expected, got string)) {
	if w.Method != nil {
		add("method", *w.Method, c.Method)
	}
	if w.Reply != nil {
		add("reply", fmt.Sprintf("%q", *w.Reply), fmt.Sprintf("%q", c.Reply))
	}
	if w.Timeout != nil {
		add("timeout", w.Timeout.String(), units.Duration(c.Timeout).String())
	}
	for _, name := range slices.Sorted(maps.Keys(w.Headers)) {
		got := "nothing"
		for _, h := range c.Headers {
			if strings.EqualFold(h.Name, name) {
				got = fmt.Sprintf("%q", h.Value)
			}
		}
		add("headers."+name, fmt.Sprintf("%q", w.Headers[name]), got)
	}
}

// String shows an expected effect as show does one that happened.
func (w *want) String() string {
	s := kindName(w.kind) + " " + w.name
	switch {
	case !w.Data.IsZero():
		s += " " + string(toJSON(w.Data))
	case w.Text != nil:
		s += " " + *w.Text
	case !w.Write.IsZero():
		s += " = " + string(toJSON(w.Write))
	}
	return rules.Printable(s, maxShown)
}

// What stands behind an entry without a partner.
const (
	missing = "  (missing)"
	surplus = "  (not expected)"
)

// maxShown bounds the text of one effect or value in a report.
const maxShown = 300

func show(x *functions.Effect) string {
	s := kindName(x.Kind) + " " + x.Name
	switch x.Kind {
	case functions.WriteDevice:
		s += " = " + string(x.Value)
	case functions.Publish, functions.Append:
		s = strings.TrimSpace(s + " " + string(x.Value))
	case functions.CallHTTP:
		s = rules.Describe(x)
		if call, err := functions.DecodeHTTPCall(x.Value); err == nil && len(call.Body) > 0 {
			s += " " + string(call.Body)
		}
	default:
		s = rules.Describe(x)
	}
	return rules.Printable(s, maxShown)
}
