package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"sync"
	"time"
)

const (
	maxBody        = 2 << 20          // bytes of a request's body
	maxRequests    = 32               // at once, followed lists included; with maxBody this bounds the memory
	requestTimeout = time.Minute      // of everything but followed lists
	bodyTimeout    = 30 * time.Second // to send a body
	writeTimeout   = 30 * time.Second // to take an answer, or one line of a followed list
	stopTimeout    = 5 * time.Second  // for requests in flight when the gateway stops
)

// errorTrailer carries the *Error that ended a list after its first line.
const errorTrailer = "Perigee-Error"

// Server answers the control API from a Gateway. It is an http.Handler, and holds no state but the count of requests.
type Server struct {
	gw    Gateway
	log   *slog.Logger
	mux   *http.ServeMux
	slots chan struct{}
}

// NewServer makes a Server. A nil log is slog.Default().
func NewServer(gw Gateway, log *slog.Logger) *Server {
	if log == nil {
		log = slog.Default()
	}
	s := &Server{gw: gw, log: log, mux: http.NewServeMux(), slots: make(chan struct{}, maxRequests)}
	for _, r := range s.routes() {
		s.mux.Handle(r.pattern, s.handler(r.serve))
	}
	s.mux.Handle("/", s.handler(unknown))
	return s
}

func unknown(_ http.ResponseWriter, r *http.Request) error {
	return Errorf(CodeBadRequest, "this gateway does not know the request %s %s", r.Method, r.URL.Path).
		WithHint("the program that asks may be newer than the gateway: compare with perigee version")
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

// stopKey finds, in a request's context, the context that ends when the server begins to stop.
type stopKey struct{}

// Serve answers requests on ln until ctx ends. Then followed lists end at once with "the gateway is stopping", and other requests
// have five seconds to finish. It closes ln, returns when every request has returned, and its error is nil if ctx ended it.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	base = context.WithValue(base, stopKey{}, ctx)

	var running sync.WaitGroup
	srv := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			running.Add(1)
			defer running.Done()
			s.ServeHTTP(w, r)
		}),
		BaseContext:       func(net.Listener) context.Context { return base },
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()

	var err error
	select {
	case err = <-served:
		err = fmt.Errorf("control API on %s: %w", ln.Addr(), err)
	case <-ctx.Done():
		grace, done := context.WithTimeout(base, stopTimeout)
		if srv.Shutdown(grace) != nil {
			s.log.Warn("requests were cut off since they did not finish in time", "time", stopTimeout)
		}
		done()
		<-served //nolint:errcheck // says that it was shut down
	}
	cancel()
	_ = srv.Close()
	running.Wait()
	return err
}

// handler adds to a route what all have in common: the bound on requests, time-outs, and how errors are told.
func (s *Server) handler(serve func(http.ResponseWriter, *http.Request) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case s.slots <- struct{}{}:
			defer func() { <-s.slots }()
		default:
			writeError(w, Errorf(CodeUnavailable, "the gateway answers %d requests already", maxRequests).
				WithHint("close a perigee command that follows something"))
			return
		}
		defer func() {
			if p := recover(); p != nil {
				s.log.Error("a request made the control API panic", "request", r.Method+" "+r.URL.Path, "panic", p, "stack", string(debug.Stack()))
				writeError(w, Errorf(CodeInternal, "the gateway has a defect: %v", p))
			}
		}()
		control := http.NewResponseController(w)
		_ = control.SetReadDeadline(time.Now().Add(bodyTimeout)) // errors: a writer without deadlines, as in tests
		err := serve(w, r)
		if err == nil {
			return
		}
		e := asError(err)
		if e.Code == CodeInternal {
			s.log.Error("a request of the control API", "request", r.Method+" "+r.URL.Path, "error", err)
		}
		_ = control.SetWriteDeadline(time.Now().Add(writeTimeout))
		writeError(w, e)
	})
}

