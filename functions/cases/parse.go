package cases

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/functions/rules"
	"github.com/perigee-iot/perigee/internal/units"
	"github.com/perigee-iot/perigee/internal/yamlfile"
)

// Files returns the paths of a bundle's case files, sorted.
func Files(b *functions.Bundle) []string {
	var list []string
	for p := range b.Files {
		if strings.HasPrefix(p, "tests/") && path.Ext(p) == ".yaml" {
			list = append(list, p)
		}
	}
	slices.Sort(list)
	return list
}

// Load reads all cases of a bundle. Where calls a file by the name that people see. The error has a line for everything that
// is wrong; the cases of files without errors are returned with it.
func Load(b *functions.Bundle, where func(path string) string) ([]*Case, error) {
	var all []*Case
	var errs []error
	for _, p := range Files(b) {
		list, err := Parse(where(p), b.Files[p], b.Spec)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		all = append(all, list...)
	}
	return all, errors.Join(errs...)
}

// parser gathers what is wrong with one file.
type parser struct {
	spec *functions.Spec
	errs []error
}

func (p *parser) fail(err error) {
	if err != nil {
		p.errs = append(p.errs, err)
	}
}

// Parse reads a case file of the function with that spec. File is what errors call it. The error has a line for everything that is
// wrong, each with file, line and column.
func Parse(file string, data []byte, spec *functions.Spec) ([]*Case, error) {
	root, err := yamlfile.Parse(file, data)
	if err != nil {
		return nil, err
	}
	switch {
	case root.Kind() == yamlfile.Null:
		return nil, nil
	case root.Kind() != yamlfile.List:
		return nil, root.Errorf(`must be a list of cases; begin each with "- name: …"`)
	case len(root.Items()) > MaxCases:
		return nil, root.Errorf("%d cases, at most %d fit a file", len(root.Items()), MaxCases)
	}
	p := &parser{spec: spec}
	var list []*Case
	lines := map[string]int{}
	for _, n := range root.Items() {
		c := p.one(file, n)
		if before := lines[c.Name]; before > 0 && c.Name != "" {
			p.fail(n.At("name").Errorf("the case in line %d has this name, too", before))
		}
		lines[c.Name] = c.Line
		list = append(list, c)
	}
	if len(p.errs) > 0 {
		return nil, errors.Join(p.errs...)
	}
	return list, nil
}

func (p *parser) one(file string, n yamlfile.Node) *Case {
	var f struct {
		Name  string        `yaml:"name"`
		Given yamlfile.Node `yaml:"given"`
		Steps yamlfile.Node `yaml:"steps"`
	}
	c := &Case{File: file, Line: n.Line()}
	if err := n.Decode(&f); err != nil {
		p.fail(err)
		return c
	}
	if c.Name = strings.TrimSpace(f.Name); c.Name == "" || len(c.Name) > 200 || strings.ContainsAny(c.Name, "\n\r\t") {
		p.fail(n.At("name").Errorf("a case needs a name: one line that says what is to be so"))
	}
	c.Given = p.given(f.Given, n)
	steps := f.Steps.Items()
	if f.Steps.Kind() != yamlfile.List || len(steps) == 0 || len(steps) > MaxSteps {
		p.fail(n.At("steps").Errorf(`a case has 1 to %d steps: "steps: [{mqtt: {topic: …, data: …}, expect: […]}]"`, MaxSteps))
		return c
	}
	for _, s := range steps {
		c.Steps = append(c.Steps, p.step(s))
	}
	return c
}

