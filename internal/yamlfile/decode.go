package yamlfile

import (
	"encoding"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
)

// decoder walks a value and its destination side by side and gathers what is wrong.
type decoder struct {
	errs  []error
	nodes int
}

func decode(n Node, into any) error {
	dst := reflect.ValueOf(into)
	if dst.Kind() != reflect.Pointer || dst.IsNil() {
		return fmt.Errorf("decode into %T: a pointer is needed", into)
	}
	if n.v == nil {
		return nil
	}
	d := &decoder{}
	d.value(n, dst.Elem())
	switch len(d.errs) {
	case 0:
		return nil
	case 1:
		return d.errs[0]
	}
	return errors.Join(d.errs...)
}

func (d *decoder) full() bool { return len(d.errs) >= maxErrors || d.nodes > maxNodes }

func (d *decoder) fail(err error) {
	if err != nil && len(d.errs) < maxErrors {
		d.errs = append(d.errs, err)
	}
}

func (d *decoder) value(n Node, dst reflect.Value) {
	if d.nodes++; d.nodes == maxNodes {
		d.fail(n.Errorf("the file is too long once its aliases are expanded"))
	}
	if d.full() || d.special(n, dst) {
		return
	}
	if n.v.kind == Null {
		return // "store:" with all its keys commented out leaves the defaults
	}
	switch dst.Kind() {
	case reflect.Pointer:
		if dst.IsNil() {
			dst.Set(reflect.New(dst.Type().Elem()))
		}
		d.value(n, dst.Elem())
	case reflect.Struct:
		d.structure(n, dst)
	case reflect.Map:
		d.mapping(n, dst)
	case reflect.Slice:
		d.list(n, dst)
	case reflect.Interface:
		if v := d.any(n); dst.NumMethod() == 0 && v != nil {
			dst.Set(reflect.ValueOf(v))
		}
	default:
		d.fail(scalar(n, dst))
	}
}

// special handles Node, Unmarshaler and UnmarshalText.
func (d *decoder) special(n Node, dst reflect.Value) bool {
	if dst.Type() == reflect.TypeFor[Node]() {
		dst.Set(reflect.ValueOf(n))
		return true
	}
	if !dst.CanAddr() {
		return false
	}
	switch u := dst.Addr().Interface().(type) {
	case Unmarshaler:
		d.fail(n.placed(u.UnmarshalNode(n)))
	case encoding.TextUnmarshaler:
		switch n.v.kind {
		case Null:
		case Scalar:
			d.fail(n.placed(u.UnmarshalText([]byte(n.v.text))))
		default:
			d.fail(n.mismatch("a single value"))
		}
	default:
		return false
	}
	return true
}

func (n Node) mismatch(want string) error {
	if n.v.kind == Scalar {
		return n.Errorf("must be %s, not %q", want, clip(n.v.text))
	}
	return n.Errorf("must be %s, not %s", want, n.v.kind)
}

func (d *decoder) structure(n Node, dst reflect.Value) {
	if n.v.kind != Map {
		d.fail(n.mismatch("a map"))
		return
	}
	fields := map[string]reflect.Value{}
	var names []string
	collect(dst, fields, &names)
	for i, k := range n.v.keys {
		if f, ok := fields[k.name]; ok {
			d.value(n.item(i), f)
		} else {
			d.fail(n.unknown(k, names))
		}
	}
}

// collect lists the settable fields of a struct by their keys; embedded structs without a key of their own are part of it.
func collect(dst reflect.Value, fields map[string]reflect.Value, names *[]string) {
	for i := range dst.NumField() {
		f := dst.Type().Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		switch {
		case name == "-" || !f.IsExported():
		case f.Type.Kind() == reflect.Struct && (options == "inline" || (f.Anonymous && name == "")):
			collect(dst.Field(i), fields, names)
		default:
			if name == "" {
				name = strings.ToLower(f.Name)
			}
			fields[name] = dst.Field(i)
			*names = append(*names, name)
		}
	}
}

// unknown is the error for a key that nothing reads.
func (n Node) unknown(k key, names []string) error {
	n.line, n.col = k.line, k.col
	if text := n.bracedKey(); text != "" {
		return n.Errorf("unknown key %q; if %s is meant as text, put it in quotes: %q", clip(k.name), text, text)
	}
	if near := Nearest(k.name, names); near != "" {
		return n.Errorf("unknown key %q; did you mean %q?", clip(k.name), near)
	}
	if len(names) == 0 {
		return n.Errorf("unknown key %q; there are no keys here", clip(k.name))
	}
	if len(names) > 16 {
		names = append(names[:16:16], "…")
	}
	return n.Errorf("unknown key %q; there are %s", clip(k.name), strings.Join(names, ", "))
}

