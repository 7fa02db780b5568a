package mqttclient

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/perigee-iot/perigee/drivers"
)

// Options of New. The zero value of each field but URL and ClientID means the default given with it.
type Options struct {
	URL          string        // tcp:// or mqtt:// (port 1883), ssl:// or mqtts:// (port 8883); may carry a user and a password
	Username     string        // default: the URL's
	PasswordFile string        // read at every connect, one trailing newline is cut; default: the URL's password
	TLS          TLS           // only for ssl:// and mqtts://
	ClientID     string        // of the first session for events; the others and the publisher append to it. Stable over restarts
	KeepAlive    time.Duration // whole seconds; 30 s
	Dir          string        // where the sessions' subscriptions are remembered over restarts; empty: one session only
	Log          *slog.Logger  // slog.Default()
	Marks        drivers.Marks // nil: nobody keeps marks
}

// TLS says how the broker and the gateway prove who they are. There is no way not to check the broker.
type TLS struct {
	CA   string // PEM file of the authorities to trust; default: the system's
	Cert string // PEM file of the gateway's certificate; with Key
	Key  string
}

// target is where to connect, taken apart and checked once.
type target struct {
	address  string // host:port
	url      string // without user and password: what may be shown
	tls      *tls.Config
	user     string
	password string // of the URL
	file     string // of the password
}

// parseTarget checks what can be checked without the network. Its errors never repeat the URL, which may hold a password.
func parseTarget(o Options) (*target, error) {
	u, err := url.Parse(o.URL)
	if err != nil || u.Hostname() == "" {
		return nil, errors.New("the broker's url is not valid: write it like tcp://host:1883 or mqtts://host:8883")
	}
	t := &target{user: o.Username, file: o.PasswordFile}
	port, secure := "1883", false
	switch u.Scheme {
	case "tcp", "mqtt":
	case "ssl", "mqtts", "tls":
		port, secure = "8883", true
	default:
		return nil, fmt.Errorf("the broker's url begins with %q: this gateway knows tcp://, mqtt://, ssl:// and mqtts://", u.Scheme)
	}
	if u.Port() != "" {
		port = u.Port()
	}
	if strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
		return nil, fmt.Errorf("the broker's url has something after %s: write the host and the port only", u.Hostname())
	}
	t.address = net.JoinHostPort(u.Hostname(), port)
	t.url = u.Scheme + "://" + t.address
	if u.User != nil {
		if t.user == "" {
			t.user = u.User.Username()
		}
		if t.file == "" && t.user == u.User.Username() {
			t.password, _ = u.User.Password()
		}
	}
	if t.user == "" && t.file != "" {
		return nil, errors.New("the broker has a password_file but no username: set broker.username")
	}
	if !secure && o.TLS != (TLS{}) {
		return nil, fmt.Errorf("the broker has tls settings but its url is %s: write mqtts://", t.url)
	}
	if secure {
		if t.tls, err = tlsConfig(o.TLS, u.Hostname()); err != nil {
			return nil, err
		}
	}
	return t, nil
}

func tlsConfig(o TLS, host string) (*tls.Config, error) {
	cfg := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
	if o.CA != "" {
		pem, err := os.ReadFile(o.CA)
		if err != nil {
			return nil, fmt.Errorf("reading broker.tls.ca: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("broker.tls.ca: %s holds no certificate in PEM form", o.CA)
		}
	}
	if (o.Cert == "") != (o.Key == "") {
		return nil, errors.New("broker.tls needs cert and key together")
	}
	if o.Cert != "" {
		pair, err := tls.LoadX509KeyPair(o.Cert, o.Key)
		if err != nil {
			return nil, fmt.Errorf("reading broker.tls.cert and key: %w", err)
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return cfg, nil
}

// credentials returns the user and the password of the next connection.
func (t *target) credentials() (user, password string, err error) {
	if t.file == "" {
		return t.user, t.password, nil
	}
	b, err := os.ReadFile(t.file)
	if err != nil {
		return "", "", fmt.Errorf("reading broker.password_file: %w", err)
	}
	b = bytes.TrimSuffix(b, []byte("\n"))
	return t.user, string(bytes.TrimSuffix(b, []byte("\r"))), nil
}
