package cli_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/farspeak/farspeak/internal/config/agentconfig"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

func writeFile(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// deploymentKey makes a key and the file with its private half.
func deploymentKey(t *testing.T) (key *rsa.PrivateKey, path string) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	block := &pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}
	return key, writeFile(t, "key.pem", pem.EncodeToMemory(block))
}

// only is the one message that was stored, checked against all but its payload.
func (f *fakeAdmin) only(t *testing.T, source, kind string) *fspb.Message {
	t.Helper()
	if len(f.messages) != 1 {
		t.Fatalf("%d messages are stored", len(f.messages))
	}
	for messageID, got := range f.messages {
		want := &fspb.Message{
			MessageId:   []byte(messageID),
			Source:      &fspb.Address{ServiceName: source},
			Destination: &fspb.Address{ClientId: id(t, linuxID), ServiceName: "system"},
			MessageType: kind,
		}
		if diff := cmp.Diff(want, got, protocmp.Transform(), protocmp.IgnoreFields(&fspb.Message{}, "creation_time", "data", "result")); diff != "" {
			t.Errorf("message (-want +got):\n%s", diff)
		}
		return got
	}
	return nil
}

func (f *fakeAdmin) wantPayload(t *testing.T, source, kind string, want proto.Message) {
	t.Helper()
	if got := f.only(t, source, kind).Data; !proto.Equal(got, mustAny(t, want)) {
		t.Errorf("payload %v, want %v", got, want)
	}
}

// A service that is signed here goes out as agents want it: from the service "system", with a signature that verifies.
func TestClientInstallSigns(t *testing.T) {
	key, keyFile := deploymentKey(t)
	config := writeFile(t, "probe.service", []byte(`name: "Probe" factory: "NOOP" required_labels { service_name: "client" label: "linux" }`))
	f := newFake(t)
	f.completeIn[string(id(t, linuxID))] = 0
	f.fsctl(t, "client", "install", linuxID, "--config", config, "--key", keyFile, "--wait").want(t, 0, linuxID, "completed")
	signed := &fspb.SignedClientServiceConfig{}
	if err := f.only(t, "system", "InstallService").Data.UnmarshalTo(signed); err != nil {
		t.Fatal(err)
	}
	if err := agentconfig.VerifySignature(&key.PublicKey, signed.ServiceConfig, signed.Signature); err != nil {
		t.Error(err)
	}
	got := &fspb.ClientServiceConfig{}
	if err := proto.Unmarshal(signed.ServiceConfig, got); err != nil {
		t.Fatal(err)
	}
	if got.Name != "Probe" || got.Factory != "NOOP" || len(got.RequiredLabels) != 1 || got.SignedTime == nil {
		t.Errorf("the configuration is %v", got)
	}
}

// A service that was signed elsewhere goes out byte for byte.
func TestClientInstallSigned(t *testing.T) {
	service, err := proto.Marshal(&fspb.ClientServiceConfig{Name: "Probe", Factory: "NOOP"})
	if err != nil {
		t.Fatal(err)
	}
	signed := &fspb.SignedClientServiceConfig{ServiceConfig: service, Signature: []byte("made elsewhere")}
	content, err := proto.Marshal(signed)
	if err != nil {
		t.Fatal(err)
	}
	f := newFake(t)
	r := f.fsctl(t, "client", "install", linuxID, "--signed_config", writeFile(t, "probe.signed", content), "-o", "json")
	r.want(t, 0)
	if row := decode[[]map[string]any](t, r)[0]; row["client_id"] != linuxID || row["status"] != "stored" || len(row["message_id"].(string)) != 64 {
		t.Errorf("output is %v", row)
	}
	f.wantPayload(t, "system", "InstallService", signed)
}

// What no agent would take is not sent.
func TestClientInstallRefusesBadFiles(t *testing.T) {
	_, key := deploymentKey(t)
	good := writeFile(t, "good", []byte(`name: "Probe" factory: "NOOP"`))
	reserved := writeFile(t, "reserved", []byte(`name: "system" factory: "NOOP"`))
	unsigned, err := proto.Marshal(&fspb.SignedClientServiceConfig{ServiceConfig: []byte("\n\x05Probe")})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"no such file":  {[]string{"--config", good + "x", "--key", key}, "cannot be read"},
		"reserved name": {[]string{"--config", reserved, "--key", key}, "cannot be a service's name"},
		"no key":        {[]string{"--config", good, "--key", good}, "no PEM block"},
		"not signed":    {[]string{"--signed_config", writeFile(t, "unsigned", unsigned)}, "signature: absent"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.fsctl(t, append([]string{"client", "install", linuxID}, c.args...)...).wantError(t, 1, c.want)
			if f.inserts > 0 {
				t.Error("a message was sent all the same")
			}
		})
	}
}

func TestClientRemove(t *testing.T) {
	f := newFake(t)
	f.completeIn[string(id(t, linuxID))] = 1
	f.fsctl(t, "client", "remove", linuxID, "Probe", "--wait").want(t, 0, "completed")
	f.wantPayload(t, "system", "RemoveService", &fspb.RemoveServiceData{Name: "Probe"})
}

func TestClientRestart(t *testing.T) {
	f := newFake(t)
	f.fsctl(t, "client", "restart", linuxID, "Probe").want(t, 0, linuxID, "stored")
	f.wantPayload(t, "fsctl", "RestartService", &fspb.RestartServiceRequest{Name: "Probe"})
}

func TestClientDie(t *testing.T) {
	for _, force := range []bool{false, true} {
		f := newFake(t)
		args := []string{"client", "die", linuxID}
		if force {
			args = append(args, "--force")
		}
		f.fsctl(t, args...).want(t, 0, linuxID, "stored")
		f.wantPayload(t, "fsctl", "Die", &fspb.DieRequest{Force: force})
	}
}

// Requests to many agents are messages of their own; one that cannot be stored does not keep back the others.
func TestRequestsToManyAgents(t *testing.T) {
	f := newFake(t)
	r := run(t, linuxID+"\n"+windowsID+"\n"+unknownID+"\n", "client", "restart", "-", "Probe", "--admin", f.serve(t))
	r.wantError(t, 1, "1 of 3 failed")
	r.want(t, 1, linuxID, windowsID, "no such client")
	if len(f.messages) != 2 {
		t.Errorf("%d messages are stored, want 2", len(f.messages))
	}
}

func TestCompletionOfServices(t *testing.T) {
	f := newFake(t)
	address := f.serve(t)
	run(t, "", "__complete", "client", "restart", "--admin", address, "0").want(t, 0, linuxID)
	run(t, "", "__complete", "client", "remove", "--admin", address, linuxID, "Sh").want(t, 0, "Shell\n")
	run(t, "", "__complete", "client", "remove", "--admin", address, linuxID, "Other").want(t, 0, ":4")
}
