package mqttclient

import "math/bits"

// idSet is a set of packet ids, in 8 KiB whatever it holds.
type idSet [1 << 16 / 64]uint64

func (s *idSet) add(id uint16)      { s[id>>6] |= 1 << (id & 63) }
func (s *idSet) remove(id uint16)   { s[id>>6] &^= 1 << (id & 63) }
func (s *idSet) has(id uint16) bool { return s[id>>6]>>(id&63)&1 == 1 }
func (s *idSet) empty() bool        { return *s == idSet{} }

// each calls fn with every id in the set, in ascending order.
func (s *idSet) each(fn func(id uint16)) {
	for i, w := range s {
		for ; w != 0; w &= w - 1 {
			fn(uint16(i<<6 + bits.TrailingZeros64(w)))
		}
	}
}
