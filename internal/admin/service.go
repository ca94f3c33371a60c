package admin

import (
	"context"

	"google.golang.org/protobuf/proto"

	"github.com/farspeak/farspeak/internal/batch"
	"github.com/farspeak/farspeak/internal/store"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	serverpb "github.com/farspeak/farspeak/proto/fleetspeak/server"
)

const (
	// pageSize is how many rows one query of a listing returns.
	pageSize = 1000
	// maxBulk bounds the calls at once whose answers may become as large as MaxReplyBytes.
	maxBulk = 4
)

// service implements fleetspeak.server.Admin. Its methods return errors of the store and of this package; the guard turns
// them into codes.
type service struct {
	serverpb.UnimplementedAdminServer

	cfg      Config
	store    Store
	notifier Notifier
	metrics  *metrics
	bulk     chan struct{} // holds an element for each bulk call

	inserts *batch.Batcher[insertion, store.InsertOutcome]
	backlog *batch.Batcher[insertion, error]
}

func newService(cfg Config, metrics *metrics) (*service, error) {
	s := &service{
		cfg: cfg, store: cfg.Store, notifier: cfg.Notifier, metrics: metrics,
		bulk: make(chan struct{}, maxBulk),
	}
	return s, s.startBatchers()
}

// KeepAlive answers without touching anything that can be slow: callers give it a second.
func (s *service) KeepAlive(context.Context, *fspb.EmptyMessage) (*fspb.EmptyMessage, error) {
	return &fspb.EmptyMessage{}, nil
}

// enterBulk waits until a large answer may be made. The place is given up at the end of the call, when the answer has been
// serialized and handed to the connection: until then it is in memory, most of the time twice.
func (s *service) enterBulk(ctx context.Context) error {
	select {
	case s.bulk <- struct{}{}:
		leave := func() { <-s.bulk }
		if c := callOf(ctx); c != nil {
			c.leaveBulk = leave
		} else {
			context.AfterFunc(ctx, leave)
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// room counts what goes into a reply against its limit.
type room struct{ left int }

// fieldOverhead is the tag and the length of an element of a repeated field.
const fieldOverhead = 6

// take says that an element goes in, or that the reply gets too large.
func (r *room) take(m proto.Message) error {
	r.left -= proto.Size(m) + fieldOverhead
	if r.left < 0 {
		return errReplyTooLarge
	}
	return nil
}
