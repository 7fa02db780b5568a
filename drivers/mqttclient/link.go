package mqttclient

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math"
	"net"
	"net/url"
	"sync/atomic"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/perigee-iot/perigee/drivers"
)

const (
	connectTimeout = 20 * time.Second // to dial, to shake hands and to be let in, each
	slowAnswer     = 2 * time.Second  // after that people are told what is waited for
	goodbye        = 2 * time.Second  // for the last acknowledgements to be written
	closeTimeout   = 10 * time.Second // for paho's goroutines to end
	handOver       = 10 * time.Second // for paho to take a packet; it waits this long if the connection ends just then
)

// RefusedError says that the broker answers and does not let this gateway in, so that it makes no sense to try again soon. It
// wraps drivers.ErrNotConnected.
type RefusedError struct {
	Reason string // a sentence with what to do
}

// Error returns the reason.
func (e *RefusedError) Error() string { return e.Reason }

// Unwrap returns drivers.ErrNotConnected.
func (e *RefusedError) Unwrap() error { return drivers.ErrNotConnected }

// link is one paho client on one connection. Neither is ever used again after its end: what a token of a link says
// is about this connection only.
type link struct {
	paho    mqtt.Client
	conn    *conn
	present bool          // the broker knew the session
	ended   chan struct{} // closed when paho has ended its goroutines
}

// linkOptions are what distinguishes the links.
type linkOptions struct {
	id     string
	clean  bool
	handle func(mqtt.Message)                                  // nil: this link subscribes nothing
	large  func(first byte, id uint16, topic string, size int) // nil: nobody wants to know
	failed func(error)                                         // the connection ended by itself; called at least once, the first reason is the true one
}

// connect dials the broker and logs in. ctx bounds the connecting only.
func (c *Client) connect(ctx context.Context, lo linkOptions) (*link, error) {
	user, password, err := c.target.credentials()
	if err != nil {
		return nil, &RefusedError{err.Error()}
	}
	slow := time.AfterFunc(slowAnswer, func() {
		c.count(func(s *Status) {
			if !s.Connected {
				s.LastError = fmt.Sprintf("no answer for %v; is the address right, and does an MQTT broker listen there, or one that wants mqtts://?", slowAnswer)
			}
		})
	})
	defer slow.Stop()
	nc, err := c.dial(ctx)
	if err != nil {
		return nil, err
	}
	l := &link{ended: make(chan struct{}), conn: newConn(nc, c.patience, c.keepAlive/2)}
	var why atomic.Pointer[error] // the true reason, of which paho says "network Error : EOF"
	l.conn.failed = func(err error) {
		why.Store(&err)
		lo.failed(err)
	}
	if lo.large != nil {
		l.conn.tooLarge = lo.large
	}
	o := mqtt.NewClientOptions().AddBroker("tcp://" + c.target.address).
		SetCustomOpenConnectionFn(func(*url.URL, mqtt.ClientOptions) (net.Conn, error) { return l.conn, nil }).
		SetClientID(lo.id).SetCleanSession(lo.clean).SetProtocolVersion(4).
		SetUsername(user).SetPassword(password).
		SetAutoReconnect(false).SetConnectRetry(false).SetConnectTimeout(connectTimeout).
		SetKeepAlive(c.keepAlive).SetPingTimeout(math.MaxInt64).SetWriteTimeout(handOver).
		SetStore(nothing{}).SetAutoAckDisabled(true).SetOrderMatters(true).
		SetConnectionLostHandler(func(_ mqtt.Client, err error) {
			lo.failed(err)
			close(l.ended)
		})
	if lo.handle != nil {
		o.SetDefaultPublishHandler(func(_ mqtt.Client, m mqtt.Message) { lo.handle(m) })
	}
	l.paho = mqtt.NewClient(o)

	stop := context.AfterFunc(ctx, func() { l.conn.fail(ctx.Err()) })
	defer stop()
	token := l.paho.Connect().(*mqtt.ConnectToken)
	<-token.Done()
	if err := token.Error(); err != nil {
		_ = l.conn.Close()
		if w := why.Load(); w != nil {
			err = *w
		}
		return nil, c.refusal(token.ReturnCode(), user, err)
	}
	l.conn.silence.Store(int64(c.keepAlive + c.keepAlive/2))
	l.present = token.SessionPresent()
	return l, nil
}

