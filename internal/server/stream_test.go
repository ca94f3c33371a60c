package server_test

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/server"
	"github.com/farspeak/farspeak/internal/store"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

func toClient(client identity.ClientID, service string, id identity.MessageID) *fspb.Message {
	return &fspb.Message{
		MessageId:   id.Bytes(),
		Source:      &fspb.Address{ServiceName: service},
		Destination: &fspb.Address{ClientId: client.Bytes(), ServiceName: service},
		MessageType: "Test",
	}
}

func TestSessionStartsWithNonceAndRegisters(t *testing.T) {
	f := start(t)
	agent := newTestAgent(t, f.address)
	_, first := agent.session(&fspb.ContactData{})
	if first.SequencingNonce == 0 || first.AckIndex != 0 || first.DoneSending {
		t.Errorf("record 0 is %v, want a nonce alone", first)
	}
	clients, err := f.store.GetClients(t.Context(), []identity.ClientID{agent.id})
	if err != nil {
		t.Fatal(err)
	}
	client := clients[agent.id]
	if client == nil || client.StreamingTo != testAddress || !loopback(client.LastContactAddress) {
		t.Fatalf("stored client is %+v", client)
	}
	if !slices.Contains(client.Labels, store.Label{Service: "client", Label: "linux"}) {
		t.Errorf("labels are %v, want the claimed one", client.Labels)
	}
}

// Acknowledgements come in order, one a record, whatever the record holds (G-06).
func TestRecordsAreAcknowledgedInOrder(t *testing.T) {
	f := start(t)
	agent := newTestAgent(t, f.address)
	stream, _ := agent.session(&fspb.ContactData{})
	const records = 20
	for i := range records {
		data := &fspb.ContactData{}
		if i%3 != 0 {
			data.Messages = []*fspb.Message{toService("S", fmt.Sprint(i))}
		}
		stream.send(framed(agent.wrap(data)))
	}
	for want := uint64(1); want <= records; want++ {
		if got := stream.next(); got.AckIndex != want || len(got.Messages) != 0 {
			t.Fatalf("got %v, want acknowledgement %d alone", got, want)
		}
	}
	if got := len(f.services.taken()); got != records-records/3-1 {
		t.Errorf("%d messages arrived", got)
	}
}

// A record that cannot be stored is not acknowledged, and none after it (G-06, G-20).
func TestFailedRecordEndsTheSessionUnacknowledged(t *testing.T) {
	f := start(t)
	agent := newTestAgent(t, f.address)
	stream, _ := agent.session(&fspb.ContactData{})
	f.services.failWith(errTest)
	record := framed(agent.wrap(&fspb.ContactData{Messages: []*fspb.Message{toService("S", "1")}}))
	stream.send(append(record, framed(agent.wrap(&fspb.ContactData{}))...))
	stream.ended()
}

// A message inserted while the client is connected is pushed at once when the hint comes, within its tokens.
func TestWakePushesWithinTokens(t *testing.T) {
	f := start(t)
	agent := newTestAgent(t, f.address)
	stream, _ := agent.session(&fspb.ContactData{AllowedMessages: map[string]uint64{"S": 2, "other": 1}})
	ids := f.insert(t, agent.id, "S", 5)
	f.server.Wake([]identity.ClientID{agent.id})
	got := collect(stream, 2)
	if want := ids[:2]; !slices.Equal(got, want) {
		t.Fatalf("got %v, want the first two %v", got, want)
	}
	// Returned tokens bring the rest without any hint (gaps.md H).
	stream.send(framed(agent.wrap(&fspb.ContactData{AllowedMessages: map[string]uint64{"S": 100}})))
	if got := collect(stream, 3); !slices.Equal(got, ids[2:]) {
		t.Fatalf("got %v, want the rest %v", got, ids[2:])
	}
}

