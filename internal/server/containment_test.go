package server_test

import (
	"net/http"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/anypb"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/server"
	"github.com/farspeak/farspeak/internal/store"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// A panic while a message is taken costs the connection that brought it, on either path and on either version of HTTP, and
// nothing else (G-01).
func TestPanicsAreContained(t *testing.T) {
	f := start(t)
	bystander := newTestAgent(t, f.address)
	other, _ := bystander.session(&fspb.ContactData{})
	f.services.panicOn("poison")
	poison := &fspb.ContactData{Messages: []*fspb.Message{toService("S", "poison")}}

	agent := newTestAgent(t, f.address)
	if _, err := agent.tryPoll(agent.wrap(poison)); err == nil {
		t.Error("the poll got an answer")
	}
	stream := agent.open(agent.first(poison)) // in record 0
	stream.ended()
	stream, _ = agent.session(&fspb.ContactData{})
	stream.send(framed(agent.wrap(poison))) // in a later one
	stream.ended()
	shared, _ := agent.sessionHTTP2(agent.http2Client(agent.loopback), &fspb.ContactData{})
	shared.send(framed(agent.wrap(poison)))
	shared.ended()

	if panics := gauge(t, f.registry, "farspeak_panics_total"); panics != 4 {
		t.Errorf("%v panics counted, want 4", panics)
	}
	waitFor(t, "the sessions to be forgotten", func() bool { return f.server.Sessions() == 1 })
	waitFor(t, "the store to know of the end", func() bool {
		known, err := f.store.GetClients(t.Context(), []identity.ClientID{agent.id})
		return err == nil && known[agent.id].StreamingTo == ""
	})
	other.send(framed(bystander.wrap(manyMessages(1))))
	if got := other.next(); got.AckIndex != 1 {
		t.Errorf("the bystander got %v, want an acknowledgement", got)
	}
}

// A message from the store that makes a push panic costs the session that it was for (G-01).
func TestPanicsOfPushesAreContained(t *testing.T) {
	f := start(t, func(c *server.Config) { c.Store = poisonedStore{Store: c.Store} })
	agent := newTestAgent(t, f.address)
	stream, _ := agent.session(&fspb.ContactData{AllowedMessages: map[string]uint64{"S": 10}})
	f.insert(t, agent.id, "S", 1)
	f.server.Wake([]identity.ClientID{agent.id})
	stream.ended()
	if status, _ := agent.poll(agent.wrap(&fspb.ContactData{AllowedMessages: map[string]uint64{"none": 1}}), nil); status != http.StatusOK {
		t.Errorf("status %d after the panic", status)
	}
}

// A loop that panics in one round works in the next (G-01).
func TestPanicsOfLoopsAreContained(t *testing.T) {
	var faulty *faultyStore
	f := start(t, withFaults(&faulty), func(c *server.Config) { c.SweepInterval = 20 * time.Millisecond })
	agent := newTestAgent(t, f.address)
	stream, _ := agent.session(&fspb.ContactData{})
	faulty.fail(dueClients, errPanicking)
	faulty.fail(activeBroadcasts, errPanicking)
	f.broadcast(t, store.UnlimitedBroadcast)
	f.server.BroadcastsChanged()
	ids := f.insert(t, agent.id, "S", 1)
	waitFor(t, "both loops to panic", func() bool {
		return faulty.count(dueClients) > 1 && faulty.count(activeBroadcasts) > 1
	})
	faulty.fail(dueClients, nil)
	faulty.fail(activeBroadcasts, nil)
	if got := collect(stream, 2); !slices.Contains(got, ids[0]) {
		t.Errorf("got %v, want %v and the broadcast", got, ids)
	}
}

// A decoded record is bounded in what it takes, whatever its bytes say: two bytes of an empty message become hundreds
// (G-03).
func TestRecordsThatGrowWhenDecoded(t *testing.T) {
	f := start(t)
	agent := newTestAgent(t, f.address)
	const fields = 1 << 20
	repeat := func(piece ...byte) []byte { return slices.Repeat(piece, fields) }
	inContact := func(data []byte) []byte { return agent.marshal(&fspb.WrappedContactData{ContactData: data}) }
	message := append([]byte{0x12, 0x83, 0x80, 0x80, 0x01, 0x62, 0xfe, 0xff, 0x7f}, repeat(0x0a, 0x00)...)
	tests := map[string]struct {
		body   []byte
		status int
	}{
		"messages":    {inContact(repeat(0x12, 0x00)), http.StatusInternalServerError},
		"tokens":      {inContact(repeat(0x32, 0x00)), http.StatusInternalServerError},
		"annotations": {inContact(message), http.StatusInternalServerError},
		"signatures":  {repeat(0x12, 0x00), http.StatusBadRequest},
		"labels":      {repeat(0x1a, 0x00), http.StatusBadRequest},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			status := 0
			allocations := testing.AllocsPerRun(1, func() { status, _ = agent.poll(test.body, nil) })
			if status != test.status {
				t.Errorf("status %d, want %d", status, test.status)
			}
			if allocations > fields/2 {
				t.Errorf("%v allocations for a record of %d fields", allocations, fields)
			}
		})
	}
}

