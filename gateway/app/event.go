package app

import (
	"context"
	"fmt"

	"github.com/perigee-iot/perigee/gateway/api"
	"github.com/perigee-iot/perigee/gateway/engine"
	"github.com/perigee-iot/perigee/sync/outbox"
)

// Event returns one event's life, from its source to the acknowledgement of the cloud: as long as it is remembered, and after that if it
// became a dead letter. id may be that of the letter.
func (a *App) Event(_ context.Context, id string) (*api.Life, error) {
	l, ok := a.engine.LifeOf(id)
	if !ok {
		return nil, api.Errorf("not-found", "event %s is not remembered (any more)", id).WithHint("the newest are: perigee events")
	}
	out := life(l)
	for i := range out.Outcomes {
		if err := a.followRecords(out.Outcomes[i].Records); err != nil {
			return nil, err
		}
	}
	return &out, nil
}

// followRecords says how far records have come.
func (a *App) followRecords(list []api.LifeRecord) error {
	if len(list) == 0 {
		return nil
	}
	streams, err := a.box.Status()
	if err != nil {
		return fmt.Errorf("look at the streams: %w", err)
	}
	for i := range list {
		for k := range streams {
			if s := &streams[k]; s.Name == list[i].Stream {
				list[i].What, list[i].Why = whereIs(list[i].Sequence, s)
			}
		}
	}
	return nil
}

// whereIs says how far a record of a stream has come. The outbox keeps nothing of a record that has left, so that what it says of one is certain
// only if the stream has lost none.
func whereIs(seq uint64, s *outbox.Status) (what, why string) {
	lost := s.Dropped + s.Quarantined
	switch {
	case seq >= s.First && seq > s.Acked:
		if s.Uplink == "" {
			return "waiting", "no uplink takes the stream"
		}
		return "waiting", "for uplink " + s.Uplink
	case seq > s.Acked:
		return "dropped", "by retention, or refused by the far side"
	case lost > 0:
		return "acknowledged", fmt.Sprintf("unless it is one of %d that retention dropped or the far side refused", lost)
	}
	return "acknowledged", ""
}

func life(l engine.Life) api.Life {
	out := api.Life{ID: l.ID, Seq: l.Seq, Source: l.Source, Type: l.Type, Subject: l.Subject, Time: l.Time, TimeOK: l.TimeOK,
		Size: l.Size, Preview: l.Preview, Accepted: l.Accepted, Refused: l.Refused, Replayed: l.Replayed, Took: l.Took}
	for _, o := range l.Outcomes {
		x := api.LifeOutcome{Function: o.Function, Revision: short(o.Revision), What: o.What, Why: o.Why,
			Attempt: o.Attempt, Wall: o.Wall, CPU: o.CPU, Effects: o.Effects, Result: o.Result, Fault: o.Fault,
			At: o.At, Durable: o.Durable, Letter: o.Letter}
		for _, t := range o.Attempts {
			x.Attempts = append(x.Attempts, api.LifeAttempt{Number: t.Number, Revision: short(t.Revision), At: t.At, Wall: t.Wall, What: t.What, Fault: t.Fault})
		}
		for _, t := range o.Actions {
			x.Actions = append(x.Actions, api.LifeAction{ID: t.ID, Action: t.Action, What: t.What, Why: t.Why, At: t.At})
		}
		for _, t := range o.Records {
			x.Records = append(x.Records, api.LifeRecord{Stream: t.Stream, Sequence: t.Seq})
		}
		out.Outcomes = append(out.Outcomes, x)
	}
	return out
}
