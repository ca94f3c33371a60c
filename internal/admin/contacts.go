package admin

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
	serverpb "github.com/farspeak/farspeak/proto/fleetspeak/server"
)

// ListClientContacts returns the recorded contacts of one client; none when it is not known.
func (s *service) ListClientContacts(ctx context.Context, request *serverpb.ListClientContactsRequest) (*serverpb.ListClientContactsResponse, error) {
	id, err := clientID(request.GetClientId())
	if err != nil {
		return nil, err
	}
	if err := s.enterBulk(ctx); err != nil {
		return nil, err
	}
	answer := &serverpb.ListClientContactsResponse{}
	room := room{s.cfg.MaxReplyBytes}
	err = s.eachContact(ctx, id, func(c *serverpb.ClientContact) error {
		answer.Contacts = append(answer.Contacts, c)
		return room.take(c)
	})
	if err != nil {
		return nil, err
	}
	return answer, nil
}

// StreamClientContacts returns them one by one, with no transaction open meanwhile (G-21).
func (s *service) StreamClientContacts(request *serverpb.StreamClientContactsRequest, stream grpc.ServerStreamingServer[serverpb.StreamClientContactsResponse]) error {
	id, err := clientID(request.GetClientId())
	if err != nil {
		return err
	}
	return s.eachContact(stream.Context(), id, func(c *serverpb.ClientContact) error {
		return stream.Send(&serverpb.StreamClientContactsResponse{Contact: c})
	})
}

// eachContact visits the contacts of a client, which differ in their times.
func (s *service) eachContact(ctx context.Context, id identity.ClientID, visit func(*serverpb.ClientContact) error) error {
	var after time.Time
	for !id.IsNil() {
		page, err := s.store.ListContacts(ctx, id, after, pageSize)
		if err != nil {
			return err
		}
		for _, c := range page {
			if err := visit(contactProto(c)); err != nil {
				return err
			}
		}
		if len(page) < pageSize {
			return nil
		}
		after = page[len(page)-1].Time
	}
	return nil
}

func contactProto(c store.Contact) *serverpb.ClientContact {
	return &serverpb.ClientContact{
		SentNonce:       c.SentNonce,
		ReceivedNonce:   c.ReceivedNonce,
		ObservedAddress: c.Address,
		Timestamp:       timestamppb.New(c.Time),
	}
}
