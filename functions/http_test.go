package functions

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestURLs(t *testing.T) {
	for raw, want := range map[string]string{
		"https://api.example.com/v1/a?b=c":      "https://api.example.com/v1/a?b=c",
		"HTTPS://API.Example.com:443/v1/":       "https://api.example.com/v1/",
		"http://nas:8080":                       "http://nas:8080/",
		"http://[fd00::1]:80/x":                 "http://[fd00::1]/x",
		"https://a.example/x%20y":               "https://a.example/x%20y",
		"":                                      "!is no URL that begins with",
		"ftp://a/b":                             "!is no URL that begins with",
		"https:a/b":                             "!is no URL that begins with",
		"https://":                              "!is no URL that begins with",
		"https://:443/":                         "!is no URL that begins with",
		"http://a\n/":                           "!is no URL that begins with",
		"https://user:secret@a/b":               "!a URL has no user and password here; use headers",
		"https://a/b#c":                         "!has a #",
		"https://a/b#":                          "!has a #",
		"https://b\u00fccher.example/":          "!xn-- form",
		"https://a.example./":                   "!ends in a dot",
		"http://[fe80::1%25eth0]/":              "!has a zone",
		"https://a/v1/../admin":                 `!".."`,
		"https://a/v1/%2e%2e/admin":             `!".."`,
		"https://a/v1/..%2Fadmin":               `!".."`,
		"https://a/v1//x":                       `!"//"`,
		"https://a/v1/./x":                      `!"."`,
		"https://a/v1/\\x":                      `!backslash`,
		"https://a/" + strings.Repeat("x", 3e3): "!at most 2048",
	} {
		u, err := ParseURL(raw)
		if fault, bad := strings.CutPrefix(want, "!"); bad {
			require.ErrorContains(t, err, fault, raw)
			continue
		}
		require.NoError(t, err, raw)
		require.Equal(t, want, u.String())
	}
}

func TestHTTPRules(t *testing.T) {
	for _, test := range []struct {
		rule, url string
		allowed   bool
	}{
		{"https://api.example.com/v1/*", "https://api.example.com/v1/", true},
		{"https://api.example.com/v1/*", "https://API.example.com:443/v1/a/b?c", true},
		{"https://api.example.com/v1/*", "https://api.example.com/v1", false},
		{"https://api.example.com/v1/*", "https://api.example.com/v10/", false},
		{"https://api.example.com/v1/*", "http://api.example.com/v1/", false},
		{"https://api.example.com/v1/*", "https://api.example.com:444/v1/", false},
		{"https://api.example.com/v1/*", "https://api.example.com.evil.example/v1/", false},
		{"https://api.example.com/v1/*", "https://evil.example/?https://api.example.com/v1/", false},
		{"https://api.example.com/v1/a", "https://api.example.com/v1/a?x=1", true},
		{"https://api.example.com/v1/a", "https://api.example.com/v1/a/", false},
		{"https://api.example.com/", "https://api.example.com", true},
		{"https://api.example.com/", "https://api.example.com/x", false},
		{"http://192.168.1.5:8080/*", "http://192.168.1.5:8080/x", true},
	} {
		rule, err := ParseHTTPRule(test.rule)
		require.NoError(t, err)
		require.Equal(t, test.rule, rule.String())
		u, err := ParseURL(test.url)
		require.NoError(t, err)
		require.Equal(t, test.allowed, rule.Allows(u), "%s %s", test.rule, test.url)
	}
	for rule, want := range map[string]string{
		"https://api.example.com":      `has no path; write https://api.example.com/* for everything there`,
		"https://*.example.com/*":      `a * may stand at the end of a path`,
		"https://api.example.com/v1*":  `a * stands behind a /`,
		"https://api.example.com/{x}/": `a * may stand at the end`,
		"https://api.example.com/?a=*": `queries are always allowed`,
		"*":                            `is no URL`,
	} {
		_, err := ParseHTTPRule(rule)
		require.ErrorContains(t, err, want, rule)
	}
	address := func(s string) string { r, _ := ParseHTTPRule(s); return r.Address().String() }
	require.Equal(t, "192.168.1.5", address("http://192.168.1.5:8080/*"))
	require.Equal(t, "192.168.1.5", address("http://[::ffff:192.168.1.5]/*"))
	require.Equal(t, "invalid IP", address("http://nas/*"))
}

