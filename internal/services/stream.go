package services

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	backendpb "github.com/farspeak/farspeak/proto/farspeak/backend"
)

const (
	// maxBatch ends the gathering of deliveries, in bytes of their messages. With the last one of up to maxStreamed a batch is
	// far below the 4 MiB that gRPC servers take at least.
	maxBatch = 64 << 10
	// stuckAfter is how long a batch may take to be written before a delivery that ran out of time behind it blames the
	// stream. Shorter than what any message has, longer than a busy backend needs to read 128 KiB.
	stuckAfter = time.Second
)

// errNotOffered says that the backend did not look at a message because it has no streams.
var errNotOffered = errors.New("backend offers no streams")

// stream is one Deliver call. One goroutine reads outcomes; another one writes what has gathered since it wrote the last
// batch, so that a batch is as large as the load makes it.
//
// A delivery belongs to the stream from queue until it has an outcome or its caller gives up; after that nothing is left of
// it here, and an outcome that comes still names a number that nobody knows. A stream therefore holds no more deliveries than
// there are callers, whatever the backend does.
type stream struct {
	cancel context.CancelFunc
	wake   chan struct{} // holds a token when the writer has something to do

	mu       sync.Mutex
	last     uint64               // number of the newest delivery
	waiting  map[uint64]*delivery // without an outcome, by number
	unsent   []*delivery          // those of them that the writer has not taken yet
	outcomes uint64               // how many came
	writing  time.Time            // since when a batch is being written; zero when none is
	retired  bool                 // takes no more deliveries, and ends with the last it has
	ended    bool
}

// delivery is a message on its way through a stream.
type delivery struct {
	wire   backendpb.Delivery
	sent   bool       // guarded by the stream's mu
	before uint64     // outcomes that the stream had when this was queued
	done   chan error // takes the one outcome
}

func newStream(cancel context.CancelFunc) *stream {
	return &stream{cancel: cancel, wake: make(chan struct{}, 1), waiting: make(map[uint64]*delivery)}
}

// run makes the call and returns its end.
func (s *stream) run(ctx context.Context, client backendpb.ReceiverClient, options ...grpc.CallOption) error {
	defer s.cancel()
	call, err := client.Deliver(ctx, options...)
	if err != nil {
		return err
	}
	var writer sync.WaitGroup
	writer.Go(func() { s.write(ctx, call) })
	err = s.read(call)
	s.cancel()
	writer.Wait()
	return err
}

