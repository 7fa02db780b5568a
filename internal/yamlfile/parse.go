package yamlfile

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// value is one value of the document. Aliases make several places share one.
type value struct {
	kind      Kind
	flow      bool // of a Map: it is written {…}
	line, col int
	text      string // scalars: as written, without quotes
	scalar    any    // string, bool, int64 or float64; nil for Null
	keys      []key  // of a Map
	items     []*value
}

type key struct {
	name      string
	line, col int
}

// Parse reads the syntax of a file and returns its top. An empty file gives a Node of kind Null, which decodes into
// anything and changes nothing.
func Parse(name string, data []byte) (Node, error) {
	top := Node{file: name, line: 1, col: 1}
	if len(data) > MaxSize {
		return Node{}, top.Errorf("the file has %d bytes, at most %d are read", len(data), MaxSize)
	}
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	if i := invalidAt(data); i >= 0 {
		top.line += bytes.Count(data[:i], []byte("\n"))
		return Node{}, top.Errorf("the text is not UTF-8, or has a control character in it")
	}
	body, err := top.parseBody(data)
	if err != nil {
		return Node{}, err
	}
	c := converter{file: name, anchors: map[string]*value{}}
	v, err := c.convert(body, 0)
	if err != nil {
		return Node{}, err
	}
	top.v = v
	return top, nil
}

// invalidAt returns where data is no text, or -1.
func invalidAt(data []byte) int {
	for i := 0; i < len(data); {
		r, n := utf8.DecodeRune(data[i:])
		if (r == utf8.RuneError && n == 1) || (r < ' ' && r != '\n' && r != '\r' && r != '\t') || r == 0x7f {
			return i
		}
		i += n
	}
	return -1
}

// parseBody runs the YAML library. It is guarded: the library recurses and copies paths with the depth of nesting, so that is
// bounded before, and a panic in it is the file's fault, not the gateway's end.
func (n Node) parseBody(data []byte) (body ast.Node, err error) {
	defer func() {
		if r := recover(); r != nil {
			body, err = nil, n.Errorf("this is not YAML that can be read")
		}
	}()
	tokens := joinColons(lexer.Tokenize(string(data)))
	if err := n.boundTokens(tokens); err != nil {
		return nil, err
	}
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		return nil, n.syntaxError(err, data)
	}
	for _, doc := range file.Docs {
		switch {
		case doc.Body != nil && doc.Body.Type() == ast.DirectiveType:
			return nil, n.at(doc.Body.GetToken()).Errorf("directives such as %%YAML are not supported; leave the line out")
		case body != nil || (doc != file.Docs[0] && doc.Body != nil):
			return nil, n.at(start(doc)).Errorf(`there is more than one document; remove the line "---" and what belongs to the other`)
		}
		body = doc.Body
	}
	return body, nil
}

func start(doc *ast.DocumentNode) *token.Token {
	if doc.Start != nil {
		return doc.Start
	}
	if doc.Body != nil {
		return doc.Body.GetToken()
	}
	return nil
}

// boundTokens refuses documents that nest deeper than maxDepth without indentation, or are too long.
func (n Node) boundTokens(tokens token.Tokens) error {
	if len(tokens) > maxTokens {
		return n.Errorf("the file is too long: %d tokens, at most %d are read", len(tokens), maxTokens)
	}
	flow, run, line := 0, 0, 0
	for _, t := range tokens {
		switch t.Type {
		case token.SequenceStartType, token.MappingStartType:
			flow++
		case token.SequenceEndType, token.MappingEndType:
			flow--
		case token.SequenceEntryType, token.MappingKeyType:
			if t.Position.Line != line {
				run = 0
			}
			run++
		case token.TagType, token.AnchorType:
			run++
		default:
			run = 0
		}
		line = t.Position.Line
		if flow > maxDepth || run > maxDepth {
			return n.at(t).Errorf("lists and maps are nested too deeply")
		}
	}
	return nil
}

// at returns a Node that only serves for errors at a token.
func (n Node) at(t *token.Token) Node {
	if t != nil && t.Position != nil {
		n.line, n.col = max(t.Position.Line, 1), max(t.Position.Column, 1)
	}
	return n
}

// syntaxError makes one line of the library's error, which comes with an excerpt of the file.
func (n Node) syntaxError(err error, data []byte) error {
	var ye yaml.Error
	if !errors.As(err, &ye) {
		line, _, _ := strings.Cut(err.Error(), "\n")
		return n.Errorf("%s", line)
	}
	n = n.at(ye.GetToken())
	msg := ye.GetMessage()
	braced := bracedText(data, n.line, n.col)
	switch {
	case braced != "":
		msg = fmt.Sprintf("text with { or } in it must be in quotes here: %q", clip(braced))
	case strings.Contains(msg, "end token ']' not found"):
		msg = "this list is not closed: add a ] at its end"
	case strings.Contains(msg, "end token '}'"):
		msg = "this map is not closed: add a } at its end"
	case strings.Contains(msg, "could not find end character of"):
		msg = "this text is not closed: add the quote at its end"
	case strings.Contains(msg, "found character '\t'"), strings.Contains(msg, "tab"):
		msg = "a tab cannot indent; use spaces"
	case strings.Contains(msg, "value is not allowed in this context"), strings.Contains(msg, "unexpected scalar value"):
		msg += "; is the indentation right, and text with \": \" or \"#\" in quotes?"
	}
	return n.Errorf("%s", msg)
}