// dial opens the connection, encrypted if the URL says so.
func (c *Client) dial(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	var d net.Dialer
	nc, err := d.DialContext(ctx, "tcp", c.target.address)
	if err != nil {
		return nil, fmt.Errorf("%w to the broker at %s: %w", drivers.ErrNotConnected, c.target.url, err)
	}
	if c.target.tls == nil {
		return nc, nil
	}
	tc := tls.Client(nc, c.target.tls)
	err = tc.HandshakeContext(ctx)
	if err == nil {
		return tc, nil
	}
	_ = nc.Close()
	var unknown x509.UnknownAuthorityError
	var host x509.HostnameError
	switch {
	case errors.As(err, &unknown):
		return nil, &RefusedError{fmt.Sprintf("the certificate of the broker at %s is signed by an authority that this gateway does not know: set broker.tls.ca", c.target.url)}
	case errors.As(err, &host):
		return nil, &RefusedError{fmt.Sprintf("the certificate of the broker at %s is for another host (%v): correct broker.url", c.target.url, err)}
	}
	return nil, fmt.Errorf("%w to the broker at %s: TLS: %w", drivers.ErrNotConnected, c.target.url, err)
}

// refusal makes a sentence of the broker's answer to CONNECT.
func (c *Client) refusal(code byte, user string, err error) error {
	at := "the broker at " + c.target.url
	who := at + " refuses this gateway without a user name: set broker.username and broker.password_file"
	if user != "" {
		who = fmt.Sprintf("%s refuses the user %q: check broker.username, the password in broker.password_file, and what the broker allows", at, user)
	}
	switch code {
	case packets.ErrRefusedBadProtocolVersion:
		return &RefusedError{at + " does not speak MQTT 3.1.1: use another broker, or the embedded one (broker.listen)"}
	case packets.ErrRefusedIDRejected:
		return &RefusedError{at + " refuses the client id of this gateway: change id, or what the broker allows"}
	case packets.ErrRefusedBadUsernameOrPassword, packets.ErrRefusedNotAuthorised:
		return &RefusedError{who}
	case packets.ErrRefusedServerUnavailable:
		return fmt.Errorf("%w: %s says that it is unavailable", drivers.ErrNotConnected, at)
	}
	return fmt.Errorf("%w: %s did not answer as an MQTT broker does (another service, or one that wants mqtts://?): %w", drivers.ErrNotConnected, at, err)
}

// close says goodbye, ends the connection and waits for paho's goroutines. It returns false if they did not end.
func (l *link) close() bool {
	_, _ = l.conn.Write([]byte{disconnectRq, 0})
	_ = l.conn.Close()
	t := time.NewTimer(closeTimeout)
	defer t.Stop()
	select {
	case <-l.ended:
		return true
	case <-t.C:
		return false
	}
}

// nothing is a paho store that keeps nothing: a link never resumes what another one began. What must survive is in the
// gateway's own store, and paho's would hold every message that we acknowledge past it.
type nothing struct{}

// Open does nothing.
func (nothing) Open() {}

// Put does nothing.
func (nothing) Put(string, packets.ControlPacket) {}

// Get returns nil.
func (nothing) Get(string) packets.ControlPacket { return nil }

// All returns nil.
func (nothing) All() []string { return nil }

// Del does nothing.
func (nothing) Del(string) {}

// Close does nothing.
func (nothing) Close() {}

// Reset does nothing.
func (nothing) Reset() {}
