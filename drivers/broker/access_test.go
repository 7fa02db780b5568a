package broker

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	"github.com/stretchr/testify/require"
)

func passwordFile(t *testing.T, pw string) string {
	t.Helper()
	f := filepath.Join(t.TempDir(), "pw")
	require.NoError(t, os.WriteFile(f, []byte(pw+"\n"), 0o600))
	return f
}

func TestListenErrors(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	for _, c := range []struct{ listen, want string }{
		{"127.0.0.1:1883", `broker.listen: "127.0.0.1:1883": want tcp://HOST:PORT, tls://HOST:PORT or unix:///PATH`},
		{"ws://127.0.0.1:1883", "want tcp://HOST:PORT"},
		{"tcp://127.0.0.1", "missing port"},
		{"tcp://127.0.0.1:" + port, "port " + port + " on 127.0.0.1 is in use; if an MQTT broker runs there, use it: perigee run --broker tcp://127.0.0.1:" + port},
		{"tcp://0.0.0.0:0", "tcp://0.0.0.0:0 can be reached from other machines, and the broker has no users: add broker.users"},
		{"tcp://:0", "has no users"},
		{"tls://127.0.0.1:0", "needs broker.tls.cert and broker.tls.key"},
		{"unix://" + file, "is no socket"},
		{"unix://" + filepath.Join(dir, "none", "s"), "no such file"},
	} {
		b, err := New(Options{Listen: []string{c.listen}})
		if err == nil {
			err = b.Listen(t.Context())
		}
		require.ErrorContains(t, err, c.want, c.listen)
		if b != nil {
			require.Empty(t, b.Addr())
			require.ErrorContains(t, b.Run(t.Context(), nil), c.want)
		}
	}
}

func TestUserErrors(t *testing.T) {
	pw := passwordFile(t, "secret")
	for want, u := range map[string]User{
		"broker.users.u: a user needs a password_file": {},
		"broker.users.u: password_file: open":          {PasswordFile: pw + "x"},
		"its first line is empty":                      {PasswordFile: passwordFile(t, "")},
		`broker.users.u.publish: "a/#/b"`:              {PasswordFile: pw, Publish: []string{"a/#/b"}},
	} {
		_, err := New(Options{Users: map[string]User{"u": u}})
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), "secret")
	}
}

func TestUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mqtt.sock")
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	require.NoError(t, err)
	stale.SetUnlinkOnClose(false)
	stale.Close()
	r := start(t, Options{Listen: []string{"unix://" + path}}, "in/#")
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o660), info.Mode().Perm())
	nc, err := net.Dial("unix", path)
	require.NoError(t, err)
	c, _ := rawOver(t, nc, 4, login{id: "a", clean: true})
	c.publish("in/1", "x", 1, 1, false)
	c.expect(puback, 1)
	require.Len(t, r.e.deliveries(), 1)

	other, err := New(Options{Listen: []string{"unix://" + path}})
	require.NoError(t, err)
	require.ErrorContains(t, other.Listen(t.Context()), "is in use by another process")
}

func someUsers(t *testing.T) map[string]User {
	return map[string]User{
		"shelly": {PasswordFile: passwordFile(t, "pa55"), Publish: []string{"shelly/#"}},
		"admin":  {PasswordFile: passwordFile(t, "root"), Publish: []string{"#"}, Subscribe: []string{"#"}},
	}
}

func TestLogin(t *testing.T) {
	both(t, func(t *testing.T, version int) {
		r := start(t, Options{Listen: []string{"tcp://127.0.0.1:0"}, Users: someUsers(t)})
		refused := map[int]byte{4: 5, 5: 0x86}[version]
		for _, l := range []login{{}, {user: "shelly", pw: "pa56"}, {user: "nobody", pw: "pa55"}} {
			l.id, l.clean = "c", true
			_, p := dialRaw(t, r.addr, version, l)
			require.Equal(t, refused, p.body[1], "%+v", l)
		}
		_, p := dialRaw(t, r.addr, version, login{id: "c", clean: true, user: "shelly", pw: "pa55"})
		require.Zero(t, p.body[1])
		require.EqualValues(t, 3, r.Stats().Refused["auth"])
		require.NotContains(t, r.log.String(), "pa5")
	})
}

