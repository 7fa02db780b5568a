package functions

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/perigee-iot/perigee/internal/topic"
	"github.com/perigee-iot/perigee/internal/yamlfile"
)

func (p *specParser) permissions(n yamlfile.Node) {
	var f struct {
		Devices struct {
			Read  []string `yaml:"read"`
			Write []string `yaml:"write"`
		} `yaml:"devices"`
		Publish []string      `yaml:"publish"`
		Streams []string      `yaml:"streams"`
		HTTP    yamlfile.Node `yaml:"http"`
		Secrets []string      `yaml:"secrets"`
	}
	if err := n.Decode(&f); err != nil {
		p.fail(err)
		return
	}
	thing := func(what string) func(string) error { return func(s string) error { return checkThing(what, s) } }
	p.list(n.At("devices", "read"), f.Devices.Read, thing("device"))
	p.list(n.At("devices", "write"), f.Devices.Write, thing("device"))
	p.list(n.At("streams"), f.Streams, thing("stream"))
	p.list(n.At("publish"), f.Publish, func(s string) error {
		if topic.System(s) {
			return fmt.Errorf("%q is under $, where functions cannot publish", short(s))
		}
		if strings.ContainsAny(s, "{}") { // quoted at last, it would permit nothing that is meant
			return fmt.Errorf("%q has a name in it; use + for one level", short(s))
		}
		return topic.CheckFilter(s)
	})
	p.list(n.At("secrets"), f.Secrets, thing("secret"))
	p.spec.Permissions = Permissions{ReadDevices: f.Devices.Read, WriteDevices: f.Devices.Write, Publish: f.Publish, Streams: f.Streams,
		HTTP: p.httpRules(f.HTTP), Secrets: f.Secrets}
}

// httpRules reads a list of URLs, or of {url: …, private: true}.
func (p *specParser) httpRules(n yamlfile.Node) (rules []HTTPRule) {
	if n.Kind() != yamlfile.List && n.Kind() != yamlfile.Null {
		p.fail(n.Errorf("must be a list: write [https://api.example.com/v1/*]"))
		return nil
	}
	if len(n.Items()) > maxListed {
		p.fail(n.Errorf("has %d entries, at most %d are allowed", len(n.Items()), maxListed))
		return nil
	}
	for _, item := range n.Items() {
		f := struct {
			URL     string `yaml:"url"`
			Private bool   `yaml:"private"`
		}{URL: item.Text()}
		if item.Kind() == yamlfile.Map {
			if err := item.Decode(&f); err != nil {
				p.fail(err)
				continue
			}
		}
		rule, err := ParseHTTPRule(f.URL)
		p.fail(item.Wrap(err))
		rule.Private = f.Private
		rules = append(rules, rule)
	}
	return rules
}

func (p *specParser) list(n yamlfile.Node, list []string, check func(string) error) {
	if len(list) > maxListed {
		p.fail(n.Errorf("has %d entries, at most %d are allowed", len(list), maxListed))
	}
	for _, s := range list {
		p.fail(n.Wrap(check(s)))
	}
}

// OwnTopics is what the gateway's own topics begin with. Functions may never publish there, whatever their permissions.
const OwnTopics = "perigee"

// IsOwnTopic says that a topic is one of the gateway's own.
func IsOwnTopic(name string) bool { return strings.HasPrefix(name+"/", OwnTopics+"/") }

// CheckPublish says why a function may not publish to a topic: it is no topic, or lies under "$".
func CheckPublish(name string) error {
	if topic.System(name) {
		return errors.New("topics under $ belong to the broker")
	}
	return topic.CheckName(name)
}

// AllowsPublish says whether a function may publish to a topic. Never to what CheckPublish refuses, whatever the permissions.
func (p Permissions) AllowsPublish(name string) bool {
	return CheckPublish(name) == nil && slices.ContainsFunc(p.Publish, func(f string) bool { return topic.Match(f, name) })
}

// AllowsStream says whether a function may append to a stream.
func (p Permissions) AllowsStream(name string) bool { return slices.Contains(p.Streams, name) }

// AllowsReadDevice says whether a function may read a device. The right to write does not include it: a switch that a
// function turns need not tell it anything.
func (p Permissions) AllowsReadDevice(name string) bool { return slices.Contains(p.ReadDevices, name) }

// AllowsWriteDevice says whether a function may write to a device.
func (p Permissions) AllowsWriteDevice(name string) bool {
	return slices.Contains(p.WriteDevices, name)
}

// PublishHint says what to add for a publish that is not permitted.
func PublishHint(name string) string { return hint("publish: [" + quote(name) + "]") }

// StreamHint says what to add for an append that is not permitted.
func StreamHint(name string) string {
	if err := checkThing("stream", name); err != nil {
		return err.Error()
	}
	return hint("streams: [" + quote(name) + "]")
}

// ReadDeviceHint says what to add for a device.read that is not permitted.
func ReadDeviceHint(name string) string { return hint("devices: {read: [" + quote(name) + "]}") }

// WriteDeviceHint says what to add for a device.write that is not permitted.
func WriteDeviceHint(name string) string { return hint("devices: {write: [" + quote(name) + "]}") }

func hint(permission string) string {
	return hintBegin + "permissions: {" + permission + "}"
}

// maxHinted is the longest name that a hint has in full.
const maxHinted = 300

// quote puts a name in quotes where YAML needs them.
func quote(s string) string {
	if regexp.MustCompile(`^[A-Za-z_/][A-Za-z0-9_/.-]*$`).MatchString(s) {
		return s
	}
	if len(s) > maxHinted {
		s = short(s)
	}
	return fmt.Sprintf("%q", s)
}

// Lines lists the permissions for people: "publish alerts/#", "write device fan".
func (p Permissions) Lines() []string {
	var lines []string
	add := func(what string, names []string) {
		for _, n := range names {
			lines = append(lines, what+" "+n)
		}
	}
	add("read device", p.ReadDevices)
	add("write device", p.WriteDevices)
	add("publish", p.Publish)
	add("stream", p.Streams)
	for _, r := range p.HTTP {
		what := "call "
		if r.Private {
			what = "call, also at a private address, "
		}
		lines = append(lines, what+r.String())
	}
	add("secret", p.Secrets)
	return lines
}

// Needs is what a gateway must have for a function to run. The lists are sorted and name each thing once.
type Needs struct {
	Devices []string // triggered on, read or written
	Writes  []string // those of them that must take values
	Streams []string
	Secrets []string
}

// Needs returns what must exist before the function can be active.
func (s *Spec) Needs() Needs {
	devices := slices.Concat(s.Permissions.ReadDevices, s.Permissions.WriteDevices)
	for _, t := range s.Triggers {
		if t.Device != "" {
			devices = append(devices, t.Device)
		}
	}
	return Needs{Devices: unique(devices), Writes: unique(s.Permissions.WriteDevices), Streams: unique(s.Permissions.Streams),
		Secrets: unique(s.Permissions.Secrets)}
}

func unique(list []string) []string {
	list = slices.Clone(list)
	slices.SortFunc(list, strings.Compare)
	return slices.Compact(list)
}
