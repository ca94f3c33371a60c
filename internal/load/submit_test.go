package load

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/load/measure"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	serverpb "github.com/farspeak/farspeak/proto/fleetspeak/server"
)

// fakeAdmin answers InsertMessage as a test says.
type fakeAdmin struct {
	serverpb.AdminClient
	insert func(context.Context) error
}

func (a fakeAdmin) InsertMessage(ctx context.Context, _ *fspb.Message, _ ...grpc.CallOption) (*fspb.EmptyMessage, error) {
	return &fspb.EmptyMessage{}, a.insert(ctx)
}

func newTestSubmitter(insert func(context.Context) error) *submitter {
	return &submitter{
		admins: []serverpb.AdminClient{fakeAdmin{insert: insert}}, clients: make([]identity.ClientID, 3), size: 64,
		latencies: measure.NewLatencies(), accepted: measure.NewSeen(), failures: make(map[string]int64),
	}
}

// Calls at a rate do not wait for each other: none is answered before a dozen are under way. Those that are, when the time is
// over, are waited for.
func TestOpenLoop(t *testing.T) {
	const together = 12
	ctx, cancel := context.WithCancel(t.Context())
	var calls atomic.Int64
	enough := make(chan struct{})
	s := newTestSubmitter(func(ctx context.Context) error {
		switch calls.Add(1) {
		case together:
			close(enough)
		case 5 * together:
			cancel()
		}
		select {
		case <-enough:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	s.openLoop(ctx, 5000)
	if n := s.accepted.Count(); n < 5*together || int64(n) != calls.Load() || s.failed.Load() != 0 {
		t.Errorf("%d accepted of %d calls, %d refused", n, calls.Load(), s.failed.Load())
	}
	if n := s.latencies.Take().Count(); int64(n) != calls.Load() {
		t.Errorf("%d latencies of %d calls", n, calls.Load())
	}
}

// TestWaits: nobody is early, and a long wait ends with its context.
func TestWaits(t *testing.T) {
	for _, wait := range []time.Duration{-time.Second, 0, 2 * time.Millisecond, exactly + 2*time.Millisecond} {
		until := time.Now().Add(wait)
		if err := waitUntil(t.Context(), until); err != nil || time.Now().Before(until) {
			t.Errorf("a wait of %v ended %v before its time: %v", wait, time.Until(until), err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(time.Millisecond, cancel)
	if err := waitUntil(ctx, time.Now().Add(time.Hour)); !errors.Is(err, context.Canceled) {
		t.Errorf("a wait of an hour ended with %v", err)
	}
}

// TestClosedLoop: callers stop at a number of messages; refusals are told by their reason.
func TestClosedLoop(t *testing.T) {
	var calls atomic.Int64
	s := newTestSubmitter(func(context.Context) error {
		if calls.Add(1)%2 == 0 {
			return errors.New("no room")
		}
		return nil
	})
	s.closedLoop(t.Context(), 1, 10)
	if s.accepted.Count() != 5 || s.failed.Load() != 5 || s.failures["no room"] != 5 {
		t.Errorf("%d accepted, %d refused: %v", s.accepted.Count(), s.failed.Load(), s.failures)
	}
}

// BenchmarkOpenLoop is a message at a rate that never waits, with an answer at once: what the tool adds to a call.
func BenchmarkOpenLoop(b *testing.B) {
	ctx, cancel := context.WithCancel(b.Context())
	left := atomic.Int64{}
	left.Store(int64(b.N))
	s := newTestSubmitter(func(context.Context) error {
		if left.Add(-1) == 0 {
			cancel()
		}
		return nil
	})
	b.ReportAllocs()
	b.ResetTimer()
	s.paced(ctx, func() time.Duration { return 0 })
}