// Returned tokens make nobody look for messages when none can be waiting for them: an agent returns one with every message.
func TestReturnedTokensAskForNothing(t *testing.T) {
	var faulty *faultyStore
	f := start(t, withFaults(&faulty))
	agent := newTestAgent(t, f.address)
	stream, _ := agent.session(&fspb.ContactData{AllowedMessages: map[string]uint64{"S": 10, "other": 10}})
	push := func() {
		f.insert(t, agent.id, "S", 1)
		f.server.Wake([]identity.ClientID{agent.id})
		collect(stream, 1)
	}
	push()
	asked := faulty.count(dueMessages)
	for range 5 {
		stream.send(framed(agent.wrap(&fspb.ContactData{AllowedMessages: map[string]uint64{"S": 1}})))
		stream.next()
	}
	push()
	if again := faulty.count(dueMessages) - asked; again != 1 {
		t.Errorf("%d questions for one message and five returned tokens, want one", again)
	}
}

// A service that had no tokens, or was not known, gets what waited for it with its first ones.
func TestFirstTokensOfAService(t *testing.T) {
	f := start(t)
	agent := newTestAgent(t, f.address)
	stream, _ := agent.session(&fspb.ContactData{AllowedMessages: map[string]uint64{"S": 0, "other": 5}})
	for _, service := range []string{"S", "new"} {
		ids := f.insert(t, agent.id, service, 2)
		other := f.insert(t, agent.id, "other", 1)
		f.server.Wake([]identity.ClientID{agent.id})
		if got := collect(stream, 1); !slices.Equal(got, other) {
			t.Fatalf("got %v, want %v, whose service has tokens", got, other)
		}
		stream.send(framed(agent.wrap(&fspb.ContactData{AllowedMessages: map[string]uint64{service: 2}})))
		if got := collect(stream, 2); !slices.Equal(got, ids) {
			t.Errorf("got %v for service %s, want %v", got, service, ids)
		}
	}
}

// collect reads records until count messages came, and returns their IDs.
func collect(s *testStream, count int) []identity.MessageID {
	s.t.Helper()
	var ids []identity.MessageID
	for len(ids) < count {
		for _, m := range s.next().Messages {
			id, err := identity.MessageIDFromBytes(m.MessageId)
			if err != nil {
				s.t.Fatal(err)
			}
			ids = append(ids, id)
		}
	}
	return ids
}

// Hostile and wrapped token counts neither end the server nor stop deliveries to others (G-04, G-24).
func TestHostileTokens(t *testing.T) {
	f := start(t)
	agent := newTestAgent(t, f.address)
	stream, _ := agent.session(&fspb.ContactData{AllowedMessages: map[string]uint64{"S": 1<<64 - 1}})
	for index, tokens := range []uint64{1<<64 - 1, 1 << 63, 1<<63 + 1, 0, 5} {
		stream.send(framed(agent.wrap(&fspb.ContactData{AllowedMessages: map[string]uint64{"S": tokens}})))
		if got := stream.next().AckIndex; got != uint64(index+1) {
			t.Fatalf("acknowledgement %d for record %d", got, index+1)
		}
	}
	ids := f.insert(t, agent.id, "S", 1)
	f.server.Wake([]identity.ClientID{agent.id})
	if got := collect(stream, 1); !slices.Equal(got, ids) {
		t.Errorf("got %v, want %v", got, ids)
	}
}

// Without any token map delivery stays unlimited for the life of the session, later records or not.
func TestNoTokenMapMeansUnlimited(t *testing.T) {
	f := start(t)
	agent := newTestAgent(t, f.address)
	stream, _ := agent.session(&fspb.ContactData{})
	stream.send(framed(agent.wrap(&fspb.ContactData{})))
	stream.next()
	ids := f.insert(t, agent.id, "S", 150)
	f.server.Wake([]identity.ClientID{agent.id})
	if got := collect(stream, 150); !slices.Equal(got, ids) {
		t.Error("messages are missing or out of order")
	}
}

