package webcall

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/functions"
)

// serve is a server on this machine, and the place that a permission for it names.
func serve(t *testing.T, h http.HandlerFunc) (base string, p Place) {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	rule, err := functions.ParseHTTPRule(s.URL + "/*")
	require.NoError(t, err)
	return s.URL, PlaceOf(rule)
}

func client(t *testing.T, p Place, o Options) *Client {
	t.Helper()
	c := New(p, o)
	t.Cleanup(c.Close)
	return c
}

func anywhere(*url.URL) bool { return true }

func get(u string) Request {
	return Request{Method: "GET", URL: u, ID: "id-1", Timeout: 10 * time.Second, May: anywhere}
}

func failure(t *testing.T, err error) *Error {
	t.Helper()
	var e *Error
	require.ErrorAs(t, err, &e)
	return e
}

func TestARequest(t *testing.T) {
	base, p := serve(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		w.Header().Set("Set-Cookie", "a=b")
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(http.StatusCreated)
		fmt.Fprintf(w, "%s %s %s %s|%s|%s|%s|%d", r.Method, r.RequestURI, b, r.Header.Get("X-A"), r.Header.Get("Idempotency-Key"),
			r.Header.Get("User-Agent"), r.Header.Get("Accept-Encoding"), r.ContentLength)
	})
	c := client(t, p, Options{})
	r := get(base + "/v1/x?a=b")
	r.Method, r.Body, r.Headers = "POST", []byte("hello"), []functions.HTTPHeader{{Name: "x-a", Value: "1"}}
	a, err := c.Do(t.Context(), r)
	require.NoError(t, err)
	require.Equal(t, 201, a.Status)
	require.Equal(t, "POST /v1/x?a=b hello 1|id-1|perigee||5", string(a.Body))
	require.Equal(t, 7*time.Second, a.RetryAfter)
	require.Equal(t, "7", a.Headers["retry-after"])
	require.NotContains(t, a.Headers, "set-cookie")
	require.False(t, a.Truncated)

	a, err = c.Do(t.Context(), get(base))
	require.NoError(t, err)
	require.Equal(t, "GET /  |id-1|perigee||0", string(a.Body))
}

func TestAnswersAreBounded(t *testing.T) {
	base, p := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/exact":
			_, _ = w.Write(make([]byte, MaxBody))
		case "/giant":
			for chunk := make([]byte, 1<<20); ; {
				if _, err := w.Write(chunk); err != nil {
					return
				}
			}
		case "/headers":
			for i := range 100 {
				w.Header().Set(fmt.Sprintf("X-%03d", i), strings.Repeat("x", 300))
			}
		case "/huge":
			w.Header().Set("X", strings.Repeat("x", 1<<20))
		}
	})
	c := client(t, p, Options{})
	a, err := c.Do(t.Context(), get(base+"/exact"))
	require.NoError(t, err)
	require.Len(t, a.Body, MaxBody)
	require.False(t, a.Truncated)
	a, err = c.Do(t.Context(), get(base+"/giant"))
	require.NoError(t, err)
	require.Len(t, a.Body, MaxBody)
	require.True(t, a.Truncated)
	a, err = c.Do(t.Context(), get(base+"/headers"))
	require.NoError(t, err)
	size := 0
	for k, v := range a.Headers {
		size += len(k) + len(v)
	}
	require.LessOrEqual(t, size, maxHeaderBytes)
	require.Greater(t, size, maxHeaderBytes/2)
	_, err = c.Do(t.Context(), get(base+"/huge"))
	require.True(t, failure(t, err).Reached)
}

func TestSlowServers(t *testing.T) {
	stop := make(chan struct{})
	base, p := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/body" {
			w.WriteHeader(200)
			_, _ = w.Write([]byte("some"))
			_ = http.NewResponseController(w).Flush()
		}
		<-stop
	})
	t.Cleanup(func() { close(stop) })
	for _, path := range []string{"/head", "/body"} {
		r := get(base + path)
		r.Timeout = 50 * time.Millisecond
		_, err := client(t, p, Options{}).Do(t.Context(), r)
		e := failure(t, err)
		require.Equal(t, "call "+base+": no answer in time", e.Error())
		require.True(t, e.Reached)
		require.False(t, e.Final)
	}
}

