package state

import (
	"fmt"
	"hash/fnv"

	"github.com/perigee-iot/perigee/internal/store"
	"github.com/perigee-iot/perigee/internal/wire"
)

// Totals is what a function's state adds up to.
type Totals struct {
	Count int64 // values
	Bytes int64 // of keys and values as they are stored: what limits.state bounds
}

// totals is the record that is kept with the values.
type totals struct {
	count, bytes int64
	digest       uint64 // the sum of the digests of all values
	counter      uint64 // of writes to shared values; never goes back
	set          uint64 // the counter when a shared name was last added or removed
	absent       bool   // there is no record
}

func totalsKey(function string) store.Key { return functionKey(function).String(tagTotals) }

// statefulKey is there since the totals are. It lies apart from them, so that damage that takes a function's state and its totals with one
// block still leaves that there was something.
func statefulKey(function string) store.Key { return store.NewKey(store.Stateful).String(function) }

func readTotals(r store.Reader, function string) (totals, error) {
	b, ok, err := r.Get(totalsKey(function))
	if err != nil || !ok {
		return totals{absent: true}, err
	}
	w := wire.NewReader(b)
	t := totals{count: w.Int(), bytes: w.Int(), digest: w.Uint(), counter: w.Uint(), set: w.Uint()}
	if err := w.Done(); err != nil {
		return totals{}, fmt.Errorf("totals of the state of function %s: %w: %w", function, store.ErrDamaged, err)
	}
	return t, nil
}

// put writes the totals.
func (t *totals) put(tx store.Tx, function string) {
	if t.absent {
		tx.Put(statefulKey(function), nil)
	}
	tx.Put(totalsKey(function), t.encode())
}

func (t *totals) encode() []byte {
	w := wire.NewWriter(nil)
	w.Int(t.count)
	w.Int(t.bytes)
	w.Uint(t.digest)
	w.Uint(t.counter)
	w.Uint(t.set)
	return w.Data()
}

func (t *totals) add(key, stored []byte) {
	t.count++
	t.bytes += int64(len(key) + len(stored))
	t.digest += digest(key, stored)
}

func (t *totals) remove(key, stored []byte) {
	t.count--
	t.bytes -= int64(len(key) + len(stored))
	t.digest -= digest(key, stored)
}

// digest is one value's share of the sum. It guards against loss, not against people.
func digest(key, stored []byte) uint64 {
	h := fnv.New64a()
	h.Write(key)
	h.Write([]byte{0xff})
	h.Write(stored)
	return h.Sum64()
}

// Size returns how much a function keeps.
func Size(r store.Reader, function string) (Totals, error) {
	t, err := readTotals(r, function)
	return Totals{Count: t.count, Bytes: t.bytes}, err
}

// MismatchError is a state that is not what it was when it was last written: the disk lost or changed something.
type MismatchError struct {
	Function string
	Want     Totals // as they were kept
	Have     Totals // as they are
	Gone     bool   // what was kept of them is gone too: Want is not known
}

// Error says what is different.
func (e *MismatchError) Error() string {
	if e.Gone {
		return fmt.Sprintf("the state of function %s is damaged: how much it had is not known any more, and now it has %d values of %d bytes",
			e.Function, e.Have.Count, e.Have.Bytes)
	}
	return fmt.Sprintf("the state of function %s is damaged: it had %d values of %d bytes, and now has %d of %d",
		e.Function, e.Want.Count, e.Want.Bytes, e.Have.Count, e.Have.Bytes)
}

// Verify reads all of a function's state and returns a *MismatchError if that is not what was written. It is for the start after an unclean
// stop.
func Verify(r store.Reader, function string) error {
	want, err := readTotals(r, function)
	if err != nil {
		return err
	}
	have, err := count(r, function)
	if err != nil {
		return err
	}
	if want.absent {
		_, had, err := r.Get(statefulKey(function))
		if err != nil {
			return err
		}
		if had || have.count > 0 {
			return &MismatchError{Function: function, Have: Totals{Count: have.count, Bytes: have.bytes}, Gone: true}
		}
	}
	if have.count != want.count || have.bytes != want.bytes || have.digest != want.digest {
		return &MismatchError{
			Function: function,
			Want:     Totals{Count: want.count, Bytes: want.bytes},
			Have:     Totals{Count: have.count, Bytes: have.bytes},
		}
	}
	return nil
}

// Accept makes the totals what the values are, after a mismatch that somebody has looked at.
func Accept(tx store.Tx, function string) error {
	t, err := readTotals(tx, function)
	if err != nil {
		t = totals{absent: true} // the record itself is what is damaged
	}
	have, err := count(tx, function)
	if err != nil {
		return err
	}
	t.count, t.bytes, t.digest = have.count, have.bytes, have.digest
	// Values may have a version that the counter has lost.
	t.counter = max(t.counter, have.counter) + 1
	t.set = t.counter
	t.put(tx, function)
	return nil
}

// count adds up a function's values. Its counter is the highest version.
func count(r store.Reader, function string) (totals, error) {
	var t totals
	for _, tag := range []string{tagKeyed, tagShared} {
		ref := Ref{Function: function, Shared: tag == tagShared}
		err := r.Scan(functionKey(function).String(tag), nil, func(key, stored []byte) bool {
			t.add(key, stored)
			if _, version, err := ref.split(stored); err == nil {
				t.counter = max(t.counter, version)
			}
			return true
		})
		if err != nil {
			return totals{}, err
		}
	}
	return t, nil
}
