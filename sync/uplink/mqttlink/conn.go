package mqttlink

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"sync"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/perigee-iot/perigee/sync/outbox"
	"github.com/perigee-iot/perigee/sync/uplink"
)

// farewell is how long a clean end may take: telling the broker "offline", and waiting for that to be acknowledged.
const farewell = 500 * time.Millisecond

// conn is one connection: one client, used once.
type conn struct {
	link   *Link
	client mqtt.Client
	lost   chan struct{}
	once   sync.Once

	mu      sync.Mutex
	net     net.Conn
	opened  time.Time
	online  mqtt.Token // of the first publish
	sent    int        // batches
	answers int        // and those of them that were acknowledged
	why     error      // of lost
}

// open makes a client and connects it.
func (l *Link) open(ctx context.Context) (*conn, error) {
	password, err := l.password()
	if err != nil {
		return nil, err
	}
	c := &conn{link: l, lost: make(chan struct{})}
	o := mqtt.NewClientOptions().
		AddBroker("tcp://"+l.host).
		SetClientID(l.o.ClientID).
		SetUsername(l.o.Username).
		SetPassword(password).
		SetProtocolVersion(4).
		SetCleanSession(true).
		SetAutoReconnect(false).
		SetConnectRetry(false).
		SetConnectTimeout(l.o.Timeout).
		SetWriteTimeout(l.o.Timeout).
		SetKeepAlive(l.o.KeepAlive).
		SetPingTimeout(l.o.Timeout).
		SetBinaryWill(l.topic("status"), l.status("offline"), 1, true).
		SetConnectionLostHandler(func(_ mqtt.Client, err error) { c.end(c.judge(err)) })
	var dialErr error
	o.SetCustomOpenConnectionFn(func(*url.URL, mqtt.ClientOptions) (net.Conn, error) {
		var n net.Conn
		n, dialErr = l.dial(ctx)
		if dialErr != nil {
			return nil, dialErr
		}
		c.mu.Lock()
		c.net = n
		c.mu.Unlock()
		return n, nil
	})
	c.client = mqtt.NewClient(o)
	t := c.client.Connect()
	select {
	case <-t.Done():
		if err := t.Error(); err != nil {
			c.cut()
			return nil, explain(err, dialErr)
		}
	case <-ctx.Done():
		c.cut()
		<-t.Done()
		c.client.Disconnect(0)
		return nil, context.Cause(ctx)
	}
	opened := time.Now()
	online := c.client.Publish(l.topic("status"), 1, true, l.status("online")) // on the same connection as the batches: if it is lost, so is the connection
	c.mu.Lock()
	defer c.mu.Unlock()
	c.opened, c.online = opened, online
	return c, nil
}

// explain turns paho's words into a sentence.
func explain(err, dialErr error) error {
	switch {
	case dialErr != nil:
		return dialErr
	case errors.Is(err, packets.ErrorRefusedBadUsernameOrPassword):
		return errors.New("the broker refuses the user name or the password; see username and password_file")
	case errors.Is(err, packets.ErrorRefusedNotAuthorised):
		return errors.New("the broker does not let this client in; see username and password_file, or the client certificate")
	case errors.Is(err, packets.ErrorRefusedIDRejected):
		return errors.New("the broker refuses the client id")
	case errors.Is(err, packets.ErrorRefusedServerUnavailable):
		return errors.New("the broker says that it is unavailable")
	}
	return fmt.Errorf("the broker did not answer as an MQTT broker does: %w", err)
}

// end marks the connection as lost, once.
func (c *conn) end(why error) {
	c.once.Do(func() {
		c.mu.Lock()
		c.why = why
		c.mu.Unlock()
		close(c.lost)
	})
}

// cut closes the network connection, whatever is going on.
func (c *conn) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.net != nil {
		_ = c.net.Close() // it may be closed already
	}
}

// Err implements uplink.Conn.
func (c *conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.why
}

// Lost implements uplink.Conn.
func (c *conn) Lost() <-chan struct{} { return c.lost }

// Send implements uplink.Conn.
func (c *conn) Send(_ context.Context, b *outbox.Batch) (uplink.Receipt, error) {
	select {
	case <-c.lost:
		return nil, c.Err()
	default:
	}
	c.mu.Lock()
	c.sent++
	c.mu.Unlock()
	// Records from before the gateway was renamed go where they always went.
	topic := c.link.o.Prefix + "/" + b.Gateway + "/streams/" + b.Stream
	return &receipt{c, c.client.Publish(topic, 1, false, b.Payload)}, nil
}

// receipt is a publish on its way.
type receipt struct {
	c *conn
	t mqtt.Token
}

// Wait implements uplink.Receipt. A token that completes while the connection ends proves nothing: it counts only if
// the connection was not known to be lost when it completed.
func (r *receipt) Wait(ctx context.Context) error {
	select {
	case <-r.t.Done():
	case <-r.c.lost:
		return r.c.Err()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if err := r.t.Error(); err != nil {
		return r.c.failed(ctx, fmt.Errorf("publish to %s: %w", r.c.link.shown, err))
	}
	select {
	case <-r.c.lost:
		return r.c.Err()
	default:
	}
	r.c.mu.Lock()
	r.c.answers++
	r.c.mu.Unlock()
	return nil
}

// failed is why a publish failed. Where that is the end of the connection, paho fails the publish a moment before it says so.
func (c *conn) failed(ctx context.Context, err error) error {
	wait := time.NewTimer(farewell)
	defer wait.Stop()
	select {
	case <-c.lost:
		return c.Err()
	case <-ctx.Done():
	case <-wait.C:
	}
	return err
}

// Close implements uplink.Conn. A connection that still works says "offline" itself, so that nobody waits for the last will.
func (c *conn) Close() {
	select {
	case <-c.lost:
	default:
		t := c.client.Publish(c.link.topic("status"), 1, true, c.link.status("offline"))
		wait := time.NewTimer(farewell)
		defer wait.Stop()
		select {
		case <-t.Done():
		case <-c.lost:
		case <-wait.C:
		}
	}
	c.end(errors.New("closed"))
	c.client.Disconnect(uint(farewell.Milliseconds()))
	c.cut()
}
