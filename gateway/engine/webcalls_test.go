package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/gateway/secrets"
	"github.com/perigee-iot/perigee/gateway/webcall"
	"github.com/perigee-iot/perigee/internal/event"
	"github.com/perigee-iot/perigee/internal/store"
)

// farSide is a server that remembers what it was asked.
type farSide struct {
	*httptest.Server

	mu     sync.Mutex
	seen   []request
	answer func(w http.ResponseWriter, r request) // nil: 200
}

type request struct{ method, path, body, key, auth string }

func newFarSide(t *testing.T, answer func(w http.ResponseWriter, r request)) *farSide {
	t.Helper()
	f := &farSide{answer: answer}
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	return f
}

func (f *farSide) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b, _ := io.ReadAll(r.Body)
	q := request{r.Method, r.RequestURI, string(b), r.Header.Get("Idempotency-Key"), r.Header.Get("Authorization")}
	f.mu.Lock()
	f.seen = append(f.seen, q)
	f.mu.Unlock()
	if f.answer != nil {
		f.answer(w, q)
	}
}

func (f *farSide) requests() []request {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]request(nil), f.seen...)
}

// once are the bodies without repetitions, by their keys.
func (f *farSide) once() (bodies []string) {
	keys := map[string]bool{}
	for _, r := range f.requests() {
		if !keys[r.key] {
			bodies = append(bodies, r.body)
		}
		keys[r.key] = true
	}
	return bodies
}

// callEffect posts body to a URL.
func callEffect(url, body string, change ...func(c *functions.HTTPCall)) functions.Effect {
	c := functions.HTTPCall{Method: "POST", Body: []byte(body), Reply: "posted", Timeout: 10 * time.Second}
	for _, f := range change {
		f(&c)
	}
	return functions.Effect{Kind: functions.CallHTTP, Name: url, Value: c.Encode(), NotAfter: time.Hour}
}

func callerYAML(base string) string {
	return fmt.Sprintf("name: caller\ntriggers: [{mqtt: in/+}]\nkey: \"{topic}\"\npermissions: {http: ['%s/v1/*'], secrets: [token]}\n", base)
}

// replies gathers the answers that a function gets.
type replies struct {
	mu   sync.Mutex
	list []reply
}

type reply struct {
	name, key string
	chain     uint16
	data      map[string]any
}

func (r *replies) add(ev *event.Event, key string) {
	d := reply{name: ev.Subject, key: key, chain: ev.Chain}
	_ = json.Unmarshal(ev.Data, &d.data)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = append(r.list, d)
}

func (r *replies) all() []reply {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]reply(nil), r.list...)
}

// caller posts each message, and keeps what comes back.
func (r *replies) caller(url string, change ...func(c *functions.HTTPCall)) body {
	return func(inv *functions.Invocation, _ func(functions.Read) functions.ReadAnswer) *functions.Outcome {
		if inv.Event.Type == event.Reply {
			r.add(inv.Event, inv.Key)
			return ok()
		}
		return ok(callEffect(url, string(inv.Event.Data), change...))
	}
}

func TestACallIsMadeOnceCommittedAndAnswered(t *testing.T) {
	far := newFarSide(t, func(w http.ResponseWriter, r request) {
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		w.WriteHeader(201)
		fmt.Fprintf(w, `{"got":%s}`, r.body)
	})
	r := newRig(t)
	var got replies
	r.fn(callerYAML(far.URL), got.caller(far.URL+"/v1/x?q=1"))
	r.start()
	for i := range 20 {
		settled(t, r.message(fmt.Sprintf("in/%d", i%2), fmt.Sprint(i), "", false))
	}
	r.wait("answers", func() bool { return len(got.all()) == 20 })
	last := map[string]float64{}
	for _, a := range got.all() {
		require.Equal(t, "posted", a.name)
		require.EqualValues(t, 201, a.data["status"])
		require.Equal(t, far.URL+"/v1/x", a.data["url"])
		require.Equal(t, "application/json; charset=utf-8", a.data["headers"].(map[string]any)["content-type"])
		n := a.data["body"].(map[string]any)["got"].(float64)
		require.Equal(t, fmt.Sprintf("in/%d", int(n)%2), a.key)
		require.GreaterOrEqual(t, n, last[a.key], "in the order of the key")
		last[a.key] = n
		require.EqualValues(t, 1, a.chain)
	}
	reqs := far.requests()
	require.Len(t, reqs, 20)
	for i, q := range reqs {
		require.Equal(t, fmt.Sprint(i), q.body, "in order")
		require.Len(t, q.key, 32)
	}
	r.wait("an empty journal", func() bool { return r.e.Counts().Actions == 0 })
	require.Empty(t, r.e.Counts().Losses)
}