// begin reads the request's body into body (nil: there must be none) and returns the context to call the gateway with.
func begin(w http.ResponseWriter, r *http.Request, body any) (context.Context, context.CancelFunc, error) {
	if err := decode(w, r, body); err != nil {
		return nil, nil, err
	}
	// From here on the server watches the connection, and a deadline would end the request's context.
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
	ctx, cancel := context.WithTimeout(r.Context(), requestTimeout)
	return ctx, cancel, nil
}

// decode reads one JSON value, with nothing unknown in it and nothing after it.
func decode(w http.ResponseWriter, r *http.Request, into any) error {
	body := http.MaxBytesReader(w, r.Body, maxBody)
	if into == nil {
		if n, _ := io.Copy(io.Discard, io.LimitReader(body, 1)); n > 0 {
			return Errorf(CodeBadRequest, "%s %s takes no body", r.Method, r.URL.Path)
		}
		return nil
	}
	d := json.NewDecoder(body)
	d.DisallowUnknownFields()
	err := d.Decode(into)
	if err == nil {
		if _, more := d.Token(); !errors.Is(more, io.EOF) {
			err = errors.New("something follows the JSON value")
			var large *http.MaxBytesError
			if errors.As(more, &large) {
				err = more
			}
		}
	}
	var large *http.MaxBytesError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &large):
		return Errorf(CodeBadRequest, "the request is larger than %d MiB", maxBody>>20)
	case errors.Is(err, io.EOF):
		return Errorf(CodeBadRequest, "the request's body is empty, it should be JSON")
	default:
		return Errorf(CodeBadRequest, "the request's body: %s", err)
	}
}

// answer writes a value as JSON. Values that JSON cannot hold are the gateway's fault, and found before anything is written.
func answer(w http.ResponseWriter, v any) error {
	b, err := encode(v)
	if err != nil {
		return fmt.Errorf("the answer: %w", err)
	}
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout))
	w.Header().Set("Content-Type", "application/json")
	w.Write(b) // a client that has gone is not an error of ours
	return nil
}

// writeError tells the client of an error: as the answer, or in the trailer of a list that has begun.
func writeError(w http.ResponseWriter, e *Error) {
	b, err := encode(e)
	if err != nil {
		b = []byte(`{"code":"internal","message":"an error that is not JSON"}`)
	}
	if w.Header().Get("Trailer") != "" {
		w.Header().Set(errorTrailer, asciiJSON(b))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(statusOf(e.Code))
	w.Write(b)
}

// lines writes a list, one JSON value a line, each flushed as it comes. The header goes out with the first line, so that an error
// before it is an ordinary answer.
type lines struct {
	w       http.ResponseWriter
	control *http.ResponseController
	begun   bool
}

func (l *lines) emit(v any) error {
	b, err := encode(v)
	if err != nil {
		return fmt.Errorf("a line of the list: %w", err)
	}
	l.begin()
	_ = l.control.SetWriteDeadline(time.Now().Add(writeTimeout))
	if _, err := l.w.Write(b); err != nil {
		return err
	}
	return l.control.Flush()
}

func (l *lines) begin() {
	if !l.begun {
		l.begun = true
		l.w.Header().Set("Content-Type", "application/x-ndjson")
		l.w.Header().Set("Trailer", errorTrailer)
		l.w.WriteHeader(http.StatusOK)
	}
}

// list answers with lines. A followed list has no time limit and ends when the client goes or the server stops.
func list(w http.ResponseWriter, r *http.Request, follow bool, produce func(ctx context.Context, emit func(any) error) error) error {
	ctx, cancel, err := begin(w, r, nil)
	if err != nil {
		return err
	}
	defer cancel()
	if follow {
		ctx, cancel = context.WithCancel(r.Context())
		defer cancel()
		if stop, ok := ctx.Value(stopKey{}).(context.Context); ok {
			defer context.AfterFunc(stop, cancel)()
		}
	}
	out := &lines{w: w, control: http.NewResponseController(w)}
	err = produce(ctx, out.emit)
	if err == nil && follow && ctx.Err() != nil {
		err = ctx.Err()
	}
	if err == nil {
		out.begin()
	}
	return err
}
