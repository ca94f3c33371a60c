package server_test

import (
	"slices"
	"testing"
	"time"

	"github.com/farspeak/farspeak/internal/server"
	"github.com/farspeak/farspeak/internal/store"
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
// interval; once it was handed out twice, it waits.
func TestRedeliveryWithTheNextSession(t *testing.T) {
	f := start(t, withAttemptDelay(20*time.Millisecond))
	agent := newTestAgent(t, f.address)
	agent.poll(agent.wrap(&fspb.ContactData{}), nil)
	f.insert(t, agent.id, "S", 1)
	for session, want := range []int{1, 1, 0} {
		stream, first := agent.session(&fspb.ContactData{})
		if len(first.Messages) != want {
			t.Fatalf("session %d begins with %d messages, want %d", session, len(first.Messages), want)
		}
		waitFor(t, "the attempt to be recorded", func() bool {
			due, err := f.store.DueMessages(t.Context(), []store.DueRequest{{ClientID: agent.id, Limit: 1}})
			return err == nil && len(due[agent.id].Messages) == 0
		})
		_ = stream.raw.Close()
	}
}
