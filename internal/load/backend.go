package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/farspeak/farspeak/internal/load/fleet"
	"github.com/farspeak/farspeak/internal/load/measure"
	backendpb "github.com/farspeak/farspeak/proto/farspeak/backend"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	grpcservicepb "github.com/farspeak/farspeak/proto/fleetspeak/grpcservice"
)

// maxBackendMessage is the largest message that the backend takes, in bytes.
const maxBackendMessage = 32 << 20

// Backend takes messages from fs-servers, as the program behind a GRPC service does, and remembers which came.
type Backend struct {
	grpcservicepb.UnimplementedProcessorServer

	server    *grpc.Server
	served    chan error
	latencies *measure.Latencies

	// Guarded by mu.
	mu         sync.Mutex
	run        uint64
	seen       []*measure.Seen // by client
	received   int
	duplicates int
}

// StartBackend listens on an address, without TLS.
func StartBackend(ctx context.Context, address string) (*Backend, error) {
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("backend: %w", err)
	}
	b := &Backend{
		server: grpc.NewServer(grpc.MaxRecvMsgSize(maxBackendMessage)), served: make(chan error, 1), latencies: measure.NewLatencies(),
	}
	grpcservicepb.RegisterProcessorServer(b.server, b)
	backendpb.RegisterReceiverServer(b.server, receiver{b: b})
	go func() { b.served <- b.server.Serve(listener) }() // Close waits for it
	return b, nil
}

// Close ends the backend.
func (b *Backend) Close() error {
	b.server.Stop()
	if err := <-b.served; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("backend: %w", err)
	}
	return nil
}

// begin forgets what came before and expects the messages of a run.
func (b *Backend) begin(run uint64, clients int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.run, b.received, b.duplicates = run, 0, 0
	b.seen = make([]*measure.Seen, clients)
	for i := range b.seen {
		b.seen[i] = measure.NewSeen()
	}
	b.latencies.Take()
}

// Process is the method that fs-servers call for a message by itself.
func (b *Backend) Process(_ context.Context, m *fspb.Message) (*fspb.EmptyMessage, error) {
	b.take(time.Now(), m)
	return &fspb.EmptyMessage{}, nil
}

// receiver takes messages by streams.
type receiver struct {
	backendpb.UnimplementedReceiverServer
	b *Backend
}

// Deliver takes the messages of a stream in the order in which they come.
func (r receiver) Deliver(call grpc.BidiStreamingServer[backendpb.Deliveries, backendpb.Outcomes]) error {
	for {
		batch, err := call.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := call.Send(r.takeAll(time.Now(), batch.GetDeliveries())); err != nil {
			return err
		}
	}
}

func (r receiver) takeAll(now time.Time, deliveries []*backendpb.Delivery) *backendpb.Outcomes {
	outcomes := &backendpb.Outcomes{Taken: make([]uint64, 0, len(deliveries))}
	for _, d := range deliveries {
		m := &fspb.Message{}
		if err := proto.Unmarshal(d.GetMessage(), m); err != nil {
			failure := &backendpb.Failure{Number: d.GetNumber(), Code: uint32(codes.Internal), Reason: err.Error()}
			outcomes.Failed = append(outcomes.Failed, failure)
			continue
		}
		r.b.take(now, m)
		outcomes.Taken = append(outcomes.Taken, d.GetNumber())
	}
	return outcomes
}

// take counts a message.
func (b *Backend) take(now time.Time, m *fspb.Message) {
	stamp, ok := fleet.ParseStamp(fleet.UnwrapPayload(m.GetData().GetValue()))
	b.mu.Lock()
	defer b.mu.Unlock()
	if !ok || stamp.Kind != fleet.Up || stamp.Run != b.run || stamp.Index >= len(b.seen) {
		return
	}
	if !b.seen[stamp.Index].Add(stamp.Sequence) {
		b.duplicates++
		return
	}
	b.received++
	b.latencies.Record(time.Duration(now.UnixNano()-stamp.Sent), 1)
}

// delivered is what a backend got of a run.
type delivered struct{ received, lost, duplicates int }

// compare tells what is missing of the messages that each client saw acknowledged.
func (b *Backend) compare(acked []uint64) delivered {
	b.mu.Lock()
	defer b.mu.Unlock()
	d := delivered{received: b.received, duplicates: b.duplicates}
	for i, n := range acked {
		d.lost += int(n) - b.seen[i].CountBelow(n)
	}
	return d
}
