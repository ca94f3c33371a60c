package configurator_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"github.com/farspeak/farspeak/internal/configurator"
	componentspb "github.com/farspeak/farspeak/proto/fleetspeak/components"
	configpb "github.com/farspeak/farspeak/proto/fleetspeak/config"
)

// now is the time of all runs; certificates have no fractions of seconds.
var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// newInput returns a complete input whose files are in a directory of their own, which it returns too.
func newInput(t *testing.T) (*configpb.Config, string) {
	t.Helper()
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	return &configpb.Config{
		ConfigurationName: "Example",
		ComponentsConfig: &componentspb.Config{
			MysqlDataSourceName: "root:@tcp(127.0.0.1:3306)/db",
			HttpsConfig:         &componentspb.HttpsConfig{ListenAddress: ":443", Key: "replaced", Certificates: "replaced"},
			AdminConfig:         &componentspb.AdminConfig{ListenAddress: "localhost:9000"},
			RequiredLabel:       "example-corp",
		},
		TrustedCertFile:                  in("ca.pem"),
		TrustedCertKeyFile:               in("ca-key.pem"),
		ServerCertFile:                   in("server.pem"),
		ServerCertKeyFile:                in("server-key.pem"),
		ServerComponentConfigurationFile: in("server.components.config"),
		PublicHostPort:                   []string{"fleet.example.com:443", "192.0.2.7:443", "[2001:db8::7]:8443"},
		LinuxClientConfigurationFile:     in("linux.client.configuration"),
		DarwinClientConfigurationFile:    in("darwin.client.configuration"),
		WindowsClientConfigurationFile:   in("windows.client.configuration"),
	}, dir
}

func generate(t *testing.T, input *configpb.Config) *configurator.Report {
	t.Helper()
	report, err := configurator.Generate(input, configurator.Options{Now: now})
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func writeFile(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// readBlock returns the only PEM block of a file.
func readBlock(t *testing.T, path, wantType string) []byte {
	t.Helper()
	block, rest := pem.Decode(readFile(t, path))
	if block == nil || block.Type != wantType || len(rest) != 0 {
		t.Fatalf("%s: want just one PEM block %s, got %+v and %q", path, wantType, block, rest)
	}
	return block.Bytes
}

func readCertificate(t *testing.T, path string) *x509.Certificate {
	t.Helper()
	cert, err := x509.ParseCertificate(readBlock(t, path, "CERTIFICATE"))
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func readECKey(t *testing.T, path string) *ecdsa.PrivateKey {
	t.Helper()
	key, err := x509.ParseECPrivateKey(readBlock(t, path, "EC PRIVATE KEY"))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func readText[M proto.Message](t *testing.T, path string, m M) M {
	t.Helper()
	if err := prototext.Unmarshal(readFile(t, path), m); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return m
}

func newECKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// newAuthority returns a self-signed CA as PEM.
func newAuthority(t *testing.T, name string, key crypto.Signer, notAfter time.Time) []byte {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: name},
		NotBefore: now.Add(-time.Hour), NotAfter: notAfter,
		KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// encode returns a PEM block; err is that of the encoding.
func encode(t *testing.T, kind string, der []byte, err error) []byte {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
