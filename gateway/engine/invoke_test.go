package engine

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/internal/event"
	"github.com/perigee-iot/perigee/internal/store"
)

func TestAnEventMadeByHandLooksLikeTheRealOne(t *testing.T) {
	r := newRig(t)
	var got *functions.Invocation
	r.fn(lister, func(inv *functions.Invocation, _ func(functions.Read) functions.ReadAnswer) *functions.Outcome {
		got = inv
		return ok()
	})
	r.start()
	_, err := r.e.Invoke(context.Background(), "lister", Request{Topic: "in/a", Data: []byte("1")})
	require.NoError(t, err)
	byHand := got
	settled(t, r.message("in/a", "1", "", false))
	require.Equal(t, "in/a", byHand.Event.Subject)
	require.Equal(t, got.Event.Subject, byHand.Event.Subject)
	require.Equal(t, got.Event.Type, byHand.Event.Type)
	require.Equal(t, got.Event.Topic, byHand.Event.Topic)
	require.Equal(t, got.Params, byHand.Params)
	require.Equal(t, got.Key, byHand.Key)

	_, err = r.e.Invoke(context.Background(), "lister", Request{Data: []byte("1")})
	require.NoError(t, err)
	require.Equal(t, event.Invoke, got.Event.Type)
	require.Equal(t, "lister", got.Event.Subject)
}

func TestAnInvocationDoesNotWaitForAFullDisk(t *testing.T) {
	r := newFullRig(t)
	r.fn(lister, enlist)
	r.start()
	ctx, cancel := context.WithTimeout(context.Background(), 120*time.Second)
	defer cancel()
	invoke := func(topic string) error {
		_, err := r.e.Invoke(ctx, "lister", Request{Topic: topic, Data: []byte("1")})
		return err
	}
	err := invoke("in/a")
	require.ErrorIs(t, err, store.ErrFull)
	require.ErrorContains(t, err, "has no outcome: the disk is full: ")
	require.ErrorContains(t, err, "store.min_free")

	// Nor behind an event whose source waits until there is room.
	acked := r.message("in/b", "1", "", false)
	r.wait("the event to be refused", func() bool {
		past, _, stop := r.e.Lives(1, false)
		defer stop()
		return past[0].Subject == "in/b" && len(past[0].Outcomes) == 1 && past[0].Outcomes[0].What == "waiting" &&
			strings.Contains(past[0].Outcomes[0].Why, "the disk is full")
	})
	err = invoke("in/b")
	require.ErrorIs(t, err, store.ErrFull)
	require.NoError(t, ctx.Err())
	require.Empty(t, acked)
	require.Zero(t, r.e.Counts().Dead)
}

func TestAnInvocationHearsThatItsFunctionWasRemoved(t *testing.T) {
	r := newRig(t)
	began, goOn := make(chan struct{}), make(chan struct{})
	r.fn("name: lister\ntriggers: [{mqtt: in/+}]\n", func(inv *functions.Invocation, ask func(functions.Read) functions.ReadAnswer) *functions.Outcome {
		close(began)
		<-goOn
		return enlist(inv, ask)
	})
	r.start()
	r.message("in/a", "1", "", false)
	<-began
	got := make(chan error, 1)
	go func() {
		_, err := r.e.Invoke(context.Background(), "lister", Request{Data: []byte("2")})
		got <- err
	}()
	r.wait("it to stand behind", func() bool { return r.e.Counts().Waiting == 1 })
	removed := make(chan error, 1)
	go func() { removed <- r.e.Remove(context.Background(), "lister") }()
	r.wait("it to be removed", func() bool { return len(r.e.Functions()) == 0 })
	close(goOn)
	require.NoError(t, <-removed)
	require.ErrorContains(t, <-got, "removed")
}
