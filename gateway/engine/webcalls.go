package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/perigee-iot/perigee/drivers"
	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/gateway/webcall"
	"github.com/perigee-iot/perigee/internal/event"
	"github.com/perigee-iot/perigee/internal/retry"
)

// HTTP calls are actions like any other: decided in an update of the store, carried out from the journal in order, with the same id after a
// crash. Their target is an origin for one function: so a function whose calls are slow, or fail, holds up no other. Each call is final or it
// waits; what it came to is an event of the same key, which is stored with the update that takes the call out of the journal.

const (
	webPrefix    = "http/"
	maxWebTries  = 5           // of a call that arrives and is answered with an error, or not in time
	maxWebPause  = time.Minute // between two tries
	maxWebAnswer = 128 << 10   // bytes of an answer as JSON: it must fit a transaction of the smallest store
	maxWebDepth  = 48          // levels of JSON in a body; functions read 64
)

// webTarget names the target of a function's calls to an origin.
func webTarget(fn, origin string) string { return webPrefix + fn + "/" + origin }

// ofWebTarget takes such a name apart.
func ofWebTarget(name string) (fn, origin string, ok bool) {
	rest, ok := strings.CutPrefix(name, webPrefix)
	if !ok {
		return "", "", false
	}
	return strings.Cut(rest, "/")
}

// web makes a new action that of an HTTP call.
func (a *action) web(j *job, x *functions.Effect) {
	a.topic = "" // it may hold a secret
	perms := &j.dep.spec().Permissions
	c, err := newWebCall(x, j.key, perms, j.inv.Secrets)
	if err != nil { // what is wrong with an effect is found before
		a.value, a.target = nil, webTarget(a.fn, "")
		return
	}
	a.target, a.value = webTarget(a.fn, c.rule.Origin), c.encode()
}

// webPort makes the calls of one function to one origin.
type webPort struct {
	engine *Engine
	fn     string

	// Of the target's goroutine:
	place  webcall.Place
	client *webcall.Client
}

// laterError says that a call has to be made again, and how soon.
type laterError struct {
	err   error
	after time.Duration // 0: the usual pause
}

func (e *laterError) Error() string { return e.err.Error() }
func (e *laterError) Unwrap() error { return e.err }

// send makes the call. An error means that it is to be made again.
func (p *webPort) send(ctx context.Context, a *action) (drivers.Receipt, error) {
	c, err := decodeWebCall(a.value)
	if err != nil {
		p.fail(a, &webCall{}, fmt.Errorf("the journal's entry is damaged: %w", err), nil)
		return nil, nil
	}
	req, place, err := p.request(a, c)
	if req == nil {
		if err != nil {
			return nil, err
		}
		return nil, nil // it failed for good
	}
	if p.client == nil || p.place != place {
		p.close() // so that no connection is used that is not permitted any more
		p.place, p.client = place, webcall.New(place, p.engine.opt.Web)
	}
	answer, err := p.client.Do(ctx, *req)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return nil, p.judge(a, c, answer, err)
}

// request fills in the secrets, and looks whether the call is still permitted: it may have waited for long. Without a request, an error says that
// it has to wait, and none that it has failed.
func (p *webPort) request(a *action, c *webCall) (*webcall.Request, webcall.Place, error) {
	e := p.engine
	r := &webcall.Request{Method: c.method, ID: a.id, Timeout: c.timeout}
	var errs []error
	fill := func(t secretText) string {
		s, err := t.with(e.opt.Secrets.Get)
		errs = append(errs, err)
		return s
	}
	r.URL = fill(c.url)
	for i, name := range c.names {
		r.Headers = append(r.Headers, functions.HTTPHeader{Name: name, Value: fill(c.values[i])})
	}
	if body := fill(c.body); c.hasBody {
		r.Body = []byte(body)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, webcall.Place{}, fmt.Errorf("call %s: %w", c.rule.Origin, err)
	}
	rules := e.httpRules(p.fn, c.rule)
	u, err := functions.ParseURL(r.URL)
	rule, ok := c.rule, false
	if err == nil {
		rule, ok = rules.AllowsHTTP(u)
	}
	check := functions.HTTPCall{Method: c.method, Headers: r.Headers} // a secret may have changed
	switch err := check.Check(); {
	case !ok || rule.Origin != c.rule.Origin:
		p.fail(a, c, errors.New("function.yaml does not permit the call any more"), nil)
		return nil, webcall.Place{}, nil
	case err != nil:
		p.fail(a, c, errors.New("with the value that a secret has now, the call cannot be sent"), nil)
		return nil, webcall.Place{}, nil
	}
	r.May = func(u *url.URL) bool { _, ok := rules.AllowsHTTP(u); return ok }
	return r, webcall.PlaceOf(rule), nil
}

