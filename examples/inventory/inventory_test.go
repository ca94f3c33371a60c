package main

import (
	"context"
	"encoding/hex"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"

	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	grpcservicepb "github.com/farspeak/farspeak/proto/fleetspeak/grpcservice"
	serverpb "github.com/farspeak/farspeak/proto/fleetspeak/server"
	stdinpb "github.com/farspeak/farspeak/proto/fleetspeak/stdinservice"
)

// fabric stands for everything between the two ends of a backend: it takes messages and has them answered, twice each.
type fabric struct {
	serverpb.UnimplementedAdminServer

	processor grpcservicepb.ProcessorClient
	answers   map[string]string // by service; what is missing fails
	clients   []string

	mu      sync.Mutex
	refusal int // inserts to refuse at first
	failed  map[string]bool
	work    sync.WaitGroup
}

func (f *fabric) StreamClientIds(_ *serverpb.StreamClientIdsRequest, s grpc.ServerStreamingServer[serverpb.StreamClientIdsResponse]) error {
	for _, id := range f.clients {
		if err := s.Send(&serverpb.StreamClientIdsResponse{ClientId: []byte(id)}); err != nil {
			return err
		}
	}
	return nil
}

func (f *fabric) InsertMessage(_ context.Context, m *fspb.Message) (*fspb.EmptyMessage, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.refusal > 0 {
		f.refusal--
		return nil, status.Error(codes.Unavailable, "starting")
	}
	f.work.Go(func() { f.answer(m) })
	return &fspb.EmptyMessage{}, nil
}

func (f *fabric) answer(m *fspb.Message) {
	text, ok := f.answers[m.Destination.ServiceName]
	if !ok {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.failed[string(m.MessageId)] = true
		return
	}
	input := &stdinpb.InputMessage{}
	if err := m.Data.UnmarshalTo(input); err != nil {
		return
	}
	answer := newAnswer(m.Destination, "request="+input.Args[0]+"\n"+text)
	for range 2 {
		_, _ = f.processor.Process(context.Background(), answer) // what it made of it is what the test looks at
	}
}

func newAnswer(from *fspb.Address, output string) *fspb.Message {
	data, err := anypb.New(&stdinpb.OutputMessage{Stdout: []byte(output)})
	if err != nil {
		panic(err)
	}
	return &fspb.Message{
		Source: from, Destination: &fspb.Address{ServiceName: from.ServiceName}, MessageType: "StdinServiceOutputMessage", Data: data,
	}
}

func (f *fabric) GetMessageStatus(_ context.Context, r *serverpb.GetMessageStatusRequest) (*serverpb.GetMessageStatusResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.failed[string(r.MessageId)] {
		return &serverpb.GetMessageStatusResponse{}, nil
	}
	return &serverpb.GetMessageStatusResponse{Result: &fspb.MessageResult{Failed: true, FailedReason: "command failed"}}, nil
}

// goodAnswers is what real commands print.
func goodAnswers() map[string]string {
	return map[string]string{
		"inventory-kernel": "Linux 6.1.0 #1 SMP x86_64\n",
		"inventory-disks": "Filesystem 1024-blocks Used Available Capacity Mounted on\n" +
			"proc 0 0 0 - /proc\n/dev/b 1048576 1 1 1% /small\n/dev/a 10485760 2 8 20% /\n",
		"inventory-processes": "1 (init) S 0 1\n22 (a) b) R 1\n33 (x) I 2\n",
		"inventory-checksums": strings.Repeat("ab", 32) + "  /etc/os-release\n",
	}
}

// serve starts f and returns the options to run the backend against it.
func (f *fabric) serve(t *testing.T) options {
	t.Helper()
	admin, backend := listen(t), listen(t)
	address := backend.Addr().String()
	backend.Close() // the backend listens there itself
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	f.processor, f.failed = grpcservicepb.NewProcessorClient(conn), map[string]bool{}
	server := grpc.NewServer()
	serverpb.RegisterAdminServer(server, f)
	f.work.Go(func() { _ = server.Serve(admin) })
	t.Cleanup(func() {
		server.Stop()
		conn.Close()
		f.work.Wait()
	})
	return options{admin: admin.Addr().String(), listen: address, timeout: 20 * time.Second, files: []string{"/etc/os-release"}}
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return listener
}

