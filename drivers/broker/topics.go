package broker

import (
	"errors"
	"slices"
	"strings"

	"github.com/perigee-iot/perigee/drivers"
	"github.com/perigee-iot/perigee/internal/topic"
)

var errTopicSys = errors.New("topics under $SYS belong to the broker")

// checkName says what is wrong with a topic to publish to, or nil.
func checkName(s string) error {
	if err := topic.CheckName(s); err != nil {
		return err
	}
	if len(s) >= 4 && strings.EqualFold(s[:4], "$SYS") {
		return errTopicSys
	}
	return nil
}

// unshared takes "$share/group/" off a filter.
func unshared(filter string) string {
	if len(filter) < 7 || !strings.EqualFold(filter[:7], "$share/") {
		return filter
	}
	if _, rest, ok := strings.Cut(filter[7:], "/"); ok {
		return rest
	}
	return filter
}

func covered(by []string, filter string) bool {
	return slices.ContainsFunc(by, func(f string) bool { return topic.Covers(f, filter) })
}

func matchAny(filters []string, name string) bool {
	return slices.ContainsFunc(filters, func(f string) bool { return topic.Match(f, name) })
}

// wanted is an immutable set of filters.
type wanted struct {
	filters []string // sorted, without those that are only watched
	tree    topic.Tree[struct{}]
}

func newWanted(filters []drivers.Filter) *wanted {
	w := &wanted{}
	for _, f := range filters {
		if !f.Watched {
			w.filters = append(w.filters, f.Topic)
		}
		w.tree.Add(f.Topic, struct{}{})
	}
	slices.Sort(w.filters)
	w.filters = slices.Compact(w.filters)
	return w
}

func (w *wanted) has(filter string) bool {
	_, ok := slices.BinarySearch(w.filters, filter)
	return ok
}

func (w *wanted) match(name string) bool {
	found := false
	w.tree.Match(name, func(struct{}) { found = true })
	return found
}
