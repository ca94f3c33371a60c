package store

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/farspeak/farspeak/internal/identity"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// InsertOutcome answers one message given to InsertMessages.
type InsertOutcome struct {
	// Err is ErrUnknownClient or ErrQueueFull; nil when the message is stored, or was stored before.
	Err error
	// Duplicate says that the ID was known already, pending or completed; the stored message is unchanged.
	Duplicate bool
	// StreamingTo is where the destination client's session is held; empty when nowhere.
	StreamingTo string
	// Handover is set for a small message that is new and whose client has a session.
	Handover *Handover
}

// MaxHandover is the size in bytes of a serialized message up to which it is handed over.
const MaxHandover = 4096

// Handover is a message that was stored just now, with what the server that holds the session of its client has to know to
// push it without reading it first: whether the session is still the same, and whether nothing older waits.
type Handover struct {
	Message *PendingMessage // not handed out yet
	// After is the Seq of the newest other message that was pending for the client; 0 when there was none.
	After int64
	// Contact is when the session began: Client.LastContact as the contact left it.
	Contact time.Time
}

// DueRequest asks for messages of one client that are due.
type DueRequest struct {
	ClientID identity.ClientID
	// Services limits the answer to these destination services; nil means every service. An empty non-nil slice asks for
	// nothing.
	Services []string
	// Limit is the largest number of messages wanted.
	Limit int
}

// DueMessages answers one DueRequest, oldest insertion first.
type DueMessages struct {
	Messages []*PendingMessage
	// More says that further due messages of these services may exist.
	More bool
}

// PendingMessage is a message to a client, as the fetch path needs it: encoded once at insertion and never decoded again on
// its way to the client.
type PendingMessage struct {
	ClientID identity.ClientID
	ID       identity.MessageID
	Seq      int64  // its place in the order of insertion: the larger one of a client is the later one
	Service  string // destination service
	Type     string
	Attempts int
	// Encoded is the complete serialized fleetspeak.Message.
	Encoded []byte
}

// MessageRef names a message of a client.
type MessageRef struct {
	ClientID identity.ClientID
	ID       identity.MessageID
}

// Ack completes one message to a client.
type Ack struct {
	MessageRef        // the client that reports, and the message
	Failed     bool   // MessageError
	Reason     string // when failed
}

// BacklogMessage is a message to a service that waits for a retry.
type BacklogMessage struct {
	ID       identity.MessageID
	Service  string
	Message  *fspb.Message
	Attempts int // handed to the service so far
}

// BacklogOutcome says what became of a claimed backlog message. Just one of Done, RetryIn and Dead applies.
type BacklogOutcome struct {
	Service string
	ID      identity.MessageID
	Done    bool          // the service took it
	Keep    bool          // with Done: store a result that can be asked for
	RetryIn time.Duration // failed for now: due again after this
	Dead    bool          // failed for good: the result is stored and the message kept as a dead letter
	Reason  string        // of RetryIn and Dead
}

// BacklogStatus is the backlog of one service.
type BacklogStatus struct {
	Service string
	Depth   int64
	Bytes   int64
	Oldest  time.Duration // age of the oldest message
}

// DeadLetter is a message that failed for good, kept with its payload for the retention time.
type DeadLetter struct {
	Service  string
	ID       identity.MessageID
	Message  *fspb.Message // without data unless asked for
	Reason   string
	Failed   time.Time
	Attempts int
}

// ServiceResult is the outcome of a client's message to a service, for those that are stored at all.
type ServiceResult struct {
	ID      identity.MessageID
	Message *fspb.Message // of a failed one, becomes a dead letter
	Service string
	Failed  bool
	Reason  string
}

// Broadcast is a broadcast with its limit and how many clients it was sent to.
type Broadcast struct {
	ID             identity.BroadcastID
	Source         string
	Destination    string // client-side service
	Type           string
	RequiredLabels []Label
	Group          string
	Expiration     *timestamppb.Timestamp // nil = never
	Data           []byte                 // serialized google.protobuf.Any; nil when absent
	Limit          uint64                 // UnlimitedBroadcast = no limit
	Sent           uint64
}

// UnlimitedBroadcast is the limit that means none (wire protocol: the largest int64).
const UnlimitedBroadcast = 1<<63 - 1
