package yamlfile

import (
	"slices"

	"github.com/goccy/go-yaml/token"
)

// joinColons mends what the YAML library makes of a colon inside a list inside a map in flow style: it takes the text of
// {listen: [tcp://127.0.0.1:1883]} for a map of "tcp://127.0.0.1" to 1883. In YAML a colon only separates when white
// space, a bracket or a comma follows it (YAML 1.2, 7.3.3), or when its key is quoted. The three tokens become one text again.
func joinColons(in token.Tokens) token.Tokens {
	var open []token.Type // brackets around the present token
	out := make(token.Tokens, 0, len(in))
	mended := false
	for i := 0; i < len(in); i++ {
		t := in[i]
		switch t.Type {
		case token.SequenceStartType, token.MappingStartType:
			open = append(open, t.Type)
		case token.SequenceEndType, token.MappingEndType:
			open = open[:max(0, len(open)-1)]
		}
		inList := len(open) > 0 && open[len(open)-1] == token.SequenceStartType && slices.Contains(open, token.MappingStartType)
		for inList && i+2 < len(in) && plainText(t) && in[i+1].Type == token.MappingValueType && plainText(in[i+2]) && touches(in[i+1], in[i+2]) {
			value := t.Value + ":" + in[i+2].Value
			t = token.String(value, value, t.Position)
			i += 2
			mended = true
		}
		out = append(out, t)
	}
	if !mended {
		return in
	}
	var linked token.Tokens
	for _, t := range out {
		t.Prev, t.Next = nil, nil
	}
	linked.Add(out...)
	return linked
}

// plainText says that a token is a scalar without quotes.
func plainText(t *token.Token) bool {
	switch t.Type {
	case token.StringType, token.IntegerType, token.FloatType, token.BoolType, token.NullType:
		return true
	}
	return false
}

// touches says that a value follows its colon without white space between.
func touches(colon, value *token.Token) bool {
	return value.Position.Line == colon.Position.Line && value.Position.Column == colon.Position.Column+1
}
