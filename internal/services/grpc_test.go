package services_test

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/farspeak/farspeak/internal/services"
	"github.com/farspeak/farspeak/internal/store"
	backendpb "github.com/farspeak/farspeak/proto/farspeak/backend"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	grpcservicepb "github.com/farspeak/farspeak/proto/fleetspeak/grpcservice"
)

// backend is a backend as an operator would run one: a gRPC server on loopback.
type backend struct {
	grpcservicepb.UnimplementedProcessorServer
	address string
	service *fakeService // nil takes everything
	options []grpc.ServerOption
	deliver deliverFunc // nil: one of the original's, without streams

	mu    sync.Mutex
	last  *fspb.Message
	calls int
}

func (b *backend) Process(ctx context.Context, m *fspb.Message) (*fspb.EmptyMessage, error) {
	b.mu.Lock()
	b.calls++
	b.mu.Unlock()
	return &fspb.EmptyMessage{}, b.take(ctx, m)
}

// take handles a message, whichever way it came.
func (b *backend) take(ctx context.Context, m *fspb.Message) error {
	if b.service == nil {
		return nil
	}
	b.mu.Lock()
	b.last = proto.CloneOf(m)
	b.mu.Unlock()
	return b.service.Process(ctx, m)
}

// called returns how often Process was called by itself.
func (b *backend) called() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.calls
}

// serve runs the backend, at its old address if it had one, until the returned function is called or the test ends.
func (b *backend) serve(t testing.TB) (stop func()) {
	t.Helper()
	listener, err := net.Listen("tcp", b.address)
	if err != nil {
		t.Fatal(err)
	}
	b.address = listener.Addr().String()
	server := grpc.NewServer(b.options...)
	grpcservicepb.RegisterProcessorServer(server, b)
	if b.deliver != nil {
		backendpb.RegisterReceiverServer(server, receiver{deliver: b.deliver})
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			server.Stop()
			if err := <-ended; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
				t.Error(err)
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

func newBackend(answer func(context.Context, *fspb.Message) error) *backend {
	return &backend{address: "127.0.0.1:0", service: newFakeService(answer)}
}

func (b *backend) spec(parallelism int) []services.Spec {
	return []services.Spec{{
		Name: "S", Factory: services.FactoryGRPC, MaxParallelism: parallelism,
		GRPC: &services.Backend{Target: b.address, Insecure: true},
	}}
}

// eventually waits for something that another goroutine brings about.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(20 * time.Second)
	for !is() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not reached: %s", what)
		}
	}
}

