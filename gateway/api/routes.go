package api

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// route is one request: the Gateway's method that answers it, and where it is found.
type route struct {
	method  string // of Gateway
	pattern string // of http.ServeMux
	serve   func(w http.ResponseWriter, r *http.Request) error
}

// pauseBody, replayBody and valueBody are the bodies of requests that need no type of their own outside.
type (
	pauseBody struct {
		Reason string `json:"reason,omitempty"`
	}
	replayBody struct {
		Data []byte `json:"data"` // null: as it was
	}
	valueBody struct {
		Value any `json:"value"`
	}
	countBody struct {
		Count int `json:"count"`
	}
	done struct{}
)

// routes is the whole API. Reading changes nothing, so GET is safe to repeat; everything else acts.
func (s *Server) routes() []route {
	gw := s.gw
	return []route{
		{"Status", "GET /v1/status", ask(gw.Status)},
		{"Reload", "POST /v1/reload", ask(gw.Reload)},
		{"Config", "GET /v1/config", ask(gw.Config)},
		{"Backup", "GET /v1/backup", s.backup},

		{"Functions", "GET /v1/functions", ask(gw.Functions)},
		{"Function", "GET /v1/functions/{name}", named("name", gw.Function)},
		{"Apply", "POST /v1/functions", send(func(ctx context.Context, _ *http.Request, b *ApplyRequest) (any, error) {
			return gw.Apply(ctx, b)
		})},
		{"Remove", "DELETE /v1/functions/{name}", act(func(ctx context.Context, r *http.Request) error {
			q := newQuery(r)
			purge := q.flag("purge")
			if q.err != nil {
				return q.err
			}
			return gw.Remove(ctx, r.PathValue("name"), purge)
		})},
		{"Pause", "POST /v1/functions/{name}/pause", send(func(ctx context.Context, r *http.Request, b *pauseBody) (any, error) {
			return done{}, gw.Pause(ctx, r.PathValue("name"), b.Reason)
		})},
		{"Resume", "POST /v1/functions/{name}/resume", act(func(ctx context.Context, r *http.Request) error {
			return gw.Resume(ctx, r.PathValue("name"))
		})},
		{"Invoke", "POST /v1/functions/{name}/invoke", send(func(ctx context.Context, r *http.Request, b *InvokeRequest) (any, error) {
			return gw.Invoke(ctx, r.PathValue("name"), b)
		})},
		{"Logs", "GET /v1/logs", s.logs},

		{"Events", "GET /v1/events", s.events},
		{"Event", "GET /v1/events/{id}", named("id", gw.Event)},
		{"EventCase", "GET /v1/events/{id}/case", reply(func(ctx context.Context, r *http.Request) (any, error) {
			q := newQuery(r)
			if q.err != nil {
				return nil, q.err
			}
			return gw.EventCase(ctx, r.PathValue("id"), q.Get("function"))
		})},
		{"Record", "GET /v1/recording", s.record},

		{"DeadLetters", "GET /v1/dead", s.dead},
		{"DeadLetter", "GET /v1/dead/{id}", named("id", gw.DeadLetter)},
		{"Replay", "POST /v1/dead/{id}/replay", send(func(ctx context.Context, r *http.Request, b *replayBody) (any, error) {
			return done{}, gw.Replay(ctx, r.PathValue("id"), b.Data)
		})},
		{"TryReplay", "POST /v1/dead/{id}/try", send(func(ctx context.Context, r *http.Request, b *replayBody) (any, error) {
			return gw.TryReplay(ctx, r.PathValue("id"), b.Data)
		})},
		{"Drop", "DELETE /v1/dead/{id}", act(func(ctx context.Context, r *http.Request) error {
			return gw.Drop(ctx, r.PathValue("id"))
		})},

		{"State", "GET /v1/state/{function}", s.state},
		{"SetState", "PUT /v1/state/{function}", s.setState},
		{"DeleteState", "DELETE /v1/state/{function}", s.deleteState},

		{"Devices", "GET /v1/devices", ask(gw.Devices)},
		{"Device", "GET /v1/devices/{name}", named("name", gw.Device)},
		{"WriteDevice", "PUT /v1/devices/{name}", send(func(ctx context.Context, r *http.Request, b *valueBody) (any, error) {
			return done{}, gw.WriteDevice(ctx, r.PathValue("name"), b.Value)
		})},

		{"Usage", "GET /v1/usage", s.usage},
		{"Advise", "GET /v1/advice", s.advice},
		{"Top", "GET /v1/top", ask(gw.Top)},

		{"Uplinks", "GET /v1/uplinks", ask(gw.Uplinks)},
		{"Streams", "GET /v1/streams", ask(gw.Streams)},
	}
}

// ask serves a method without arguments.
func ask[T any](method func(context.Context) (T, error)) func(http.ResponseWriter, *http.Request) error {
	return reply(func(ctx context.Context, _ *http.Request) (any, error) { return method(ctx) })
}

// named serves a method whose one argument is in the path.
func named[T any](param string, method func(context.Context, string) (T, error)) func(http.ResponseWriter, *http.Request) error {
	return reply(func(ctx context.Context, r *http.Request) (any, error) { return method(ctx, r.PathValue(param)) })
}

// act serves a method that answers nothing but an error.
func act(method func(context.Context, *http.Request) error) func(http.ResponseWriter, *http.Request) error {
	return reply(func(ctx context.Context, r *http.Request) (any, error) { return done{}, method(ctx, r) })
}

