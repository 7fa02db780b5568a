package engine

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/perigee-iot/perigee/functions"
	"github.com/perigee-iot/perigee/internal/wire"
)

// A call waits in the journal, which is on the disk, maybe for days. Secrets must not: where one stands in its URL, a header or the body, the
// journal has its name, and its value is put in when the call goes out, as it is then.

// secretText is a text with the places of secrets in it.
type secretText []piece

// piece is a part of a text: as it is, or the name of a secret.
type piece struct {
	secret bool
	text   string
}

// shortestSecret is the size of the smallest secret that is looked for.
const shortestSecret = 6

// withoutSecrets finds secrets in a text. Where two begin at the same place, the longer one counts.
func withoutSecrets(text string, list []functions.Secret) (out secretText) {
	for text != "" {
		at, found := len(text), -1
		for i, s := range list {
			if len(s.Value) < shortestSecret {
				continue
			}
			if n := strings.Index(text, s.Value); n >= 0 && (n < at || n == at && len(s.Value) > len(list[found].Value)) {
				at, found = n, i
			}
		}
		if at > 0 {
			out = append(out, piece{text: text[:at]})
		}
		if found < 0 {
			break
		}
		out = append(out, piece{secret: true, text: list[found].Name})
		text = text[at+len(list[found].Value):]
	}
	return out
}

// with puts the values in.
func (t secretText) with(get func(name string) (string, error)) (string, error) {
	var b strings.Builder
	for _, p := range t {
		v := p.text
		if p.secret {
			var err error
			if v, err = get(p.text); err != nil {
				return "", err
			}
		}
		b.WriteString(v)
	}
	return b.String(), nil
}

// shown is the text for people.
func (t secretText) shown() string {
	s, _ := t.with(func(string) (string, error) { return "***", nil })
	return s
}

func (t secretText) encode(w *wire.Writer) {
	w.Uint(uint64(len(t)))
	for _, p := range t {
		w.Bool(p.secret)
		w.String(p.text)
	}
}

// maxPieces bounds what a damaged entry can ask for; the smallest secrets in the largest body are fewer.
const maxPieces = 1 << 18

func decodeText(r *wire.Reader) (t secretText) {
	for range r.Count(maxPieces) {
		t = append(t, piece{secret: r.Bool(), text: r.String()})
	}
	return t
}

// webCall is a call as the journal has it: the value of its action.
type webCall struct {
	method  string
	url     secretText
	names   []string // of headers
	values  []secretText
	body    secretText
	hasBody bool
	timeout time.Duration
	reply   string
	key     string
	rule    functions.HTTPRule // that permitted it
}

const webCallVersion = 1

func (c *webCall) encode() []byte {
	w := wire.NewWriter(nil)
	w.Byte(webCallVersion)
	w.String(c.method)
	c.url.encode(w)
	w.Uint(uint64(len(c.names)))
	for i, name := range c.names {
		w.String(name)
		c.values[i].encode(w)
	}
	w.Bool(c.hasBody)
	c.body.encode(w)
	w.Int(int64(c.timeout))
	w.String(c.reply)
	w.String(c.key)
	w.String(c.rule.Origin)
	w.String(c.rule.Path)
	w.Bool(c.rule.Prefix)
	w.Bool(c.rule.Private)
	return w.Data()
}

func decodeWebCall(b []byte) (*webCall, error) {
	r := wire.NewReader(b)
	if v := r.Byte(); r.Err() == nil && v != webCallVersion {
		return nil, fmt.Errorf("a call of version %d, this gateway reads version %d", v, webCallVersion)
	}
	c := &webCall{method: r.String(), url: decodeText(r)}
	for range r.Count(functions.MaxHTTPHeaders) {
		c.names = append(c.names, r.String())
		c.values = append(c.values, decodeText(r))
	}
	c.hasBody, c.body = r.Bool(), decodeText(r)
	c.timeout, c.reply, c.key = time.Duration(r.Int()), r.String(), r.String()
	c.rule = functions.HTTPRule{Origin: r.String(), Path: r.String(), Prefix: r.Bool(), Private: r.Bool()}
	return c, r.Done()
}

// newWebCall makes of an effect, which has been checked, what the journal keeps.
func newWebCall(x *functions.Effect, key string, p *functions.Permissions, list []functions.Secret) (*webCall, error) {
	call, err := functions.DecodeHTTPCall(x.Value)
	if err != nil {
		return nil, err
	}
	u, err := functions.ParseURL(x.Name)
	if err != nil {
		return nil, err
	}
	rule, ok := p.AllowsHTTP(u)
	if !ok {
		return nil, errors.New("a call that is not permitted")
	}
	c := &webCall{method: call.Method, url: withoutSecrets(x.Name, list), hasBody: call.Body != nil, body: withoutSecrets(string(call.Body), list),
		timeout: call.Timeout, reply: call.Reply, key: key, rule: rule}
	for _, h := range call.Headers {
		c.names, c.values = append(c.names, h.Name), append(c.values, withoutSecrets(h.Value, list))
	}
	return c, nil
}
