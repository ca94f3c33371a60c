package admin

import (
	"context"
	"errors"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/farspeak/farspeak/internal/store"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	serverpb "github.com/farspeak/farspeak/proto/fleetspeak/server"
)

// removedReason is the result of messages that DeletePendingMessages took away.
const removedReason = "Removed by admin action."

// GetMessageStatus says whether and how a message was completed, failures with their reason (G-28). The answer for an
// unknown message is empty.
func (s *service) GetMessageStatus(ctx context.Context, request *serverpb.GetMessageStatusRequest) (*serverpb.GetMessageStatusResponse, error) {
	id, err := messageID(request.GetMessageId())
	if err != nil {
		return nil, err
	}
	if id.IsNil() {
		return &serverpb.GetMessageStatusResponse{}, nil
	}
	known, err := s.store.MessageStatus(ctx, id)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return &serverpb.GetMessageStatusResponse{}, nil
	case err != nil:
		return nil, err
	}
	answer := &serverpb.GetMessageStatusResponse{CreationTime: known.Creation}
	if r := known.Result; r != nil {
		answer.Result = &fspb.MessageResult{
			ProcessedTime: timestamppb.New(r.Processed),
			Failed:        r.Failed,
			FailedReason:  r.Reason,
		}
	}
	return answer, nil
}

// DeletePendingMessages fails all messages that wait for the clients. Clients that are not known have none.
func (s *service) DeletePendingMessages(ctx context.Context, request *serverpb.DeletePendingMessagesRequest) (*fspb.EmptyMessage, error) {
	ids, err := clientIDs(request.GetClientIds())
	if err != nil {
		return nil, err
	}
	if len(ids) > 0 {
		if _, err := s.store.DeletePending(ctx, unique(ids), removedReason); err != nil {
			return nil, err
		}
	}
	return &fspb.EmptyMessage{}, nil
}

// GetPendingMessageCount counts the messages that wait for the clients.
func (s *service) GetPendingMessageCount(ctx context.Context, request *serverpb.GetPendingMessageCountRequest) (*serverpb.GetPendingMessageCountResponse, error) {
	ids, err := clientIDs(request.GetClientIds())
	if err != nil {
		return nil, err
	}
	answer := &serverpb.GetPendingMessageCountResponse{}
	if len(ids) > 0 {
		if answer.Count, err = s.store.PendingCount(ctx, unique(ids)); err != nil {
			return nil, err
		}
	}
	return answer, nil
}

// GetPendingMessages lists the messages that wait for the clients, those included that were handed out and not yet
// acknowledged, in the order of their IDs over all clients together.
func (s *service) GetPendingMessages(ctx context.Context, request *serverpb.GetPendingMessagesRequest) (*serverpb.GetPendingMessagesResponse, error) {
	ids, err := clientIDs(request.GetClientIds())
	if err != nil {
		return nil, err
	}
	if request.GetOffset() > 0 && request.GetLimit() == 0 {
		return nil, invalid("offset is supported together with limit only")
	}
	answer := &serverpb.GetPendingMessagesResponse{}
	if len(ids) == 0 {
		return answer, nil
	}
	if err := s.enterBulk(ctx); err != nil {
		return nil, err
	}
	p := pendingPager{
		store: s.store, clients: unique(ids), skip: request.GetOffset(), limit: request.GetLimit(),
		data: request.GetWantData(), room: room{s.cfg.MaxReplyBytes},
	}
	answer.Messages, err = p.all(ctx)
	if err != nil {
		return nil, err
	}
	return answer, nil
}
