package backend

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	backendpb "github.com/farspeak/farspeak/proto/farspeak/backend"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

const (
	// maxReason is as much of an error as fs-server stores, in bytes.
	maxReason = 900
	// maxFailures is how many reasons are sent at once: a quarter of the 256 KiB that fs-server reads.
	maxFailures = 64
)

// receiver serves streams for a Processor.
type receiver struct {
	backendpb.UnimplementedReceiverServer
	p *Processor
}

// inbound is one stream. The goroutine of the call reads deliveries and starts a goroutine for each; another one writes
// outcomes.
type inbound struct {
	p    *Processor
	call grpc.BidiStreamingServer[backendpb.Deliveries, backendpb.Outcomes]
	// unanswered has a token for each delivery until its outcome is written. A peer that does not read outcomes is not read
	// from either.
	unanswered chan struct{}
	wake       chan struct{} // holds a token when there is something to write

	mu     sync.Mutex
	taken  []uint64
	failed []*backendpb.Failure
}

// Deliver handles the messages of a stream until fs-server closes its side, and everything is answered.
func (r receiver) Deliver(call grpc.BidiStreamingServer[backendpb.Deliveries, backendpb.Outcomes]) error {
	in := &inbound{p: r.p, call: call, unanswered: make(chan struct{}, maxCallsPerConnection), wake: make(chan struct{}, 1)}
	over := make(chan struct{})
	var writer, handlers sync.WaitGroup
	writer.Go(func() { in.write(over) })
	err := in.read(&handlers)
	handlers.Wait()
	close(over)
	writer.Wait()
	return err
}

// read hands deliveries to handlers until there are no more.
func (in *inbound) read(handlers *sync.WaitGroup) error {
	ctx := in.call.Context()
	for {
		deliveries, err := in.call.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, d := range deliveries.GetDeliveries() {
			select {
			case in.unanswered <- struct{}{}:
			case <-ctx.Done():
				return ctx.Err()
			}
			handlers.Go(func() { in.answer(d.GetNumber(), in.handle(ctx, d)) })
		}
	}
}

// handle returns the outcome of a delivery.
func (in *inbound) handle(ctx context.Context, d *backendpb.Delivery) error {
	m := &fspb.Message{}
	if err := proto.Unmarshal(d.GetMessage(), m); err != nil {
		return status.Errorf(codes.Internal, "decode the message: %v", err) // the code that a call would end with
	}
	if ms := d.GetTimeoutMs(); ms > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(ms)*time.Millisecond)
		defer cancel()
	}
	return in.p.outcome(ctx, m)
}

// answer queues an outcome for the writer. The queue is as long as there are deliveries without an answer.
func (in *inbound) answer(number uint64, err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if err == nil {
		in.taken = append(in.taken, number)
	} else {
		s := status.Convert(err)
		in.failed = append(in.failed, &backendpb.Failure{Number: number, Code: uint32(s.Code()), Reason: reason(s.Message())})
	}
	select {
	case in.wake <- struct{}{}:
	default:
	}
}

// reason is a text as it may be sent: a field of text that is not UTF-8 would cost the whole stream.
func reason(text string) string {
	return strings.ToValidUTF8(text[:min(len(text), maxReason)], "\uFFFD")
}

// write sends what outcomes have gathered until everything is over, and says once that the Processor is about to end.
func (in *inbound) write(over <-chan struct{}) {
	draining := in.p.draining
	for last := false; ; {
		if outcomes := in.gather(); outcomes != nil {
			in.send(outcomes)
			continue
		}
		if last {
			return
		}
		select {
		case <-in.wake:
		case <-draining:
			draining = nil
			in.send(&backendpb.Outcomes{Closing: true})
		case <-over:
			last = true
		}
	}
}

// gather takes what is to be sent at once; nil when there is nothing.
func (in *inbound) gather() *backendpb.Outcomes {
	in.mu.Lock()
	defer in.mu.Unlock()
	if len(in.taken)+len(in.failed) == 0 {
		return nil
	}
	n := min(len(in.failed), maxFailures)
	outcomes := &backendpb.Outcomes{Taken: in.taken, Failed: in.failed[:n:n]}
	in.taken, in.failed = nil, in.failed[n:]
	return outcomes
}

// send writes outcomes and makes room for as many deliveries. When the stream has ended it sends nothing; whose outcome is
// lost comes again.
func (in *inbound) send(outcomes *backendpb.Outcomes) {
	_ = in.call.Send(outcomes) // read ends with the reason
	for range len(outcomes.GetTaken()) + len(outcomes.GetFailed()) {
		<-in.unanswered
	}
}
