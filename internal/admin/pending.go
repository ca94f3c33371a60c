package admin

import (
	"context"
	"slices"

	"github.com/farspeak/farspeak/internal/identity"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// Bounds of what a pendingPager has in memory beside its answer.
const (
	// pendingIDs are listed at once. Each list looks at all that waits for the clients, so it is long: 2 MiB.
	pendingIDs = 1 << 16
	// Messages in one query. With data, a page of the largest messages is 256 MiB.
	pendingPage     = 4000
	pendingPageData = 128
)

// pendingPager collects pending messages in the order of their IDs. It lists IDs, then reads the messages in pages; the next
// list begins after the last ID of the one before. So messages that are completed meanwhile shift nothing: each that stays
// pending is in the answer, once.
type pendingPager struct {
	store   messageStore
	clients []identity.ClientID
	skip    uint64 // IDs to leave out, yet
	limit   uint64 // 0: none
	data    bool
	room    room

	found []*fspb.Message
}

func (p *pendingPager) all(ctx context.Context) ([]*fspb.Message, error) {
	var after *identity.MessageID
	for !p.full() {
		size := p.listSize()
		ids, err := p.store.PendingIDs(ctx, p.clients, after, size)
		if err != nil {
			return nil, err
		}
		skipped := min(p.skip, uint64(len(ids)))
		p.skip -= skipped
		if err := p.read(ctx, ids[skipped:]); err != nil {
			return nil, err
		}
		if len(ids) < size {
			break
		}
		after = &ids[len(ids)-1]
	}
	return p.found, nil
}

// listSize is how many IDs are worth listing.
func (p *pendingPager) listSize() int {
	if p.limit == 0 {
		return pendingIDs
	}
	wanted := p.limit - uint64(len(p.found))
	return int(min(pendingIDs, min(pendingIDs, p.skip)+min(pendingIDs, wanted))) // a sum of the two could overflow
}

// read takes the messages of these IDs that are still pending, until the answer is full.
func (p *pendingPager) read(ctx context.Context, ids []identity.MessageID) error {
	size := pendingPage
	if p.data {
		size = pendingPageData
	}
	for page := range slices.Chunk(ids, size) {
		if p.limit > 0 {
			page = page[:min(uint64(len(page)), p.limit-uint64(len(p.found)))]
		}
		messages, err := p.store.PendingMessages(ctx, page, p.data)
		if err != nil {
			return err
		}
		for _, m := range messages {
			if err := p.room.take(m); err != nil {
				return err
			}
		}
		p.found = append(p.found, messages...)
		if p.full() {
			return nil
		}
	}
	return nil
}

func (p *pendingPager) full() bool { return p.limit > 0 && uint64(len(p.found)) >= p.limit }
