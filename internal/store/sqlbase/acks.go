package sqlbase

import (
	"context"
	"fmt"
	"slices"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
)

const (
	// succeed looks up rows in by_message and locks them, in the order of the list. It leaves results alone that exist.
	succeed = `INSERT INTO message_results (message_id, creation_seconds, creation_nanos, processed_us, failed, reason)
		SELECT m.message_id, m.creation_seconds, m.creation_nanos, {now}, 0, '' FROM ({pairs id client}) AS acked
		{then} client_messages AS m {index by_message} ON m.message_id = acked.id WHERE m.client_id = acked.client
		{lock} {ignore failed}`

	// lockMessages locks rows by ranges of by_message, in its order.
	lockMessages = `SELECT message_id, client_id, kind, creation_seconds, creation_nanos
		FROM client_messages {index by_message} WHERE message_id IN ({list}) ORDER BY message_id {lock}`
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
	if done, err := t.succeed(ctx, ids, byID); done || err != nil {
		return err
	}
	return t.settle(ctx, ids, byID)
}

// succeed completes messages without a look at them when all are reported successful by their own clients, and are
// pending: nearly always. Otherwise it is not done; whatever it stored then is what settle would.
func (t session) succeed(ctx context.Context, ids []identity.MessageID,
	outcomes map[identity.MessageID][]*outcome) (done bool, err error) {
	args := make([]any, 0, 2*len(ids))
	for i, id := range ids {
		first := outcomes[id][0]
		for _, o := range outcomes[id] {
			if o.failed || o.client != first.client {
				return false, nil
			}
		}
		args = append(args, ids[i][:], first.client[:])
	}
	stored, err := t.exec(ctx, t.s.sql(succeed, len(ids)), args...)
	if err != nil || stored < int64(len(ids)) {
		return false, err
	}
	_, err = t.exec(ctx, t.s.sql(deleteMessages, len(ids)), messageArgs(ids)...)
	return true, err
}

// settle completes messages that need a look: which of them are pending, and whose they are.
func (t session) settle(ctx context.Context, ids []identity.MessageID, outcomes map[identity.MessageID][]*outcome) error {
	var rows [][]any
	var done []identity.MessageID
	err := t.query(ctx, t.s.sql(lockMessages, len(ids)), messageArgs(ids), func(r row) error {
		m, err := scanLocked(r)
		if err != nil {
			return err
		}
		if o := m.choose(outcomes[m.id]); o != nil {
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

// choose returns the first outcome that may complete the message, and marks those that may not.
func (m *locked) choose(outcomes []*outcome) (first *outcome) {
	for _, o := range outcomes {
		o.foreign = o.client != m.client && m.kind != kindRekey
		if !o.foreign && first == nil {
			first = o
		}
	}
	return first
}
