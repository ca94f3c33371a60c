package server

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/services"
	"github.com/farspeak/farspeak/internal/store"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// sender is what ingest has to know of the client whose record it takes.
type sender struct {
	id          identity.ClientID
	labels      []store.Label
	blacklisted bool
}

// ingest hands the messages of one record to their services. On nil the record may be acknowledged.
func (s *Server) ingest(ctx context.Context, from sender, rec record) error {
	messages := s.admit(from.id, rec.data.Messages, rec.validity)
	if len(messages) == 0 {
		return nil
	}
	return s.cfg.Services.Ingest(ctx, services.Batch{
		ClientID:       from.id,
		Blacklisted:    from.blacklisted,
		ClientLabels:   from.labels,
		ValidationInfo: rec.validity,
		Messages:       messages,
	})
}

// admit keeps the messages that can be routed and fills what only the server may say. The others are counted and dropped,
// as the wire protocol wants it: nothing of them could be delivered or answered.
func (s *Server) admit(id identity.ClientID, messages []*fspb.Message, validity *fspb.ValidationInfo) []*fspb.Message {
	now := timestamppb.New(time.Now())
	admitted := messages[:0]
	for _, m := range messages {
		if fault := unroutable(m); fault != "" {
			s.metrics.invalid.WithLabelValues(fault).Inc()
			s.metrics.complain("client %s: message dropped: %s", id, fault)
			continue
		}
		own(m, id, validity, now)
		admitted = append(admitted, m)
	}
	return admitted
}

// unroutable names what a message of a client lacks; empty when it lacks nothing.
func unroutable(m *fspb.Message) string {
	switch {
	case m.GetDestination() == nil:
		return "no destination"
	case len(m.Destination.ClientId) != 0:
		return "destination is a client"
	case m.Destination.ServiceName == "":
		return "no destination service"
	case m.GetSource().GetServiceName() == "":
		return "no source service"
	case len(m.SourceMessageId) == 0:
		return "no source_message_id"
	}
	return ""
}

// own overwrites every field that belongs to the server (G-46, G-58).
func own(m *fspb.Message, id identity.ClientID, validity *fspb.ValidationInfo, now *timestamppb.Timestamp) {
	m.Source.ClientId = id.Bytes()
	m.MessageId = identity.MessageIDFor(id, m.Source.ServiceName, m.SourceMessageId).Bytes()
	m.CreationTime = now
	m.ValidationInfo = validity
	m.Result = nil
	m.IsBlocklistedSource = false
}
