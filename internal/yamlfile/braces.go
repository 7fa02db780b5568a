package yamlfile

import (
	"bytes"
	"regexp"
	"strings"
	"unicode/utf8"
)

// Names in braces are text to us ("alerts/{room}"), and maps to YAML, unless they stand in quotes or behind other text outside of
// all brackets. What follows finds text for which somebody forgot that.

// bracedKey returns "{room}" for a map that is written so: one key without a value.
func (n Node) bracedKey() string {
	if n.v.kind != Map || !n.v.flow || len(n.v.keys) != 1 || n.v.items[0].kind != Null {
		return ""
	}
	return "{" + clip(n.v.keys[0].name) + "}"
}

// bracedText returns the text with a name in braces that stands at a place where the YAML library has found an error, or "".
func bracedText(data []byte, line, col int) string {
	for range line - 1 {
		_, data, _ = bytes.Cut(data, []byte("\n"))
	}
	data, _, _ = bytes.Cut(data, []byte("\n"))
	row := unquoted(string(data))
	for _, at := range regexp.MustCompile(`[^\s\[\]{},]*(\{\w+\}[^\s\[\]{},]*)+`).FindAllStringIndex(row, -1) {
		first, end := utf8.RuneCountInString(row[:at[0]])+1, utf8.RuneCountInString(row[:at[1]])+1
		if col >= first && col <= end {
			return row[at[0]:at[1]]
		}
	}
	return ""
}

// unquoted blanks what stands in quotes, and takes a comment away.
func unquoted(row string) string {
	out := []byte(row)
	var quote byte
	for i := range out {
		c := row[i]
		begins := i == 0 || strings.IndexByte(" \t[{,:", row[i-1]) >= 0
		switch {
		case quote != 0:
			out[i] = ' '
			if c == quote {
				quote = 0
			}
		case (c == '"' || c == '\'') && begins:
			quote, out[i] = c, ' '
		case c == '#' && (i == 0 || row[i-1] == ' ' || row[i-1] == '\t'):
			return string(out[:i])
		}
	}
	return string(out)
}
