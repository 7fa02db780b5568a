package functions

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/perigee-iot/perigee/internal/topic"
	"github.com/perigee-iot/perigee/internal/units"
	"github.com/perigee-iot/perigee/internal/yamlfile"
)

// mqttFile is the long form of an mqtt trigger; but for the topic its keys may also stand beside the short form.
type mqttFile struct {
	Topic    string   `yaml:"topic"`
	QoS      int      `yaml:"qos"`
	Exclude  []string `yaml:"exclude"`
	Has      []string `yaml:"has"`
	Retained string   `yaml:"retained"`
}

// kinds of triggers, and those that a later version will have.
func triggerKinds() []string {
	return []string{"mqtt", "device", "every", "state", "function", "gateway"}
}
func laterKinds() []string { return []string{"cron", "http", "file"} }
func mqttKeys() []string   { return []string{"qos", "exclude", "has", "retained"} }

func (p *specParser) triggers(n yamlfile.Node) {
	switch {
	case n.Kind() == yamlfile.Null:
		p.failf([]string{"triggers"}, `triggers are missing, so that nothing would run the function; add one such as "triggers: [{mqtt: a/topic}]"`)
		return
	case n.Kind() != yamlfile.List:
		p.fail(n.Errorf(`must be a list; begin each trigger with "- "`))
		return
	case len(n.Items()) == 0 || len(n.Items()) > MaxTriggers:
		p.fail(n.Errorf("a function has 1 to %d triggers, not %d", MaxTriggers, len(n.Items())))
		return
	}
	for _, item := range n.Items() {
		t, err := parseTrigger(item)
		p.fail(err)
		p.spec.Triggers = append(p.spec.Triggers, t)
	}
}

func parseTrigger(n yamlfile.Node) (Trigger, error) {
	t := Trigger{Line: n.Line()}
	kind, err := triggerKind(n)
	if err != nil {
		return t, err
	}
	v, _ := n.Child(kind)
	switch kind {
	case "mqtt":
		t.MQTT, err = parseMQTT(n, v)
	case "device":
		t.Device, err = text(v)
		if err == nil {
			err = checkThing("device", t.Device)
		}
	case "every":
		t.Every, err = parseEvery(v)
	case "state":
		t.State, err = text(v)
		fn, name, ok := strings.Cut(t.State, "/")
		if err == nil && (!ok || CheckName(fn) != nil || name == "" || len(name) > 128) {
			err = fmt.Errorf("%q names no state; write FUNCTION/NAME, such as overheat/hot", short(t.State))
		}
	case "function":
		if t.Function, err = text(v); err == nil {
			err = CheckName(t.Function)
		}
	case "gateway":
		t.Gateway, err = parseGateway(v)
	}
	return t, v.Wrap(err)
}

// triggerKind finds the one key that says what kind of trigger it is.
func triggerKind(n yamlfile.Node) (string, error) {
	known := triggerKinds()
	if n.Kind() != yamlfile.Map {
		return "", n.Errorf("a trigger is written KIND: VALUE; kinds are %s", strings.Join(known, ", "))
	}
	kind := ""
	for _, k := range n.Keys() {
		at, _ := n.Child(k)
		switch {
		case slices.Contains(laterKinds(), k):
			return "", at.Errorf("trigger %q is not in this version; there are %s", k, strings.Join(known, ", "))
		case slices.Contains(mqttKeys(), k):
		case !slices.Contains(known, k):
			if near := yamlfile.Nearest(k, slices.Concat(known, mqttKeys())); near != "" {
				return "", at.Errorf("unknown trigger %q; did you mean %q?", short(k), near)
			}
			return "", at.Errorf("unknown trigger %q; there are %s", short(k), strings.Join(known, ", "))
		case kind != "":
			return "", at.Errorf(`%s and %s in one trigger; begin a new one with "- "`, kind, k)
		default:
			kind = k
		}
	}
	if kind == "" {
		return "", n.Errorf("the trigger has no kind; kinds are %s", strings.Join(known, ", "))
	}
	for _, k := range mqttKeys() {
		if at, ok := n.Child(k); ok && kind != "mqtt" {
			return "", at.Errorf("%s belongs to mqtt triggers, this one is %s", k, kind)
		}
	}
	return kind, nil
}

