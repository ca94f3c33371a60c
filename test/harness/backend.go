package harness

import (
	"context"
	"maps"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	grpcservicepb "github.com/farspeak/farspeak/proto/fleetspeak/grpcservice"
)

// maxBackendMessage is more than any message of a client.
const maxBackendMessage = 16 << 20

// Backend is a program behind fs-server's GRPC services. It takes every message and remembers how often each came.
type Backend struct {
	grpcservicepb.UnimplementedProcessorServer
	Address string

	tb testing.TB

	mu         sync.Mutex
	server     *grpc.Server
	refuse     func(*fspb.Message) error
	delay      time.Duration
	deliveries map[string]int           // by message ID
	messages   map[string]*fspb.Message // by message ID, as it first came
}

// StartBackend runs a backend until the test ends.
func StartBackend(tb testing.TB) *Backend {
	tb.Helper()
	b := &Backend{
		Address: FreeAddress(tb), tb: tb,
		deliveries: make(map[string]int), messages: make(map[string]*fspb.Message),
	}
	b.Resume()
	tb.Cleanup(b.Stop)
	return b
}

// Resume listens again after Stop.
func (b *Backend) Resume() {
	b.tb.Helper()
	listener, err := net.Listen("tcp", b.Address)
	if err != nil {
		b.tb.Fatal(err)
	}
	server := grpc.NewServer(grpc.MaxRecvMsgSize(maxBackendMessage))
	grpcservicepb.RegisterProcessorServer(server, b)
	b.mu.Lock()
	b.server = server
	b.mu.Unlock()
	go func() { _ = server.Serve(listener) }() // Stop waits for it
}

// Stop goes away as a backend that died: connections are cut.
func (b *Backend) Stop() {
	b.mu.Lock()
	server := b.server
	b.mu.Unlock()
	server.Stop()
}

// Refuse makes the backend return what refuse returns instead of taking a message; nil from it, or a nil function, takes
// the message.
func (b *Backend) Refuse(refuse func(*fspb.Message) error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refuse = refuse
}

// TakeTime makes the backend keep its callers waiting after it took a message, as one that has work to do.
func (b *Backend) TakeTime(delay time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.delay = delay
}

// Process is the gRPC method that fs-server calls.
func (b *Backend) Process(ctx context.Context, m *fspb.Message) (*fspb.EmptyMessage, error) {
	delay, err := b.take(m)
	if err != nil || delay == 0 {
		return &fspb.EmptyMessage{}, err
	}
	select {
	case <-ctx.Done(): // whoever called is gone; the message is taken all the same
	case <-time.After(delay):
	}
	return &fspb.EmptyMessage{}, nil
}

func (b *Backend) take(m *fspb.Message) (delay time.Duration, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.refuse != nil {
		if err := b.refuse(m); err != nil {
			return 0, err
		}
	}
	if len(m.MessageId) != 32 || len(m.Source.GetClientId()) != 8 || m.Result != nil {
		b.tb.Errorf("the backend got a malformed message: %v", m)
		return 0, status.Error(codes.InvalidArgument, "malformed")
	}
	b.deliveries[string(m.MessageId)]++
	if b.messages[string(m.MessageId)] == nil {
		b.messages[string(m.MessageId)] = m
	}
	return b.delay, nil
}

// Deliveries is how often each message came, by message ID.
func (b *Backend) Deliveries() map[string]int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return maps.Clone(b.deliveries)
}

// Message is a message that came, or nil.
func (b *Backend) Message(id []byte) *fspb.Message {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.messages[string(id)]
}

// Find is the first message found that matches, or nil.
func (b *Backend) Find(match func(*fspb.Message) bool) *fspb.Message {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, m := range b.messages {
		if match(m) {
			return m
		}
	}
	return nil
}
