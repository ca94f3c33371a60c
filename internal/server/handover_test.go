package server_test

import (
	"slices"
	"testing"
	"time"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/server"
	"github.com/farspeak/farspeak/internal/store"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// handovers stores messages for a client with a session, by one call, and returns what a peer would hand over.
func (f *fixture) handovers(t testing.TB, client identity.ClientID, service string, count int) []*store.Handover {
	t.Helper()
	var messages []*fspb.Message
	for range count {
		messages = append(messages, toClient(client, service, identity.NewMessageID()))
	}
	outcomes, err := f.store.InsertMessages(t.Context(), messages)
	if err != nil {
		t.Fatal(err)
	}
	var handed []*store.Handover
	for _, outcome := range outcomes {
		if outcome.Handover == nil {
			t.Fatalf("outcome %+v, want something to hand over", outcome)
		}
		handed = append(handed, outcome.Handover)
	}
	return handed
}

// expectHanded reads messages and compares them with those handed over, in order.
func expectHanded(t testing.TB, stream *testStream, handed ...*store.Handover) {
	t.Helper()
	var want []identity.MessageID
	for _, h := range handed {
		want = append(want, h.Message.ID)
	}
	got := collect(stream, len(handed))
	if !slices.Equal(got, want) {
		t.Errorf("got messages %v, want %v", got, want)
	}
}

// expectQuiet exchanges a record, and sees no message come before its acknowledgement.
func expectQuiet(t testing.TB, agent *testAgent, stream *testStream) {
	t.Helper()
	stream.send(framed(agent.wrap(&fspb.ContactData{})))
	if got := stream.next(); got.AckIndex == 0 || len(got.Messages) != 0 {
		t.Errorf("got %v, want an acknowledgement", got)
	}
}

// What is handed over is pushed without a question to the store, in order.
func TestHandover(t *testing.T) {
	var faults *faultyStore
	f := start(t, withFaults(&faults))
	agent := newTestAgent(t, f.address)
	stream, _ := agent.session(&fspb.ContactData{})
	asked := faults.count(dueMessages)
	handed := f.handovers(t, agent.id, "S", 5)
	f.server.HandOver(handed[:1])
	expectHanded(t, stream, handed[0])
	waitFor(t, "the push to end", func() bool { return server.Idle(f.server, agent.id) })
	f.server.HandOver(handed[1:])
	expectHanded(t, stream, handed[1:]...)
	if again := faults.count(dueMessages) - asked; again != 0 {
		t.Errorf("%d questions to the store, want none", again)
	}
	waitFor(t, "what was handed out to be recorded", func() bool { return faults.count(recordAttempts) > 0 })
	f.server.Wake([]identity.ClientID{agent.id})
	waitFor(t, "a fetch", func() bool { return faults.count(dueMessages) > asked && server.Idle(f.server, agent.id) })
	expectQuiet(t, agent, stream)
}

// A message that is handed over again, at whatever time, is not pushed again: the handover is not from this session's present.
func TestRepeatedHandover(t *testing.T) {
	f := start(t)
	agent := newTestAgent(t, f.address)
	stream, _ := agent.session(&fspb.ContactData{})
	handed := f.handovers(t, agent.id, "S", 3)
	f.server.HandOver(handed)
	expectHanded(t, stream, handed...)
	again := func() {
		t.Helper()
		for _, h := range handed {
			waitFor(t, "the session", func() bool { return server.Idle(f.server, agent.id) })
			f.server.HandOver([]*store.Handover{h})
		}
		waitFor(t, "the session", func() bool { return server.Idle(f.server, agent.id) })
	}
	again()
	expectQuiet(t, agent, stream)
	var refs []store.MessageRef
	for _, h := range handed {
		refs = append(refs, store.MessageRef{ClientID: agent.id, ID: h.Message.ID})
	}
	if err := f.store.CompleteMessages(t.Context(), refs); err != nil {
		t.Fatal(err)
	}
	f.server.Acknowledged(refs)
	again()
	expectQuiet(t, agent, stream)
	if err := stream.raw.Close(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the end of the session", func() bool { return f.server.Sessions() == 0 })
	next, _ := agent.session(&fspb.ContactData{})
	again()
	expectQuiet(t, agent, next)
}

// What was stored for the session before is not pushed to the next one on its word; it is read like anything that waits.
func TestHandoverForAnotherSession(t *testing.T) {
	var faults *faultyStore
	f := start(t, withFaults(&faults))
	agent := newTestAgent(t, f.address)
	agent.session(&fspb.ContactData{})
	handed := f.handovers(t, agent.id, "S", 2)
	stream, first := agent.session(&fspb.ContactData{}) // while the other one is open still
	if len(first.Messages) != 2 {
		t.Fatalf("the new session began with %v, want what waits", first)
	}
	f.server.HandOver(handed)
	waitFor(t, "the session", func() bool { return server.Idle(f.server, agent.id) })
	expectQuiet(t, agent, stream)
}

// A message is not pushed past one that was stored before it and waits, because the word of it was lost: all are read, in order.
func TestHandoverKeepsTheOrder(t *testing.T) {
	f := start(t)
	agent := newTestAgent(t, f.address)
	stream, _ := agent.session(&fspb.ContactData{})
	lost := f.handovers(t, agent.id, "S", 2)
	handed := f.handovers(t, agent.id, "S", 2)
	f.server.HandOver(handed[1:])
	expectHanded(t, stream, append(lost, handed...)...)
}

// Tokens bind messages that are handed over as any others.
func TestHandoverTakesTokens(t *testing.T) {
	f := start(t)
	agent := newTestAgent(t, f.address)
	stream, _ := agent.session(&fspb.ContactData{AllowedMessages: map[string]uint64{"S": 2, "T": 1}})
	handed := f.handovers(t, agent.id, "S", 3)
	f.server.HandOver(handed)
	expectHanded(t, stream, handed[:2]...)
	more := f.handovers(t, agent.id, "S", 2)
	f.server.HandOver(more)
	other := f.handovers(t, agent.id, "T", 2)
	f.server.HandOver(other[:1])
	expectHanded(t, stream, other[0])
	expectQuiet(t, agent, stream)
	stream.send(framed(agent.wrap(&fspb.ContactData{AllowedMessages: map[string]uint64{"S": 10}})))
	if got := stream.next(); got.AckIndex != 2 {
		t.Fatalf("got %v, want an acknowledgement", got)
	}
	expectHanded(t, stream, append(handed[2:], more...)...)
}

// A session that the store registers anew is handed over messages as before.
func TestHandoverToASessionRegisteredAgain(t *testing.T) {
	var faults *faultyStore
	f := start(t, withFaults(&faults))
	agent := newTestAgent(t, f.address)
	stream, _ := agent.session(&fspb.ContactData{})
	if err := server.RegisterAgain(f.server, t.Context()); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the session", func() bool { return server.Idle(f.server, agent.id) })
	asked := faults.count(dueMessages)
	handed := f.handovers(t, agent.id, "S", 2)
	f.server.HandOver(handed)
	expectHanded(t, stream, handed...)
	if again := faults.count(dueMessages) - asked; again != 0 {
		t.Errorf("%d questions to the store, want none", again)
	}
}

// What is handed over and not acknowledged comes again after the redelivery interval, or with the next session.
func TestHandoverIsRedelivered(t *testing.T) {
	f := start(t, func(c *server.Config) { c.AttemptDelay = 10 * time.Millisecond })
	agent := newTestAgent(t, f.address)
	stream, _ := agent.session(&fspb.ContactData{})
	handed := f.handovers(t, agent.id, "S", 2)
	f.server.HandOver(handed)
	expectHanded(t, stream, handed...)
	if err := stream.raw.Close(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the end of the session", func() bool { return f.server.Sessions() == 0 })
	waitFor(t, "the messages to be due", func() bool {
		due, err := f.store.DueMessages(t.Context(), []store.DueRequest{{ClientID: agent.id, Limit: 10}})
		return err == nil && len(due[agent.id].Messages) == 2
	})
}

// What a fetch was to bring and did not, because the store was away, goes before what is handed over meanwhile.
func TestHandoverWaitsForAFetchThatFailed(t *testing.T) {
	var faults *faultyStore
	f := start(t, withFaults(&faults))
	agent := newTestAgent(t, f.address)
	stream, _ := agent.session(&fspb.ContactData{AllowedMessages: map[string]uint64{"S": 1, "T": 1}})
	left := f.handovers(t, agent.id, "S", 2)
	f.server.HandOver(left)
	expectHanded(t, stream, left[0])
	waitFor(t, "the session", func() bool { return server.Idle(f.server, agent.id) })
	other := f.handovers(t, agent.id, "T", 1)
	f.server.HandOver(other)
	expectHanded(t, stream, other...)
	waitFor(t, "the session", func() bool { return server.Idle(f.server, agent.id) })
	asked := faults.count(dueMessages)
	faults.fail(dueMessages, errTest)
	stream.send(framed(agent.wrap(&fspb.ContactData{AllowedMessages: map[string]uint64{"S": 10}})))
	if got := stream.next(); got.AckIndex != 1 {
		t.Fatalf("got %v, want an acknowledgement", got)
	}
	waitFor(t, "the fetch to fail", func() bool {
		return faults.count(dueMessages) > asked && server.Idle(f.server, agent.id)
	})
	handed := f.handovers(t, agent.id, "S", 1)
	f.server.HandOver(handed)
	faults.fail(dueMessages, nil)
	expectHanded(t, stream, left[1], handed[0])
}

// What is handed over to a server that drains, or has ended, is pushed in time or stays due for the client's next session.
func TestHandoverWhileDraining(t *testing.T) {
	f := start(t, func(c *server.Config) { c.RedeliveryInterval = time.Hour })
	agent := newTestAgent(t, f.address)
	stream, _ := agent.session(&fspb.ContactData{})
	handed := f.handovers(t, agent.id, "S", 30)
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		f.stop()
	}()
	var got []identity.MessageID
	for i := range handed {
		f.server.HandOver(handed[i : i+1])
		if i == 10 {
			waitFor(t, "the drain", f.server.Draining)
		}
	}
	for {
		data, err := stream.tryNext()
		if err != nil {
			break
		}
		for _, m := range data.Messages {
			got = append(got, identity.MessageID(m.MessageId))
		}
		if data.DoneSending {
			_ = stream.body.Close()
			_, _ = stream.raw.Write([]byte("\r\n"))
		}
	}
	<-stopped
	f.server.HandOver(handed)
	due, err := f.store.DueMessages(t.Context(), []store.DueRequest{{ClientID: agent.id, Limit: 100}})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range due[agent.id].Messages {
		got = append(got, m.ID)
	}
	for _, h := range handed {
		if !slices.Contains(got, h.Message.ID) {
			t.Errorf("message %s neither came nor waits", h.Message.ID)
		}
	}
	if len(got) != len(handed) {
		t.Errorf("%d messages came or wait, want %d", len(got), len(handed))
	}
}
