package cli_test

import (
	"context"
	"maps"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/farspeak/farspeak/cmd/fsctl/internal/cli"
	controlpb "github.com/farspeak/farspeak/proto/farspeak/control"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	serverpb "github.com/farspeak/farspeak/proto/fleetspeak/server"
)

// Clients of the fake daemon.
const (
	linuxID   = "00000000000000a1"
	windowsID = "00000000000000b2"
	unknownID = "00000000000000ff"
)

// fakeAdmin is a daemon in memory: what was asked of it can be seen, and what it answers can be set.
type fakeAdmin struct {
	serverpb.UnimplementedAdminServer
	controlpb.UnimplementedControlServer

	mu         sync.Mutex
	clients    map[string]*serverpb.Client // by binary ID
	messages   map[string]*fspb.Message
	inserts    int
	failFirst  int            // inserts to refuse as unavailable before one is taken
	completeIn map[string]int // looks at the message until it is completed, by destination; absent: never
	broadcasts []*serverpb.CreateBroadcastRequest
	disabled   [][]byte
	files      map[string][]byte
	emptied    [][]byte
	letters    []*controlpb.DeadLetter
	pages      []*controlpb.ListDeadLettersRequest
	retried    *controlpb.RetryDeadLettersRequest
	contacts   []*serverpb.ClientContact
	silent     bool // StreamClientIds sends nothing and does not end
	noControl  bool // an original admin daemon
}

func id(t *testing.T, hex string) []byte {
	t.Helper()
	raw, err := parseHex(hex)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func newFake(t *testing.T) *fakeAdmin {
	t.Helper()
	f := &fakeAdmin{
		clients: map[string]*serverpb.Client{}, messages: map[string]*fspb.Message{},
		completeIn: map[string]int{}, files: map[string][]byte{},
	}
	f.addClient(&serverpb.Client{
		ClientId:               id(t, linuxID),
		Labels:                 []*fspb.Label{{ServiceName: "client", Label: "linux"}, {ServiceName: "grr", Label: "lab"}},
		LastContactTime:        timestamppb.Now(),
		LastContactAddress:     "192.0.2.1:1234",
		LastContactStreamingTo: "server-1:8080",
		LastClock:              timestamppb.Now(),
	})
	f.addClient(&serverpb.Client{
		ClientId:        id(t, windowsID),
		Labels:          []*fspb.Label{{ServiceName: "client", Label: "windows"}},
		LastContactTime: timestamppb.New(time.Now().Add(-48 * time.Hour)),
		Blacklisted:     true,
	})
	return f
}

func (f *fakeAdmin) addClient(c *serverpb.Client) { f.clients[string(c.ClientId)] = c }

// serve starts the daemon on a Unix socket and returns its address for --admin.
func (f *fakeAdmin) serve(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "admin")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	f.serveOn(t, listener)
	return "unix:" + path
}

func (f *fakeAdmin) serveOn(t *testing.T, listener net.Listener, options ...grpc.ServerOption) {
	server := grpc.NewServer(options...)
	serverpb.RegisterAdminServer(server, f)
	if !f.noControl {
		controlpb.RegisterControlServer(server, f)
	}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) })
	t.Cleanup(func() {
		server.Stop()
		serving.Wait()
	})
}

// result is what a command left behind.
type result struct {
	code        int
	out, errout string
}

// fsctl runs a command against the fake.
func (f *fakeAdmin) fsctl(t *testing.T, args ...string) result {
	t.Helper()
	return run(t, "", append(args, "--admin", f.serve(t))...)
}

func run(t *testing.T, stdin string, args ...string) result {
	t.Helper()
	var out, errout strings.Builder
	code := cli.Run(t.Context(), "test", args, cli.Streams{In: strings.NewReader(stdin), Out: &out, Err: &errout})
	return result{code, out.String(), errout.String()}
}

func (r result) want(t *testing.T, code int, inOut ...string) {
	t.Helper()
	if r.code != code {
		t.Errorf("exit code %d, want %d; output %q, errors %q", r.code, code, r.out, r.errout)
	}
	for _, text := range inOut {
		if !strings.Contains(r.out, text) {
			t.Errorf("output %q does not contain %q", r.out, text)
		}
	}
}

