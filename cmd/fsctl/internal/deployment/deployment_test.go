package deployment_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/farspeak/farspeak/cmd/fsctl/internal/deployment"
	"github.com/farspeak/farspeak/internal/config/agentconfig"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	daemonpb "github.com/farspeak/farspeak/proto/fleetspeak/daemonservice"
)

func write(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func newKey(t *testing.T, bits int) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func encode(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func pkcs8(t *testing.T, key any) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return encode("PRIVATE KEY", der)
}

// What is signed here is what agents take: signed with the key that they know, and unchanged since.
func TestSign(t *testing.T) {
	config, err := deployment.ReadConfig(write(t,
		`name: "Probe" factory: "Daemon" config { [type.googleapis.com/fleetspeak.daemonservice.Config] { argv: "/bin/probe" } }`))
	if err != nil {
		t.Fatal(err)
	}
	key, now := newKey(t, 2048), time.Unix(1700000000, 0)
	signed, err := deployment.Sign(key, config, now)
	if err != nil {
		t.Fatal(err)
	}
	if err := agentconfig.VerifySignature(&key.PublicKey, signed.ServiceConfig, signed.Signature); err != nil {
		t.Error(err)
	}
	got, daemon := &fspb.ClientServiceConfig{}, &daemonpb.Config{}
	if err := proto.Unmarshal(signed.ServiceConfig, got); err != nil {
		t.Fatal(err)
	}
	if err := got.Config.UnmarshalTo(daemon); err != nil || len(daemon.Argv) != 1 || got.Name != "Probe" || !got.SignedTime.AsTime().Equal(now) {
		t.Errorf("signed is %v, %v", got, err)
	}
	if config.SignedTime != nil {
		t.Error("the configuration that was given has changed")
	}
}

func TestReadSigned(t *testing.T) {
	service, err := proto.Marshal(&fspb.ClientServiceConfig{Name: "Probe", Factory: "NOOP"})
	if err != nil {
		t.Fatal(err)
	}
	file := func(signature string) string {
		b, err := proto.Marshal(&fspb.SignedClientServiceConfig{ServiceConfig: service, Signature: []byte(signature)})
		if err != nil {
			t.Fatal(err)
		}
		return write(t, string(b))
	}
	signed, err := deployment.ReadSigned(file("signature"))
	if err != nil || string(signed.ServiceConfig) != string(service) || string(signed.Signature) != "signature" {
		t.Errorf("read %v, %v", signed, err)
	}
	if _, err := deployment.ReadSigned(file("")); err == nil || !strings.Contains(err.Error(), "signature: absent") {
		t.Errorf("without a signature: %v", err)
	}
	if _, err := deployment.ReadSigned(write(t, "no message")); err == nil || !strings.Contains(err.Error(), "SignedClientServiceConfig") {
		t.Errorf("garbage: %v", err)
	}
}

func TestBadConfigs(t *testing.T) {
	for text, want := range map[string]string{
		`name: "x" factory: "NOOP" colour: 1`: "colour",
		`name: "x"`:                           "factory: absent",
		`factory: "NOOP"`:                     "name",
		`name: " system" factory: "NOOP"`:     "cannot be a service's name",
		`name: "client" factory: "NOOP"`:      "cannot be a service's name",
		`name: `:                              "file:1",
	} {
		if _, err := deployment.ReadConfig(write(t, text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

func TestKeys(t *testing.T) {
	key := newKey(t, 2048)
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct{ text, want string }{
		"PKCS #1":   {encode("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key)), ""},
		"PKCS #8":   {pkcs8(t, key), ""},
		"weak":      {pkcs8(t, newKey(t, 1024)), "1024 bits is too weak"},
		"ECDSA":     {pkcs8(t, curve), "the key is *ecdsa.PrivateKey"},
		"public":    {encode("PUBLIC KEY", x509.MarshalPKCS1PublicKey(&key.PublicKey)), `"PUBLIC KEY" is no private key`},
		"encrypted": {encode("ENCRYPTED PRIVATE KEY", []byte("x")), "decrypt it"},
		"no PEM":    {"text", "no PEM block"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := deployment.ReadKey(write(t, test.text))
			if test.want == "" {
				if err != nil || !got.Equal(key) {
					t.Errorf("another key, or %v", err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v, want %q", err, test.want)
			}
		})
	}
}
