package services_test

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/services"
	"github.com/farspeak/farspeak/internal/store"
	"github.com/farspeak/farspeak/internal/store/sqlbase"
	"github.com/farspeak/farspeak/internal/store/sqlite"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	monitoringpb "github.com/farspeak/farspeak/proto/fleetspeak/monitoring"
)

// openDB opens one database as often as there are servers, as their processes do.
func openDB(t *testing.T, servers int) []*sqlbase.Store {
	t.Helper()
	path := filepath.Join(t.TempDir(), "farspeak.db")
	var stores []*sqlbase.Store
	for range servers {
		s, err := sqlite.Open(t.Context(), sqlite.Config{Path: path})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
		stores = append(stores, s)
	}
	return stores
}

// register makes clientA known.
func register(t *testing.T, st *sqlbase.Store) {
	t.Helper()
	outcomes, err := st.RecordContacts(t.Context(), []store.ContactUpdate{{ClientID: clientA, Key: []byte("key"), Address: "192.0.2.1:1"}})
	if err != nil || outcomes[0].Err != nil {
		t.Fatal(err, outcomes)
	}
}

func depth(t *testing.T, st *sqlbase.Store) int64 {
	t.Helper()
	list, err := st.BacklogStatus(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var n int64
	for _, s := range list {
		n += s.Depth
	}
	return n
}

func TestTwoServersOnOneDatabase(t *testing.T) {
	stores := openDB(t, 2)
	b := newBackend(func(context.Context, *fspb.Message) error { return status.Error(codes.Unavailable, "starting") })
	b.serve(t)
	const clients, each = 10, 30
	var senders sync.WaitGroup
	for i, st := range stores {
		m := newManager(t, services.Config{
			Store: st, ServerID: fmt.Sprint("server-", i), Services: b.spec(10),
			CircuitOpenFor: 50 * time.Millisecond, BacklogPoll: 20 * time.Millisecond,
		})
		running(t, m)
		for c := range clients {
			senders.Go(func() {
				batch := services.Batch{ClientID: clientA}
				for n := range each {
					batch.Messages = append(batch.Messages, message(clientA, "S", (i*clients+c)*each+n))
				}
				if err := m.Ingest(t.Context(), batch); err != nil {
					t.Error(err)
				}
			})
		}
	}
	senders.Wait()
	const total = 2 * clients * each
	if n := depth(t, stores[0]); n != total {
		t.Fatalf("backlog of %d, want all %d", n, total)
	}
	b.service.become(nil)
	eventually(t, "empty backlog", func() bool { return depth(t, stores[1]) == 0 })
	if n := b.service.takenOnce(t); n != total {
		t.Errorf("%d of %d messages arrived", n, total)
	}
}

func TestCrashedServersClaimsExpire(t *testing.T) {
	stores := openDB(t, 2)
	messages := batchOf("S", 5).Messages
	var waiting []store.BacklogMessage
	for _, m := range messages {
		waiting = append(waiting, store.BacklogMessage{ID: idOf(m), Service: "S", Message: m})
	}
	if _, err := stores[0].AddBacklog(t.Context(), waiting, 0, 0); err != nil {
		t.Fatal(err)
	}
	const lease = 700 * time.Millisecond
	claimedAt := time.Now()
	if claimed, err := stores[0].ClaimBacklog(t.Context(), "crashed", []string{"S"}, 10, lease); err != nil || len(claimed) != 5 {
		t.Fatalf("claimed %d, %v", len(claimed), err)
	}
	var first time.Time
	var once sync.Once
	s := newFakeService(func(context.Context, *fspb.Message) error { once.Do(func() { first = time.Now() }); return nil })
	m := newManager(t, services.Config{Store: stores[1], Services: one("S", s), BacklogPoll: 20 * time.Millisecond})
	running(t, m)
	eventually(t, "all taken over", func() bool { return s.takenOnce(t) == 5 })
	if first.Sub(claimedAt) < lease {
		t.Errorf("handed over %v after the claim of another server, which lasts %v", first.Sub(claimedAt), lease)
	}
}

func TestDeadLettersKeepTheirPayload(t *testing.T) { // G-13
	st := openDB(t, 1)[0]
	s := newFakeService(func(_ context.Context, m *fspb.Message) error { return services.Permanent(errNever) })
	m := newManager(t, services.Config{Store: st, Services: one("S", s), BacklogPoll: 20 * time.Millisecond})
	running(t, m)
	b := batchOf("S", 1)
	b.Messages = append(b.Messages, message(clientA, "Nowhere", 2))
	original := proto.CloneOf(b.Messages[0])
	if err := m.Ingest(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	for i, service := range []string{"S", "Nowhere"} {
		dead, err := st.ListDeadLetters(t.Context(), service, identity.MessageID{}, 10, true)
		if err != nil || len(dead) != 1 || dead[0].ID != idOf(b.Messages[i]) || (dead[0].Message.GetData() != nil) != (service == "S") {
			t.Fatalf("dead letters of %s: %v, %v", service, dead, err)
		}
		result, err := st.MessageStatus(t.Context(), dead[0].ID)
		if err != nil || result.Result == nil || !result.Result.Failed || result.Result.Reason != dead[0].Reason {
			t.Errorf("status of the message to %s: %+v, %v", service, result, err)
		}
	}

	// Repaired and tried again, it arrives whole.
	var seen *fspb.Message
	s.become(func(_ context.Context, m *fspb.Message) error { seen = proto.CloneOf(m); return nil })
	if n, err := st.RetryDeadLetters(t.Context(), "S", []identity.MessageID{idOf(original)}); err != nil || n != 1 {
		t.Fatal(n, err)
	}
	eventually(t, "taken after repair", func() bool { return s.takenOnce(t) == 1 })
	if seen.IsBlocklistedSource = false; !proto.Equal(seen, original) {
		t.Errorf("arrived as %v, want %v", seen, original)
	}
}

func TestOversizedMessageIsSetAside(t *testing.T) { // G-16
	st := openDB(t, 1)[0]
	s := newFakeService(func(context.Context, *fspb.Message) error { return errFlaky })
	m := newManager(t, services.Config{Store: st, Services: one("S", s)})
	b := batchOf("S", 3)
	b.Messages[1].Data.Value = make([]byte, store.MaxMessageBytes+1)
	if err := m.Ingest(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	dead, err := st.ListDeadLetters(t.Context(), "S", identity.MessageID{}, 10, true)
	if err != nil || len(dead) != 1 || dead[0].ID != idOf(b.Messages[1]) {
		t.Errorf("dead letters %v, %v", dead, err)
	}
	if n := depth(t, st); n != 2 {
		t.Errorf("backlog of %d, want the 2 neighbours", n)
	}
}

func TestFullDatabaseBacklog(t *testing.T) {
	st := openDB(t, 1)[0]
	s := newFakeService(func(context.Context, *fspb.Message) error { return errFlaky })
	m := newManager(t, services.Config{Store: st, Services: one("S", s), BacklogMaxMessages: 5, RoomWait: 10 * time.Millisecond})
	if err := m.Ingest(t.Context(), batchOf("S", 5)); err != nil {
		t.Fatal(err)
	}
	again := services.Batch{ClientID: clientA, Messages: []*fspb.Message{message(clientA, "S", 77)}}
	if err := m.Ingest(t.Context(), again); err == nil {
		t.Error("a message past the bound of the backlog was acknowledged")
	}
	// What is stored already needs no room.
	if err := m.Ingest(t.Context(), batchOf("S", 5)); err != nil {
		t.Errorf("repeated messages: %v", err)
	}
}

func TestSystemReportsReachTheDatabase(t *testing.T) {
	st := openDB(t, 1)[0]
	register(t, st)
	m := newManager(t, services.Config{Store: st})
	ids := []identity.MessageID{identity.NewMessageID(), identity.NewMessageID()}
	var pending []*fspb.Message
	for _, id := range ids {
		pending = append(pending, &fspb.Message{
			MessageId:    id.Bytes(),
			Source:       &fspb.Address{ServiceName: "Backend"},
			Destination:  &fspb.Address{ClientId: clientA.Bytes(), ServiceName: "Agent"},
			CreationTime: timestamppb.Now(),
		})
	}
	if _, err := st.InsertMessages(t.Context(), pending); err != nil {
		t.Fatal(err)
	}
	reports := []*fspb.Message{
		report(t, "MessageAck", &fspb.MessageAckData{MessageIds: [][]byte{ids[0].Bytes(), identity.NewMessageID().Bytes(), nil}}),
		report(t, "MessageError", &fspb.MessageErrorData{MessageId: ids[1].Bytes(), Error: "no such command"}),
		report(t, "ClientInfo", &fspb.ClientInfoData{
			Labels:   []*fspb.Label{{ServiceName: "client", Label: "linux"}},
			Services: []*fspb.ClientInfoData_ServiceID{{Name: "Agent"}},
		}),
		report(t, "ResourceUsage", &monitoringpb.ResourceUsageData{Scope: "system", DataTimestamp: timestamppb.Now()}),
	}
	for i, r := range reports {
		r.MessageId = identity.MessageIDFor(clientA, "system", []byte{byte(i)}).Bytes()
	}
	if err := m.Ingest(t.Context(), services.Batch{ClientID: clientA, Messages: reports}); err != nil {
		t.Fatal(err)
	}
	for i, failed := range []bool{false, true} {
		got, err := st.MessageStatus(t.Context(), ids[i])
		if err != nil || got.Result == nil || got.Result.Failed != failed {
			t.Errorf("message %d: %+v, %v; want a result with failed %v", i, got, err, failed)
		}
	}
	clients, err := st.GetClients(t.Context(), []identity.ClientID{clientA})
	if err != nil || !slices.Equal(clients[clientA].Labels, []store.Label{{Service: "client", Label: "linux"}}) {
		t.Errorf("client %+v, %v", clients[clientA], err)
	}
	running, err := st.ListClientServices(t.Context(), clientA)
	if err != nil || len(running) != 1 || running[0].Name != "Agent" {
		t.Errorf("services %v, %v", running, err)
	}
	usage, err := st.FetchResourceUsage(t.Context(), clientA, time.Unix(0, 0), time.Now().Add(time.Hour), -1, 10)
	if err != nil || len(usage) != 1 || usage[0].Scope != "system" {
		t.Errorf("usage %v, %v", usage, err)
	}
	if n := depth(t, st); n != 0 {
		t.Errorf("backlog of %d", n)
	}
}