func TestCallsThatAreNotPermittedAreFaults(t *testing.T) {
	far := newFarSide(t, nil)
	r := newRig(t)
	bad := map[string]functions.Effect{
		"other path":   callEffect(far.URL+"/v2/x", ""),
		"other origin": callEffect("http://127.0.0.1:1/v1/x", ""),
		"no URL":       callEffect("gopher://x", ""),
		"host header":  callEffect(far.URL+"/v1/x", "", func(c *functions.HTTPCall) { c.Headers = []functions.HTTPHeader{{Name: "Host", Value: "x"}} }),
		"too long":     {Kind: functions.CallHTTP, Name: far.URL + "/v1/x", Value: (&functions.HTTPCall{Method: "GET"}).Encode(), NotAfter: 1000 * time.Hour},
		"nonsense":     {Kind: functions.CallHTTP, Name: far.URL + "/v1/x", Value: []byte("x"), NotAfter: 1},
	}
	r.fn(callerYAML(far.URL), func(inv *functions.Invocation, _ func(functions.Read) functions.ReadAnswer) *functions.Outcome {
		return ok(bad[string(inv.Event.Data)])
	})
	r.start()
	for name := range bad {
		settled(t, r.message("in/a", name, "", false))
	}
	r.wait("dead letters", func() bool { return r.e.Counts().Dead == int64(len(bad)) })
	require.Empty(t, far.requests())
}

// After a crash between the answer and the mark that it is done, the call is made again with the same key, and answered once.
func TestACallThatWasCutOffIsMadeAgainWithItsKey(t *testing.T) {
	hold := make(chan struct{})
	first := true
	far := newFarSide(t, nil)
	far.answer = func(http.ResponseWriter, request) {
		far.mu.Lock()
		was := first
		first = false
		far.mu.Unlock()
		if was {
			<-hold
		}
	}
	r := newRig(t)
	var got replies
	r.fn(callerYAML(far.URL), got.caller(far.URL+"/v1/x"))
	r.start()
	settled(t, r.message("in/a", "1", "", false))
	settled(t, r.message("in/a", "2", "", false))
	r.wait("the first call to arrive", func() bool { return len(far.requests()) == 1 })
	r.stop() // in the middle of it
	close(hold)
	require.Empty(t, got.all())
	r = openRig(t, r.dir)
	r.fn(callerYAML(far.URL), got.caller(far.URL+"/v1/x"))
	r.start()
	r.wait("answers", func() bool { return len(got.all()) == 2 })
	require.Equal(t, []string{"1", "2"}, far.once())
	require.Len(t, far.requests(), 3)
	require.Equal(t, far.requests()[0].key, far.requests()[1].key)
	r.wait("an empty journal", func() bool { return r.e.Counts().Actions == 0 })
}

// A group of the store that is dropped with the answer in it: the answer comes again, the call does not go out again.
func TestAnAnswerThatWasDroppedComesAgain(t *testing.T) {
	far := newFarSide(t, nil)
	p := newPatient(t)
	var got replies
	p.fn(callerYAML(far.URL), got.caller(far.URL+"/v1/x"))
	p.start()
	settled(t, p.message("in/a", "1", "", false)) // nothing lingers before a call
	p.wait("the answer to join a group", func() bool { return len(got.all()) == 1 && p.e.Counts().Actions == 0 })
	p.dropped()
	p.waitFlushing("the answer", func() bool { return len(got.all()) > 1 })
	p.waitFlushing("an empty journal", func() bool { return p.e.Counts().Actions == 0 })
	require.Len(t, far.requests(), 1)
}

