package backend_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	backendpb "github.com/farspeak/farspeak/proto/farspeak/backend"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	"github.com/farspeak/farspeak/sdk/backend"
)

// outbound is the end of a stream that fs-server has.
type outbound struct {
	t    *testing.T
	call grpc.BidiStreamingClient[backendpb.Deliveries, backendpb.Outcomes]
}

// openStream starts a Processor and opens a stream to it.
func openStream(t *testing.T, cfg backend.ProcessorConfig) (outbound, func() error) {
	t.Helper()
	conn, stop := serve(t, cfg, insecure.NewCredentials())
	call, err := backendpb.NewReceiverClient(conn).Deliver(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return outbound{t, call}, stop
}

// send sends messages with numbers from first on.
func (o outbound) send(first uint64, timeout time.Duration, messages ...*fspb.Message) {
	o.t.Helper()
	batch := &backendpb.Deliveries{}
	for i, m := range messages {
		body, err := proto.Marshal(m)
		if err != nil {
			o.t.Fatal(err)
		}
		batch.Deliveries = append(batch.Deliveries, &backendpb.Delivery{
			Number: first + uint64(i), Message: body, TimeoutMs: uint32(timeout.Milliseconds()),
		})
	}
	if err := o.call.Send(batch); err != nil {
		o.t.Fatal(err)
	}
}

// outcomes reads until it has so many, and returns them by number.
func (o outbound) outcomes(n int) map[uint64]error {
	o.t.Helper()
	all := map[uint64]error{}
	for len(all) < n {
		outcomes, err := o.call.Recv()
		if err != nil {
			o.t.Fatalf("after %d of %d outcomes: %v", len(all), n, err)
		}
		for _, number := range outcomes.Taken {
			all[number] = nil
		}
		for _, f := range outcomes.Failed {
			all[f.Number] = status.Error(codes.Code(f.Code), f.Reason)
		}
	}
	return all
}

func TestStreamedOutcomesAreThoseOfCalls(t *testing.T) {
	toClient := fromClient("sink")
	toClient.Destination.ClientId = []byte("clientAA")
	broken := errors.New("broken")
	for name, c := range map[string]struct {
		m       *fspb.Message
		handler backend.Handler
	}{
		"taken":           {fromClient("sink"), returning(nil)},
		"comes again":     {fromClient("sink"), returning(broken)},
		"permanent":       {fromClient("sink"), returning(backend.Permanent(broken))},
		"unavailable":     {fromClient("sink"), returning(backend.Unavailable(broken))},
		"code of another": {fromClient("sink"), returning(status.Error(codes.Internal, "database"))},
		"panic":           {fromClient("sink"), func(context.Context, *fspb.Message) error { panic("secret") }},
		"another service": {fromClient("other"), returning(nil)},
		"for a client":    {toClient, returning(nil)},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := backend.ProcessorConfig{Services: map[string]backend.Handler{"sink": c.handler}}
			_, called := newProcessor(t, cfg).Process(t.Context(), c.m)
			s, _ := openStream(t, cfg)
			s.send(7, time.Minute, c.m)
			if streamed, want := fmt.Sprint(s.outcomes(1)[7]), fmt.Sprint(called); streamed != want {
				t.Errorf("by a stream %q, by a call %q", streamed, want)
			}
			s.send(8, time.Minute, fromClient("other"))
			if err := s.outcomes(1)[8]; status.Code(err) != codes.InvalidArgument {
				t.Errorf("afterwards %v, want that the stream goes on", err)
			}
		})
	}
}

// TestReasonsFitTheStream: no error of a handler can break what others share.
func TestReasonsFitTheStream(t *testing.T) {
	const count = 300
	s, _ := openStream(t, backend.ProcessorConfig{Services: map[string]backend.Handler{
		"sink": returning(errors.New("\xff\xfe" + strings.Repeat("ä", 100<<10))),
	}})
	messages := make([]*fspb.Message, count)
	for i := range messages {
		messages[i] = fromClient("sink")
	}
	s.send(1, time.Minute, messages...)
	for number, err := range s.outcomes(count) {
		if text := status.Convert(err).Message(); status.Code(err) != codes.Aborted || len(text) > 1000 || len(text) < 800 {
			t.Fatalf("message %d: %v of %d bytes", number, status.Code(err), len(text))
		}
	}
}