// queue takes a message over, unless the stream takes no more.
func (s *stream) queue(ctx context.Context, body []byte) (*delivery, bool) {
	d := &delivery{done: make(chan error, 1)}
	d.wire.Message = body
	if deadline, ok := ctx.Deadline(); ok {
		d.wire.TimeoutMs = milliseconds(time.Until(deadline))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.retired || s.ended {
		return nil, false
	}
	s.last++
	d.wire.Number, d.before = s.last, s.outcomes
	s.waiting[s.last] = d
	s.unsent = append(s.unsent, d)
	s.wakeWriter()
	return d, true
}

// milliseconds rounds up: 0 on the wire is no limit.
func milliseconds(d time.Duration) uint32 {
	return uint32(min(max(1, (d+time.Millisecond-1)/time.Millisecond), math.MaxUint32))
}

// wait returns the outcome of a delivery as the error of a call.
func (s *stream) wait(ctx context.Context, d *delivery) error {
	select {
	case err := <-d.done:
		return err
	case <-ctx.Done():
	}
	if !s.giveUp(d, errors.Is(ctx.Err(), context.DeadlineExceeded)) {
		return <-d.done
	}
	return status.FromContextError(ctx.Err()).Err()
}

// giveUp forgets a delivery, unless it has an outcome. One that is late may be the stream's fault. When it could not even be
// written the backend does not read, and nothing else will get through. When nothing came back since it was queued, whatever
// comes next tries another stream, and what was sent keeps its chance here.
func (s *stream) giveUp(d *delivery, late bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting[d.wire.Number] != d {
		return false
	}
	s.forget(d)
	if !d.sent {
		s.unsent = slices.DeleteFunc(s.unsent, func(other *delivery) bool { return other == d })
	}
	switch {
	case late && !d.sent && !s.writing.IsZero() && time.Since(s.writing) >= stuckAfter:
		s.cancel()
	case late && s.outcomes == d.before:
		s.retire()
	}
	return true
}

// forget ends a stream that was only kept for this delivery. The caller holds mu.
func (s *stream) forget(d *delivery) {
	delete(s.waiting, d.wire.Number)
	if s.retired && len(s.waiting) == 0 {
		s.cancel()
	}
}

// retire lets a stream end with the deliveries it has. The caller holds mu.
func (s *stream) retire() {
	s.retired = true
	s.wakeWriter()
	if len(s.waiting) == 0 {
		s.cancel()
	}
}

// wakeWriter never blocks.
func (s *stream) wakeWriter() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// write sends what is queued until the stream ends, or is retired and everything is sent.
func (s *stream) write(ctx context.Context, call grpc.BidiStreamingClient[backendpb.Deliveries, backendpb.Outcomes]) {
	for {
		batch, last := s.gather()
		if len(batch) > 0 {
			if call.Send(&backendpb.Deliveries{Deliveries: batch}) != nil {
				return // read has the reason
			}
			continue
		}
		if last {
			_ = call.CloseSend() // it never fails
			return
		}
		select {
		case <-s.wake:
		case <-ctx.Done():
			return
		}
	}
}

// gather takes a batch from the queue, and says whether nothing more will come.
func (s *stream) gather() (batch []*backendpb.Delivery, last bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, size := 0, 0
	for n < len(s.unsent) && size < maxBatch {
		s.unsent[n].sent = true
		size += len(s.unsent[n].wire.Message)
		n++
	}
	if n == 0 {
		s.writing = time.Time{}
		return nil, s.retired
	}
	s.writing = time.Now()
	batch = make([]*backendpb.Delivery, n)
	for i, d := range s.unsent[:n] {
		batch[i] = &d.wire
	}
	s.unsent = slices.Delete(s.unsent, 0, n)
	return batch, false
}

// read hands outcomes to their callers until the stream ends.
func (s *stream) read(call grpc.BidiStreamingClient[backendpb.Deliveries, backendpb.Outcomes]) error {
	for {
		outcomes, err := call.Recv()
		if err != nil {
			return err
		}
		s.settle(outcomes)
	}
}

func (s *stream) settle(outcomes *backendpb.Outcomes) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.outcomes += uint64(len(outcomes.GetTaken()) + len(outcomes.GetFailed()))
	if outcomes.GetClosing() {
		s.retire()
	}
	for _, number := range outcomes.GetTaken() {
		s.answer(number, nil)
	}
	for _, f := range outcomes.GetFailed() {
		code := codes.Code(f.GetCode())
		if code == codes.OK {
			code = codes.Unknown
		}
		s.answer(f.GetNumber(), status.Error(code, f.GetReason()))
	}
}

// answer settles a delivery that was sent and is waited for; there is no other that a backend can answer. The caller holds mu.
func (s *stream) answer(number uint64, outcome error) {
	d := s.waiting[number]
	if d == nil || !d.sent {
		return
	}
	d.done <- outcome
	s.forget(d)
}

// end takes the error with which the call ended. A stream that was refused before it had an outcome is not offered; anything
// else is trouble on the way.
func (s *stream) end(err error) (refused bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	return s.outcomes == 0 && !s.retired && isRefusal(err)
}

// isRefusal tells the answer of a backend, or of a proxy before it, that does not want the call, from an end that comes by
// itself.
func isRefusal(err error) bool {
	switch status.Code(err) {
	case codes.OK, codes.Unavailable, codes.Canceled, codes.DeadlineExceeded:
		return false
	default:
		return !errors.Is(err, io.EOF)
	}
}

// abandon answers what is still waiting after the end.
func (s *stream) abandon(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for number, d := range s.waiting {
		delete(s.waiting, number)
		d.done <- err
	}
	s.unsent = nil
}

// broken is the outcome of what a stream leaves unanswered.
func broken(end error) error {
	return status.Error(codes.Unavailable, fmt.Sprintf("stream to the backend ended: %v", end))
}
