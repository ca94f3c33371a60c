package storetest_test

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/anypb"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
	"github.com/farspeak/farspeak/internal/store/sqlbase"
	"github.com/farspeak/farspeak/internal/store/storetest"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// benched is a store with clients, for the methods on the hot paths. The unit of each benchmark is a batch; it reports the
// time for one element too.
type benched struct {
	*testing.B
	s       *sqlbase.Store
	clients []identity.ClientID
	size    int
}

func eachStore(b *testing.B, run func(*benched)) {
	for name, open := range map[string]func(testing.TB) *sqlbase.Store{"sqlite": storetest.NewSQLite, "mysql": storetest.NewMySQL} {
		for _, size := range []int{1, 100} {
			b.Run(fmt.Sprintf("%s/%d", name, size), func(b *testing.B) {
				f := &benched{B: b, s: open(b), size: size}
				for range 1000 {
					f.clients = append(f.clients, identity.NewClientID())
				}
				f.contact(f.clients)
				b.ReportAllocs()
				b.ResetTimer()
				run(f)
				b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*size), "µs/element")
			})
		}
	}
}

func (b *benched) must(err error) {
	if err != nil {
		b.Helper()
		b.Fatal(err)
	}
}

func (b *benched) contact(clients []identity.ClientID) {
	var updates []store.ContactUpdate
	for _, id := range clients {
		updates = append(updates, store.ContactUpdate{ClientID: id, Key: id.Bytes(), Address: "192.0.2.1:1", StreamingTo: "s:1"})
	}
	_, err := b.s.RecordContacts(b.Context(), updates)
	b.must(err)
}

// batch is the next clients of many, in turn.
func (b *benched) batch(i int) []identity.ClientID {
	start := i * b.size % len(b.clients)
	return b.clients[start : start+b.size]
}

func (b *benched) insert(clients []identity.ClientID) (refs []store.MessageRef) {
	var list []*fspb.Message
	for _, id := range clients {
		m := &fspb.Message{
			MessageId: identity.NewMessageID().Bytes(), MessageType: "Task", Source: &fspb.Address{ServiceName: "backend"},
			Destination: &fspb.Address{ClientId: id.Bytes(), ServiceName: "service"}, Data: &anypb.Any{Value: make([]byte, 500)},
		}
		list = append(list, m)
		refs = append(refs, store.MessageRef{ClientID: id, ID: identity.MessageID(m.MessageId)})
	}
	_, err := b.s.InsertMessages(b.Context(), list)
	b.must(err)
	return refs
}

func BenchmarkRecordContacts(b *testing.B) {
	eachStore(b, func(b *benched) {
		for i := range b.N {
			b.contact(b.batch(i))
		}
	})
}

func BenchmarkInsertMessages(b *testing.B) {
	eachStore(b, func(b *benched) {
		for i := range b.N {
			b.insert(b.batch(i))
		}
	})
}

func BenchmarkDueMessages(b *testing.B) {
	eachStore(b, func(b *benched) {
		b.StopTimer()
		b.insert(b.clients)
		b.StartTimer()
		for i := range b.N {
			var requests []store.DueRequest
			for _, id := range b.batch(i) {
				requests = append(requests, store.DueRequest{ClientID: id, Limit: 10, Services: []string{"service", "system"}})
			}
			got, err := b.s.DueMessages(b.Context(), requests)
			b.must(err)
			if len(got) != b.size {
				b.Fatalf("%d answers, want %d", len(got), b.size)
			}
		}
	})
}

func BenchmarkRecordAttempts(b *testing.B) {
	eachStore(b, func(b *benched) {
		b.StopTimer()
		refs := b.insert(b.clients)
		b.StartTimer()
		for i := range b.N {
			start := i * b.size % len(refs)
			b.must(b.s.RecordAttempts(b.Context(), refs[start:start+b.size], time.Hour))
		}
	})
}

// BenchmarkAckMessages includes the insert of what is acknowledged: the difference to BenchmarkInsertMessages counts.
func BenchmarkAckMessages(b *testing.B) {
	eachStore(b, func(b *benched) {
		for i := range b.N {
			var acks []store.Ack
			for _, ref := range b.insert(b.batch(i)) {
				acks = append(acks, store.Ack{MessageRef: ref})
			}
			_, err := b.s.AckMessages(b.Context(), acks)
			b.must(err)
		}
	})
}
