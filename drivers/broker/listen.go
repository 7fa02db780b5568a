package broker

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/mochi-mqtt/server/v2/listeners"
)

// TLS names the files for tls:// listeners.
type TLS struct {
	Cert string // PEM certificate chain of the broker
	Key  string // its PEM private key
	// CA is a PEM file of the authorities whose client certificates are accepted. Clients need not have one, but one
	// that they show must be good. Empty: clients are not asked.
	CA string
}

// connectWithin is how long a connection may take to send its CONNECT.
const connectWithin = 10 * time.Second

// splitListen takes a listen URL apart.
func splitListen(s string) (scheme, address string, err error) {
	scheme, address, ok := strings.Cut(s, "://")
	switch {
	case !ok || address == "":
	case scheme == "unix":
		return scheme, address, nil
	case scheme == "tcp" || scheme == "tls":
		if _, _, err := net.SplitHostPort(address); err != nil {
			return "", "", fmt.Errorf("broker.listen: %q: %w", s, err)
		}
		return scheme, address, nil
	}
	return "", "", fmt.Errorf("broker.listen: %q: want tcp://HOST:PORT, tls://HOST:PORT or unix:///PATH", s)
}

func (t TLS) config() (*tls.Config, error) {
	if t.Cert == "" || t.Key == "" {
		return nil, errors.New("a tls:// listener needs broker.tls.cert and broker.tls.key")
	}
	pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
	if err != nil {
		return nil, fmt.Errorf("broker.tls: %w", err)
	}
	conf := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	if t.CA != "" {
		pem, err := os.ReadFile(t.CA)
		if err != nil {
			return nil, fmt.Errorf("broker.tls.ca: %w", err)
		}
		conf.ClientCAs = x509.NewCertPool()
		if !conf.ClientCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("broker.tls.ca: %s has no PEM certificate", t.CA)
		}
		conf.ClientAuth = tls.VerifyClientCertIfGiven
	}
	return conf, nil
}

// listener is one bound address. It is mochi's Listener, and bounds what can connect.
type listener struct {
	url  string
	s    *serving
	ln   net.Listener
	tls  *tls.Config
	wg   sync.WaitGroup
	mu   sync.Mutex
	open map[*conn]struct{}
	end  bool
}

var _ listeners.Listener = (*listener)(nil)

// bind opens one listen URL.
func bind(ctx context.Context, s *serving, url string) (*listener, error) {
	scheme, address, err := splitListen(url)
	if err != nil {
		return nil, err
	}
	l := &listener{url: url, s: s, open: map[*conn]struct{}{}}
	network := "tcp"
	switch scheme {
	case "tls":
		if l.tls, err = s.b.opts.TLS.config(); err != nil {
			return nil, err
		}
	case "unix":
		network = "unix"
		if err := removeStale(ctx, address); err != nil {
			return nil, err
		}
	}
	if l.ln, err = new(net.ListenConfig).Listen(ctx, network, address); err != nil {
		return nil, bindError(scheme, address, err)
	}
	if scheme == "unix" {
		if err := os.Chmod(address, 0o660); err != nil {
			_ = l.ln.Close()
			return nil, fmt.Errorf("broker.listen: %w", err)
		}
	}
	if len(s.b.users.byName) == 0 && !local(l.ln.Addr()) {
		_ = l.ln.Close()
		return nil, fmt.Errorf("broker.listen: %s can be reached from other machines, and the broker has no users: "+
			"add broker.users, or listen on tcp://127.0.0.1:1883", url)
	}
	return l, nil
}

func local(a net.Addr) bool {
	if t, ok := a.(*net.TCPAddr); ok {
		return t.IP.IsLoopback()
	}
	return a.Network() == "unix"
}

func bindError(scheme, address string, err error) error {
	if !errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("broker.listen: %s://%s: %w", scheme, address, err)
	}
	if scheme == "unix" {
		return fmt.Errorf("socket %s is in use by another process: %w", address, err)
	}
	host, port, _ := net.SplitHostPort(address)
	reach := host
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		reach = "127.0.0.1"
	}
	if host == "" {
		host = "all addresses"
	}
	return &inUseError{err: err, text: fmt.Sprintf(
		"port %s on %s is in use; if an MQTT broker runs there, use it: perigee run --broker %s://%s",
		port, host, scheme, net.JoinHostPort(reach, port))}
}

type inUseError struct {
	text string
	err  error
}

func (e *inUseError) Error() string { return e.text }
func (e *inUseError) Unwrap() error { return e.err }

// removeStale removes a socket that nobody listens on any more.
func removeStale(ctx context.Context, path string) error {
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("broker.listen: %w", err)
	}
	if info.Mode().Type() != os.ModeSocket {
		return fmt.Errorf("broker.listen: %s exists and is no socket: remove it or choose another path", path)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if c, err := new(net.Dialer).DialContext(ctx, "unix", path); err == nil {
		_ = c.Close()
		return fmt.Errorf("socket %s is in use by another process", path)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("broker.listen: %w", err)
	}
	return nil
}

// Init, ID, Address and Protocol are what mochi asks of a listener.
func (l *listener) Init(*slog.Logger) error { return nil }

// ID names the listener.
func (l *listener) ID() string { return l.url }

// Address is what is bound.
func (l *listener) Address() string { return l.ln.Addr().String() }

// Protocol names the protocol.
func (l *listener) Protocol() string { return "mqtt" }

// Serve accepts until Close.
func (l *listener) Serve(establish listeners.EstablishFn) {
	pause := 5 * time.Millisecond
	for {
		nc, err := l.ln.Accept()
		if err != nil {
			if l.s.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			l.s.b.log.Warn("broker: accepting a connection", "listen", l.url, "error", err)
			select { // too many open files: give it time
			case <-l.s.ctx.Done():
				return
			case <-time.After(pause):
			}
			pause = min(2*pause, time.Second)
			continue
		}
		pause = 5 * time.Millisecond
		if c := l.admit(nc); c != nil {
			l.wg.Go(func() { l.serve(c, establish) })
		}
	}
}

// admit makes a conn of an accepted connection, or closes it if there are too many.
func (l *listener) admit(nc net.Conn) *conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.end || len(l.open) >= l.s.b.opts.MaxClients+16 { // a few more, so that they can be told, and take over sessions
		l.s.b.refuse(refusedClients, "", "too many connections", "listen", l.url, "limit", l.s.b.opts.MaxClients)
		_ = nc.Close()
		return nil
	}
	sk := newSink(nc, &l.wg)
	var layered net.Conn = sk
	if l.tls != nil {
		layered = tls.Server(sk, l.tls)
	}
	c := newConn(l.s.ctx, layered, sk, l.s.b.opts.MaxPayload+headRoom)
	l.open[c] = struct{}{}
	return c
}

func (l *listener) serve(c *conn, establish listeners.EstablishFn) {
	_ = c.SetDeadline(time.Now().Add(connectWithin))
	err := establish(l.url, c)
	_ = c.Close()
	l.s.ended(c)
	if !isGone(err) {
		l.s.b.log.Debug("broker: connection ended", "remote", c.RemoteAddr().String(), "error", err)
	}
	l.mu.Lock()
	delete(l.open, c)
	l.mu.Unlock()
}

// Close stops accepting, closes the connections and waits for them.
func (l *listener) Close(closeClients listeners.CloseFn) {
	_ = l.ln.Close()
	closeClients(l.url)
	l.mu.Lock()
	l.end = true
	for c := range l.open {
		_ = c.Close()
	}
	l.mu.Unlock()
	l.wg.Wait()
}
