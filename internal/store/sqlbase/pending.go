package sqlbase

import (
	"context"
	"database/sql"
	"slices"

	"github.com/farspeak/farspeak/internal/identity"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

const (
	// pendingIDs reads ranges of PRIMARY. The order of IDs is nobody's index for one client; see PendingIDs.
	pendingIDs = `SELECT message_id FROM client_messages {index PRIMARY} WHERE client_id IN ({list}) AND message_id > ?`

	// pendingHeaders and pendingWhole read ranges of by_message.
	pendingHeaders = `SELECT message_id, header, NULL, 1 FROM client_messages {index by_message} WHERE message_id IN ({list})`
	pendingWhole   = `SELECT message_id, header, data, data IS NULL FROM client_messages {index by_message}
		WHERE message_id IN ({list})`

	// countPendingOf reads ranges of PRIMARY.
	countPendingOf = `SELECT COUNT(*) FROM client_messages {index PRIMARY} WHERE client_id IN ({list})`

	// pendingUpTo reads ranges of PRIMARY.
	pendingUpTo = `SELECT message_id, client_id FROM client_messages {index PRIMARY}
		WHERE client_id IN ({list}) AND seq <= ? LIMIT ?`

	// deleteChunk bounds the messages that one transaction of DeletePending completes.
	deleteChunk = 500
)

// PendingIDs returns the IDs of messages to clients that are not completed, in order over all clients together: those after
// one, or from the first on when after is nil, limit at most. It looks at all that waits for the clients and keeps no more
// than the limit in memory, so callers ask for many IDs at a time.
func (s *Store) PendingIDs(ctx context.Context, clients []identity.ClientID, after *identity.MessageID,
	limit int) (_ []identity.MessageID, err error) {
	defer s.op("PendingIDs", &err)()
	from := []byte{} // before every ID
	if after != nil {
		from = after[:]
	}
	first := smallest{limit: limit}
	for chunk := range slices.Chunk(sortedClients(slices.Values(clients)), maxList) {
		err := s.read().query(ctx, s.sql(pendingIDs, len(chunk)), append(clientArgs(chunk), from), func(r row) error {
			var id identity.MessageID
			err := r.Scan(fixed(id[:]))
			first.add(id)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return first.inOrder(), nil
}

// PendingMessages returns those of the messages to clients that are not completed, in the order of ids. The data is left
// out unless wanted.
func (s *Store) PendingMessages(ctx context.Context, ids []identity.MessageID, wantData bool) (_ []*fspb.Message, err error) {
	defer s.op("PendingMessages", &err)()
	return s.read().messagesByID(ctx, ids, wantData)
}

// messagesByID reads pending messages, in the order of ids; those that were completed meanwhile are left out.
func (t session) messagesByID(ctx context.Context, ids []identity.MessageID, wantData bool) ([]*fspb.Message, error) {
	query := pendingHeaders
	if wantData {
		query = pendingWhole
	}
	var list []*fspb.Message
	for chunk := range slices.Chunk(ids, maxList) {
		found := make(map[identity.MessageID]*fspb.Message, len(chunk))
		err := t.query(ctx, t.s.sql(query, len(chunk)), messageArgs(chunk), func(r row) error {
			var id identity.MessageID
			m, err := scanMessage(r, fixed(id[:]))
			found[id] = m
			return err
		})
		if err != nil {
			return nil, err
		}
		for _, id := range chunk {
			if m := found[id]; m != nil {
				list = append(list, m)
			}
		}
	}
	return list, nil
}

// scanMessage reads a row whose last columns are header, data, and whether the data is absent.
func scanMessage(r row, before ...any) (*fspb.Message, error) {
	var header, data sql.RawBytes
	var absent bool
	if err := r.Scan(append(before, &header, &data, &absent)...); err != nil {
		return nil, err
	}
	if absent {
		return decodeMessage(header, nil)
	}
	return decodeMessage(header, present(data))
}

// PendingCount returns how many messages to clients are not completed.
func (s *Store) PendingCount(ctx context.Context, ids []identity.ClientID) (count uint64, err error) {
	defer s.op("PendingCount", &err)()
	for chunk := range slices.Chunk(sortedClients(slices.Values(ids)), maxList) {
		var n uint64
		if err := s.read().one(ctx, s.sql(countPendingOf, len(chunk)), clientArgs(chunk), &n); err != nil {
			return 0, err
		}
		count += n
	}
	return count, nil
}

// DeletePending fails the messages to clients that are pending now, with a reason, and returns how many it were. It works
// in bounded transactions: after an error some are done, and calling again goes on.
func (s *Store) DeletePending(ctx context.Context, ids []identity.ClientID, reason string) (deleted int64, err error) {
	defer s.op("DeletePending", &err)()
	if len(ids) == 0 {
		return 0, nil
	}
	upTo, err := s.read().now(ctx)
	if err != nil {
		return 0, err
	}
	upTo = max(upTo, s.sequence.newest())
	for chunk := range slices.Chunk(sortedClients(slices.Values(ids)), maxList) {
		for {
			n, err := s.failSome(ctx, chunk, upTo, reason)
			deleted += n
			if err != nil {
				return deleted, err
			}
			if n < deleteChunk {
				break
			}
		}
	}
	return deleted, nil
}

// failSome fails up to deleteChunk messages that were inserted up to a time.
func (s *Store) failSome(ctx context.Context, ids []identity.ClientID, upTo int64, reason string) (int64, error) {
	var outcomes []*outcome
	args := append(clientArgs(ids), upTo, deleteChunk)
	err := s.read().query(ctx, s.sql(pendingUpTo, len(ids)), args, func(r row) error {
		o := &outcome{failed: true, reason: cut(reason, maxReason)}
		err := r.Scan(fixed(o.id[:]), fixed(o.client[:]))
		outcomes = append(outcomes, o)
		return err
	})
	if err != nil {
		return 0, err
	}
	return int64(len(outcomes)), s.completeInChunks(ctx, outcomes)
}

// newest returns the number given last, 0 when none was.
func (q *sequence) newest() int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.last
}
