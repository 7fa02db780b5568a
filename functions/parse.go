package functions

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/perigee-iot/perigee/internal/units"
	"github.com/perigee-iot/perigee/internal/yamlfile"
)

// Bounds of what a function.yaml may ask for. A gateway may lower the limits; nothing raises them.
const (
	MaxName        = 48
	MaxTriggers    = 64
	MaxEffects     = 1024
	MaxReads       = 1024
	MaxStreamBytes = 1 << 40
	MaxEffectBytes = 128 << 10 // an outcome must fit one transaction of the smallest store
	MaxTimers      = 100_000   // they are kept in memory, too
	maxListed      = 256       // entries of a list of permissions, fields or env
	maxDescription = 1000      // bytes
	maxEnvText     = 4 << 10   // bytes of one value
	maxEvery       = 366 * units.Day
	minEvery       = 100 * time.Millisecond
	defaultInbox   = 16 << 20
	leastInbox     = 4 << 10
	mostInbox      = 64 << 20 // what waits is known to memory, too
)

// DefaultLimits is what a function has that says nothing.
func DefaultLimits() Limits {
	return Limits{
		Timeout: time.Second, Memory: 16 << 20, Effects: 64, EffectBytes: 64 << 10, Result: 64 << 10, Reads: 256, State: 4 << 20, Timers: 10_000, LogBytes: 8 << 10,
	}
}

// DefaultRetry is three attempts within a minute.
func DefaultRetry() Retry {
	return Retry{Attempts: 3, First: 200 * time.Millisecond, Max: 30 * time.Second}
}

// specFile is function.yaml as it is written.
type specFile struct {
	Name        string        `yaml:"name"`
	Description string        `yaml:"description"`
	Requires    string        `yaml:"requires"`
	Triggers    yamlfile.Node `yaml:"triggers"`
	Key         yamlfile.Node `yaml:"key"`
	Permissions yamlfile.Node `yaml:"permissions"`
	Env         yamlfile.Node `yaml:"env"`
	Limits      limitsFile    `yaml:"limits"`
	Retry       retryFile     `yaml:"retry"`
	Dedupe      yamlfile.Node `yaml:"dedupe"`
	Inbox       inboxFile     `yaml:"inbox"`
	Durability  string        `yaml:"durability"`
}

type inboxFile struct {
	Bytes units.Size `yaml:"bytes"`
	Full  string     `yaml:"full"`
}

type limitsFile struct {
	Timeout     units.Duration `yaml:"timeout"`
	Memory      units.Size     `yaml:"memory"`
	Concurrency int            `yaml:"concurrency"`
	Rate        yamlfile.Node  `yaml:"rate"`
	Effects     int            `yaml:"effects"`
	EffectBytes units.Size     `yaml:"effect_bytes"`
	State       units.Size     `yaml:"state"`
	Timers      int            `yaml:"timers"`
	LogBytes    units.Size     `yaml:"log_bytes"`
	Result      units.Size     `yaml:"result"`
	Reads       int            `yaml:"reads"`
	StreamBytes units.Size     `yaml:"stream_bytes"`
}

type retryFile struct {
	Attempts int            `yaml:"attempts"`
	First    units.Duration `yaml:"first"`
	Max      units.Duration `yaml:"max"`
	Overtake bool           `yaml:"overtake"`
}

// specParser gathers what is wrong with one file, so that its author sees all of it at once.
type specParser struct {
	root yamlfile.Node
	spec *Spec
	errs []error
}

func (p *specParser) fail(err error) {
	if err != nil {
		p.errs = append(p.errs, err)
	}
}

// failf reports at the value of a key, or at what is there of the way to it.
func (p *specParser) failf(path []string, format string, args ...any) {
	p.fail(p.root.At(path...).Errorf(format, args...))
}

// ParseSpec reads a function.yaml: file is what errors call it, folder the name of its folder, which is the function's name if the
// file gives none. Everything is checked that can be without a gateway; what is missing gets its default. The error
// has a line for everything that is wrong, each with file, line and column.
func ParseSpec(file string, data []byte, folder string) (*Spec, error) {
	root, err := yamlfile.Parse(file, data)
	if err != nil {
		return nil, err
	}
	limits, retry := DefaultLimits(), DefaultRetry()
	f := specFile{
		Limits: limitsFile{
			Timeout: units.Duration(limits.Timeout), Memory: units.Size(limits.Memory), Effects: limits.Effects,
			EffectBytes: units.Size(limits.EffectBytes), State: units.Size(limits.State), Timers: limits.Timers,
			LogBytes: units.Size(limits.LogBytes), Reads: limits.Reads,
		},
		Inbox: inboxFile{Bytes: defaultInbox},
		Retry: retryFile{Attempts: retry.Attempts, First: units.Duration(retry.First), Max: units.Duration(retry.Max)},
	}
	if err := root.Decode(&f); err != nil {
		return nil, err
	}
	p := &specParser{root: root, spec: &Spec{}}
	p.head(&f, folder)
	p.triggers(f.Triggers)
	p.key(f.Key)
	p.permissions(f.Permissions)
	p.env(f.Env)
	p.limits(&f.Limits)
	p.retry(&f.Retry)
	p.dedupe(f.Dedupe)
	p.inbox(&f.Inbox)
	if len(p.errs) > 0 {
		return nil, errors.Join(p.errs...)
	}
	return p.spec, nil
}

