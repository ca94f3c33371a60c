package server_test

import (
	"net/http"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/server"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// register makes a new client and has it poll, and returns it.
func (f *fixture) register(t testing.TB) *testAgent {
	t.Helper()
	agent := newTestAgent(t, f.address)
	if status, _ := agent.poll(agent.wrap(&fspb.ContactData{}), nil); status != http.StatusOK {
		t.Fatalf("registration: status %d", status)
	}
	return agent
}

// While clients may register nobody is looked up before the contact is written, and a client that registers with it does
// not read a queue that cannot be.
func TestContactsAskTheStoreOnlyWhatTheyHaveTo(t *testing.T) {
	var faulty *faultyStore
	f := start(t, withFaults(&faulty))
	agent := newTestAgent(t, f.address)
	agent.session(&fspb.ContactData{})
	if lookups, reads := faulty.count(getClients), faulty.count(dueMessages); lookups != 0 || reads != 0 {
		t.Errorf("a new client: %d lookups, %d reads of its queue", lookups, reads)
	}
	for range 3 {
		agent.session(&fspb.ContactData{})
	}
	if lookups, reads := faulty.count(getClients), faulty.count(dueMessages); lookups != 0 || reads != 3 {
		t.Errorf("a known client, three times: %d lookups, %d reads of its queue", lookups, reads)
	}
}

// A contact holds a place while it is recorded, and takes it only when the client was new: known clients leave all places
// to new ones (G-32).
func TestReservedRegistrations(t *testing.T) {
	reserve := server.NewReserve(server.RegistrationLimits{PerSecond: 0.001, PerSecondAndAddress: 0.001}, true)
	const address = "192.0.2.1:1"
	for _, registered := range []bool{false, false, true} {
		settle, ok := reserve(address)
		if !ok {
			t.Fatal("no place, and none is taken")
		}
		if _, ok := reserve(address); ok {
			t.Fatal("the only place was given twice")
		}
		settle(registered)
	}
	if _, ok := reserve(address); ok {
		t.Error("the place that was taken is given again")
	}
}

// A fleet that is started on one machine, or behind one gateway, registers without a wait; behind a front end that ends TLS
// all clients have one address, and only the limit for all counts.
func TestRegistrationBurst(t *testing.T) {
	for name, test := range map[string]struct {
		addresses bool
		want      int
	}{
		"own addresses":  {true, 20_000},
		"of a front end": {false, 50_000},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				reserve := server.NewReserve(server.RegistrationLimits{}, test.addresses)
				got := 0
				for settle, ok := reserve("192.0.2.1:1"); ok; settle, ok = reserve("192.0.2.1:1") {
					settle(true)
					got++
				}
				if got != test.want {
					t.Errorf("%d registered at once, want %d", got, test.want)
				}
				if _, ok := reserve("192.0.2.2:1"); ok != test.addresses {
					t.Errorf("another address: %v", ok)
				}
			})
		})
	}
}

// A backend that answers the first messages of a new client at once reaches it in the session that brought them, although
// that session does not read its queue.
func TestAnswerToTheFirstMessages(t *testing.T) {
	f := start(t)
	letGo := f.services.hold()
	agent := newTestAgent(t, f.address)
	stream := agent.open(agent.first(manyMessages(1)))
	waitFor(t, "the messages to reach the service", func() bool { return f.services.waiting() == 1 })
	ids := f.insert(t, agent.id, "S", 1)
	f.server.Wake([]identity.ClientID{agent.id})
	letGo()
	if status := stream.status(); status != http.StatusOK {
		t.Fatalf("status %d", status)
	}
	if got := collect(stream, 1); !slices.Equal(got, ids) {
		t.Errorf("got %v, want %v", got, ids)
	}
}
