package admin_test

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/farspeak/farspeak/internal/admin"
	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
	"github.com/farspeak/farspeak/internal/store/storetest"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	serverpb "github.com/farspeak/farspeak/proto/fleetspeak/server"
	"github.com/farspeak/farspeak/test/harness"
)

// watch opens a watch of health and waits for its first word.
func watch(ctx context.Context, conn *grpc.ClientConn) error {
	w, err := healthpb.NewHealthClient(conn).Watch(ctx, &healthpb.HealthCheckRequest{})
	if err != nil {
		return err
	}
	_, err = w.Recv()
	return err
}

// Watches of health need no token. However many there are, they take no place of other calls, and end at bounds of their
// own.
func TestWatchesTakeNobodysPlace(t *testing.T) {
	f := serve(t, storetest.NewSQLite(t), nil)
	watching, endWatches := context.WithCancel(t.Context())
	defer endWatches()
	for range admin.MaxWatches / admin.MaxProbesOfOne {
		conn := dial(t, f.address)
		for range admin.MaxProbesOfOne {
			f.must(watch(watching, conn))
		}
		wantCode(t, watch(watching, conn), codes.ResourceExhausted)
	}
	wantCode(t, watch(watching, f.conn), codes.ResourceExhausted)
	if calls, _ := f.server.Load(); calls != 0 {
		t.Errorf("%d calls counted", calls)
	}
	if _, err := healthpb.NewHealthClient(f.conn).Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil {
		t.Errorf("a check beside the watches: %v", err)
	}
	if _, err := f.admin.KeepAlive(t.Context(), &fspb.EmptyMessage{}); err != nil {
		t.Errorf("KeepAlive beside the watches: %v", err)
	}
	if _, err := f.admin.ListClients(t.Context(), &serverpb.ListClientsRequest{}); err != nil {
		t.Errorf("another call beside the watches: %v", err)
	}
	endWatches()
	harness.Eventually(t, deadline, "room for a watch", func() error { return watch(t.Context(), f.conn) })
}

// A caller that sends no request keeps nothing, of whatever method.
func TestRequestThatDoesNotCome(t *testing.T) {
	f := serve(t, &failingStore{}, func(c *admin.Config) { c.StallTimeout = 20 * time.Millisecond })
	methods := []string{
		"/fleetspeak.server.Admin/InsertMessage", "/fleetspeak.server.Admin/KeepAlive", "/fleetspeak.server.Admin/StreamClientIds",
		"/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
	}
	for _, method := range methods {
		ctx, cancel := context.WithTimeout(t.Context(), deadline)
		defer cancel()
		stream, err := f.conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, method)
		f.must(err)
		if err := stream.RecvMsg(&fspb.EmptyMessage{}); err == nil || ctx.Err() != nil {
			t.Errorf("%s: %v", method, err)
		}
	}
	if got := f.metric("farspeak_admin_stalled_calls_total"); got != float64(len(methods)) {
		t.Errorf("%v stalled calls counted, want %d", got, len(methods))
	}
	harness.Eventually(t, deadline, "the end of all calls", f.idle)
}

// idle says whether calls are under way.
func (f *fixture) idle() error {
	if calls, bytes := f.server.Load(); calls != 0 || bytes != 0 || f.server.Bulk() != 0 {
		return fmt.Errorf("%d calls, %d bytes, %d bulk calls under way", calls, bytes, f.server.Bulk())
	}
	return nil
}

// endlessFleet is a store with clients without end.
type endlessFleet struct{ *failingStore }

func (endlessFleet) ListClientIDs(_ context.Context, _ identity.ClientID, limit int, _ bool, _ time.Time) ([]identity.ClientID, error) {
	page := make([]identity.ClientID, limit)
	for i := range page {
		page[i] = identity.NewClientID()
	}
	return page, nil
}

// A caller that does not read what a stream sends loses the stream.
func TestCallerThatDoesNotRead(t *testing.T) {
	f := serve(t, endlessFleet{&failingStore{}}, func(c *admin.Config) { c.StallTimeout = 20 * time.Millisecond })
	stream, err := f.admin.StreamClientIds(t.Context(), &serverpb.StreamClientIdsRequest{})
	f.must(err)
	harness.Eventually(t, deadline, "the end of the stream", func() error {
		if got := f.metric("farspeak_admin_stalled_calls_total"); got != 1 {
			return fmt.Errorf("%v stalled calls counted, want 1", got)
		}
		return f.idle()
	})
	for err == nil {
		_, err = stream.Recv()
	}
	wantCode(t, err, codes.Canceled)
}

// crowdedStore counts the callers at once of what large answers are made of.
type crowdedStore struct {
	*failingStore
	inside, most atomic.Int32
	entered      chan struct{}
	proceed      chan struct{}
}

func (s *crowdedStore) visit() {
	defer s.inside.Add(-1)
	n := s.inside.Add(1)
	for most := s.most.Load(); n > most && !s.most.CompareAndSwap(most, n); most = s.most.Load() {
	}
	s.entered <- struct{}{}
	<-s.proceed
}