func (p *specParser) head(f *specFile, folder string) {
	p.spec.Name = f.Name
	if f.Name == "" {
		p.spec.Name = folder
	}
	if err := CheckName(p.spec.Name); err != nil {
		if f.Name == "" {
			err = fmt.Errorf("%w; rename the folder or give the function a name: of its own", err)
		}
		p.fail(p.root.At("name").Wrap(err))
	}
	if p.spec.Description = f.Description; len(f.Description) > maxDescription {
		p.failf([]string{"description"}, "has %d bytes, at most %d are allowed", len(f.Description), maxDescription)
	}
	p.spec.Requires = f.Requires
	if _, err := parseVersion(f.Requires); f.Requires != "" && err != nil {
		p.failf([]string{"requires"}, `%q is no version; write one such as "0.3"`, f.Requires)
	}
	switch p.spec.Durability = f.Durability; f.Durability {
	case "", "power", "crash", "none":
	default:
		p.failf([]string{"durability"}, "must be power, crash or none, not %q", f.Durability)
	}
}

// within reports a value outside of its bounds, which are shown as fmt shows them.
func within[T int | units.Size | units.Duration](p *specParser, v, low, high T, path ...string) {
	if v < low || v > high {
		p.failf(path, "%v is out of range; allowed are %v to %v", v, low, high)
	}
}

func (p *specParser) limits(f *limitsFile) {
	within(p, f.Timeout, units.Duration(time.Millisecond), units.Duration(10*time.Minute), "limits", "timeout")
	within(p, f.Memory, 1<<20, 1<<30, "limits", "memory")
	within(p, f.Concurrency, 0, 1024, "limits", "concurrency")
	within(p, f.Effects, 1, MaxEffects, "limits", "effects")
	within(p, f.EffectBytes, 1, MaxEffectBytes, "limits", "effect_bytes")
	within(p, f.State, 1, 256<<20, "limits", "state")
	within(p, f.Timers, 1, MaxTimers, "limits", "timers")
	within(p, f.LogBytes, 1, 64<<10, "limits", "log_bytes")
	if f.Result == 0 {
		f.Result = f.EffectBytes
	}
	within(p, f.Result, 0, MaxEffectBytes, "limits", "result")
	within(p, f.Reads, 1, MaxReads, "limits", "reads")
	within(p, f.StreamBytes, 0, MaxStreamBytes, "limits", "stream_bytes")
	var rate Rate
	if !f.Rate.IsZero() {
		var err error
		rate, err = ParseRate(f.Rate.Text())
		p.fail(f.Rate.Wrap(err))
	}
	p.spec.Limits = Limits{
		Timeout: time.Duration(f.Timeout), Memory: int64(f.Memory), Concurrency: f.Concurrency, Effects: f.Effects,
		EffectBytes: int(f.EffectBytes), State: int64(f.State), Timers: f.Timers, LogBytes: int(f.LogBytes),
		Result: int(f.Result), Reads: f.Reads, Rate: rate, StreamBytes: int64(f.StreamBytes),
	}
}

func (p *specParser) retry(f *retryFile) {
	within(p, f.Attempts, 1, 20, "retry", "attempts")
	within(p, f.First, units.Duration(10*time.Millisecond), units.Duration(time.Hour), "retry", "first")
	within(p, f.Max, f.First, units.Duration(24*time.Hour), "retry", "max")
	p.spec.Retry = Retry{Attempts: f.Attempts, First: time.Duration(f.First), Max: time.Duration(f.Max), Overtake: f.Overtake}
}

func (p *specParser) inbox(f *inboxFile) {
	within(p, f.Bytes, leastInbox, mostInbox, "inbox", "bytes")
	switch f.Full {
	case "", DropOldest, DropNewest, Block:
	default:
		p.failf([]string{"inbox", "full"}, "must be %s, %s or %s, not %q", DropOldest, DropNewest, Block, short(f.Full))
	}
	p.spec.Inbox = Inbox{Bytes: int64(f.Bytes), Full: f.Full}
}

func (p *specParser) dedupe(n yamlfile.Node) {
	if n.Kind() == yamlfile.Null {
		return
	}
	f := struct {
		By     string         `yaml:"by"`
		Window units.Duration `yaml:"window"`
	}{Window: units.Duration(10 * time.Minute)}
	if err := n.Decode(&f); err != nil {
		p.fail(err)
		return
	}
	path, err := dataPath(f.By)
	p.fail(n.At("by").Wrap(err))
	within(p, f.Window, units.Duration(time.Second), units.Duration(30*units.Day), "dedupe", "window")
	p.spec.Dedupe = &Dedupe{By: path, Window: time.Duration(f.Window)}
}

// CheckName says what is wrong with a function's name: it is part of topics, paths and commands, and so plain.
func CheckName(name string) error {
	if len(name) > MaxName || !regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`).MatchString(name) {
		return fmt.Errorf("%q is no name for a function; use lower-case letters, digits and -, at most %d", short(name), MaxName)
	}
	return nil
}

// checkThing is for the names of devices and streams. Whether they exist is the gateway's to say.
func checkThing(what, name string) error {
	if len(name) > 64 || !regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]*$`).MatchString(name) {
		return fmt.Errorf("%q is no name for a %s; use letters, digits and any of . _ - after the first", short(name), what)
	}
	return nil
}

func short(s string) string {
	if len(s) > 64 {
		return strings.ToValidUTF8(s[:64], "") + "…"
	}
	return s
}
