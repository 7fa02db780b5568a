// Package webcall makes the HTTP requests of functions. A function may have been written by anybody, and what it calls may be
// anybody's: both sides are bounded, and a request goes nowhere but where its permission says.
//
// Where a name leads is decided by whoever runs its DNS, and can change between a look and a connection. So the address is
// checked on the socket, just before it is connected: one of the local network or of this machine is refused unless the
// permission names such an address itself, or says that it may be private.
//
// A [Client] is for one place, and makes one request at a time. It follows redirects to permitted URLs of the same origin only,
// uses no proxy, and takes no compressed answers, which could be larger than they seem. Its errors never hold more of a URL than the
// origin: the rest may hold secrets.
package webcall

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/perigee-iot/perigee/functions"
)

// Bounds of an answer.
const (
	MaxBody        = 64 << 10
	maxHeaders     = 64
	maxHeaderBytes = 8 << 10  // that are handed on
	maxHeaderRead  = 64 << 10 // that a server may send
	maxRedirects   = 5
	maxRetryAfter  = time.Hour
)

// Place is where the requests of a client may go, beside public addresses.
type Place struct {
	Private bool       // to any address of a host
	Address netip.Addr // to this alone, since the permission names it; the zero value: it names a host
	Local   bool       // to this machine, since the permission names localhost
}

// PlaceOf is the place that a permission names.
func PlaceOf(r functions.HTTPRule) Place {
	u, err := url.Parse(r.Origin)
	return Place{Private: r.Private, Address: r.Address(), Local: err == nil && u.Hostname() == "localhost"}
}

// Options of a client. The zero value is ready to use.
type Options struct {
	Lookup func(ctx context.Context, host string) ([]netip.Addr, error) // nil: the machine's
	Roots  *x509.CertPool                                               // whom to trust; nil: the machine's
}

// Client makes requests to one place.
type Client struct {
	place     Place
	lookup    func(ctx context.Context, host string) ([]netip.Addr, error)
	transport *http.Transport
}

// New makes a client.
func New(p Place, o Options) *Client {
	c := &Client{place: p, lookup: o.Lookup}
	c.transport = &http.Transport{
		DialContext:            c.dial,
		TLSClientConfig:        &tls.Config{RootCAs: o.Roots, MinVersion: tls.VersionTLS12},
		DisableCompression:     true,
		MaxIdleConns:           1,
		IdleConnTimeout:        30 * time.Second,
		MaxResponseHeaderBytes: maxHeaderRead,
	}
	return c
}

// Close closes the connection that waits for another request, if there is one.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// Request is one request.
type Request struct {
	Method  string
	URL     string
	Headers []functions.HTTPHeader
	Body    []byte // nil: none
	ID      string // the Idempotency-Key
	Timeout time.Duration

	// May says whether a URL is permitted, which a redirect leads to.
	May func(u *url.URL) bool
}

// Answer is what the server answered.
type Answer struct {
	Status     int
	Headers    map[string]string // by name in lower case; the first of each
	Body       []byte
	Truncated  bool          // there was more
	RetryAfter time.Duration // that the server asks for; 0: it does not
	Stopped    string        // why a redirect was not followed; "": there was none, or it was
}

// Error is a request without an answer.
type Error struct {
	Err     error
	Reached bool // the request was sent, so that the server may have done what it asks for
	Final   bool // another try makes no sense
}

func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns what went wrong.
func (e *Error) Unwrap() error { return e.Err }

// errAddress is what the socket says of an address that is not permitted.
var errAddress = errors.New("not a public address; the permission must say {url: …, private: true}")

// Do makes a request. Its errors are *Error.
func (c *Client) Do(ctx context.Context, r Request) (*Answer, error) {
	u, err := functions.ParseURL(r.URL)
	if err != nil {
		return nil, &Error{Err: errors.New("its URL is none"), Final: true}
	}
	ctx, cancel := context.WithTimeout(ctx, r.Timeout)
	defer cancel()
	return c.do(ctx, r, u)
}

func (c *Client) do(ctx context.Context, r Request, u *url.URL) (*Answer, error) {
	var sent atomic.Bool
	trace := &httptrace.ClientTrace{WroteHeaders: func() { sent.Store(true) }}
	req, err := http.NewRequestWithContext(httptrace.WithClientTrace(ctx, trace), r.Method, u.String(), bytes.NewReader(r.Body))
	if err != nil {
		return nil, &Error{Err: fmt.Errorf("call %s: it cannot be sent", functions.Origin(u)), Final: true}
	}
	if r.Body == nil {
		req.Body, req.GetBody = http.NoBody, nil
	}
	req.Header.Set("User-Agent", "perigee")
	for _, h := range r.Headers {
		req.Header.Set(h.Name, h.Value)
	}
	req.Header.Set("Idempotency-Key", r.ID)
	stopped := ""
	client := http.Client{Transport: c.transport, CheckRedirect: func(next *http.Request, via []*http.Request) error {
		if stopped = refuseRedirect(u, next.URL, len(via), r.May); stopped != "" {
			return http.ErrUseLastResponse
		}
		next.Header.Del("Referer")
		return nil
	}}
	res, err := client.Do(req)
	if err != nil {
		return nil, c.failed(ctx, u, err, sent.Load())
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, MaxBody+1))
	if err != nil {
		return nil, c.failed(ctx, u, err, true)
	}
	a := &Answer{Status: res.StatusCode, Headers: headers(res.Header), RetryAfter: retryAfter(res.Header), Stopped: stopped}
	if a.Truncated = len(body) > MaxBody; a.Truncated {
		body = body[:MaxBody]
	}
	a.Body = body
	return a, nil
}

