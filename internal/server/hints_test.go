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
