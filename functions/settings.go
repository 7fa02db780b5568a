package functions

import (
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/perigee-iot/perigee/internal/yamlfile"
)

func (p *specParser) env(n yamlfile.Node) {
	if n.Kind() != yamlfile.Map && n.Kind() != yamlfile.Null {
		p.fail(n.Errorf("must be a map of names and values, such as {on: 30}"))
		return
	}
	p.spec.Env = map[string]any{}
	keys := n.Keys()
	if len(keys) > maxListed {
		p.fail(n.Errorf("has %d entries, at most %d are allowed", len(keys), maxListed))
	}
	for i, item := range n.Items() {
		if len(keys[i]) > 64 || !regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`).MatchString(keys[i]) {
			p.fail(item.Errorf("%q cannot be read as ctx.env.NAME; use letters, digits and _", short(keys[i])))
		}
		v, err := envValue(item.Value())
		p.fail(item.Wrap(err))
		p.spec.Env[keys[i]] = v
	}
}

// envValue makes bool, float64 or string of a scalar.
func envValue(v any) (any, error) {
	switch v := v.(type) {
	case bool:
		return v, nil
	case string:
		if len(v) > maxEnvText {
			return nil, fmt.Errorf("has %d bytes, at most %d are allowed", len(v), maxEnvText)
		}
		return v, nil
	case int:
		return float64(v), nil
	case int64:
		return float64(v), nil
	case uint64:
		return float64(v), nil
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return nil, fmt.Errorf("%v is no number that a function can use", v)
		}
		return v, nil
	}
	return nil, fmt.Errorf("must be a number, text, true or false")
}

func typeName(v any) string {
	switch v.(type) {
	case bool:
		return "true or false"
	case string:
		return "text"
	}
	return "a number"
}

// CheckSettings returns the function's env with a gateway's settings over it, ready to be JSON: every value is a bool, float64 or
// string. A setting that the function does not have, or of another type than there, is an error.
func (s *Spec) CheckSettings(settings map[string]any) (map[string]any, error) {
	env := maps.Clone(s.Env)
	if env == nil {
		env = map[string]any{}
	}
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		have, ok := env[name]
		if !ok {
			return nil, fmt.Errorf("function %s has no setting %q; %s", s.Name, short(name), s.settingHint(name))
		}
		v, err := envValue(settings[name])
		if err != nil {
			return nil, fmt.Errorf("setting %q of function %s: %w", name, s.Name, err)
		}
		if typeName(have) != typeName(v) {
			return nil, fmt.Errorf("setting %q of function %s must be %s, as in its env, not %s", name, s.Name, typeName(have), typeName(v))
		}
		env[name] = v
	}
	return env, nil
}

func (s *Spec) settingHint(name string) string {
	names := slices.Sorted(maps.Keys(s.Env))
	if near := yamlfile.Nearest(name, names); near != "" {
		return fmt.Sprintf("did you mean %q?", near)
	}
	if len(names) == 0 {
		return "its env is empty"
	}
	return "its env has " + short(strings.Join(names, ", "))
}

// CheckRequires returns an error if the function needs a newer Perigee than version. A version that is no number, as of a
// build from a working tree, passes.
func (s *Spec) CheckRequires(version string) error {
	have, err := parseVersion(version)
	if s.Requires == "" || err != nil {
		return nil
	}
	need, err := parseVersion(s.Requires)
	if err != nil {
		return err
	}
	if slices.Compare(have[:], need[:]) < 0 {
		return fmt.Errorf("function %s requires Perigee %s, this is %s", s.Name, s.Requires, version)
	}
	return nil
}

// parseVersion reads "1", "0.3", "v0.3.1" and ignores what follows a "-" or "+".
func parseVersion(s string) ([3]int, error) {
	var v [3]int
	core := strings.TrimPrefix(s, "v")
	if i := strings.IndexAny(core, "-+"); i >= 0 {
		core = core[:i]
	}
	parts := strings.Split(core, ".")
	if len(parts) > len(v) {
		return v, fmt.Errorf("%q is no version", short(s))
	}
	for i, part := range parts {
		n, err := strconv.ParseUint(part, 10, 31)
		if err != nil {
			return v, fmt.Errorf("%q is no version", short(s))
		}
		v[i] = int(n)
	}
	return v, nil
}
