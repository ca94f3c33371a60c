package main

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"path/filepath"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/farspeak/farspeak/internal/agent"
	"github.com/farspeak/farspeak/internal/config/agentconfig"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// What the server installs is there at the next start, in place of what had its name; what it removes is not.
func TestDeployerKeepsServices(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	sign := func(factory string) *fspb.SignedClientServiceConfig {
		config, err := proto.Marshal(&fspb.ClientServiceConfig{Name: "a/../b", Factory: factory})
		if err != nil {
			t.Fatal(err)
		}
		digest := sha256.Sum256(config)
		signature, err := rsa.SignPSS(rand.Reader, key, crypto.SHA256, digest[:], nil)
		if err != nil {
			t.Fatal(err)
		}
		return &fspb.SignedClientServiceConfig{ServiceConfig: config, Signature: signature}
	}
	dir := t.TempDir()
	old, err := proto.Marshal(sign("old"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, agentconfig.SignedServices, "zzz"), string(old))
	d := &deployer{key: &key.PublicKey, directory: filepath.Join(dir, agentconfig.SignedServices)}
	signed := sign("NOOP")
	in, err := d.Check(signed)
	if err != nil || in.Config.Name != "a/../b" {
		t.Fatalf("checked %v, %v", in, err)
	}
	if err := d.Keep(in.Config.Name, signed); err != nil {
		t.Fatal(err)
	}
	settings := agentconfig.Settings{DeploymentKey: &key.PublicKey}
	if got, _ := settings.ReadServices(dir); len(got) != 1 || got[0].Config.Factory != "NOOP" {
		t.Errorf("services are %v", got)
	}
	if err := d.Forget(in.Config.Name); err != nil {
		t.Fatal(err)
	}
	if got, _ := settings.ReadServices(dir); len(got) != 0 {
		t.Errorf("services are %v", got)
	}
	if err := d.Forget(in.Config.Name); !errors.Is(err, agent.ErrServiceUnavailable) {
		t.Errorf("a second time: %v", err)
	}
	signed.Signature[0] ^= 1
	if _, err := d.Check(signed); !errors.Is(err, agentconfig.ErrSignature) {
		t.Errorf("a changed signature: %v", err)
	}
}