func TestAllAnswers(t *testing.T) {
	f := &fabric{answers: goodAnswers(), clients: []string{"clientAA", "clientBB"}, refusal: 2}
	if err := run(t.Context(), f.serve(t)); err != nil {
		t.Error(err)
	}
}

func TestFailedCommand(t *testing.T) {
	f := &fabric{answers: goodAnswers()}
	delete(f.answers, "inventory-disks")
	o := f.serve(t)
	o.clients = []string{hex.EncodeToString([]byte("clientAA"))}
	if err := run(t.Context(), o); err == nil || err.Error() != "1 of 4 answers are missing" {
		t.Errorf("error %v, want one missing answer", err)
	}
}

func TestNobodyToAsk(t *testing.T) {
	if err := run(t.Context(), (&fabric{}).serve(t)); err == nil || !strings.Contains(err.Error(), "there are no clients") {
		t.Errorf("error %v, want one that says that there are no clients", err)
	}
}

func TestProcessMatchesAnswers(t *testing.T) {
	client := []byte("clientAA")
	l := newLedger([][]byte{client}, nil)
	r := l.requests[0]
	processor, err := newProcessor(l)
	if err != nil {
		t.Fatal(err)
	}
	from := func(client []byte, service string) *fspb.Address {
		return &fspb.Address{ClientId: client, ServiceName: service}
	}
	good := "request=" + hex.EncodeToString(r.id) + "\nLinux\n"
	for _, c := range []struct {
		name   string
		answer *fspb.Message
		code   codes.Code
		closes bool
	}{
		{"no payload", &fspb.Message{Destination: &fspb.Address{ServiceName: r.fact.service}}, codes.InvalidArgument, false},
		{"no request", newAnswer(from(client, r.fact.service), "Linux\n"), codes.InvalidArgument, false},
		{"request that is no ID", newAnswer(from(client, r.fact.service), "request=x\nLinux\n"), codes.InvalidArgument, false},
		{"another run", newAnswer(from(client, r.fact.service), "request=00\nLinux\n"), codes.OK, false},
		{"another client", newAnswer(from([]byte("clientBB"), r.fact.service), good), codes.OK, false},
		{"another service", newAnswer(from(client, "inventory-disks"), good), codes.OK, false},
		{"the answer", newAnswer(from(client, r.fact.service), good), codes.OK, true},
		{"again", newAnswer(from(client, r.fact.service), "request="+hex.EncodeToString(r.id)+"\nOther\n"), codes.OK, true},
	} {
		_, err := processor.Process(t.Context(), c.answer)
		if status.Code(err) != c.code || r.done != c.closes {
			t.Errorf("%s: %v, done %t; want %v, done %t", c.name, err, r.done, c.code, c.closes)
		}
	}
	if !slices.Equal(r.answer, []string{"Linux"}) {
		t.Errorf("answer %q, want the first", r.answer)
	}
}

func TestFactsRead(t *testing.T) {
	want := map[string][]string{
		"inventory-kernel":    {"Linux 6.1.0 #1 SMP x86_64"},
		"inventory-disks":     {"10.0 GiB, 20% used, on /", "1.0 GiB, 1% used, on /small"},
		"inventory-processes": {"3 processes, 1 running, 2 sleeping"},
		"inventory-checksums": {"abababababababab… /etc/os-release"},
	}
	for _, f := range facts {
		if got := f.read([]byte(goodAnswers()[f.service])); !slices.Equal(got, want[f.service]) {
			t.Errorf("%s: %q, want %q", f.service, got, want[f.service])
		}
		f.read([]byte("\x00garbage)\n\n ) \n")) // must not fail
	}
}

func TestEmptyAnswerIsAFailure(t *testing.T) {
	l := newLedger([][]byte{[]byte("clientAA")}, nil)
	for _, r := range l.requests {
		a := newAnswer(&fspb.Address{ClientId: r.client, ServiceName: r.fact.service}, "request="+hex.EncodeToString(r.id)+"\n")
		if err := l.take(t.Context(), a); err != nil {
			t.Fatal(err)
		}
	}
	err := l.print(io.Discard)
	if err == nil || err.Error() != "4 of 4 answers are missing" {
		t.Errorf("error %v, want the empty answers to count as missing", err)
	}
}