// refuseRedirect says why a redirect is not followed. What was meant for one origin (headers, a body) never goes to another.
func refuseRedirect(from, to *url.URL, n int, may func(*url.URL) bool) string {
	next, err := functions.ParseURL(to.String())
	switch {
	case n > maxRedirects:
		return fmt.Sprintf("it was redirected more than %d times", maxRedirects)
	case err != nil:
		return "the redirect was not followed: its URL is not one that a function may call"
	case functions.Origin(next) != functions.Origin(from):
		return "the redirect was not followed: it leads to another origin"
	case may == nil || !may(next):
		return "the redirect was not followed: permissions.http does not have where it leads"
	}
	return ""
}

// failed makes the error of a request, without what the library's errors tell of the URL.
func (c *Client) failed(ctx context.Context, u *url.URL, err error, sent bool) *Error {
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		err = wrapped.Err
	}
	origin := functions.Origin(u)
	switch {
	case errors.Is(err, errAddress):
		return &Error{Err: fmt.Errorf("call %s: %w", origin, err), Final: true}
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return &Error{Err: fmt.Errorf("call %s: no answer in time", origin), Reached: sent}
	}
	return &Error{Err: fmt.Errorf("call %s: %w", origin, err), Reached: sent}
}

// dial connects to an address that is permitted.
func (c *Client) dial(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{Control: func(_, address string, _ syscall.RawConn) error { return c.place.check(address) }}
	host, port, err := net.SplitHostPort(address)
	if err != nil || c.lookup == nil {
		return d.DialContext(ctx, network, address)
	}
	addrs, err := c.lookup(ctx, host)
	if err != nil {
		return nil, err
	}
	err = fmt.Errorf("there is no address of %s", host)
	for _, a := range addrs {
		var conn net.Conn
		if conn, err = d.DialContext(ctx, network, net.JoinHostPort(a.String(), port)); err == nil {
			return conn, nil
		}
	}
	return nil, err
}

// check says whether a socket may be connected to an address with a port.
func (p Place) check(address string) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("the address %s: %w", address, err)
	}
	a := ap.Addr().Unmap().WithZone("")
	switch {
	case p.Address.IsValid():
		if a == p.Address {
			return nil
		}
	case p.Local && a.IsLoopback(), public(a), p.Private && !a.IsUnspecified() && !a.IsMulticast() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return nil
	}
	return fmt.Errorf("%s is %w", a, errAddress)
}

// public says whether an address belongs to the public internet. Those that carry an address of version 4 in themselves
// (NAT64, 6to4, Teredo) are not taken for public, since they can lead to any.
func public(a netip.Addr) bool {
	if !a.IsGlobalUnicast() || a.IsPrivate() {
		return false
	}
	return !slices.ContainsFunc(reserved[:], func(p netip.Prefix) bool { return p.Contains(a) })
}

// reserved are the ranges of the IANA's registries of special addresses, beyond those that package netip knows.
var reserved = [...]netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("192.88.99.0/24"), netip.MustParsePrefix("198.18.0.0/15"),
	netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("240.0.0.0/4"),
	netip.MustParsePrefix("::/96"), netip.MustParsePrefix("64:ff9b::/96"), netip.MustParsePrefix("64:ff9b:1::/48"), netip.MustParsePrefix("100::/64"),
	netip.MustParsePrefix("2001::/23"), netip.MustParsePrefix("2001:db8::/32"), netip.MustParsePrefix("2002::/16"),
	netip.MustParsePrefix("3fff::/20"), netip.MustParsePrefix("5f00::/16"), netip.MustParsePrefix("fec0::/10"),
}

// headers are those that a function gets to see: bounded, and without cookies, which nothing keeps.
func headers(h http.Header) map[string]string {
	out, size := map[string]string{}, 0
	names := make([]string, 0, len(h))
	for name := range h {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		low := strings.ToLower(name)
		if len(out) == maxHeaders || low == "set-cookie" || len(h[name]) == 0 {
			continue
		}
		if n := len(name) + len(h[name][0]); size+n <= maxHeaderBytes {
			size += n
			out[low] = strings.ToValidUTF8(h[name][0], "\uFFFD")
		}
	}
	return out
}

func retryAfter(h http.Header) time.Duration {
	v := h.Get("Retry-After")
	d := time.Duration(0)
	if n, err := strconv.ParseUint(v, 10, 32); err == nil {
		d = time.Duration(n) * time.Second
	} else if t, err := http.ParseTime(v); err == nil {
		d = time.Until(t)
	}
	return min(max(d, 0), maxRetryAfter)
}
