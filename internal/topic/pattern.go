package topic

import (
	"fmt"
	"slices"
	"strings"
)

// Pattern is a filter in which a level may have a name: "zigbee2mqtt/{room}" is "zigbee2mqtt/+" and calls what stands
// there room. It is immutable.
type Pattern struct {
	text   string
	filter string
	names  []string
	levels []int // the level, from 0, of each name
}

// ParsePattern reads a pattern. {name} takes one whole level; a name is letters, digits and _, begins with a letter, and occurs once.
// "topic" is no name: {topic} is the whole topic in a key.
func ParsePattern(text string) (*Pattern, error) {
	p := &Pattern{text: text}
	levels := strings.Split(text, "/")
	for i, level := range levels {
		if !strings.ContainsAny(level, "{}") {
			continue
		}
		name, ok := strings.CutPrefix(level, "{")
		if ok {
			name, ok = strings.CutSuffix(name, "}")
		}
		switch {
		case !ok || strings.ContainsAny(name, "{}"):
			return nil, fmt.Errorf("topic %s: {name} must be a whole level, not part of %s", show(text), show(level))
		case !validName(name):
			return nil, fmt.Errorf("topic %s: %s is no name; use letters, digits and _, such as {room}", show(text), show(name))
		case name == "topic":
			return nil, fmt.Errorf("topic %s: {topic} means the whole topic in a key; call this level something else", show(text))
		case slices.Contains(p.names, name):
			return nil, fmt.Errorf("topic %s: {%s} occurs twice", show(text), name)
		}
		p.names, p.levels = append(p.names, name), append(p.levels, i)
		levels[i] = "+"
	}
	p.filter = strings.Join(levels, "/")
	if err := CheckFilter(p.filter); err != nil {
		return nil, err
	}
	return p, nil
}

func validName(s string) bool {
	for i := range len(s) {
		c := s[i]
		letter := (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')
		if !letter && (i == 0 || (c != '_' && (c < '0' || c > '9'))) {
			return false
		}
	}
	return s != "" && len(s) <= 32
}

// String returns the pattern as it was written.
func (p *Pattern) String() string { return p.text }

// Filter returns the pattern as an MQTT filter, "+" for each name.
func (p *Pattern) Filter() string { return p.filter }

// Names returns the names in the order of their levels.
func (p *Pattern) Names() []string { return slices.Clone(p.names) }

// Match says whether the pattern selects a topic, and what stands at its names; nil if it has none.
func (p *Pattern) Match(name string) (map[string]string, bool) {
	if !Match(p.filter, name) {
		return nil, false
	}
	if len(p.names) == 0 {
		return nil, true
	}
	params := make(map[string]string, len(p.names))
	next := 0
	for i := 0; next < len(p.levels); i++ {
		level, rest, _ := cut(name)
		if p.levels[next] == i {
			params[p.names[next]] = level
			next++
		}
		name = rest
	}
	return params, true
}
