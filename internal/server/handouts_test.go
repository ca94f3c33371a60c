package server_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/anypb"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/server"
	"github.com/farspeak/farspeak/internal/services"
	"github.com/farspeak/farspeak/internal/store"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// withAttemptDelay sets how long an acknowledgement is waited for before the attempt is written.
func withAttemptDelay(delay time.Duration) func(*server.Config) {
	return func(c *server.Config) { c.AttemptDelay = delay }
}

// withSystemService gives a server the real services, which acknowledge messages in its store and tell it so.
func withSystemService(t *testing.T, f **fixture) func(*server.Config) {
	return func(c *server.Config) {
		manager, err := services.New(services.Config{
			Store: c.Store.(*faultyStore).Store.(sqlStore).Store, ServerID: "s",
			Hooks: services.Hooks{Acknowledged: func(refs []store.MessageRef) { (*f).server.Acknowledged(refs) }},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := manager.Close(context.Background()); err != nil {
				t.Error(err)
			}
		})
		c.Services = manager
	}
}

// acknowledge sends an acknowledgement as an agent does, and waits for that of its record.
func (s *testStream) acknowledge(a *testAgent, ids []identity.MessageID) {
	s.t.Helper()
	s.send(framed(a.wrap(&fspb.ContactData{Messages: []*fspb.Message{acknowledgement(s.t, ids)}})))
	if got := s.next(); got.AckIndex == 0 || len(got.Messages) != 0 {
		s.t.Fatalf("got %v, want an acknowledgement", got)
	}
}

// acknowledgement is the message by which an agent acknowledges messages.
func acknowledgement(t testing.TB, ids []identity.MessageID) *fspb.Message {
	t.Helper()
	ack := &fspb.MessageAckData{}
	for _, id := range ids {
		ack.MessageIds = append(ack.MessageIds, id.Bytes())
	}
	data, err := anypb.New(ack)
	if err != nil {
		t.Fatal(err)
	}
	m := toService("system", "ack of "+ids[0].String())
	m.MessageType, m.Data = "MessageAck", data
	return m
}

// attempts is how many messages of the store were handed out that often.
func (f *fixture) attempts(t testing.TB, often int) int64 {
	t.Helper()
	return f.database.Count(t, "SELECT COUNT(*) FROM client_messages WHERE attempts = ?", often)
}

// due is how many messages the store has to hand out to a client now.
func (f *fixture) due(t testing.TB, id identity.ClientID) int {
	t.Helper()
	due, err := f.store.DueMessages(t.Context(), []store.DueRequest{{ClientID: id, Limit: 100}})
	if err != nil {
		t.Fatal(err)
	}
	return len(due[id].Messages)
}

// Of a message that is acknowledged soon nothing is written but the acknowledgement; and it is handed out once, though to
// the store it is due all the while and fetches and sweeps come by.
func TestWhatIsAcknowledgedIsNotRecorded(t *testing.T) {
	var faulty *faultyStore
	var f *fixture
	f = start(t, withFaults(&faulty), withSystemService(t, &f), withAttemptDelay(time.Hour),
		func(c *server.Config) { c.SweepInterval = 10 * time.Millisecond })
	agent := newTestAgent(t, f.address)
	stream, _ := agent.session(&fspb.ContactData{})
	for range 3 {
		ids := f.insert(t, agent.id, "S", 4)
		f.server.Wake([]identity.ClientID{agent.id})
		if got := collect(stream, 4); !slices.Equal(got, ids) {
			t.Fatalf("got %v, want %v", got, ids)
		}
		fetched, swept := faulty.count(dueMessages), faulty.count(dueClients)
		f.server.Wake([]identity.ClientID{agent.id})
		waitFor(t, "a fetch and sweeps", func() bool {
			return faulty.count(dueMessages) > fetched && faulty.count(dueClients) > swept+1
		})
		stream.acknowledge(agent, ids)
	}
	if left := gauge(t, f.registry, "farspeak_unrecorded_attempts"); left != 0 {
		t.Errorf("%v messages wait to be recorded", left)
	}
	_ = stream.raw.Close()
	f.stop()
	if recorded, returned := faulty.count(recordAttempts), faulty.count(returnMessages); recorded+returned != 0 {
		t.Errorf("attempts written %d and %d times, want never", recorded, returned)
	}
	if n := f.database.Count(t, "SELECT COUNT(*) FROM client_messages"); n != 0 {
		t.Errorf("%d messages pending", n)
	}
}

// What is not acknowledged is recorded after a while, and what is in the first record of a session too.
func TestWhatIsNotAcknowledgedIsRecorded(t *testing.T) {
	f := start(t, withAttemptDelay(20*time.Millisecond))
	agent := newTestAgent(t, f.address)
	agent.poll(agent.wrap(&fspb.ContactData{AllowedMessages: map[string]uint64{"none": 1}}), nil)
	f.insert(t, agent.id, "S", 2)
	stream, first := agent.session(&fspb.ContactData{})
	if len(first.Messages) != 2 {
		t.Fatalf("got %v, want two messages", first)
	}
	f.insert(t, agent.id, "S", 3)
	f.server.Wake([]identity.ClientID{agent.id})
	collect(stream, 3)
	waitFor(t, "the attempts", func() bool { return f.attempts(t, 1) == 5 })
	if due := f.due(t, agent.id); due != 0 {
		t.Errorf("%d messages are due after their attempt", due)
	}
	waitFor(t, "the ledgers to be empty", func() bool {
		return gauge(t, f.registry, "farspeak_unrecorded_attempts") == 0
	})
}

