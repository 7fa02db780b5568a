package wire

import (
	"bytes"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// item is one thing to write; kind says which field counts.
type item struct {
	kind int
	u    uint64
	i    int64
	f    float64
	b    []byte
	s    string
}

func write(w *Writer, it item) {
	switch it.kind {
	case 0:
		w.Uint(it.u)
	case 1:
		w.Int(it.i)
	case 2:
		w.Byte(byte(it.u))
	case 3:
		w.Bool(it.u%2 == 1)
	case 4:
		w.Float(it.f)
	case 5:
		w.Bytes(it.b)
	case 6:
		w.String(it.s)
	}
}

// same reads what write wrote and compares.
func same(r *Reader, it item) bool {
	switch it.kind {
	case 0:
		return r.Uint() == it.u
	case 1:
		return r.Int() == it.i
	case 2:
		return r.Byte() == byte(it.u)
	case 3:
		return r.Bool() == (it.u%2 == 1)
	case 4:
		return math.Float64bits(r.Float()) == math.Float64bits(it.f)
	case 5:
		b := r.Bytes()
		return bytes.Equal(b, it.b) && (b == nil) == (it.b == nil)
	}
	return r.String() == it.s
}

func items() *rapid.Generator[[]item] {
	return rapid.SliceOf(rapid.Custom(func(t *rapid.T) item {
		it := item{kind: rapid.IntRange(0, 6).Draw(t, "kind"), u: rapid.Uint64().Draw(t, "u"), i: rapid.Int64().Draw(t, "i"),
			f: rapid.Float64().Draw(t, "f"), s: rapid.String().Draw(t, "s")}
		if rapid.Bool().Draw(t, "not nil") {
			it.b = append([]byte{}, rapid.SliceOf(rapid.Byte()).Draw(t, "b")...)
		}
		return it
	}))
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		list := items().Draw(t, "items")
		w := NewWriter([]byte("left over"))
		w.Reset()
		for _, it := range list {
			write(w, it)
		}
		r := NewReader(w.Data())
		for i, it := range list {
			if !same(r, it) {
				t.Fatalf("item %d of %v came back different (%v)", i, list, r.Err())
			}
		}
		if err := r.Done(); err != nil || r.Left() != 0 {
			t.Fatalf("%v, %d bytes left", err, r.Left())
		}
	})
}

// A message that was cut anywhere is an error or, where a cut falls between two items, zero values after it; never a panic.
func TestCut(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		list := items().Draw(t, "items")
		w := &Writer{}
		for _, it := range list {
			write(w, it)
		}
		if len(w.Data()) == 0 {
			return
		}
		r := NewReader(w.Data()[:rapid.IntRange(0, len(w.Data())-1).Draw(t, "cut")])
		for _, it := range list {
			same(r, it)
		}
		if err := r.Done(); err == nil {
			t.Fatal("a message that was cut reads without error")
		}
	})
}

func TestCorrupt(t *testing.T) {
	huge := (&Writer{})
	huge.Uint(math.MaxUint64)
	for name, read := range map[string]func(r *Reader){
		"string":  func(r *Reader) { _ = r.String() },
		"bytes":   func(r *Reader) { r.Bytes() },
		"count":   func(r *Reader) { r.Count(math.MaxInt) },
		"bool":    func(r *Reader) { r.Bool() },
		"float":   func(r *Reader) { r.Float(); r.Float() },
		"integer": func(r *Reader) { r.Uint(); r.Uint() },
		"byte":    func(r *Reader) { r.Uint(); r.Byte() },
		"too much": func(r *Reader) {
			r.Byte()
			_ = r.Done()
		},
	} {
		r := NewReader(huge.Data())
		read(r)
		require.ErrorIs(t, r.Err(), ErrCorrupt, name)
		first := r.Err()
		require.Zero(t, r.Uint(), name)
		require.Zero(t, r.Int(), name)
		require.Zero(t, r.Byte(), name)
		require.False(t, r.Bool(), name)
		require.Zero(t, r.Float(), name)
		require.Empty(t, r.Bytes(), name)
		require.Empty(t, r.String(), name)
		require.Zero(t, r.Count(10), name)
		require.Equal(t, first, r.Err(), "the first error stays")
		require.Equal(t, first, r.Done())
	}
	r := NewReader(bytes.Repeat([]byte{0xff}, 11))
	r.Uint()
	require.ErrorIs(t, r.Err(), ErrCorrupt, "an integer of more than 64 bits")
}

func TestCount(t *testing.T) {
	w := &Writer{}
	w.Uint(3)
	w.String("ab")
	require.Equal(t, 3, NewReader(w.Data()).Count(3))
	for _, limit := range []int{2, 0} {
		r := NewReader(w.Data())
		require.Zero(t, r.Count(limit))
		require.ErrorIs(t, r.Err(), ErrCorrupt)
	}
	r := NewReader(w.Data()[:3]) // three elements, two bytes
	require.Zero(t, r.Count(100))
	require.ErrorIs(t, r.Err(), ErrCorrupt)
}

// What is read can be kept: appending to it does not write over what follows.
func TestBytesDoNotReachFurther(t *testing.T) {
	w := &Writer{}
	w.Bytes([]byte("ab"))
	w.Bytes([]byte("cd"))
	r := NewReader(w.Data())
	_ = append(r.Bytes(), 'x', 'y', 'z')
	require.Equal(t, "cd", string(r.Bytes()))
}

// FuzzReader reads any bytes in any order of kinds; nothing may panic or allocate beyond the input.
func FuzzReader(f *testing.F) {
	f.Add([]byte{1, 2, 3}, []byte{0, 1, 5, 6, 7})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}, []byte{5})
	f.Fuzz(func(t *testing.T, data, kinds []byte) {
		r := NewReader(data)
		for _, k := range kinds {
			before := r.Left()
			switch k % 8 {
			case 7:
				if n := r.Count(1000); n > 1000 || n > before {
					t.Fatalf("count %d of %d bytes", n, before)
				}
			case 5:
				if b := r.Bytes(); len(b) > before {
					t.Fatalf("%d bytes of %d", len(b), before)
				}
			case 6:
				if s := r.String(); len(s) > before {
					t.Fatalf("%d bytes of %d", len(s), before)
				}
			default:
				same(r, item{kind: int(k % 8)})
			}
			if r.Left() > before {
				t.Fatal("the reader went back")
			}
		}
	})
}