func TestAServerThatIsNotThere(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	base := "http://" + l.Addr().String()
	require.NoError(t, l.Close())
	_, err = client(t, Place{Private: true}, Options{}).Do(t.Context(), get(base+"/secret-path?key=secret"))
	e := failure(t, err)
	require.False(t, e.Reached)
	require.False(t, e.Final)
	require.Contains(t, e.Error(), "connection refused")
	require.NotContains(t, e.Error(), "secret")

	lookup := func(context.Context, string) ([]netip.Addr, error) { return nil, errors.New("no such host") }
	_, err = client(t, Place{}, Options{Lookup: lookup}).Do(t.Context(), get("https://api.example.com/"))
	e = failure(t, err)
	require.False(t, e.Reached || e.Final)
	require.Contains(t, e.Error(), "call https://api.example.com: no such host")
}

func TestRedirects(t *testing.T) {
	other, _ := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("another origin was called") })
	var mu sync.Mutex
	var seen []string
	var base string
	base, p := serve(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		seen = append(seen, r.Method+" "+r.URL.Path+" "+r.Header.Get("Idempotency-Key")+" "+r.Header.Get("Referer"))
		mu.Unlock()
		to, code := "", http.StatusTemporaryRedirect
		switch r.URL.Path {
		case "/v1/a":
			to = "/v1/b"
		case "/v1/see":
			to, code = "/v1/b", http.StatusSeeOther
		case "/v1/off":
			to = "/admin"
		case "/v1/dots":
			to = "/v1/%2e%2e/admin"
		case "/v1/other":
			to = other + "/v1/x"
		case "/v1/file":
			to = "file:///etc/passwd"
		case "/v1/loop":
			to = "/v1/loop"
		case "/v1/user":
			to = strings.Replace(base, "http://", "http://u:p@", 1) + "/v1/b"
		default:
			_, _ = w.Write([]byte("arrived"))
			return
		}
		w.Header().Set("Location", to)
		w.WriteHeader(code)
	})
	may := func(u *url.URL) bool { return strings.HasPrefix(u.Path, "/v1/") }
	c := client(t, p, Options{})
	call := func(path string) *Answer {
		r := get(base + path)
		r.Method, r.Body, r.May = "POST", []byte("x"), may
		seen = nil
		a, err := c.Do(t.Context(), r)
		require.NoError(t, err, path)
		return a
	}
	require.Equal(t, "arrived", string(call("/v1/a").Body))
	require.Equal(t, []string{"POST /v1/a id-1 ", "POST /v1/b id-1 "}, seen)
	require.Equal(t, "arrived", string(call("/v1/see").Body))
	require.Equal(t, []string{"POST /v1/see id-1 ", "GET /v1/b id-1 "}, seen)
	for path, why := range map[string]string{"/v1/off": "does not have where it leads", "/v1/dots": "not one that a function may call", "/v1/other": "another origin",
		"/v1/file": "not one that a function may call", "/v1/loop": "more than 5 times", "/v1/user": "not one that a function may call"} {
		a := call(path)
		require.Equal(t, 307, a.Status, path)
		require.Contains(t, a.Stopped, why, path)
	}
}