// httpRules are what a function may call now; of one that is gone, what permitted the call.
func (e *Engine) httpRules(fn string, was functions.HTTPRule) functions.Permissions {
	e.mu.Lock()
	defer e.mu.Unlock()
	if f := e.fns[fn]; f != nil {
		return f.dep.spec().Permissions
	}
	return functions.Permissions{HTTP: []functions.HTTPRule{was}}
}

// judge decides whether a call is final. Without an answer from the server it waits for one as long as it is of use; a server that says
// that it is busy is asked again likewise. Other errors of a server may be this call's fault: after a few tries those behind it have their turn.
func (p *webPort) judge(a *action, c *webCall, answer *webcall.Answer, err error) error {
	if err != nil {
		if e, ok := errors.AsType[*webcall.Error](err); ok && e.Reached {
			a.tries++
		} else if ok && e.Final {
			a.tries = maxWebTries
		}
		if a.tries < maxWebTries {
			return &laterError{err: err}
		}
		p.fail(a, c, err, nil)
		return nil
	}
	busy := slices.Contains([]int{408, 425, 429, 502, 503, 504}, answer.Status)
	broken := answer.Status >= 500 && answer.Status != 501 && answer.Status != 505
	if broken && !busy {
		a.tries++
	}
	switch {
	case busy, broken && a.tries < maxWebTries:
		a.status = answer.Status
		return &laterError{fmt.Errorf("call %s: it was answered with %d", c.rule.Origin, answer.Status), answer.RetryAfter}
	case broken:
		p.fail(a, c, fmt.Errorf("it was answered with %d, %d times", answer.Status, a.tries), answer)
	case answer.Stopped != "":
		p.fail(a, c, errors.New(answer.Stopped), answer)
	default:
		a.answer = c.answer(a, answer, "")
	}
	return nil
}

// fail ends a call that came to nothing.
func (p *webPort) fail(a *action, c *webCall, why error, answer *webcall.Answer) {
	e := p.engine
	if c.reply == "" {
		e.losses.add("HTTP calls that failed", 1)
		e.log.Warn("an HTTP call failed for good", "function", a.fn, "event", a.event, "call", c.method+" "+c.shownURL(), "error", e.opt.Secrets.Mask(why.Error()))
	}
	a.answer = c.answer(a, answer, e.opt.Secrets.Mask(why.Error()))
}

// expired ends a call that is of no use any more.
func (p *webPort) expired(a *action) {
	c, err := decodeWebCall(a.value)
	if err != nil {
		c = &webCall{}
	}
	var answer *webcall.Answer
	why := "not_after has passed before it was answered"
	if a.status > 0 {
		why += fmt.Sprintf("; the last answer was %d", a.status)
		answer = &webcall.Answer{Status: a.status}
	}
	p.fail(a, c, errors.New(why), answer)
}

// rest closes the connection.
func (p *webPort) close() {
	if p.client != nil {
		p.client.Close()
		p.client = nil
	}
}

// shownURL is the URL for people: without its query.
func (c *webCall) shownURL() string {
	s, _, _ := strings.Cut(c.url.shown(), "?")
	return s
}

// answerData is event.data of an answer.
type answerData struct {
	Status    int               `json:"status,omitempty"`
	Headers   map[string]string `json:"headers,omitempty"`
	Body      json.RawMessage   `json:"body,omitempty"`
	Base64    []byte            `json:"base64,omitempty"`
	Truncated bool              `json:"truncated,omitempty"`
	Error     string            `json:"error,omitempty"`
	URL       string            `json:"url,omitempty"`
	Event     string            `json:"event"`
}

// answer is the data of the event that tells what a call came to; nil if nobody wants to know.
func (c *webCall) answer(a *action, got *webcall.Answer, failure string) []byte {
	if c.reply == "" {
		return nil
	}
	d := answerData{Error: failure, URL: c.shownURL(), Event: a.event}
	if got != nil {
		d.Status, d.Headers, d.Truncated = got.Status, got.Headers, got.Truncated
		d.body(got)
	}
	b, err := json.Marshal(&d)
	if err == nil && len(b) > maxWebAnswer { // control characters take six bytes each
		d.Body, d.Base64 = nil, got.Body
		b, err = json.Marshal(&d)
	}
	if err != nil {
		return []byte(`{"error":"the answer cannot be written as JSON"}`)
	}
	return b
}

