package config

import (
	"encoding/json"
	"fmt"
	"net/url"
	"reflect"
	"slices"
	"strings"
)

// Redacted returns the configuration in force as JSON for people, in the order of gateway.yaml. Secrets are files, so that only their
// names stand in it; a password in a URL of a
// device, where only its driver could refuse it, is left out.
func (c *Config) Redacted() (json.RawMessage, error) {
	v := *c
	v.Broker.URL = hidePassword(v.Broker.URL)
	b, err := json.Marshal(&v)
	if err != nil {
		return nil, fmt.Errorf("the configuration as JSON: %w", err)
	}
	return b, nil
}

// hidePassword takes user and password out of a URL.
func hidePassword(s string) string {
	if !strings.Contains(s, "://") || !strings.Contains(s, "@") {
		return s
	}
	u, err := url.Parse(s)
	if err != nil {
		return "(a URL that is not valid)"
	}
	if u.User != nil {
		u.User = url.User(u.User.Username())
	}
	return u.String()
}

// hidePasswords does that for every text in v.
func hidePasswords(v any) any {
	switch v := v.(type) {
	case string:
		return hidePassword(v)
	case map[string]any:
		for k := range v {
			v[k] = hidePasswords(v[k])
		}
	case []any:
		for i := range v {
			v[i] = hidePasswords(v[i])
		}
	}
	return v
}

// Diff names the keys that differ, in the order of the alphabet: those that a running gateway takes over, and those that need a restart.
func Diff(old, next *Config) (live, restart []string) {
	a, b := old.flat(), next.flat()
	names := sorted(a)
	for n := range b {
		if _, ok := a[n]; !ok {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	for _, n := range names {
		if reflect.DeepEqual(a[n], b[n]) {
			continue
		}
		if isLive(n) {
			live = append(live, n)
		} else {
			restart = append(restart, n)
		}
	}
	return live, restart
}

// isLive holds the one rule of what reloads.
func isLive(key string) bool {
	section, _, _ := strings.Cut(key, ".")
	switch section {
	case "functions", "devices", "streams", "settings", "secrets":
		return true
	}
	return key == "log.level"
}

// flat gives the value of each key, two levels deep: "store.linger", "devices.fan", "id".
func (c *Config) flat() map[string]any {
	b, err := json.Marshal(c)
	if err != nil {
		return map[string]any{"": err.Error()}
	}
	var top map[string]any
	if err := json.Unmarshal(b, &top); err != nil {
		return map[string]any{"": err.Error()}
	}
	out := map[string]any{}
	for section, v := range top {
		if m, ok := v.(map[string]any); ok {
			for k, v := range m {
				out[section+"."+k] = v
			}
		} else {
			out[section] = v
		}
	}
	// The order of uplinks says which one is the first.
	for i, u := range c.Uplinks {
		out["uplinks."+u.Name] = []any{out["uplinks."+u.Name], i}
	}
	return out
}
