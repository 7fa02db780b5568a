package app

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/perigee-iot/perigee/drivers"
	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/internal/topic"
)

// circle finds the shortest way on which a function may trigger itself again, through others or alone: "a → alerts/x → b → its result → a".
// It is "" if there is none. What may be is told by permissions and triggers, so that a circle may be found that never happens.
func circle(spec *functions.Spec, others map[string]*functions.Spec, devices drivers.Set) string {
	all := maps.Clone(others)
	all[spec.Name] = spec
	names := slices.Sorted(maps.Keys(all))
	type step struct {
		from *step
		via  string
		name string
	}
	seen := map[string]bool{}
	for queue := []*step{{name: spec.Name}}; len(queue) > 0; queue = queue[1:] {
		at := queue[0]
		for _, name := range names {
			if seen[name] {
				continue
			}
			via := leads(all[at.name], all[name], devices)
			if via == "" {
				continue
			}
			next := &step{at, via, name}
			if name == spec.Name {
				var way []string
				for s := next; s != nil; s = s.from {
					way = append(way, s.name)
					if s.via != "" {
						way = append(way, s.via)
					}
				}
				slices.Reverse(way)
				return strings.Join(way, " → ")
			}
			seen[name] = true
			queue = append(queue, next)
		}
	}
	return ""
}

// leads says by what one function may trigger another, "" if it cannot.
func leads(from, to *functions.Spec, devices drivers.Set) string {
	sends := slices.Clone(from.Permissions.Publish)
	for _, name := range from.Permissions.WriteDevices {
		if d := devices[name]; d != nil && d.Feed != nil && d.Feed.Write != "" {
			sends = append(sends, d.Feed.Write)
		}
	}
	for _, t := range to.Triggers {
		switch {
		case t.Function == from.Name:
			return "its result"
		case strings.HasPrefix(t.State, from.Name+"/"):
			return "its state " + strings.TrimPrefix(t.State, from.Name+"/")
		case t.MQTT != nil:
			p, err := topic.ParsePattern(t.MQTT.Topic)
			if err != nil {
				continue // the spec was checked when it was parsed
			}
			if via := meets(sends, p.Filter(), t.MQTT.Exclude); via != "" {
				return via
			}
		case t.Device != "":
			if d := devices[t.Device]; d != nil && d.Feed != nil && d.Feed.Topic != "" {
				if via := meets(sends, d.Feed.Topic, nil); via != "" {
					return via
				}
			}
		}
	}
	return ""
}

// meets finds the topics of a list that a filter selects, and that are not excluded as a whole: the narrower of both.
func meets(sends []string, filter string, exclude []string) string {
	for _, s := range sends {
		if !topic.Overlaps(s, filter) || slices.ContainsFunc(exclude, func(x string) bool { return topic.Covers(x, s) || topic.Covers(x, filter) }) {
			continue
		}
		if topic.Covers(s, filter) {
			return filter
		}
		return s
	}
	return ""
}

// circleWarning warns of a circle that a function closes.
func (a *App) circleWarning(b *functions.Bundle) string {
	others := map[string]*functions.Spec{}
	for _, f := range a.engine.Functions() {
		others[f.Name] = f.Dep.Bundle.Spec
	}
	way := circle(b.Spec, others, a.devices.set())
	if way == "" {
		return ""
	}
	return fmt.Sprintf("it may trigger itself in a circle: %s; a circle ends after 16 functions, and the event of the next is lost", way)
}
