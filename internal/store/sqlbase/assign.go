package sqlbase

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

const (
	// broadcastRoom reads one row by PRIMARY; lockBroadcast locks it too.
	broadcastRoom = `SELECT message_limit - sent, {now} FROM broadcasts WHERE broadcast_id = ? AND ` + isActive
	lockBroadcast = broadcastRoom + ` {lock}`

	// broadcastSent reads ranges of PRIMARY.
	broadcastSent = `SELECT client_id FROM broadcast_sent {index PRIMARY} WHERE client_id IN ({list}) AND broadcast_id = ?`

	insertSent    = `INSERT INTO broadcast_sent (client_id, broadcast_id) VALUES {rows}`
	insertSentRow = `(?, ?)`

	// addSent changes one row by PRIMARY.
	addSent = `UPDATE broadcasts SET sent = sent + ? WHERE broadcast_id = ?`
)

// AssignBroadcast sends a broadcast to those of clients that have not had it, as far as its limit goes, and returns the
// messages, in the order of clients. They count as handed out once and fall due again after redeliverAfter. The limit is
// exact over all servers: what is reserved is what is sent, in the one transaction that makes the messages (G-34, G-60).
//
// instance makes the message for a client. It is called before the transaction, perhaps for clients that then get none.
// store.ErrNotFound says that the broadcast is gone or not active.
func (s *Store) AssignBroadcast(ctx context.Context, id identity.BroadcastID, clients []identity.ClientID,
	instance func(identity.ClientID) *fspb.Message,
	redeliverAfter time.Duration) (assigned []*store.PendingMessage, err error) {
	defer s.op("AssignBroadcast", &err)()
	var room, now int64
	if err := s.read().one(ctx, s.sql(broadcastRoom), []any{id[:]}, &room, &now); err != nil {
		return nil, err
	}
	wanted, err := s.read().withoutBroadcast(ctx, id, firsts(clients))
	if err != nil || len(wanted) == 0 {
		return nil, err
	}
	instances := make(map[identity.ClientID]*pending, len(wanted))
	for _, client := range wanted {
		p, err := newPending(instance(client))
		if err != nil {
			return nil, err
		}
		if p.client != client {
			return nil, fmt.Errorf("%w: message for client %v instead of %v", store.ErrInvalid, p.client, client)
		}
		instances[client] = p
	}
	var sent []*pending
	err = s.write(ctx, func(t session) error {
		var err error
		sent, err = t.assign(ctx, id, wanted, instances, redeliverAfter)
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, p := range sent {
		assigned = append(assigned, p.handedOut())
	}
	return assigned, nil
}

// assign is the transaction of AssignBroadcast. The lock on the broadcast comes first; it is what makes the limit exact.
func (t session) assign(ctx context.Context, id identity.BroadcastID, wanted []identity.ClientID,
	instances map[identity.ClientID]*pending, redeliverAfter time.Duration) ([]*pending, error) {
	var room, now int64
	if err := t.one(ctx, t.s.sql(lockBroadcast), []any{id[:]}, &room, &now); err != nil {
		return nil, err
	}
	wanted, err := t.withoutBroadcast(ctx, id, wanted)
	if err != nil {
		return nil, err
	}
	wanted = wanted[:min(room, int64(len(wanted)))]
	if len(wanted) == 0 {
		return nil, nil
	}
	sent := make([]*pending, len(wanted))
	rows := make([][]any, len(wanted))
	for i := range wanted {
		sent[i] = instances[wanted[i]]
		rows[i] = []any{wanted[i][:], id[:]}
	}
	t.s.sequence.number(sent, now)
	for _, p := range sent {
		p.due, p.attempt = now+redeliverAfter.Microseconds(), 1
	}
	if _, err := t.insert(ctx, insertSent, insertSentRow, rows); err != nil {
		return nil, err
	}
	if _, err := t.insert(ctx, insertMessages, insertMessageRow, pendingRows(sent)); err != nil {
		return nil, err
	}
	_, err = t.exec(ctx, t.s.sql(addSent), len(sent), id[:])
	return sent, err
}

// withoutBroadcast returns the clients that have not had a broadcast, in the order given.
func (t session) withoutBroadcast(ctx context.Context, id identity.BroadcastID,
	clients []identity.ClientID) ([]identity.ClientID, error) {
	had := make(map[identity.ClientID]bool)
	for chunk := range slices.Chunk(sortedClients(slices.Values(clients)), maxList) {
		found, err := t.clientIDs(ctx, t.s.sql(broadcastSent, len(chunk)), append(clientArgs(chunk), id[:])...)
		if err != nil {
			return nil, err
		}
		for _, client := range found {
			had[client] = true
		}
	}
	return slices.DeleteFunc(slices.Clone(clients), func(c identity.ClientID) bool { return had[c] }), nil
}

// firsts drops repeated clients and keeps the order.
func firsts(clients []identity.ClientID) []identity.ClientID {
	seen := make(map[identity.ClientID]bool, len(clients))
	return slices.DeleteFunc(slices.Clone(clients), func(c identity.ClientID) bool {
		if seen[c] {
			return true
		}
		seen[c] = true
		return false
	})
}
