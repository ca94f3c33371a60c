package backend_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	grpcservicepb "github.com/farspeak/farspeak/proto/fleetspeak/grpcservice"
	serverpb "github.com/farspeak/farspeak/proto/fleetspeak/server"
	"github.com/farspeak/farspeak/sdk/backend"
	"github.com/farspeak/farspeak/test/harness"
	"github.com/farspeak/farspeak/test/peer"
)

// programs are the daemons, built once.
var programs *harness.Programs

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	var err error
	if programs, err = harness.NewPrograms(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	if err := programs.Remove(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// promptly is how long a message may take on a loaded machine.
const promptly = 30 * time.Second

// answers collects what comes from clients, each text once.
type answers struct {
	mu    sync.Mutex
	texts map[string]int
}

func (a *answers) take(_ context.Context, m *fspb.Message) error {
	text := &wrapperspb.StringValue{}
	if err := m.GetData().UnmarshalTo(text); err != nil {
		return backend.Permanent(err)
	}
	if text.Value == "panic" {
		panic(text.Value)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.texts[text.Value]++
	return nil
}

func (a *answers) missing(want int) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.texts) < want {
		return fmt.Errorf("%d of %d answers", len(a.texts), want)
	}
	return nil
}

// TestFabric: messages go through a real fs-admin and a real fs-server to an agent, and its answers come back, although
// fs-admin is killed meanwhile and a handler panics.
func TestFabric(t *testing.T) {
	site := harness.NewSite(t, programs)
	got := &answers{texts: map[string]int{}}
	site.Services.Services = append(site.Services.Services, &serverpb.ServiceConfig{
		Name: "sink", Factory: "GRPC", Config: processorConfig(t, got),
	})
	server := site.StartServer("fs-server", nil)
	admin := site.StartAdmin("fs-admin", nil)
	s := newSubmitter(t, backend.SubmitterConfig{Address: admin.Address, Source: "sink", Timeout: time.Minute})
	if err := s.Ping(t.Context()); err != nil {
		t.Error(err)
	}
	agent := startAgent(t, server)
	harness.Eventually(t, promptly, "agent known", func() error {
		list, err := s.Admin().ListClients(t.Context(), &serverpb.ListClientsRequest{ClientIds: [][]byte{agent.ID()}})
		if err == nil && len(list.GetClients()) == 0 {
			err = errors.New("no such client")
		}
		return err
	})

	const count = 50
	submit := func(from int) {
		for i := from; i < from+count/2; i++ {
			m := textTo(t, agent.ID(), fmt.Sprint(i))
			for range 2 { // twice the same message
				if err := s.Submit(t.Context(), m); err != nil {
					t.Error(err)
				}
			}
		}
	}
	submit(0)
	admin.Kill()
	var submitting sync.WaitGroup
	submitting.Go(func() { submit(count / 2) })
	admin.Restart()
	submitting.Wait()
	agent.Send(&fspb.Message{
		Source: &fspb.Address{ServiceName: "echo"}, Destination: &fspb.Address{ServiceName: "sink"}, Data: harness.Text(t, "panic"),
	})
	harness.Eventually(t, promptly, "answers", func() error { return got.missing(count) })
	if deliveries := agent.Deliveries(); len(deliveries) != count {
		t.Errorf("the agent got %d messages, want %d", len(deliveries), count)
	}
}

// processorConfig serves a Processor until the test ends, and returns what fs-server has to know of it.
func processorConfig(t *testing.T, got *answers) *anypb.Any {
	t.Helper()
	listener := listen(t, "tcp", "127.0.0.1:0")
	p := newProcessor(t, backend.ProcessorConfig{Services: map[string]backend.Handler{"sink": got.take}})
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := p.Serve(ctx, listener); err != nil {
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

// startAgent runs an agent whose service "echo" answers with what it got.
func startAgent(t *testing.T, server *harness.Server) *peer.Agent {
	t.Helper()
	return peer.Start(t, 1, func(int) peer.Config {
		return peer.Config{
			Targets: []peer.Target{server.Target()}, Services: []string{"echo"},
			Answer: func(m *fspb.Message) *fspb.Message {
				return &fspb.Message{Source: m.Destination, Destination: &fspb.Address{ServiceName: m.Source.ServiceName}, MessageType: "Text", Data: m.Data}
			},
		}
	})[0]
}

func textTo(t *testing.T, client []byte, text string) *fspb.Message {
	t.Helper()
	m, err := backend.NewMessage(client, "echo", "Text", wrapperspb.String(text))
	if err != nil {
		t.Fatal(err)
	}
	return m
}
