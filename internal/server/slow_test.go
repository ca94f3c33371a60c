package server_test

import (
	"bytes"
	"net"
	"slices"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/server"
	"github.com/farspeak/farspeak/internal/store"
	"github.com/farspeak/farspeak/internal/store/storetest"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// insertLarge stores a message of a size for a client.
func (f *fixture) insertLarge(t testing.TB, client identity.ClientID, size int) identity.MessageID {
	t.Helper()
	id := identity.NewMessageID()
	m := toClient(client, "S", id)
	m.Data = &anypb.Any{TypeUrl: "type.googleapis.com/test", Value: bytes.Repeat([]byte{'x'}, size)}
	if _, err := f.store.InsertMessages(t.Context(), []*fspb.Message{m}); err != nil {
		t.Fatal(err)
	}
	return id
}

// stuck opens a session whose client never reads, and gives it more than the buffers of the line hold.
func (f *fixture) stuck(t testing.TB) {
	t.Helper()
	agent := newTestAgent(t, f.address)
	stream, _ := agent.session(&fspb.ContactData{})
	if tcp, ok := netConn(stream.raw).(*net.TCPConn); !ok || tcp.SetReadBuffer(4096) != nil {
		t.Fatal("the read buffer cannot be made small")
	}
	for range 3 {
		f.insertLarge(t, agent.id, 3<<20)
	}
	f.server.Wake([]identity.ClientID{agent.id})
}

func netConn(c net.Conn) net.Conn {
	if layer, ok := c.(interface{ NetConn() net.Conn }); ok {
		return layer.NetConn()
	}
	return c
}

// Clients that stopped reading hold up neither the others nor the fetchers, of which there are fewer.
func TestStuckClientsHoldUpNobody(t *testing.T) {
	f := start(t)
	for range 3 { // one more than there are fetchers
		f.stuck(t)
	}
	var others sync.WaitGroup
	for range 12 {
		agent := newTestAgent(t, f.address)
		others.Go(func() {
			stream, _ := agent.session(&fspb.ContactData{})
			for range 2 {
				ids := f.insert(t, agent.id, "S", 2)
				f.server.Wake([]identity.ClientID{agent.id})
				if got := collect(stream, 2); !slices.Equal(got, ids) {
					t.Errorf("got %v, want %v", got, ids)
				}
			}
		})
	}
	others.Wait()
}

// What waits for stuck clients is bounded over all of them; who finds no room is served when there is some again.
func TestPushMemoryIsBounded(t *testing.T) {
	f := start(t, func(c *server.Config) { c.PushMemory = 4 << 20 })
	var stuck []*testStream
	var agents []*testAgent
	for range 4 {
		agent := newTestAgent(t, f.address)
		stream, _ := agent.session(&fspb.ContactData{})
		agents, stuck = append(agents, agent), append(stuck, stream)
	}
	for _, agent := range agents {
		for range 6 {
			f.insertLarge(t, agent.id, 1<<18)
		}
		f.server.Wake([]identity.ClientID{agent.id})
	}
	if held := gauge(t, f.registry, "farspeak_push_memory_bytes"); held > 4<<20 {
		t.Errorf("%v bytes are held for clients, the limit is 4 MiB", held)
	}
	for i, stream := range stuck {
		if got := collect(stream, 6); len(slices.Compact(got)) != 6 {
			t.Errorf("client %d got %v", i, got)
		}
	}
	waitFor(t, "the memory to be given back", func() bool { return gauge(t, f.registry, "farspeak_push_memory_bytes") == 0 })
}

// The same for a large broadcast to many.
func TestBroadcastMemoryIsBounded(t *testing.T) {
	f := start(t, func(c *server.Config) { c.PushMemory = 2 << 20 })
	var streams []*testStream
	for range 12 {
		stream, _ := newTestAgent(t, f.address).session(&fspb.ContactData{})
		streams = append(streams, stream)
	}
	payload, err := proto.Marshal(&anypb.Any{TypeUrl: "type.googleapis.com/test", Value: make([]byte, 1<<18)})
	if err != nil {
		t.Fatal(err)
	}
	b := &store.Broadcast{ID: identity.NewBroadcastID(), Source: "B", Type: "Large", Limit: store.UnlimitedBroadcast, Data: payload}
	if err := f.store.CreateBroadcast(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	f.server.BroadcastsChanged()
	for _, stream := range streams {
		collect(stream, 1)
	}
	waitFor(t, "the memory to be given back", func() bool { return gauge(t, f.registry, "farspeak_push_memory_bytes") == 0 })
}

// A record to a client is capped in bytes, on either path; the rest follows (G-50).
func TestRecordsToClientsAreCapped(t *testing.T) {
	const most = 1 << 20
	f := start(t, func(c *server.Config) { c.MaxPushBytes = most })
	agent := newTestAgent(t, f.address)
	none := map[string]uint64{"none": 1}
	agent.poll(agent.wrap(&fspb.ContactData{AllowedMessages: none}), nil)
	var want []identity.MessageID
	for range 10 {
		want = append(want, f.insertLarge(t, agent.id, most/3))
	}
	want = append(want, f.insertLarge(t, agent.id, 2*most)) // goes alone
	_, reply := agent.poll(agent.wrap(&fspb.ContactData{}), nil)
	if len(reply.Messages) != 2 || proto.Size(reply) > most {
		t.Errorf("%d messages in %d bytes in a poll's reply", len(reply.Messages), proto.Size(reply))
	}
	got := idsOf(t, reply)
	f.complete(t, agent.id, got)
	stream, first := agent.session(&fspb.ContactData{})
	for data := first; ; data = stream.next() {
		if len(data.Messages) > 1 && proto.Size(data) > most {
			t.Errorf("%d messages in a record of %d bytes", len(data.Messages), proto.Size(data))
		}
		if got = append(got, idsOf(t, data)...); len(got) == len(want) {
			break
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func idsOf(t testing.TB, data *fspb.ContactData) (ids []identity.MessageID) {
	t.Helper()
	for _, m := range data.Messages {
		id, err := identity.MessageIDFromBytes(m.MessageId)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	return ids
}

// When one answer of the store has no room for all clients that asked, the ones that got nothing are asked for again.
func TestManyLargeMessagesForManyClients(t *testing.T) {
	database := storetest.SQLiteDatabase(t)
	small := database.Open(t, storetest.Options{MaxFetchBytes: 1 << 18})
	f := start(t, func(c *server.Config) { c.Store = sqlStore{small} })
	f.store = small
	var streams []*testStream
	var ids []identity.ClientID
	for range 12 {
		agent := newTestAgent(t, f.address)
		stream, _ := agent.session(&fspb.ContactData{})
		for range 2 {
			f.insertLarge(t, agent.id, 1<<17)
		}
		streams, ids = append(streams, stream), append(ids, agent.id)
	}
	f.server.Wake(ids)
	for _, stream := range streams {
		collect(stream, 2)
	}
}
