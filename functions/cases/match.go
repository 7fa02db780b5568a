package cases

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strconv"

	"github.com/perigee-iot/perigee/internal/yamlfile"
)

// difference is one place where a value is not what was expected.
type difference struct {
	path          string // "data.rooms.2"
	expected, got string // as JSON
	missing       bool   // it is not there
}

// maxDifferences bounds what is said about one value.
const maxDifferences = 8

// matchJSON compares a value with what a file expects of it.
func matchJSON(want yamlfile.Node, path string, got []byte) []difference {
	d := json.NewDecoder(bytes.NewReader(got))
	d.UseNumber()
	var v any
	if got != nil {
		if err := d.Decode(&v); err != nil || d.More() {
			return []difference{{path: path, expected: string(toJSON(want)), got: fmt.Sprintf("%.200q, which is not JSON", got)}}
		}
	}
	var list []difference
	match(want, path, v, &list)
	return list
}

func match(want yamlfile.Node, path string, got any, out *[]difference) {
	if len(*out) >= maxDifferences {
		return
	}
	differ := func() { *out = append(*out, difference{path: path, expected: string(toJSON(want)), got: compact(got)}) }
	switch want.Kind() {
	case yamlfile.Map:
		fields, ok := got.(map[string]any)
		if !ok {
			differ()
			return
		}
		keys := want.Keys()
		for i, w := range want.Items() {
			v, there := fields[keys[i]]
			at := join(path, keys[i])
			if !there && w.Kind() != yamlfile.Null {
				*out = append(*out, difference{path: at, expected: string(toJSON(w)), missing: true})
				continue
			}
			match(w, at, v, out)
		}
	case yamlfile.List:
		items, ok := got.([]any)
		if !ok || len(items) != len(want.Items()) {
			differ()
			return
		}
		for i, w := range want.Items() {
			match(w, join(path, strconv.Itoa(i+1)), items[i], out)
		}
	case yamlfile.Null:
		if got != nil {
			differ()
		}
	default:
		if !same(want.Value(), got) {
			differ()
		}
	}
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// same compares scalars; numbers with a fraction to nine digits.
func same(want, got any) bool {
	if n, ok := got.(json.Number); ok {
		if whole, isWhole := want.(int64); isWhole {
			if i, err := n.Int64(); err == nil {
				return i == whole // all their digits
			}
		}
		a, isNumber := number(want)
		b, err := n.Float64()
		return isNumber && err == nil && (a == b || math.Abs(a-b) <= 1e-9*max(math.Abs(a), math.Abs(b)))
	}
	return want == got
}

func number(v any) (float64, bool) {
	switch v := v.(type) {
	case int64:
		return float64(v), true
	case float64:
		return v, true
	}
	return 0, false
}

func compact(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(b)
}
