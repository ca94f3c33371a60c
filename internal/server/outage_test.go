package server_test

import (
	"errors"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/server"
	"github.com/farspeak/farspeak/internal/store"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// What a store that is away, or fails now and then, does to sessions: delay, and nothing else.

var faults = map[string]error{"away": store.ErrUnavailable, "failing": errTest}

// A message whose fetch failed arrives when the store is back, though no hint follows and no sweep comes by.
func TestFetchFailsThenRecovers(t *testing.T) {
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			var faulty *faultyStore
			f := start(t, withFaults(&faulty))
			agent := newTestAgent(t, f.address)
			stream, _ := agent.session(&fspb.ContactData{})
			ids := f.insert(t, agent.id, "S", 2)
			faulty.fail(dueMessages, fault)
			before := faulty.count(dueMessages)
			f.server.Wake([]identity.ClientID{agent.id})
			waitFor(t, "two fetches to fail", func() bool { return faulty.count(dueMessages) >= before+2 })
			faulty.fail(dueMessages, nil)
			if got := collect(stream, 2); !slices.Equal(got, ids) {
				t.Errorf("got %v, want %v", got, ids)
			}
		})
	}
}

// A session starts while its queue cannot be read, and gets its messages later.
func TestSessionStartsWithoutItsQueue(t *testing.T) {
	var faulty *faultyStore
	f := start(t, withFaults(&faulty))
	agent := newTestAgent(t, f.address)
	agent.poll(agent.wrap(&fspb.ContactData{AllowedMessages: map[string]uint64{"none": 1}}), nil)
	ids := f.insert(t, agent.id, "S", 2)
	faulty.fail(dueMessages, store.ErrUnavailable)
	stream, first := agent.session(&fspb.ContactData{})
	if len(first.Messages) != 0 {
		t.Fatalf("got %v from a store that is away", first)
	}
	faulty.fail(dueMessages, nil)
	if got := collect(stream, 2); !slices.Equal(got, ids) {
		t.Errorf("got %v, want %v", got, ids)
	}
}

// Messages whose attempts cannot be recorded are not sent again while their session lives, and what comes after them is.
func TestAttemptsFailThenRecover(t *testing.T) {
	var faulty *faultyStore
	f := start(t, withFaults(&faulty), withAttemptDelay(20*time.Millisecond))
	agent := newTestAgent(t, f.address)
	stream, _ := agent.session(&fspb.ContactData{})
	faulty.fail(recordAttempts, store.ErrUnavailable)
	first := f.insert(t, agent.id, "S", 2)
	f.server.Wake([]identity.ClientID{agent.id})
	if got := collect(stream, 2); !slices.Equal(got, first) {
		t.Fatalf("got %v, want %v", got, first)
	}
	second := f.insert(t, agent.id, "S", 2)
	f.server.Wake([]identity.ClientID{agent.id})
	waitFor(t, "a second try to fail", func() bool { return faulty.count(recordAttempts) >= 2 })
	faulty.fail(recordAttempts, nil)
	if got := collect(stream, 2); !slices.Equal(got, second) {
		t.Errorf("got %v, want %v and nothing twice", got, second)
	}
}

// A contact that cannot be recorded is an error for the client, and leaves nothing behind (G-32). Clients are looked up only
// while no new ones may register.
func TestContactsFail(t *testing.T) {
	for method, recovered := range map[string]int{recordContacts: http.StatusOK, getClients: http.StatusServiceUnavailable} {
		t.Run(method, func(t *testing.T) {
			var faulty *faultyStore
			f := start(t, withFaults(&faulty), func(c *server.Config) {
				if method == getClients {
					c.Registrations = server.RegistrationLimits{PerSecond: 0.001, PerSecondAndAddress: 0.001}
				}
			})
			if method == getClients {
				f.register(t)
			}
			faulty.fail(method, store.ErrUnavailable)
			agent := newTestAgent(t, f.address)
			if status, _ := agent.poll(agent.wrap(manyMessages(1)), nil); status != http.StatusInternalServerError {
				t.Errorf("poll: status %d, want 500", status)
			}
			if status := agent.open(agent.first(manyMessages(1))).status(); status != http.StatusInternalServerError {
				t.Errorf("stream: status %d, want 500", status)
			}
			known, err := f.store.GetClients(t.Context(), []identity.ClientID{agent.id})
			if err != nil || len(known) != 0 || len(f.services.taken()) != 0 || f.server.Sessions() != 0 {
				t.Errorf("left behind: clients %v, messages %v, %v", known, f.services.taken(), err)
			}
			faulty.fail(method, nil)
			if status, _ := agent.poll(agent.wrap(manyMessages(1)), nil); status != recovered {
				t.Errorf("poll of the recovered store: status %d, want %d", status, recovered)
			}
		})
	}
}

