package demo

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/gateway/api"
	"github.com/perigee-iot/perigee/gateway/api/apitest"
)

// arena is a gateway for attacks: its worker stops each.
type arena struct {
	*apitest.Fake
	tries atomic.Int64 // to remove
}

func newArena() *arena { return &arena{Fake: apitest.New()} }

func (a *arena) Invoke(ctx context.Context, name string, r *api.InvokeRequest) (*api.Invoked, error) {
	if _, err := a.Fake.Invoke(ctx, name, r); err != nil {
		return nil, err
	}
	return &api.Invoked{Fault: &functions.Fault{Kind: functions.FaultTimeout}}, nil
}

func (a *arena) Remove(ctx context.Context, name string, purge bool) error {
	defer a.tries.Add(1)
	return a.Fake.Remove(ctx, name, purge)
}

// stands says whether the gateway has the hostile function.
func (a *arena) stands() bool {
	fns, _ := a.Functions(context.Background())
	return slices.ContainsFunc(fns, func(f api.Function) bool { return f.Name == hostileName })
}

func play(t *testing.T, a *arena, stays time.Duration) (h *hostile, b *board, end func()) {
	b = &board{}
	h = &hostile{client: a, ledger: newLedger(), tell: b.tell, stays: stays, ask: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	wait.Go(func() { h.Run(ctx) })
	return h, b, func() { cancel(); wait.Wait() }
}

func TestTheHostileFunctionLeaves(t *testing.T) {
	t.Run("when its show is over", func(t *testing.T) {
		a := newArena()
		h, b, end := play(t, a, 10*time.Millisecond)
		defer end()
		for range 2 {
			require.True(t, h.attack())
			require.Eventually(t, func() bool { return len(b.take()) > 0 }, patience, time.Millisecond)
			require.Eventually(t, func() bool { return !a.stands() }, patience, time.Millisecond)
		}
	})
	t.Run("at the end", func(t *testing.T) {
		a := newArena()
		h, b, end := play(t, a, time.Hour)
		require.True(t, h.attack())
		require.Eventually(t, func() bool { return len(b.take()) > 0 }, patience, time.Millisecond)
		require.True(t, a.stands(), "it is there to be looked at")
		a.Edit(func(d *apitest.Data) {
			*d.Dead = append(*d.Dead, api.DeadLetter{ID: "a", Function: hostileName}, api.DeadLetter{ID: "b", Function: "overheat"})
		})
		end()
		require.False(t, a.stands())
		left, err := a.DeadLetters(t.Context(), api.DeadQuery{})
		require.NoError(t, err)
		require.Len(t, left, 1)
	})
	t.Run("later, if the gateway does not answer", func(t *testing.T) {
		a := newArena()
		_, err := a.Apply(t.Context(), &api.ApplyRequest{Name: hostileName, Files: map[string][]byte{"function.yaml": []byte(hostileSpec), "main.lua": nil}})
		require.NoError(t, err)
		a.Fail("Remove", errors.New("no"))
		_, _, end := play(t, a, 0)
		require.Eventually(t, func() bool { return a.tries.Load() > 0 }, patience, time.Millisecond)
		end()
		require.True(t, a.stands())
		a.Fail("Remove", nil)
		_, _, end = play(t, a, 0) // the next demo
		defer end()
		require.Eventually(t, func() bool { return !a.stands() }, patience, time.Millisecond)
	})
	t.Run("not one that somebody keeps in the directory", func(t *testing.T) {
		a := newArena()
		a.Edit(func(d *apitest.Data) { d.Functions[hostileName] = &api.Function{Name: hostileName, Origin: "dir"} })
		_, _, end := play(t, a, time.Hour)
		end()
		require.True(t, a.stands())
	})
}