// reply serves a method that needs no body.
func reply(method func(context.Context, *http.Request) (any, error)) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		ctx, cancel, err := begin(w, r, nil)
		if err != nil {
			return err
		}
		defer cancel()
		v, err := method(ctx, r)
		if err != nil {
			return err
		}
		return answer(w, v)
	}
}

// send serves a method that takes a body.
func send[B any](method func(context.Context, *http.Request, *B) (any, error)) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		body := new(B)
		ctx, cancel, err := begin(w, r, body)
		if err != nil {
			return err
		}
		defer cancel()
		v, err := method(ctx, r, body)
		if err != nil {
			return err
		}
		return answer(w, v)
	}
}

func (s *Server) logs(w http.ResponseWriter, r *http.Request) error {
	q := newQuery(r)
	sel := LogQuery{Function: q.Get("function"), Follow: q.flag("follow"), Limit: q.count("limit")}
	if q.err != nil {
		return q.err
	}
	return list(w, r, sel.Follow, func(ctx context.Context, emit func(any) error) error {
		return s.gw.Logs(ctx, sel, func(l LogLine) error { return emit(l) })
	})
}

func (s *Server) events(w http.ResponseWriter, r *http.Request) error {
	q := newQuery(r)
	sel := EventQuery{Topic: q.Get("topic"), Function: q.Get("function"), Follow: q.flag("follow"), Limit: q.count("limit")}
	if q.err != nil {
		return q.err
	}
	return list(w, r, sel.Follow, func(ctx context.Context, emit func(any) error) error {
		return s.gw.Events(ctx, sel, func(l Life) error { return emit(l) })
	})
}

func (s *Server) record(w http.ResponseWriter, r *http.Request) error {
	q := newQuery(r)
	sel := RecordQuery{Function: q.Get("function"), For: q.duration("for"), Bytes: int64(q.count("bytes")), Invocations: q.count("invocations")}
	if q.Has("key") {
		key := q.Get("key")
		sel.Key = &key
	}
	if q.err != nil {
		return q.err
	}
	return list(w, r, true, func(ctx context.Context, emit func(any) error) error {
		return s.gw.Record(ctx, sel, func(line json.RawMessage) error { return emit(line) })
	})
}

func (s *Server) dead(w http.ResponseWriter, r *http.Request) error {
	return reply(func(ctx context.Context, r *http.Request) (any, error) {
		q := newQuery(r)
		sel := DeadQuery{Function: q.Get("function"), Revision: q.Get("revision"), Limit: q.count("limit")}
		if q.err != nil {
			return nil, q.err
		}
		return s.gw.DeadLetters(ctx, sel)
	})(w, r)
}

func (s *Server) state(w http.ResponseWriter, r *http.Request) error {
	return reply(func(ctx context.Context, r *http.Request) (any, error) {
		ref, err := stateRef(r)
		if err != nil {
			return nil, err
		}
		return s.gw.State(ctx, ref)
	})(w, r)
}

func (s *Server) setState(w http.ResponseWriter, r *http.Request) error {
	return send(func(ctx context.Context, r *http.Request, value *json.RawMessage) (any, error) {
		ref, err := stateRef(r)
		if err != nil {
			return nil, err
		}
		return done{}, s.gw.SetState(ctx, ref, *value)
	})(w, r)
}

func (s *Server) deleteState(w http.ResponseWriter, r *http.Request) error {
	return reply(func(ctx context.Context, r *http.Request) (any, error) {
		ref, err := stateRef(r)
		if err != nil {
			return nil, err
		}
		n, err := s.gw.DeleteState(ctx, ref)
		return countBody{n}, err
	})(w, r)
}

// stateRef reads what a request names. "key=" is the key "", and no key at all is every key.
func stateRef(r *http.Request) (StateRef, error) {
	q := newQuery(r)
	ref := StateRef{Function: r.PathValue("function"), Name: q.Get("name"), Shared: q.flag("shared")}
	if q.Has("key") {
		key := q.Get("key")
		ref.Key = &key
	}
	if ref.Shared && ref.Key != nil && q.err == nil {
		return ref, Errorf(CodeBadRequest, "shared state has no key: give one of both")
	}
	return ref, q.err
}

// query reads a request's parameters and keeps the first error.
type query struct {
	url.Values
	err error
}

func newQuery(r *http.Request) *query {
	v, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return &query{Values: v, err: Errorf(CodeBadRequest, "the request's parameters: %s", err)}
	}
	return &query{Values: v}
}

func (q *query) flag(name string) bool {
	if !q.Has(name) {
		return false
	}
	b, err := strconv.ParseBool(q.Get(name))
	if err != nil && q.err == nil {
		q.err = Errorf(CodeBadRequest, "%s is %q, it should be true or false", name, q.Get(name))
	}
	return b
}

func (q *query) count(name string) int {
	if !q.Has(name) {
		return 0
	}
	n, err := strconv.Atoi(q.Get(name))
	if (err != nil || n < 0) && q.err == nil {
		q.err = Errorf(CodeBadRequest, "%s is %q, it should be a whole number from 0", name, q.Get(name))
	}
	return n
}

func (q *query) duration(name string) time.Duration {
	if !q.Has(name) {
		return 0
	}
	d, err := time.ParseDuration(q.Get(name))
	if (err != nil || d < 0) && q.err == nil {
		q.err = Errorf(CodeBadRequest, "%s is %q, it should be a duration such as 1m30s", name, q.Get(name))
	}
	return d
}