// converter turns the library's tree into ours.
type converter struct {
	file    string
	anchors map[string]*value // complete values only, so that an alias cannot be inside its own anchor
}

func (c *converter) errorf(t *token.Token, format string, args ...any) error {
	return Node{file: c.file, line: 1, col: 1}.at(t).Errorf(format, args...)
}

func (c *converter) convert(n ast.Node, depth int) (*value, error) {
	if n == nil {
		return &value{kind: Null, line: 1, col: 1}, nil
	}
	tok := n.GetToken()
	if depth > maxDepth {
		return nil, c.errorf(tok, "lists and maps are nested too deeply")
	}
	v := &value{}
	if tok != nil && tok.Position != nil {
		v.line, v.col = max(tok.Position.Line, 1), max(tok.Position.Column, 1)
	}
	switch n := n.(type) {
	case *ast.MappingNode:
		v.flow = n.IsFlowStyle
		return v, c.mapping(v, n.Values, depth)
	case *ast.MappingValueNode:
		return v, c.mapping(v, []*ast.MappingValueNode{n}, depth)
	case *ast.SequenceNode:
		v.kind = List
		for _, item := range n.Values {
			i, err := c.convert(item, depth+1)
			if err != nil {
				return nil, err
			}
			v.items = append(v.items, i)
		}
		return v, nil
	case *ast.AnchorNode:
		inner, err := c.convert(n.Value, depth+1)
		if err == nil {
			c.anchors[n.Name.GetToken().Value] = inner
		}
		return inner, err
	case *ast.AliasNode:
		inner, ok := c.anchors[n.Value.GetToken().Value]
		if !ok {
			return nil, c.errorf(tok, "*%s has no &%s before it", n.Value.GetToken().Value, n.Value.GetToken().Value)
		}
		return inner, nil
	case *ast.LiteralNode:
		v.kind, v.text, v.scalar = Scalar, n.Value.Value, n.Value.Value
		return v, nil
	case *ast.TagNode:
		return nil, c.errorf(tok, "tags such as %s are not supported; put text in quotes", clip(tok.Value))
	case *ast.StringNode, *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.NullNode, *ast.InfinityNode, *ast.NanNode:
		c.scalar(v, n, tok)
		return v, nil
	}
	return nil, c.errorf(tok, "%s cannot stand here", strings.ToLower(n.Type().String()))
}

func (c *converter) mapping(v *value, pairs []*ast.MappingValueNode, depth int) error {
	v.kind = Map
	seen := make(map[string]int, len(pairs))
	for i, p := range pairs {
		tok := p.Key.GetToken()
		if p.Key.IsMergeKey() {
			return c.errorf(tok, "the merge key << is not supported; write the keys out")
		}
		kv, err := c.convert(p.Key, depth+1)
		if err != nil {
			return err
		}
		if kv.kind != Scalar {
			return c.errorf(tok, "a key must be a word")
		}
		if first, ok := seen[kv.text]; ok {
			return c.errorf(tok, "key %q is given twice, first in line %d", clip(kv.text), first)
		}
		seen[kv.text] = kv.line
		item, err := c.convert(p.Value, depth+1)
		if err != nil {
			return err
		}
		if i == 0 {
			v.line, v.col = kv.line, kv.col
		}
		v.keys = append(v.keys, key{name: kv.text, line: kv.line, col: kv.col})
		v.items = append(v.items, item)
	}
	return nil
}

// scalar resolves a plain scalar as YAML 1.2 does, except that a number with a leading zero stays text.
func (c *converter) scalar(v *value, n ast.Node, tok *token.Token) {
	v.kind, v.text = Scalar, tok.Value
	if s, ok := n.(*ast.StringNode); ok {
		v.text = s.Value
	}
	v.scalar = v.text
	if tok.Type == token.SingleQuoteType || tok.Type == token.DoubleQuoteType {
		return
	}
	switch v.text {
	case "", "~", "null", "Null", "NULL":
		v.kind, v.scalar = Null, nil
	case "true", "True", "TRUE":
		v.scalar = true
	case "false", "False", "FALSE":
		v.scalar = false
	default:
		if f, ok := number(v.text); ok {
			v.scalar = f
		}
	}
}

// number reads decimal numbers in JSON's form, with a + allowed and digits missing before or after the point.
func number(s string) (any, bool) {
	digits := strings.TrimLeft(s, "+-")
	if digits == "" || len(s)-len(digits) > 1 || strings.Trim(digits, "0123456789.eE+-") != "" || strings.Trim(digits, ".eE+-") == "" {
		return nil, false
	}
	if len(digits) > 1 && digits[0] == '0' && digits[1] >= '0' && digits[1] <= '9' {
		return nil, false
	}
	if i, err := strconv.ParseInt(s, 10, 64); err == nil {
		return i, true
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsInf(f, 0) {
		return nil, false
	}
	return f, true
}

func clip(s string) string {
	if len(s) > 60 {
		return fmt.Sprintf("%s…", strings.ToValidUTF8(s[:60], ""))
	}
	return s
}
