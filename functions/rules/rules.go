// Package rules says what holds for a function wherever it runs: in the gateway's engine, and in its tests. Which events are for
// it and what their key is (match.go), which effects it may have (effects.go), and what becomes of an attempt (verdict.go).
// Nothing here keeps or does anything.
package rules

import (
	"strings"
	"unicode/utf8"
)

// Printable cuts text for people to at most n bytes and replaces what a terminal should not get.
func Printable(s string, n int) string {
	cut := len(s) > n
	if cut {
		s = s[:n]
	}
	s = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || r < ' ' || (r >= 0x7f && r < 0xa0) {
			return '.'
		}
		return r
	}, s)
	if cut {
		s += "..."
	}
	return s
}
