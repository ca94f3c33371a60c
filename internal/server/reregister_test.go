package server_test

import (
	"testing"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/server"
	"github.com/farspeak/farspeak/internal/store"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// A connected client is known to a store that replaced a lost one, with its key and labels, and gets its messages there.
func TestFreshDatabaseLearnsConnectedClients(t *testing.T) {
	f := start(t)
	agent := newTestAgent(t, f.address)
	stream, _ := agent.session(&fspb.ContactData{})
	for _, table := range []string{"clients", "client_labels", "client_contacts", "servers"} {
		f.database.Exec(t, "DELETE FROM "+table)
	}
	if err := server.CheckMemory(f.server, t.Context()); err != nil {
		t.Fatal(err)
	}
	clients, err := f.store.GetClients(t.Context(), []identity.ClientID{agent.id})
	if err != nil || clients[agent.id] == nil {
		t.Fatalf("the fresh store knows %v, %v", clients, err)
	}
	if got := clients[agent.id]; got.StreamingTo != testAddress || len(got.Labels) != 1 || got.Labels[0] != (store.Label{Service: "client", Label: "linux"}) {
		t.Errorf("the fresh store knows %+v", got)
	}
	ids := f.insert(t, agent.id, "S", 1)
	f.server.Wake([]identity.ClientID{agent.id})
	if got := collect(stream, 1); got[0] != ids[0] {
		t.Errorf("got %v, want %v", got, ids)
	}
}
