package server_test

import (
	"bytes"
	"compress/zlib"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/server"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

func TestPollDeliversWithinTokensOnce(t *testing.T) {
	f := start(t)
	agent := newTestAgent(t, f.address)
	body := agent.wrap(&fspb.ContactData{AllowedMessages: map[string]uint64{"S": 2}})
	status, first := agent.poll(body, nil)
	if status != http.StatusOK || first.SequencingNonce == 0 {
		t.Fatalf("status %d, contact %v", status, first)
	}
	f.insert(t, agent.id, "S", 3)
	for _, want := range []int{2, 1, 0} {
		if _, got := agent.poll(body, nil); len(got.Messages) != want {
			t.Fatalf("%d messages, want %d", len(got.Messages), want)
		}
	}
}

// An empty body is a contact: it registers and gets a nonce.
func TestEmptyPoll(t *testing.T) {
	f := start(t)
	agent := newTestAgent(t, f.address)
	status, data := agent.poll(nil, nil)
	if status != http.StatusOK || data.SequencingNonce == 0 {
		t.Errorf("status %d, contact %v", status, data)
	}
}

func TestPollRefusals(t *testing.T) {
	f := start(t, func(c *server.Config) { c.RequiredLabel = "linux" })
	tests := map[string]struct {
		body   func(*testAgent) []byte
		header http.Header
		status int
	}{
		"no protobuf":      {func(*testAgent) []byte { return []byte{0xff} }, nil, http.StatusBadRequest},
		"label missing":    {func(*testAgent) []byte { return nil }, nil, http.StatusServiceUnavailable},
		"101 messages":     {func(a *testAgent) []byte { return a.wrap(manyMessages(101)) }, nil, http.StatusInternalServerError},
		"too large":        {func(*testAgent) []byte { return make([]byte, 20<<20+1) }, nil, http.StatusBadRequest},
		"unknown encoding": {func(a *testAgent) []byte { return nil }, http.Header{"Content-Encoding": {"gzip"}}, http.StatusUnsupportedMediaType},
		"bad zlib":         {func(a *testAgent) []byte { return []byte("xyz") }, http.Header{"Content-Encoding": {"deflate"}}, http.StatusBadRequest},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			agent := newTestAgent(t, f.address)
			if got, _ := agent.poll(test.body(agent), test.header); got != test.status {
				t.Errorf("status %d, want %d", got, test.status)
			}
		})
	}
}

// A deflated poll with a known length is read whole: the length is that of the compressed body (G-05).
func TestDeflatedPollWithLength(t *testing.T) {
	f := start(t)
	agent := newTestAgent(t, f.address)
	var compressed bytes.Buffer
	deflater := zlib.NewWriter(&compressed)
	if _, err := deflater.Write(agent.wrap(manyMessages(50))); err != nil {
		t.Fatal(err)
	}
	if err := deflater.Close(); err != nil {
		t.Fatal(err)
	}
	header := http.Header{"Content-Encoding": {"deflate"}, "Content-Length": {strconv.Itoa(compressed.Len())}}
	if status, _ := agent.poll(compressed.Bytes(), header); status != http.StatusOK {
		t.Fatalf("status %d", status)
	}
	if got := len(f.services.taken()); got != 50 {
		t.Errorf("%d messages arrived, want 50", got)
	}
}

