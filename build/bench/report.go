package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// result is what was measured of one subject, over all rounds.
type result struct {
	Name       string        `json:"name"`
	Events     int           `json:"events"`
	Lost       int           `json:"lost"`       // without an answer
	Duplicates int           `json:"duplicates"` // answers beyond the first
	P50        time.Duration `json:"p50_ns"`
	P99        time.Duration `json:"p99_ns"`
	Max        time.Duration `json:"max_ns"`
	CPU        time.Duration `json:"cpu_per_event_ns"`
	IdleCPU    float64       `json:"idle_cpu_percent"`
	IdleRSS    int64         `json:"idle_rss_bytes"` // the highest of the rounds, like all memory here
	IdlePSS    int64         `json:"idle_pss_bytes"`
	LoadRSS    int64         `json:"load_rss_bytes"`
	LoadPSS    int64         `json:"load_pss_bytes"`
	Processes  int           `json:"processes"`
	Written    int64         `json:"written_bytes"` // to storage, under load
	PerRound   []round       `json:"rounds"`

	took      []time.Duration
	cpu       time.Duration
	idleCPU   time.Duration
	idleTimes time.Duration
}

// round is one round, to see how much they differ.
type round struct {
	P50 time.Duration `json:"p50_ns"`
	P99 time.Duration `json:"p99_ns"`
	CPU time.Duration `json:"cpu_per_event_ns"`
}

func (r *result) idle(u usage, cpu, in time.Duration) {
	r.IdleRSS, r.IdlePSS = max(r.IdleRSS, u.memory.RSS), max(r.IdlePSS, u.memory.PSS)
	r.idleCPU += cpu
	r.idleTimes += in
}

// load adds a round: the events from first on.
func (r *result) load(l *load, first int, before, after usage, peak memory) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var took []time.Duration
	events := len(l.sent) - first
	for _, s := range l.sent[first:] {
		if s.answers == 0 {
			r.Lost++
			continue
		}
		r.Duplicates += s.answers - 1
		took = append(took, s.took)
	}
	cpu := after.cpu() - before.cpu()
	slices.Sort(took)
	r.PerRound = append(r.PerRound, round{quantile(took, 0.50), quantile(took, 0.99), cpu / time.Duration(max(events, 1))})
	r.Events += events
	r.took = append(r.took, took...)
	r.cpu += cpu
	r.LoadRSS, r.LoadPSS = max(r.LoadRSS, peak.RSS), max(r.LoadPSS, peak.PSS)
	r.Processes = max(r.Processes, after.processes)
	r.Written += after.bytes() - before.bytes()
}

// quantile of sorted values; 0 of none.
func quantile(d []time.Duration, q float64) time.Duration {
	if len(d) == 0 {
		return 0
	}
	return d[min(int(q*float64(len(d))), len(d)-1)]
}

// report is the whole.
type report struct {
	Options   options            `json:"options"`
	Machine   string             `json:"machine"`
	Binary    int64              `json:"binary_bytes"`
	Reference string             `json:"reference"`
	CPURatio  map[string]float64 `json:"cpu_ratio"` // to the reference
	P50Ratio  map[string]float64 `json:"p50_ratio"`
	P99Ratio  map[string]float64 `json:"p99_ratio"`
	Results   []*result          `json:"results"`
}

func newReport(o options, results []*result) *report {
	rep := &report{
		Options: o, Results: results, Machine: fmt.Sprintf("%s/%s, %d processors", runtime.GOOS, runtime.GOARCH, runtime.NumCPU()),
		CPURatio: map[string]float64{}, P50Ratio: map[string]float64{}, P99Ratio: map[string]float64{},
	}
	if info, err := os.Stat(o.Perigee); err == nil {
		rep.Binary = info.Size()
	}
	var ref *result
	for _, r := range results {
		slices.Sort(r.took)
		r.P50, r.P99, r.Max = quantile(r.took, 0.50), quantile(r.took, 0.99), quantile(r.took, 1)
		r.CPU = r.cpu / time.Duration(max(r.Events, 1))
		r.IdleCPU = 100 * float64(r.idleCPU) / float64(r.idleTimes)
		if strings.HasPrefix(r.Name, "bare") && (ref == nil || r.CPU < ref.CPU) {
			ref = r
		}
	}
	if ref == nil {
		return rep
	}
	rep.Reference = ref.Name
	for _, r := range results {
		rep.CPURatio[r.Name] = ratio(r.CPU, ref.CPU)
		rep.P50Ratio[r.Name] = ratio(r.P50, ref.P50)
		rep.P99Ratio[r.Name] = ratio(r.P99, ref.P99)
	}
	return rep
}

func ratio(a, b time.Duration) float64 {
	if b <= 0 {
		return 0
	}
	return float64(a) / float64(b)
}

func (rep *report) print(out io.Writer) {
	o := rep.Options
	fmt.Fprintf(out, "%d events a second for %d s in %d rounds, %d keys, state %v, durability %s, on %s\n\n",
		o.Rate, o.Seconds, o.Rounds, o.Keys, o.State, o.Store, rep.Machine)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\tevents\tlost\tdouble\tp50\tp99\tCPU/event\tratio\tidle CPU\tidle RSS\tidle PSS\tload RSS\tload PSS\tprocesses\twritten/event\t")
	for _, r := range rep.Results {
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%s\t%s\t%s\t%.2f\t%.1f %%\t%s\t%s\t%s\t%s\t%d\t%d B\t\n", r.Name, r.Events, r.Lost, r.Duplicates,
			micros(r.P50), micros(r.P99), micros(r.CPU), rep.CPURatio[r.Name], r.IdleCPU,
			mib(r.IdleRSS), mib(r.IdlePSS), mib(r.LoadRSS), mib(r.LoadPSS), r.Processes, r.Written/int64(max(r.Events, 1)))
	}
	_ = w.Flush()
	fmt.Fprintln(out)
	for _, r := range rep.Results {
		fmt.Fprintf(out, "%s, by round:", r.Name)
		for _, x := range r.PerRound {
			fmt.Fprintf(out, "  p50 %s p99 %s CPU %s", micros(x.P50), micros(x.P99), micros(x.CPU))
		}
		fmt.Fprintln(out)
	}
	for _, r := range rep.Results {
		if rep.Reference != "" && !strings.HasPrefix(r.Name, "bare") {
			fmt.Fprintf(out, "%s: %.2f times the CPU of %s, %.2f times its p50, %.2f times its p99\n",
				r.Name, rep.CPURatio[r.Name], rep.Reference, rep.P50Ratio[r.Name], rep.P99Ratio[r.Name])
		}
	}
	if rep.Binary > 0 {
		fmt.Fprintf(out, "binary: %s\n", mib(rep.Binary))
	}
}

// complete is an error unless every event had one answer.
func (rep *report) complete() error {
	var errs []error
	for _, r := range rep.Results {
		if r.Events == 0 || r.Lost > 0 || r.Duplicates > 0 {
			errs = append(errs, fmt.Errorf("%s: of %d events %d had no answer, and %d answers came again", r.Name, r.Events, r.Lost, r.Duplicates))
		}
	}
	return errors.Join(errs...)
}

func micros(d time.Duration) string { return fmt.Sprintf("%d µs", d.Microseconds()) }

func mib(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }
