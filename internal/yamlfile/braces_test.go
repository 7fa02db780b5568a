package yamlfile

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTextWithBracesWantsQuotes(t *testing.T) {
	for text, want := range map[string]string{
		"publish: [alerts/{room}]":                       `f:1:18: text with { or } in it must be in quotes here: "alerts/{room}"`,
		"publish: ['a b/{x}', alerts/{room}/on, x]":      `f:1:29: text with { or } in it must be in quotes here: "alerts/{room}/on"`,
		"permissions: {publish: [alerts/{room}]}":        `f:1:32: text with { or } in it must be in quotes here: "alerts/{room}"`,
		"publish:\n  - ünd/{a}/{b_2}/#\n  - [ünd/{a}]":   `f:3:10: text with { or } in it must be in quotes here: "ünd/{a}"`,
		"mqtt: {topic: z/{room}, qos: 1}":                `f:1:17: text with { or } in it must be in quotes here: "z/{room}"`,
		"key: {room}/x":                                  `f:1:12: text with { or } in it must be in quotes here: "{room}/x"`,
		"key: {a}-{b} # a comment":                       `f:1:9: text with { or } in it must be in quotes here: "{a}-{b}"`,
		"a: [{room}/x]\r\nb: 1\r\n":                      `f:1:11: text with { or } in it must be in quotes here: "{room}/x"`,
		`publish: ["alerts/{room}" x]`:                   `f:1:27: ',' or ']' must be specified`,
		"publish: [a b c: d] # like {room}":              ``,
		"publish: [alerts/{room]":                        `f:1:18: ',' or ']' must be specified`,
		"listen: [\"a/{room}\", {room}, 'it''s', b/[c]]": `f:1:41: ',' or ']' must be specified`,
	} {
		var v map[string]any
		err := Decode("f", []byte(text), &v)
		if want != "" {
			require.EqualError(t, err, want, text)
		} else if err != nil {
			require.NotContains(t, err.Error(), "quotes here", text)
		}
	}
	for _, text := range []string{"key: a/{room}", "mqtt:\n  topic: z/{room}\n  qos: 1\n", `publish: ["a/{room}"]`, "- a/{room}\n- 'x'"} {
		_, err := Parse("f", []byte(text))
		require.NoError(t, err, text)
	}
}