func (d *decoder) mapping(n Node, dst reflect.Value) {
	if n.v.kind != Map {
		d.fail(n.mismatch("a map"))
		return
	}
	if dst.Type().Key().Kind() != reflect.String {
		d.fail(n.Errorf("cannot be read into %s", dst.Type()))
		return
	}
	if dst.IsNil() {
		dst.Set(reflect.MakeMapWithSize(dst.Type(), len(n.v.keys)))
	}
	for i, k := range n.v.keys {
		elem := reflect.New(dst.Type().Elem()).Elem()
		d.value(n.item(i), elem)
		if d.full() {
			return
		}
		dst.SetMapIndex(reflect.ValueOf(k.name).Convert(dst.Type().Key()), elem)
	}
}

func (d *decoder) list(n Node, dst reflect.Value) {
	if n.v.kind != List {
		err := n.mismatch("a list")
		if n.v.kind == Scalar {
			err = n.Errorf("must be a list: write [%s]", clip(n.v.text))
		}
		d.fail(err)
		return
	}
	out := reflect.MakeSlice(dst.Type(), len(n.v.items), len(n.v.items))
	for i := range n.v.items {
		d.value(n.item(i), out.Index(i))
		if d.full() {
			return
		}
	}
	dst.Set(out)
}

// any returns string, bool, int64, float64, map[string]any, []any or nil.
func (d *decoder) any(n Node) any {
	switch n.v.kind {
	case Scalar:
		return n.v.scalar
	case Map:
		m := make(map[string]any, len(n.v.keys))
		for i, k := range n.v.keys {
			var v any
			d.value(n.item(i), reflect.ValueOf(&v).Elem())
			if d.full() {
				return nil
			}
			m[k.name] = v
		}
		return m
	case List:
		l := make([]any, len(n.v.items))
		for i := range l {
			d.value(n.item(i), reflect.ValueOf(&l[i]).Elem())
			if d.full() {
				return nil
			}
		}
		return l
	}
	return nil
}

// scalar sets a string, bool or number.
func scalar(n Node, dst reflect.Value) error {
	if text := n.bracedKey(); text != "" && dst.Kind() == reflect.String {
		return n.Errorf("must be text, not a map; put %s in quotes: %q", text, text)
	}
	if n.v.kind != Scalar {
		return n.mismatch(wanted(dst.Kind()))
	}
	switch dst.Kind() {
	case reflect.String:
		dst.SetString(n.v.text) // 0.30 and 0042 stay what was written
		return nil
	case reflect.Bool:
		if b, ok := n.v.scalar.(bool); ok {
			dst.SetBool(b)
			return nil
		}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		if i, ok := integer(n.v.scalar); ok {
			if dst.OverflowInt(i) {
				return n.Errorf("%s is out of range", clip(n.v.text))
			}
			dst.SetInt(i)
			return nil
		}
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		if i, ok := integer(n.v.scalar); ok {
			if i < 0 || dst.OverflowUint(uint64(i)) {
				return n.Errorf("%s is out of range", clip(n.v.text))
			}
			dst.SetUint(uint64(i))
			return nil
		}
	case reflect.Float32, reflect.Float64:
		switch v := n.v.scalar.(type) {
		case int64:
			dst.SetFloat(float64(v))
			return nil
		case float64:
			dst.SetFloat(v)
			return nil
		}
	default:
		return n.Errorf("cannot be read into %s", dst.Type())
	}
	return n.mismatch(wanted(dst.Kind()))
}

// integer accepts 3 and 3.0.
func integer(v any) (int64, bool) {
	switch v := v.(type) {
	case int64:
		return v, true
	case float64:
		if v == math.Trunc(v) && math.Abs(v) < 1<<53 {
			return int64(v), true
		}
	}
	return 0, false
}

func wanted(k reflect.Kind) string {
	switch k {
	case reflect.String:
		return "text"
	case reflect.Bool:
		return "true or false"
	case reflect.Float32, reflect.Float64:
		return "a number"
	}
	return "a whole number"
}