func TestCallsWaitWhileTheServerIsNotThere(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	base := "http://" + l.Addr().String()
	require.NoError(t, l.Close())
	other := newFarSide(t, nil)
	r := newRig(t)
	var got, gotOther replies
	r.fn(callerYAML(base), got.caller(base+"/v1/x"))
	r.fn(strings.Replace(callerYAML(other.URL), "caller", "other", 1), gotOther.caller(other.URL+"/v1/x"))
	r.start()
	for i := range 3 {
		settled(t, r.message("in/a", fmt.Sprint(i), "", false))
	}
	r.wait("the other's answers", func() bool { return len(gotOther.all()) == 3 })
	require.Empty(t, got.all())
	require.EqualValues(t, 3, r.e.Counts().Actions)

	far := &farSide{}
	l, err = net.Listen("tcp", l.Addr().String())
	require.NoError(t, err)
	s := &http.Server{Handler: far}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
	r.wait("answers", func() bool { return len(got.all()) == 3 })
	require.Equal(t, []string{"0", "1", "2"}, far.once())
}

func TestACallThatIsTooLateFails(t *testing.T) {
	r := newRig(t)
	const base = "http://127.0.0.1:1"
	var got replies
	r.fn(callerYAML(base), func(inv *functions.Invocation, _ func(functions.Read) functions.ReadAnswer) *functions.Outcome {
		if inv.Event.Type == event.Reply {
			got.add(inv.Event, inv.Key)
			return ok()
		}
		long, short := callEffect(base+"/v1/long", ""), callEffect(base+"/v1/x?secret=1", "", func(c *functions.HTTPCall) { c.Reply = "short" })
		silent := callEffect(base+"/v1/x", "", func(c *functions.HTTPCall) { c.Reply = "" })
		short.NotAfter, silent.NotAfter = 20*time.Millisecond, 20*time.Millisecond
		return ok(long, short, silent)
	})
	r.start()
	settled(t, r.message("in/a", "1", "", false))
	r.wait("the short ones, behind the long one", func() bool { return len(got.all()) == 1 && r.e.Counts().Actions == 1 })
	a := got.all()[0]
	require.Equal(t, "short", a.name)
	require.Equal(t, "not_after has passed before it was answered", a.data["error"])
	require.Equal(t, base+"/v1/x", a.data["url"])
	require.Nil(t, a.data["status"])
	require.EqualValues(t, 1, r.e.Counts().Losses["HTTP calls that failed"])
}

func TestWhichAnswersAreFinal(t *testing.T) {
	counts := map[string]int{}
	var mu sync.Mutex
	far := newFarSide(t, func(w http.ResponseWriter, r request) {
		mu.Lock()
		counts[r.path]++
		n := counts[r.path]
		mu.Unlock()
		code := 0
		_, _ = fmt.Sscanf(r.path, "/v1/%d", &code)
		switch {
		case code == 503 && n < 7, code == 429 && n < 2, code == 500 && n < 3:
			if code == 429 {
				w.Header().Set("Retry-After", "1")
			}
			w.WriteHeader(code)
		case code == 404, code == 501, code == 599, code == 302:
			w.Header().Set("Location", "/admin")
			w.WriteHeader(code)
		}
	})
	r := newRig(t)
	r.e.plant.mu.Lock()
	fast := func(origin string) {
		for _, fn := range []string{"f404", "f501", "f599", "f302", "f503", "f429", "f500"} {
			r.e.plant.newWebTarget(webTarget(fn, origin), fn).back.First = time.Millisecond
			r.e.plant.targets[webTarget(fn, origin)].back.Max = time.Millisecond
		}
	}
	fast(far.URL)
	r.e.plant.mu.Unlock()
	got := map[string]*replies{}
	for _, code := range []string{"404", "501", "599", "302", "503", "429", "500"} {
		got[code] = &replies{}
		r.fn(strings.Replace(callerYAML(far.URL), "caller", "f"+code, 1), got[code].caller(far.URL+"/v1/"+code))
	}
	r.start()
	began := time.Now()
	settled(t, r.message("in/a", "1", "", false))
	for code, want := range map[string]struct {
		status float64
		tries  int
		err    string
	}{"404": {404, 1, ""}, "501": {501, 1, ""}, "302": {302, 1, "permissions.http"}, "503": {200, 7, ""}, "429": {200, 2, ""}, "500": {200, 3, ""},
		"599": {599, 5, "it was answered with 599, 5 times"}} {
		r.wait("answer "+code, func() bool { return len(got[code].all()) == 1 })
		a := got[code].all()[0]
		require.Equal(t, want.status, a.data["status"], code)
		why, _ := a.data["error"].(string)
		require.Contains(t, why, want.err, code)
		mu.Lock()
		require.Equal(t, want.tries, counts["/v1/"+code], code)
		mu.Unlock()
	}
	require.Greater(t, time.Since(began), time.Second, "as Retry-After says")
}

