package functions

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/perigee-iot/perigee/internal/wire"
)

// Bounds of an HTTP call.
const (
	MaxURL             = 2 << 10 // bytes
	MaxHTTPHeaders     = 32
	MaxHTTPHeaderBytes = 8 << 10 // of all names and values
	MaxHTTPTimeout     = time.Minute
	DefaultHTTPTimeout = 10 * time.Second
	MaxHTTPLife        = 7 * 24 * time.Hour // the longest not_after of a call
	DefaultHTTPLife    = time.Hour
)

// HTTPCall is what an effect of the kind CallHTTP asks for beside its URL, which is the effect's Name.
type HTTPCall struct {
	Method  string
	Headers []HTTPHeader // by name, each name once
	Body    []byte       // nil: none
	Reply   string       // what event.reply is when the answer comes; "": no answer is wanted
	Timeout time.Duration
}

// HTTPHeader is one header of a call.
type HTTPHeader struct{ Name, Value string }

const httpCallVersion = 1

// Encode is the call as the Value of an effect.
func (c *HTTPCall) Encode() []byte {
	w := wire.NewWriter(nil)
	w.Byte(httpCallVersion)
	w.String(c.Method)
	w.String(c.Reply)
	w.Uint(uint64(max(c.Timeout, 0)))
	w.Uint(uint64(len(c.Headers)))
	for _, h := range c.Headers {
		w.String(h.Name)
		w.String(h.Value)
	}
	w.Bytes(c.Body)
	return w.Data()
}

// DecodeHTTPCall reads what Encode wrote, and checks it. The body shares the memory of b.
func DecodeHTTPCall(b []byte) (*HTTPCall, error) {
	r := wire.NewReader(b)
	if v := r.Byte(); r.Err() == nil && v != httpCallVersion {
		r.Fail("a call of version %d", v)
	}
	c := &HTTPCall{Method: r.String(), Reply: r.String()}
	timeout := r.Uint()
	for range r.Count(MaxHTTPHeaders) {
		c.Headers = append(c.Headers, HTTPHeader{Name: r.String(), Value: r.String()})
	}
	c.Body = r.Bytes()
	if err := r.Done(); err != nil {
		return nil, fmt.Errorf("an HTTP call: %w", err)
	}
	if timeout > uint64(MaxHTTPTimeout) {
		return nil, fmt.Errorf("an HTTP call has at most %s", MaxHTTPTimeout)
	}
	c.Timeout = time.Duration(timeout)
	return c, c.Check()
}

// Check says what of a call cannot be carried out.
func (c *HTTPCall) Check() error {
	if !slices.Contains([]string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}, c.Method) {
		return fmt.Errorf("%q is no method; there are GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS", short(c.Method))
	}
	if c.Timeout < 0 || c.Timeout > MaxHTTPTimeout {
		return fmt.Errorf("timeout is at most %s", MaxHTTPTimeout)
	}
	if len(c.Reply) > 200 || !utf8.ValidString(c.Reply) || strings.ContainsRune(c.Reply, 0) {
		return errors.New("reply is a name of at most 200 bytes")
	}
	if len(c.Headers) > MaxHTTPHeaders {
		return fmt.Errorf("%d headers, at most %d are allowed", len(c.Headers), MaxHTTPHeaders)
	}
	size := 0
	for i, h := range c.Headers {
		if err := checkHeader(h); err != nil {
			return err
		}
		if slices.ContainsFunc(c.Headers[:i], func(o HTTPHeader) bool { return strings.EqualFold(o.Name, h.Name) }) {
			return fmt.Errorf("header %q is given twice", h.Name)
		}
		size += len(h.Name) + len(h.Value)
	}
	if size > MaxHTTPHeaderBytes {
		return fmt.Errorf("the headers have %d bytes, at most %d are allowed", size, MaxHTTPHeaderBytes)
	}
	return nil
}

// checkHeader refuses what belongs to the connection, or to the gateway.
func checkHeader(h HTTPHeader) error {
	token := func(c rune) bool {
		return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("!#$%&'*+-.^_`|~", c)
	}
	if h.Name == "" || len(h.Name) > 128 || strings.ContainsFunc(h.Name, func(c rune) bool { return !token(c) }) {
		return fmt.Errorf("%q is no name of a header", short(h.Name))
	}
	switch name := strings.ToLower(h.Name); {
	case slices.Contains([]string{"host", "connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "content-length",
		"expect", "idempotency-key"}, name), strings.HasPrefix(name, "proxy-"):
		return fmt.Errorf("header %q is the gateway's own", h.Name)
	}
	if strings.ContainsFunc(h.Value, func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f || c == utf8.RuneError }) {
		return fmt.Errorf("the value of header %q has a line break, a control character or bytes that are no text", h.Name)
	}
	return nil
}

