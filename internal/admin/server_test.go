package admin_test

import (
	"context"
	"errors"
	"flag"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	"github.com/farspeak/farspeak/internal/admin"
	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
	"github.com/farspeak/farspeak/internal/store/storetest"
	controlpb "github.com/farspeak/farspeak/proto/farspeak/control"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	serverpb "github.com/farspeak/farspeak/proto/fleetspeak/server"
)

func TestNewRefuses(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	for name, cfg := range map[string]admin.Config{
		"no store":    {Notifier: newHints(), Listener: listener},
		"no notifier": {Store: &failingStore{}, Listener: listener},
		"no listener": {Store: &failingStore{}, Notifier: newHints()},
	} {
		if _, err := admin.New(cfg); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

// A listener that fails ends Run with an error that says so. G-55
func TestRunReportsAFailedListener_G55(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server, err := admin.New(admin.Config{Store: &failingStore{}, Notifier: newHints(), Listener: listener})
	if err != nil {
		t.Fatal(err)
	}
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	if err := server.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "listener") {
		t.Errorf("Run: %v", err)
	}
}

// KeepAlive is answered without the store, and however many calls are under way.
func TestKeepAlive(t *testing.T) {
	s := &failingStore{err: store.ErrUnavailable}
	f := serve(t, s, nil)
	f.server.Pretend(admin.MaxCalls, 1<<40)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := f.admin.KeepAlive(ctx, &fspb.EmptyMessage{}); err != nil {
		t.Error(err)
	}
	if n := s.calls.Load(); n != 0 {
		t.Errorf("the store was asked %d times", n)
	}
	f.server.Pretend(-admin.MaxCalls, -1<<40)
}

// Past its bounds the server refuses before it reads, and says when to come back.
func TestOverload(t *testing.T) {
	f := serve(t, storetest.NewSQLite(t), nil)
	for _, test := range []struct{ calls, bytes int64 }{{admin.MaxCalls, 0}, {1, 512 << 20}} {
		f.server.Pretend(test.calls, test.bytes)
		_, err := f.admin.ListClients(t.Context(), &serverpb.ListClientsRequest{})
		wantCode(t, err, codes.ResourceExhausted)
		if !hasRetry(err) {
			t.Error("no hint when to try again")
		}
		f.server.Pretend(-test.calls, -test.bytes)
		if _, err := f.admin.ListClients(t.Context(), &serverpb.ListClientsRequest{}); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	}
	if got := f.metric("farspeak_admin_refused_calls_total"); got != 2 {
		t.Errorf("%v refused calls counted, want 2", got)
	}
}

// Calls under way, and the bytes of their requests, are counted down again, however they end.
func TestLoadIsCountedDown(t *testing.T) {
	gate := newGatedStore(storetest.NewSQLite(t))
	f := serve(t, gate, nil)
	m := message(identity.NewClientID())
	m.Data.Value = make([]byte, 1<<20)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := f.admin.InsertMessage(ctx, m)
		ended <- err
	}()
	receive(t, gate.entered)
	if calls, bytes := f.server.Load(); calls != 1 || bytes < 1<<20 {
		t.Errorf("%d calls, %d bytes under way", calls, bytes)
	}
	cancel()
	receive(t, ended)
	close(gate.proceed)
	f.calls()["ListClients"](t.Context())
	_ = f.conn.Close()
	f.awaitStop()
	if calls, bytes := f.server.Load(); calls != 0 || bytes != 0 {
		t.Errorf("%d calls, %d bytes left", calls, bytes)
	}
}

// largeStore has a reply that is larger than it may be.
type largeStore struct {
	*failingStore
	clients int
}

func (s *largeStore) ListClients(_ context.Context, _ identity.ClientID, limit int) ([]*store.Client, error) {
	page := make([]*store.Client, min(limit, s.clients))
	for i := range page {
		page[i] = &store.Client{ID: identity.NewClientID(), LastContactAddress: strings.Repeat("x", 2000)}
	}
	s.clients -= len(page)
	return page, nil
}