func (r result) wantError(t *testing.T, code int, texts ...string) {
	t.Helper()
	if r.code != code {
		t.Errorf("exit code %d, want %d; output %q, errors %q", r.code, code, r.out, r.errout)
	}
	for _, text := range texts {
		if !strings.Contains(r.errout, text) {
			t.Errorf("errors %q do not contain %q", r.errout, text)
		}
	}
}

func (f *fakeAdmin) ListClients(_ context.Context, r *serverpb.ListClientsRequest) (*serverpb.ListClientsResponse, error) {
	answer := &serverpb.ListClientsResponse{}
	for _, clientID := range r.ClientIds {
		if c := f.clients[string(clientID)]; c != nil {
			answer.Clients = append(answer.Clients, c)
		}
	}
	return answer, nil
}

func (f *fakeAdmin) StreamClientIds(r *serverpb.StreamClientIdsRequest, s grpc.ServerStreamingServer[serverpb.StreamClientIdsResponse]) error {
	if f.silent {
		<-s.Context().Done()
		return s.Context().Err()
	}
	for _, key := range slices.Sorted(maps.Keys(f.clients)) {
		c := f.clients[key]
		if c.Blacklisted && !r.IncludeBlacklisted || c.LastContactTime.AsTime().Before(r.LastContactAfter.AsTime()) {
			continue
		}
		if err := s.Send(&serverpb.StreamClientIdsResponse{ClientId: c.ClientId}); err != nil {
			return err
		}
	}
	return nil
}

func (f *fakeAdmin) StreamClientContacts(_ *serverpb.StreamClientContactsRequest, s grpc.ServerStreamingServer[serverpb.StreamClientContactsResponse]) error {
	for _, c := range f.contacts {
		if err := s.Send(&serverpb.StreamClientContactsResponse{Contact: c}); err != nil {
			return err
		}
	}
	return nil
}

func (f *fakeAdmin) BlacklistClient(_ context.Context, r *serverpb.BlacklistClientRequest) (*fspb.EmptyMessage, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c := f.clients[string(r.ClientId)]; c != nil {
		c.Blacklisted = true
	}
	return &fspb.EmptyMessage{}, nil
}

func (f *fakeAdmin) InsertMessage(_ context.Context, m *fspb.Message) (*fspb.EmptyMessage, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.inserts++
	switch {
	case f.failFirst > 0:
		f.failFirst--
		return nil, status.Error(codes.Unavailable, "restarting")
	case f.clients[string(m.Destination.ClientId)] == nil:
		return nil, status.Error(codes.NotFound, "no such client")
	}
	stored := proto.CloneOf(m)
	stored.CreationTime = timestamppb.Now()
	f.messages[string(m.MessageId)] = stored
	return &fspb.EmptyMessage{}, nil
}

func (f *fakeAdmin) GetMessageStatus(_ context.Context, r *serverpb.GetMessageStatusRequest) (*serverpb.GetMessageStatusResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	m := f.messages[string(r.MessageId)]
	if m == nil {
		return &serverpb.GetMessageStatusResponse{}, nil
	}
	destination := string(m.Destination.GetClientId())
	if left, ok := f.completeIn[destination]; ok && m.Result == nil {
		if left == 0 {
			m.Result = &fspb.MessageResult{ProcessedTime: timestamppb.Now()}
		}
		f.completeIn[destination] = left - 1
	}
	return &serverpb.GetMessageStatusResponse{CreationTime: m.CreationTime, Result: m.Result}, nil
}

func (f *fakeAdmin) GetPendingMessages(_ context.Context, r *serverpb.GetPendingMessagesRequest) (*serverpb.GetPendingMessagesResponse, error) {
	answer := &serverpb.GetPendingMessagesResponse{}
	for _, key := range slices.Sorted(maps.Keys(f.messages)) {
		m := proto.CloneOf(f.messages[key])
		if !r.WantData {
			m.Data = nil
		}
		answer.Messages = append(answer.Messages, m)
	}
	return answer, nil
}

func (f *fakeAdmin) GetPendingMessageCount(_ context.Context, r *serverpb.GetPendingMessageCountRequest) (*serverpb.GetPendingMessageCountResponse, error) {
	return &serverpb.GetPendingMessageCountResponse{Count: uint64(10 * len(r.ClientIds))}, nil
}

