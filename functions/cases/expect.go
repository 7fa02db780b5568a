package cases

import (
	"fmt"
	"slices"
	"strings"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/internal/topic"
	"github.com/perigee-iot/perigee/internal/units"
	"github.com/perigee-iot/perigee/internal/yamlfile"
)

// want is one entry of expect: an effect that leaves the function. State and timers are looked at by what they are then.
type want struct {
	node yamlfile.Node
	kind functions.EffectKind
	name string
	wantFile
}

// wantFile is an entry as it is written: one of the first three, and what is to be so of it.
type wantFile struct {
	Publish *string `yaml:"publish"` // topic
	Device  *string `yaml:"device"`
	Stream  *string `yaml:"stream"`
	HTTP    *string `yaml:"http"` // URL

	Data     yamlfile.Node     `yaml:"data"` // publish, stream, http: JSON
	Text     *string           `yaml:"text"` // publish, http: the payload as it is
	Method   *string           `yaml:"method"`
	Headers  map[string]string `yaml:"headers"`
	Reply    *string           `yaml:"reply"`
	Timeout  *units.Duration   `yaml:"timeout"`
	Write    yamlfile.Node     `yaml:"write"` // device: the value
	QoS      *int              `yaml:"qos"`
	Retain   *bool             `yaml:"retain"`
	ID       *bool             `yaml:"id"`
	For      *units.Duration   `yaml:"for"`
	NotAfter *units.Duration   `yaml:"not_after"`
}

func (p *parser) expect(n yamlfile.Node, f *stepFile) Expect {
	e := Expect{result: f.Result, fault: f.Fault, retry: f.Retry, state: f.State, shared: f.Shared, timers: f.Timers,
		log: f.Log, skipped: f.Skipped, effectsAt: f.Expect}
	if !f.Expect.IsZero() && f.Expect.Kind() != yamlfile.List {
		p.fail(f.Expect.Errorf("must be a list of effects, such as [{device: fan, write: true}]; [] for none"))
		return e
	}
	for _, item := range f.Expect.Items() {
		w, err := parseWant(item)
		p.fail(err)
		if err == nil {
			p.fail(item.Wrap(p.permitted(w)))
			e.effects = append(e.effects, w)
		}
	}
	for _, m := range []yamlfile.Node{f.State, f.Shared} {
		if !m.IsZero() && m.Kind() != yamlfile.Map {
			p.fail(m.Errorf("must be a map of names and values, such as {count: 3}"))
		}
	}
	p.checkTimers(f.Timers)
	p.checkLog(f.Log)
	_, err := wantedFault(f.Fault)
	p.fail(err)
	for _, t := range []yamlfile.Node{f.Retry, f.Skipped} {
		if !t.IsZero() && t.Kind() != yamlfile.Scalar {
			p.fail(t.Errorf("must be true, false, or a part of the reason"))
		}
	}
	return e
}

func parseWant(n yamlfile.Node) (want, error) {
	w := want{node: n}
	if n.Kind() == yamlfile.Map {
		for _, k := range []string{"state", "shared", "timer"} {
			if at, ok := n.Child(k); ok {
				return w, at.Errorf(`expect lists what leaves the function; write %s beside it, such as %s: {name: value}`, plural(k), plural(k))
			}
		}
	}
	if err := n.Decode(&w.wantFile); err != nil {
		return w, err
	}
	count := 0
	for kind, name := range map[functions.EffectKind]*string{functions.Publish: w.Publish, functions.WriteDevice: w.Device, functions.Append: w.Stream, functions.CallHTTP: w.HTTP} {
		if name != nil {
			count++
			w.kind, w.name = kind, *name
		}
	}
	if count != 1 {
		return w, n.Errorf("an effect is one of publish: TOPIC, device: NAME, stream: NAME, http: URL")
	}
	for _, key := range n.Keys() {
		if of := effectsWith(key); of != nil && !slices.Contains(of, w.kind) {
			return w, n.At(key).Errorf("%s does not belong to %s", key, kindName(w.kind))
		}
	}
	if w.Text != nil && !w.Data.IsZero() {
		return w, n.Errorf("give one of data and text")
	}
	if k := w.Write.Kind(); !w.Write.IsZero() && k != yamlfile.Scalar && k != yamlfile.Null {
		return w, w.Write.Errorf("a device takes true, false, a number or a text")
	}
	return w, nil
}

func plural(k string) string {
	if k == "timer" {
		return "timers"
	}
	return k
}