func TestBackendTakesTheWholeMessage(t *testing.T) {
	eachWay(t, func(t *testing.T, newBackend newBackendFunc) {
		b := newBackend(nil)
		b.serve(t)
		st := newFakeStore()
		m := newManager(t, services.Config{Store: st, Services: b.spec(0)})
		batch := batchOf("S", 1)
		msg := batch.Messages[0]
		msg.Priority, msg.Background = fspb.Message_LOW, true
		msg.Annotations = &fspb.Annotations{Entries: []*fspb.Annotations_Entry{{Key: "k", Value: "v"}}}
		batch.ValidationInfo = &fspb.ValidationInfo{Tags: map[string]string{"zone": "a"}}
		if err := m.Ingest(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
		want := proto.CloneOf(msg)
		want.ValidationInfo = batch.ValidationInfo
		if !proto.Equal(b.last, want) {
			t.Errorf("the backend got %v, want %v", b.last, want)
		}
		if st.touched() != 0 {
			t.Error("a healthy backend cost the store something")
		}
	})
}

func TestCodes(t *testing.T) { // G-20
	eachWay(t, func(t *testing.T, newBackend newBackendFunc) {
		for code := codes.Canceled; code <= codes.Unauthenticated; code++ {
			t.Run(code.String(), func(t *testing.T) {
				t.Parallel()
				b := newBackend(func(context.Context, *fspb.Message) error { return status.Error(code, "because") })
				b.serve(t)
				st := newFakeStore()
				m := newManager(t, services.Config{Store: st, Services: b.spec(0)})
				if err := m.Ingest(t.Context(), batchOf("S", 1)); err != nil {
					t.Fatal(err)
				}
				wantWaiting, wantDead := 1, 0
				if code == codes.InvalidArgument {
					wantWaiting, wantDead = 0, 1
				}
				if waiting, dead := st.counts(); waiting != wantWaiting || dead != wantDead {
					t.Errorf("backlog %d, dead letters %d, want %d, %d", waiting, dead, wantWaiting, wantDead)
				}
				if n := b.service.tried(); n != 1 {
					t.Errorf("%d calls, want 1: the backlog retries, not the call", n)
				}
				for _, got := range st.dead {
					if got.Reason != "rpc error: code = InvalidArgument desc = because" {
						t.Errorf("reason %q", got.Reason)
					}
				}
			})
		}
	})
}

func TestPermanentCodesAreAChoice(t *testing.T) {
	eachWay(t, func(t *testing.T, newBackend newBackendFunc) {
		b := newBackend(func(_ context.Context, m *fspb.Message) error {
			if strings.HasSuffix(string(m.SourceMessageId), "0") {
				return status.Error(codes.InvalidArgument, "because")
			}
			return status.Error(codes.Unimplemented, "because")
		})
		b.serve(t)
		st := newFakeStore()
		m := newManager(t, services.Config{Store: st, Services: b.spec(0), PermanentCodes: []codes.Code{codes.DataLoss, codes.Unimplemented}})
		if err := m.Ingest(t.Context(), batchOf("S", 2)); err != nil {
			t.Fatal(err)
		}
		if waiting, dead := st.counts(); waiting != 1 || dead != 1 {
			t.Errorf("backlog %d, dead letters %d, want 1 and 1", waiting, dead)
		}
	})
}

func TestLargeMessage(t *testing.T) {
	eachWay(t, func(t *testing.T, newBackend newBackendFunc) {
		b := newBackend(nil)
		b.serve(t)
		st := newFakeStore()
		m := newManager(t, services.Config{Store: st, Services: b.spec(0)})
		batch := batchOf("S", 3)
		batch.Messages[0].Data.Value = make([]byte, 3<<20)
		batch.Messages[1].Data.Value = make([]byte, 5<<20) // over what this backend takes
		if err := m.Ingest(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
		if waiting, dead := st.counts(); b.service.takenOnce(t) != 2 || waiting != 1 || dead != 0 {
			t.Errorf("taken %d, backlog %d, dead %d; want 2, 1, 0", b.service.takenOnce(t), waiting, dead)
		}
	})
}

func TestSlowBackend(t *testing.T) { // G-20
	eachWay(t, func(t *testing.T, newBackend newBackendFunc) {
		b := newBackend(func(ctx context.Context, _ *fspb.Message) error { <-ctx.Done(); return ctx.Err() })
		b.serve(t)
		st := newFakeStore()
		const budget = 300 * time.Millisecond
		m := newManager(t, services.Config{Store: st, Services: b.spec(0), ServiceBudget: budget})
		start := time.Now()
		if err := m.Ingest(t.Context(), batchOf("S", 100)); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took < budget || took > 10*budget {
			t.Errorf("100 messages to a slow backend took %v, the budget of one is %v", took, budget)
		}
		if waiting, _ := st.counts(); waiting != 100 {
			t.Errorf("backlog of %d, want 100", waiting)
		}
	})
}

func TestBackendDownThenUp(t *testing.T) {
	eachWay(t, func(t *testing.T, newBackend newBackendFunc) {
		b := newBackend(nil)
		stop := b.serve(t)
		st := newFakeStore()
		m := newManager(t, services.Config{
			Store: st, Services: b.spec(0), ServiceBudget: time.Second,
			CircuitOpenFor: 100 * time.Millisecond, BacklogPoll: 50 * time.Millisecond,
		})
		running(t, m)
		ingest := func(from, to int) {
			var clients sync.WaitGroup
			for n := from; n < to; n++ {
				clients.Go(func() {
					if err := m.Ingest(t.Context(), services.Batch{ClientID: clientA, Messages: []*fspb.Message{message(clientA, "S", n)}}); err != nil {
						t.Error(err)
					}
				})
			}
			clients.Wait()
		}
		ingest(0, 50)
		stop()
		ingest(50, 200)
		if waiting, _ := st.counts(); waiting != 150 {
			t.Errorf("backlog of %d while the backend is down, want 150", waiting)
		}
		b.serve(t)
		eventually(t, "all messages taken", func() bool { return b.service.takenOnce(t) == 200 })
		eventually(t, "empty backlog", func() bool { waiting, _ := st.counts(); return waiting == 0 })
		if n := b.service.takenOnce(t); n != 200 {
			t.Errorf("taken %d", n)
		}
	})
}

func TestBackendOverload(t *testing.T) {
	eachWay(t, func(t *testing.T, newBackend newBackendFunc) {
		b := newBackend(func(context.Context, *fspb.Message) error { return nil })
		b.serve(t)
		st := newFakeStore()
		m := newManager(t, services.Config{Store: st, Services: b.spec(5)})
		running(t, m)
		var clients sync.WaitGroup
		for c := range 8 {
			clients.Go(func() {
				batch := services.Batch{ClientID: clientA}
				for n := range 20 {
					batch.Messages = append(batch.Messages, message(clientA, "S", 20*c+n))
				}
				if err := m.Ingest(t.Context(), batch); err != nil {
					t.Error(err)
				}
			})
		}
		clients.Wait()
		eventually(t, "all messages taken", func() bool { return b.service.takenOnce(t) == 160 })
		if b.service.most > 5 {
			t.Errorf("%d calls at once, want at most 5", b.service.most)
		}
	})
}

func TestBackendOverTLS(t *testing.T) {
	web := httptest.NewTLSServer(nil) // for its certificate
	defer web.Close()
	b := newBackend(nil)
	b.options = []grpc.ServerOption{grpc.Creds(credentials.NewServerTLSFromCert(&web.TLS.Certificates[0]))}
	b.serve(t)
	trusted := x509.NewCertPool()
	trusted.AddCert(web.Certificate())
	for name, roots := range map[string]*x509.CertPool{"Trusted": trusted, "Other": x509.NewCertPool()} {
		st := newFakeStore()
		m := newManager(t, services.Config{Store: st, Services: []services.Spec{{
			Name: name, Factory: services.FactoryGRPC, GRPC: &services.Backend{Target: b.address, Roots: roots},
		}}})
		if err := m.Ingest(t.Context(), batchOf(name, 1)); err != nil {
			t.Fatal(err)
		}
		if waiting, _ := st.counts(); waiting != 0 != (name == "Other") {
			t.Errorf("%s: backlog of %d", name, waiting)
		}
	}
	if n := b.service.takenOnce(t); n != 1 {
		t.Errorf("%d messages taken, want that over a trusted connection", n)
	}
}

func TestTwoManagersOnBackends(t *testing.T) {
	eachWay(t, func(t *testing.T, newBackend newBackendFunc) {
		b := newBackend(func(context.Context, *fspb.Message) error { return nil })
		b.serve(t)
		st := newFakeStore()
		for i := range 2 {
			running(t, newManager(t, services.Config{
				Store: st, Services: b.spec(0), ServerID: fmt.Sprint("server-", i), BacklogPoll: 20 * time.Millisecond,
			}))
		}
		st.put(time.Now(), batchOf("S", 300).Messages...)
		eventually(t, "empty backlog", func() bool { waiting, _ := st.counts(); return waiting == 0 })
		if n := b.service.takenOnce(t); n != 300 {
			t.Errorf("taken %d of 300", n)
		}
	})
}

func TestUnreachableBackendIsTemporary(t *testing.T) {
	b := newBackend(nil)
	b.serve(t)() // gone at once
	st := newFakeStore()
	m := newManager(t, services.Config{Store: st, Services: b.spec(0)})
	if err := m.Ingest(t.Context(), batchOf("S", 1)); err != nil {
		t.Fatal(err)
	}
	if waiting, _ := st.counts(); waiting != 1 {
		t.Errorf("backlog of %d, want 1", waiting)
	}
	st.down = true
	if err := m.Ingest(t.Context(), batchOf("S", 1)); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("Ingest = %v, want ErrUnavailable", err)
	}
}
