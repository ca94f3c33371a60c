package load

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/load/fleet"
	"github.com/farspeak/farspeak/internal/load/measure"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	serverpb "github.com/farspeak/farspeak/proto/fleetspeak/server"
)

const (
	// submitTimeout bounds one submission with its repeats.
	submitTimeout = time.Minute
	// maxInFlight bounds the submissions at once that do not wait for each other.
	maxInFlight = 2000
	// maxFailures is how many different refusals are told apart.
	maxFailures = 20
	// source is the service that load messages come from.
	source = "fsctl-load"
)

// submitter sends messages to clients through fs-admin, one call a message.
type submitter struct {
	admins  []serverpb.AdminClient
	clients []identity.ClientID
	service string
	run     uint64
	size    int

	next      atomic.Uint64 // sequence number
	accepted  *measure.Seen // by sequence number
	latencies *measure.Latencies
	failed    atomic.Int64
	took      time.Duration // set when the submitting is over

	mu       sync.Mutex
	failures map[string]int64 // guarded by mu
}

func newSubmitter(r *run, size int) (*submitter, error) {
	if len(r.Admins) == 0 {
		return nil, errors.New("there is no fs-admin to submit to")
	}
	return &submitter{
		admins: r.Admins, clients: r.clients, service: r.Job.Service, run: r.Job.Run, size: max(size, fleet.StampSize),
		latencies: measure.NewLatencies(), accepted: measure.NewSeen(), failures: make(map[string]int64),
	}, nil
}

// submit sends the next message, which is due now.
func (s *submitter) submit(ctx context.Context, due time.Time) {
	number := s.next.Add(1) - 1
	// Neighbouring numbers go to different clients, in the same way in each run.
	index := int(number * 7919 % uint64(len(s.clients)))
	message := s.message(fleet.Stamp{Kind: fleet.Down, Index: index, Run: s.run, Sequence: number, Sent: due.UnixNano()})
	message.Destination.ClientId = s.clients[index][:]
	admin := s.admins[number%uint64(len(s.admins))]
	ctx, cancel := context.WithTimeout(ctx, submitTimeout)
	defer cancel()
	if _, err := admin.InsertMessage(ctx, message); err != nil {
		s.refused(err)
		return
	}
	s.accepted.Add(number)
	s.latencies.Record(time.Since(due), 1)
}

// message is one without a client.
func (s *submitter) message(stamp fleet.Stamp) *fspb.Message {
	return &fspb.Message{
		MessageId:   identity.NewMessageID().Bytes(),
		Source:      &fspb.Address{ServiceName: source},
		Destination: &fspb.Address{ServiceName: s.service},
		MessageType: fleet.MessageType,
		Data:        payload(stamp, s.size),
	}
}

// payload wraps a stamp with its filling.
func payload(stamp fleet.Stamp, size int) *anypb.Any {
	value, _ := proto.Marshal(wrapperspb.Bytes(stamp.AppendPayload(nil, size))) // bytes always marshal
	return &anypb.Any{TypeUrl: fleet.PayloadTypeURL, Value: value}
}

func (s *submitter) refused(err error) {
	s.failed.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	if text := err.Error(); s.failures[text] > 0 || len(s.failures) < maxFailures {
		s.failures[text]++
	}
}

// progress is for the progress line.
func (s *submitter) progress() string {
	return fmt.Sprintf("submitted %d, refused %d", s.next.Load(), s.failed.Load())
}

// closedLoop keeps count callers busy until ctx ends, or total messages went out; 0 is no limit.
func (s *submitter) closedLoop(ctx context.Context, callers int, total uint64) {
	var calls sync.WaitGroup
	for range callers {
		calls.Go(func() {
			for ctx.Err() == nil && (total == 0 || s.next.Load() < total) {
				s.submit(context.WithoutCancel(ctx), time.Now())
			}
		})
	}
	calls.Wait()
}

// openLoop submits at a rate, whatever becomes of it, until ctx ends.
func (s *submitter) openLoop(ctx context.Context, rate float64) {
	interval := time.Duration(float64(time.Second) / rate)
	s.paced(ctx, func() time.Duration { return interval })
}

// paced submits messages that are due at some distance from each other. When too many calls are under way they start
// late, and their time counts from when they were due. Callers stay for the next message, with the stacks that calls need.
func (s *submitter) paced(ctx context.Context, distance func() time.Duration) {
	var calls sync.WaitGroup
	defer calls.Wait()
	callers, turn := 0, make(chan time.Time)
	defer close(turn)
	for due := time.Now(); ; due = due.Add(distance()) {
		if waitUntil(ctx, due) != nil {
			return
		}
		select {
		case turn <- due: // one who has nothing to do takes it
			continue
		default:
		}
		if callers < maxInFlight {
			callers++
			calls.Go(func() { s.callAgain(ctx, due, turn) })
			continue
		}
		select {
		case <-ctx.Done():
			return
		case turn <- due:
		}
	}
}

// exactly is how much of a wait is spent where no context ends it.
const exactly = 10 * time.Millisecond

// waitUntil waits for a time, unless the context ends before. What it is late counts as latency of a message.
func waitUntil(ctx context.Context, t time.Time) error {
	if long := time.Until(t) - exactly; long > 0 {
		if err := pause(ctx, long); err != nil {
			return err
		}
	}
	sleepUntil(t)
	return ctx.Err()
}

// callAgain submits a message that is due, and then those whose turn comes.
func (s *submitter) callAgain(ctx context.Context, due time.Time, turn <-chan time.Time) {
	for open := true; open; due, open = <-turn {
		s.submit(context.WithoutCancel(ctx), due)
	}
}
