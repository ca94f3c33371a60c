package admin

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/farspeak/farspeak/internal/batch"
	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// maxClientMessage is what agents take, in serialized bytes.
const maxClientMessage = 2 << 20

// Bounds of the insert batchers. A queue has room for all calls that admission lets in, so nobody waits for room. A second
// worker would take half of what waits into statements and a commit of its own, so it helps only while a run takes long.
const (
	insertBatch      = 256
	insertBatchBytes = 8 << 20
	insertWorkers    = 2
	insertPatience   = 100 * time.Millisecond
)

// insertion is a message on its way into the store. It has an ID and a creation time.
type insertion struct {
	message *fspb.Message
	id      identity.MessageID
	client  identity.ClientID // nil for a message to a service
	size    int
}

// InsertMessage stores a message to a client, or to a server-side service. See the invariants of the package.
func (s *service) InsertMessage(ctx context.Context, m *fspb.Message) (*fspb.EmptyMessage, error) {
	in, err := s.admit(ctx, m)
	if err != nil {
		return nil, err
	}
	if in.client.IsNil() {
		err = s.insertForService(ctx, in)
	} else {
		err = s.insertForClient(ctx, in)
	}
	if err != nil {
		return nil, err
	}
	return &fspb.EmptyMessage{}, nil
}

func (s *service) insertForClient(ctx context.Context, in insertion) error {
	outcome, err := s.inserts.Do(ctx, in)
	switch {
	case err != nil:
		return err
	case errors.Is(outcome.Err, store.ErrUnknownClient):
		return unknownDestination(in.client[:])
	case outcome.Err != nil:
		return outcome.Err
	}
	s.metrics.inserted(destinationClient, outcome.Duplicate)
	return nil
}

func (s *service) insertForService(ctx context.Context, in insertion) error {
	refused, err := s.backlog.Do(ctx, in)
	if err := errors.Join(err, refused); err != nil {
		return err
	}
	s.metrics.inserted(destinationService, false)
	return nil
}

// unknownDestination has the original's text.
func unknownDestination(id []byte) error {
	return fmt.Errorf("expected 1 destination client result, got 0: %w %s", store.ErrUnknownClient, hexID(id))
}

// admit checks a message in the original's order, fills what may be absent, and clears what only servers may say (G-58).
func (s *service) admit(ctx context.Context, m *fspb.Message) (insertion, error) {
	switch {
	case m.GetDestination().GetServiceName() == "":
		return insertion{}, invalid("message must have Destination")
	case m.GetSource().GetServiceName() == "":
		return insertion{}, invalid("message must have Source")
	}
	m.Result = nil
	m.IsBlocklistedSource = false
	if len(m.MessageId) == 0 {
		m.MessageId = identity.NewMessageID().Bytes()
	}
	if m.CreationTime == nil {
		m.CreationTime = timestamppb.Now()
	}
	client, err := destination(m.Destination)
	if err != nil {
		return insertion{}, err
	}
	in := insertion{message: m, client: client, size: proto.Size(m)}
	if in.id, err = storable(in); err != nil {
		return insertion{}, s.unlessUnknown(ctx, client, err)
	}
	return in, nil
}

// destination is the client that a message is for, nil for a message to a service, which has no client ID at all: one of
// zero bytes only names a client that does not exist.
func destination(to *fspb.Address) (identity.ClientID, error) {
	id, err := clientID(to.ClientId)
	if err == nil && id.IsNil() && len(to.ClientId) > 0 {
		err = unknownDestination(to.ClientId)
	}
	return id, err
}

// storable makes the checks that come after the one for the client.
func storable(in insertion) (identity.MessageID, error) {
	if !in.client.IsNil() && in.size > maxClientMessage {
		return identity.MessageID{}, invalid("message of %d bytes exceeds the %d-byte limit", in.size, maxClientMessage)
	}
	id, err := messageID(in.message.MessageId)
	if err != nil {
		return identity.MessageID{}, err
	}
	// Agents take such an ID for none: they would acknowledge nothing, and get the message again and again.
	if id.IsNil() && !in.client.IsNil() {
		return identity.MessageID{}, invalid("message ID of zeros, which stands for none; leave it out to have one drawn")
	}
	created := in.message.CreationTime
	if created.GetSeconds() == 0 {
		return identity.MessageID{}, invalid("creation_time has no seconds")
	}
	if err := created.CheckValid(); err != nil {
		return identity.MessageID{}, invalid("creation_time: %v", err)
	}
	return id, nil
}

