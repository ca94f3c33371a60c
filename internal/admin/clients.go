package admin

import (
	"context"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	serverpb "github.com/farspeak/farspeak/proto/fleetspeak/server"
)

// ListClients returns the clients asked for, or all, with their labels (G-27). It reads page by page and answers with one
// message, because that is what its callers expect; StreamClientIds has no such limit.
func (s *service) ListClients(ctx context.Context, request *serverpb.ListClientsRequest) (*serverpb.ListClientsResponse, error) {
	ids, err := clientIDs(request.GetClientIds())
	if err != nil {
		return nil, err
	}
	everyone := len(request.GetClientIds()) == 0
	if everyone || len(ids) > pageSize {
		if err := s.enterBulk(ctx); err != nil {
			return nil, err
		}
	}
	answer := &serverpb.ListClientsResponse{}
	room := room{s.cfg.MaxReplyBytes}
	add := func(c *store.Client) error {
		converted := clientProto(c)
		answer.Clients = append(answer.Clients, converted)
		return room.take(converted)
	}
	if everyone {
		err = s.eachClient(ctx, add)
	} else {
		err = s.eachOf(ctx, unique(ids), add)
	}
	if err != nil {
		return nil, err
	}
	return answer, nil
}

// eachClient visits all clients.
func (s *service) eachClient(ctx context.Context, visit func(*store.Client) error) error {
	var after identity.ClientID
	for {
		page, err := s.store.ListClients(ctx, after, pageSize)
		if err != nil {
			return err
		}
		for _, c := range page {
			if err := visit(c); err != nil {
				return err
			}
		}
		if len(page) < pageSize {
			return nil
		}
		after = page[len(page)-1].ID
	}
}

// eachOf visits those of the clients that exist.
func (s *service) eachOf(ctx context.Context, ids []identity.ClientID, visit func(*store.Client) error) error {
	for chunk := range slices.Chunk(ids, pageSize) {
		known, err := s.store.GetClients(ctx, chunk)
		if err != nil {
			return err
		}
		for _, id := range chunk {
			if c := known[id]; c != nil {
				if err := visit(c); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func clientProto(c *store.Client) *serverpb.Client {
	return &serverpb.Client{
		ClientId:               c.ID.Bytes(),
		Labels:                 labelProtos(c.Labels),
		LastContactTime:        timestamppb.New(c.LastSeen),
		LastContactAddress:     c.LastContactAddress,
		LastContactStreamingTo: c.StreamingTo,
		LastClock:              c.LastClock,
		Blacklisted:            c.Blacklisted,
	}
}

func labelProtos(labels []store.Label) []*fspb.Label {
	converted := make([]*fspb.Label, len(labels))
	for i, l := range labels {
		converted[i] = &fspb.Label{ServiceName: l.Service, Label: l.Label}
	}
	return converted
}

// StreamClientIds returns the IDs of clients one by one. No transaction is open while the caller reads (G-21).
func (s *service) StreamClientIds(request *serverpb.StreamClientIdsRequest, stream grpc.ServerStreamingServer[serverpb.StreamClientIdsResponse]) error {
	since := time.Unix(0, 0)
	if request.GetLastContactAfter() != nil {
		given, err := timestamp("last_contact_after", request.GetLastContactAfter())
		if err != nil {
			return err
		}
		since = given
	}
	var after identity.ClientID
	for {
		page, err := s.store.ListClientIDs(stream.Context(), after, pageSize, request.GetIncludeBlacklisted(), since)
		if err != nil {
			return err
		}
		for _, id := range page {
			if err := stream.Send(&serverpb.StreamClientIdsResponse{ClientId: id.Bytes()}); err != nil {
				return err
			}
		}
		if len(page) < pageSize {
			return nil
		}
		after = page[len(page)-1]
	}
}

// BlacklistClient refuses an identity from now on. The servers that hold its sessions hear of it at once (G-10). An unknown
// client is not created, and no error.
func (s *service) BlacklistClient(ctx context.Context, request *serverpb.BlacklistClientRequest) (*fspb.EmptyMessage, error) {
	id, err := clientID(request.GetClientId())
	if err != nil {
		return nil, err
	}
	if id.IsNil() {
		return &fspb.EmptyMessage{}, nil
	}
	streamingTo, err := s.store.BlacklistClient(ctx, id)
	if err != nil {
		return nil, err
	}
	// The request to take a new key waits in the client's queue, so that it is found without the hint, too. An unknown
	// client has no queue, which is no error here.
	if _, err := s.store.InsertMessages(ctx, []*fspb.Message{store.RekeyRequest(id)}); err != nil {
		return nil, err
	}
	s.notifyBlacklisted(ctx, id, streamingTo)
	return &fspb.EmptyMessage{}, nil
}

// notifyBlacklisted tells all living servers: the copies of one key may stream to several, and the store knows only where
// the last of them went. That one may be a server of the original, which has no heartbeat.
func (s *service) notifyBlacklisted(ctx context.Context, id identity.ClientID, streamingTo string) {
	s.notifier.NotifyBlacklisted(streamingTo, id)
	for _, address := range s.liveServers(ctx) {
		if address != streamingTo {
			s.notifier.NotifyBlacklisted(address, id)
		}
	}
}
