package server

import (
	"context"

	"github.com/farspeak/farspeak/internal/store"
	"github.com/farspeak/farspeak/internal/wire"
)

// pollReply is what a polling client gets.
type pollReply struct {
	server   *Server
	nonce    uint64
	messages []*store.PendingMessage
	body     []byte

	fetched, broadcast int64 // memory that is held for messages of either kind
}

// collect fills the reply: with the rekey request of a blacklisted client, else with what is due within its tokens, and
// broadcasts. Attempts are recorded before the reply leaves, because the next poll may reach another server.
func (r *pollReply) collect(ctx context.Context, client *store.Client, rec record) error {
	s := r.server
	if client.Blacklisted {
		r.messages = []*store.PendingMessage{s.rekeyRequest(ctx, client.ID)}
		r.encode()
		return nil
	}
	due, err := r.due(ctx, client, rec)
	if err != nil {
		return err
	}
	if len(due) > 0 {
		if _, err := s.attempts.Do(ctx, refsOf(due)); err != nil {
			return err
		}
	}
	room := s.cfg.MaxPushBytes
	for _, m := range due {
		room -= len(m.Encoded)
	}
	instances, held := s.broadcasts.collect(ctx, client, room)
	r.messages, r.broadcast = append(due, instances...), held
	r.encode()
	return nil
}

// due reads what is due, up to the client's tokens and one record's size. Without memory for it there is nothing due for
// now.
func (r *pollReply) due(ctx context.Context, client *store.Client, rec record) ([]*store.PendingMessage, error) {
	var tokens wire.Tokens
	tokens.Start(rec.data.AllowedMessages)
	request, ok := dueRequest(client.ID, &tokens)
	if !ok {
		return nil, nil
	}
	found, err := r.server.cfg.Store.DueMessages(ctx, []store.DueRequest{request})
	if err != nil || found[client.ID] == nil {
		return nil, err
	}
	taken, _ := takeTokens(&tokens, found[client.ID].Messages)
	taken = taken[:fitting(taken, r.server.cfg.MaxPushBytes)]
	held := weigh(taken)
	if !r.server.fetchedMemory.tryTake(held) {
		return nil, nil
	}
	r.fetched = held
	return taken, nil
}

func (r *pollReply) encode() { r.body = wire.AppendContactData(nil, r.nonce, encodings(r.messages)) }

// sent notes that the reply was written. A Die is complete with it, and not before: it would be lost with the connection
// otherwise (G-13).
func (r *pollReply) sent() {
	r.server.metrics.sent(r.messages)
	if err := r.server.handedOut(handout{last: handoutOf(r.messages).last}); err != nil {
		r.server.metrics.complain("completing a Die request: %v", err) // it is due again, like any message
	}
}

func (r *pollReply) release() {
	r.server.fetchedMemory.give(r.fetched)
	r.server.broadcasts.memory.give(r.broadcast)
}

func refsOf(messages []*store.PendingMessage) []store.MessageRef {
	refs := make([]store.MessageRef, len(messages))
	for i, m := range messages {
		refs[i] = store.MessageRef{ClientID: m.ClientID, ID: m.ID}
	}
	return refs
}
