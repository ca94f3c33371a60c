package admin

import (
	"context"
	"encoding/base64"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
	controlpb "github.com/farspeak/farspeak/proto/farspeak/control"
)

const (
	defaultLetters = 100
	maxLetters     = 1000
	// letterBatch is how many letters one query returns with their data, or one call changes.
	letterBatch = 16
	// maxLetterBytes ends a page with data early.
	maxLetterBytes = 16 << 20
	changeBatch    = 500
)

// letterCursor is a place in the order of dead letters: by service, then by ID.
type letterCursor struct {
	service string
	after   identity.MessageID
}

// token is the text form of a cursor: the ID, then the service.
func (c letterCursor) token() string {
	return base64.RawURLEncoding.EncodeToString(append(c.after[:], c.service...))
}

func parseLetterCursor(token string) (letterCursor, error) {
	var c letterCursor
	b, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(b) < len(c.after) {
		return c, invalid("page_token is none that was given out")
	}
	c.service = string(b[copy(c.after[:], b):])
	return c, nil
}

// ListDeadLetters returns a page of dead letters, by service and ID.
func (c *control) ListDeadLetters(ctx context.Context, request *controlpb.ListDeadLettersRequest) (*controlpb.ListDeadLettersResponse, error) {
	var from letterCursor
	if token := request.GetPageToken(); token != "" {
		var err error
		if from, err = parseLetterCursor(token); err != nil {
			return nil, err
		}
	}
	services := []string{request.GetService()}
	if request.GetService() == "" {
		var err error
		if services, err = c.store.DeadLetterServices(ctx); err != nil {
			return nil, err
		}
	}
	page := letterPage{size: defaultLetters, data: request.GetWantData()}
	if n := request.GetPageSize(); n > 0 {
		page.size = int(min(n, maxLetters))
	}
	for _, service := range services {
		if service < from.service {
			continue
		}
		at := letterCursor{service: service}
		if service == from.service {
			at = from
		}
		if err := page.fill(ctx, c.store, at); err != nil {
			return nil, err
		}
		if page.full() {
			break
		}
	}
	return page.answer(), nil
}

// letterPage collects dead letters up to a number, and with data up to a size.
type letterPage struct {
	size  int
	data  bool
	bytes int
	found []*controlpb.DeadLetter
	last  letterCursor
}

func (p *letterPage) full() bool { return len(p.found) >= p.size || p.bytes >= maxLetterBytes }

// fill adds letters of one service.
func (p *letterPage) fill(ctx context.Context, from backlogStore, at letterCursor) error {
	for !p.full() {
		want := p.size - len(p.found)
		if p.data {
			want = min(want, letterBatch)
		}
		letters, err := from.ListDeadLetters(ctx, at.service, at.after, want, p.data)
		if err != nil {
			return err
		}
		for i := range letters {
			p.found = append(p.found, letterProto(&letters[i]))
			p.bytes += proto.Size(letters[i].Message)
			at.after = letters[i].ID
			p.last = at
		}
		if len(letters) < want {
			return nil
		}
	}
	return nil
}

func (p *letterPage) answer() *controlpb.ListDeadLettersResponse {
	answer := &controlpb.ListDeadLettersResponse{DeadLetters: p.found}
	if p.full() {
		answer.NextPageToken = p.last.token()
	}
	return answer
}

func letterProto(d *store.DeadLetter) *controlpb.DeadLetter {
	return &controlpb.DeadLetter{
		Service:    d.Service,
		Message:    d.Message,
		Reason:     d.Reason,
		FailedTime: timestamppb.New(d.Failed),
		Attempts:   uint32Of(d.Attempts),
	}
}

// RetryDeadLetters gives dead letters to their service again, through the backlog.
func (c *control) RetryDeadLetters(ctx context.Context, request *controlpb.RetryDeadLettersRequest) (*controlpb.RetryDeadLettersResponse, error) {
	count, err := c.changeLetters(ctx, request.GetService(), request.GetMessageIds(), c.store.RetryDeadLetters)
	if err != nil {
		return nil, err
	}
	return &controlpb.RetryDeadLettersResponse{Count: count}, nil
}

// DeleteDeadLetters discards dead letters with their payloads.
func (c *control) DeleteDeadLetters(ctx context.Context, request *controlpb.DeleteDeadLettersRequest) (*controlpb.DeleteDeadLettersResponse, error) {
	count, err := c.changeLetters(ctx, request.GetService(), request.GetMessageIds(), c.store.DeleteDeadLetters)
	if err != nil {
		return nil, err
	}
	return &controlpb.DeleteDeadLettersResponse{Count: count}, nil
}

// changeLetters calls change for the letters named, or for all of the service, in bounded transactions. After an error,
// some are done; calling again goes on.
func (c *control) changeLetters(ctx context.Context, service string, raw [][]byte,
	change func(context.Context, string, []identity.MessageID) (int64, error)) (count uint64, err error) {
	if service == "" {
		return 0, invalid("service must be set")
	}
	ids, err := parseAll(raw, identity.MessageIDFromBytes)
	if err != nil {
		return 0, err
	}
	if len(raw) > 0 {
		for chunk := range slices.Chunk(ids, changeBatch) {
			n, err := change(ctx, service, chunk)
			if err != nil {
				return count, err
			}
			count += uint64(n)
		}
		return count, nil
	}
	for after := (identity.MessageID{}); ; {
		letters, err := c.store.ListDeadLetters(ctx, service, after, changeBatch, false)
		if err != nil || len(letters) == 0 {
			return count, err
		}
		chunk := make([]identity.MessageID, len(letters))
		for i := range letters {
			chunk[i] = letters[i].ID
		}
		n, err := change(ctx, service, chunk)
		if err != nil {
			return count, err
		}
		count += uint64(n)
		after = chunk[len(chunk)-1]
	}
}