// Messages that wait when a session starts come with record 0.
func TestQueuedMessagesComeWithTheFirstRecord(t *testing.T) {
	f := start(t)
	agent := newTestAgent(t, f.address)
	if status, _ := agent.poll(agent.wrap(&fspb.ContactData{AllowedMessages: map[string]uint64{"none": 1}}), nil); status != 200 {
		t.Fatal(status)
	}
	f.insert(t, agent.id, "S", 3)
	_, first := agent.session(&fspb.ContactData{})
	if len(first.Messages) != 3 {
		t.Errorf("%d messages in record 0, want 3", len(first.Messages))
	}
}

// What a peer may do wrong, and the status that it gets for it instead of an empty 200 (G-07).
func TestStreamRefusals(t *testing.T) {
	f := start(t, func(c *server.Config) { c.RequiredLabel = "linux" })
	magic := []byte{0x01, 0x10, 0xee, 0xf1}
	tests := map[string]struct {
		bytes  func(*testAgent) []byte
		status int
	}{
		"wrong magic":       {func(*testAgent) []byte { return []byte{1, 2, 3, 4, 0} }, http.StatusBadRequest},
		"zero length, G-03": {func(*testAgent) []byte { return append(magic, 0) }, http.StatusBadRequest},
		"over 20 MiB":       {func(*testAgent) []byte { return binary.AppendUvarint(magic, 20<<20+1) }, http.StatusBadRequest},
		"length of 64 bits": {func(*testAgent) []byte { return binary.AppendUvarint(magic, 1<<63) }, http.StatusBadRequest},
		"no protobuf":       {func(*testAgent) []byte { return append(magic, framed([]byte{0xff})...) }, http.StatusBadRequest},
		"label missing": {func(a *testAgent) []byte {
			a.labels = nil
			return append(magic, framed(a.wrap(&fspb.ContactData{}))...)
		}, http.StatusServiceUnavailable},
		"101 messages": {func(a *testAgent) []byte { return append(magic, framed(a.wrap(manyMessages(101)))...) }, http.StatusInternalServerError},
		"bad contact data": {func(a *testAgent) []byte {
			return append(magic, framed(a.marshal(&fspb.WrappedContactData{ContactData: []byte{0xff}, ClientLabels: a.labels}))...)
		}, http.StatusInternalServerError},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			agent := newTestAgent(t, f.address)
			stream := agent.open(test.bytes(agent))
			if got := stream.status(); got != test.status {
				t.Errorf("status %d, want %d", got, test.status)
			}
			known, err := f.store.GetClients(t.Context(), []identity.ClientID{agent.id})
			if err != nil || len(known) != 0 {
				t.Errorf("a refused contact registered its client (G-32): %v, %v", known, err)
			}
		})
	}
}

func manyMessages(count int) *fspb.ContactData {
	data := &fspb.ContactData{}
	for i := range count {
		data.Messages = append(data.Messages, toService("S", fmt.Sprint(i)))
	}
	return data
}

// A later record with a signature that has an algorithm and no certificate is merely not valid (G-01).
func TestSignatureWithoutCertificate(t *testing.T) {
	f := start(t)
	agent := newTestAgent(t, f.address)
	stream, _ := agent.session(&fspb.ContactData{})
	stream.send(framed(agent.marshal(&fspb.WrappedContactData{
		ContactData: agent.marshal(&fspb.ContactData{}),
		Signatures:  []*fspb.Signature{{Algorithm: 10, Signature: []byte("x")}},
	})))
	if got := stream.next().AckIndex; got != 1 {
		t.Errorf("acknowledgement %d, want 1", got)
	}
}

// Two hundred announcements of 20 MiB without data take no memory to speak of, and do not hold up others (G-03).
func TestAnnouncedLengthsAreNotAllocated(t *testing.T) {
	f := start(t)
	claim := binary.AppendUvarint([]byte{0x01, 0x10, 0xee, 0xf1}, 20<<20)
	for range 200 {
		newTestAgent(t, f.address).open(claim)
	}
	newTestAgent(t, f.address).session(&fspb.ContactData{})
	used := gauge(t, f.registry, "farspeak_record_memory_bytes")
	if used > 1<<20 {
		t.Errorf("%v bytes are held for data that never came", used)
	}
}

