package sqlbase

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
)

const (
	// buryBacklog reads ranges of PRIMARY; the first list is a WHEN for each row.
	buryBacklog = `INSERT INTO dead_letters (service, message_id, failed_us, reason, attempts, creation_seconds,
		creation_nanos, size, header, data)
		SELECT service, message_id, {now}, CASE message_id {list} END, attempts, creation_seconds, creation_nanos, size,
		header, data FROM service_backlog {index PRIMARY} WHERE service = ? AND message_id IN ({list})
		{ignore dead_letters.failed_us}`

	insertDead = `INSERT INTO dead_letters (service, message_id, failed_us, reason, attempts, creation_seconds,
		creation_nanos, size, header, data) VALUES {rows} {ignore failed_us}`
	insertDeadRow = `(?, ?, {now}, ?, ?, ?, ?, ?, ?, ?)`

	// listDead reads one range of PRIMARY, in order.
	listDead = `SELECT message_id, failed_us, reason, attempts, header, NULL, 1 FROM dead_letters {index PRIMARY}
		WHERE service = ? AND message_id > ? ORDER BY message_id LIMIT ?`
	listDeadWhole = `SELECT message_id, failed_us, reason, attempts, header, data, data IS NULL FROM dead_letters
		{index PRIMARY} WHERE service = ? AND message_id > ? ORDER BY message_id LIMIT ?`

	// nextDeadService reads one entry of PRIMARY.
	nextDeadService = `SELECT service FROM dead_letters {index PRIMARY} WHERE service > ? ORDER BY service LIMIT 1`

	// lockDead locks rows by ranges of PRIMARY, in its order.
	lockDead = `SELECT message_id FROM dead_letters {index PRIMARY} WHERE service = ? AND message_id IN ({list})
		ORDER BY message_id {lock}`

	// reviveDead reads ranges of PRIMARY.
	reviveDead = `INSERT INTO service_backlog (service, message_id, due_us, attempts, created_us, creation_seconds,
		creation_nanos, size, header, data)
		SELECT service, message_id, {now}, 0, {now}, creation_seconds, creation_nanos, size, header, data
		FROM dead_letters {index PRIMARY} WHERE service = ? AND message_id IN ({list})
		{ignore service_backlog.attempts}`

	// deleteResults and deleteDead look up rows in PRIMARY.
	deleteResults = `{delete message_results PRIMARY message_id}`
	deleteDead    = `{delete dead_letters PRIMARY message_id} AND service = ?`
)

// bury copies rows of the backlog to the dead letters.
func (t session) bury(ctx context.Context, service string, ids []identity.MessageID,
	outcomes map[backlogKey]store.BacklogOutcome) error {
	if len(ids) == 0 {
		return nil
	}
	var args []any
	for i := range ids {
		args = append(args, ids[i][:], cut(outcomes[backlogKey{service, ids[i]}].Reason, maxReason))
	}
	args = append(append(args, service), messageArgs(ids)...)
	text := strings.Replace(t.s.sql(buryBacklog), "{list}", strings.Repeat("WHEN ? THEN ? ", len(ids)), 1)
	_, err := t.exec(ctx, strings.Replace(text, "{list}", placeholders(len(ids)), 1), args...)
	return err
}

// RecordServiceResults stores what became of messages from clients, for those that are worth it. The first result of a
// message stays. A failed one that comes with its message is kept as a dead letter too.
func (s *Store) RecordServiceResults(ctx context.Context, results []store.ServiceResult) (err error) {
	defer s.op("RecordServiceResults", &err)()
	if len(results) == 0 {
		return nil
	}
	results = slices.SortedFunc(slices.Values(results), func(a, b store.ServiceResult) int { return compareMessages(a.ID, b.ID) })
	var rows, dead [][]any
	for i := range results {
		r := &results[i]
		reason := ""
		if r.Failed {
			reason = cut(r.Reason, maxReason)
		}
		seconds, nanos := timeArgs(r.Message.GetCreationTime())
		rows = append(rows, []any{r.ID[:], seconds, nanos, r.Failed, reason})
		if !r.Failed || r.Message == nil {
			continue
		}
		p, err := encodeMessage(r.Message)
		if errors.Is(err, store.ErrInvalid) {
			continue // too large for a row: the result says why it failed, and that is all that can be kept
		}
		if err != nil {
			return err
		}
		dead = append(dead, []any{cutName(r.Service), r.ID[:], reason, 1, seconds, nanos, p.size, p.header, p.dataArg()})
	}
	return s.write(ctx, func(t session) error {
		if _, err := t.insert(ctx, insertResults, insertResultRow, rows); err != nil {
			return err
		}
		_, err := t.insert(ctx, insertDead, insertDeadRow, dead)
		return err
	})
}

