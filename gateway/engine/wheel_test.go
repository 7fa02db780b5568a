package engine

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestTheWheelKeepsTheOrderOfWhatIsDueAtTheSameTime(t *testing.T) {
	w := newWheel(func() time.Duration { return time.Second })
	var got []int
	for i := range 1000 {
		w.add(time.Duration(i%3), func() { got = append(got, i) })
	}
	for fn, _ := w.due(); fn != nil; fn, _ = w.due() {
		fn()
	}
	var want []int
	for due := range 3 {
		for i := due; i < 1000; i += 3 {
			want = append(want, i)
		}
	}
	require.Equal(t, want, got)
}