// A deflated session is decoded record by record.
func TestDeflatedSession(t *testing.T) {
	f := start(t)
	agent := newTestAgent(t, f.address)
	var compressed bytes.Buffer
	deflater := zlib.NewWriter(&compressed)
	piece := func(raw []byte) []byte {
		compressed.Reset()
		if _, err := deflater.Write(raw); err != nil {
			t.Fatal(err)
		}
		if err := deflater.Flush(); err != nil {
			t.Fatal(err)
		}
		return bytes.Clone(compressed.Bytes())
	}
	stream := agent.openEncoded("deflate", piece(append([]byte{0x01, 0x10, 0xee, 0xf1}, framed(agent.wrap(&fspb.ContactData{}))...)))
	if got := stream.status(); got != http.StatusOK {
		t.Fatalf("status %d", got)
	}
	stream.next()
	for want := uint64(1); want <= 3; want++ {
		stream.send(piece(framed(agent.wrap(manyMessages(3)))))
		if got := stream.next().AckIndex; got != want {
			t.Fatalf("acknowledgement %d, want %d", got, want)
		}
	}
}

// A newer session of a client takes the pushes over; the older one stays usable for its records.
func TestNewerSessionReplacesOlder(t *testing.T) {
	f := start(t)
	agent := newTestAgent(t, f.address)
	older, _ := agent.session(&fspb.ContactData{})
	newer, _ := agent.session(&fspb.ContactData{})
	ids := f.insert(t, agent.id, "S", 1)
	f.server.Wake([]identity.ClientID{agent.id})
	if got := collect(newer, 1); !slices.Equal(got, ids) {
		t.Errorf("the newer session got %v, want %v", got, ids)
	}
	older.send(framed(agent.wrap(&fspb.ContactData{})))
	if got := older.next(); got.AckIndex != 1 || len(got.Messages) != 0 {
		t.Errorf("the older session got %v, want an acknowledgement", got)
	}
}

// At the end of its life a session is told so once and alone, and cut when it stays (G-08, G-25, G-59).
func TestLifetimeEndsWithDoneSending(t *testing.T) {
	f := start(t, func(c *server.Config) { c.StreamLifetime = 2 * time.Second })
	agent := newTestAgent(t, f.address)
	stream, _ := agent.session(&fspb.ContactData{})
	if got := stream.next(); !got.DoneSending || got.AckIndex != 0 || len(got.Messages) != 0 {
		t.Fatalf("got %v, want done_sending alone", got)
	}
	stream.send(framed(agent.wrap(&fspb.ContactData{})))
	if got := stream.next(); got.AckIndex != 1 || got.DoneSending {
		t.Fatalf("got %v, want an acknowledgement after done_sending", got)
	}
}

// A stop tells the sessions, takes what is in flight, and comes to its end though a client stays (G-08).
func TestDrain(t *testing.T) {
	f := start(t)
	agent := newTestAgent(t, f.address)
	stream, _ := agent.session(&fspb.ContactData{})
	stopped := make(chan struct{})
	go func() { f.stop(); close(stopped) }()
	if got := stream.next(); !got.DoneSending {
		t.Fatalf("got %v, want done_sending", got)
	}
	stream.send(framed(agent.wrap(manyMessages(2))))
	if got := stream.next(); got.AckIndex != 1 {
		t.Fatalf("got %v, want an acknowledgement while draining", got)
	}
	stream.ended() // cut off at the end of the drain timeout
	<-stopped
	clients, err := f.store.GetClients(t.Context(), []identity.ClientID{agent.id})
	if err != nil || clients[agent.id].StreamingTo != "" {
		t.Errorf("after the drain the client streams to %q, %v", clients[agent.id].StreamingTo, err)
	}
}
