package cases

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"strconv"

	"github.com/perigee-iot/perigee/internal/yamlfile"
)

// toJSON writes a part of a file as JSON, fields in the order in which they stand.
func toJSON(n yamlfile.Node) []byte { return appendJSON(nil, n) }

func appendJSON(b []byte, n yamlfile.Node) []byte {
	switch n.Kind() {
	case yamlfile.Scalar:
		return appendScalar(b, n.Value())
	case yamlfile.List:
		b = append(b, '[')
		for i, item := range n.Items() {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendJSON(b, item)
		}
		return append(b, ']')
	case yamlfile.Map:
		b = append(b, '{')
		keys := n.Keys()
		for i, item := range n.Items() {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendScalar(b, keys[i])
			b = append(b, ':')
			b = appendJSON(b, item)
		}
		return append(b, '}')
	}
	return append(b, "null"...)
}

func appendScalar(b []byte, v any) []byte {
	if f, ok := v.(float64); ok && f == float64(int64(f)) && f < 1e15 && f > -1e15 {
		return strconv.AppendInt(b, int64(f), 10)
	}
	text, err := json.Marshal(v)
	if err != nil { // .inf and .nan, which JSON does not have
		return append(b, "null"...)
	}
	return append(b, text...)
}

// sameJSON says that the field x of a YAML map is that JSON, byte for byte.
func sameJSON(tight []byte, text string) bool {
	root, err := yamlfile.Parse("", []byte(text))
	if err != nil {
		return false
	}
	n, ok := root.Child("x")
	return ok && bytes.Equal(toJSON(n), tight)
}

func base64Text(b []byte) string { return base64.StdEncoding.EncodeToString(b) }
