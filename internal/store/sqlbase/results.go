package sqlbase

import (
	"context"
	"fmt"
	"slices"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
)

const (
	// lockMessages locks rows by ranges of by_message, in its order.
	lockMessages = `SELECT message_id, client_id, kind, creation_seconds, creation_nanos
		FROM client_messages {index by_message} WHERE message_id IN ({list}) ORDER BY message_id {lock}`

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

// outcome is what became of a message.
type outcome struct {
	id      identity.MessageID
	client  identity.ClientID // who says so
	failed  bool
	reason  string
	foreign bool // set by complete: the message is another client's
}

// AckMessages completes messages to clients. IDs that are unknown or completed are ignored, so that one of them does not
// hold up the others (G-19), and the first result stays. A pending message of another client is store.ErrNotFound for its
// element, except a RekeyRequest: the client has another ID by the time it acknowledges that.
func (s *Store) AckMessages(ctx context.Context, acks []store.Ack) (_ []error, err error) {
	defer s.op("AckMessages", &err)()
	outcomes := make([]*outcome, len(acks))
	for i, a := range acks {
		outcomes[i] = &outcome{id: a.ID, client: a.ClientID, failed: a.Failed}
		if a.Failed {
			outcomes[i].reason = cut(a.Reason, maxReason)
		}
	}
	if err := s.completeInChunks(ctx, outcomes); err != nil {
		return nil, err
	}
	errs := make([]error, len(acks))
	for i, o := range outcomes {
		if o.foreign {
			errs[i] = fmt.Errorf("%w: message of another client", store.ErrNotFound)
		}
	}
	return errs, nil
}

// CompleteMessages completes messages that ask for no acknowledgement, with success.
func (s *Store) CompleteMessages(ctx context.Context, refs []store.MessageRef) (err error) {
	defer s.op("CompleteMessages", &err)()
	outcomes := make([]*outcome, len(refs))
	for i, ref := range refs {
		outcomes[i] = &outcome{id: ref.ID, client: ref.ClientID}
	}
	return s.completeInChunks(ctx, outcomes)
}

func (s *Store) completeInChunks(ctx context.Context, outcomes []*outcome) error {
	if len(outcomes) == 0 {
		return nil
	}
	return s.write(ctx, func(t session) error {
		for chunk := range slices.Chunk(outcomes, maxList) {
			if err := t.complete(ctx, chunk); err != nil {
				return err
			}
		}
		return nil
	})
}

// complete stores the results of messages to clients that are pending, and deletes those.
func (t session) complete(ctx context.Context, outcomes []*outcome) error {
	byID := make(map[identity.MessageID][]*outcome, len(outcomes))
	ids := make([]identity.MessageID, len(outcomes))
	for i, o := range outcomes {
		ids[i] = o.id
		o.foreign = false
		byID[o.id] = append(byID[o.id], o)
	}
	ids = sortedMessages(slices.Values(ids))
	var rows [][]any
	var done []identity.MessageID
	err := t.query(ctx, t.s.sql(lockMessages, len(ids)), messageArgs(ids), func(r row) error {
		m, err := scanLocked(r)
		if err != nil {
			return err
		}
		if o := m.settle(byID[m.id]); o != nil {
			seconds, nanos := timeArgs(m.creation.timestamp())
			rows = append(rows, []any{m.id[:], seconds, nanos, o.failed, o.reason})
			done = append(done, m.id)
		}
		return nil
	})
	if err != nil || len(done) == 0 {
		return err
	}
	if _, err := t.insert(ctx, insertResults, insertResultRow, rows); err != nil {
		return err
	}
	_, err = t.exec(ctx, t.s.sql(deleteMessages, len(done)), messageArgs(done)...)
	return err
}

// locked is a pending message as far as completing it needs.
type locked struct {
	id       identity.MessageID
	client   identity.ClientID
	kind     int
	creation nullTime
}

func scanLocked(r row) (*locked, error) {
	m := &locked{}
	return m, r.Scan(fixed(m.id[:]), fixed(m.client[:]), &m.kind, &m.creation.seconds, &m.creation.nanos)
}

// settle returns the first outcome that may complete the message, and marks those that may not.
func (m *locked) settle(outcomes []*outcome) (first *outcome) {
	for _, o := range outcomes {
		o.foreign = o.client != m.client && m.kind != kindRekey
		if !o.foreign && first == nil {
			first = o
		}
	}
	return first
}

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
