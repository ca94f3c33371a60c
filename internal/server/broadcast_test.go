package server_test

import (
	"slices"
	"testing"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/server"
	"github.com/farspeak/farspeak/internal/store"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

func (f *fixture) broadcast(t *testing.T, limit uint64, labels ...string) *store.Broadcast {
	t.Helper()
	b := &store.Broadcast{ID: identity.NewBroadcastID(), Source: "B", Type: "Announcement", Limit: limit}
	for _, label := range labels {
		b.RequiredLabels = append(b.RequiredLabels, store.Label{Service: "client", Label: label})
	}
	if err := f.store.CreateBroadcast(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	return b
}

// A broadcast reaches connected clients with the hint, those with its label only, and each once; a client that has no
// tokens gets it too.
func TestBroadcastReachesConnectedClients(t *testing.T) {
	f := start(t)
	meant, other := newTestAgent(t, f.address), newTestAgent(t, f.address)
	other.labels = []string{"windows"}
	meantStream, _ := meant.session(&fspb.ContactData{AllowedMessages: map[string]uint64{"none": 1}})
	otherStream, _ := other.session(&fspb.ContactData{})
	f.broadcast(t, store.UnlimitedBroadcast, "linux")
	f.server.BroadcastsChanged()
	got := meantStream.next()
	if len(got.Messages) != 1 || got.Messages[0].MessageType != "Announcement" || got.Messages[0].Destination.ServiceName != "B" {
		t.Fatalf("got %v, want the announcement to service B", got)
	}
	for _, stream := range []*testStream{meantStream, otherStream} {
		stream.send(framed(meant.wrap(&fspb.ContactData{})))
		if next := stream.next(); next.AckIndex != 1 {
			t.Errorf("got %v, want nothing but an acknowledgement", next)
		}
	}
}

// A client that connects later gets what is active, on every kind of contact, and only once over all of them (G-09).
func TestBroadcastReachesLaterClientsOnce(t *testing.T) {
	f := start(t)
	f.broadcast(t, store.UnlimitedBroadcast)
	f.server.BroadcastsChanged()
	agent := newTestAgent(t, f.address)
	waitFor(t, "the server to know the broadcast", func() bool { return gauge(t, f.registry, "farspeak_active_broadcasts") == 1 })
	_, data := agent.poll(agent.wrap(&fspb.ContactData{}), nil)
	if len(data.Messages) != 1 {
		t.Fatalf("%d messages in the first poll, want the broadcast", len(data.Messages))
	}
	f.complete(t, agent.id, idsOf(t, data))
	if _, data := agent.poll(agent.wrap(&fspb.ContactData{}), nil); len(data.Messages) != 0 {
		t.Error("the broadcast came twice")
	}
	stream, first := agent.session(&fspb.ContactData{})
	stream.send(framed(agent.wrap(&fspb.ContactData{})))
	if next := stream.next(); len(first.Messages) != 0 || next.AckIndex != 1 {
		t.Error("the broadcast came again on a session")
	}
}

// Labels that a client reports during its session count at once (G-09).
func TestNewLabelsOpenBroadcasts(t *testing.T) {
	f := start(t)
	agent := newTestAgent(t, f.address)
	stream, _ := agent.session(&fspb.ContactData{})
	f.broadcast(t, store.UnlimitedBroadcast, "canary")
	f.server.BroadcastsChanged()
	waitFor(t, "the server to know the broadcast", func() bool { return gauge(t, f.registry, "farspeak_active_broadcasts") == 1 })
	f.server.LabelsChanged(agent.id, []store.Label{{Service: "client", Label: "canary"}})
	if got := stream.next(); len(got.Messages) != 1 {
		t.Errorf("got %v, want the broadcast", got)
	}
}

// The limit is exact over several servers on one store (G-34, G-60).
func TestBroadcastLimitOverTwoServers(t *testing.T) {
	first := start(t)
	second := start(t, func(c *server.Config) { c.Store = sqlStore{first.store}; c.ID = "second" })
	const connected, limit = 20, 13
	var streams []*testStream
	var agents []*testAgent
	for i := range connected {
		agent := newTestAgent(t, []string{first.address, second.address}[i%2])
		stream, _ := agent.session(&fspb.ContactData{})
		streams, agents = append(streams, stream), append(agents, agent)
	}
	b := first.broadcast(t, limit)
	first.server.BroadcastsChanged()
	second.server.BroadcastsChanged()
	waitFor(t, "the limit to be used up", func() bool {
		active, err := first.store.ActiveBroadcasts(t.Context())
		return err == nil && !slices.ContainsFunc(active, func(a *store.Broadcast) bool { return a.ID == b.ID })
	})
	got := 0
	for i, stream := range streams {
		stream.send(framed(agents[i].wrap(&fspb.ContactData{})))
		for next := stream.next(); next.AckIndex != 1; next = stream.next() {
			got += len(next.Messages)
		}
	}
	// A push may still be on its way when its client's record is acknowledged; the store knows who was meant.
	if got > limit {
		t.Errorf("%d clients got the broadcast, the limit is %d", got, limit)
	}
}

// A connected client is told at once that it was blacklisted, once, and gets nothing else any more (G-10).
func TestBlacklistedClientIsToldAtOnce(t *testing.T) {
	f := start(t)
	agent := newTestAgent(t, f.address)
	stream, _ := agent.session(&fspb.ContactData{})
	if _, err := f.store.BlacklistClient(t.Context(), agent.id); err != nil {
		t.Fatal(err)
	}
	f.server.Blacklisted([]identity.ClientID{agent.id, agent.id})
	got := stream.next()
	if len(got.Messages) != 1 || got.Messages[0].MessageType != "RekeyRequest" || got.Messages[0].Data != nil {
		t.Fatalf("got %v, want one RekeyRequest", got)
	}
	f.insert(t, agent.id, "S", 1)
	f.server.Wake([]identity.ClientID{agent.id})
	stream.send(framed(agent.wrap(manyMessages(1))))
	if next := stream.next(); next.AckIndex != 1 || len(next.Messages) != 0 {
		t.Errorf("got %v, want nothing but an acknowledgement", next)
	}
	f.services.mu.Lock()
	defer f.services.mu.Unlock()
	if last := f.services.batches[len(f.services.batches)-1]; !last.Blacklisted {
		t.Error("the services were not told that the sender is blacklisted")
	}
}

// Every contact of a blacklisted identity gets the request, and the store holds one of them (G-10).
func TestBlacklistedPolls(t *testing.T) {
	f := start(t)
	agent := newTestAgent(t, f.address)
	agent.poll(agent.wrap(&fspb.ContactData{}), nil)
	if _, err := f.store.BlacklistClient(t.Context(), agent.id); err != nil {
		t.Fatal(err)
	}
	f.insert(t, agent.id, "S", 2)
	for range 3 {
		_, data := agent.poll(agent.wrap(&fspb.ContactData{AllowedMessages: map[string]uint64{"none": 1}}), nil)
		if len(data.Messages) != 1 || data.Messages[0].MessageType != "RekeyRequest" {
			t.Fatalf("got %v, want one RekeyRequest", data)
		}
	}
	pending, err := f.store.PendingCount(t.Context(), []identity.ClientID{agent.id})
	if err != nil || pending != 3 {
		t.Errorf("%d messages pending, %v; want two and one request", pending, err)
	}
}

// A broadcast that finds its client opening a new session waits for the answer of that session, which it must follow, and
// comes then, not at the next redelivery.
func TestBroadcastWhileTheSessionOpens(t *testing.T) {
	var faults *faultyStore
	f := start(t, withFaults(&faults))
	agent := newTestAgent(t, f.address)
	agent.session(&fspb.ContactData{})
	assign := faults.hold(assignBroadcast)
	f.broadcast(t, store.UnlimitedBroadcast)
	f.server.BroadcastsChanged()
	waitFor(t, "the broadcast to be handed out", func() bool { return faults.count(assignBroadcast) == 1 })
	read := faults.hold(dueMessages)
	before := faults.count(dueMessages)
	stream := agent.open(append([]byte{0x01, 0x10, 0xee, 0xf1}, framed(agent.wrap(&fspb.ContactData{}))...))
	waitFor(t, "the second session to read its queue", func() bool { return faults.count(dueMessages) > before })
	assign()
	waitFor(t, "the broadcast to be assigned", func() bool {
		pending, err := f.store.PendingCount(t.Context(), []identity.ClientID{agent.id})
		return err == nil && pending == 1
	})
	read()
	if status := stream.status(); status != 200 {
		t.Fatalf("status %d", status)
	}
	if first := stream.next(); len(first.Messages) != 0 {
		t.Fatalf("got %v in record 0, want nothing that was not due", first)
	}
	if got := stream.next(); len(got.Messages) != 1 || got.Messages[0].MessageType != "Announcement" {
		t.Errorf("got %v, want the announcement", got)
	}
}

// A broadcast that was assigned to a client which has just left waits for its next session, not for the redelivery: it was
// handed to nobody.
func TestBroadcastToAClientThatLeft(t *testing.T) {
	var faults *faultyStore
	f := start(t, withFaults(&faults))
	agent := newTestAgent(t, f.address)
	stream, _ := agent.session(&fspb.ContactData{})
	assign := faults.hold(assignBroadcast)
	f.broadcast(t, store.UnlimitedBroadcast)
	f.server.BroadcastsChanged()
	waitFor(t, "the broadcast to be handed out", func() bool { return faults.count(assignBroadcast) == 1 })
	if err := stream.raw.Close(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the end of the session to be recorded", func() bool {
		clients, err := f.store.GetClients(t.Context(), []identity.ClientID{agent.id})
		return err == nil && clients[agent.id].StreamingTo == ""
	})
	assign()
	waitFor(t, "the broadcast to be due", func() bool {
		due, err := f.store.DueMessages(t.Context(), []store.DueRequest{{ClientID: agent.id, Limit: 10}})
		return err == nil && len(due[agent.id].Messages) == 1
	})
	if _, first := agent.session(&fspb.ContactData{}); len(first.Messages) != 1 || first.Messages[0].MessageType != "Announcement" {
		t.Errorf("got %v in the next session, want the announcement", first)
	}
}
