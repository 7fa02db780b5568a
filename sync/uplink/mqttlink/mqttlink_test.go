package mqttlink_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/listeners"
	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/sync/outbox"
	"github.com/perigee-iot/perigee/sync/uplink"
	"github.com/perigee-iot/perigee/sync/uplink/mqttlink"
	"github.com/perigee-iot/perigee/sync/uplinktest"
)

// broker is an MQTT broker in the process that treats batches as its cloud says.
type broker struct {
	mqtt.HookBase
	cloud    *uplinktest.Cloud
	password string
	server   *mqtt.Server

	mu    sync.Mutex
	after map[string]bool // clients to drop once the acknowledgement is out
	seen  []string        // "topic payload" of what is no batch, and client ids
}

func startBroker(t *testing.T, cloud *uplinktest.Cloud, l net.Listener) *broker {
	b := &broker{cloud: cloud, after: map[string]bool{}}
	b.server = mqtt.New(&mqtt.Options{Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, b.server.AddHook(b, nil))
	require.NoError(t, b.server.AddListener(listeners.NewNet("test", l)))
	require.NoError(t, b.server.Serve())
	t.Cleanup(func() { _ = b.server.Close() })
	return b
}

func (b *broker) ID() string { return "cloud" }

func (b *broker) Provides(h byte) bool {
	return h == mqtt.OnConnectAuthenticate || h == mqtt.OnACLCheck || h == mqtt.OnPublish || h == mqtt.OnPublished
}

func (b *broker) OnConnectAuthenticate(cl *mqtt.Client, pk packets.Packet) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.seen = append(b.seen, "client "+cl.ID)
	return b.password == "" || string(pk.Connect.Password) == b.password
}

func (b *broker) OnACLCheck(*mqtt.Client, string, bool) bool { return true }

func (b *broker) OnPublish(cl *mqtt.Client, pk packets.Packet) (packets.Packet, error) {
	if !strings.Contains(pk.TopicName, "/streams/") {
		b.mu.Lock()
		b.seen = append(b.seen, pk.TopicName+" "+string(pk.Payload))
		b.mu.Unlock()
		return pk, nil
	}
	switch b.cloud.Take(pk.Payload) {
	case uplinktest.DropBefore, uplinktest.DropUnacked:
		cl.Stop(packets.ErrUnspecifiedError)
		return pk, packets.ErrRejectPacket
	case uplinktest.Silent:
		return pk, packets.ErrRejectPacket
	case uplinktest.Late:
		time.Sleep(uplinktest.LateBy)
	case uplinktest.DropAfter:
		b.mu.Lock()
		b.after[cl.ID] = true
		b.mu.Unlock()
	}
	return pk, nil
}

func (b *broker) OnPublished(cl *mqtt.Client, _ packets.Packet) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.after[cl.ID] {
		delete(b.after, cl.ID)
		cl.Stop(packets.ErrUnspecifiedError)
	}
}

func (b *broker) saw(s string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, m := range b.seen {
		if m == s {
			return true
		}
	}
	return false
}

func listen(t *testing.T) net.Listener {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	return l
}

func newLink(t *testing.T, o mqttlink.Options) *mqttlink.Link {
	if o.Gateway == "" {
		o.Gateway = "gw"
	}
	link, err := mqttlink.New(o)
	require.NoError(t, err)
	return link
}

func TestConformance(t *testing.T) {
	uplinktest.Run(t, uplinktest.Harness{Link: func(t *testing.T, cloud *uplinktest.Cloud) uplink.Link {
		l := listen(t)
		startBroker(t, cloud, l)
		return newLink(t, mqttlink.Options{URL: "mqtt://" + l.Addr().String()})
	}})
}

