package sqlbase

import (
	"context"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
)

const (
	// insertResults leaves results alone that exist.
	insertResults = `INSERT INTO message_results (message_id, creation_seconds, creation_nanos, processed_us, failed, reason)
		VALUES {rows} {ignore failed}`
	insertResultRow = `(?, ?, ?, {now}, ?, ?)`

	// messageStatus reads at most a row of each table, by its index on message IDs.
	messageStatus = `SELECT 0, creation_seconds, creation_nanos, 0, 0, '' FROM client_messages WHERE message_id = ?
		UNION ALL SELECT 0, creation_seconds, creation_nanos, 0, 0, '' FROM service_backlog WHERE message_id = ?
		UNION ALL SELECT 1, creation_seconds, creation_nanos, processed_us, failed, reason FROM message_results
		WHERE message_id = ?`
)

// MessageStatus says what became of a message, to a client or to a service (G-28). An unknown one is store.ErrNotFound.
func (s *Store) MessageStatus(ctx context.Context, id identity.MessageID) (_ *store.MessageStatus, err error) {
	defer s.op("MessageStatus", &err)()
	var status *store.MessageStatus
	err = s.read().query(ctx, s.sql(messageStatus), []any{id[:], id[:], id[:]}, func(r row) error {
		var completed bool
		var creation nullTime
		var processed int64
		var result store.Result
		err := r.Scan(&completed, &creation.seconds, &creation.nanos, &processed, &result.Failed, &result.Reason)
		if err != nil || (status != nil && !completed) {
			return err
		}
		status = &store.MessageStatus{Creation: creation.timestamp()}
		if completed {
			result.Processed = fromMicros(processed)
			status.Result = &result
		}
		return nil
	})
	if err == nil && status == nil {
		return nil, store.ErrNotFound
	}
	return status, err
}
