package integration_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	componentspb "github.com/farspeak/farspeak/proto/fleetspeak/components"
	"github.com/farspeak/farspeak/test/harness"
	"github.com/farspeak/farspeak/test/peer"
)

const (
	// promptly is how long a message may take when nothing is in its way. It has room for daemons with the race detector
	// on a loaded machine; what is usual is a few milliseconds.
	promptly = 15 * time.Second
	// connectTime is how long many agents may take to connect.
	connectTime = 90 * time.Second
	// shortPoll is how often polling agents poll.
	shortPoll = 200 * time.Millisecond
)

// installation is a site with its daemons, and a backend behind its services.
type installation struct {
	*harness.Site
	backend *harness.Backend
	servers []*harness.Server
	admins  []*harness.Admin
}

// shape says what an installation consists of. The zero shape is one fs-server and one fs-admin on SQLite.
type shape struct {
	servers, admins int
	dsn             string
	site            func(*harness.Site)
	server          func(number int, config *componentspb.Config)
	admin           func(number int, config *componentspb.Config)
}

// inOrder makes messages of a client reach backends in order, also on a busy machine: each has one at a time, and so much time
// for it that none goes by the backlog. It follows what adds backends.
func inOrder(s *harness.Site) {
	const patience = 2 * time.Minute
	server := s.Components.Farspeak.Server
	server.ServiceBudget, server.BacklogBudget = durationpb.New(patience), durationpb.New(patience)
	for _, service := range s.Services.Services {
		service.MaxParallelism = 1
	}
}

func install(t *testing.T, s shape) *installation {
	t.Helper()
	i := &installation{Site: harness.NewSite(t, programs), backend: harness.StartBackend(t)}
	i.AddBackend("sink", i.backend)
	i.AddBackend("echo", i.backend) // where the service of that name on fs-clients sends its answers
	if s.site != nil {
		s.site(i.Site)
	}
	if s.dsn != "" {
		i.UseMySQL(s.dsn)
	}
	for n := range max(1, s.servers) {
		i.servers = append(i.servers, i.StartServer(fmt.Sprintf("fs-server-%d", n), numbered(n, s.server)))
	}
	for n := range max(1, s.admins) {
		i.admins = append(i.admins, i.StartAdmin(fmt.Sprintf("fs-admin-%d", n), numbered(n, s.admin)))
	}
	return i
}

func numbered(n int, adjust func(int, *componentspb.Config)) func(*componentspb.Config) {
	return func(config *componentspb.Config) {
		if adjust != nil {
			adjust(n, config)
		}
	}
}

// agentConfig is that of a fake agent with the service "echo", which answers each text.
func agentConfig(t *testing.T, targets ...peer.Target) peer.Config {
	return peer.Config{
		Targets:  targets,
		Labels:   []string{"linux"},
		Services: []string{"echo"},
		AckDelay: 100 * time.Millisecond,
		Answer:   func(m *fspb.Message) *fspb.Message { return harness.ToBackend(t, answerTo(textOf(m))) },
	}
}

func answerTo(text string) string { return "re: " + text }

// textOf is the payload of a message that a test made.
func textOf(m *fspb.Message) string {
	text := &wrapperspb.StringValue{}
	if err := m.Data.UnmarshalTo(text); err != nil {
		return err.Error()
	}
	return text.Value
}

// startAgents runs fake agents and waits until all have a session.
func startAgents(t *testing.T, count int, config peer.Config) []*peer.Agent {
	t.Helper()
	agents := peer.Start(t, count, func(int) peer.Config { return config })
	awaitConnected(t, agents...)
	return agents
}

func awaitConnected(t *testing.T, agents ...*peer.Agent) {
	t.Helper()
	harness.Eventually(t, connectTime, "sessions", func() error {
		for _, a := range agents {
			if !a.Connected() {
				return fmt.Errorf("agent %s is not connected: %+v", a.Key(), a.Stats())
			}
		}
		return nil
	})
}

// roundTrip sends a text to an agent and waits until the backend has its answer. It returns how long that took.
func (i *installation) roundTrip(t *testing.T, admin *harness.AdminClient, agent *peer.Agent, text string) time.Duration {
	t.Helper()
	began := time.Now()
	admin.MustInsert(t, harness.ToClient(t, agent.ID(), "echo", text))
	harness.Eventually(t, promptly, "answer to "+text, func() error { return i.answered(agent.ID(), text) })
	return time.Since(began)
}

// answered is nil when the backend has a client's answer to a text.
func (i *installation) answered(client []byte, text string) error {
	found := i.backend.Find(func(m *fspb.Message) bool {
		return string(m.Source.ClientId) == string(client) && textOf(m) == answerTo(text)
	})
	if found == nil {
		return errors.New("the backend has no answer")
	}
	return nil
}

// checkProtocol fails the test for everything that a server did against the protocol.
func checkProtocol(t *testing.T, agents []*peer.Agent) {
	t.Helper()
	for _, a := range agents {
		for _, violation := range a.Violations() {
			t.Errorf("agent %s: %s", a.Key(), violation)
		}
	}
}

// emptyContact is a record without messages. It is never one without bytes: agents tell their time.
func emptyContact() *fspb.ContactData { return &fspb.ContactData{ClientClock: timestamppb.Now()} }
