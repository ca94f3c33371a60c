package integration_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	"github.com/farspeak/farspeak/test/harness"
	"github.com/farspeak/farspeak/test/peer"
)

// A service gets as many messages as its agent gave tokens for, and the rest as they are returned.
func TestTokens(t *testing.T) {
	t.Parallel()
	i := install(t, shape{})
	admin := i.admins[0].Client(t)
	key := newKey(t)
	session, _, err := i.servers[0].Target().Open(t.Context(), key, false, granting(map[string]uint64{"system": 1, "echo": 3}), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	for n := range 10 {
		admin.MustInsert(t, harness.ToClient(t, key.ID(), "echo", fmt.Sprint(n)))
	}
	admin.MustInsert(t, harness.ToClient(t, key.ID(), "other", "a service without tokens"))
	got := 0
	for _, returned := range []uint64{0, 2, 1, 4} {
		if returned > 0 {
			if err := session.Send(granting(map[string]uint64{"echo": returned}), nil); err != nil {
				t.Fatal(err)
			}
		}
		want := got + int(returned)
		if returned == 0 {
			want = 3
		}
		for got < want {
			got += countEcho(t, session, got)
		}
		if got != want {
			t.Fatalf("%d messages came, with tokens for %d", got, want)
		}
	}
	// Nothing is left that may come: the next record of the server is the acknowledgement of this one.
	if err := session.Send(granting(nil), nil); err != nil {
		t.Fatal(err)
	}
	for {
		contact, err := session.ReceiveWithin(promptly)
		if err != nil {
			t.Fatal(err)
		}
		if len(contact.Messages) > 0 {
			t.Fatalf("without tokens came %v", contact.Messages)
		}
		if contact.AckIndex == 4 {
			return
		}
	}
}

// granting is a record that only returns tokens.
func granting(tokens map[string]uint64) *fspb.ContactData {
	contact := emptyContact()
	contact.AllowedMessages = tokens
	return contact
}

// countEcho takes one record, and checks that its messages are those for "echo", in the order of insertion.
func countEcho(t *testing.T, session *peer.Session, from int) int {
	t.Helper()
	contact, err := session.ReceiveWithin(promptly)
	if err != nil {
		t.Fatalf("after %d messages: %v", from, err)
	}
	for n, m := range contact.Messages {
		if m.Destination.ServiceName != "echo" || textOf(m) != fmt.Sprint(from+n) {
			t.Errorf("message %v, want text %d for echo", m, from+n)
		}
	}
	return len(contact.Messages)
}

// Many messages for a few busy clients all arrive, in spite of tokens that run out again and again.
func TestBurst(t *testing.T) {
	t.Parallel()
	const count, perAgent = 10, 250
	i := install(t, shape{site: func(s *harness.Site) {
		s.Components.Farspeak.Server.SweepInterval = durationpb.New(time.Hour) // nothing is found by chance
	}})
	config := agentConfig(t, i.servers[0].Target())
	config.Answer = nil
	agents := startAgents(t, count, config)
	began := time.Now()
	done := make(chan struct{})
	for _, agent := range agents {
		admin := i.admins[0].Client(t)
		go func() {
			defer func() { done <- struct{}{} }()
			for n := range perAgent {
				if _, err := admin.InsertMessage(t.Context(), harness.ToClient(t, agent.ID(), "echo", fmt.Sprint(n))); err != nil {
					t.Errorf("InsertMessage: %v", err)
					return
				}
			}
		}()
	}
	for range agents {
		<-done
	}
	harness.Eventually(t, 4*promptly, "all messages", func() error {
		for _, agent := range agents {
			if stats := agent.Stats(); stats.Received < perAgent {
				return fmt.Errorf("an agent has %d of %d", stats.Received, perAgent)
			}
		}
		return nil
	})
	t.Logf("%d messages for %d clients in %v", count*perAgent, count, time.Since(began))
	checkProtocol(t, agents)
}

// Messages of the largest size pass in both directions, more of them than fit into one record.
func TestLargeMessages(t *testing.T) {
	t.Parallel()
	const count = 12
	text := strings.Repeat("x", 2<<20-1000)
	i := install(t, shape{})
	admin := i.admins[0].Client(t)
	config := agentConfig(t, i.servers[0].Target())
	config.Answer = nil
	agent := startAgents(t, 1, config)[0]
	for range count {
		admin.MustInsert(t, harness.ToClient(t, agent.ID(), "echo", text))
		agent.Send(harness.ToBackend(t, text))
	}
	harness.Eventually(t, 4*promptly, "large messages", func() error {
		if stats := agent.Stats(); stats.Received < count || len(agent.AcknowledgedIDs()) < count {
			return fmt.Errorf("%+v", stats)
		}
		if missing := i.missingAtBackend([]*peer.Agent{agent}); missing > 0 {
			return fmt.Errorf("%d did not arrive at the backend", missing)
		}
		return nil
	})
	checkProtocol(t, []*peer.Agent{agent})
}

// Sessions that end after a few seconds lose nothing and break no rule, whatever is under way.
func TestSessionRotation(t *testing.T) {
	t.Parallel()
	const rounds = 15
	i := install(t, shape{site: func(s *harness.Site) {
		s.Components.Farspeak.Server.StreamLifetime = durationpb.New(2 * time.Second)
		s.Components.Farspeak.Server.LongStreamLifetime = durationpb.New(2 * time.Second)
		s.Components.Farspeak.Server.RedeliveryInterval = durationpb.New(3 * time.Second)
		s.Components.Farspeak.Server.SweepInterval = durationpb.New(time.Second)
	}})
	admin := i.admins[0].Client(t)
	agents := startAgents(t, 20, agentConfig(t, i.servers[0].Target()))
	client := i.StartClient("fs-client", harness.ClientOptions{Servers: []string{i.servers[0].ClientAddress}})
	awaitClients(t, admin, []*harness.Client{client})
	for round := range rounds {
		i.askAll(t, admin, agents, fmt.Sprintf("round %d", round))
		i.echo(t, admin, client, fmt.Sprintf("round %d", round))
	}
	harness.Eventually(t, promptly, "rotation", func() error {
		for _, agent := range agents {
			if agent.Stats().Farewells == 0 {
				return errors.New("a session was never told to leave")
			}
		}
		return nil
	})
	sessions, repeats := 0, 0
	for _, agent := range agents {
		sessions, repeats = sessions+agent.Stats().Sessions, repeats+agent.Stats().Duplicates
	}
	t.Logf("%d answers of %d clients over %d sessions, %d messages came twice", rounds*len(agents), len(agents), sessions, repeats)
	checkProtocol(t, agents)
}
