package cases

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/internal/topic"
	"github.com/perigee-iot/perigee/internal/units"
	"github.com/perigee-iot/perigee/internal/yamlfile"
)

// stepFile is a step as it is written. The payload may stand beside the short form of a cause.
type stepFile struct {
	MQTT     yamlfile.Node  `yaml:"mqtt"`
	Device   yamlfile.Node  `yaml:"device"`
	Every    yamlfile.Node  `yaml:"every"`
	Timer    yamlfile.Node  `yaml:"timer"`
	Function yamlfile.Node  `yaml:"function"`
	Changed  yamlfile.Node  `yaml:"changed"`
	Gateway  yamlfile.Node  `yaml:"gateway"`
	Reply    yamlfile.Node  `yaml:"reply"`
	Invoke   yamlfile.Node  `yaml:"invoke"`
	After    units.Duration `yaml:"after"`
	Payload  payloadFile    `yaml:",inline"`

	Expect  yamlfile.Node `yaml:"expect"`
	Result  yamlfile.Node `yaml:"result"`
	Fault   yamlfile.Node `yaml:"fault"`
	Retry   yamlfile.Node `yaml:"retry"`
	State   yamlfile.Node `yaml:"state"`
	Shared  yamlfile.Node `yaml:"shared"`
	Timers  yamlfile.Node `yaml:"timers"`
	Log     yamlfile.Node `yaml:"log"`
	Skipped yamlfile.Node `yaml:"skipped"`
}

func (p *parser) step(n yamlfile.Node) Step {
	s := Step{Line: n.Line()}
	for _, later := range []string{"http", "cron", "file"} {
		if at, ok := n.Child(later); ok && n.Kind() == yamlfile.Map {
			p.fail(at.Errorf("trigger %q is not in this version", later))
			return s
		}
	}
	var f stepFile
	if err := n.Decode(&f); err != nil {
		p.fail(err)
		return s
	}
	s.After = time.Duration(f.After)
	if s.After > maxAfter {
		p.fail(n.At("after").Errorf("is longer than ten years"))
		s.After = 0
	}
	s.Cause = p.cause(n, &f)
	s.Text = s.describe()
	s.Expect = p.expect(n, &f)
	if s.Cause == nil && f.After == 0 && len(p.errs) == 0 {
		p.fail(n.Errorf("nothing happens in this step: write one of mqtt, device, every, timer, function, changed, gateway, reply, invoke or after"))
	}
	return s
}

func (s *Step) describe() string {
	var parts []string
	if s.After > 0 {
		parts = append(parts, "after "+units.Duration(s.After).String())
	}
	if s.Cause != nil {
		parts = append(parts, strings.TrimSpace(string(s.Cause.Kind)+" "+s.Cause.Name))
	}
	return strings.Join(parts, ", ")
}

// causeFile is the long form of a cause.
type causeFile struct {
	Topic   string      `yaml:"topic"`
	Name    string      `yaml:"name"`
	Payload payloadFile `yaml:",inline"`
}

func (p *parser) cause(n yamlfile.Node, f *stepFile) *Cause {
	causes := []struct {
		kind Kind
		node yamlfile.Node
	}{{MQTT, f.MQTT}, {Device, f.Device}, {Every, f.Every}, {Timed, f.Timer}, {Function, f.Function}, {Changed, f.Changed}, {Gateway, f.Gateway}, {Reply, f.Reply}, {Invoke, f.Invoke}}
	var c *Cause
	for _, x := range causes {
		if x.node.IsZero() {
			continue
		}
		if c != nil {
			p.fail(x.node.Errorf("%s and %s in one step; begin a new one with \"- \"", c.Kind, x.kind))
			return c
		}
		if c = p.long(n, x.node, x.kind, f); c == nil {
			return nil
		}
		p.fail(x.node.Wrap(p.possible(c)))
	}
	if c == nil && (!f.Payload.Data.IsZero() || f.Payload.Text != nil || f.Payload.Base64 != nil) {
		p.fail(n.Errorf("data comes with an event: write one of mqtt, device, function, changed, invoke"))
	}
	return c
}

