package admin_test

import (
	"context"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/farspeak/farspeak/internal/admin"
	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
	"github.com/farspeak/farspeak/internal/store/storetest"
	"github.com/farspeak/farspeak/internal/testmysql"
	controlpb "github.com/farspeak/farspeak/proto/farspeak/control"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	serverpb "github.com/farspeak/farspeak/proto/fleetspeak/server"
)

func TestMain(m *testing.M) { os.Exit(testmysql.Run(m)) }

// deadline is how long a test waits for what has to happen.
const deadline = 20 * time.Second

// fixture is an admin server on a real store, and its caller.
type fixture struct {
	testing.TB
	ctx      context.Context
	db       *storetest.Database // nil on a fake store
	store    admin.Store
	real     realStore // the store as the servers have it; nil on a fake store
	hints    *hints
	registry *prometheus.Registry

	server  *admin.Server
	address string
	conn    *grpc.ClientConn
	admin   serverpb.AdminClient
	control controlpb.ControlClient
	stop    context.CancelFunc
	stopped <-chan error
}

// realStore has what the tests need of the store beside fs-admin's part.
type realStore interface {
	admin.Store
	RecordContacts(ctx context.Context, updates []store.ContactUpdate) ([]store.ContactOutcome, error)
	SetClientInfo(ctx context.Context, infos []store.ClientInfo) ([]error, error)
	AddResourceUsage(ctx context.Context, records []store.ResourceUsage) ([]error, error)
	AckMessages(ctx context.Context, acks []store.Ack) ([]error, error)
	DueMessages(ctx context.Context, requests []store.DueRequest) (map[identity.ClientID]*store.DueMessages, error)
	ClaimBacklog(ctx context.Context, owner string, services []string, limit int, lease time.Duration) ([]store.BacklogMessage, error)
	RecordServiceResults(ctx context.Context, results []store.ServiceResult) error
	Heartbeat(ctx context.Context, info store.ServerInfo) (time.Time, error)
	StatFile(ctx context.Context, service, name string) (store.File, error)
	AssignBroadcast(ctx context.Context, id identity.BroadcastID, clients []identity.ClientID,
		instance func(identity.ClientID) *fspb.Message, redeliverAfter time.Duration) ([]*store.PendingMessage, error)
}

// onEachStore runs a test on SQLite and on MariaDB.
func onEachStore(t *testing.T, options storetest.Options, test func(f *fixture)) {
	for name, database := range map[string]func(testing.TB) *storetest.Database{
		"SQLite": storetest.SQLiteDatabase, "MySQL": storetest.MySQLDatabase,
	} {
		t.Run(name, func(t *testing.T) {
			db := database(t)
			real := db.Open(t, options)
			f := serve(t, real, nil)
			f.db, f.real = db, real
			test(f)
		})
	}
}

// serve runs an admin server on a store; adjust may change its configuration.
func serve(t testing.TB, s admin.Store, adjust func(*admin.Config)) *fixture {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{TB: t, ctx: t.Context(), store: s, hints: newHints(), registry: prometheus.NewRegistry()}
	cfg := admin.Config{Store: s, Notifier: f.hints, Listener: listener, Registerer: f.registry, Reflection: true}
	if adjust != nil {
		adjust(&cfg)
	}
	server, err := admin.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	stopped := make(chan error, 1)
	go func() { stopped <- server.Run(ctx) }()
	f.server, f.stop, f.stopped = server, stop, stopped
	f.address = cfg.Listener.Addr().String()
	f.conn = dial(t, f.address)
	f.admin, f.control = serverpb.NewAdminClient(f.conn), controlpb.NewControlClient(f.conn)
	t.Cleanup(func() {
		_ = f.conn.Close()
		f.awaitStop()
	})
	return f
}

