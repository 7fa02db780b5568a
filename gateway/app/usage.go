package app

import (
	"context"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/perigee-iot/perigee/functions/state"
	"github.com/perigee-iot/perigee/functions/usage"
	"github.com/perigee-iot/perigee/gateway/api"
	"github.com/perigee-iot/perigee/gateway/engine"
	"github.com/perigee-iot/perigee/internal/store"
)

// Usage says what functions cost, those that were removed included.
func (a *App) Usage(_ context.Context, q api.UsageQuery) ([]api.Usage, error) {
	rows, err := a.engine.Usage(usage.Query{Function: q.Function, By: usage.By(q.By), Since: q.Since, Revisions: q.Revisions})
	if err != nil {
		return nil, err
	}
	if len(rows) == 0 && q.Function != "" {
		if _, err := a.find(q.Function); err != nil {
			return nil, err
		}
	}
	out := make([]api.Usage, 0, len(rows))
	for i := range rows {
		out = append(out, usageOf(&rows[i]))
	}
	return out, nil
}

func usageOf(r *usage.Row) api.Usage {
	us := func(n int64) time.Duration { return time.Duration(n) * time.Microsecond }
	u := api.Usage{Function: r.Function, Revision: short(r.Revision), Start: r.Start, TimeOK: r.StartOK, Length: r.Length,
		Runs: r.Runs(), Outcomes: map[string]int64{}, CPU: r.CPU, Wall: r.Wall, In: r.In, Out: r.Out, Written: r.Written, State: r.State,
		WallP50: us(r.Walls.Quantile(0.5)), WallP99: us(r.Walls.Quantile(0.99)), WallMax: us(r.Walls.Max()),
		CPUP99: us(r.CPUs.Quantile(0.99)), CPUMax: us(r.CPUs.Max()),
		MemoryP99: r.Memories.Quantile(0.99) << 10, MemoryMax: r.Memories.Max() << 10, OutP99: r.Outs.Quantile(0.99), OutMax: r.Outs.Max(),
		Effects: r.Effects, Reads: r.Reads, Log: r.Log, PerSecond: r.PerSecond}
	for i, name := range usage.Endings() {
		if n := r.Outcomes[i]; n > 0 {
			u.Outcomes[name] = n
		}
	}
	return u
}

// Advise says which limits suit what was seen of the present revision of a function, or of all.
func (a *App) Advise(_ context.Context, function string) ([]api.Advice, error) {
	list := a.engine.Functions()
	if function != "" {
		f, err := a.find(function)
		if err != nil {
			return nil, err
		}
		list = []engine.FunctionInfo{f}
	}
	rows, err := a.engine.Usage(usage.Query{Function: function, Revisions: true})
	if err != nil {
		return nil, err
	}
	out := []api.Advice{}
	for _, f := range list {
		var r usage.Row
		if i := slices.IndexFunc(rows, func(r usage.Row) bool { return r.Function == f.Name && r.Revision == f.Dep.Bundle.Digest }); i >= 0 {
			r = rows[i]
		}
		one := api.Advice{Function: f.Name, Revision: short(f.Dep.Bundle.Digest), Since: r.Start, Runs: r.Runs()}
		for _, x := range usage.Advise(f.Dep.Bundle.Spec.Limits, &r.Record) {
			one.Limits = append(one.Limits, api.LimitAdvice{Limit: x.Limit, Now: x.Now, P99: x.P99, Max: x.Max, Suggest: x.Suggest, Fit: string(x.Fit), Why: x.Why, Runs: x.N})
		}
		out = append(out, one)
	}
	slices.SortFunc(out, func(x, y api.Advice) int { return strings.Compare(x.Function, y.Function) })
	return out, nil
}

// Top says what happens now.
func (a *App) Top(ctx context.Context) (*api.Top, error) {
	s, err := a.Status(ctx)
	if err != nil {
		return nil, err
	}
	t := &api.Top{Gateway: s.Gateway, Uptime: s.Uptime, CPUs: runtime.NumCPU(), Workers: s.Workers, Events: s.Events, Functions: []api.TopFunction{}}
	for _, f := range a.engine.Functions() {
		one := api.TopFunction{Name: f.Name, State: string(f.State), Runs: f.Runs, Faults: f.Runs - f.OK, CPU: f.AllCPU, Wall: f.Busy, P99: f.P99,
			Memory: f.Memory, In: f.In, Out: f.Out, Written: f.Wrote, Waiting: f.Waiting}
		_ = a.st.View(func(r store.Reader) error {
			n, err := state.Size(r, f.Name)
			one.Stored = n.Bytes
			return err
		})
		t.Functions = append(t.Functions, one)
	}
	slices.SortFunc(t.Functions, func(x, y api.TopFunction) int { return strings.Compare(x.Name, y.Name) })
	return t, nil
}