func text(n yamlfile.Node) (string, error) {
	var s string
	if n.Kind() == yamlfile.Null {
		return "", errors.New("a value is missing")
	}
	err := n.Decode(&s)
	return s, err
}

func parseMQTT(n, v yamlfile.Node) (*MQTTTrigger, error) {
	f := mqttFile{QoS: 1, Retained: "changed"}
	switch v.Kind() {
	case yamlfile.Map:
		if err := v.Decode(&f); err != nil {
			return nil, err
		}
	case yamlfile.Scalar:
		f.Topic = v.Text()
	default:
		return nil, v.Errorf("must be a topic, or a map with topic, qos, exclude, has, retained")
	}
	place := v // where the other keys stand
	for _, k := range mqttKeys() {
		side, ok := n.Child(k)
		if _, twice := v.Child(k); ok && twice {
			return nil, side.Errorf("is given twice, under mqtt and beside it")
		}
		if ok {
			place = n
			if err := side.Decode(map[string]any{"qos": &f.QoS, "exclude": &f.Exclude, "has": &f.Has, "retained": &f.Retained}[k]); err != nil {
				return nil, err
			}
		}
	}
	t := &MQTTTrigger{Topic: f.Topic, QoS: byte(f.QoS), Exclude: f.Exclude, Has: f.Has, Retained: f.Retained}
	return t, checkMQTT(&f, v, place)
}

func checkMQTT(f *mqttFile, v, place yamlfile.Node) error {
	if _, err := topic.ParsePattern(f.Topic); err != nil {
		return v.At("topic").Wrap(err)
	}
	if f.QoS < 0 || f.QoS > 2 {
		return place.At("qos").Errorf("must be 0, 1 or 2, not %d", f.QoS)
	}
	for _, x := range f.Exclude {
		if strings.ContainsAny(x, "{}") {
			return place.At("exclude").Errorf("%q has a name in it; use + for one level", short(x))
		}
		if err := topic.CheckFilter(x); err != nil {
			return place.At("exclude").Wrap(err)
		}
	}
	for _, h := range f.Has {
		if h == "" {
			return place.At("has").Errorf("a field has no name")
		}
	}
	if len(f.Has) > 32 || len(f.Exclude) > 32 {
		return place.Errorf("has and exclude have at most 32 entries")
	}
	if !slices.Contains([]string{"changed", "always", "never"}, f.Retained) {
		return place.At("retained").Errorf("must be changed, always or never, not %q", short(f.Retained))
	}
	return nil
}

func parseEvery(v yamlfile.Node) (time.Duration, error) {
	var d units.Duration
	if err := v.Decode(&d); err != nil {
		return 0, err
	}
	if d < units.Duration(minEvery) || d > units.Duration(maxEvery) {
		return 0, fmt.Errorf("a period of %v is out of range; allowed are %v to %v", d, units.Duration(minEvery), units.Duration(maxEvery))
	}
	return time.Duration(d), nil
}

func parseGateway(v yamlfile.Node) ([]string, error) {
	var list []string
	if err := v.Decode(&list); err != nil {
		return nil, err
	}
	known := []string{"start", "online", "offline"}
	for i, s := range list {
		if !slices.Contains(known, s) || slices.Contains(list[:i], s) {
			return nil, fmt.Errorf("must be of start, online, offline, each once; not %q", short(s))
		}
	}
	if len(list) == 0 {
		return nil, errors.New("is empty; write some of [start, online, offline]")
	}
	return list, nil
}

// String describes the trigger as people write it: "mqtt zigbee2mqtt/{room}", "every 15m".
func (t Trigger) String() string {
	switch {
	case t.MQTT != nil:
		return "mqtt " + t.MQTT.Topic
	case t.Device != "":
		return "device " + t.Device
	case t.Every != 0:
		return "every " + units.Duration(t.Every).String()
	case t.State != "":
		return "state " + t.State
	case t.Function != "":
		return "function " + t.Function
	case len(t.Gateway) > 0:
		return "gateway " + strings.Join(t.Gateway, ", ")
	}
	return "nothing"
}
