package agentconfig

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"slices"
	"testing"

	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// signedBy is a file of services/.
func signedBy(t *testing.T, key *rsa.PrivateKey, name string, change func(*fspb.SignedClientServiceConfig)) string {
	t.Helper()
	signed := &fspb.SignedClientServiceConfig{ServiceConfig: []byte(mustMarshal(t, &fspb.ClientServiceConfig{Name: name, Factory: "NOOP"}))}
	digest := sha256.Sum256(signed.ServiceConfig)
	var err error
	if signed.Signature, err = rsa.SignPSS(rand.Reader, key, crypto.SHA256, digest[:], nil); err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(signed)
	}
	return mustMarshal(t, signed)
}

// Under a deployment key only what is signed with it runs, and nothing else pushes it aside (G-31).
func TestDeploymentKey(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write(t, dir, "services/good", signedBy(t, key, "good", nil))
	write(t, dir, "services/shadow", signedBy(t, other, "good", nil))
	write(t, dir, "services/other", signedBy(t, other, "other", nil))
	write(t, dir, "services/changed", signedBy(t, key, "changed", func(s *fspb.SignedClientServiceConfig) { s.ServiceConfig[3] ^= 1 }))
	write(t, dir, "services/unsigned", signedBy(t, key, "unsigned", func(s *fspb.SignedClientServiceConfig) { s.Signature = nil }))
	write(t, dir, "textservices/text", "name: 'text' factory: 'NOOP'")
	for _, test := range []struct {
		settings Settings
		want     []string
		problems int
	}{
		{Settings{DeploymentKey: &key.PublicKey}, []string{"good"}, 5},
		{Settings{DeploymentKey: &key.PublicKey, AllowTextServices: true}, []string{"good", "text"}, 4},
		{Settings{}, []string{"changed", "other", "good", "unsigned", "text"}, 1}, // as the original
	} {
		services, problems := (&Config{Directory: dir, Settings: test.settings}).Services()
		var got []string
		for _, s := range services {
			if s.Path == dir+"/services/changed" {
				got = append(got, "changed")
			} else {
				got = append(got, s.Config.Name)
			}
		}
		slices.Sort(got)
		slices.Sort(test.want)
		if !slices.Equal(got, test.want) || len(problems) != test.problems || problems.Err() != nil {
			t.Errorf("%+v: got %v, %v", test.settings.AllowTextServices, got, problems)
		}
	}
	if err := VerifySignature(&key.PublicKey, nil, []byte("x")); !errors.Is(err, ErrSignature) {
		t.Errorf("got %v", err)
	}
}

// A file of which only the beginning was written installs nothing that was not signed.
func TestHalfWrittenSignedService(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	whole := signedBy(t, key, "good", nil)
	c := &Config{Directory: dir, Settings: Settings{DeploymentKey: &key.PublicKey}}
	for n := range len(whole) + 1 {
		write(t, dir, "services/good", whole[:n])
		services, problems := c.Services()
		if got := len(services) == 1; got != (n == len(whole)) {
			t.Errorf("%d of %d bytes: %v, %v", n, len(whole), services, problems)
		}
		if got := len(problems) == 1; got == (n < len(whole)) { // one is about textservices, which is not there
			t.Errorf("%d of %d bytes: problems are %v", n, len(whole), problems)
		}
	}
}
