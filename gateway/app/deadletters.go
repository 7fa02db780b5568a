package app

import (
	"context"
	"errors"
	"strings"

	"github.com/perigee-iot/perigee/gateway/api"
	"github.com/perigee-iot/perigee/gateway/engine"
)

// DeadLetters lists dead letters.
func (a *App) DeadLetters(_ context.Context, q api.DeadQuery) ([]api.DeadLetter, error) {
	list, err := a.engine.DeadLetters(q.Function, q.Revision, q.Limit)
	out := make([]api.DeadLetter, 0, len(list))
	for _, d := range list {
		out = append(out, deadLetter(d, false))
	}
	return out, err
}

func deadLetter(d *engine.DeadLetter, data bool) api.DeadLetter {
	out := api.DeadLetter{ID: d.ID, Function: d.Function, Revision: short(d.Revision), Key: d.Key, Attempts: d.Attempts, Since: d.Since,
		Reason: d.Reason, Fault: d.Fault, EventID: d.Event.ID, Type: d.Event.Type, Subject: d.Event.Subject, Time: d.Event.Time, Size: d.Size}
	if data {
		out.Data = d.Event.Data
	}
	return out
}

func deadError(err error) error {
	if errors.Is(err, engine.ErrNoDeadLetter) {
		return api.Errorf("not-found", "%v", err).WithHint("the ones there are: perigee dead list")
	}
	return err
}

// DeadLetter returns one with its payload.
func (a *App) DeadLetter(_ context.Context, id string) (*api.DeadLetter, error) {
	d, err := a.engine.DeadLetter(id)
	if err != nil {
		return nil, deadError(err)
	}
	out := deadLetter(d, true)
	return &out, nil
}

// Replay runs a dead letter again.
func (a *App) Replay(ctx context.Context, id string, data []byte) error {
	if err := a.engine.Replay(id, data); err != nil {
		return deadError(err)
	}
	return a.st.Flush(ctx)
}

// TryReplay says what a replay would do.
func (a *App) TryReplay(ctx context.Context, id string, data []byte) (*api.Invoked, error) {
	got, err := a.engine.DryReplay(ctx, id, data)
	if errors.Is(err, engine.ErrNoDeadLetter) {
		return nil, deadError(err)
	}
	if err != nil {
		return nil, api.Errorf("unavailable", "%v", err)
	}
	fn, _, _ := strings.Cut(id, ":")
	return invoked(fn, got, true), nil
}

// Drop forgets a dead letter.
func (a *App) Drop(ctx context.Context, id string) error {
	if err := a.engine.Drop(id); err != nil {
		return deadError(err)
	}
	return a.st.Flush(ctx)
}
