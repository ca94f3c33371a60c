package storetest

import (
	"context"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
	"github.com/farspeak/farspeak/internal/store/sqlbase"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// RunConformance runs the contract of the store. Each test gets a database of its own.
func RunConformance(t *testing.T, newDatabase func(testing.TB) *Database) {
	for _, part := range []struct {
		name  string
		tests []test
	}{
		{"Clients", clientTests}, {"Contacts", contactTests}, {"Insert", insertTests}, {"Due", dueTests}, {"Acks", ackTests},
		{"Returns", returnTests},
		{"Pending", pendingTests}, {"Backlog", backlogTests}, {"Unserved", unservedTests}, {"DeadLetters", deadLetterTests},
		{"Broadcasts", broadcastTests}, {"Files", fileTests}, {"Servers", serverTests}, {"Resources", resourceTests},
		{"Handovers", handoverTests}, {"Prune", pruneTests}, {"Schema", schemaTests},
	} {
		t.Run(part.name, func(t *testing.T) {
			for _, test := range part.tests {
				t.Run(test.name, func(t *testing.T) {
					d := newDatabase(t)
					test.run(&fixture{T: t, db: d, s: d.Open(t, test.options), ctx: t.Context()})
				})
			}
		})
	}
}

// test is one test of the contract.
type test struct {
	name    string
	run     func(*fixture)
	options Options
}

// fixture is what a test works with.
type fixture struct {
	*testing.T
	db  *Database
	s   *sqlbase.Store
	ctx context.Context
}

// must ends the test on an error.
func (f *fixture) must(err error) {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
}

// allNil fails the test when one element has an error.
func (f *fixture) allNil(errs []error, err error) {
	f.Helper()
	f.must(err)
	for i, err := range errs {
		if err != nil {
			f.Errorf("element %d: %v", i, err)
		}
	}
}

// ids returns n client IDs that are not registered.
func ids(n int) []identity.ClientID {
	list := make([]identity.ClientID, n)
	for i := range list {
		list[i] = identity.NewClientID()
	}
	return list
}

// keyOf is a key for a client. The store does not look inside.
func keyOf(id identity.ClientID) []byte { return append([]byte("key of "), id[:]...) }

// clients registers n clients.
func (f *fixture) clients(n int) []identity.ClientID {
	f.Helper()
	list := ids(n)
	updates := make([]store.ContactUpdate, n)
	for i, id := range list {
		updates[i] = store.ContactUpdate{ClientID: id, Key: keyOf(id), Address: "192.0.2.1:1000"}
	}
	outcomes, err := f.s.RecordContacts(f.ctx, updates)
	f.must(err)
	for _, o := range outcomes {
		f.must(o.Err)
	}
	return list
}

func (f *fixture) client() identity.ClientID {
	f.Helper()
	return f.clients(1)[0]
}

// message makes a message to a client, with an ID and a payload of its own.
func message(to identity.ClientID, service string) *fspb.Message {
	return &fspb.Message{
		MessageId:    identity.NewMessageID().Bytes(),
		Source:       &fspb.Address{ServiceName: "backend"},
		Destination:  &fspb.Address{ClientId: to.Bytes(), ServiceName: service},
		MessageType:  "Task",
		CreationTime: &timestamppb.Timestamp{Seconds: 1_700_000_000, Nanos: 123_456_789},
		Data:         &anypb.Any{TypeUrl: "type.googleapis.com/test", Value: identity.NewMessageID().Bytes()},
	}
}

func messages(n int, to identity.ClientID, service string) []*fspb.Message {
	list := make([]*fspb.Message, n)
	for i := range list {
		list[i] = message(to, service)
	}
	return list
}

func idOf(m *fspb.Message) identity.MessageID { return identity.MessageID(m.GetMessageId()) }

func idsOf(list []*fspb.Message) []identity.MessageID {
	ids := make([]identity.MessageID, len(list))
	for i, m := range list {
		ids[i] = idOf(m)
	}
	return ids
}

// insert stores messages that nothing is wrong with.
func (f *fixture) insert(list ...*fspb.Message) {
	f.Helper()
	outcomes, err := f.s.InsertMessages(f.ctx, list)
	f.must(err)
	for i, o := range outcomes {
		if o.Err != nil || o.Duplicate {
			f.Fatalf("message %d: %+v, want it inserted", i, o)
		}
	}
}

// due returns what is due for one client.
func (f *fixture) due(id identity.ClientID, limit int, services ...string) *store.DueMessages {
	f.Helper()
	if len(services) == 0 {
		services = nil
	}
	got, err := f.s.DueMessages(f.ctx, []store.DueRequest{{ClientID: id, Services: services, Limit: limit}})
	f.must(err)
	return got[id]
}

func dueIDs(due *store.DueMessages) []identity.MessageID {
	ids := make([]identity.MessageID, len(due.Messages))
	for i, m := range due.Messages {
		ids[i] = m.ID
	}
	return ids
}

func refsOf(client identity.ClientID, ids []identity.MessageID) []store.MessageRef {
	refs := make([]store.MessageRef, len(ids))
	for i, id := range ids {
		refs[i] = store.MessageRef{ClientID: client, ID: id}
	}
	return refs
}

// status is MessageStatus of a message that is known.
func (f *fixture) status(id identity.MessageID) *store.MessageStatus {
	f.Helper()
	status, err := f.s.MessageStatus(f.ctx, id)
	f.must(err)
	return status
}

// recent says whether a time of the store is about now. The store of the tests runs on this machine.
func recent(t time.Time) bool {
	age := time.Since(t)
	return age > -time.Minute && age < time.Minute
}