func TestStatusIsRetainedWithALastWill(t *testing.T) {
	l := listen(t)
	b := startBroker(t, uplinktest.NewCloud(nil), l)
	link := newLink(t, mqttlink.Options{URL: "tcp://" + l.Addr().String()})
	online, offline := `{"gateway":"gw","status":"online"}`, `{"gateway":"gw","status":"offline"}`
	retained := func() string {
		for _, pk := range b.server.Topics.Messages("perigee/gw/status") {
			return string(pk.Payload)
		}
		return ""
	}
	c, err := link.Connect(t.Context())
	require.NoError(t, err)
	uplinktest.Until(t, func() bool { return retained() == online })
	assert.True(t, b.saw("client perigee-gw-uplink"))
	c.Close()
	uplinktest.Until(t, func() bool { return retained() == offline })
	assert.True(t, b.saw("perigee/gw/status "+offline), "a clean end says so itself")

	c, err = link.Connect(t.Context())
	require.NoError(t, err)
	uplinktest.Until(t, func() bool { return retained() == online })
	cl, ok := b.server.Clients.Get("perigee-gw-uplink")
	require.True(t, ok)
	cl.Stop(packets.ErrUnspecifiedError)
	uplinktest.Until(t, func() bool { return retained() == offline })
	<-c.Lost()
	c.Close()
}

func TestAStalledConnectionIsNoticed(t *testing.T) {
	l := listen(t)
	startBroker(t, uplinktest.NewCloud(nil), l)
	p := newProxy(t, l.Addr().String())
	link := newLink(t, mqttlink.Options{URL: "tcp://" + p.addr(), KeepAlive: time.Second, Timeout: time.Second})
	c, err := link.Connect(t.Context())
	require.NoError(t, err)
	defer c.Close()
	p.stall()
	select {
	case <-c.Lost():
	case <-time.After(time.Minute):
		t.Fatal("nobody noticed that the line is dead")
	}

	_, err = link.Connect(t.Context()) // the proxy accepts and passes nothing on
	require.ErrorContains(t, err, "connect to tcp://"+p.addr())
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	start := time.Now()
	_, err = newLink(t, mqttlink.Options{URL: "tcp://" + p.addr(), Timeout: time.Hour}).Connect(ctx)
	require.ErrorIs(t, err, context.Canceled)
	assert.Less(t, time.Since(start), time.Minute)
}

func TestPasswordAndItsErrors(t *testing.T) {
	l := listen(t)
	b := startBroker(t, uplinktest.NewCloud(nil), l)
	b.password = "s3cret"
	file := filepath.Join(t.TempDir(), "pw")
	link := newLink(t, mqttlink.Options{URL: "tcp://" + l.Addr().String(), Username: "gw", PasswordFile: file})
	_, err := link.Connect(t.Context())
	require.ErrorContains(t, err, "password_file")
	require.NoError(t, os.WriteFile(file, []byte("wrong1\n"), 0o600))
	_, err = link.Connect(t.Context())
	require.ErrorContains(t, err, "see username and password_file")
	assert.NotContains(t, err.Error(), "wrong1")
	require.NoError(t, os.WriteFile(file, []byte("s3cret\n"), 0o600))
	c, err := link.Connect(t.Context())
	require.NoError(t, err, "the file is read at every connect")
	c.Close()
}

func TestNobodyThere(t *testing.T) {
	l := listen(t)
	require.NoError(t, l.Close())
	link := newLink(t, mqttlink.Options{URL: "tcp://" + l.Addr().String()})
	_, err := link.Connect(t.Context())
	require.ErrorContains(t, err, "connect to tcp://"+l.Addr().String())
	require.ErrorContains(t, err, "refused")
}

func TestTLS(t *testing.T) {
	dir := t.TempDir()
	cert := selfSigned(t, dir)
	pool := x509.NewCertPool()
	pool.AddCert(cert.Leaf)
	l := tls.NewListener(listen(t), &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool})
	startBroker(t, uplinktest.NewCloud(nil), l)
	files := mqttlink.TLS{CA: filepath.Join(dir, "cert.pem"), Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem")}
	for _, scheme := range []string{"mqtts", "ssl", "tls"} {
		link := newLink(t, mqttlink.Options{URL: scheme + "://" + l.Addr().String(), TLS: files})
		c, err := link.Connect(t.Context())
		require.NoError(t, err, scheme)
		r, err := c.Send(t.Context(), &outbox.Batch{Gateway: "gw", Stream: "s", Payload: []byte("[]")})
		require.NoError(t, err)
		require.NoError(t, r.Wait(t.Context()))
		c.Close()
	}
	for want, f := range map[string]mqttlink.TLS{
		"certificate":    {},
		"tls.ca":         {CA: filepath.Join(dir, "absent")},
		"no certificate": {CA: filepath.Join(dir, "key.pem")},
		"tls.cert":       {Cert: "absent", Key: "absent"},
		"not.example":    {CA: files.CA, ServerName: "not.example"},
	} {
		_, err := newLink(t, mqttlink.Options{URL: "mqtts://" + l.Addr().String(), TLS: f, Timeout: 2 * time.Second}).Connect(t.Context())
		assert.ErrorContains(t, err, want)
	}
}

