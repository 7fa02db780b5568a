package functions

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/perigee-iot/perigee/internal/topic"
	"github.com/perigee-iot/perigee/internal/yamlfile"
)

const keyForms = `write "{room}" with a name from the trigger's topic, "{topic}", data.some.path, or none`

func (p *specParser) key(n yamlfile.Node) {
	if n.Kind() == yamlfile.Null {
		return
	}
	var s string
	if err := n.Decode(&s); err != nil {
		// {room} without quotes is a map to YAML.
		p.fail(n.Errorf("must be text in quotes; %s", keyForms))
		return
	}
	k, params, err := parseKey(s)
	if err != nil {
		p.fail(n.Wrap(err))
		return
	}
	p.spec.Key = k
	for _, t := range p.spec.Triggers {
		for _, name := range params {
			p.fail(n.Wrap(hasParam(t, name)))
		}
	}
}

// hasParam says which trigger could not give a value for a name in the key: its events would all share one state without anybody having
// meant that.
func hasParam(t Trigger, name string) error {
	if t.MQTT == nil {
		if t.String() == "nothing" {
			return nil // wrong itself, and reported
		}
		return fmt.Errorf("the trigger in line %d (%s) has no {%s}; leave it to another function, or take a key that it has", t.Line, t, name)
	}
	if name == "topic" {
		return nil
	}
	pattern, err := topic.ParsePattern(t.MQTT.Topic)
	if err != nil || slices.Contains(pattern.Names(), name) {
		return nil
	}
	return fmt.Errorf("the trigger in line %d (%s) has no {%s}; write {%s} for a level of its topic", t.Line, t, name, name)
}

// parseKey reads a key and returns the names in it.
func parseKey(s string) (Key, []string, error) {
	k := Key{Text: s}
	if len(s) > 256 {
		return k, nil, errors.New("is too long; at most 256 bytes")
	}
	switch {
	case s == "none":
		k.Kind = KeyNone
		return k, nil, nil
	case s == "{topic}":
		k.Kind = KeyTopic
		return k, []string{"topic"}, nil
	case strings.ContainsAny(s, "{}"):
		k.Kind = KeyParam
		names, err := keyNames(s)
		return k, names, err
	case strings.HasPrefix(s, "data"):
		k.Kind = KeyData
		var err error
		k.Path, err = dataPath(s)
		return k, nil, err
	}
	return k, nil, fmt.Errorf("%q is no key; %s", short(s), keyForms)
}

// keyNames returns the names in "{site}/{room}".
func keyNames(s string) ([]string, error) {
	var names []string
	for rest := s; rest != ""; {
		text, after, open := strings.Cut(rest, "{")
		name, tail, closed := strings.Cut(after, "}")
		switch {
		case strings.Contains(text, "}") || (open && !closed):
			return nil, fmt.Errorf("%q has a brace too many; %s", short(s), keyForms)
		case open && (name == "" || strings.Contains(name, "{")):
			return nil, fmt.Errorf("%q has no name between its braces; %s", short(s), keyForms)
		case open:
			names = append(names, name)
		}
		rest = tail
	}
	return names, nil
}

// dataPath reads "data.some.path".
func dataPath(s string) ([]string, error) {
	path := strings.Split(s, ".")
	if path[0] != "data" || len(path) < 2 || len(path) > 17 || slices.Contains(path, "") {
		return nil, fmt.Errorf("%q is no path into the payload; write data.FIELD, such as data.serial", short(s))
	}
	return path[1:], nil
}

// Expand returns the key of a message for the kinds KeyTopic and KeyParam, and "" for the others.
func (k Key) Expand(topicName string, params map[string]string) string {
	switch k.Kind {
	case KeyTopic:
		return topicName
	case KeyParam:
		var b strings.Builder
		for rest := k.Text; rest != ""; {
			text, after, _ := strings.Cut(rest, "{")
			name, tail, _ := strings.Cut(after, "}")
			b.WriteString(text)
			if name == "topic" {
				b.WriteString(topicName)
			} else {
				b.WriteString(params[name])
			}
			rest = tail
		}
		return b.String()
	}
	return ""
}