// What only the server may say is overwritten on intake, whatever the client claims (G-46, G-58).
func TestServerOwnedFieldsAreOverwritten(t *testing.T) {
	f := start(t)
	agent := newTestAgent(t, f.address)
	m := toService("TestService", "AAABBBCCC")
	m.MessageId = []byte("forged")
	m.Source.ClientId = []byte("87654321")
	m.Result = &fspb.MessageResult{Failed: false}
	m.ValidationInfo = &fspb.ValidationInfo{Tags: map[string]string{"trusted": "yes"}}
	m.IsBlocklistedSource = true
	m.Priority, m.Background = fspb.Message_HIGH, true
	if status, _ := agent.poll(agent.wrap(&fspb.ContactData{Messages: []*fspb.Message{m}}), nil); status != http.StatusOK {
		t.Fatalf("status %d", status)
	}
	got := f.services.taken()[0]
	want := identity.MessageIDFor(agent.id, "TestService", []byte("AAABBBCCC"))
	if !bytes.Equal(got.MessageId, want.Bytes()) || !bytes.Equal(got.Source.ClientId, agent.id.Bytes()) {
		t.Errorf("message is %v", got)
	}
	if got.Result != nil || got.ValidationInfo != nil || got.IsBlocklistedSource || got.CreationTime == nil {
		t.Errorf("claims of the client survived: %v", got)
	}
	if got.Priority != fspb.Message_HIGH || !got.Background {
		t.Errorf("priority and background are the client's to say: %v", got)
	}
}

// Messages that cannot be routed are dropped; their neighbours arrive, and the contact succeeds.
func TestUnroutableMessagesAreDroppedAlone(t *testing.T) {
	f := start(t)
	agent := newTestAgent(t, f.address)
	bad := []func(*fspb.Message){
		func(m *fspb.Message) { m.Destination = nil },
		func(m *fspb.Message) { m.Destination.ClientId = agent.id.Bytes() },
		func(m *fspb.Message) { m.Destination.ServiceName = "" },
		func(m *fspb.Message) { m.Source = nil },
		func(m *fspb.Message) { m.Source.ServiceName = "" },
		func(m *fspb.Message) { m.SourceMessageId = nil },
	}
	data := &fspb.ContactData{Messages: []*fspb.Message{toService("S", "good")}}
	for i, spoil := range bad {
		m := toService("S", strconv.Itoa(i))
		spoil(m)
		data.Messages = append(data.Messages, m)
	}
	if status, _ := agent.poll(agent.wrap(data), nil); status != http.StatusOK {
		t.Fatalf("status %d", status)
	}
	if got := f.services.taken(); len(got) != 1 || string(got[0].SourceMessageId) != "good" {
		t.Errorf("arrived: %v", got)
	}
}

// Unknown clients register at a bounded pace; known ones are not held up (G-32).
func TestRegistrationRate(t *testing.T) {
	f := start(t, func(c *server.Config) {
		c.Registrations = server.RegistrationLimits{PerSecond: 0.1, PerSecondAndAddress: 0.1}
	})
	first, second := newTestAgent(t, f.address), newTestAgent(t, f.address)
	if status, _ := first.poll(first.wrap(&fspb.ContactData{}), nil); status != http.StatusOK {
		t.Fatalf("status %d for the first newcomer", status)
	}
	if status, _ := second.poll(second.wrap(&fspb.ContactData{}), nil); status != http.StatusServiceUnavailable {
		t.Errorf("status %d for the second newcomer, want 503", status)
	}
	if status, _ := first.poll(first.wrap(&fspb.ContactData{}), nil); status != http.StatusOK {
		t.Errorf("status %d for a known client", status)
	}
}

// Contacts are recorded with both nonces, so that clones can be told apart.
func TestContactsAreRecorded(t *testing.T) {
	f := start(t)
	agent := newTestAgent(t, f.address)
	_, first := agent.poll(agent.wrap(&fspb.ContactData{}), nil)
	_, second := agent.poll(agent.wrap(&fspb.ContactData{SequencingNonce: first.SequencingNonce}), nil)
	contacts, err := f.store.ListContacts(t.Context(), agent.id, time.Time{}, 10)
	if err != nil || len(contacts) != 2 {
		t.Fatalf("contacts %v, %v", contacts, err)
	}
	if contacts[1].ReceivedNonce != first.SequencingNonce || contacts[1].SentNonce != second.SequencingNonce {
		t.Errorf("contacts are %+v", contacts)
	}
}
