// Package topic knows MQTT topic names, filters, and the patterns of triggers, in which {name} stands for one level.
//
// A name is what a message is published to: levels with "/" between, no wildcards. A filter selects names: "+" is any
// one level, "#" at the end any number of levels, none included. Filters that begin with a wildcard never match names that begin
// with "$", which belong to brokers. Levels may be empty: "/a" has two.
//
// Match, Covers and Overlaps answer about single filters and trust that they are valid; Tree finds the filters among
// many that match a name; Fold arranges filters so that no message comes twice.
package topic

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

const (
	// MaxLen is the length of the longest name or filter, in bytes; MQTT has two bytes for it.
	MaxLen = 65535
	// MaxLevels is how many levels a name or filter may have; what brokers allow.
	MaxLevels = 200
)

// CheckName returns an error that says why a name cannot be published to. Names under "$" are valid; see System.
func CheckName(name string) error {
	if err := check(name); err != nil {
		return fmt.Errorf("topic %s: %w", show(name), err)
	}
	if strings.ContainsAny(name, "+#") {
		return fmt.Errorf("topic %s: it has a wildcard; + and # are for filters", show(name))
	}
	return nil
}

// CheckFilter returns an error that says why a filter cannot be subscribed to.
func CheckFilter(filter string) error {
	if err := check(filter); err != nil {
		return fmt.Errorf("filter %s: %w", show(filter), err)
	}
	if strings.HasPrefix(filter, "$share/") {
		return fmt.Errorf("filter %s: shared subscriptions are not supported", show(filter))
	}
	for level, rest, more := cut(filter); ; level, rest, more = cut(rest) {
		switch {
		case level == "#" && more:
			return fmt.Errorf("filter %s: # must be the last level", show(filter))
		case len(level) > 1 && strings.ContainsAny(level, "+#"):
			return fmt.Errorf("filter %s: a wildcard must be a whole level, not part of %q", show(filter), level)
		case !more:
			return nil
		}
	}
}

// System says whether a name or filter is under "$", where only brokers publish.
func System(s string) bool { return strings.HasPrefix(s, "$") }

func check(s string) error {
	switch {
	case s == "":
		return errors.New("it is empty")
	case len(s) > MaxLen:
		return fmt.Errorf("it has %d bytes, at most %d are allowed", len(s), MaxLen)
	case strings.Count(s, "/") >= MaxLevels:
		return fmt.Errorf("it has more than %d levels", MaxLevels)
	case !utf8.ValidString(s):
		return errors.New("it is not UTF-8")
	case strings.IndexByte(s, 0) >= 0:
		return errors.New("it has a NUL in it")
	}
	return nil
}

// show quotes a topic for an error and cuts a long one.
func show(s string) string {
	if len(s) > 80 {
		return fmt.Sprintf("%q…", strings.ToValidUTF8(s[:80], ""))
	}
	return fmt.Sprintf("%q", s)
}

// cut splits off the first level; more says whether a "/" followed it.
func cut(s string) (level, rest string, more bool) {
	return strings.Cut(s, "/")
}

// hidden says whether the $-rule keeps a first level out of a filter that begins with a wildcard.
func hidden(filter, name string) bool {
	return System(name) && (strings.HasPrefix(filter, "+") || strings.HasPrefix(filter, "#"))
}

// Match says whether filter selects name.
func Match(filter, name string) bool {
	if hidden(filter, name) {
		return false
	}
	for {
		f, frest, fmore := cut(filter)
		if f == "#" {
			return true
		}
		n, nrest, nmore := cut(name)
		switch {
		case f != "+" && f != n:
			return false
		case !nmore:
			return !fmore || frest == "#"
		case !fmore:
			return false
		}
		filter, name = frest, nrest
	}
}

// Covers says whether filter a selects every name that filter b selects.
func Covers(a, b string) bool {
	if hidden(a, b) {
		return false
	}
	if a == "+/#" {
		a = "#" // the same: every name has a first level
	}
	for {
		la, arest, amore := cut(a)
		if la == "#" {
			return true
		}
		lb, brest, bmore := cut(b)
		switch {
		case lb == "#" || (la != "+" && la != lb):
			return false
		case !bmore:
			return !amore || arest == "#"
		case !amore:
			return false
		}
		a, b = arest, brest
	}
}

// Overlaps says whether some name is selected by both filters.
func Overlaps(a, b string) bool {
	if hidden(a, b) || hidden(b, a) {
		return false
	}
	for {
		la, arest, amore := cut(a)
		lb, brest, bmore := cut(b)
		switch {
		case la == "#" || lb == "#":
			return true
		case la != lb && la != "+" && lb != "+":
			return false
		case !amore || !bmore:
			return (amore == bmore) || (amore && arest == "#") || (bmore && brest == "#")
		}
		a, b = arest, brest
	}
}