func (s *largeStore) PendingIDs(_ context.Context, _ []identity.ClientID, _ *identity.MessageID, limit int) ([]identity.MessageID, error) {
	return make([]identity.MessageID, min(limit, 250)), nil
}

func (s *largeStore) PendingMessages(_ context.Context, ids []identity.MessageID, _ bool) ([]*fspb.Message, error) {
	page := make([]*fspb.Message, len(ids))
	for i := range page {
		page[i] = message(identity.NewClientID())
		page[i].Data.Value = make([]byte, 64<<10)
	}
	return page, nil
}

func TestRepliesAreBounded(t *testing.T) {
	s := &largeStore{&failingStore{}, 10_000}
	f := serve(t, s, func(c *admin.Config) { c.MaxMessageBytes, c.MaxReplyBytes = 1<<20, 8<<20 })
	large := grpc.MaxCallRecvMsgSize(1 << 30)
	_, err := f.admin.ListClients(t.Context(), &serverpb.ListClientsRequest{}, large)
	wantCode(t, err, codes.ResourceExhausted)
	if s.clients == 0 {
		t.Error("all was read before the limit was seen")
	}
	request := &serverpb.GetPendingMessagesRequest{ClientIds: [][]byte{identity.NewClientID().Bytes()}, WantData: true}
	_, err = f.admin.GetPendingMessages(t.Context(), request, large)
	wantCode(t, err, codes.ResourceExhausted)
	request.Limit = 100
	if answer, err := f.admin.GetPendingMessages(t.Context(), request, large); err != nil || len(answer.Messages) != 100 {
		t.Errorf("within the limit: %d messages, %v", len(answer.GetMessages()), err)
	}
	s.clients = 2000
	if answer, err := f.admin.ListClients(t.Context(), &serverpb.ListClientsRequest{}, large); err != nil || len(answer.Clients) != 2000 {
		t.Errorf("within the limit: %d clients, %v", len(answer.GetClients()), err)
	}
}

func TestUnknownMethod(t *testing.T) {
	f := serve(t, &failingStore{}, nil)
	err := f.conn.Invoke(t.Context(), "/fleetspeak.server.Admin/Nothing", &fspb.EmptyMessage{}, &fspb.EmptyMessage{})
	wantCode(t, err, codes.Unimplemented)
}

func TestDeadlineOfTheCaller(t *testing.T) {
	gate := newGatedStore(storetest.NewSQLite(t))
	f := serve(t, gate, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := f.admin.InsertMessage(ctx, message(identity.NewClientID()))
	wantCode(t, err, codes.DeadlineExceeded)
	close(gate.proceed)
}

func TestReflection(t *testing.T) {
	for _, enabled := range []bool{true, false} {
		f := serve(t, &failingStore{}, func(c *admin.Config) { c.Reflection = enabled })
		stream, err := reflectionpb.NewServerReflectionClient(f.conn).ServerReflectionInfo(t.Context())
		f.must(err)
		err = stream.Send(&reflectionpb.ServerReflectionRequest{
			MessageRequest: &reflectionpb.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: "fleetspeak.server.Admin"},
		})
		if err != nil && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		answer, err := stream.Recv()
		if !enabled {
			wantCode(t, err, codes.Unimplemented)
			continue
		}
		if files := answer.GetFileDescriptorResponse().GetFileDescriptorProto(); err != nil || len(files) == 0 {
			t.Errorf("reflection: %v, %v", answer, err)
		}
	}
}

func TestUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin.sock")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	f := serve(t, storetest.NewSQLite(t), func(c *admin.Config) {
		_ = c.Listener.Close()
		c.Listener = listener
	})
	conn := dial(t, "unix:"+path)
	if _, err := serverpb.NewAdminClient(conn).ListClients(f.ctx, &serverpb.ListClientsRequest{}); err != nil {
		t.Error(err)
	}
}