func TestSessionBelongsToItsUser(t *testing.T) {
	both(t, func(t *testing.T, version int) {
		r := start(t, Options{Users: someUsers(t)})
		c, _ := dialRaw(t, r.addr, version, login{id: "mine", user: "admin", pw: "root", expiry: 100})
		c.subscribe("a/#", 1)
		_, p := dialRaw(t, r.addr, version, login{id: "mine", user: "shelly", pw: "pa55"})
		require.NotZero(t, p.body[1])
		c.quiet() // and is still connected
	})
}

func TestAccessLists(t *testing.T) {
	both(t, func(t *testing.T, version int) {
		r := start(t, Options{Users: someUsers(t)}, "#")
		admin, _ := dialRaw(t, r.addr, version, login{id: "admin", clean: true, user: "admin", pw: "root"})
		require.Equal(t, byte(2), last(admin.subscribe("#", 2)))
		dial := func() *raw {
			c, p := dialRaw(t, r.addr, version, login{id: "plug", clean: true, user: "shelly", pw: "pa55"})
			require.Zero(t, p.body[1])
			return c
		}
		c := dial()
		denied := map[int]byte{4: 0x80, 5: 0x87}[version]
		for _, f := range []string{"#", "shelly/#", "shelly/1", "$share/g/shelly/1", "$SHARE/g/a"} {
			require.Equal(t, denied, last(c.subscribe(f, 1)), f)
		}
		c.publish("shelly/1", "a", 1, 1, false)
		c.expect(puback, 1)
		c.publish("other/1", "b", 0, 0, false) // dropped
		c.quiet()
		for qos := byte(1); qos <= 2; qos++ {
			c.publish("other/1", "c", qos, 5, false)
			if version == 5 {
				require.Equal(t, byte(0x87), c.expect(3+qos, 5).code())
			} else {
				c.closed()
				c = dial()
			}
		}
		require.Equal(t, byte(publish), admin.read().kind)
		admin.quiet()
		require.Equal(t, []string{"a"}, r.e.payloads())
		require.EqualValues(t, 8, r.Stats().Refused["acl"])
		require.Contains(t, r.log.String(), `broker.users.shelly.subscribe: [\"#\"]`)
	})
}

func last(p packet) byte { return p.body[len(p.body)-1] }

func TestPrefixNeedsAUser(t *testing.T) {
	both(t, func(t *testing.T, version int) {
		r := start(t, Options{Prefix: "own"})
		c, _ := dialRaw(t, r.addr, version, login{id: "a", clean: true})
		denied := map[int]byte{4: 0x80, 5: 0x87}[version]
		for _, f := range []string{"own", "own/#", "own/+/x", "$share/g/own/x"} {
			require.Equal(t, denied, last(c.subscribe(f, 1)), f)
		}
		for _, f := range []string{"#", "+/x", "owner/#"} {
			require.Equal(t, byte(1), last(c.subscribe(f, 1)), f)
		}
		r.mustPublish(t, "own/x", "secret", true)
		r.mustPublish(t, "owned/x", "free", false)
		p := c.read()
		require.Contains(t, string(p.body), "free")
		c.publish("own/x", "forged", 0, 0, false)
		c.quiet()

		_, p = dialRaw(t, r.addr, version, login{id: "w", clean: true, will: "own/will"})
		require.Equal(t, map[int]byte{4: 5, 5: 0x87}[version], p.body[1])
		_, p = dialRaw(t, r.addr, version, login{id: "w", clean: true, will: "a/+"})
		require.NotZero(t, p.body[1])
	})
}

