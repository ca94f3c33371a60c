package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	daemonpb "github.com/farspeak/farspeak/proto/fleetspeak/daemonservice"
	grpcservicepb "github.com/farspeak/farspeak/proto/fleetspeak/grpcservice"
	serverpb "github.com/farspeak/farspeak/proto/fleetspeak/server"
	"github.com/farspeak/farspeak/sdk/backend"
	"github.com/farspeak/farspeak/test/harness"
)

// promptly is how long answers may take on a loaded machine.
const promptly = 60 * time.Second

// TestInstalled: the program, started by a real fs-client from the service file that the README gives, answers a backend.
func TestInstalled(t *testing.T) {
	programs, err := harness.NewPrograms()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = programs.Remove() })
	program := filepath.Join(t.TempDir(), "hostfacts")
	if output, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}

	site := harness.NewSite(t, programs)
	answers := &answers{facts: map[string]map[string]any{}}
	site.Services.Services = append(site.Services.Services, &serverpb.ServiceConfig{
		Name: "inventory", Factory: "GRPC", Config: serveAnswers(t, answers),
	})
	server, admin := site.StartMachine()
	install(t, filepath.Join(site.Dir, "client"), program)
	client := site.StartClient("client", harness.ClientOptions{Servers: []string{server.ClientAddress}})

	submitter, err := backend.NewSubmitter(backend.SubmitterConfig{Address: admin.Address, Source: "inventory"})
	if err != nil {
		t.Fatal(err)
	}
	defer submitter.Close()
	harness.Eventually(t, promptly, "client known", func() error {
		list, err := submitter.Admin().ListClients(t.Context(), &serverpb.ListClientsRequest{})
		if err == nil && len(list.GetClients()) == 0 {
			err = fmt.Errorf("no client yet")
		}
		return err
	})
	const count = 20
	for range count {
		m, err := backend.NewMessage(client.ID(), "hostfacts", askType, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := submitter.Submit(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		answers.expect(m.MessageId)
	}
	harness.Eventually(t, promptly, "answers", answers.missing)
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for request, facts := range answers.facts {
		if facts["name"] != name {
			t.Errorf("answer to %s: %v", request, facts)
		}
	}
}

// install puts the service file where the agent will look, with another path of the program.
func install(t *testing.T, folder, program string) {
	t.Helper()
	text, err := os.ReadFile("../textservices/hostfacts.config")
	if err != nil {
		t.Fatal(err)
	}
	config, daemon := &fspb.ClientServiceConfig{}, &daemonpb.Config{}
	if err := prototext.Unmarshal(text, config); err != nil {
		t.Fatal(err)
	}
	if err := config.Config.UnmarshalTo(daemon); err != nil {
		t.Fatal(err)
	}
	daemon.Argv[0] = program
	daemon.MemoryLimit = 0 // a program with the race detector is large
	if config.Config, err = anypb.New(daemon); err != nil {
		t.Fatal(err)
	}
	if text, err = prototext.Marshal(config); err != nil {
		t.Fatal(err)
	}
	services := filepath.Join(folder, "textservices")
	if err := os.MkdirAll(services, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(services, "hostfacts.config"), text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// answers are the facts that came, by the request that they name.
type answers struct {
	mu    sync.Mutex
	facts map[string]map[string]any
	open  []string
}

func (a *answers) expect(request []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.open = append(a.open, hex.EncodeToString(request))
}

func (a *answers) take(_ context.Context, m *fspb.Message) error {
	facts := &structpb.Struct{}
	if err := m.GetData().UnmarshalTo(facts); err != nil {
		return backend.Permanent(err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.facts[facts.Fields["request"].GetStringValue()] = facts.AsMap()
	return nil
}

func (a *answers) missing() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, request := range a.open {
		if a.facts[request] == nil {
			return fmt.Errorf("no answer to %s, but %d others", request, len(a.facts))
		}
	}
	return nil
}

// serveAnswers takes answers until the test ends, and returns what fs-server has to know.
func serveAnswers(t *testing.T, a *answers) *anypb.Any {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	processor, err := backend.NewProcessor(backend.ProcessorConfig{Services: map[string]backend.Handler{"inventory": a.take}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := processor.Serve(ctx, listener); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		cancel()
		serving.Wait()
	})
	config, err := anypb.New(&grpcservicepb.Config{Target: listener.Addr().String(), Insecure: true})
	if err != nil {
		t.Fatal(err)
	}
	return config
}