// unlessUnknown returns fault, unless the destination is an unknown client: the original looks for the client first. The
// store looks at it anyway for messages that are fine, so that only refused ones cost this query.
func (s *service) unlessUnknown(ctx context.Context, id identity.ClientID, fault error) error {
	if id.IsNil() {
		return fault
	}
	known, err := s.store.GetClients(ctx, []identity.ClientID{id})
	switch {
	case err != nil:
		return err
	case known[id] == nil:
		return unknownDestination(id[:])
	}
	return fault
}

// startBatchers makes the batchers: from here on, close has to be called.
func (s *service) startBatchers() error {
	size := func(in insertion) int { return in.size }
	worthSplitting := func(err error) bool {
		return !errors.Is(err, store.ErrUnavailable) && !errors.Is(err, context.DeadlineExceeded) &&
			!errors.Is(err, context.Canceled)
	}
	var errs [2]error
	s.inserts, errs[0] = batch.New(batch.Config[insertion, store.InsertOutcome]{
		Name: "inserts", Run: s.writeInserts, MaxItems: insertBatch, MaxBytes: insertBatchBytes, Size: size,
		Queue: maxCalls, Workers: insertWorkers, Patience: insertPatience,
		Split: worthSplitting, Registerer: s.cfg.Registerer,
	})
	s.backlog, errs[1] = batch.New(batch.Config[insertion, error]{
		Name: "service_inserts", Run: s.writeBacklog, MaxItems: insertBatch, MaxBytes: insertBatchBytes, Size: size,
		Queue: maxCalls, Workers: insertWorkers, Patience: insertPatience,
		Split: worthSplitting, Registerer: s.cfg.Registerer,
	})
	return errors.Join(errs[:]...)
}

// close commits what the batchers took and ends them.
func (s *service) close(ctx context.Context) error {
	return errors.Join(s.inserts.Close(ctx), s.backlog.Close(ctx))
}

// writeInserts is one run of the batcher for clients: a transaction, then a word to each server concerned.
func (s *service) writeInserts(ctx context.Context, items []insertion) ([]store.InsertOutcome, error) {
	messages := make([]*fspb.Message, len(items))
	for i, in := range items {
		messages[i] = in.message
	}
	outcomes, err := s.store.InsertMessages(ctx, messages)
	if err != nil {
		return nil, err
	}
	s.tellHolders(items, outcomes)
	return outcomes, nil
}

// tellHolders hands over what was inserted to the servers that hold the clients, or hints at it.
func (s *service) tellHolders(items []insertion, outcomes []store.InsertOutcome) {
	handovers := make(map[string][]*store.Handover)
	hints := make(map[string][]identity.ClientID)
	for i, outcome := range outcomes {
		address := outcome.StreamingTo
		switch {
		case outcome.Err != nil || address == "":
		case outcome.Handover != nil:
			handovers[address] = append(handovers[address], outcome.Handover)
		default:
			hints[address] = append(hints[address], items[i].client)
		}
	}
	for address, list := range handovers {
		s.notifier.HandOver(address, list...)
	}
	for address, clients := range hints {
		s.notifier.Notify(address, clients...)
	}
}

// writeBacklog is one run of the batcher for services. Any server takes the messages from the backlog.
func (s *service) writeBacklog(ctx context.Context, items []insertion) ([]error, error) {
	messages := make([]store.BacklogMessage, len(items))
	for i, in := range items {
		messages[i] = store.BacklogMessage{ID: in.id, Service: in.message.Destination.ServiceName, Message: in.message}
	}
	return s.store.AddBacklog(ctx, messages, 0, s.cfg.MaxBacklog)
}
