package backend_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/farspeak/farspeak/sdk/backend"
)

// newCertificate makes a certificate for 127.0.0.1 that is its own authority, for servers and their callers.
func newCertificate(t *testing.T) backend.TLSFiles {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	files := backend.TLSFiles{Certificate: filepath.Join(folder, "certificate.pem"), Key: filepath.Join(folder, "key.pem")}
	writePEM(t, files.Certificate, "CERTIFICATE", certificate)
	writePEM(t, files.Key, "PRIVATE KEY", der)
	return files
}

func writePEM(t *testing.T, path, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestBadTLSFiles(t *testing.T) {
	good := newCertificate(t)
	for name, c := range map[string]struct {
		files backend.TLSFiles
		want  string
	}{
		"key without certificate":  {backend.TLSFiles{Key: good.Key}, "go together"},
		"certificate without key":  {backend.TLSFiles{Certificate: good.Certificate}, "go together"},
		"missing authority":        {backend.TLSFiles{CA: good.Key + "2"}, "no such file"},
		"authority that is a key":  {backend.TLSFiles{CA: good.Key}, "no certificate"},
		"key that is no key":       {backend.TLSFiles{Certificate: good.Certificate, Key: good.Certificate}, "TLSFiles"},
		"certificate that is none": {backend.TLSFiles{Certificate: good.Key, Key: good.Key}, "TLSFiles"},
	} {
		for way, load := range map[string]func() error{
			"client": func() error { _, err := c.files.LoadTLS(); return err },
			"server": func() error { _, err := c.files.LoadServerTLS(); return err },
		} {
			if err := load(); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s, %s: error %v, want %q", name, way, err, c.want)
			}
		}
	}
	if _, err := (backend.TLSFiles{}).LoadServerTLS(); err == nil {
		t.Error("a server without a certificate")
	}
	if _, err := (backend.TLSFiles{}).LoadTLS(); err != nil {
		t.Errorf("a client without files: %v", err)
	}
}
