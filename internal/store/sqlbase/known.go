package sqlbase

import (
	"context"
	"slices"

	"github.com/farspeak/farspeak/internal/identity"
)

const (
	// pendingIDsAmong reads ranges of by_message.
	pendingIDsAmong = `SELECT message_id FROM client_messages {index by_message} WHERE message_id IN ({list})`

	// completedIDs reads ranges of PRIMARY.
	completedIDs = `SELECT message_id FROM message_results {index PRIMARY} WHERE message_id IN ({list})`
)

// pendingAmong returns the messages among ids that are pending, and completed those that have a result, in order.
func (t session) pendingAmong(ctx context.Context, ids []identity.MessageID) ([]identity.MessageID, error) {
	return t.among(ctx, pendingIDsAmong, ids)
}

func (t session) completed(ctx context.Context, ids []identity.MessageID) ([]identity.MessageID, error) {
	return t.among(ctx, completedIDs, ids)
}

func (t session) among(ctx context.Context, template string, ids []identity.MessageID) ([]identity.MessageID, error) {
	var all []identity.MessageID
	for chunk := range slices.Chunk(ids, maxList) {
		found, err := t.messageIDs(ctx, t.s.sql(template, len(chunk)), messageArgs(chunk)...)
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	slices.SortFunc(all, compareMessages)
	return all, nil
}

// known returns the messages among ids that are pending or completed.
func (t session) known(ctx context.Context, ids []identity.MessageID) ([]identity.MessageID, error) {
	pending, err := t.pendingAmong(ctx, ids)
	if err != nil {
		return nil, err
	}
	completed, err := t.completed(ctx, ids)
	return append(pending, completed...), err
}

// messageIDs reads a column of message IDs.
func (t session) messageIDs(ctx context.Context, statement string, args ...any) (ids []identity.MessageID, err error) {
	err = t.query(ctx, statement, args, func(r row) error {
		var id identity.MessageID
		err := r.Scan(fixed(id[:]))
		ids = append(ids, id)
		return err
	})
	return ids, err
}

// clientIDs reads a column of client IDs.
func (t session) clientIDs(ctx context.Context, statement string, args ...any) (ids []identity.ClientID, err error) {
	err = t.query(ctx, statement, args, func(r row) error {
		var id identity.ClientID
		err := r.Scan(fixed(id[:]))
		ids = append(ids, id)
		return err
	})
	return ids, err
}
