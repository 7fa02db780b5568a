package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"syscall"
	"time"
)

const (
	maxAnswer   = 64 << 20 // bytes of an answer that the client takes
	maxLine     = 4 << 20  // bytes of one line of a list
	dialTimeout = 5 * time.Second
)

// Client asks a gateway over its socket. It is a Gateway itself: every method does what the gateway's does and returns its
// errors as *Error, with code, message and hint. An error of code CodeNoGateway means that nobody answered. Methods may be
// called from many goroutines.
type Client struct {
	socket string
	http   *http.Client
}

var _ Gateway = (*Client)(nil)

// Dial returns a client for the gateway at that socket. It connects when it is first asked, and anew after a lost connection.
func Dial(socket string) *Client {
	return &Client{socket: socket, http: &http.Client{
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				d := net.Dialer{Timeout: dialTimeout}
				return d.DialContext(ctx, "unix", socket)
			},
			DisableCompression: true,
			IdleConnTimeout:    time.Minute,
			MaxIdleConns:       2,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Socket is where the client asks.
func (c *Client) Socket() string { return c.socket }

// Close gives up idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// path joins escaped segments, and gives "" if one of them is empty, which no request has.
func path(segments ...string) string {
	p := "/v1"
	for _, s := range segments {
		switch s {
		case "":
			return ""
		case ".", "..":
			s = "%2E" + s[1:]
			if s == "%2E." {
				s = "%2E%2E"
			}
		default:
			s = url.PathEscape(s)
		}
		p += "/" + s
	}
	return p
}

// request sends one request. On success the caller closes the answer's body.
func (c *Client) request(ctx context.Context, method, path string, query url.Values, body any) (*http.Response, error) {
	if path == "" {
		return nil, Errorf(CodeBadRequest, "a name is empty")
	}
	var r io.Reader
	if body != nil {
		b, err := encode(body)
		if err != nil {
			return nil, Errorf(CodeBadRequest, "the request: %s", err)
		}
		r = bytes.NewReader(b)
	}
	u := "http://perigee" + path
	if len(query) > 0 {
		u += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, u, r)
	if err != nil {
		return nil, Errorf(CodeBadRequest, "the request: %s", err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.explain(ctx, err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if e := parseError(b); e != nil {
		return nil, e
	}
	return nil, Errorf(CodeInternal, "what answers at %s is not a gateway that this program knows: %s", c.socket, resp.Status)
}

func parseError(b []byte) *Error {
	e := new(Error)
	if json.Unmarshal(b, e) != nil || e.Code == "" || e.Message == "" {
		return nil
	}
	return e
}

// explain turns an error of the connection into a sentence with what to do.
func (c *Client) explain(ctx context.Context, err error) error {
	no := func(format string, args ...any) *Error { return Errorf(CodeNoGateway, format, args...) }
	switch {
	case ctx.Err() != nil:
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return no("the gateway at %s did not answer in time", c.socket).WithHint("look at its log, and whether the machine is overloaded")
		}
		return ctx.Err()
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return no("no gateway answers at %s: is it running?", c.socket).WithHint("start it with: perigee run")
	case errors.Is(err, fs.ErrPermission):
		return no("you may not open %s", c.socket).WithHint("only the gateway's owner and group may: use sudo, or join the group that owns the socket")
	case errors.Is(err, syscall.ENOTSOCK), errors.Is(err, syscall.EINVAL), errors.Is(err, syscall.ENOTDIR):
		return no("%s is not a gateway's socket: %s", c.socket, rootCause(err))
	default:
		return no("the connection to the gateway at %s broke: %s", c.socket, rootCause(err)).WithHint("see whether it still runs: perigee status")
	}
}

// rootCause leaves away the wrapping of net/http, which names URLs that nobody typed.
func rootCause(err error) error {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err
		}
		err = next
	}
}

// call sends a request and decodes the answer.
func call[T any](ctx context.Context, c *Client, method, path string, query url.Values, body any) (T, error) {
	var v T
	ctx, cancel := context.WithTimeout(ctx, requestTimeout+10*time.Second) // the gateway gives up first, and says why
	defer cancel()
	resp, err := c.request(ctx, method, path, query, body)
	if err != nil {
		return v, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return v, c.explain(ctx, err)
	}
	if len(b) > maxAnswer {
		return v, Errorf(CodeInternal, "the gateway's answer is larger than %d MiB", maxAnswer>>20)
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return v, Errorf(CodeInternal, "the gateway's answer is not understood: %s", err).WithHint("compare versions with: perigee version")
	}
	return v, nil
}

// each reads a list of lines. An error of emit ends it.
func each[T any](ctx context.Context, c *Client, path string, query url.Values, emit func(T) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	resp, err := c.request(ctx, http.MethodGet, path, query, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	in := newLineReader(resp.Body)
	for {
		line, err := in.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if errors.Is(err, errLongLine) {
			return Errorf(CodeInternal, "a line of the gateway's answer is longer than %d MiB", maxLine>>20)
		}
		if err != nil {
			return c.explain(ctx, err)
		}
		var v T
		if err := json.Unmarshal(line, &v); err != nil {
			return Errorf(CodeInternal, "a line of the gateway's answer is not understood: %s", err).WithHint("compare versions with: perigee version")
		}
		if err := emit(v); err != nil {
			return err
		}
	}
	return trailer(resp)
}

// trailer returns the error that ended an answer after its beginning.
func trailer(resp *http.Response) error {
	t := resp.Trailer.Get(errorTrailer)
	if t == "" {
		return nil
	}
	if e := parseError([]byte(t)); e != nil {
		return e
	}
	return Errorf(CodeInternal, "the answer ended with an error: %s", t)
}

// params builds a query out of what is not zero.
func params(kv ...any) url.Values {
	q := url.Values{}
	for i := 0; i < len(kv); i += 2 {
		name := fmt.Sprint(kv[i])
		switch v := kv[i+1].(type) {
		case string:
			if v != "" {
				q.Set(name, v)
			}
		case int:
			if v != 0 {
				q.Set(name, strconv.Itoa(v))
			}
		case bool:
			if v {
				q.Set(name, "true")
			}
		case *string:
			if v != nil {
				q.Set(name, *v)
			}
		}
	}
	return q
}
