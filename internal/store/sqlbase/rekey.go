package sqlbase

import (
	"context"
	"maps"
	"slices"

	"github.com/farspeak/farspeak/internal/identity"
)

const (
	// pendingRekeys reads ranges of PRIMARY.
	pendingRekeys = `SELECT client_id, message_id FROM client_messages {index PRIMARY} WHERE client_id IN ({list}) AND kind = ?`

	// dueNow changes rows by ranges of by_message.
	dueNow = `UPDATE client_messages {index by_message} SET due_us = ? WHERE message_id IN ({list}) AND due_us > ?`
)

// skipPendingRekeys leaves out requests to rekey for clients that have one pending, or get one here already; they are
// added to duplicates, and the pending ones fall due now. It locks the clients, so that two servers do not both insert.
// Batches without such a request cost nothing.
func (t session) skipPendingRekeys(ctx context.Context, rows []*pending,
	duplicates map[identity.MessageID]bool, now int64) ([]*pending, error) {
	has := make(map[identity.ClientID]bool)
	for _, p := range rows {
		if p.kind == kindRekey {
			has[p.client] = false
		}
	}
	if len(has) == 0 {
		return rows, nil
	}
	if err := t.findRekeys(ctx, has, now); err != nil {
		return nil, err
	}
	var kept []*pending
	for _, p := range rows {
		if p.kind == kindRekey {
			if has[p.client] {
				duplicates[p.id] = true
				continue
			}
			has[p.client] = true
		}
		kept = append(kept, p)
	}
	return kept, nil
}

// findRekeys says in has which clients have a request pending, and makes those due.
func (t session) findRekeys(ctx context.Context, has map[identity.ClientID]bool, now int64) error {
	for chunk := range slices.Chunk(sortedClients(maps.Keys(has)), maxList) {
		args := clientArgs(chunk)
		if _, err := t.clientIDs(ctx, t.s.sql(lockClients, len(chunk)), args...); err != nil {
			return err
		}
		var ids []identity.MessageID
		err := t.query(ctx, t.s.sql(pendingRekeys, len(chunk)), append(args, kindRekey), func(r row) error {
			var client identity.ClientID
			var id identity.MessageID
			err := r.Scan(fixed(client[:]), fixed(id[:]))
			has[client] = true
			ids = append(ids, id)
			return err
		})
		if err != nil || len(ids) == 0 {
			return err
		}
		ids = sortedMessages(slices.Values(ids))
		args = append(append([]any{now}, messageArgs(ids)...), now)
		if _, err := t.exec(ctx, t.s.sql(dueNow, len(ids)), args...); err != nil {
			return err
		}
	}
	return nil
}
