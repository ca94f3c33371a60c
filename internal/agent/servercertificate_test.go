package agent_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"testing"
	"time"
)

// What the fake server presents.

func newServerCertificate(t *testing.T) (tls.Certificate, *big.Int) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		NotBefore:    time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"fleet.test"},
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, template.SerialNumber
}

// config is what a handshake goes by; nil: as usual.
func (s *fakeServer) config() *tls.Config {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.other == nil {
		return nil
	}
	c := s.http.TLS.Clone()
	c.Certificates, c.GetConfigForClient = []tls.Certificate{*s.other}, nil
	return c
}

// present has the server present another certificate; nil: its own.
func (s *fakeServer) present(other *tls.Certificate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.other = other
}