func TestAPrivateAddressIsRefusedForGood(t *testing.T) {
	far := newFarSide(t, func(http.ResponseWriter, request) { t.Error("it was called") })
	port := far.URL[strings.LastIndex(far.URL, ":"):]
	r := openRig(t, t.TempDir(), func(o *Options) {
		o.Web = webcall.Options{Lookup: func(context.Context, string) ([]netip.Addr, error) {
			return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
		}}
	})
	var got replies
	base := "http://api.example.com" + port
	r.fn(callerYAML(base), got.caller(base+"/v1/x"))
	r.start()
	settled(t, r.message("in/a", "1", "", false))
	r.wait("the answer", func() bool { return len(got.all()) == 1 })
	require.Contains(t, got.all()[0].data["error"], "127.0.0.1 is not a public address")

	far.answer = nil
	private := strings.Replace(callerYAML(base), "'"+base+"/v1/*'", "{url: '"+base+"/v1/*', private: true}", 1)
	r.fn(private, got.caller(base+"/v1/x"))
	settled(t, r.message("in/a", "2", "", false))
	r.wait("the answer", func() bool { return len(got.all()) == 2 })
	require.EqualValues(t, 200, got.all()[1].data["status"])
}

// A call that waited is looked at again before it goes out.
func TestARevokedPermissionHoldsForWhatWaits(t *testing.T) {
	var busy sync.Map
	far := newFarSide(t, func(w http.ResponseWriter, _ request) {
		if _, done := busy.Load("done"); !done {
			w.WriteHeader(503)
		}
	})
	r := newRig(t)
	var got replies
	r.fn(callerYAML(far.URL), got.caller(far.URL+"/v1/x"))
	r.start()
	settled(t, r.message("in/a", "1", "", false))
	r.wait("a try", func() bool { return len(far.requests()) > 0 })
	r.fn(strings.Replace(callerYAML(far.URL), "/v1/", "/v2/", 1), got.caller(far.URL+"/v1/x"))
	busy.Store("done", true)
	r.wait("the answer", func() bool { return len(got.all()) == 1 })
	require.Equal(t, "function.yaml does not permit the call any more", got.all()[0].data["error"])
}

func TestAFullJournalOfCallsHoldsItsFunctionUp(t *testing.T) {
	gate := make(chan struct{})
	far := newFarSide(t, func(http.ResponseWriter, request) { <-gate })
	r := openRig(t, t.TempDir(), func(o *Options) { o.MaxWebBytes = 2000 })
	var got replies
	r.fn(callerYAML(far.URL), got.caller(far.URL+"/v1/x"))
	r.start()
	const n = 30
	for range n {
		r.message("in/a", strings.Repeat("x", 500), "", false)
	}
	r.wait("the journal to fill", func() bool { return r.e.Counts().Actions >= 3 })
	require.Less(t, r.e.Counts().Actions, int64(n/2))
	close(gate)
	r.wait("answers", func() bool { return len(got.all()) == n })
	require.Empty(t, r.e.Counts().Losses)
}