func TestUnreadableMessageCostsNoOther(t *testing.T) {
	s, _ := openStream(t, backend.ProcessorConfig{Services: map[string]backend.Handler{"sink": returning(nil)}})
	if err := s.call.Send(&backendpb.Deliveries{Deliveries: []*backendpb.Delivery{{Number: 1, Message: []byte("\xff")}}}); err != nil {
		t.Fatal(err)
	}
	s.send(2, 0, fromClient("sink"))
	if got := s.outcomes(2); status.Code(got[1]) != codes.Internal || got[2] != nil {
		t.Errorf("outcomes %v", got)
	}
}

func TestSlowHandlerHoldsUpNoOther(t *testing.T) {
	release := make(chan struct{})
	s, _ := openStream(t, backend.ProcessorConfig{Services: map[string]backend.Handler{
		"slow": func(context.Context, *fspb.Message) error { <-release; return nil }, "sink": returning(nil),
	}})
	s.send(1, time.Minute, fromClient("slow"), fromClient("sink"))
	s.send(3, time.Minute, fromClient("sink"))
	got := s.outcomes(2)
	if _, early := got[1]; early {
		t.Error("the slow message has an outcome before its handler returned")
	}
	close(release)
	s.outcomes(1)
}

func TestTimeoutOfADelivery(t *testing.T) {
	s, _ := openStream(t, backend.ProcessorConfig{Services: map[string]backend.Handler{
		"sink": func(ctx context.Context, _ *fspb.Message) error { <-ctx.Done(); return ctx.Err() },
	}})
	s.send(1, time.Millisecond, fromClient("sink"))
	if err := s.outcomes(1)[1]; status.Code(err) != codes.Aborted {
		t.Errorf("outcome %v", err)
	}
}

// TestStreamsAreBounded: what is more than the Processor holds is sent back at once, as it is to callers.
func TestStreamsAreBounded(t *testing.T) {
	release := make(chan struct{})
	s, _ := openStream(t, backend.ProcessorConfig{
		Services:    map[string]backend.Handler{"sink": func(context.Context, *fspb.Message) error { <-release; return nil }},
		Parallelism: 2, Waiting: 3,
	})
	const count = 20
	messages := make([]*fspb.Message, count)
	for i := range messages {
		messages[i] = fromClient("sink")
	}
	s.send(1, time.Minute, messages...)
	for number, err := range s.outcomes(count - 5) {
		if status.Code(err) != codes.Aborted || !strings.Contains(err.Error(), "too many") {
			t.Errorf("message %d: %v, want that it is sent back", number, err)
		}
	}
	close(release)
	for number, err := range s.outcomes(5) {
		if err != nil {
			t.Errorf("message %d: %v", number, err)
		}
	}
}

// TestServeFinishesStreams: whoever has a stream is told, gets the outcomes of what runs, and the Processor ends.
func TestServeFinishesStreams(t *testing.T) {
	started, finish := make(chan struct{}), make(chan struct{})
	s, stop := openStream(t, backend.ProcessorConfig{Services: map[string]backend.Handler{
		"sink": func(context.Context, *fspb.Message) error {
			close(started)
			<-finish
			return nil
		},
	}})
	s.send(1, time.Minute, fromClient("sink"))
	<-started
	stopped := make(chan error, 1)
	var stopping sync.WaitGroup
	stopping.Go(func() { stopped <- stop() })
	if outcomes, err := s.call.Recv(); err != nil || !outcomes.Closing || len(outcomes.Taken) != 0 {
		t.Fatalf("told %v, %v; want that it is closing", outcomes, err)
	}
	if err := s.call.CloseSend(); err != nil {
		t.Fatal(err)
	}
	close(finish)
	if err := s.outcomes(1)[1]; err != nil {
		t.Errorf("what ran: %v", err)
	}
	if _, err := s.call.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("then %v, want the end", err)
	}
	if err := <-stopped; err != nil {
		t.Errorf("Serve: %v", err)
	}
	stopping.Wait()
}