func (p *parser) given(n, at yamlfile.Node) Given {
	var f struct {
		Env     map[string]any    `yaml:"env"`
		Key     *string           `yaml:"key"`
		State   yamlfile.Node     `yaml:"state"`
		Shared  yamlfile.Node     `yaml:"shared"`
		Timers  yamlfile.Node     `yaml:"timers"`
		Devices yamlfile.Node     `yaml:"devices"`
		Secrets map[string]string `yaml:"secrets"`
		Now     yamlfile.Node     `yaml:"now"`
		NowOK   *bool             `yaml:"now_ok"`
		Seed    yamlfile.Node     `yaml:"seed"`
		Gateway string            `yaml:"gateway"`
		Attempt int               `yaml:"attempt"`
	}
	g := Given{Now: time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC), Seed: 1, Gateway: "gw-01"}
	if err := n.Decode(&f); err != nil {
		p.fail(err)
		return g
	}
	env, err := p.spec.CheckSettings(f.Env)
	p.fail(n.At("env").Wrap(err))
	if g.Env, err = json.Marshal(env); err != nil {
		p.fail(at.Wrap(err))
	}
	keyed := p.spec.Key.Kind != functions.KeyFunction && p.spec.Key.Kind != functions.KeyNone
	switch {
	case f.Key != nil && !keyed:
		p.fail(n.At("key").Errorf("function %s has no key", p.spec.Name))
	case f.Key == nil && keyed && (f.State.Kind() != yamlfile.Null || f.Timers.Kind() != yamlfile.Null):
		p.fail(n.Errorf("state and timers belong to a key: say which, such as key: cellar"))
	case f.Key != nil:
		g.Key = *f.Key
	}
	if p.spec.Key.Kind == functions.KeyNone && f.State.Kind() != yamlfile.Null {
		p.fail(n.At("state").Errorf("a function with key: none has no state of its own; use shared"))
	}
	g.State, g.Shared, g.Devices = p.values(f.State), p.values(f.Shared), p.values(f.Devices)
	for _, name := range slices.Sorted(maps.Keys(f.Secrets)) {
		if !p.spec.Permissions.AllowsSecret(name) {
			p.fail(n.At("secrets", name).Errorf("function %s has no permission for this secret", p.spec.Name))
		}
		g.Secrets = append(g.Secrets, functions.Secret{Name: name, Value: f.Secrets[name]})
	}
	for _, d := range f.Devices.Items() {
		if d.Kind() != yamlfile.Map {
			p.fail(d.Errorf("a reading is a map of fields, such as {temperature: 21}"))
		}
	}
	g.Timers = p.timers(f.Timers)
	g.Now = p.time(f.Now, g.Now)
	g.ClockOff = f.NowOK != nil && !*f.NowOK
	if f.Seed.Kind() != yamlfile.Null {
		if g.Seed, err = strconv.ParseUint(f.Seed.Text(), 0, 64); err != nil {
			p.fail(f.Seed.Errorf("must be a whole number from 0, not %q", rules.Printable(f.Seed.Text(), 40)))
		}
	}
	if f.Gateway != "" {
		g.Gateway = f.Gateway
	}
	if g.Attempt = f.Attempt; f.Attempt < 0 || f.Attempt > 100 {
		p.fail(n.At("attempt").Errorf("must be 0 to 100, not %d", f.Attempt))
	}
	return g
}

func (p *parser) values(n yamlfile.Node) (list []Value) {
	if n.Kind() != yamlfile.Map && n.Kind() != yamlfile.Null {
		p.fail(n.Errorf("must be a map of names and values, such as {count: 3}"))
		return nil
	}
	keys := n.Keys()
	for i, v := range n.Items() {
		list = append(list, Value{Name: keys[i], JSON: toJSON(v)})
	}
	return list
}

func (p *parser) timers(n yamlfile.Node) (list []Timer) {
	var f map[string]units.Duration
	if err := n.Decode(&f); err != nil {
		p.fail(err)
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(f)) {
		list = append(list, Timer{Name: name, In: time.Duration(f[name])})
	}
	return list
}

func (p *parser) time(n yamlfile.Node, or time.Time) time.Time {
	if n.Kind() == yamlfile.Null {
		return or
	}
	for _, layout := range []string{time.RFC3339Nano, time.DateTime, "2006-01-02 15:04", time.DateOnly} {
		if t, err := time.Parse(layout, n.Text()); err == nil && t.Year() >= 1970 && t.Year() < 3000 {
			return t.UTC().Truncate(time.Millisecond)
		}
	}
	p.fail(n.Errorf("%q is no time; write one such as 2026-03-01T12:00:00Z", rules.Printable(n.Text(), 40)))
	return or
}

// payloadFile is what an event brings: one of the first three, or nothing.
type payloadFile struct {
	Data     yamlfile.Node `yaml:"data"`   // JSON
	Text     *string       `yaml:"text"`   // as it is
	Base64   *string       `yaml:"base64"` // bytes
	Retained *bool         `yaml:"retained"`
	Key      *string       `yaml:"key"`
	ID       string        `yaml:"id"`
	Time     yamlfile.Node `yaml:"time"`

	Params map[string]string `yaml:"params"`
}

func (f *payloadFile) payload(n yamlfile.Node) ([]byte, error) {
	count := 0
	var b []byte
	if !f.Data.IsZero() {
		count++
		b = toJSON(f.Data)
	}
	if f.Text != nil {
		count++
		b = []byte(*f.Text)
	}
	if f.Base64 != nil {
		count++
		var err error
		if b, err = base64.StdEncoding.DecodeString(*f.Base64); err != nil {
			return nil, n.At("base64").Errorf("this is not base64: %w", err)
		}
	}
	if count > 1 {
		return nil, n.Errorf("give one of data, text and base64")
	}
	return b, nil
}
