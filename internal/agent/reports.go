package agent

import (
	"context"
	"crypto/rand"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/farspeak/farspeak/internal/identity"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

const (
	systemService = "system"
	clientService = "client"

	// maxWaitingOutcomes bounds the acks and errors that wait for the next batch; past it services are held back.
	maxWaitingOutcomes = 4096
	// maxAcksPerMessage keeps a MessageAck at about 34 KB.
	maxAcksPerMessage = 1000
	// maxErrorText bounds the text that a failed service may have the server store.
	maxErrorText = 4096
)

// Types of the messages that the agent itself sends.
const (
	typeMessageAck       = "MessageAck"
	typeMessageError     = "MessageError"
	typeClientInfo       = "ClientInfo"
	typeResourceUsage    = "ResourceUsage"
	typeKillNotification = "KillNotification"
)

// reports gathers what the agent has to say for itself until the next batch is put together: outcomes of messages, and the
// description of the client. A lone one thus leaves at once, and under load many share one message.
type reports struct {
	// identity is who the agent is now; info about it travels on its own contacts only (G-53).
	identity func() identity.ClientID
	// info describes the client. Called without the lock.
	info func() *fspb.ClientInfoData
	// wake tells the outbox that something waits. Called without the lock.
	wake func()

	mu      sync.Mutex
	since   time.Time // when the first of what waits came
	acks    [][]byte
	errors  []*fspb.MessageErrorData
	infoDue bool
	room    chan struct{} // closed and replaced when something is collected; nil while nobody waits
}

// ack reports a message as done. It waits for room until ctx ends.
func (r *reports) ack(ctx context.Context, id identity.MessageID) error {
	return r.put(ctx, func() { r.acks = append(r.acks, id.Bytes()) })
}

// fail reports a message as failed. It waits for room until ctx ends.
func (r *reports) fail(ctx context.Context, id identity.MessageID, text string) error {
	data := &fspb.MessageErrorData{MessageId: id.Bytes(), Error: validText(text, maxErrorText)}
	return r.put(ctx, func() { r.errors = append(r.errors, data) })
}

func (r *reports) put(ctx context.Context, add func()) error {
	for {
		room := r.tryPut(add)
		if room == nil {
			r.wake()
			return nil
		}
		select {
		case <-room:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (r *reports) tryPut(add func()) <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.acks)+len(r.errors) >= maxWaitingOutcomes {
		if r.room == nil {
			r.room = make(chan struct{})
		}
		return r.room
	}
	r.startLocked()
	add()
	return nil
}

func (r *reports) startLocked() {
	if r.since.IsZero() {
		r.since = time.Now()
	}
}

// announce has the client described to the server on the next contact of the current identity.
func (r *reports) announce() {
	r.announceQuietly()
	r.wake()
}

// announceQuietly leaves it to something else to wake the outbox.
func (r *reports) announceQuietly() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.startLocked()
	r.infoDue = true
}

// waiting implements reportSource.
func (r *reports) waiting() (int, time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := (len(r.acks)+maxAcksPerMessage-1)/maxAcksPerMessage + len(r.errors)
	if r.infoDue {
		n++
	}
	return n, r.since
}

// collect implements reportSource.
func (r *reports) collect(id identity.ClientID) []*fspb.Message {
	var out []*fspb.Message
	if id == r.identity() && r.takeInfo() {
		out = append(out, systemMessage(id, typeClientInfo, fspb.Message_HIGH, r.info()))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.acks) > 0 {
		n := min(len(r.acks), maxAcksPerMessage)
		data := &fspb.MessageAckData{MessageIds: r.acks[:n:n]}
		out = append(out, systemMessage(id, typeMessageAck, fspb.Message_HIGH, data))
		r.acks = r.acks[n:]
	}
	for _, data := range r.errors {
		out = append(out, systemMessage(id, typeMessageError, fspb.Message_HIGH, data))
	}
	r.acks, r.errors = nil, nil
	if !r.infoDue {
		r.since = time.Time{}
	}
	if r.room != nil {
		close(r.room)
		r.room = nil
	}
	return out
}

func (r *reports) takeInfo() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	due := r.infoDue
	r.infoDue = false
	return due
}

// systemMessage makes a message of the agent to the server's system service.
func systemMessage(from identity.ClientID, kind string, p fspb.Message_Priority, data proto.Message) *fspb.Message {
	m := &fspb.Message{
		Source:          &fspb.Address{ClientId: from.Bytes(), ServiceName: systemService},
		SourceMessageId: newSourceMessageID(),
		Destination:     &fspb.Address{ServiceName: systemService},
		MessageType:     kind,
		Priority:        p,
		Background:      true,
	}
	packed, err := anypb.New(data)
	if err != nil { // only a string that is not UTF-8 can do that, and those are cleaned where they come in
		packed = &anypb.Any{TypeUrl: "type.googleapis.com/" + string(data.ProtoReflect().Descriptor().FullName())}
	}
	m.Data = packed
	return m
}

// sourceMessageIDSize is the length of the IDs that the agent gives to messages without one.
const sourceMessageIDSize = 16

func newSourceMessageID() []byte {
	id := make([]byte, sourceMessageIDSize)
	rand.Read(id)
	return id
}
