package api

import (
	"context"
	"net/http"
	"time"
)

// UsageQuery selects what functions cost.
type UsageQuery struct {
	Function  string        // empty: all
	By        string        // "hour", "day", or empty: not split
	Since     time.Duration // how far back, in whole hours or days; 0: all there is
	Revisions bool          // each on its own
}

// Usage is what a function cost, in all or within an hour or day.
type Usage struct {
	Function string           `json:"function"`           // "": functions for which there was no room of their own
	Revision string           `json:"revision,omitempty"` // only if revisions were asked for; "": those for which there was no room
	Start    time.Time        `json:"start"`              // of the hour or day, else of the first in which it ran
	TimeOK   bool             `json:"time_ok"`            // the clock was synchronised; otherwise start is an estimate
	Length   time.Duration    `json:"length_ns,omitempty"`
	Runs     int64            `json:"runs"`
	Outcomes map[string]int64 `json:"outcomes"`  // ok, retry, and the kinds of faults
	CPU      time.Duration    `json:"cpu_ns"`    // sums
	Wall     time.Duration    `json:"wall_ns"`   //
	In       int64            `json:"bytes_in"`  // payloads
	Out      int64            `json:"bytes_out"` // effects and results
	Written  int64            `json:"bytes_written"`
	State    int64            `json:"state_bytes"` // the most there was

	WallP50   time.Duration `json:"wall_p50_ns"` // of an invocation
	WallP99   time.Duration `json:"wall_p99_ns"`
	WallMax   time.Duration `json:"wall_max_ns"`
	CPUP99    time.Duration `json:"cpu_p99_ns"`
	CPUMax    time.Duration `json:"cpu_max_ns"`
	MemoryP99 int64         `json:"memory_p99_bytes"` // of those that were long enough to be measured
	MemoryMax int64         `json:"memory_max_bytes"`
	OutP99    int64         `json:"out_p99_bytes"`
	OutMax    int64         `json:"out_max_bytes"`
	Effects   int64         `json:"effects_max"`
	Reads     int64         `json:"reads_max"`
	Log       int64         `json:"log_max_bytes"`
	PerSecond int64         `json:"per_second_max"` // most invocations within a second
}

// Faults is how many invocations failed.
func (u *Usage) Faults() int64 { return u.Runs - u.Outcomes["ok"] - u.Outcomes["retry"] }

// Advice is what the usage of a function's present revision says about its limits.
type Advice struct {
	Function string        `json:"function"`
	Revision string        `json:"revision"`
	Since    time.Time     `json:"since,omitzero"` // its first hour of which anything is known
	Runs     int64         `json:"runs"`
	Limits   []LimitAdvice `json:"limits"`
}

// LimitAdvice is about one limit. Values are written as in function.yaml.
type LimitAdvice struct {
	Limit   string `json:"limit"` // the key below limits
	Now     string `json:"now"`
	P99     string `json:"p99,omitempty"`
	Max     string `json:"max,omitempty"`
	Suggest string `json:"suggest,omitempty"` // empty: too little is known
	Fit     string `json:"fit"`               // good, wide, tight, unknown
	Why     string `json:"why,omitempty"`
	Runs    int64  `json:"runs"` // on how many invocations it rests
}

// Top is what happens now. All but the highest values count since the gateway's start; who asks twice knows the rates.
type Top struct {
	Gateway   string        `json:"gateway"`
	Uptime    time.Duration `json:"uptime_ns"`
	CPUs      int           `json:"cpus"`
	Workers   WorkerStatus  `json:"workers"`
	Events    EventCounts   `json:"events"`
	Functions []TopFunction `json:"functions"`
}

// TopFunction is one function since the gateway's start.
type TopFunction struct {
	Name    string        `json:"name"`
	State   string        `json:"state"`
	Runs    int64         `json:"runs"`
	Faults  int64         `json:"faults"`
	CPU     time.Duration `json:"cpu_ns"`
	Wall    time.Duration `json:"wall_ns"`
	P99     time.Duration `json:"p99_ns"`           // wall time of an invocation
	Memory  int64         `json:"memory_max_bytes"` // of the last minute or two
	In      int64         `json:"bytes_in"`
	Out     int64         `json:"bytes_out"`
	Written int64         `json:"bytes_written"`
	Stored  int64         `json:"state_bytes"` // of state
	Waiting int64         `json:"waiting"`
}

// Usage asks what functions cost.
func (c *Client) Usage(ctx context.Context, q UsageQuery) ([]Usage, error) {
	since := ""
	if q.Since > 0 {
		since = q.Since.String()
	}
	return call[[]Usage](ctx, c, http.MethodGet, path("usage"), params("function", q.Function, "by", q.By, "since", since, "revisions", q.Revisions), nil)
}

// Advise asks which limits suit what was seen of a function, or of all.
func (c *Client) Advise(ctx context.Context, function string) ([]Advice, error) {
	return call[[]Advice](ctx, c, http.MethodGet, path("advice"), params("function", function), nil)
}

// Top asks what happens now.
func (c *Client) Top(ctx context.Context) (*Top, error) {
	return call[*Top](ctx, c, http.MethodGet, path("top"), nil, nil)
}

func (s *Server) usage(w http.ResponseWriter, r *http.Request) error {
	return reply(func(ctx context.Context, r *http.Request) (any, error) {
		q := newQuery(r)
		sel := UsageQuery{Function: q.Get("function"), By: q.Get("by"), Since: q.span("since"), Revisions: q.flag("revisions")}
		if q.err == nil && sel.By != "" && sel.By != "hour" && sel.By != "day" {
			q.err = Errorf(CodeBadRequest, "by is %q, it should be hour or day", sel.By)
		}
		if q.err != nil {
			return nil, q.err
		}
		return s.gw.Usage(ctx, sel)
	})(w, r)
}

func (s *Server) advice(w http.ResponseWriter, r *http.Request) error {
	return reply(func(ctx context.Context, r *http.Request) (any, error) {
		q := newQuery(r)
		if q.err != nil {
			return nil, q.err
		}
		return s.gw.Advise(ctx, q.Get("function"))
	})(w, r)
}

func (q *query) span(name string) time.Duration {
	if !q.Has(name) {
		return 0
	}
	d, err := time.ParseDuration(q.Get(name))
	if (err != nil || d < 0) && q.err == nil {
		q.err = Errorf(CodeBadRequest, "%s is %q, it should be a time, such as 24h", name, q.Get(name))
	}
	return d
}
