package sqlbase

import (
	"context"
	"database/sql"
	"maps"
	"slices"
	"time"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
)

const (
	// recordAttempts changes rows by ranges of by_message.
	recordAttempts = `UPDATE client_messages {index by_message} SET attempts = attempts + 1, due_us = {now} + ?
		WHERE message_id IN ({list})`

	// returnMessages does so, too. Its first assignment sees the attempts as they were.
	returnMessages = `UPDATE client_messages {index by_message}
		SET due_us = CASE WHEN attempts = 0 THEN due_us ELSE {now} + ? END, attempts = attempts + 1
		WHERE message_id IN ({list})`

	// undoAttempts changes rows by ranges of by_message.
	undoAttempts = `UPDATE client_messages {index by_message} SET attempts = 0, due_us = {now}
		WHERE message_id IN ({list}) AND attempts = 1`

	// dueClients reads one range of by_due, in order.
	dueClients = `SELECT due_us, client_id FROM client_messages {index by_due} WHERE due_us > ? AND due_us <= ?
		ORDER BY due_us, client_id LIMIT ?`

	// dueClientsAt reads one range of by_due.
	dueClientsAt = `SELECT DISTINCT client_id FROM client_messages {index by_due} WHERE due_us = ?`

	// countPending and oldestDue read by_due alone.
	countPending = `SELECT COUNT(*) FROM (SELECT 1 FROM client_messages {index by_due} LIMIT ?) AS counted`
	oldestDue    = `SELECT MIN(due_us), {now} FROM client_messages`

	// maxCounted bounds what PendingStats counts.
	maxCounted = 100_000
)

// RecordAttempts says that messages were handed out: they fall due again after a time, unless they are acknowledged.
func (s *Store) RecordAttempts(ctx context.Context, refs []store.MessageRef, redeliverAfter time.Duration) (err error) {
	defer s.op("RecordAttempts", &err)()
	return s.handedOut(ctx, recordAttempts, refs, redeliverAfter)
}

// ReturnMessages says that messages were handed out to sessions which ended without an acknowledgement. Those that were
// handed out for the first time stay due, for the next session of their client, whether it has begun or not; the others
// fall due again after a time.
func (s *Store) ReturnMessages(ctx context.Context, refs []store.MessageRef, redeliverAfter time.Duration) (err error) {
	defer s.op("ReturnMessages", &err)()
	return s.handedOut(ctx, returnMessages, refs, redeliverAfter)
}

// UndoAttempts says that messages which counted as handed out once, since they were made, were not: they are due.
func (s *Store) UndoAttempts(ctx context.Context, refs []store.MessageRef) (err error) {
	defer s.op("UndoAttempts", &err)()
	return s.changeMessages(ctx, undoAttempts, refs)
}

// handedOut counts an attempt for each message, by recordAttempts or returnMessages.
func (s *Store) handedOut(ctx context.Context, template string, refs []store.MessageRef, redeliverAfter time.Duration) error {
	return s.changeMessages(ctx, template, refs, redeliverAfter.Microseconds())
}

// changeMessages changes messages by a statement with some arguments and a list of IDs.
func (s *Store) changeMessages(ctx context.Context, template string, refs []store.MessageRef, before ...any) error {
	ids := make([]identity.MessageID, len(refs))
	for i, ref := range refs {
		ids[i] = ref.ID
	}
	ids = sortedMessages(slices.Values(ids))
	record := func(t session) error {
		for chunk := range slices.Chunk(ids, maxList) {
			args := slices.Concat(before, messageArgs(chunk))
			if _, err := t.exec(ctx, s.sql(template, len(chunk)), args...); err != nil {
				return err
			}
		}
		return nil
	}
	if len(ids) > maxList {
		return s.write(ctx, record)
	}
	return s.writeAlone(ctx, record)
}

// DueClients returns clients with messages that fell due later than a time of the store's clock in microseconds, each once,
// and the time up to which it looked: the next call starts there, less an overlap for inserts that were not committed yet.
// It looks at about limit messages.
func (s *Store) DueClients(ctx context.Context, after int64, limit int) (ids []identity.ClientID, upTo int64, err error) {
	defer s.op("DueClients", &err)()
	limit = max(limit, 1)
	t := s.read()
	upTo, err = t.now(ctx)
	if err != nil {
		return nil, 0, err
	}
	seen := make(map[identity.ClientID]bool)
	rows, last := 0, int64(0)
	err = t.query(ctx, s.sql(dueClients), []any{after, upTo, limit}, func(r row) error {
		var id identity.ClientID
		err := r.Scan(&last, fixed(id[:]))
		seen[id] = true
		rows++
		return err
	})
	if err != nil {
		return nil, 0, err
	}
	if rows == limit {
		// Messages that fell due in the same microsecond as the last, such as those of one batch, must not be passed over.
		upTo = last
		tied, err := t.clientIDs(ctx, s.sql(dueClientsAt), last)
		if err != nil {
			return nil, 0, err
		}
		for _, id := range tied {
			seen[id] = true
		}
	}
	return sortedClients(maps.Keys(seen)), upTo, nil
}

// PendingStats returns how many messages to clients are pending, counted to maxCounted and not beyond, and for how long
// the oldest of them has been due.
func (s *Store) PendingStats(ctx context.Context) (depth int64, oldest time.Duration, err error) {
	defer s.op("PendingStats", &err)()
	t := s.read()
	if err := t.one(ctx, s.sql(countPending), []any{maxCounted}, &depth); err != nil {
		return 0, 0, err
	}
	var due sql.NullInt64
	var now int64
	if err := t.one(ctx, s.sql(oldestDue), nil, &due, &now); err != nil {
		return 0, 0, err
	}
	if due.Valid && due.Int64 < now {
		oldest = time.Duration(now-due.Int64) * time.Microsecond
	}
	return depth, oldest, nil
}
