package engine

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/perigee-iot/perigee/drivers"
	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/functions/rules"
	"github.com/perigee-iot/perigee/internal/event"
	"github.com/perigee-iot/perigee/internal/jsonscan"
	"github.com/perigee-iot/perigee/internal/topic"
)

// routes is the table from events to functions. It is built anew when a function or a device comes or goes.
type routes struct {
	messages topic.Tree[*route]
	devices  map[string][]*route
	ticks    map[string][]*route // by function
	states   map[string][]*route // by "function/name"
	results  map[string][]*route // by function
	gateway  map[string][]*route // by "start", …
	filters  []drivers.Filter
	sources  map[string]bool // functions whose results or state somebody waits for
}

// route leads to one function by one of its triggers, or, without a function, to a device behind MQTT.
type route struct {
	fn      *function
	trigger *functions.Trigger
	pattern *topic.Pattern
	device  string        // feed
	feed    *drivers.Feed // messages that are readings of device
	missing string        // why an event that came this way is nothing for the function
}

func newRoutes() *routes {
	return &routes{devices: map[string][]*route{}, ticks: map[string][]*route{}, states: map[string][]*route{},
		results: map[string][]*route{}, gateway: map[string][]*route{}, sources: map[string]bool{}}
}

// build makes the table of the functions that are routed and the devices behind MQTT.
func build(fns map[string]*function, devices drivers.Set) *routes {
	t := newRoutes()
	for _, f := range fns {
		for i := range f.dep.spec().Triggers {
			r := &route{fn: f, trigger: &f.dep.spec().Triggers[i]}
			if f.State != Blocked {
				t.add(r)
			} else if g := r.trigger; g.MQTT != nil || g.Device != "" || len(g.Gateway) > 0 { // what comes from outside
				r.missing = "blocked: " + f.Reason
				t.add(r)
			}
		}
	}
	for name, d := range devices {
		if d.Feed != nil && d.Feed.Topic != "" { // one that is only written has nothing to subscribe to
			t.messages.Add(d.Feed.Topic, &route{device: name, feed: d.Feed})
			t.filters = append(t.filters, drivers.Filter{Topic: d.Feed.Topic, QoS: 1})
		}
	}
	return t
}

func (t *routes) add(r *route) {
	g := r.trigger
	switch {
	case g.MQTT != nil:
		p, err := topic.ParsePattern(g.MQTT.Topic)
		if err != nil {
			return // the spec was checked when it was parsed
		}
		r.pattern = p
		t.messages.Add(p.Filter(), r)
		t.filters = append(t.filters, drivers.Filter{Topic: p.Filter(), QoS: g.MQTT.QoS, Watched: r.missing != ""})
	case g.Device != "":
		t.devices[g.Device] = append(t.devices[g.Device], r)
	case g.Every > 0:
		t.ticks[r.fn.Name] = append(t.ticks[r.fn.Name], r)
	case g.State != "":
		t.states[g.State] = append(t.states[g.State], r)
		t.sources[strings.SplitN(g.State, "/", 2)[0]] = true
	case g.Function != "":
		t.results[g.Function] = append(t.results[g.Function], r)
		t.sources[g.Function] = true
	default:
		for _, what := range g.Gateway {
			t.gateway[what] = append(t.gateway[what], r)
		}
	}
}

// follows says that something may be triggered by what a function does.
func (t *routes) follows(fn string) bool { return t.sources[fn] }

// watches says that a function is triggered by a state value.
func (t *routes) watches(fn, name string) bool { return len(t.states[fn+"/"+name]) > 0 }

// wants says that a message leads anywhere.
func (t *routes) wants(ev *event.Event) (any bool) {
	t.messages.Match(ev.Topic, func(*route) { any = true })
	return any
}

// match calls fn for every route of an event. A message that is a reading of a device comes as that too: then derived
// is the reading, and the route's function nil if nobody waits for it.
func (t *routes) match(ev *event.Event, fn func(r *route, params map[string]string, derived *event.Event)) {
	var list []*route
	switch ev.Type {
	case event.Message:
		t.messages.Match(ev.Topic, func(r *route) {
			if r.feed != nil {
				t.matchFeed(r, ev, fn)
				return
			}
			if params, ok := r.pattern.Match(ev.Topic); ok {
				fn(r, params, nil)
			}
		})
		return
	case event.Reading:
		list = t.devices[ev.Subject]
	case event.Tick:
		list = t.ticks[ev.Subject]
	case event.State:
		list = t.states[ev.Subject]
	case event.Result:
		list = t.results[ev.Subject]
	case event.Gateway:
		list = t.gateway[ev.Subject]
	}
	for _, r := range list {
		fn(r, nil, nil)
	}
}