func TestAddresses(t *testing.T) {
	literal := func(s string) Place { return Place{Address: netip.MustParseAddr(s)} }
	for address, want := range map[string]struct{ public, private bool }{
		"93.184.216.34": {true, true}, "2606:2800:220:1::1": {true, true}, "::ffff:93.184.216.34": {true, true},
		"127.0.0.1": {false, true}, "127.8.8.8": {false, true}, "::1": {false, true}, "::ffff:127.0.0.1": {false, true},
		"10.1.2.3": {false, true}, "172.16.0.1": {false, true}, "192.168.1.1": {false, true}, "fd00::1": {false, true},
		"169.254.169.254": {false, true}, "fe80::1%eth0": {false, true}, "100.64.0.1": {false, true}, "192.0.0.1": {false, true},
		"198.18.0.1": {false, true}, "203.0.113.5": {false, true}, "64:ff9b::7f00:1": {false, true}, "2002:7f00:1::": {false, true},
		"2001:0:1::1": {false, true}, "::7f00:1": {false, true}, "fec0::1": {false, true}, "2001:db8::1": {false, true},
		"0.0.0.0": {}, "::": {}, "224.0.0.1": {}, "ff02::1": {}, "255.255.255.255": {}, "0.0.0.1": {false, true}, "240.0.0.1": {false, true},
	} {
		at := netip.AddrPortFrom(netip.MustParseAddr(address), 80).String()
		require.Equal(t, want.public, Place{}.check(at) == nil, address)
		require.Equal(t, want.private, Place{Private: true}.check(at) == nil, address)
	}
	require.NoError(t, literal("192.168.1.5").check("192.168.1.5:80"))
	require.NoError(t, literal("192.168.1.5").check("[::ffff:192.168.1.5]:80"))
	require.Error(t, literal("192.168.1.5").check("192.168.1.6:80"))
	require.Error(t, literal("192.168.1.5").check("93.184.216.34:80"))
	require.NoError(t, Place{Local: true}.check("[::1]:80"))
	require.Error(t, Place{Local: true}.check("192.168.1.6:80"))
	require.Error(t, Place{}.check("nonsense"))
}

// A name whose address changes to one of this machine between two looks, as in an attack by rebinding: no byte gets there.
func TestRebinding(t *testing.T) {
	base, _ := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("the server of this machine was called") })
	u, err := url.Parse(base)
	require.NoError(t, err)
	looks := 0
	lookup := func(_ context.Context, host string) ([]netip.Addr, error) {
		require.Equal(t, "api.example.com", host)
		looks++
		return []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::ffff:127.0.0.1")}, nil
	}
	c := client(t, Place{}, Options{Lookup: lookup})
	_, err = c.Do(t.Context(), get("http://api.example.com:"+u.Port()+"/"))
	e := failure(t, err)
	require.True(t, e.Final)
	require.False(t, e.Reached)
	require.ErrorIs(t, err, errAddress)
	require.Equal(t, 1, looks)
	// The machine's own resolver knows localhost.
	_, err = client(t, Place{}, Options{}).Do(t.Context(), get("http://localhost:"+u.Port()+"/"))
	require.ErrorIs(t, err, errAddress)
}

func TestTLS(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("safe")) }))
	s.Config.ErrorLog = nil
	s.StartTLS()
	t.Cleanup(s.Close)
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	port := s.URL[strings.LastIndex(s.URL, ":"):]
	lookup := func(context.Context, string) ([]netip.Addr, error) {
		return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
	}
	c := client(t, Place{Private: true}, Options{Lookup: lookup, Roots: roots})
	a, err := c.Do(t.Context(), get("https://example.com"+port+"/"))
	require.NoError(t, err)
	require.Equal(t, "safe", string(a.Body))
	_, err = c.Do(t.Context(), get("https://other.test"+port+"/"))
	e := failure(t, err)
	require.Contains(t, e.Error(), "certificate")
	require.False(t, e.Final, "the clock may be wrong")
	_, err = client(t, Place{Private: true}, Options{Lookup: lookup}).Do(t.Context(), get("https://example.com"+port+"/"))
	require.Contains(t, failure(t, err).Error(), "certificate")
}

func TestRetryAfter(t *testing.T) {
	for v, want := range map[string]time.Duration{"": 0, "3": 3 * time.Second, "-3": 0, "soon": 0, "99999999": time.Hour, "99999999999999": 0,
		"Mon, 01 Jan 1990 00:00:00 GMT": 0, "Fri, 01 Jan 2999 00:00:00 GMT": time.Hour} {
		require.Equal(t, want, retryAfter(http.Header{"Retry-After": {v}}), v)
	}
}
