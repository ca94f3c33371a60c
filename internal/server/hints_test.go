package server_test

import (
	"testing"

	"github.com/farspeak/farspeak/internal/identity"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// A forged notification costs a look-up: nobody takes a new key on its word (G-10, G-17, G-33).
func TestForgedHints(t *testing.T) {
	f := start(t)
	agent := newTestAgent(t, f.address)
	stream, _ := agent.session(&fspb.ContactData{})
	f.server.Blacklisted([]identity.ClientID{agent.id, {1}})
	f.server.Wake([]identity.ClientID{agent.id, {1}})
	f.server.BroadcastsChanged()
	for index := uint64(1); index <= 3; index++ {
		stream.send(framed(agent.wrap(&fspb.ContactData{})))
		if got := stream.next(); got.AckIndex != index || len(got.Messages) != 0 {
			t.Fatalf("got %v, want an acknowledgement", got)
		}
	}
	f.insert(t, agent.id, "S", 1)
	f.server.Wake([]identity.ClientID{agent.id})
	if got := stream.next(); len(got.Messages) != 1 || got.Messages[0].MessageType != "Test" {
		t.Errorf("got %v, want the message", got)
	}
}

// Clients that are marked while the store is asked for others share the next question, however many they are.
func TestMarksShareQuestions(t *testing.T) {
	var faults *faultyStore
	f := start(t, withFaults(&faults))
	var agents []*testAgent
	var streams []*testStream
	for range 8 {
		agent := newTestAgent(t, f.address)
		stream, _ := agent.session(&fspb.ContactData{})
		f.insert(t, agent.id, "S", 1)
		agents, streams = append(agents, agent), append(streams, stream)
	}
	letGo := faults.hold(dueMessages)
	defer letGo()
	before := faults.count(dueMessages)
	f.server.Wake([]identity.ClientID{agents[0].id})
	waitFor(t, "the first question", func() bool { return faults.count(dueMessages) == before+1 })
	for _, agent := range agents[1:] {
		f.server.Wake([]identity.ClientID{agent.id})
	}
	letGo()
	for _, stream := range streams {
		collect(stream, 1)
	}
	if asked := faults.count(dueMessages) - before; asked != 2 {
		t.Errorf("%d questions for %d clients, want one for the first and one for the others", asked, len(agents))
	}
}
