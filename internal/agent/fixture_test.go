package agent_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/farspeak/farspeak/internal/agent"
	"github.com/farspeak/farspeak/internal/agent/service"
	"github.com/farspeak/farspeak/internal/identity"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// probe is a service of the tests: it shows each message to the test and ends as the test says.
type probe struct {
	spec     service.Spec
	messages chan *fspb.Message
	process  func(context.Context, *fspb.Message) error // nil: success
	stopped  chan struct{}
}

func (p *probe) Process(ctx context.Context, m *fspb.Message) error {
	p.messages <- m
	if p.process != nil {
		return p.process(ctx, m)
	}
	return nil
}

func (p *probe) Stop(context.Context) { close(p.stopped) }

// rig is an agent under test.
type rig struct {
	t     *testing.T
	agent *agent.Agent
	done  chan error
	stop  context.CancelFunc

	mu      sync.Mutex
	probes  map[string][]*probe // instances by name
	process func(context.Context, *fspb.Message) error
	broken  bool // the factory fails
}

// start runs an agent with probe services of the given names against a server.
func start(t *testing.T, s *fakeServer, change func(*agent.Config), names ...string) *rig {
	t.Helper()
	r := &rig{t: t, done: make(chan error, 1), probes: map[string][]*probe{}}
	cfg := agent.Config{
		Link: agent.LinkConfig{
			DialConfig: agent.DialConfig{Roots: s.roots()},
			Servers:    []string{s.address()},
			Streaming:  true,
			Version:    "test",
		},
		Labels:    []string{"amd64", "linux", "red"},
		State:     agent.FileState(filepath.Join(t.TempDir(), "state")),
		Factories: service.Factories{"Probe": r.newProbe},
		Stalled:   func() { t.Error("the watchdog barks") },
	}
	for _, name := range names {
		cfg.Services = append(cfg.Services, installation(name))
	}
	if change != nil {
		change(&cfg)
	}
	var err error
	if r.agent, err = agent.New(cfg); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	r.stop = stop
	go func() { r.done <- r.agent.Run(ctx) }() // waited for in the cleanup, or by the test
	t.Cleanup(func() {
		stop()
		select {
		case <-r.done:
		case <-time.After(patience):
			t.Error("the agent does not stop")
		}
	})
	return r
}

func installation(name string) agent.Installation {
	return agent.Installation{Config: &fspb.ClientServiceConfig{Name: name, Factory: "Probe"}}
}

func (r *rig) newProbe(spec service.Spec) (service.Service, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.broken {
		return nil, errors.New("broken on purpose")
	}
	p := &probe{spec: spec, messages: make(chan *fspb.Message, 1000), process: r.process, stopped: make(chan struct{})}
	r.probes[spec.Name] = append(r.probes[spec.Name], p)
	return p, nil
}

// probe returns the latest instance of a service.
func (r *rig) probe(name string) *probe {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.probes[name]) == 0 {
		r.t.Fatalf("no service %s was made", name)
	}
	return r.probes[name][len(r.probes[name])-1]
}

// exit waits for the end of Run.
func (r *rig) exit() error {
	r.t.Helper()
	err := receive(r.t, r.done, "the end of the agent")
	r.done <- err // for the cleanup
	return err
}

// send has a service send a numbered message to the server.
func (r *rig) send(from string, number byte, priority fspb.Message_Priority) {
	r.t.Helper()
	m := &fspb.Message{
		Destination: &fspb.Address{ServiceName: "sink"}, MessageType: "numbered", Priority: priority,
		SourceMessageId: []byte{number},
	}
	if err := r.probe(from).spec.Host.Send(r.t.Context(), m, nil); err != nil {
		r.t.Fatal(err)
	}
}

// to makes a message of the server.
func to(n *fakeSession, name, kind string, data proto.Message) *fspb.Message {
	return toClient(n.t, n.id, name, kind, data)
}

func toClient(t *testing.T, id identity.ClientID, name, kind string, data proto.Message) *fspb.Message {
	t.Helper()
	m := &fspb.Message{
		MessageId:   identity.NewMessageID().Bytes(),
		Source:      &fspb.Address{ServiceName: "sink"},
		Destination: &fspb.Address{ClientId: id.Bytes(), ServiceName: name},
		MessageType: kind,
	}
	if data != nil {
		packed, err := anypb.New(data)
		if err != nil {
			t.Fatal(err)
		}
		m.Data = packed
	}
	return m
}

// find returns the messages of a type in a record.
func find(r record, kind string) []*fspb.Message {
	var out []*fspb.Message
	for _, m := range r.data.Messages {
		if m.MessageType == kind {
			out = append(out, m)
		}
	}
	return out
}

// await reads records until one has a message of the type, and returns the message.
func await(t *testing.T, records <-chan record, kind string) *fspb.Message {
	t.Helper()
	for {
		if found := find(receive(t, records, "a message of type "+kind), kind); len(found) > 0 {
			return found[0]
		}
	}
}

// untilTheEnd reads the records of a session to its end, and returns its messages of the type.
func untilTheEnd(t *testing.T, records <-chan record, kind string) (found []*fspb.Message) {
	t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case r, ok := <-records:
			if !ok {
				return found
			}
			found = append(found, find(r, kind)...)
		case <-timeout:
			t.Fatal("the session does not end")
		}
	}
}

func unpack[M proto.Message](t *testing.T, m *fspb.Message, into M) M {
	t.Helper()
	if err := m.Data.UnmarshalTo(into); err != nil {
		t.Fatal(err)
	}
	return into
}

func acked(t *testing.T, m *fspb.Message) [][]byte {
	t.Helper()
	return unpack(t, m, &fspb.MessageAckData{}).MessageIds
}

func mustRead(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
