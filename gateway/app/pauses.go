package app

import (
	"context"
	"time"

	"github.com/perigee-iot/perigee/functions/catalog"
	"github.com/perigee-iot/perigee/internal/store"
)

// pause says that the engine has paused a revision of a function for its faults.
type pause struct{ function, revision, reason string }

// notePause takes note of a pause, to make it durable. The function does not run meanwhile; if the power goes before, or so many
// are paused at once that one finds no place here, it is paused again after the next start once it has failed as often.
func (a *App) notePause(function, revision, reason string) {
	select {
	case a.pauses <- pause{function, revision, reason}:
	default:
	}
}

// keepPauses makes pauses durable until ctx ends.
func (a *App) keepPauses(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case p := <-a.pauses:
			if err := a.keepPause(p); err != nil {
				a.log.Error("the pause of a function cannot be stored and ends with the next start", "function", p.function, "error", err)
			}
		}
	}
}

// keepPause stores one, unless the function has another revision, was resumed or is paused for another reason by now.
func (a *App) keepPause(p pause) error {
	a.deploying.Lock()
	defer a.deploying.Unlock()
	f, err := a.find(p.function)
	if err != nil || f.Reason != p.reason {
		return nil //nolint:nilerr // it was removed
	}
	return a.st.Update(func(tx store.Tx) error {
		e, err := catalog.Get(tx, p.function)
		if err != nil || e.Revision != p.revision {
			return err
		}
		tx.Urgent()
		_, err = catalog.Pause(tx, p.function, p.reason, true, time.Now().UTC().Truncate(time.Second))
		return err
	})
}