// ListDeadLetters returns dead letters of a service with IDs after the given one, in order. The data is left out unless
// wanted.
func (s *Store) ListDeadLetters(ctx context.Context, service string, after identity.MessageID, limit int,
	wantData bool) (list []store.DeadLetter, err error) {
	defer s.op("ListDeadLetters", &err)()
	query := listDead
	if wantData {
		query = listDeadWhole
	}
	err = s.read().query(ctx, s.sql(query), []any{service, after[:], limit}, func(r row) error {
		d := store.DeadLetter{Service: service}
		var failed int64
		var err error
		d.Message, err = scanMessage(r, fixed(d.ID[:]), &failed, &d.Reason, &d.Attempts)
		d.Failed = fromMicros(failed)
		list = append(list, d)
		return err
	})
	return list, err
}

// DeadLetterServices returns the services that have dead letters, in order.
func (s *Store) DeadLetterServices(ctx context.Context) (services []string, err error) {
	defer s.op("DeadLetterServices", &err)()
	for service := ""; ; services = append(services, service) {
		err := s.read().one(ctx, s.sql(nextDeadService), []any{service}, &service)
		switch {
		case errors.Is(err, store.ErrNotFound):
			return services, nil
		case err != nil:
			return nil, err
		}
	}
}

// RetryDeadLetters moves dead letters of a service back to the backlog, due now, and returns how many it found. Their
// failed results go.
func (s *Store) RetryDeadLetters(ctx context.Context, service string, ids []identity.MessageID) (n int64, err error) {
	defer s.op("RetryDeadLetters", &err)()
	n, err = s.eachDead(ctx, service, ids, func(t session, found []identity.MessageID) error {
		if _, err := t.exec(ctx, s.sql(reviveDead, len(found)), append([]any{service}, messageArgs(found)...)...); err != nil {
			return err
		}
		if _, err := t.exec(ctx, s.sql(deleteResults, len(found)), messageArgs(found)...); err != nil {
			return err
		}
		return t.deleteDead(ctx, service, found)
	})
	s.backlog.added(n)
	return n, err
}

// DeleteDeadLetters removes dead letters of a service for good and returns how many it found. Their results stay.
func (s *Store) DeleteDeadLetters(ctx context.Context, service string, ids []identity.MessageID) (n int64, err error) {
	defer s.op("DeleteDeadLetters", &err)()
	return s.eachDead(ctx, service, ids, func(t session, found []identity.MessageID) error {
		return t.deleteDead(ctx, service, found)
	})
}

func (t session) deleteDead(ctx context.Context, service string, ids []identity.MessageID) error {
	_, err := t.exec(ctx, t.s.sql(deleteDead, len(ids)), append(messageArgs(ids), service)...)
	return err
}

// eachDead locks dead letters in bounded transactions and calls do for those that exist.
func (s *Store) eachDead(ctx context.Context, service string, ids []identity.MessageID,
	do func(t session, found []identity.MessageID) error) (n int64, err error) {
	for chunk := range slices.Chunk(sortedMessages(slices.Values(ids)), maxList) {
		var found []identity.MessageID
		err := s.write(ctx, func(t session) error {
			var err error
			args := append([]any{service}, messageArgs(chunk)...)
			found, err = t.messageIDs(ctx, s.sql(lockDead, len(chunk)), args...)
			if err != nil || len(found) == 0 {
				return err
			}
			return do(t, found)
		})
		if err != nil {
			return n, err
		}
		n += int64(len(found))
	}
	return n, nil
}