func (s *crowdedStore) ListClients(context.Context, identity.ClientID, int) ([]*store.Client, error) {
	s.visit()
	return nil, nil
}

func (s *crowdedStore) ListContacts(context.Context, identity.ClientID, time.Time, int) ([]store.Contact, error) {
	s.visit()
	return nil, nil
}

func (s *crowdedStore) ActiveBroadcasts(context.Context) ([]*store.Broadcast, error) {
	s.visit()
	return nil, nil
}

// Few calls at once make large answers; the others wait for them to end.
func TestBulkCallsAreBounded(t *testing.T) {
	s := &crowdedStore{failingStore: &failingStore{}, entered: make(chan struct{}, 100), proceed: make(chan struct{})}
	f := serve(t, s, nil)
	id := identity.NewClientID().Bytes()
	var calls sync.WaitGroup
	for range 4 {
		for _, call := range []func() error{
			func() error { _, err := f.admin.ListClients(t.Context(), &serverpb.ListClientsRequest{}); return err },
			func() error {
				_, err := f.admin.ListClientContacts(t.Context(), &serverpb.ListClientContactsRequest{ClientId: id})
				return err
			},
			func() error {
				_, err := f.admin.ListActiveBroadcasts(t.Context(), &serverpb.ListActiveBroadcastsRequest{})
				return err
			},
		} {
			calls.Go(func() {
				if err := call(); err != nil {
					t.Error(err)
				}
			})
		}
	}
	for range admin.MaxBulk {
		receive(t, s.entered)
	}
	close(s.proceed)
	calls.Wait()
	if most := s.most.Load(); most != admin.MaxBulk {
		t.Errorf("%d at once, want %d", most, admin.MaxBulk)
	}
	harness.Eventually(t, deadline, "the end of all calls", f.idle)
}

// The place of a bulk call is taken until its answer has left the handler and was serialized.
func TestBulkPlaceIsHeldToTheEnd(t *testing.T) {
	f := serve(t, &failingStore{}, nil)
	end := f.server.BulkCall(t)
	if n := f.server.Bulk(); n != 1 {
		t.Errorf("%d bulk calls when the handler has returned, want 1", n)
	}
	end()
	if n := f.server.Bulk(); n != 0 {
		t.Errorf("%d bulk calls after the end, want none", n)
	}
}

// conns is a listener of connections that somebody made.
type conns struct {
	net.Listener
	from chan net.Conn
}

func (l conns) Accept() (net.Conn, error) {
	c, ok := <-l.from
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}

// fakeConn is a connection from an address.
type fakeConn struct {
	net.Conn
	from   net.Addr
	closed atomic.Bool
}

func (c *fakeConn) RemoteAddr() net.Addr { return c.from }

func (c *fakeConn) Close() error {
	c.closed.Store(true)
	return nil
}

// One machine cannot take all connections; nor can one with a whole network of addresses.
func TestConnectionsBySource(t *testing.T) {
	inner := conns{from: make(chan net.Conn, 2)}
	refused := 0
	l := admin.Limited(inner, func() { refused++ })
	other := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 99)}
	accept := func(from net.Addr) (accepted net.Conn, first *fakeConn) {
		first = &fakeConn{from: from}
		inner.from <- first
		inner.from <- &fakeConn{from: other} // accepted in its place when the first is refused
		accepted, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if accepted.RemoteAddr() == from {
			<-inner.from
		}
		return accepted, first
	}
	for name, address := range map[string]func(i int) net.Addr{
		"IPv4": func(i int) net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: i} },
		"IPv6": func(i int) net.Addr {
			return &net.TCPAddr{IP: net.IP{0x20, 1, 0xd, 0xb8, 14: byte(i), 15: byte(i >> 8)}}
		},
	} {
		refused = 0
		var first net.Conn
		for i := range admin.MaxFromOneSource {
			c, _ := accept(address(i))
			if first == nil {
				first = c
			}
		}
		if refused != 0 {
			t.Errorf("%s: %d refused within the bound", name, refused)
		}
		c, turnedAway := accept(address(7))
		if refused != 1 || c.RemoteAddr() != other || !turnedAway.closed.Load() {
			t.Errorf("%s: %d refused past the bound, accepted %v", name, refused, c.RemoteAddr())
		}
		for range 2 { // the second time there is nothing to count down
			_ = first.Close()
		}
		if c, _ := accept(address(8)); refused != 1 || c.RemoteAddr() == other {
			t.Errorf("%s: %d refused after one ended", name, refused)
		}
		if accept(address(9)); refused != 2 {
			t.Errorf("%s: %d refused past the bound again", name, refused)
		}
	}
	socket := &net.UnixAddr{Name: "@", Net: "unix"}
	for range admin.MaxFromOneSource + 1 {
		if c, _ := accept(socket); c.RemoteAddr() != socket {
			t.Fatal("a connection on a Unix socket was refused")
		}
	}
}
