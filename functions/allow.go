package functions

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/perigee-iot/perigee/internal/yamlfile"
)

// Denied is a permission that a function lacks, as the hint of a denied fault names it.
type Denied struct {
	Kind string // "publish", "streams", "http", "secrets", "devices.read", "devices.write"
	Name string
}

const hintBegin = "add to function.yaml: "

// ParseHint reads the permission that a hint names. One that no function.yaml can give is none.
func ParseHint(text string) (Denied, bool) {
	yaml, ok := strings.CutPrefix(text, hintBegin)
	if !ok || strings.Contains(text, "…") || strings.Contains(text, "\n") {
		return Denied{}, false
	}
	root, err := yamlfile.Parse("hint", []byte(yaml))
	if err != nil || !slices.Equal(root.Keys(), []string{"permissions"}) {
		return Denied{}, false
	}
	n, kind := root.At("permissions"), ""
	for range 2 {
		if n.Kind() == yamlfile.Map && len(n.Keys()) == 1 {
			kind, n = strings.TrimPrefix(kind+"."+n.Keys()[0], "."), n.Items()[0]
		}
	}
	if n.Kind() != yamlfile.List || len(n.Items()) != 1 || n.Items()[0].Kind() != yamlfile.Scalar {
		return Denied{}, false
	}
	d := Denied{Kind: kind, Name: n.Items()[0].Text()}
	s, err := ParseSpec("hint", []byte("triggers: [{every: 1h}]\n"+yaml), "hint")
	return d, err == nil && !d.Missing(s.Permissions)
}

// String is the permission for people.
func (d Denied) String() string {
	var p Permissions
	if d.add(&p) != nil {
		return d.Kind + " " + d.Name
	}
	return p.Lines()[0]
}

// Missing says whether permissions lack it still.
func (d Denied) Missing(p Permissions) bool {
	switch d.Kind {
	case "publish":
		return !p.AllowsPublish(d.Name)
	case "http":
		u, err := ParseURL(d.Name)
		if err != nil {
			return false
		}
		_, ok := p.AllowsHTTP(u)
		return !ok
	}
	list := p.listOf(d.Kind)
	return list != nil && !slices.Contains(*list, d.Name)
}

// listOf is the list of names of a kind.
func (p *Permissions) listOf(kind string) *[]string {
	return map[string]*[]string{"publish": &p.Publish, "streams": &p.Streams, "secrets": &p.Secrets, "devices.read": &p.ReadDevices,
		"devices.write": &p.WriteDevices}[kind]
}

func (d Denied) add(p *Permissions) error {
	if d.Kind == "http" {
		r, err := ParseHTTPRule(d.Name)
		p.HTTP = append(p.HTTP, r)
		return err
	}
	list := p.listOf(d.Kind)
	if list == nil {
		return fmt.Errorf("there is no permission %q", d.Kind)
	}
	*list = append(*list, d.Name)
	return nil
}

// ErrByHand says that a file is written in a way that Allow does not know how to change.
var ErrByHand = errors.New("it is written in a way that only its author can change")

// Allow adds permissions to the text of a function.yaml, and leaves everything else as it is written: comments, order, form.
// The error wraps ErrByHand if that is not possible: nothing is taken for done that does not read as it should.
func Allow(file string, text []byte, folder string, list []Denied) ([]byte, error) {
	was, err := ParseSpec(file, text, folder)
	if err != nil {
		return nil, err
	}
	out := string(text)
	for _, d := range list {
		if !d.Missing(was.Permissions) {
			continue
		}
		if err := d.add(&was.Permissions); err != nil {
			return nil, err
		}
		e := yamlEdit{lines: strings.SplitAfter(out, "\n")}
		if !e.add(append([]string{"permissions"}, strings.Split(d.Kind, ".")...), quote(d.Name)) {
			return nil, fmt.Errorf("%s: add %s: %w", file, d, ErrByHand)
		}
		out = strings.Join(e.lines, "")
	}
	now, err := ParseSpec(file, []byte(out), folder)
	if err == nil {
		for i := range min(len(now.Triggers), len(was.Triggers)) { // lines may have moved
			now.Triggers[i].Line = was.Triggers[i].Line
		}
	}
	if err != nil || !reflect.DeepEqual(was, now) {
		return nil, fmt.Errorf("%s: %w", file, ErrByHand)
	}
	return []byte(out), nil
}