// awaitStop ends the server and waits for it. It may be called more than once.
func (f *fixture) awaitStop() {
	f.Helper()
	f.stop()
	select {
	case err, ok := <-f.stopped:
		if ok && err != nil {
			f.Errorf("Run: %v", err)
		}
		closed := make(chan error)
		close(closed)
		f.stopped = closed
	case <-time.After(deadline):
		f.Fatal("the server did not end")
	}
}

func dial(t testing.TB, address string, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	if len(options) == 0 {
		options = append(options, grpc.WithTransportCredentials(insecure.NewCredentials()))
	}
	conn, err := grpc.NewClient(address, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// must ends the test on an error.
func (f *fixture) must(err error) {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
}

// wantCode fails the test when an error has another code.
func wantCode(t testing.TB, err error, want codes.Code) {
	t.Helper()
	if got := status.Code(err); got != want {
		t.Errorf("code %v, want %v: %v", got, want, err)
	}
}

// register makes a client known, connected to the server with this notification address.
func (f *fixture) register(streamingTo string, labels ...string) identity.ClientID {
	f.Helper()
	id := identity.NewClientID()
	f.contact(id, streamingTo, labels...)
	return id
}

func (f *fixture) contact(id identity.ClientID, streamingTo string, labels ...string) {
	f.Helper()
	_, err := f.real.RecordContacts(f.ctx, []store.ContactUpdate{{
		ClientID: id, Key: append([]byte("key of "), id[:]...), ClaimedLabels: labels, SentNonce: 1 << 63, ReceivedNonce: 7,
		Address: "192.0.2.1:4321", Clock: &timestamppb.Timestamp{Seconds: 12, Nanos: 34}, StreamingTo: streamingTo,
	}})
	f.must(err)
}

// message is a valid one to a client, or to a service for the nil ID.
func message(to identity.ClientID) *fspb.Message {
	return &fspb.Message{
		MessageId:   identity.NewMessageID().Bytes(),
		Source:      &fspb.Address{ServiceName: "backend"},
		Destination: &fspb.Address{ClientId: to.Bytes(), ServiceName: "shell"},
		MessageType: "Command",
		Data:        payload("uname"),
	}
}

func payload(text string) *anypb.Any {
	a, err := anypb.New(wrapperspb.String(text))
	if err != nil {
		panic(err) // cannot be
	}
	return a
}

// insert inserts a message that has to be taken.
func (f *fixture) insert(m *fspb.Message) identity.MessageID {
	f.Helper()
	_, err := f.admin.InsertMessage(f.ctx, m)
	f.must(err)
	id, err := identity.MessageIDFromBytes(m.MessageId)
	f.must(err)
	return id
}

// hint is a call of the notifier.
type hint struct {
	kind    string
	address string
	clients []identity.ClientID
}

// hints is a notifier that keeps what it is told.
type hints struct {
	mu   sync.Mutex
	told []hint
}

func newHints() *hints { return &hints{} }

func (h *hints) add(one hint) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.told = append(h.told, one)
}

func (h *hints) Notify(address string, ids ...identity.ClientID) {
	h.add(hint{"wake", address, ids})
}

func (h *hints) HandOver(address string, handovers ...*store.Handover) {
	var clients []identity.ClientID
	for _, handover := range handovers {
		clients = append(clients, handover.Message.ClientID)
	}
	h.add(hint{"message", address, clients})
}

func (h *hints) NotifyBlacklisted(address string, id identity.ClientID) {
	h.add(hint{"blacklisted", address, []identity.ClientID{id}})
}

func (h *hints) NotifyBroadcasts(addresses []string) {
	for _, address := range addresses {
		h.add(hint{"broadcasts", address, nil})
	}
}

// take returns what was told since the last call.
func (h *hints) take() []hint {
	h.mu.Lock()
	defer h.mu.Unlock()
	told := h.told
	h.told = nil
	return told
}

// receive waits for a value.
func receive[T any](t testing.TB, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(deadline):
		t.Fatal("nothing came in time")
		panic("unreachable")
	}
}
