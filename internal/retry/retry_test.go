package retry_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/perigee-iot/perigee/internal/retry"
)

func TestWaitsStayWithinTheirCeiling(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		first := time.Duration(rapid.Int64Range(1, int64(time.Hour)).Draw(t, "first"))
		most := time.Duration(rapid.Int64Range(1, int64(100*time.Hour)).Draw(t, "max"))
		b := retry.Backoff{First: first, Max: most, Rand: rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))}
		ceiling := first
		for range 80 {
			d := b.Next()
			if d > ceiling || d < ceiling/20 {
				t.Fatalf("waited %v with a ceiling of %v", d, ceiling)
			}
			ceiling = min(2*ceiling, max(most, first))
		}
		b.Reset()
		if d := b.Next(); d > first {
			t.Fatalf("waited %v after a reset, first is %v", d, first)
		}
	})
}

func TestTheSameSeedGivesTheSameWaits(t *testing.T) {
	waits := func(seed uint64) (d []time.Duration) {
		b := retry.Backoff{Rand: rand.New(rand.NewPCG(seed, 0))}
		for range 20 {
			d = append(d, b.Next())
		}
		return d
	}
	assert.Equal(t, waits(1), waits(1))
	assert.NotEqual(t, waits(1), waits(2))
}

func TestJitterFillsTheSpan(t *testing.T) {
	low, high := 0, 0
	for seed := range uint64(200) {
		b := retry.Backoff{First: time.Second, Rand: rand.New(rand.NewPCG(seed, 0))}
		if b.Next() < 500*time.Millisecond {
			low++
		} else {
			high++
		}
	}
	assert.Greater(t, low, 50)
	assert.Greater(t, high, 50)
}

func TestWaitTakesAsLongAsItSays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := retry.Backoff{First: time.Second, Max: time.Minute, Rand: rand.New(rand.NewPCG(7, 0))}
		same := retry.Backoff{First: time.Second, Max: time.Minute, Rand: rand.New(rand.NewPCG(7, 0))}
		for range 10 {
			start := time.Now()
			require.NoError(t, b.Wait(t.Context()))
			assert.Equal(t, same.Next(), time.Since(start))
		}
	})
}

func TestWaitEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		why := errors.New("the gateway stops")
		ctx, cancel := context.WithCancelCause(t.Context())
		b := retry.Backoff{First: time.Hour, Rand: rand.New(rand.NewPCG(7, 0))}
		start := time.Now()
		go func() {
			time.Sleep(time.Second)
			cancel(why)
		}()
		assert.ErrorIs(t, b.Wait(ctx), why)
		assert.Equal(t, time.Second, time.Since(start))
		assert.ErrorIs(t, b.Wait(ctx), why, "a context that has ended is noticed at once")
		assert.Equal(t, time.Second, time.Since(start))
	})
}

func TestWakeEndsAWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wake := make(chan struct{}, 1)
		wake <- struct{}{}
		b := retry.Backoff{First: time.Hour}
		start := time.Now()
		require.NoError(t, b.WaitOr(t.Context(), wake))
		assert.Zero(t, time.Since(start))
	})
}
