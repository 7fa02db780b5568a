// Package retry is how the gateway waits before it tries again: exponential back-off with full jitter.
//
// Full jitter means that a wait is anything between nothing and the present ceiling, and the ceiling doubles from try to try. After an
// outage a thousand gateways then come back spread over the whole span, not in waves. Every reconnect loop uses it:
//
//	b := retry.Backoff{First: time.Second, Max: time.Minute}
//	for {
//		if err := connect(ctx); err == nil {
//			b.Reset()
//			…
//		}
//		if b.Wait(ctx) != nil {
//			return
//		}
//	}
package retry

import (
	"context"
	"math/rand/v2"
	"time"
)

// Backoff is the state of one loop. It belongs to one goroutine. The zero value waits as First 1 s and Max 1 min do.
type Backoff struct {
	First time.Duration // ceiling of the first wait; 1 s
	Max   time.Duration // ceiling of every wait; 1 min, at least First
	Rand  *rand.Rand    // source of the jitter; nil: the process's. The same seed gives the same waits

	ceiling time.Duration
}

// Next returns how long to wait now and doubles the ceiling. It is at least a twentieth of the ceiling, so that
// a loop never spins.
func (b *Backoff) Next() time.Duration {
	first, most := b.First, b.Max
	if first <= 0 {
		first = time.Second
	}
	if most <= 0 {
		most = time.Minute
	}
	most = max(most, first)
	if b.ceiling == 0 {
		b.ceiling = first
	}
	c := b.ceiling
	b.ceiling = most
	if c <= most/2 {
		b.ceiling = 2 * c
	}
	return max(time.Duration(b.float()*float64(c)), c/20)
}

func (b *Backoff) float() float64 {
	if b.Rand != nil {
		return b.Rand.Float64()
	}
	return rand.Float64()
}

// Reset makes the next wait a first one: something worked.
func (b *Backoff) Reset() { b.ceiling = 0 }

// Wait waits for Next. It returns nil after it, or the cause of ctx's end as soon as ctx ends.
func (b *Backoff) Wait(ctx context.Context) error { return b.WaitOr(ctx, nil) }

// WaitOr is Wait that also ends, with nil, when something can be received from wake: somebody asks to try at once.
func (b *Backoff) WaitOr(ctx context.Context, wake <-chan struct{}) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	t := time.NewTimer(b.Next())
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-wake:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
