package main

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/farspeak/farspeak/internal/agent"
	"github.com/farspeak/farspeak/internal/config/agentconfig"
	"github.com/farspeak/farspeak/internal/winreg"
	"github.com/farspeak/farspeak/internal/winreg/regtest"
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
	old, err := proto.Marshal(sign("old"))
	if err != nil {
		t.Fatal(err)
	}
	for name, file := range map[string]*agentconfig.Config{
		"directory": {Directory: t.TempDir()},
		"registry":  {RegistryKey: `HKEY_LOCAL_MACHINE\SOFTWARE\FleetspeakClient`, Registry: regtest.New()},
	} {
		t.Run(name, func(t *testing.T) {
			o := &options{config: filepath.Join(t.TempDir(), "client.config")}
			file.Settings.DeploymentKey = &key.PublicKey
			other := installed(t, file, old)
			testDeployer(t, file, &deployer{key: &key.PublicKey, shelf: shelfOf(o, file)}, sign("NOOP"))
			if _, err := os.Stat(other); (err == nil) != (file.RegistryKey != "") {
				t.Errorf("the file that somebody else installed: %v", err)
			}
			if left, err := os.ReadDir(filepath.Join(filepath.Dir(o.config), "services")); len(left) > 0 {
				t.Errorf("left are %v, %v", left, err)
			}
		})
	}
}

// installed puts a service where it would be installed by hand.
func installed(t *testing.T, file *agentconfig.Config, content []byte) string {
	t.Helper()
	if file.RegistryKey == "" {
		path := filepath.Join(file.Directory, "services", "zzz")
		write(t, path, string(content))
		return path
	}
	path := filepath.Join(t.TempDir(), "zzz")
	write(t, path, string(content))
	k, err := file.Registry.Create(winreg.Join(file.RegistryKey, "services"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(k.SetText("any", path), k.SetBinary("junk", nil), k.Close()); err != nil {
		t.Fatal(err)
	}
	return path
}

func testDeployer(t *testing.T, file *agentconfig.Config, d *deployer, signed *fspb.SignedClientServiceConfig) {
	t.Helper()
	in, err := d.Check(signed)
	if err != nil || in.Config.Name != "a/../b" {
		t.Fatalf("checked %v, %v", in, err)
	}
	if err := d.Keep(in.Config.Name, signed); err != nil {
		t.Fatal(err)
	}
	if got, _ := file.Services(); len(got) != 1 || got[0].Config.Factory != "NOOP" {
		t.Errorf("services are %v", got)
	}
	if err := d.Forget(in.Config.Name); err != nil {
		t.Fatal(err)
	}
	if got, _ := file.Services(); len(got) != 0 {
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