// long reads both forms of a cause: mqtt: {topic: …, data: …}, and mqtt: … with data beside it.
func (p *parser) long(step, n yamlfile.Node, kind Kind, f *stepFile) *Cause {
	c := &Cause{Kind: kind}
	l := causeFile{Payload: f.Payload}
	at := step
	if n.Kind() == yamlfile.Map {
		if !f.Payload.Data.IsZero() || f.Payload.Text != nil || f.Payload.Base64 != nil {
			p.fail(n.Errorf("what %s brings stands either in it or beside it, not both", kind))
			return nil
		}
		if err := n.Decode(&l); err != nil {
			p.fail(err)
			return nil
		}
		at = n
	} else if n.Kind() == yamlfile.Scalar {
		l.Name = n.Text()
	} else if kind != Invoke {
		p.fail(n.Errorf("write %s: NAME, or a map", kind))
		return nil
	}
	c.Name, c.Key, c.ID, c.Params = l.Name, l.Payload.Key, l.Payload.ID, l.Payload.Params
	c.Time = p.time(l.Payload.Time, c.Time)
	switch {
	case l.Topic != "" && kind != MQTT && kind != Invoke:
		p.fail(n.At("topic").Errorf("only mqtt has a topic; write name"))
	case l.Topic != "":
		c.Name = l.Topic
	}
	if l.Payload.Params != nil && kind != Invoke {
		p.fail(at.At("params").Errorf("params follow from the topic; only invoke has them"))
	}
	c.Retained = l.Payload.Retained != nil && *l.Payload.Retained
	if c.Retained && kind != MQTT {
		p.fail(n.Errorf("only messages are retained"))
	}
	if c.Key != nil && kind != Timed && kind != Reply && kind != Changed && kind != Invoke {
		p.fail(at.At("key").Errorf("the key follows from the event; it can be given for timer, reply, changed and invoke"))
	}
	var err error
	c.Data, err = l.Payload.payload(at)
	p.fail(err)
	if c.Data != nil && (kind == Every || kind == Timed || kind == Gateway) {
		p.fail(at.Errorf("%s brings no data", kind))
	}
	return c
}

// possible says what is wrong with a cause: above all, that no trigger takes it.
func (p *parser) possible(c *Cause) error {
	matches := func(t functions.Trigger) bool { return false }
	switch c.Kind {
	case MQTT:
		if err := topic.CheckName(c.Name); err != nil {
			return err
		}
		matches = func(t functions.Trigger) bool {
			if t.MQTT == nil {
				return false
			}
			pattern, err := topic.ParsePattern(t.MQTT.Topic)
			if err != nil {
				return false
			}
			_, ok := pattern.Match(c.Name)
			return ok
		}
	case Device:
		if len(c.Data) == 0 || c.Data[0] != '{' {
			return fmt.Errorf("a reading is a map of fields: write data: {temperature: 21}")
		}
		matches = func(t functions.Trigger) bool { return t.Device == c.Name }
	case Every:
		d, err := units.ParseDuration(c.Name)
		if err != nil {
			return err
		}
		matches = func(t functions.Trigger) bool { return t.Every == d }
	case Function:
		matches = func(t functions.Trigger) bool { return t.Function == c.Name }
	case Changed:
		matches = func(t functions.Trigger) bool { return t.State == c.Name }
	case Gateway:
		matches = func(t functions.Trigger) bool { return slices.Contains(t.Gateway, c.Name) }
	case Timed:
		if c.Name == "" {
			return fmt.Errorf("which timer? write timer: NAME")
		}
		return nil
	case Reply:
		if c.Name == "" {
			return fmt.Errorf("which reply? write reply: NAME, as in the call")
		}
		return nil
	case Invoke:
		return nil
	}
	if slices.ContainsFunc(p.spec.Triggers, matches) {
		return nil
	}
	var list []string
	for _, t := range p.spec.Triggers {
		list = append(list, t.String())
	}
	what := string(c.Kind)
	if c.Kind == Changed {
		what = "state"
	}
	return fmt.Errorf("no trigger of function %s takes %s %s; its triggers are: %s", p.spec.Name, what, c.Name, strings.Join(list, "; "))
}