func certificate(t *testing.T, dir, name string, parent *tls.Certificate) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: parent == nil, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	issuer, signer := tmpl, any(key)
	if parent != nil {
		issuer, signer = parent.Leaf, parent.PrivateKey
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, issuer, &key.PublicKey, signer)
	require.NoError(t, err)
	leaf, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, name+".crt"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, name+".key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600))
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func TestTLS(t *testing.T) {
	dir := t.TempDir()
	ca := certificate(t, dir, "ca", nil)
	certificate(t, dir, "server", ca)
	client := certificate(t, dir, "client", ca)
	stranger := certificate(t, dir, "stranger", nil)
	pool := x509.NewCertPool()
	pool.AddCert(ca.Leaf)
	r := start(t, Options{
		Listen: []string{"tls://127.0.0.1:0"},
		TLS:    TLS{Cert: filepath.Join(dir, "server.crt"), Key: filepath.Join(dir, "server.key"), CA: filepath.Join(dir, "ca.crt")},
	}, "in/#")
	connect := func(certs ...tls.Certificate) error {
		o := paho.NewClientOptions().AddBroker("ssl://" + r.addr).SetClientID("t").SetConnectTimeout(patience).
			SetTLSConfig(&tls.Config{RootCAs: pool, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				if len(certs) == 0 {
					return &tls.Certificate{}, nil
				}
				return &certs[0], nil // whatever the server would like
			}})
		c := paho.NewClient(o)
		tok := c.Connect()
		require.True(t, tok.WaitTimeout(patience))
		if tok.Error() == nil {
			ok(t, c.Publish("in/x", 1, false, strings.Repeat("x", 100<<10)))
			c.Disconnect(0)
		}
		return tok.Error()
	}
	require.NoError(t, connect())
	require.NoError(t, connect(*client))
	require.Error(t, connect(*stranger))
	require.Len(t, r.e.deliveries(), 2)
}

func TestTooManyClients(t *testing.T) {
	both(t, func(t *testing.T, version int) {
		r := start(t, Options{MaxClients: 3})
		var cs []*raw
		for _, id := range []string{"a", "b", "c"} {
			c, p := dialRaw(t, r.addr, version, login{id: id, clean: true})
			require.Zero(t, p.body[1])
			cs = append(cs, c)
		}
		_, p := dialRaw(t, r.addr, version, login{id: "d", clean: true})
		require.Equal(t, map[int]byte{4: 3, 5: 0x89}[version], p.body[1])
		_, p = dialRaw(t, r.addr, version, login{id: "a", clean: true}) // takes its own place
		require.Zero(t, p.body[1])
		cs[0].closed()
		cs[1].Close()
		eventually(t, "one has gone", func() bool { return r.Stats().Clients == 2 })
		_, p = dialRaw(t, r.addr, version, login{id: "d", clean: true})
		require.Zero(t, p.body[1])
		require.EqualValues(t, 1, r.Stats().Refused["clients"])

		var ncs []net.Conn
		for range 64 { // none says anything
			nc, err := net.Dial("tcp", r.addr)
			require.NoError(t, err)
			ncs = append(ncs, nc)
		}
		eventually(t, "most were closed", func() bool { return r.Stats().Refused["clients"] > 40 })
		for _, nc := range ncs {
			nc.Close()
		}
	})
}

func TestRunsAgain(t *testing.T) {
	b, err := New(Options{Listen: []string{"tcp://127.0.0.1:0"}})
	require.NoError(t, err)
	e := &engine{}
	for range 3 {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		require.NoError(t, b.Listen(ctx))
		go func() { ended <- b.Run(ctx, e.emit) }()
		eventually(t, "it runs", b.Connected)
		c, _ := dialRaw(t, b.Addr(), 5, login{id: "a", clean: true})
		cancel()
		require.Equal(t, byte(0x8b), c.closed().code())
		require.NoError(t, <-ended)
		require.False(t, b.Connected())
	}
}

func TestWhatWasBoundIsLetGoOf(t *testing.T) {
	b, err := New(Options{Listen: []string{"tcp://127.0.0.1:0"}})
	require.NoError(t, err)
	require.NoError(t, b.Listen(t.Context()))
	address := b.Addr()
	b.Unlisten()
	b.Unlisten()
	require.Empty(t, b.Addr())
	_, err = net.Dial("tcp", address)
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
}

// A device that comes back before the broker has noticed that it was gone must not be forgotten with its old connection.
func TestAClientThatComesBackIsNotForgotten(t *testing.T) {
	both(t, func(t *testing.T, version int) {
		r := start(t, Options{})
		l := login{id: "device", clean: true}
		for i := range 500 {
			old, _ := dialRaw(t, r.addr, version, l)
			for n := range 20 {
				old.subscribe(fmt.Sprint("a", n), 1)
			}
			c, _ := dialRaw(t, r.addr, version, l)
			c.subscribe("a", 1)
			r.mustPublish(t, "a", fmt.Sprint(i), false)
			p := c.read()
			require.Equal(t, byte(publish), p.kind)
			c.ack(puback, p.id())
			if i%3 == 0 {
				c.Close()
			}
		}
	})
}
