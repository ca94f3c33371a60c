package services_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/farspeak/farspeak/internal/services"
	backendpb "github.com/farspeak/farspeak/proto/farspeak/backend"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// scripted makes a backend whose n-th stream, from 0, is served as the test says.
func scripted(t *testing.T, deliver func(n int, call inbound) error) *backend {
	t.Helper()
	b := newBackend(nil)
	var streams atomic.Int32
	b.deliver = func(call inbound) error { return deliver(int(streams.Add(1))-1, call) }
	b.serve(t)
	return b
}

// takeAll answers each delivery at once.
func takeAll(call inbound) error {
	return eachBatch(call, func(deliveries []*backendpb.Delivery) error {
		return call.Send(&backendpb.Outcomes{Taken: numbers(deliveries)})
	})
}

// ingest hands over messages [from, to) and fails the test unless so many wait in the backlog afterwards.
func ingest(t *testing.T, m *services.Manager, st *fakeStore, from, to, waiting int) {
	t.Helper()
	batch := services.Batch{ClientID: clientA}
	for n := from; n < to; n++ {
		batch.Messages = append(batch.Messages, message(clientA, "S", n))
	}
	if err := m.Ingest(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	if n, dead := st.counts(); n != waiting || dead != 0 {
		t.Fatalf("after messages %d to %d: backlog %d, dead letters %d; want %d and 0", from, to-1, n, dead, waiting)
	}
}

func TestSmallMessagesStream(t *testing.T) {
	b := newStreaming(nil)
	b.serve(t)
	st := newFakeStore()
	m := newManager(t, services.Config{Store: st, Services: b.spec(0)})
	ingest(t, m, st, 0, 100, 0)
	if n := b.called(); n != 0 {
		t.Errorf("%d messages came by calls of their own", n)
	}
	large := batchOf("S", 101)
	large.Messages = large.Messages[100:]
	large.Messages[0].Data.Value = make([]byte, 100<<10)
	if err := m.Ingest(t.Context(), large); err != nil {
		t.Fatal(err)
	}
	if n := b.called(); n != 1 || b.service.takenOnce(t) != 101 {
		t.Errorf("%d calls, %d messages taken; want the large one by a call", n, b.service.takenOnce(t))
	}
}

// TestBackendWithoutStreams: it is asked once, and again when it may be another one.
func TestBackendWithoutStreams(t *testing.T) {
	for _, code := range []codes.Code{codes.Unimplemented, codes.PermissionDenied, codes.Internal} {
		t.Run(code.String(), func(t *testing.T) {
			var asked atomic.Int32
			b := newBackend(nil)
			b.options = []grpc.ServerOption{grpc.UnknownServiceHandler(func(any, grpc.ServerStream) error {
				asked.Add(1)
				return status.Error(code, "what is that?")
			})}
			stop := b.serve(t)
			st := newFakeStore()
			m := newManager(t, services.Config{Store: st, Services: b.spec(0)})
			ingest(t, m, st, 0, 50, 0)
			ingest(t, m, st, 50, 100, 0)
			if asked.Load() != 1 || b.called() != 100 || b.service.takenOnce(t) != 100 {
				t.Errorf("asked %d times, %d calls, %d taken; want 1, 100, 100", asked.Load(), b.called(), b.service.takenOnce(t))
			}
			stop()
			b.deliver = b.stream
			b.serve(t)
			eventually(t, "messages by a stream", func() bool {
				called, tried := b.called(), b.service.tried()
				if err := m.Ingest(t.Context(), batchOf("S", 1)); err != nil {
					t.Error(err)
				}
				return b.service.tried() > tried && b.called() == called
			})
		})
	}
}

func TestOutcomesOutOfOrder(t *testing.T) {
	const count = 20
	b := scripted(t, func(_ int, call inbound) error {
		var all []*backendpb.Delivery
		return eachBatch(call, func(deliveries []*backendpb.Delivery) error {
			if all = append(all, deliveries...); len(all) < count {
				return nil
			}
			slices.Reverse(all)
			outcomes := &backendpb.Outcomes{}
			for _, d := range all {
				switch decode(d).SourceMessageId[2] % 3 { // "S-n"
				case 0:
					outcomes.Taken = append(outcomes.Taken, d.Number)
				case 1:
					outcomes.Failed = append(outcomes.Failed, failure(d.Number, codes.Aborted, "later").Failed...)
				default:
					outcomes.Failed = append(outcomes.Failed, failure(d.Number, codes.InvalidArgument, "bad").Failed...)
				}
			}
			return call.Send(outcomes)
		})
	})
	st := newFakeStore()
	m := newManager(t, services.Config{Store: st, Services: b.spec(0)})
	batch := batchOf("S", count)
	if err := m.Ingest(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	for _, msg := range batch.Messages {
		_, waits := st.rows[idOf(msg)]
		_, dead := st.dead[idOf(msg)]
		if kind := msg.SourceMessageId[2] % 3; waits != (kind == 1) || dead != (kind == 2) {
			t.Errorf("message %s waits: %t, dead: %t", msg.SourceMessageId, waits, dead)
		}
	}
}

func TestSlowMessageHoldsUpNoOther(t *testing.T) {
	release := make(chan struct{})
	b := newStreaming(func(_ context.Context, m *fspb.Message) error {
		if string(m.SourceMessageId) == "S-0" {
			<-release
		}
		return nil
	})
	b.serve(t)
	st := newFakeStore()
	m := newManager(t, services.Config{Store: st, Services: b.spec(0), ServiceBudget: time.Minute})
	var slow sync.WaitGroup
	slow.Go(func() {
		if err := m.Ingest(t.Context(), batchOf("S", 1)); err != nil {
			t.Error(err)
		}
	})
	eventually(t, "the slow message came", func() bool { return b.service.tried() == 1 })
	ingest(t, m, st, 1, 300, 0)
	if n := b.service.takenOnce(t); n != 299 {
		t.Errorf("%d messages taken beside the slow one, want 299", n)
	}
	close(release)
	slow.Wait()
	if n := b.service.takenOnce(t); n != 300 || b.called() != 0 {
		t.Errorf("%d messages taken, %d by calls", n, b.called())
	}
}

// TestBackendDiesInMidStream: what it had not answered is tried again, and nothing else.
func TestBackendDiesInMidStream(t *testing.T) { // G-20
	const count = 60
	b := newStreaming(nil)
	b.service.become(func(ctx context.Context, m *fspb.Message) error {
		if m.SourceMessageId[2]%2 == 0 {
			return nil
		}
		<-ctx.Done()
		return ctx.Err()
	})
	stop := b.serve(t)
	st := newFakeStore()
	m := newManager(t, services.Config{
		Store: st, Services: b.spec(0), ServiceBudget: time.Minute, CircuitOpenFor: 50 * time.Millisecond, BacklogPoll: 20 * time.Millisecond,
	})
	var ingesting sync.WaitGroup
	ingesting.Go(func() {
		if err := m.Ingest(t.Context(), batchOf("S", count)); err != nil {
			t.Error(err)
		}
	})
	eventually(t, "all messages under way", func() bool { return b.service.tried() == count })
	taken := b.service.takenOnce(t)
	stop()
	ingesting.Wait()
	if waiting, dead := st.counts(); waiting < count-taken || waiting == count || dead != 0 {
		t.Errorf("backlog %d, dead letters %d; %d of %d were taken", waiting, dead, taken, count)
	}
	b.service.become(nil)
	b.serve(t)
	running(t, m)
	eventually(t, "empty backlog", func() bool { waiting, _ := st.counts(); return waiting == 0 })
	b.service.mu.Lock()
	defer b.service.mu.Unlock()
	if len(b.service.taken) != count { // an outcome may have been lost with its backend, and its message come twice
		t.Errorf("%d of %d messages taken", len(b.service.taken), count)
	}
}

// TestHostileOutcomes: a backend harms nothing but what was given to it.
func TestHostileOutcomes(t *testing.T) {
	b := scripted(t, func(_ int, call inbound) error {
		// Numbers of messages to come do not count.
		if err := call.Send(&backendpb.Outcomes{Taken: []uint64{0, 2, 3, 4, 5, 1 << 63}}); err != nil {
			return err
		}
		return eachBatch(call, func(deliveries []*backendpb.Delivery) error {
			for _, d := range deliveries {
				garbage := []*backendpb.Outcomes{
					{}, {Taken: []uint64{d.Number + 1, d.Number + 1000}},
					failure(d.Number+7, codes.InvalidArgument, "another"),
					failure(d.Number, codes.OK, ""), // fails, with a code that says nothing
					failure(d.Number, codes.InvalidArgument, "second thoughts"),
					{Taken: []uint64{d.Number, d.Number}},
				}
				if decode(d).SourceMessageId[2] == '1' {
					garbage[3] = failure(d.Number, 9999, "no such code")
				}
				for _, outcomes := range garbage {
					if err := call.Send(outcomes); err != nil {
						return err
					}
				}
			}
			return nil
		})
	})
	st := newFakeStore()
	m := newManager(t, services.Config{Store: st, Services: b.spec(0)})
	for n := range 5 {
		ingest(t, m, st, n, n+1, n+1)
	}
}

// TestStreamsThatBreak: nothing of them counts as an answer, whatever their code, and the next message has another stream.
func TestStreamsThatBreak(t *testing.T) {
	b := scripted(t, func(n int, call inbound) error {
		if n%2 == 1 {
			return takeAll(call)
		}
		batch, err := call.Recv()
		if err != nil {
			return err
		}
		if err := call.Send(failure(batch.Deliveries[0].Number+100, codes.Aborted, "alive")); err != nil {
			return err
		}
		if n == 0 {
			return status.Error(codes.InvalidArgument, "enough")
		}
		return nil
	})
	st := newFakeStore()
	m := newManager(t, services.Config{Store: st, Services: b.spec(0)})
	ingest(t, m, st, 0, 1, 1)
	ingest(t, m, st, 1, 50, 1)
	if n := b.called(); n != 0 {
		t.Errorf("%d calls: a stream that broke is not one that was refused", n)
	}
}

// TestBackendThatStopsReading: messages behind a full stream run out of time, and the next ones have another stream.
func TestBackendThatStopsReading(t *testing.T) {
	ended := make(chan struct{})
	b := scripted(t, func(n int, call inbound) error {
		if n > 0 {
			return takeAll(call)
		}
		defer close(ended)
		<-call.Context().Done()
		return call.Context().Err()
	})
	st := newFakeStore()
	m := newManager(t, services.Config{
		Store: st, Services: b.spec(0), ServiceBudget: 1500 * time.Millisecond,
		CircuitOpenFor: 50 * time.Millisecond, BacklogPoll: 20 * time.Millisecond,
	})
	batch := batchOf("S", 20)
	for _, msg := range batch.Messages {
		msg.Data.Value = make([]byte, 60<<10)
	}
	if err := m.Ingest(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	<-ended
	if waiting, _ := st.counts(); waiting != 20 {
		t.Errorf("backlog of %d, want all", waiting)
	}
	running(t, m)
	eventually(t, "empty backlog", func() bool { waiting, _ := st.counts(); return waiting == 0 })
}

// TestSilentStreamIsLeft: a message that got no answer costs its stream the next one.
func TestSilentStreamIsLeft(t *testing.T) {
	left := make(chan error, 1)
	b := scripted(t, func(n int, call inbound) error {
		if n > 0 {
			return takeAll(call)
		}
		err := eachBatch(call, func([]*backendpb.Delivery) error { return nil })
		left <- err
		return err
	})
	st := newFakeStore()
	m := newManager(t, services.Config{Store: st, Services: b.spec(0), ServiceBudget: 300 * time.Millisecond})
	ingest(t, m, st, 0, 1, 1)
	ingest(t, m, st, 1, 10, 1)
	if err := <-left; err != nil && status.Code(err) != codes.Canceled {
		t.Errorf("the silent stream ended with %v", err)
	}
}

// TestClosingStream: a backend that ends in good order loses no message and delays none.
func TestClosingStream(t *testing.T) {
	b := scripted(t, func(n int, call inbound) error {
		if n > 0 {
			return takeAll(call)
		}
		var had []uint64
		err := eachBatch(call, func(deliveries []*backendpb.Delivery) error {
			had = append(had, numbers(deliveries)...)
			return call.Send(&backendpb.Outcomes{Closing: true})
		})
		return errors.Join(err, call.Send(&backendpb.Outcomes{Taken: had}))
	})
	st := newFakeStore()
	m := newManager(t, services.Config{Store: st, Services: b.spec(0), ServiceBudget: time.Minute})
	ingest(t, m, st, 0, 80, 0)
	ingest(t, m, st, 80, 100, 0)
	if n := b.called(); n != 0 {
		t.Errorf("%d calls", n)
	}
}

// TestLateOutcomesAreForgotten: an outcome that nobody waits for any more neither blocks nor counts.
func TestLateOutcomesAreForgotten(t *testing.T) {
	release := make(chan struct{})
	b := newStreaming(func(_ context.Context, m *fspb.Message) error {
		if string(m.SourceMessageId) == "S-0" {
			<-release
		}
		return nil
	})
	b.serve(t)
	st := newFakeStore()
	m := newManager(t, services.Config{Store: st, Services: b.spec(0), ServiceBudget: time.Minute})
	ctx, leave := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() { left <- m.Ingest(ctx, batchOf("S", 1)) }()
	eventually(t, "the message came", func() bool { return b.service.tried() == 1 })
	leave()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("Ingest = %v, want that its caller left", err)
	}
	ingest(t, m, st, 1, 20, 0)
	close(release)
	eventually(t, "the late outcome", func() bool { return b.service.takenOnce(t) == 20 })
	ingest(t, m, st, 20, 40, 0)
	if n := b.called(); n != 0 {
		t.Errorf("%d calls", n)
	}
}

// TestDeadlineReachesTheBackend: it is told how long a message is waited for.
func TestDeadlineReachesTheBackend(t *testing.T) {
	var least, most atomic.Uint32
	b := scripted(t, func(_ int, call inbound) error {
		return eachBatch(call, func(deliveries []*backendpb.Delivery) error {
			for _, d := range deliveries {
				least.CompareAndSwap(0, d.TimeoutMs)
				least.Store(min(least.Load(), d.TimeoutMs))
				most.Store(max(most.Load(), d.TimeoutMs))
			}
			return call.Send(&backendpb.Outcomes{Taken: numbers(deliveries)})
		})
	})
	st := newFakeStore()
	m := newManager(t, services.Config{Store: st, Services: b.spec(0), ServiceBudget: time.Minute})
	ingest(t, m, st, 0, 10, 0)
	if least.Load() == 0 || most.Load() > 60_000 {
		t.Errorf("timeouts of %d to %d ms, want something of the minute", least.Load(), most.Load())
	}
}

// TestManySessionsOneStream: every caller gets the outcome of its own message.
func TestManySessionsOneStream(t *testing.T) {
	b := newStreaming(func(_ context.Context, m *fspb.Message) error {
		if n := m.SourceMessageId; n[len(n)-1] == '7' {
			return status.Error(codes.InvalidArgument, string(n))
		}
		return nil
	})
	b.serve(t)
	st := newFakeStore()
	m := newManager(t, services.Config{Store: st, Services: b.spec(0)})
	var sessions sync.WaitGroup
	for c := range 20 {
		sessions.Go(func() {
			batch := services.Batch{ClientID: clientA}
			for n := range 100 {
				batch.Messages = append(batch.Messages, message(clientA, "S", 100*c+n))
			}
			if err := m.Ingest(t.Context(), batch); err != nil {
				t.Error(err)
			}
		})
	}
	sessions.Wait()
	if n := b.service.takenOnce(t); n != 1800 || b.called() != 0 {
		t.Errorf("%d messages taken, %d by calls; want 1800 and 0", n, b.called())
	}
	for _, d := range st.dead {
		if want := fmt.Sprintf("desc = %s", d.Message.SourceMessageId); d.Reason[len(d.Reason)-len(want):] != want {
			t.Errorf("message %s failed for %q", d.Message.SourceMessageId, d.Reason)
		}
	}
	if _, dead := st.counts(); dead != 200 {
		t.Errorf("%d dead letters, want 200", dead)
	}
}
