package mqttclient

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perigee-iot/perigee/drivers"
	"github.com/perigee-iot/perigee/internal/mosquittotest"
)

// certificate writes a self-signed certificate for an address or a name, and its key.
func certificate(t *testing.T, ips []net.IP, dns []string) (cert, key string) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "broker"}, IPAddresses: ips, DNSNames: dns,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	require.NoError(t, err)
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	require.NoError(t, err)
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	require.NoError(t, os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	require.NoError(t, os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600))
	return cert, key
}

func TestTLS(t *testing.T) {
	cert, key := certificate(t, []net.IP{net.IPv4(127, 0, 0, 1)}, nil)
	b := mosquittotest.Start(t, mosquittotest.Options{Certificate: [2]string{cert, key}})
	refused := func(ca string) *RefusedError {
		e := newEngine()
		err := newClient(t, b.URL, e, func(o *Options) { o.TLS.CA = ca }).Run(context.Background(), e.emit)
		var r *RefusedError
		require.ErrorAs(t, err, &r)
		require.ErrorIs(t, err, drivers.ErrNotConnected)
		return r
	}
	require.Contains(t, refused("").Reason, "set broker.tls.ca")
	other, _ := certificate(t, []net.IP{net.IPv4(127, 0, 0, 1)}, nil)
	require.Contains(t, refused(other).Reason, "set broker.tls.ca")

	e := newEngine()
	c := newClient(t, b.URL, e, func(o *Options) { o.TLS.CA = cert })
	startWith(t, c, e, filter("tls", 1))
	r, err := c.Publish(context.Background(), drivers.Message{Topic: "tls", QoS: 1, Payload: []byte("1")})
	require.NoError(t, err)
	require.NoError(t, r.Wait(context.Background()))
	eventually(t, "the message", func() bool { return len(e.ran()) == 1 })
}

func TestTLSForAnotherHost(t *testing.T) {
	cert, key := certificate(t, nil, []string{"elsewhere"})
	b := mosquittotest.Start(t, mosquittotest.Options{Certificate: [2]string{cert, key}})
	e := newEngine()
	err := newClient(t, b.URL, e, func(o *Options) { o.TLS.CA = cert }).Run(context.Background(), e.emit)
	require.ErrorContains(t, err, "for another host")

	// Without TLS at a port that wants it.
	err = newClient(t, "tcp://"+b.Address, e).Run(context.Background(), e.emit)
	require.ErrorIs(t, err, drivers.ErrNotConnected)
	require.ErrorContains(t, err, "mqtts://")
}
