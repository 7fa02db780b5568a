// Package mqttlink is the uplink over MQTT: to any broker or cluster, with QoS 1.
//
// A batch is published to {prefix}/{gateway}/streams/{stream}, and {prefix}/{gateway}/status tells, retained, whether the gateway
// is there: {"gateway":"gw-01","status":"online"}, or "offline" as a last will.
//
// A connection is a client of its own that never reconnects by itself, with a clean session: what a publish token says
// then belongs to this connection, and an acknowledgement cannot be mixed up with that of an earlier one. The
// broker's PUBACK is the acknowledgement. MQTT 3.1.1 has no way to refuse a message for good, so a batch is never refused here: a broker that
// does not take it drops the connection, and the uplink tries again with smaller batches.
package mqttlink

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/perigee-iot/perigee/sync/record"
	"github.com/perigee-iot/perigee/sync/uplink"
)

// Options of New. The zero value of each field means the default given with it; URL and Gateway are needed.
type Options struct {
	URL          string        // tcp://, mqtt:// (1883), ssl://, tls:// or mqtts:// (8883), a host and perhaps a port
	Gateway      string        // the gateway's id
	Prefix       string        // of all topics; "perigee"
	ClientID     string        // the same over restarts; "perigee-GATEWAY-uplink"
	Username     string        // none
	PasswordFile string        // file whose first line is the password; read at every connect
	TLS          TLS           // for ssl://, tls:// and mqtts://
	KeepAlive    time.Duration // whole seconds; an idle connection is probed that often; 30 s
	Timeout      time.Duration // of connecting, of one write, and of the answer to a probe; 10 s
}

// TLS names files in PEM, read at every connect, so that renewed certificates count without a restart.
type TLS struct {
	CA         string // authorities to trust instead of the system's
	Cert, Key  string // the client's certificate and key; both or none
	ServerName string // expected in the server's certificate instead of the URL's host
}

// Link is an uplink.Link over MQTT.
type Link struct {
	o      Options
	host   string // host:port
	secure bool
	shown  string
	rivals rivals
}

// New checks the options. It connects to nothing and reads no file yet.
func New(o Options) (*Link, error) {
	if o.Prefix == "" {
		o.Prefix = "perigee"
	}
	if o.ClientID == "" {
		o.ClientID = "perigee-" + o.Gateway + "-uplink"
	}
	if o.KeepAlive == 0 {
		o.KeepAlive = 30 * time.Second
	}
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Second
	}
	if err := record.Name(o.Gateway); err != nil {
		return nil, fmt.Errorf("the gateway's id: %w", err)
	}
	switch {
	case strings.ContainsAny(o.Prefix, "+#\x00") || strings.HasPrefix(o.Prefix, "$"):
		return nil, fmt.Errorf("prefix: %q is no beginning of a topic: it may have no +, # or NUL and no $ in front", o.Prefix)
	case o.KeepAlive < time.Second:
		return nil, fmt.Errorf("keepalive: %v is less than 1s", o.KeepAlive)
	case (o.TLS.Cert == "") != (o.TLS.Key == ""):
		return nil, errors.New("tls: cert and key go together, one of them is missing")
	case o.PasswordFile != "" && o.Username == "":
		return nil, errors.New("password_file without username")
	}
	l := &Link{o: o}
	if err := l.parse(o.URL); err != nil {
		return nil, err
	}
	if !l.secure && o.TLS != (TLS{}) {
		return nil, fmt.Errorf("tls is set, but the URL %s is without; write mqtts://", l.shown)
	}
	return l, nil
}

func (l *Link) parse(raw string) error {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" {
		return fmt.Errorf("url: it must look like mqtts://broker.example.com:8883 (or tcp://, mqtt://, ssl://)")
	}
	port := "1883"
	switch u.Scheme {
	case "tcp", "mqtt":
	case "ssl", "tls", "mqtts":
		l.secure, port = true, "8883"
	default:
		return fmt.Errorf("url: %q is no way to reach a broker; use tcp://, mqtt://, ssl:// or mqtts://", u.Scheme+"://")
	}
	if u.User != nil {
		return errors.New("url: no user and password in it, please; set username and password_file")
	}
	if u.Path != "" && u.Path != "/" || u.RawQuery != "" {
		return fmt.Errorf("url: nothing may follow the host and port of %s://%s", u.Scheme, u.Host)
	}
	if u.Port() != "" {
		port = u.Port()
	}
	if u.Hostname() == "" {
		return fmt.Errorf("url: no host in %s", raw)
	}
	l.host = net.JoinHostPort(u.Hostname(), port)
	l.shown = u.Scheme + "://" + l.host
	return nil
}

// String is the broker's URL.
func (l *Link) String() string { return l.shown }

// topic is a topic of this gateway.
func (l *Link) topic(rest string) string { return l.o.Prefix + "/" + l.o.Gateway + "/" + rest }

// status is the payload of the status topic.
func (l *Link) status(word string) []byte {
	b, _ := json.Marshal(map[string]string{"gateway": l.o.Gateway, "status": word}) // strings only: it cannot fail
	return b
}

// Connect opens a connection.
func (l *Link) Connect(ctx context.Context) (uplink.Conn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, 2*l.o.Timeout, fmt.Errorf("no answer within %v", 2*l.o.Timeout))
	defer cancel()
	c, err := l.open(ctx)
	if err != nil {
		l.rivals.none()
		return nil, fmt.Errorf("connect to %s: %w", l.shown, err)
	}
	return c, nil
}

func (l *Link) password() (string, error) {
	if l.o.PasswordFile == "" {
		return "", nil
	}
	b, err := os.ReadFile(l.o.PasswordFile)
	if err != nil {
		return "", fmt.Errorf("password_file: %w", err)
	}
	line, _, _ := strings.Cut(string(b), "\n")
	return strings.TrimSuffix(line, "\r"), nil
}

// dial opens the network connection, with TLS if the URL asks for it.
func (l *Link) dial(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, l.o.Timeout, fmt.Errorf("no answer within %v", l.o.Timeout))
	defer cancel()
	d := &net.Dialer{}
	if !l.secure {
		return d.DialContext(ctx, "tcp", l.host)
	}
	conf, err := l.tls()
	if err != nil {
		return nil, err
	}
	return (&tls.Dialer{NetDialer: d, Config: conf}).DialContext(ctx, "tcp", l.host)
}

func (l *Link) tls() (*tls.Config, error) {
	f := l.o.TLS
	conf := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: f.ServerName}
	if f.CA != "" {
		pem, err := os.ReadFile(f.CA)
		if err != nil {
			return nil, fmt.Errorf("tls.ca: %w", err)
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("tls.ca: %s holds no certificate in PEM", f.CA)
		}
	}
	if f.Cert != "" {
		pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
		if err != nil {
			return nil, fmt.Errorf("tls.cert and tls.key: %w", err)
		}
		conf.Certificates = []tls.Certificate{pair}
	}
	return conf, nil
}
