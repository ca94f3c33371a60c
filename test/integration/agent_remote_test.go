package integration_test

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	settingspb "github.com/farspeak/farspeak/proto/farspeak/settings"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	genericpb "github.com/farspeak/farspeak/proto/fleetspeak/client/generic"
	serverpb "github.com/farspeak/farspeak/proto/fleetspeak/server"
	"github.com/farspeak/farspeak/test/harness"
)

// remote is an installation with one client that its operator can change from afar. It has a deployment key, and the service
// "walrus" whose process tells its number.
type remote struct {
	*installation
	admin  *harness.AdminClient
	client *harness.Client
	key    string // file with the private half of the deployment key
}

func startRemote(t *testing.T, options harness.ClientOptions) *remote {
	t.Helper()
	i := install(t, shape{site: func(s *harness.Site) { // what is sent again comes soon
		s.Components.Farspeak.Server.RedeliveryInterval = durationpb.New(time.Second)
		s.Components.Farspeak.Server.SweepInterval = durationpb.New(time.Second)
	}})
	r := &remote{installation: i, admin: i.admins[0].Client(t)}
	var public string
	r.key, public = writeKeyPair(t, i.Dir, "deployment")
	walrus, _ := endpointService(t, "Daemon")
	options.Servers = []string{i.servers[0].ClientAddress}
	options.Services = []*fspb.ClientServiceConfig{{Name: "walrus", Factory: "Daemon", Config: walrus}}
	options.Adjust = func(config *genericpb.Config) {
		config.Farspeak = &settingspb.Agent{DeploymentPublicKeyFile: public, AllowTextServices: true}
	}
	r.client = i.StartClient("fs-client", options)
	awaitClients(t, r.admin, []*harness.Client{r.client})
	return r
}

