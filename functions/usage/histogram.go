package usage

import (
	"math"
	"math/bits"

	"github.com/perigee-iot/perigee/internal/wire"
)

// steps is how many buckets a Histogram has.
const steps = 64

// Histogram counts whole numbers in buckets of half a power of two, so that a quantile is at most half too high, and keeps the
// highest number itself. Its buckets reach to 2^32: 71 minutes in µs, 4 TiB in KiB. What is more is in the last.
type Histogram struct {
	counts [steps]uint32 // they stop at their highest value
	max    int64
}

// bucket is where v belongs: 0 and 1 in the first.
func bucket(v int64) int {
	u := uint64(max(v, 1))
	exp := bits.Len64(u) - 1
	i := 2 * exp
	if exp > 0 {
		i += int(u>>(exp-1)) & 1
	}
	return min(i, steps-1)
}

// edge is the first number above bucket i.
func edge(i int) int64 {
	base := int64(1) << (i / 2)
	if i%2 == 0 {
		return base + max(base/2, 1)
	}
	return 2 * base
}

func (h *Histogram) add(v int64) { h.count(bucket(v), 1); h.max = max(h.max, v) }

func (h *Histogram) count(i int, n uint32) {
	h.counts[i] = uint32(min(uint64(h.counts[i])+uint64(n), math.MaxUint32))
}

func (h *Histogram) merge(o *Histogram) {
	for i, n := range o.counts {
		h.count(i, n)
	}
	h.max = max(h.max, o.max)
}

// N is how many numbers were counted.
func (h *Histogram) N() (n int64) {
	for _, c := range h.counts {
		n += int64(c)
	}
	return n
}

// Max is the highest number, 0 if there is none.
func (h *Histogram) Max() int64 { return h.max }

// Quantile returns a number that at least the q-th part of all numbers does not exceed, and no higher one than Max.
func (h *Histogram) Quantile(q float64) int64 {
	n := h.N()
	want := min(max(int64(math.Ceil(q*float64(n))), 1), n)
	var sum int64
	for i, c := range h.counts {
		if sum += int64(c); sum >= want && n > 0 {
			if i == steps-1 {
				return h.max
			}
			return min(edge(i)-1, h.max)
		}
	}
	return 0
}

// encode writes the buckets that are not empty.
func (h *Histogram) encode(w *wire.Writer) {
	used := 0
	for _, n := range h.counts {
		if n > 0 {
			used++
		}
	}
	w.Uint(uint64(used))
	for i, n := range h.counts {
		if n > 0 {
			w.Byte(byte(i))
			w.Uint(uint64(n))
		}
	}
	w.Uint(uint64(h.max))
}

func (h *Histogram) decode(r *wire.Reader) {
	for range r.Count(steps) {
		i, n := r.Byte(), r.Uint()
		if i >= steps || n > math.MaxUint32 {
			r.Fail("a histogram's bucket %d of %d", i, n)
			return
		}
		h.count(int(i), uint32(n))
	}
	h.max = positive(r)
}