func TestHTTPPermissions(t *testing.T) {
	s, err := ParseSpec("f", []byte("triggers: [{every: 1m}]\npermissions:\n  http:\n    - https://api.example.com/v1/*\n"+
		"    - {url: http://nas:8080/*, private: true}\n  secrets: [token]\n"), "x")
	require.NoError(t, err)
	require.Equal(t, []HTTPRule{{"https://api.example.com", "/v1/", true, false}, {"http://nas:8080", "/", true, true}}, s.Permissions.HTTP)
	require.Equal(t, []string{"call https://api.example.com/v1/*", "call, also at a private address, http://nas:8080/*", "secret token"}, s.Permissions.Lines())
	require.Equal(t, []string{"token"}, s.Needs().Secrets)
	require.True(t, s.Permissions.AllowsSecret("token"))
	require.False(t, s.Permissions.AllowsSecret("other"))
	u, err := ParseURL("http://nas:8080/x")
	require.NoError(t, err)
	rule, ok := s.Permissions.AllowsHTTP(u)
	require.True(t, ok && rule.Private)
	require.Equal(t, `add to function.yaml: permissions: {http: ["https://a.example/b"]}`, HTTPHint("https://A.example/b?token=x"))
	require.Equal(t, "add to function.yaml: permissions: {secrets: [token]}", SecretHint("token"))
	_, err = ParseSpec("f", []byte("triggers: [{every: 1m}]\npermissions: {http: [https://api.example.com/v1/*, 'https://b.example/*']}\n"), "x")
	require.NoError(t, err, "also in a list on one line")
}

func TestHTTPCalls(t *testing.T) {
	good := func() *HTTPCall {
		return &HTTPCall{Method: "POST", Headers: []HTTPHeader{{"Accept", "*/*"}, {"X-Key", "ä b"}}, Body: []byte("x"), Reply: "posted", Timeout: time.Second}
	}
	got, err := DecodeHTTPCall(good().Encode())
	require.NoError(t, err)
	require.Equal(t, good(), got)
	for want, change := range map[string]func(c *HTTPCall){
		`"TRACE" is no method`:                      func(c *HTTPCall) { c.Method = "TRACE" },
		"at most 1m0s":                              func(c *HTTPCall) { c.Timeout = time.Hour },
		"reply is a name":                           func(c *HTTPCall) { c.Reply = "a\x00" },
		`header "host" is the gateway's own`:        func(c *HTTPCall) { c.Headers[0].Name = "host" },
		`header "Proxy-Authorization" is the`:       func(c *HTTPCall) { c.Headers[0].Name = "Proxy-Authorization" },
		`header "Idempotency-Key" is the gateway`:   func(c *HTTPCall) { c.Headers[0].Name = "Idempotency-Key" },
		`"a b" is no name of a header`:              func(c *HTTPCall) { c.Headers[0].Name = "a b" },
		`has a line break`:                          func(c *HTTPCall) { c.Headers[0].Value = "a\r\nHost: b" },
		`header "X-Key" is given twice`:             func(c *HTTPCall) { c.Headers[0].Name = "x-KEY" },
		`the headers have 9015 bytes, at most 8192`: func(c *HTTPCall) { c.Headers[0].Value = strings.Repeat("a", 9000) },
	} {
		c := good()
		change(c)
		require.ErrorContains(t, c.Check(), want)
		_, err := DecodeHTTPCall(c.Encode())
		require.Error(t, err)
	}
	_, err = DecodeHTTPCall(append(good().Encode(), 0))
	require.Error(t, err)
}

// What a rule of one origin allows stays at that origin and below its path, however the URL is written.
func TestHTTPRulesHold(t *testing.T) {
	rule, err := ParseHTTPRule("https://a.example/v1/*")
	require.NoError(t, err)
	rapid.Check(t, func(t *rapid.T) {
		parts := rapid.SliceOf(rapid.SampledFrom([]string{"https://", "http://", "a.example", "/", "v1", "..", "%2e", "%2F", ":443", "@", "?", "b", ".", "\\", "//"}))
		raw := strings.Join(parts.Draw(t, "parts"), "")
		u, err := ParseURL(raw)
		if err != nil || !rule.Allows(u) {
			return
		}
		require.Equal(t, "a.example", u.Hostname())
		require.Equal(t, "https", u.Scheme)
		require.True(t, strings.HasPrefix(u.Path, "/v1/"), u.Path)
		require.NotContains(t, u.Path, "..")
	})
}

func FuzzDecodeHTTPCall(f *testing.F) {
	f.Add((&HTTPCall{Method: "GET"}).Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := DecodeHTTPCall(b); err == nil {
			again, err := DecodeHTTPCall(c.Encode())
			require.NoError(t, err)
			require.Equal(t, c, again)
		}
	})
}