// body is the value where the server says that it is JSON, the text, or bytes.
func (d *answerData) body(got *webcall.Answer) {
	kind, _, _ := strings.Cut(strings.ToLower(got.Headers["content-type"]), ";")
	kind = strings.TrimSpace(kind)
	isJSON := kind == "application/json" || strings.HasSuffix(kind, "+json")
	switch {
	case len(got.Body) == 0:
	case isJSON && !got.Truncated && utf8.Valid(got.Body) && shallow(got.Body) && json.Valid(got.Body):
		d.Body = got.Body
	case utf8.Valid(got.Body):
		d.Body, _ = json.Marshal(string(got.Body))
	case got.Truncated && utf8.Valid(got.Body[:len(got.Body)-cutRune(got.Body)]):
		d.Body, _ = json.Marshal(string(got.Body[:len(got.Body)-cutRune(got.Body)]))
	default:
		d.Base64 = got.Body
	}
}

// cutRune is how many bytes of a character that was cut off stand at the end.
func cutRune(b []byte) int {
	for n := 1; n < min(utf8.UTFMax, len(b)+1); n++ {
		if c := b[len(b)-n]; utf8.RuneStart(c) {
			if !utf8.FullRune(b[len(b)-n:]) {
				return n
			}
			return 0
		}
	}
	return 0
}

// shallow says that a JSON text does not nest deeper than functions read.
func shallow(b []byte) bool {
	depth, quoted := 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			if depth++; depth > maxWebDepth {
				return false
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return true
}

// done makes the event of the answer. If the function is gone, nobody waits for it.
func (p *webPort) done(a *action) []*job {
	e := p.engine
	c, err := decodeWebCall(a.value)
	if err != nil || a.answer == nil {
		return nil
	}
	origin := strings.TrimPrefix(strings.TrimPrefix(c.rule.Origin, "https://"), "http://")
	ev := &event.Event{ID: a.id + ".reply", Source: webPrefix + origin, Type: event.Reply, Subject: c.reply, Data: a.answer, Key: c.key, HasKey: true, Chain: a.chain}
	e.stamp(ev)
	e.mu.Lock()
	defer e.mu.Unlock()
	f := e.fns[p.fn]
	if f == nil {
		return nil
	}
	life := e.lives.add(ev)
	if e.endless(ev, f, life) {
		return nil
	}
	return []*job{{fn: f, ev: ev, key: c.key, size: len(ev.Data) + 256, life: life, order: e.seq.next(), since: e.clock.Now()}}
}

// newWebTarget makes the target of a name. Its goroutines start with its first action: a function may name many origins that it never calls.
func (p *plant) newWebTarget(name, fn string) *target {
	t := newTarget(p.engine, name, &webPort{engine: p.engine, fn: fn})
	t.lazy, t.maxBytes = true, p.engine.opt.MaxWebBytes
	t.back = retry.Backoff{First: time.Second, Max: maxWebPause}
	p.targets[name] = t
	return t
}

// web returns the targets of a function's calls, and forgets those of earlier revisions that have nothing to do.
func (p *plant) web(spec *functions.Spec) (out []*target) {
	p.mu.Lock()
	defer p.mu.Unlock()
	keep := map[string]bool{}
	for _, r := range spec.Permissions.HTTP {
		name := webTarget(spec.Name, r.Origin)
		if keep[name] {
			continue
		}
		keep[name] = true
		t := p.targets[name]
		if t == nil {
			t = p.newWebTarget(name, spec.Name)
		}
		out = append(out, t)
	}
	p.forget(spec.Name, keep)
	return out
}

// forget stops the targets of a function's calls that have nothing to do and are not kept. The caller holds mu.
func (p *plant) forget(fn string, keep map[string]bool) {
	for name, t := range p.targets {
		if of, _, ok := ofWebTarget(name); !ok || of != fn || keep[name] || !t.idle() {
			continue
		}
		delete(p.targets, name)
		if t.stop != nil {
			t.stop()
		}
	}
}

// forgetWeb is forget of a function that is gone.
func (p *plant) forgetWeb(fn string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.forget(fn, nil)
}

// give hands an action to its target; false: there is none.
func (p *plant) give(a *action) bool {
	p.mu.RLock()
	t := p.targets[a.target]
	if t != nil && !t.lazy { // the others may come and go meanwhile, and an action for a device that is gone goes with it
		p.mu.RUnlock()
		t.add(a)
		return true
	}
	p.mu.RUnlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	if t = p.targets[a.target]; t == nil {
		fn, _, ok := ofWebTarget(a.target)
		if !ok {
			return false
		}
		t = p.newWebTarget(a.target, fn)
	}
	t.add(a)
	if t.lazy && t.stop == nil {
		p.run(t)
	}
	return true
}