// A function that calls for each answer comes to an end.
func TestCallsForAnswersEnd(t *testing.T) {
	far := newFarSide(t, nil)
	r := newRig(t)
	r.fn(callerYAML(far.URL), func(*functions.Invocation, func(functions.Read) functions.ReadAnswer) *functions.Outcome {
		return ok(callEffect(far.URL+"/v1/x", ""))
	})
	r.start()
	settled(t, r.message("in/a", "1", "", false))
	r.wait("the end", func() bool { return r.e.Counts().Losses["chain"] == 1 && r.e.Counts().Actions == 0 })
	require.Len(t, far.requests(), 17)
}

func TestSecretsInCalls(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	put := func(v string) { require.NoError(t, os.WriteFile(file, []byte(v), 0o600)) }
	put("s3cret-one\n")
	set := secrets.Open(map[string]string{"token": file}, "")
	busy := true
	far := newFarSide(t, nil)
	far.answer = func(w http.ResponseWriter, _ request) {
		far.mu.Lock()
		defer far.mu.Unlock()
		if busy {
			w.WriteHeader(503)
		}
	}
	r := openRig(t, t.TempDir(), func(o *Options) { o.Secrets = set })
	var got replies
	r.fn(callerYAML(far.URL), func(inv *functions.Invocation, _ func(functions.Read) functions.ReadAnswer) *functions.Outcome {
		if inv.Event.Type == event.Reply {
			got.add(inv.Event, inv.Key)
			return ok()
		}
		v := inv.Secrets[0].Value
		o := ok(callEffect(far.URL+"/v1/bot"+v+"/send?k="+v, `{"token":"`+v+`"}`, func(c *functions.HTTPCall) {
			c.Headers = []functions.HTTPHeader{{Name: "Authorization", Value: "Bearer " + v}}
		}))
		o.Result = []byte(`"` + strings.Repeat("x", 110) + v + `"`)
		o.Logs = []functions.LogLine{{Level: "info", Text: "the token is " + v}}
		return o
	})
	r.start()
	report, err := r.e.Invoke(t.Context(), "caller", Request{Topic: "in/a", Data: []byte("{}")})
	require.NoError(t, err)
	require.Contains(t, report.Effects[0], "/v1/bot***/send?k=***")
	require.Equal(t, "the token is ***", report.Logs[0].Text)
	r.wait("a try", func() bool { return len(far.requests()) > 0 })
	q := far.requests()[0]
	require.Equal(t, "/v1/bots3cret-one/send?k=s3cret-one", q.path)
	require.Equal(t, "Bearer s3cret-one", q.auth)
	require.Equal(t, `{"token":"s3cret-one"}`, q.body)

	require.NoError(t, r.st.View(func(rd store.Reader) error {
		return rd.Scan(store.NewKey(store.Journal), nil, func(_, v []byte) bool {
			require.NotContains(t, string(v), "s3cret")
			require.Contains(t, string(v), "token")
			return true
		})
	}))
	past, _, _ := r.e.Lives(100, false)
	shown := fmt.Sprintf("%+v", past)
	require.NotContains(t, shown, "s3cr")

	put("s3cret-two\n") // rotated while the call waits
	set.Load(map[string]string{"token": file})
	far.mu.Lock()
	busy = false
	far.mu.Unlock()
	r.wait("the answer", func() bool { return len(got.all()) == 1 })
	reqs := far.requests()
	require.Equal(t, "Bearer s3cret-two", reqs[len(reqs)-1].auth)
	require.Equal(t, far.URL+"/v1/bot***/send", got.all()[0].data["url"])
}

