package services_test

import (
	"context"
	"errors"
	"io"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	backendpb "github.com/farspeak/farspeak/proto/farspeak/backend"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

type (
	deliverFunc    = func(inbound) error
	newBackendFunc = func(answer func(context.Context, *fspb.Message) error) *backend
	inbound        = grpc.BidiStreamingServer[backendpb.Deliveries, backendpb.Outcomes]
)

// receiver serves streams as the test says.
type receiver struct {
	backendpb.UnimplementedReceiverServer
	deliver deliverFunc
}

func (r receiver) Deliver(call inbound) error { return r.deliver(call) }

// newStreaming makes a backend that offers streams.
func newStreaming(answer func(context.Context, *fspb.Message) error) *backend {
	b := newBackend(answer)
	b.deliver = b.stream
	return b
}

// eachWay runs a test with a backend of the original's kind, and with one that offers streams.
func eachWay(t *testing.T, test func(*testing.T, newBackendFunc)) {
	t.Run("calls", func(t *testing.T) { test(t, newBackend) })
	t.Run("streams", func(t *testing.T) { test(t, newStreaming) })
}

// stream handles each message of a stream in a goroutine of its own.
func (b *backend) stream(call inbound) error {
	var handlers sync.WaitGroup
	defer handlers.Wait()
	var sending sync.Mutex
	return eachBatch(call, func(deliveries []*backendpb.Delivery) error {
		if b.service == nil {
			return call.Send(&backendpb.Outcomes{Taken: numbers(deliveries)})
		}
		for _, d := range deliveries {
			handlers.Go(func() {
				outcome := outcomeOf(d.Number, b.take(call.Context(), decode(d)))
				sending.Lock()
				defer sending.Unlock()
				_ = call.Send(outcome) // fails when the server has gone
			})
		}
		return nil
	})
}

// eachBatch reads a stream to its end.
func eachBatch(call inbound, take func([]*backendpb.Delivery) error) error {
	for {
		batch, err := call.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := take(batch.Deliveries); err != nil {
			return err
		}
	}
}

func decode(d *backendpb.Delivery) *fspb.Message {
	m := &fspb.Message{}
	if err := proto.Unmarshal(d.Message, m); err != nil {
		panic(err)
	}
	return m
}

func numbers(deliveries []*backendpb.Delivery) []uint64 {
	var all []uint64
	for _, d := range deliveries {
		all = append(all, d.Number)
	}
	return all
}

func outcomeOf(number uint64, err error) *backendpb.Outcomes {
	if err == nil {
		return &backendpb.Outcomes{Taken: []uint64{number}}
	}
	return failure(number, status.Code(err), status.Convert(err).Message())
}

func failure(number uint64, code codes.Code, reason string) *backendpb.Outcomes {
	return &backendpb.Outcomes{Failed: []*backendpb.Failure{{Number: number, Code: uint32(code), Reason: reason}}}
}