func (f *fakeAdmin) DeletePendingMessages(_ context.Context, r *serverpb.DeletePendingMessagesRequest) (*fspb.EmptyMessage, error) {
	f.emptied = r.ClientIds
	return &fspb.EmptyMessage{}, nil
}

func (f *fakeAdmin) CreateBroadcast(_ context.Context, r *serverpb.CreateBroadcastRequest) (*fspb.EmptyMessage, error) {
	f.broadcasts = append(f.broadcasts, r)
	return &fspb.EmptyMessage{}, nil
}

func (f *fakeAdmin) ListActiveBroadcasts(_ context.Context, r *serverpb.ListActiveBroadcastsRequest) (*serverpb.ListActiveBroadcastsResponse, error) {
	answer := &serverpb.ListActiveBroadcastsResponse{}
	for _, b := range f.broadcasts {
		if r.ServiceName == "" || r.ServiceName == b.Broadcast.Source.ServiceName {
			answer.Broadcasts = append(answer.Broadcasts, b.Broadcast)
		}
	}
	return answer, nil
}

func (f *fakeAdmin) DisableBroadcasts(_ context.Context, r *serverpb.DisableBroadcastsRequest) (*fspb.EmptyMessage, error) {
	f.disabled = r.BroadcastIds
	return &fspb.EmptyMessage{}, nil
}

func (f *fakeAdmin) StoreFile(_ context.Context, r *serverpb.StoreFileRequest) (*fspb.EmptyMessage, error) {
	f.files[r.ServiceName+"/"+r.FileName] = r.Data
	return &fspb.EmptyMessage{}, nil
}

func (f *fakeAdmin) DeleteFile(_ context.Context, r *serverpb.DeleteFileRequest) (*fspb.EmptyMessage, error) {
	delete(f.files, r.ServiceName+"/"+r.FileName)
	return &fspb.EmptyMessage{}, nil
}

func (f *fakeAdmin) ListServers(context.Context, *controlpb.ListServersRequest) (*controlpb.ListServersResponse, error) {
	return &controlpb.ListServersResponse{Servers: []*controlpb.Server{{
		ServerId: "s1", NotificationAddress: "192.0.2.9:8080", Version: "1.0", Sessions: 7, LastHeartbeat: timestamppb.Now(),
	}}}, nil
}

func (f *fakeAdmin) ListClientServices(context.Context, *controlpb.ListClientServicesRequest) (*controlpb.ListClientServicesResponse, error) {
	return &controlpb.ListClientServicesResponse{Services: []*controlpb.ClientService{{Name: "Shell", Signature: []byte{0xab}}}}, nil
}

func (f *fakeAdmin) BacklogStatus(context.Context, *controlpb.BacklogStatusRequest) (*controlpb.BacklogStatusResponse, error) {
	return &controlpb.BacklogStatusResponse{Services: []*controlpb.ServiceBacklog{{
		Service: "Shell", Depth: 3, Bytes: 400, OldestAge: durationpb.New(90 * time.Second),
	}}}, nil
}

func (f *fakeAdmin) ListDeadLetters(_ context.Context, r *controlpb.ListDeadLettersRequest) (*controlpb.ListDeadLettersResponse, error) {
	f.pages = append(f.pages, proto.CloneOf(r))
	first := len(r.PageToken) // the token has one letter for each dead letter that was shown
	size := int(r.PageSize)
	if size == 0 {
		size = 2
	}
	last := min(first+size, len(f.letters))
	answer := &controlpb.ListDeadLettersResponse{DeadLetters: f.letters[first:last]}
	if last < len(f.letters) {
		answer.NextPageToken = strings.Repeat("x", last)
	}
	return answer, nil
}

func (f *fakeAdmin) RetryDeadLetters(_ context.Context, r *controlpb.RetryDeadLettersRequest) (*controlpb.RetryDeadLettersResponse, error) {
	f.retried = r
	return &controlpb.RetryDeadLettersResponse{Count: 5}, nil
}

func (f *fakeAdmin) DeleteDeadLetters(_ context.Context, r *controlpb.DeleteDeadLettersRequest) (*controlpb.DeleteDeadLettersResponse, error) {
	return &controlpb.DeleteDeadLettersResponse{Count: uint64(len(r.MessageIds))}, nil
}
