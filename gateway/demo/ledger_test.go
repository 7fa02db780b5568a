package demo

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestLedger(t *testing.T) {
	tests := []struct {
		name string
		do   func(l *ledger)
		want counts
	}{
		{"nothing", func(*ledger) {}, counts{}},
		{"all arrive", func(l *ledger) { l.accept(1); l.arrive(1); l.accept(2); l.arrive(2) }, counts{Accepted: 2, Committed: 2}},
		{"on the way", func(l *ledger) { l.accept(1); l.accept(2); l.arrive(1) }, counts{Accepted: 2, Committed: 1, Waiting: 1}},
		{"arrived before its PUBACK", func(l *ledger) { l.arrive(1); l.accept(1) }, counts{Accepted: 1, Committed: 1}},
		{"a later one arrived", func(l *ledger) { l.accept(1); l.accept(2); l.arrive(2) }, counts{Accepted: 2, Committed: 1, Lost: 1}},
		{"a later one arrived, then it was accepted", func(l *ledger) { l.accept(2); l.arrive(2); l.accept(1) }, counts{Accepted: 2, Committed: 1, Lost: 1}},
		{"it was only late", func(l *ledger) { l.accept(1); l.accept(2); l.arrive(2); l.arrive(1) }, counts{Accepted: 2, Committed: 2}},
		{"not accepted is not lost", func(l *ledger) { l.accept(2); l.arrive(2) }, counts{Accepted: 1, Committed: 1}},
		{"two records", func(l *ledger) { l.accept(1); l.arrive(1); l.arrive(1) }, counts{Accepted: 1, Committed: 1, Doubled: 1}},
		{"two PUBACKs", func(l *ledger) { l.accept(1); l.accept(1) }, counts{Accepted: 1, Waiting: 1}},
		{"a repeat", func(l *ledger) { l.hear(1, "a"); l.hear(1, "a") }, counts{Published: 1, Repeats: 1}},
		{"another message of the same number", func(l *ledger) { l.hear(1, "a"); l.hear(1, "b") }, counts{Published: 1, Doubled: 1}},
		{"drained", func(l *ledger) { l.accept(1); l.accept(2); l.arrive(1); l.drain() }, counts{Accepted: 2, Committed: 1, Lost: 1}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := newLedger()
			tt.do(l)
			require.Equal(t, tt.want, l.read())
		})
	}
}

// TestLedgerKeepsItsBooks compares the ledger, whatever happens in whatever order, with one that keeps everything.
func TestLedgerKeepsItsBooks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := newLedger()
		accepted, arrived := map[uint64]bool{}, map[uint64]int{}
		heard := map[uint64]string{}
		var repeats, doubled int64
		number := rapid.Uint64Range(1, 200)
		t.Repeat(map[string]func(*rapid.T){
			"accept": func(t *rapid.T) { n := number.Draw(t, "n"); l.accept(n); accepted[n] = true },
			"arrive": func(t *rapid.T) { n := number.Draw(t, "n"); l.arrive(n); arrived[n]++ },
			"hear": func(t *rapid.T) {
				n, id := number.Draw(t, "n"), rapid.SampledFrom([]string{"a", "b"}).Draw(t, "id")
				l.hear(n, id)
				switch was, ok := heard[n]; {
				case !ok:
					heard[n] = id
				case was == id:
					repeats++
				default:
					doubled++
				}
			},
			"": func(t *rapid.T) {
				want := counts{Accepted: int64(len(accepted)), Committed: int64(len(arrived)), Published: int64(len(heard)), Repeats: repeats, Doubled: doubled}
				var top uint64
				for n, times := range arrived {
					top = max(top, n)
					want.Doubled += int64(times - 1)
				}
				for n := range accepted {
					switch {
					case arrived[n] > 0:
					case n < top:
						want.Lost++
					default:
						want.Waiting++
					}
				}
				require.Equal(t, want, l.read())
			},
		})
	})
}

// TestLedgerIsBounded: the ids of old messages are forgotten, and a repeat of one is still no double.
func TestLedgerIsBounded(t *testing.T) {
	l := newLedger()
	for n := uint64(1); n <= 3*keepIDs; n++ {
		l.hear(n, fmt.Sprint(n))
	}
	require.LessOrEqual(t, len(l.ids), keepIDs)
	l.hear(1, "1")
	require.Equal(t, counts{Published: 3 * keepIDs, Repeats: 1}, l.read())
	l.accept(maxNumber + 5) // out of bounds: not counted, and no memory for it
	require.Less(t, len(l.accepted.words), 10)
}