func TestMetrics(t *testing.T) {
	f := serve(t, storetest.NewSQLite(t), nil)
	for name, call := range f.calls() {
		if err := call(t.Context()); err != nil && status.Code(err) != codes.NotFound && !errors.Is(err, io.EOF) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got, want := f.metric("farspeak_admin_calls_total"), float64(len(f.calls())); got != want {
		t.Errorf("%v calls counted, want %v", got, want)
	}
	if problems, err := testutil.GatherAndLint(f.registry); err != nil || len(problems) > 0 {
		t.Errorf("metrics: %v, %v", problems, err)
	}
}

func TestAuditNamesAndNeverTellsPayloads(t *testing.T) {
	const secret = "PAYLOAD"
	id := identity.NewClientID()
	many := make([][]byte, 20)
	for i := range many {
		many[i] = id.Bytes()
	}
	m := message(id)
	m.Data = payload(secret)
	m.Annotations = &fspb.Annotations{Entries: []*fspb.Annotations_Entry{{Key: secret, Value: secret}}}
	b := aBroadcast()
	b.Data = payload(secret)
	tests := []struct {
		request any
		want    []string // nil: no line
	}{
		{m, []string{id.String(), identity.MessageID(m.MessageId).String(), `"backend"`, `"shell"`}},
		{&fspb.Message{}, []string{"nil"}},
		{&serverpb.CreateBroadcastRequest{Broadcast: b, Limit: 7}, []string{"limit=7", identity.BroadcastID(b.BroadcastId).String()}},
		{&serverpb.CreateBroadcastRequest{}, []string{"nil"}},
		{&serverpb.DisableBroadcastsRequest{BroadcastIds: many[:2]}, []string{id.String() + "," + id.String()}},
		{&serverpb.DeletePendingMessagesRequest{ClientIds: many}, []string{id.String(), "+12"}},
		{&serverpb.BlacklistClientRequest{ClientId: id.Bytes()}, []string{id.String()}},
		{&serverpb.BlacklistClientRequest{ClientId: make([]byte, 1<<20)}, []string{"…"}},
		{&serverpb.StoreFileRequest{ServiceName: "s\n", FileName: strings.Repeat("é", 1000), Data: []byte(secret)}, []string{`"s\n"`, "bytes=7", "…"}},
		{&serverpb.DeleteFileRequest{ServiceName: "s", FileName: "f"}, []string{`service="s" file="f"`}},
		{&controlpb.RetryDeadLettersRequest{Service: "s", MessageIds: many[:1]}, []string{`"s"`, id.String()}},
		{&controlpb.DeleteDeadLettersRequest{Service: "s"}, []string{`"s"`}},
		{&serverpb.ListClientsRequest{}, nil},
		{&fspb.EmptyMessage{}, nil},
		{nil, nil},
	}
	for _, test := range tests {
		text, ok := admin.Subject(test.request)
		if ok != (test.want != nil) {
			t.Errorf("%T: audited %v", test.request, ok)
		}
		for _, want := range test.want {
			if !strings.Contains(text, want) {
				t.Errorf("%T: %q lacks %q", test.request, text, want)
			}
		}
		if strings.Contains(text, secret) || strings.Contains(text, "\n") || len(text) > 1500 {
			t.Errorf("%T: %q", test.request, text)
		}
	}
}

// Backends submit messages all day: that leaves a line in the audit log only when it is asked for. What operators do leaves
// one always.
func TestAuditOfSubmittedMessages(t *testing.T) {
	for verbosity, want := range map[string]bool{"0": false, "1": true} {
		t.Run("v="+verbosity, func(t *testing.T) {
			before := flag.Lookup("v").Value.String()
			t.Cleanup(func() { _ = flag.Set("v", before) })
			if err := flag.Set("v", verbosity); err != nil {
				t.Fatal(err)
			}
			if _, ok := admin.Audited(&fspb.Message{}); ok != want {
				t.Errorf("InsertMessage: audited %v, want %v", ok, want)
			}
			if text, ok := admin.Audited(&serverpb.BlacklistClientRequest{}); !ok || text == "" {
				t.Errorf("BlacklistClient: %q, audited %v, want a line always", text, ok)
			}
		})
	}
}