// A session that ends gives back what was not acknowledged: it stays due for the next session, and the attempt counts, so
// that a message which ends its session each time is not sent without end.
func TestEndOfSessionGivesBack(t *testing.T) {
	f := start(t, withAttemptDelay(time.Hour))
	agent := newTestAgent(t, f.address)
	stream, _ := agent.session(&fspb.ContactData{})
	ids := f.insert(t, agent.id, "S", 1)
	f.server.Wake([]identity.ClientID{agent.id})
	if got := collect(stream, 1); !slices.Equal(got, ids) {
		t.Fatalf("got %v, want %v", got, ids)
	}
	_ = stream.raw.Close()
	waitFor(t, "the first attempt", func() bool { return f.attempts(t, 1) == 1 })
	if due := f.due(t, agent.id); due != 1 {
		t.Errorf("%d messages due, want the one that came back", due)
	}
	stream, first := agent.session(&fspb.ContactData{})
	if got := idsOf(t, first); !slices.Equal(got, ids) {
		t.Fatalf("the second session begins with %v, want %v", got, ids)
	}
	_ = stream.raw.Close()
	waitFor(t, "the second attempt", func() bool { return f.attempts(t, 2) == 1 })
	if due := f.due(t, agent.id); due != 0 {
		t.Error("a message is due at once after it was handed out twice in vain")
	}
}

// A drain leaves nothing unrecorded.
func TestDrainRecords(t *testing.T) {
	f := start(t, withAttemptDelay(time.Hour))
	agent := newTestAgent(t, f.address)
	stream, _ := agent.session(&fspb.ContactData{})
	f.insert(t, agent.id, "S", 5)
	f.server.Wake([]identity.ClientID{agent.id})
	collect(stream, 5)
	f.stop()
	if n := f.attempts(t, 1); n != 5 {
		t.Errorf("%d attempts in the store, want 5", n)
	}
}

// What has no room in the ledger is recorded at once, before anything else is fetched.
func TestManyAreRecordedAtOnce(t *testing.T) {
	f := start(t, withAttemptDelay(time.Hour))
	agent := newTestAgent(t, f.address)
	stream, _ := agent.session(&fspb.ContactData{})
	ids := f.insert(t, agent.id, "S", 250)
	f.server.Wake([]identity.ClientID{agent.id})
	if got := collect(stream, len(ids)); !slices.Equal(got, ids) {
		t.Errorf("got %v, want %v", got, ids)
	}
	waitFor(t, "the attempts", func() bool { return f.attempts(t, 1) == int64(len(ids)) })
}

// narrowStore answers with two messages at most.
type narrowStore struct{ server.Store }

func (s narrowStore) DueMessages(ctx context.Context, requests []store.DueRequest) (map[identity.ClientID]*store.DueMessages, error) {
	for i := range requests {
		requests[i].Limit = 2
	}
	return s.Store.DueMessages(ctx, requests)
}

// When answers have room for nothing but what was handed out already, that is recorded, so that the rest is reached.
func TestTheRestIsReached(t *testing.T) {
	f := start(t, withAttemptDelay(time.Hour), func(c *server.Config) { c.Store = narrowStore{c.Store} })
	agent := newTestAgent(t, f.address)
	stream, _ := agent.session(&fspb.ContactData{})
	ids := f.insert(t, agent.id, "S", 7)
	f.server.Wake([]identity.ClientID{agent.id})
	if got := collect(stream, len(ids)); !slices.Equal(got, ids) {
		t.Errorf("got %v, want %v", got, ids)
	}
}

// lateStore holds back what it has read.
type lateStore struct {
	server.Store
	reads chan chan struct{} // gets one for each answer, which waits until it is closed
}

func (s *lateStore) DueMessages(ctx context.Context, requests []store.DueRequest) (map[identity.ClientID]*store.DueMessages, error) {
	due, err := s.Store.DueMessages(ctx, requests)
	if found := due[requests[0].ClientID]; found != nil && len(found.Messages) > 0 {
		letGo := make(chan struct{})
		select {
		case s.reads <- letGo:
			<-letGo
		case <-ctx.Done():
		}
	}
	return due, err
}

// A message that a fetch read while it was due, and that was acknowledged before the answer came, is not sent again.
func TestAcknowledgedBetweenReadAndAnswer(t *testing.T) {
	late := &lateStore{reads: make(chan chan struct{})}
	f := start(t, withAttemptDelay(time.Hour), func(c *server.Config) { late.Store, c.Store = c.Store, late })
	agent := newTestAgent(t, f.address)
	stream, _ := agent.session(&fspb.ContactData{})
	ids := f.insert(t, agent.id, "S", 1)
	f.server.Wake([]identity.ClientID{agent.id})
	close(<-late.reads)
	collect(stream, 1)
	f.server.Wake([]identity.ClientID{agent.id})
	answer := <-late.reads
	ref := store.MessageRef{ClientID: agent.id, ID: ids[0]}
	if _, err := f.store.AckMessages(t.Context(), []store.Ack{{MessageRef: ref}}); err != nil {
		t.Fatal(err)
	}
	f.server.Acknowledged([]store.MessageRef{ref})
	next := f.insert(t, agent.id, "S", 1)
	f.server.Wake([]identity.ClientID{agent.id})
	close(answer)
	close(<-late.reads)
	if got := collect(stream, 1); !slices.Equal(got, next) {
		t.Errorf("got %v, want %v and nothing again", got, next)
	}
}
