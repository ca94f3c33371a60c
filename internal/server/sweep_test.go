package server_test

import (
	"slices"
	"testing"
	"time"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/server"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// waitFor polls a condition that has no event of its own.
func waitFor(t testing.TB, what string, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(ioTimeout)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatalf("waited too long for %s", what)
		}
		<-tick.C
	}
}

// With every hint lost a message arrives by the sweep (G-33).
func TestSweepDeliversWithoutHints(t *testing.T) {
	f := start(t, func(c *server.Config) { c.SweepInterval = 50 * time.Millisecond })
	agent := newTestAgent(t, f.address)
	stream, _ := agent.session(&fspb.ContactData{})
	for range 3 {
		ids := f.insert(t, agent.id, "S", 1)
		if got := collect(stream, 1); !slices.Equal(got, ids) {
			t.Fatalf("got %v, want %v", got, ids)
		}
	}
}

// An unacknowledged message comes again after the redelivery interval, on the same session.
func TestRedelivery(t *testing.T) {
	f := start(t, func(c *server.Config) {
		c.SweepInterval = 50 * time.Millisecond
		c.RedeliveryInterval = 200 * time.Millisecond
	}, withAttemptDelay(20*time.Millisecond))
	agent := newTestAgent(t, f.address)
	stream, _ := agent.session(&fspb.ContactData{})
	ids := f.insert(t, agent.id, "S", 1)
	if got := collect(stream, 2); got[0] != ids[0] || got[1] != ids[0] {
		t.Errorf("got %v, want %v twice", got, ids[0])
	}
}

// What a client did not acknowledge before its session broke comes with its next session, not after the redelivery
// interval; once it was handed out twice, it waits. After an end in order it waits at once: the client has it.
func TestRedeliveryWithTheNextSession(t *testing.T) {
	inOrder := func(s *testStream) {
		_ = s.body.Close()
		_, _ = s.raw.Write([]byte("\r\n"))
		s.ended()
	}
	for _, tc := range []struct {
		name string
		end  func(*testStream)
		want []int
	}{
		{"broken", func(s *testStream) { _ = s.raw.Close() }, []int{1, 1, 0}},
		{"in order", inOrder, []int{1, 0, 0}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := start(t)
			agent := newTestAgent(t, f.address)
			agent.poll(agent.wrap(&fspb.ContactData{}), nil)
			f.insert(t, agent.id, "S", 1)
			for session, want := range tc.want {
				stream, first := agent.session(&fspb.ContactData{})
				if len(first.Messages) != want {
					t.Fatalf("session %d begins with %d messages, want %d", session, len(first.Messages), want)
				}
				tc.end(stream)
				waitFor(t, "the end of the session to be recorded", func() bool {
					clients, err := f.store.GetClients(t.Context(), []identity.ClientID{agent.id})
					return err == nil && clients[agent.id].StreamingTo == "" && server.Opening(f.server) == 0
				})
			}
		})
	}
}
