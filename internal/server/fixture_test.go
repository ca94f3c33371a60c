package server_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/farspeak/farspeak/internal/clientcert"
	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/server"
	"github.com/farspeak/farspeak/internal/services"
	"github.com/farspeak/farspeak/internal/store"
	"github.com/farspeak/farspeak/internal/store/sqlbase"
	"github.com/farspeak/farspeak/internal/store/storetest"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

const testAddress = "127.0.0.1:1" // where the server under test says that it takes notifications

// recorder stands for the services: it keeps what it is given, and fails when told to.
type recorder struct {
	mu       sync.Mutex
	batches  []services.Batch
	messages []*fspb.Message
	fail     error
	poison   string        // source_message_id at which Ingest panics
	gate     chan struct{} // when set, Ingest waits for it
	waits    int           // calls that wait for gate
}

func (r *recorder) Ingest(ctx context.Context, b services.Batch) error {
	r.mu.Lock()
	gate := r.gate
	if gate != nil {
		r.waits++
	}
	r.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if gate != nil {
		r.waits--
	}
	if r.fail != nil {
		return r.fail
	}
	for _, m := range b.Messages {
		if r.poison != "" && string(m.SourceMessageId) == r.poison {
			panic("told to panic")
		}
	}
	r.batches = append(r.batches, b)
	r.messages = append(r.messages, b.Messages...)
	return nil
}

func (r *recorder) taken() []*fspb.Message {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.messages)
}

func (r *recorder) failWith(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fail = err
}

// hold makes Ingest wait until the returned function is called.
func (r *recorder) hold() (letGo func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	gate := make(chan struct{})
	r.gate = gate
	return func() { close(gate) }
}

// waiting is how many calls wait for gate.
func (r *recorder) waiting() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.waits
}

func (r *recorder) panicOn(sourceID string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.poison = sourceID
}

var errTest = errors.New("told to fail")

// fixture is a running server on loopback over a fresh SQLite store.
type fixture struct {
	server   *server.Server
	database *storetest.Database
	store    *sqlbase.Store
	services *recorder
	address  string
	registry *prometheus.Registry
	stop     func() // drains, and waits for Run
}

// start runs a server; adjust may change its configuration.
func start(t testing.TB, adjust ...func(*server.Config)) *fixture {
	t.Helper()
	database := storetest.SQLiteDatabase(t)
	f := &fixture{database: database, store: database.Open(t, storetest.Options{}), services: &recorder{}, registry: prometheus.NewRegistry()}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f.address = listener.Addr().String()
	extractor, err := clientcert.New(clientcert.Config{})
	if err != nil {
		t.Fatal(err)
	}
	cfg := server.Config{
		Store: sqlStore{f.store}, Services: f.services, Listener: listener, TLS: server.TLSConfig(selfSigned(t, time.Now().Add(time.Hour))),
		Certificates: extractor, ID: t.Name(), Address: testAddress, Registerer: f.registry,
		SweepInterval: time.Hour, BroadcastInterval: time.Hour, DrainTimeout: 2 * time.Second,
	}
	for _, change := range adjust {
		change(&cfg)
	}
	f.server, err = server.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.server.Run(ctx) }()
	f.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(f.stop)
	return f
}

// sqlStore narrows the file type of the store to the server's interface, as fs-server's wiring does.
type sqlStore struct{ *sqlbase.Store }

func (s sqlStore) OpenFile(ctx context.Context, service, name string) (server.StoredFile, error) {
	return s.Store.OpenFile(ctx, service, name)
}

// insert stores messages for a client and returns their IDs.
func (f *fixture) insert(t testing.TB, client identity.ClientID, service string, count int) []identity.MessageID {
	t.Helper()
	var ids []identity.MessageID
	var messages []*fspb.Message
	for range count {
		id := identity.NewMessageID()
		ids = append(ids, id)
		messages = append(messages, toClient(client, service, id))
	}
	outcomes, err := f.store.InsertMessages(t.Context(), messages)
	if err != nil {
		t.Fatal(err)
	}
	for _, outcome := range outcomes {
		if outcome.Err != nil {
			t.Fatal(outcome.Err)
		}
	}
	return ids
}

// complete does what an acknowledgement does.
func (f *fixture) complete(t testing.TB, client identity.ClientID, ids []identity.MessageID) {
	t.Helper()
	var acks []store.Ack
	for _, id := range ids {
		acks = append(acks, store.Ack{MessageRef: store.MessageRef{ClientID: client, ID: id}})
	}
	if _, err := f.store.AckMessages(t.Context(), acks); err != nil {
		t.Fatal(err)
	}
}

func loopback(a string) bool {
	parsed, err := netip.ParseAddrPort(a)
	return err == nil && parsed.Addr().IsLoopback()
}

// gauge reads one metric without labels.
func gauge(t testing.TB, registry *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == name {
			return family.Metric[0].GetGauge().GetValue() + family.Metric[0].GetCounter().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

// refusals is how often something was refused for a reason.
func refusals(t testing.TB, registry *prometheus.Registry, reason string) float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, metric := range family.Metric {
			if family.GetName() == "farspeak_refused_total" && metric.Label[0].GetValue() == reason {
				return metric.GetCounter().GetValue()
			}
		}
	}
	return 0
}