// effectsWith are the effects that a field belongs to, nil for all.
func effectsWith(key string) []functions.EffectKind {
	switch key {
	case "data":
		return []functions.EffectKind{functions.Publish, functions.Append, functions.CallHTTP}
	case "text":
		return []functions.EffectKind{functions.Publish, functions.CallHTTP}
	case "qos", "retain", "id":
		return []functions.EffectKind{functions.Publish}
	case "method", "headers", "reply", "timeout":
		return []functions.EffectKind{functions.CallHTTP}
	case "write", "for":
		return []functions.EffectKind{functions.WriteDevice}
	case "not_after":
		return []functions.EffectKind{functions.Publish, functions.WriteDevice, functions.CallHTTP}
	}
	return nil
}

func kindName(k functions.EffectKind) string {
	switch k {
	case functions.Publish:
		return "publish"
	case functions.WriteDevice:
		return "device"
	case functions.Append:
		return "stream"
	case functions.CallHTTP:
		return "http"
	}
	return "effect"
}

// permitted says that an effect can never happen since the function may not have it.
func (p *parser) permitted(w want) error {
	may, perms := true, p.spec.Permissions
	switch w.kind {
	case functions.Publish:
		if err := topic.CheckName(w.name); err != nil {
			return err
		}
		may = perms.AllowsPublish(w.name)
	case functions.WriteDevice:
		may = perms.AllowsWriteDevice(w.name)
	case functions.Append:
		may = perms.AllowsStream(w.name)
	case functions.CallHTTP:
		u, err := functions.ParseURL(w.name)
		if err != nil {
			return err
		}
		_, may = perms.AllowsHTTP(u)
	}
	if !may {
		return fmt.Errorf("function %s may not do this: %s %s is not in its permissions", p.spec.Name, kindName(w.kind), w.name)
	}
	return nil
}

func (p *parser) checkTimers(n yamlfile.Node) {
	if !n.IsZero() && n.Kind() != yamlfile.Map {
		p.fail(n.Errorf("must be a map of names and how long until each is due, such as {dark: 5m}; null: not set"))
		return
	}
	for _, t := range n.Items() {
		var d units.Duration
		if t.Kind() != yamlfile.Null {
			p.fail(t.Decode(&d))
		}
	}
}

func (p *parser) checkLog(n yamlfile.Node) {
	if !n.IsZero() && n.Kind() != yamlfile.List {
		p.fail(n.Errorf(`must be a list of parts of lines, such as ["no data", {warn: "too old"}]; [] for none`))
		return
	}
	for _, l := range n.Items() {
		_, _, err := logEntry(l)
		p.fail(err)
	}
}

func levels() []string { return []string{"debug", "info", "warn", "error"} }

// logEntry reads one entry of log: a part of a line, or that with its level.
func logEntry(n yamlfile.Node) (level, part string, err error) {
	switch {
	case n.Kind() == yamlfile.Scalar:
		return "", n.Text(), nil
	case n.Kind() == yamlfile.Map && len(n.Keys()) == 1 && slices.Contains(levels(), n.Keys()[0]) && n.Items()[0].Kind() == yamlfile.Scalar:
		return n.Keys()[0], n.Items()[0].Text(), nil
	}
	return "", "", n.Errorf("write a part of the line, or LEVEL: PART with a level of %s", strings.Join(levels(), ", "))
}

// faultWant is what a fault is to be.
type faultWant struct {
	Kind    functions.FaultKind `yaml:"kind"`
	Message string              `yaml:"message"` // a part of it
}

func faultKinds() []functions.FaultKind {
	return []functions.FaultKind{functions.FaultError, functions.FaultTimeout, functions.FaultMemory, functions.FaultKilled, functions.FaultDenied, functions.FaultBadOutput}
}

// wantedFault reads fault: a kind, a part of its message, or both; nil if there is to be none, or it is not said.
func wantedFault(n yamlfile.Node) (*faultWant, error) {
	w := &faultWant{}
	switch n.Kind() {
	case yamlfile.Null:
		return nil, nil
	case yamlfile.Scalar:
		if w.Kind = functions.FaultKind(n.Text()); !slices.Contains(faultKinds(), w.Kind) {
			w.Kind, w.Message = "", n.Text()
		}
		return w, nil
	}
	if err := n.Decode(w); err != nil {
		return nil, err
	}
	if w.Kind != "" && !slices.Contains(faultKinds(), w.Kind) {
		return nil, n.At("kind").Errorf("%q is no kind of fault; there are %v", w.Kind, faultKinds())
	}
	return w, nil
}