// ParseURL reads the URL of a call, or of a permission. What could make it mean another place than it seems to is refused.
func ParseURL(raw string) (*url.URL, error) {
	if len(raw) > MaxURL {
		return nil, fmt.Errorf("a URL of %d bytes, at most %d are allowed", len(raw), MaxURL)
	}
	u, err := url.Parse(raw)
	switch {
	case err != nil, u.Opaque != "", u.Scheme != "http" && u.Scheme != "https", u.Hostname() == "":
		return nil, fmt.Errorf("%q is no URL that begins with https:// or http://", short(raw))
	case u.User != nil:
		return nil, errors.New("a URL has no user and password here; use headers")
	case u.Fragment != "" || strings.Contains(raw, "#"):
		return nil, fmt.Errorf("%q has a #, which is never sent", short(raw))
	case strings.ContainsFunc(u.Hostname(), func(c rune) bool { return c >= 0x80 }):
		return nil, fmt.Errorf("%q has a host with letters beyond ASCII; write its xn-- form", short(raw))
	case strings.HasSuffix(u.Hostname(), ".") || strings.Contains(u.Hostname(), "%"):
		return nil, fmt.Errorf("%q has a host that ends in a dot or has a zone", short(raw))
	}
	if u.Path == "" {
		u.Path = "/"
	}
	p := u.EscapedPath()
	low := strings.ToLower(p)
	if strings.Contains(low, "%2e") || strings.Contains(low, "%2f") || strings.Contains(low, "%5c") || strings.Contains(p, "\\") ||
		strings.Contains(p, "//") || path.Clean(p) != strings.TrimSuffix(p, "/") && p != "/" {
		return nil, fmt.Errorf(`%q has "..", ".", "//", a backslash or an escaped one of them in its path`, short(raw))
	}
	u.Host = host(u)
	return u, nil
}

// host is a URL's host in lower case, without the port that its scheme has anyway.
func host(u *url.URL) string {
	h := strings.ToLower(u.Host)
	if p := u.Port(); p == "" || p == map[string]string{"http": "80", "https": "443"}[u.Scheme] {
		h = strings.TrimSuffix(strings.TrimSuffix(h, p), ":")
	}
	return h
}

// Origin is the scheme and the host of a URL of ParseURL: what calls have their order by.
func Origin(u *url.URL) string { return u.Scheme + "://" + u.Host }

// HTTPRule permits calls: to one path of an origin, or to all that begin with it.
type HTTPRule struct {
	Origin  string // https://api.example.com
	Path    string // /v1/
	Prefix  bool   // and all below
	Private bool   // the host may be at a private address, such as of the local network or of this machine
}

// ParseHTTPRule reads https://api.example.com/v1/*.
func ParseHTTPRule(s string) (HTTPRule, error) {
	plain, prefix := strings.CutSuffix(s, "*")
	if strings.ContainsAny(plain, "*{}?") {
		return HTTPRule{}, fmt.Errorf("%q: a * may stand at the end of a path, nothing else is a pattern, and queries are always allowed", short(s))
	}
	u, err := ParseURL(plain)
	switch {
	case err != nil:
		return HTTPRule{}, err
	case prefix && !strings.HasSuffix(plain, "/"):
		return HTTPRule{}, fmt.Errorf("%q: a * stands behind a /", short(s))
	case !prefix && strings.Count(plain, "/") < 3:
		return HTTPRule{}, fmt.Errorf("%q has no path; write %s/* for everything there", short(s), Origin(u))
	}
	return HTTPRule{Origin: Origin(u), Path: u.EscapedPath(), Prefix: prefix}, nil
}

// String is the rule as it is written.
func (r HTTPRule) String() string {
	s := r.Origin + r.Path
	if r.Prefix {
		s += "*"
	}
	return s
}

// Allows says whether the rule permits a URL of ParseURL.
func (r HTTPRule) Allows(u *url.URL) bool {
	p := u.EscapedPath()
	return Origin(u) == r.Origin && (p == r.Path || r.Prefix && strings.HasPrefix(p, r.Path))
}

// Address is the address that the rule itself names, the zero value if it names a host.
func (r HTTPRule) Address() netip.Addr {
	u, err := url.Parse(r.Origin)
	if err != nil {
		return netip.Addr{}
	}
	a, _ := netip.ParseAddr(u.Hostname()) // the zero value for a name
	return a.Unmap()
}

// AllowsHTTP finds the rule that permits a URL of ParseURL. If several do, one that is private wins.
func (p Permissions) AllowsHTTP(u *url.URL) (rule HTTPRule, ok bool) {
	for _, r := range p.HTTP {
		if r.Allows(u) && (!ok || r.Private) {
			rule, ok = r, true
		}
	}
	return rule, ok
}

// AllowsSecret says whether a function may have a secret.
func (p Permissions) AllowsSecret(name string) bool { return slices.Contains(p.Secrets, name) }

// HTTPHint says what to add for a call that is not permitted. raw need be no URL.
func HTTPHint(raw string) string {
	if u, err := ParseURL(raw); err == nil {
		u.RawQuery = ""
		raw = u.String()
	}
	return hint("http: [" + quote(raw) + "]")
}

// SecretHint says what to add for a secret that is not permitted.
func SecretHint(name string) string { return hint("secrets: [" + quote(name) + "]") }
