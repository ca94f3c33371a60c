package agent_test

import (
	"errors"
	"strings"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/farspeak/farspeak/internal/agent"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// fakeDeployer takes what is signed with "good".
type fakeDeployer struct {
	mu   sync.Mutex
	kept map[string]bool
}

func (d *fakeDeployer) Check(signed *fspb.SignedClientServiceConfig) (agent.Installation, error) {
	config := &fspb.ClientServiceConfig{}
	if string(signed.Signature) != "good" {
		return agent.Installation{}, errors.New("bad signature")
	}
	return agent.Installation{Config: config, Signature: signed.Signature}, proto.Unmarshal(signed.ServiceConfig, config)
}

func (d *fakeDeployer) Keep(name string, _ *fspb.SignedClientServiceConfig) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.kept[name] = true
	return nil
}

func (d *fakeDeployer) Forget(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.kept[name] {
		return agent.ErrServiceUnavailable
	}
	delete(d.kept, name)
	return nil
}

func install(t *testing.T, signature string) *fspb.SignedClientServiceConfig {
	t.Helper()
	b, err := proto.Marshal(&fspb.ClientServiceConfig{Name: "fresh", Factory: "Probe"})
	if err != nil {
		t.Fatal(err)
	}
	return &fspb.SignedClientServiceConfig{ServiceConfig: b, Signature: []byte(signature)}
}

func fromSystem(m *fspb.Message) *fspb.Message {
	m.Source = &fspb.Address{ServiceName: "system"}
	return m
}

// The server's system service has services installed and removed, and ClientInfo tells each time (G-31).
func TestInstallAndRemoveByTheServer(t *testing.T) {
	s := newFakeServer(t)
	d := &fakeDeployer{kept: map[string]bool{}}
	r := start(t, s, func(c *agent.Config) { c.Deployer = d })
	n := s.open()
	records := n.ackAll()
	n.push(fromSystem(to(n, "system", "InstallService", install(t, "good"))))
	info := unpack(t, await(t, records, "ClientInfo"), &fspb.ClientInfoData{})
	for len(info.Services) == 0 { // the one of the start may come first
		info = unpack(t, await(t, records, "ClientInfo"), &fspb.ClientInfoData{})
	}
	if info.Services[0].Name != "fresh" || string(info.Services[0].Signature) != "good" {
		t.Errorf("client info is %v", info)
	}
	p := r.probe("fresh")
	n.push(to(n, "fresh", "hello", nil))
	receive(t, p.messages, "a message for the new service")
	n.push(fromSystem(to(n, "system", "RemoveService", &fspb.RemoveServiceData{Name: "fresh"})))
	closed(t, p.stopped, "the end of the service")
	if info := unpack(t, await(t, records, "ClientInfo"), &fspb.ClientInfoData{}); len(info.Services) != 0 {
		t.Errorf("client info is %v", info)
	}
}

func TestDeploymentIsRefused(t *testing.T) {
	for name, test := range map[string]struct {
		deployer  agent.Deployer
		signature string
		system    bool
		want      string
	}{
		"no key":          {nil, "good", true, "unable to process message of type: InstallService"},
		"wrong signature": {&fakeDeployer{kept: map[string]bool{}}, "bad", true, "bad signature"},
		"wrong source":    {&fakeDeployer{kept: map[string]bool{}}, "good", false, "only the server's service"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newFakeServer(t)
			r := start(t, s, func(c *agent.Config) { c.Deployer = test.deployer })
			n := s.open()
			records := n.ackAll()
			m := to(n, "system", "InstallService", install(t, test.signature))
			if test.system {
				fromSystem(m)
			}
			n.push(m)
			failed := unpack(t, await(t, records, "MessageError"), &fspb.MessageErrorData{})
			if !strings.Contains(failed.Error, test.want) || len(r.agent.Status().Services) != 1 {
				t.Errorf("error %q, services %v", failed.Error, r.agent.Status().Services)
			}
		})
	}
}