// selfSigned makes a certificate that is its own authority, as files and to serve with.
func selfSigned(t *testing.T, dir string) tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	require.NoError(t, err)
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})
	require.NoError(t, os.WriteFile(filepath.Join(dir, "cert.pem"), certPEM, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "key.pem"), keyPEM, 0o600))
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	require.NoError(t, err)
	return pair
}

func TestOptionsAreChecked(t *testing.T) {
	for want, o := range map[string]mqttlink.Options{
		"must look like":                  {URL: "broker"},
		"no way to reach a broker":        {URL: "http://broker"},
		"no user and password in it":      {URL: "tcp://u:hunter2@broker"},
		"nothing may follow":              {URL: "tcp://broker/x"},
		"no host":                         {URL: "tcp://:1883"},
		"write mqtts://":                  {URL: "tcp://broker", TLS: mqttlink.TLS{CA: "x"}},
		"cert and key go together":        {URL: "mqtts://broker", TLS: mqttlink.TLS{Cert: "x"}},
		"password_file without username":  {URL: "tcp://broker", PasswordFile: "x"},
		"no beginning of a topic":         {URL: "tcp://broker", Prefix: "a/#"},
		"keepalive":                       {URL: "tcp://broker", KeepAlive: 1},
		"the gateway's id: not a record:": {URL: "tcp://broker", Gateway: "a/b"},
	} {
		if o.Gateway == "" {
			o.Gateway = "gw"
		}
		_, err := mqttlink.New(o)
		require.ErrorContains(t, err, want)
		assert.NotContains(t, err.Error(), "hunter2")
	}
	for in, want := range map[string]string{
		"tcp://h": "tcp://h:1883", "mqtt://h:1": "mqtt://h:1", "mqtts://h": "mqtts://h:8883", "ssl://[::1]": "ssl://[::1]:8883",
	} {
		assert.Equal(t, want, newLink(t, mqttlink.Options{URL: in}).String())
	}
}

// proxy passes bytes on until it stalls; connections that it accepts after that do not reach the broker.
type proxy struct {
	l       net.Listener
	to      string
	mu      sync.Mutex
	stalled bool
	conns   []net.Conn
}

func newProxy(t *testing.T, to string) *proxy {
	p := &proxy{l: listen(t), to: to}
	var wg sync.WaitGroup
	wg.Go(func() { p.serve(&wg) })
	t.Cleanup(func() {
		_ = p.l.Close()
		p.mu.Lock()
		for _, c := range p.conns {
			_ = c.Close()
		}
		p.mu.Unlock()
		wg.Wait()
	})
	return p
}

func (p *proxy) addr() string { return p.l.Addr().String() }

func (p *proxy) stall() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stalled = true
}

func (p *proxy) serve(wg *sync.WaitGroup) {
	for {
		in, err := p.l.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		stalled := p.stalled
		if stalled {
			p.conns = append(p.conns, in)
		}
		p.mu.Unlock()
		if stalled {
			continue
		}
		out, err := net.Dial("tcp", p.to)
		if err != nil {
			_ = in.Close()
			continue
		}
		p.mu.Lock()
		p.conns = append(p.conns, in, out)
		p.mu.Unlock()
		wg.Go(func() { p.pass(in, out) })
		wg.Go(func() { p.pass(out, in) })
	}
}

func (p *proxy) pass(from, to net.Conn) {
	buf := make([]byte, 4096)
	for {
		n, err := from.Read(buf)
		if err != nil {
			_ = to.Close()
			return
		}
		p.mu.Lock()
		stalled := p.stalled
		p.mu.Unlock()
		if !stalled {
			_, _ = to.Write(buf[:n])
		}
	}
}