// matchFeed makes a reading of a message from a device behind MQTT.
func (t *routes) matchFeed(r *route, ev *event.Event, fn func(*route, map[string]string, *event.Event)) {
	data := ev.Data
	if r.feed.Field != "" {
		v, ok := jsonField(data, r.feed.Field)
		if !ok {
			t.unread(r, ev, fn)
			return
		}
		data, _ = json.Marshal(map[string]json.RawMessage{lastPart(r.feed.Field): v})
	} else if !isObject(data) {
		data, _ = json.Marshal(map[string]any{"value": plain(data)})
	}
	make1 := func() *event.Event {
		return &event.Event{ID: ev.ID + "." + r.device, Source: "device/" + r.device, Type: event.Reading, Subject: r.device,
			Time: ev.Time, TimeOK: ev.TimeOK, Boot: ev.Boot, Mono: ev.Mono, Data: data, Retained: ev.Retained, Chain: ev.Chain}
	}
	reading := make1()
	if len(t.devices[r.device]) == 0 {
		fn(r, nil, reading)
	}
	for _, to := range t.devices[r.device] {
		fn(to, nil, reading)
	}
}

// unread passes on that a message of a device brings no reading, so that the device and its functions can say why.
func (t *routes) unread(r *route, ev *event.Event, fn func(*route, map[string]string, *event.Event)) {
	why := fmt.Sprintf("the payload has no field %q with a plain value", r.feed.Field)
	fn(&route{device: r.device, missing: why}, nil, nil)
	for _, to := range t.devices[r.device] {
		missing := *to
		missing.missing = fmt.Sprintf("device %s: %s", r.device, why)
		fn(&missing, nil, nil)
	}
}

// plain is the value of a payload that is no object: JSON if it is, else its text.
func plain(data []byte) any {
	var v any
	if err := json.Unmarshal(data, &v); err == nil {
		return v
	}
	return string(data)
}

func lastPart(path string) string { return path[strings.LastIndexByte(path, '.')+1:] }

func isObject(data []byte) bool {
	for _, b := range data {
		switch b {
		case ' ', '\t', '\r', '\n':
			continue
		}
		return b == '{' && json.Valid(data)
	}
	return false
}

func jsonField(data []byte, path string) (json.RawMessage, bool) {
	vals, err := jsonscan.Fields(data, [][]string{strings.Split(path, ".")})
	if err != nil {
		return nil, false
	}
	switch v := vals[0]; v.Kind {
	case jsonscan.Null:
		return json.RawMessage("null"), true
	case jsonscan.Bool, jsonscan.Number:
		return json.RawMessage(v.Text), true
	case jsonscan.String:
		b, err := json.Marshal(v.Text)
		return b, err == nil
	}
	return nil, false // absent, or nothing that a reading has
}

// skips says why a function does not run on an event that came by one of its triggers, "" if it does.
func (r *route) skips(ev *event.Event, f *function) string {
	if r.missing != "" || r.trigger == nil || r.trigger.MQTT == nil {
		return r.missing
	}
	return rules.Skips(r.trigger.MQTT, ev, func() bool { return f.seen.same(ev) })
}

// subscriptions are the filters that the broker is to send, without doubles; those that are only watched are for one in the process.
func (t *routes) subscriptions(inProcess bool) []drivers.Filter {
	best := map[string]drivers.Filter{}
	for _, f := range t.filters {
		if f.Watched && !inProcess {
			continue
		}
		if b, ok := best[f.Topic]; ok {
			f.QoS, f.Watched = max(f.QoS, b.QoS), f.Watched && b.Watched
		}
		best[f.Topic] = f
	}
	out := make([]drivers.Filter, 0, len(best))
	for _, f := range best {
		out = append(out, f)
	}
	slices.SortFunc(out, func(a, b drivers.Filter) int { return strings.Compare(a.Topic, b.Topic) })
	return out
}
