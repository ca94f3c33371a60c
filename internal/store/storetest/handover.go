package storetest

import (
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

var handoverTests = []test{
	{name: "OfMessagesTogether", run: func(f *fixture) { testHandovers(f, 3) }},
	{name: "OfMessagesAlone", run: func(f *fixture) { testHandovers(f, 1) }},
	{name: "Sessions", run: testHandoverSessions},
	{name: "NotOf", run: testNoHandover},
}

// begin starts a session of a client and returns when that was.
func (f *fixture) begin(id identity.ClientID, address string) time.Time {
	f.Helper()
	outcomes, err := f.s.RecordContacts(f.ctx, []store.ContactUpdate{{ClientID: id, Key: keyOf(id), StreamingTo: address}})
	f.must(err)
	f.must(outcomes[0].Err)
	return outcomes[0].Client.LastContact
}

// handovers inserts messages, so many by one call, and returns what is handed over.
func (f *fixture) handovers(list []*fspb.Message, together int) (all []*store.Handover) {
	f.Helper()
	for len(list) > 0 {
		n := min(together, len(list))
		outcomes, err := f.s.InsertMessages(f.ctx, list[:n])
		f.must(err)
		for _, o := range outcomes {
			f.must(o.Err)
			all = append(all, o.Handover)
		}
		list = list[n:]
	}
	return all
}

// testHandovers compares what is handed over with what a fetch returns, and the numbers of the messages before.
func testHandovers(f *fixture, together int) {
	id := f.client()
	f.insert(message(id, "service"))
	waiting := f.due(id, 1).Messages[0].Seq
	began := f.begin(id, "s1:1")
	list := messages(7, id, "service")
	list = append(list, wholeMessage(id))
	handed := f.handovers(list, together)
	due := f.due(id, 100).Messages[1:]
	if len(due) != len(list) {
		f.Fatalf("%d messages due, want %d", len(due), len(list))
	}
	for i, h := range handed {
		if h == nil {
			f.Fatalf("message %d is not handed over", i)
		}
		m, stored := h.Message, due[i]
		if m.ClientID != id || m.ID != stored.ID || m.Seq != stored.Seq || m.Service != stored.Service || m.Type != stored.Type ||
			m.Attempts != 0 {
			f.Errorf("message %d is handed over as %+v, stored as %+v", i, m, stored)
		}
		got := &fspb.Message{}
		f.must(proto.Unmarshal(m.Encoded, got))
		if !proto.Equal(got, list[i]) {
			f.Errorf("message %d is handed over as %v, want %v", i, got, list[i])
		}
		if !h.Contact.Equal(began) {
			f.Errorf("message %d is for the session of %v, want %v", i, h.Contact, began)
		}
		// A look beside the insert may see the message itself; then it is not pushed without a look at the store.
		if h.After != waiting && !(together == 1 && h.After == m.Seq) {
			f.Errorf("message %d comes after %d, want %d", i, h.After, waiting)
		}
		waiting = m.Seq
	}
}

// testHandoverSessions lets a client come and go.
func testHandoverSessions(f *fixture) {
	id := f.client()
	first := f.begin(id, "s1:1")
	second := f.begin(id, "s1:1")
	if !second.After(first) {
		f.Fatalf("two sessions began at %v and %v", first, second)
	}
	for _, n := range []int{1, 2} {
		for _, h := range f.handovers(messages(n, id, "service"), n) {
			if h == nil || !h.Contact.Equal(second) {
				f.Errorf("handed over as %+v, want the session of %v", h, second)
			}
		}
	}
	f.must(f.s.EndSessions(f.ctx, []store.SessionEnd{{ClientID: id, StreamingTo: "s1:1"}}))
	for _, n := range []int{1, 2} {
		for _, h := range f.handovers(messages(n, id, "service"), n) {
			if h != nil {
				f.Errorf("handed over %+v to no session", h)
			}
		}
	}
}

// testNoHandover inserts what servers read themselves.
func testNoHandover(f *fixture) {
	id := f.client()
	f.begin(id, "s1:1")
	large, known := message(id, "service"), message(id, "service")
	large.Data.Value = []byte(strings.Repeat("x", store.MaxHandover))
	f.insert(known)
	for _, together := range []int{1, 3} {
		for i, h := range f.handovers([]*fspb.Message{known, large, rekey(id)}, together) {
			if h != nil {
				f.Errorf("message %d of known, large, rekey request: handed over by inserts of %d", i, together)
			}
		}
		large = proto.CloneOf(large)
		large.MessageId = identity.NewMessageID().Bytes()
	}
	again := message(id, "service")
	handed := f.handovers([]*fspb.Message{again, again}, 2)
	if handed[0] == nil || handed[1] != nil {
		f.Errorf("handed over %v, want a message once", handed)
	}
}