// writeKeyPair makes a key for the signatures of services, and the files with its halves.
func writeKeyPair(t *testing.T, dir, name string) (private, public string) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	write := func(file, kind string, der []byte, err error) string {
		path := filepath.Join(dir, file)
		if err == nil {
			err = os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		return path
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	private = write(name+".pem", "PRIVATE KEY", der, err)
	der, err = x509.MarshalPKIXPublicKey(key.Public())
	return private, write(name+".pub", "PUBLIC KEY", der, err)
}

// daemonFile is the configuration of a service of the kind "Daemon", as an operator writes it.
func (r *remote) daemonFile(t *testing.T, name string, labels ...string) string {
	t.Helper()
	config, _ := endpointService(t, "Daemon")
	service := &fspb.ClientServiceConfig{Name: name, Factory: "Daemon", Config: config}
	for _, label := range labels {
		service.RequiredLabels = append(service.RequiredLabels, &fspb.Label{ServiceName: "client", Label: label})
	}
	text, err := prototext.Marshal(service)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(r.Dir, name+strings.Join(labels, "")+".service")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// fsctl runs a command about the client: its ID is the word ID.
func (r *remote) fsctl(t *testing.T, words ...string) string {
	t.Helper()
	output, err := r.tryFsctl(t, words...)
	if err != nil {
		t.Fatalf("fsctl %q: %v\n%s", words, err, output)
	}
	return output
}

func (r *remote) tryFsctl(t *testing.T, words ...string) (string, error) {
	t.Helper()
	words = slices.Clone(words)
	if n := slices.Index(words, "ID"); n >= 0 {
		words[n] = fmt.Sprintf("%x", r.client.ID())
	}
	return r.TryRun("fsctl", append(words, "--admin", r.admins[0].Address)...)
}

// refused runs a command whose message the agent has to refuse for a reason.
func (r *remote) refused(t *testing.T, reason string, words ...string) {
	t.Helper()
	output, err := r.tryFsctl(t, append(words, "--wait")...)
	if err == nil || !strings.Contains(output, "failed") || !strings.Contains(output, reason) {
		t.Errorf("fsctl %q: %v, want a failure because of %q\n%s", words, err, reason, output)
	}
}

// process asks a service for the process that answers, which has to be there promptly.
func (r *remote) process(t *testing.T, service string) string {
	t.Helper()
	m := harness.ToClient(t, r.client.ID(), service, "")
	m.MessageType, m.Data = "Ping", harness.Text(t, fmt.Sprintf("%x", m.MessageId))
	r.admin.MustInsert(t, m)
	var answer *fspb.Message
	harness.Eventually(t, promptly, "answer of "+service, func() error {
		answer = r.backend.Find(func(up *fspb.Message) bool {
			return up.MessageType == "PingAnswer" && up.Source.ServiceName == service && proto.Equal(up.Data, m.Data)
		})
		if answer == nil {
			return errors.New("the backend has none")
		}
		return nil
	})
	if !bytes.Equal(answer.Source.ClientId, r.client.ID()) {
		t.Errorf("client %x answers, want %x", answer.Source.ClientId, r.client.ID())
	}
	return answer.Annotations.Entries[0].Value
}

// restartAgent ends the agent as kill -9 does, and runs it again.
func (r *remote) restartAgent() {
	r.client.Kill()
	r.client.Restart()
}

// A client that is blacklisted takes a new identity, once, and its services go on in the processes that they had. The new
// identity survives the agent. (G-10, G-12)
func TestRekeyOfRealClient(t *testing.T) {
	t.Parallel()
	for _, way := range ways {
		t.Run(way.name, func(t *testing.T) {
			t.Parallel()
			r := startRemote(t, way.options)
			old, process := r.client.ID(), r.process(t, "walrus")
			r.fsctl(t, "client", "blacklist", "ID")
			harness.Eventually(t, promptly, "new identity", func() error {
				if bytes.Equal(r.client.ID(), old) || len(r.admin.MustListClients(t, r.client.ID())) == 0 {
					return errors.New("there is none")
				}
				return nil
			})
			fresh := r.client.ID()
			if now := r.process(t, "walrus"); now != process {
				t.Errorf("process %s answers, it was %s", now, process)
			}
			r.restartAgent()
			if now := r.process(t, "walrus"); now == process || !bytes.Equal(r.client.ID(), fresh) {
				t.Errorf("after a restart process %s answers as client %x, want another process and client %x", now, r.client.ID(), fresh)
			}
			listed := r.admin.MustListClients(t)
			if len(listed) != 2 {
				t.Errorf("one rekey makes %d clients of one", len(listed))
			}
			for _, client := range listed {
				if client.Blacklisted != bytes.Equal(client.ClientId, old) {
					t.Errorf("client %x is listed as %v", client.ClientId, client)
				}
			}
		})
	}
}

// A service is installed, restarted, replaced and removed from afar; the next start of the agent has the same services.
// (G-31)
func TestRemoteServices(t *testing.T) {
	t.Parallel()
	r := startRemote(t, harness.ClientOptions{})
	walrus := r.process(t, "walrus")
	install := []string{"client", "install", "ID", "--config", r.daemonFile(t, "otter"), "--key", r.key, "--wait"}
	seen := map[string]bool{walrus: true}
	another := func(what string) {
		t.Helper()
		process := r.process(t, "otter")
		if seen[process] {
			t.Errorf("%s: process %s answers, which is not a new one", what, process)
		}
		seen[process] = true
	}

	r.fsctl(t, install...)
	another("installed")
	r.awaitServices(t, "echo", "otter", "walrus")
	r.fsctl(t, "client", "restart", "ID", "otter", "--wait")
	another("restarted")
	r.fsctl(t, install...)
	another("replaced")
	if now := r.process(t, "walrus"); now != walrus {
		t.Errorf("process %s answers for the service beside, it was %s", now, walrus)
	}
	r.restartAgent()
	another("after a restart of the agent")

	r.fsctl(t, "client", "remove", "ID", "otter", "--wait")
	r.awaitServices(t, "echo", "walrus")
	late := r.admin.MustInsert(t, harness.ToClient(t, r.client.ID(), "otter", "too late"))
	var result *fspb.MessageResult
	harness.Eventually(t, promptly, "result of a message to the removed service", func() error {
		if result = r.admin.Result(t, late); result == nil {
			return errors.New("there is none")
		}
		return nil
	})
	if !result.Failed || !strings.Contains(result.FailedReason, "no such service is installed") {
		t.Errorf("result is %v", result)
	}
	r.refused(t, "no such service is installed", "client", "restart", "ID", "otter")
	r.refused(t, "no such service is installed", "client", "remove", "ID", "otter")
	r.restartAgent()
	r.process(t, "walrus")
	r.awaitServices(t, "echo", "walrus")
}

// awaitServices waits until these are the services that the client reported.
func (r *remote) awaitServices(t *testing.T, want ...string) {
	t.Helper()
	harness.Eventually(t, promptly, fmt.Sprintf("services %v", want), func() error {
		var got []string
		for n, line := range strings.Split(strings.TrimSpace(r.fsctl(t, "client", "services", "ID")), "\n") {
			if n > 0 { // after the head
				got = append(got, strings.Fields(line)[0])
			}
		}
		if slices.Sort(got); !slices.Equal(got, want) {
			return fmt.Errorf("they are %v", got)
		}
		return nil
	})
}

// What the deployment key did not sign, what is for other clients, and what nobody can deploy is refused with its reason, and
// the service that has the name goes on. (G-31)
func TestRemoteServicesAreRefused(t *testing.T) {
	t.Parallel()
	r := startRemote(t, harness.ClientOptions{})
	walrus := r.process(t, "walrus")
	foreign, _ := writeKeyPair(t, r.Dir, "foreign")
	install := func(file, key string) []string {
		return []string{"client", "install", "ID", "--config", file, "--key", key}
	}
	r.refused(t, "signature does not verify", install(r.daemonFile(t, "walrus"), foreign)...)
	r.refused(t, "required label is missing", install(r.daemonFile(t, "walrus", "elsewhere"), r.key)...)
	r.refused(t, "no such service is installed", "client", "remove", "ID", "walrus") // a text service
	r.refused(t, "no such service is installed", "client", "restart", "ID", "otter")
	if now := r.process(t, "walrus"); now != walrus {
		t.Errorf("process %s answers, it was %s", now, walrus)
	}

	plain := r.StartClient("without-key", harness.ClientOptions{Servers: []string{r.servers[0].ClientAddress}})
	awaitClients(t, r.admin, []*harness.Client{plain})
	r.client = plain
	r.refused(t, "unable to process message of type: InstallService", install(r.daemonFile(t, "otter"), r.key)...)
	r.refused(t, "unable to process message of type: RemoveService", "client", "remove", "ID", "echo")
}

// codeDie is the exit code of an agent that was told to die.
const codeDie = 7

// An agent that is told to die ends with its services and with the code that says so, once: the one that a service manager
// starts in its place lives. (G-13)
func TestRemoteDie(t *testing.T) {
	t.Parallel()
	for _, way := range ways {
		for _, force := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, force %t", way.name, force), func(t *testing.T) {
				t.Parallel()
				r := startRemote(t, way.options)
				process := r.process(t, "walrus")
				r.fsctl(t, "client", "die", "ID", fmt.Sprintf("--force=%t", force), "--wait")
				var code *exec.ExitError
				if err := r.client.WaitEnd(promptly); !errors.As(err, &code) || code.ExitCode() != codeDie {
					t.Errorf("the agent ended with %v, want code %d", err, codeDie)
				}
				awaitEnd(t, process)
				r.client.Restart()
				if now := r.process(t, "walrus"); now == process {
					t.Errorf("process %s answers before and after", now)
				}
				r.staysAlive(t)
			})
		}
	}
}

// staysAlive gives a message that is sent again the time to come, and wants none to wait.
func (r *remote) staysAlive(t *testing.T) {
	t.Helper()
	harness.Stays(t, 3*time.Second, "the agent is alive", func() error {
		if !r.client.Running() {
			return errors.New("it has ended")
		}
		return nil
	})
	if n := strings.Count(r.client.Log(), "told to die (force"); n != 1 {
		t.Errorf("the agent was told to die %d times", n)
	}
	pending, err := r.admin.GetPendingMessages(t.Context(), &serverpb.GetPendingMessagesRequest{ClientIds: [][]byte{r.client.ID()}})
	if err != nil || len(pending.Messages) > 0 {
		t.Errorf("pending messages: %v, %v", pending, err)
	}
}

// awaitEnd waits for the end of a process whose parent may have gone before it: what nobody waited for has ended, too.
func awaitEnd(t *testing.T, pid string) {
	t.Helper()
	harness.Eventually(t, promptly, "end of process "+pid, func() error {
		status, err := os.ReadFile(filepath.Join("/proc", pid, "status"))
		if err == nil && !bytes.Contains(status, []byte("State:\tZ")) {
			return errors.New("it runs")
		}
		return nil
	})
}