// A broadcast whose first assignment fails is tried again soon, and holds up no other one.
func TestBroadcastAssignmentFailsThenRecovers(t *testing.T) {
	var faulty *faultyStore
	f := start(t, withFaults(&faulty))
	agent := newTestAgent(t, f.address)
	stream, _ := agent.session(&fspb.ContactData{})
	faulty.fail(assignBroadcast, store.ErrUnavailable)
	f.broadcast(t, store.UnlimitedBroadcast)
	f.broadcast(t, store.UnlimitedBroadcast)
	f.server.BroadcastsChanged()
	waitFor(t, "the assignments to fail", func() bool { return faulty.count(assignBroadcast) >= 4 })
	late := newTestAgent(t, f.address) // is offered them as it opens, in vain
	lateStream, _ := late.session(&fspb.ContactData{})
	faulty.fail(assignBroadcast, nil)
	for _, s := range []*testStream{stream, lateStream} {
		if got := collect(s, 2); got[0] == got[1] {
			t.Errorf("got %v twice", got[0])
		}
	}
}

// A server whose store is away does not start to serve (G-35).
func TestNothingIsServedBeforeTheStoreAnswered(t *testing.T) {
	var faulty *faultyStore
	ready := make(chan struct{})
	var letGo func()
	f := start(t, withFaults(&faulty), func(c *server.Config) {
		c.Ready = func() { close(ready) }
		letGo = faulty.hold(activeBroadcasts)
	})
	agent := newTestAgent(t, f.address)
	polled := make(chan int, 1)
	go func() {
		status, _ := agent.poll(agent.wrap(&fspb.ContactData{}), nil)
		polled <- status
	}()
	waitFor(t, "the broadcasts to be read", func() bool { return faulty.count(activeBroadcasts) == 1 })
	select {
	case <-ready:
		t.Error("ready before the broadcasts were read")
	case status := <-polled:
		t.Errorf("a contact was answered with %d before the broadcasts were read", status)
	default:
	}
	letGo()
	if status := <-polled; status != http.StatusOK {
		t.Errorf("status %d after the start", status)
	}
	<-ready
}

func TestStartFailsWithoutStore(t *testing.T) {
	var faulty *faultyStore
	var cfg server.Config
	start(t, func(c *server.Config) { cfg = *c })
	withFaults(&faulty)(&cfg)
	faulty.fail(activeBroadcasts, store.ErrUnavailable)
	cfg.Listener, cfg.Registerer = newPipeListener(), nil
	s, err := server.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context()); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("Run returned %v", err)
	}
	if _, err := cfg.Listener.Accept(); err == nil {
		t.Error("the listener is still open")
	}
}

// The end of a session is not lost when many end at once, and its start does not overtake it (G-33).
func TestEndsOfManySessions(t *testing.T) {
	f := start(t)
	const clients = 60
	var ids []identity.ClientID
	for range clients {
		agent := newTestAgent(t, f.address)
		stream, _ := agent.session(&fspb.ContactData{})
		if err := stream.raw.Close(); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, agent.id)
	}
	streaming := func() int {
		known, err := f.store.GetClients(t.Context(), ids)
		if err != nil {
			t.Fatal(err)
		}
		count := 0
		for _, client := range known {
			if client.StreamingTo != "" {
				count++
			}
		}
		return count
	}
	waitFor(t, "all ends to be recorded", func() bool { return streaming() == 0 })
}

// A client that comes back while the end of its last session is being recorded is connected in the end.
func TestComingBackWhileTheEndIsRecorded(t *testing.T) {
	var faulty *faultyStore
	f := start(t, withFaults(&faulty))
	agent := newTestAgent(t, f.address)
	stream, _ := agent.session(&fspb.ContactData{})
	for range 10 {
		letGo := faulty.hold(endSessions)
		before := faulty.count(endSessions)
		if err := stream.raw.Close(); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "the end to be recorded", func() bool { return faulty.count(endSessions) > before })
		opened := make(chan struct{})
		go func() { // its contact waits behind the end
			defer close(opened)
			stream, _ = agent.session(&fspb.ContactData{})
		}()
		letGo()
		<-opened
		known, err := f.store.GetClients(t.Context(), []identity.ClientID{agent.id})
		if err != nil || known[agent.id].StreamingTo != testAddress {
			t.Fatalf("the client streams to %q, %v", known[agent.id].StreamingTo, err)
		}
	}
}

// Sweeps go on from where they succeeded: what fell due during an outage is found, however long it was.
func TestSweepAfterOutage(t *testing.T) {
	var faulty *faultyStore
	f := start(t, withFaults(&faulty), func(c *server.Config) { c.SweepInterval = 20 * time.Millisecond })
	agent := newTestAgent(t, f.address)
	stream, _ := agent.session(&fspb.ContactData{})
	faulty.fail(getClients, store.ErrUnavailable) // a page is read, but not acted upon
	ids := f.insert(t, agent.id, "S", 1)
	before := faulty.count(getClients)
	waitFor(t, "two sweeps to fail", func() bool { return faulty.count(getClients) >= before+2 })
	f.database.Exec(t, "UPDATE client_messages SET due_us = due_us - 50000000") // nearly out of the overlap
	faulty.fail(getClients, nil)
	if got := collect(stream, 1); !slices.Equal(got, ids) {
		t.Errorf("got %v, want %v", got, ids)
	}
}
