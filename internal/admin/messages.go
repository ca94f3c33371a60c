package admin

import (
	"bytes"
	"context"
	"errors"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/farspeak/farspeak/internal/identity"
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
		store: s.store, ids: unique(ids), first: request.GetOffset(), limit: request.GetLimit(),
		data: request.GetWantData(), room: room{s.cfg.MaxReplyBytes},
	}
	answer.Messages, err = p.all(ctx)
	if err != nil {
		return nil, err
	}
	return answer, nil
}

// Messages in one query of a pendingPager. With data, a page of the largest messages is 256 MiB.
const (
	pendingPage     = 4000
	pendingPageData = 128
)

// pendingPager collects pending messages in pages, so that no query returns an unbounded number of payloads.
type pendingPager struct {
	store        messageStore
	ids          []identity.ClientID
	first, limit uint64 // as in the request
	data         bool
	room         room

	found []*fspb.Message
}

// all returns the messages first, first+1, … up to limit of them; 0 means no limit.
//
// Offsets shift when messages before them are completed meanwhile. So each page begins with the last message of the one
// before; when that is gone, the page begins earlier. No message that stays pending is left out. A short page does not
// mean the end either: the store leaves out what was completed while it read. The end is where nothing new comes.
func (p *pendingPager) all(ctx context.Context) ([]*fspb.Message, error) {
	size := p.pageSize()
	for offset := p.first; ; {
		page, err := p.store.PendingMessages(ctx, p.ids, offset, size+1, p.data)
		if err != nil {
			return nil, err
		}
		if p.skips(page) && offset > p.first {
			offset -= min(size, offset-p.first)
			continue
		}
		had := len(p.found)
		if err := p.add(page); err != nil {
			return nil, err
		}
		if p.full() || len(p.found) == had && uint64(len(page)) <= size {
			return p.found, nil
		}
		offset += uint64(len(page)) - 1
	}
}

func (p *pendingPager) pageSize() uint64 {
	size := uint64(pendingPage)
	if p.data {
		size = pendingPageData
	}
	if p.limit > 0 {
		size = min(size, p.limit)
	}
	return size
}

// skips says whether a page may begin after a message that was not seen.
func (p *pendingPager) skips(page []*fspb.Message) bool {
	return len(p.found) > 0 && (len(page) == 0 || bytes.Compare(page[0].MessageId, p.last()) > 0)
}

// add takes what is new in a page.
func (p *pendingPager) add(page []*fspb.Message) error {
	for _, m := range page {
		if p.full() {
			return nil
		}
		if len(p.found) > 0 && bytes.Compare(m.MessageId, p.last()) <= 0 {
			continue
		}
		if err := p.room.take(m); err != nil {
			return err
		}
		p.found = append(p.found, m)
	}
	return nil
}

func (p *pendingPager) last() []byte { return p.found[len(p.found)-1].MessageId }

func (p *pendingPager) full() bool { return p.limit > 0 && uint64(len(p.found)) >= p.limit }