// emptyIDs is an acknowledgement of messages whose IDs are empty: two bytes each.
func emptyIDs(t testing.TB, count int) *fspb.Message {
	t.Helper()
	data, err := anypb.New(&fspb.MessageAckData{MessageIds: make([][]byte, count)})
	if err != nil {
		t.Fatal(err)
	}
	m := toService("system", "1")
	m.MessageType, m.Data = "MessageAck", data
	return m
}

// What the data of messages becomes when the system service decodes it is paid for, too (G-03).
func TestMessagesThatGrowWhenDecoded(t *testing.T) {
	f := start(t, func(c *server.Config) { c.RecordMemory = 48 << 20 })
	agent := newTestAgent(t, f.address)
	contact := func(messages int) []byte {
		return agent.wrap(&fspb.ContactData{Messages: slices.Repeat([]*fspb.Message{emptyIDs(t, 40_000)}, messages)})
	}
	for messages, want := range map[int]int{1: http.StatusOK, 20: http.StatusServiceUnavailable} {
		if status, _ := agent.poll(contact(messages), nil); status != want {
			t.Errorf("%d messages: status %d, want %d", messages, status, want)
		}
	}
	if held := gauge(t, f.registry, "farspeak_record_memory_bytes"); held != 0 {
		t.Errorf("%v bytes are still held", held)
	}
}

// Real records stay far below that bound.
func TestFullRecord(t *testing.T) {
	f := start(t)
	agent := newTestAgent(t, f.address)
	data := manyMessages(100)
	for _, m := range data.Messages {
		m.Annotations = &fspb.Annotations{}
		for range 20 {
			m.Annotations.Entries = append(m.Annotations.Entries, &fspb.Annotations_Entry{Key: "k", Value: "v"})
		}
	}
	if status, _ := agent.poll(agent.wrap(data), nil); status != http.StatusOK {
		t.Errorf("status %d", status)
	}
}

// Hints come until the very end of the process, and after it (G-54).
func TestHintsAfterTheEnd(t *testing.T) {
	f := start(t, func(c *server.Config) { c.DrainTimeout = 500 * time.Millisecond })
	agent := newTestAgent(t, f.address)
	agent.session(&fspb.ContactData{})
	hint := func() {
		f.server.Wake([]identity.ClientID{agent.id})
		f.server.Blacklisted([]identity.ClientID{agent.id})
		f.server.LabelsChanged(agent.id, []store.Label{{Service: "client", Label: "x"}})
		f.server.BroadcastsChanged()
	}
	stopped := make(chan struct{})
	go func() { f.stop(); close(stopped) }()
	for tick := time.NewTicker(time.Millisecond); ; <-tick.C {
		hint()
		select {
		case <-stopped:
			hint()
			return
		default:
		}
	}
}