func TestSecretsAreHiddenInFaults(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(file, []byte("s3cret-one"), 0o600))
	r := openRig(t, t.TempDir(), func(o *Options) { o.Secrets = secrets.Open(map[string]string{"token": file}, "") })
	r.fn(callerYAML("http://127.0.0.1:1"), func(inv *functions.Invocation, _ func(functions.Read) functions.ReadAnswer) *functions.Outcome {
		v := inv.Secrets[0].Value
		if string(inv.Event.Data) == "effect" {
			return ok(functions.Effect{Kind: functions.Publish, Name: "x/" + v})
		}
		return &functions.Outcome{Fault: &functions.Fault{Kind: functions.FaultError, Message: "main.lua:1: " + v, Traceback: []string{v}, Hint: v}}
	})
	r.start()
	settled(t, r.message("in/a", "fault", "", false))
	settled(t, r.message("in/a", "effect", "", false))
	settled(t, r.message("in/a", strings.Repeat("x", 115)+"s3cret-one", "", false))
	r.wait("dead letters", func() bool { return r.e.Counts().Dead == 3 })
	past, _, _ := r.e.Lives(100, false)
	lines, _, _ := r.e.Logs("caller", 100, false)
	dead, err := r.e.DeadLetters("", "", 10)
	require.NoError(t, err)
	text, err := json.Marshal([]any{past, lines, r.e.Functions()[0].LastFault})
	require.NoError(t, err)
	require.NotContains(t, string(text), "s3cr")
	require.Contains(t, string(text), "***")
	for _, d := range dead {
		require.NotContains(t, d.Fault.Text(), "s3cr")
	}
}

func TestSecretTexts(t *testing.T) {
	list := []functions.Secret{{Name: "a", Value: "abcabc"}, {Name: "b", Value: "abcabcd"}, {Name: "short", Value: "xyz"}}
	get := func(name string) (string, error) {
		for _, s := range list {
			if s.Name == name {
				return s.Value, nil
			}
		}
		return "", errors.New("none")
	}
	require.Equal(t, secretText{{false, "x "}, {true, "b"}, {true, "a"}, {false, "yz xyz"}}, withoutSecrets("x abcabcdabcabcyz xyz", list))
	rapid.Check(t, func(t *rapid.T) {
		text := strings.Join(rapid.SliceOf(rapid.SampledFrom([]string{"a", "abc", "abcabc", "abcabcd", "d", "xyz", "\x00", "é"})).Draw(t, "parts"), "")
		split := withoutSecrets(text, list)
		back, err := split.with(get)
		require.NoError(t, err)
		require.Equal(t, text, back)
		require.NotContains(t, strings.ReplaceAll(split.shown(), "***", "|"), "abcabc")
		c := &webCall{method: "GET", url: split, names: []string{"x"}, values: []secretText{split}, hasBody: true, body: split, timeout: 1, reply: "r", key: "k",
			rule: functions.HTTPRule{Origin: "o", Path: "p", Prefix: true, Private: true}}
		got, err := decodeWebCall(c.encode())
		require.NoError(t, err)
		require.Equal(t, c, got)
	})
}

func TestBodiesOfAnswers(t *testing.T) {
	a := &action{event: "e"}
	for name, test := range map[string]struct {
		kind, body string
		truncated  bool
		want       string
	}{
		"JSON":           {"application/problem+json", ` {"a": 1} `, false, `"body":{"a":1}`},
		"no JSON":        {"application/json", `{"a"`, false, `"body":"{\"a\""`},
		"text":           {"text/plain", `5`, false, `"body":"5"`},
		"bytes":          {"", "\xff\x00", false, `"base64":"/wA="`},
		"nothing":        {"application/json", "", false, `{"status":200`},
		"cut":            {"application/json", `[1,"é`, true, `"body":"[1,\"é"`},
		"cut in a rune":  {"text/plain", "a\xc3", true, `"body":"a","truncated":true`},
		"too deep":       {"application/json", strings.Repeat("[", 60) + strings.Repeat("]", 60), false, `"body":"[[`},
		"deep in a text": {"application/json", `["` + strings.Repeat("[", 60) + `\""]`, false, `"body":["[[`},
		"control":        {"text/plain", strings.Repeat("\x01", webcall.MaxBody), false, `"base64":"AQEB`},
	} {
		c := &webCall{reply: "r"}
		b := c.answer(a, &webcall.Answer{Status: 200, Headers: map[string]string{"content-type": test.kind}, Body: []byte(test.body), Truncated: test.truncated}, "")
		require.True(t, json.Valid(b), name)
		require.Contains(t, string(b), test.want, name)
		require.LessOrEqual(t, len(b), maxWebAnswer, name)
	}
}
