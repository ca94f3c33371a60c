// Package services is what happens to a message from a client to a server-side service: from the moment the session code
// has validated it until its record may be acknowledged, and after that for as long as a service does not take it.
//
// # Ways of a message
//
//	Ingest ─┬─ the service takes it ──────────────────────────────► done; the store is not touched
//	        ├─ fails for now, no slot, circuit open, too slow ──► backlog ──► Run tries again, with backoff
//	        └─ fails for good, unknown service ─────────────────► result and dead letter
//
// A dead letter has the payload, for when the message or the service has been mended; one to an unknown service has none.
//
// # Invariants
//
//   - Ingest returns nil only when each message of the batch has come to one of those three ends, and what needs the store
//     is committed. There is no queue in memory behind it. Any error means: do not acknowledge.
//   - A slow or dead service costs a message its budget at most; once its circuit is open it costs nothing. A service that
//     needs longer than clients can wait gets its messages from the backlog, and its circuit stays closed.
//   - Processing is at least once. A message is known by its ID; services take repeats as such.
//   - No service, message or panic ends the process or holds up its neighbours: a panic is a failure for good of that one
//     message, and a row that the store refuses is set aside alone.
//   - A backlog message is in the hands of one server at a time: it is claimed, and the claim outlives the time that the
//     server gives itself. Claims die with their holder.
//
// # Who owns what
//
// The Manager owns the services, the batchers and, inside Run, the goroutines of the backlog. Ingest runs in its caller's
// goroutine and waits for those it starts. Messages given to Ingest belong to the Manager from then on. The order of the
// end: callers of Ingest stop, Run's context ends and Run returns, Close.
package services

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// Service takes messages. Process is called concurrently, up to the service's parallelism.
type Service interface {
	// Process takes a message over. Nil means that the service is responsible for it from here on. An error made by
	// Permanent says that the message is bad and stays so; one made by Unavailable that the service can take no message at
	// present; any other error that it failed for now. Process returns soon after ctx ends. It must not change the message
	// nor keep it.
	Process(ctx context.Context, m *fspb.Message) error
	// Close is called once, when no Process is under way and none will follow.
	Close() error
}

// Batch is the messages of one record of one client, in order of arrival.
type Batch struct {
	ClientID       identity.ClientID
	Blacklisted    bool
	ClientLabels   []store.Label // for metrics
	ValidationInfo *fspb.ValidationInfo
	// Messages have a destination and a source service, and a message_id, source.client_id and creation_time that the
	// server chose.
	Messages []*fspb.Message
}

// Hooks are told of what concerns the sessions of a client. They are called from several goroutines and must be quick. A
// nil one is not called.
type Hooks struct {
	// LabelsChanged gives the complete set of labels of service "client" that a client reported, after their commit.
	LabelsChanged func(id identity.ClientID, labels []store.Label)
	// Acknowledged names messages to clients that are complete, after the commit of their acknowledgements.
	Acknowledged func(messages []store.MessageRef)
}

// Defaults of Config.
const (
	DefaultServiceBudget      = 5 * time.Second
	DefaultBacklogBudget      = 30 * time.Second
	DefaultMaxParallelism     = 100
	DefaultBacklogMaxMessages = 1_000_000
	DefaultBacklogPoll        = time.Second
	DefaultCircuitOpenFor     = 5 * time.Second
	DefaultRoomWait           = 10 * time.Second
	DefaultUnservedAfter      = time.Hour
)

// Config is what a Manager is made of. Store and ServerID are needed.
type Config struct {
	Store Store
	// ServerID names this running process as the holder of claims; no other process has the same.
	ServerID string
	// Services are the configured ones. "system" is always there and must not be among them.
	Services []Spec

	// ServiceBudget is how long a service may take for a message before the message goes to the backlog; half of it may
	// pass waiting for one of the service's slots. Default 5 s.
	ServiceBudget time.Duration
	// BacklogBudget is how long a service may take for a message of the backlog, for which no client waits. A service that
	// always needs longer never completes a message. Default 30 s; at least ServiceBudget.
	BacklogBudget time.Duration
	// PermanentCodes are the gRPC codes by which a backend refuses a message for good. Nil means INVALID_ARGUMENT. Every
	// other code means "not now": an exception in a backend must not cost a message (G-20).
	PermanentCodes []codes.Code
	// KeepResults stores a result also for messages of clients that a service took. Those of admins always have one.
	KeepResults bool
	// CircuitOpenFor is the pause between two attempts to reach a service that is unavailable. Default 5 s.
	CircuitOpenFor time.Duration

	// BacklogMaxMessages bounds the backlog of all services together; past it Ingest waits for room, which its caller feels
	// as backpressure. Default 1,000,000.
	BacklogMaxMessages uint64
	// RoomWait is how long Ingest waits for room in a full backlog before it gives up. Default 10 s.
	RoomWait time.Duration
	// BacklogMaxAttempts is after how many attempts a message becomes a dead letter. 0 means that it is tried until it is
	// taken; those to "system" end after systemMaxAttempts even so.
	BacklogMaxAttempts int
	// BacklogPoll is the time between two looks into an idle backlog. Default 1 s.
	BacklogPoll time.Duration
	// UnservedAfter is after how long a message of the backlog fails whose service this server does not have and no other
	// works for. Default 1 h.
	UnservedAfter time.Duration

	// MetricLabels are the client labels ("label", or "service:label") that may appear in metrics. Others do not appear.
	MetricLabels []string
	// Registerer takes the metrics; nil means none.
	Registerer prometheus.Registerer

	Hooks Hooks
}
