package fleet_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/farspeak/farspeak/internal/load/fleet"
)

// certificate is one for the loopback address that is its own authority.
func certificate(tb testing.TB) (pair tls.Certificate, authority string) {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		tb.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key},
		string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// keyring makes keys for count clients.
func keyring(tb testing.TB, count int) (path string, keys *fleet.Keyring) {
	tb.Helper()
	path = filepath.Join(tb.TempDir(), "keys")
	if err := fleet.EnsureKeys(path, count); err != nil {
		tb.Fatal(err)
	}
	keys, err := fleet.LoadKeys(path, 0, count)
	if err != nil {
		tb.Fatal(err)
	}
	return path, keys
}

// listen serves TLS connections until the test ends.
func listen(tb testing.TB, config *tls.Config, serve func(net.Conn)) (address string) {
	tb.Helper()
	listener, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		tb.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer conn.Close()
				serve(conn)
			})
		}
	})
	tb.Cleanup(func() {
		listener.Close()
		running.Wait()
	})
	return listener.Addr().String()
}

// TestKeyExchange: agents agree keys as those of today do, or as those before ML-KEM.
func TestKeyExchange(t *testing.T) {
	pair, authority := certificate(t)
	for want, job := range map[tls.CurveID]fleet.Job{tls.X25519MLKEM768: {}, tls.X25519: {Classic: true}} {
		address := listen(t, &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequestClientCert},
			func(conn net.Conn) { io.Copy(io.Discard, conn) })
		_, keys := keyring(t, 1)
		job.Servers, job.TrustedCerts = []string{address}, authority
		dialer, err := fleet.NewDialer(job)
		if err != nil {
			t.Fatal(err)
		}
		conn, err := dialer.Dial(t.Context(), address, keys, 0, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := conn.ConnectionState().CurveID; got != want {
			t.Errorf("classic %t: keys are agreed by %v, want %v", job.Classic, got, want)
		}
		conn.Close()
	}
}

// BenchmarkDial is a handshake with both of its ends.
func BenchmarkDial(b *testing.B) {
	pair, authority := certificate(b)
	address := listen(b, &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequestClientCert},
		func(conn net.Conn) { io.Copy(io.Discard, conn) })
	_, keys := keyring(b, 1)
	dialer, err := fleet.NewDialer(fleet.Job{Servers: []string{address}, TrustedCerts: authority})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		conn, err := dialer.Dial(b.Context(), address, keys, 0, nil)
		if err != nil {
			b.Fatal(err)
		}
		conn.NetConn().Close()
	}
}
