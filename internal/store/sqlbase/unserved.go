package sqlbase

import (
	"context"
	"errors"
	"time"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
)

const (
	// lastServed reads one range of by_due from its end, and the rows that it names. A server that has the service claims its
	// messages, one now and then at least while the backend is down, which moves their due time ahead.
	lastServed = `SELECT attempts FROM service_backlog {index by_due}
		WHERE service = ? AND due_us > {now} - ? AND attempts > 0 ORDER BY due_us DESC LIMIT 1`

	// longDue reads one range of by_due, in order.
	longDue = `SELECT message_id FROM service_backlog {index by_due} WHERE service = ? AND due_us <= {now} - ?
		ORDER BY due_us LIMIT ?`

	// lockLongDue locks rows by ranges of PRIMARY, in its order. What was claimed meanwhile is not due for long any more.
	lockLongDue = `SELECT message_id, creation_seconds, creation_nanos FROM service_backlog {index PRIMARY}
		WHERE service = ? AND message_id IN ({list}) AND due_us <= {now} - ? ORDER BY message_id {lock}`
)

// FailUnserved fails for good, with a reason, up to limit messages to a service that have been due for longer than an age,
// the oldest first, and returns how many. It fails none while anybody works for the service: when a message to it was
// claimed within that time, or is about to be tried again.
func (s *Store) FailUnserved(ctx context.Context, service string, age time.Duration, reason string,
	limit int) (failed int64, err error) {
	defer s.op("FailUnserved", &err)()
	var attempts int
	err = s.read().one(ctx, s.sql(lastServed), []any{service, age.Microseconds()}, &attempts)
	if !errors.Is(err, store.ErrNotFound) {
		return 0, err // nil too
	}
	var ids []identity.MessageID
	args := []any{service, age.Microseconds(), max(1, min(limit, maxList))}
	err = s.read().query(ctx, s.sql(longDue), args, func(r row) error {
		var id identity.MessageID
		err := r.Scan(fixed(id[:]))
		ids = append(ids, id)
		return err
	})
	if err != nil || len(ids) == 0 {
		return 0, err
	}
	err = s.write(ctx, func(t session) error {
		var err error
		failed, err = t.failLongDue(ctx, service, ids, age, cut(reason, maxReason))
		return err
	})
	if err == nil {
		s.backlog.added(-failed)
	}
	return failed, err
}

// failLongDue makes dead letters of those messages that are still due for longer than an age.
func (t session) failLongDue(ctx context.Context, service string, ids []identity.MessageID, age time.Duration,
	reason string) (int64, error) {
	var results [][]any
	var dead []identity.MessageID
	outcomes := make(map[backlogKey]store.BacklogOutcome)
	args := append(append([]any{service}, messageArgs(ids)...), age.Microseconds())
	err := t.query(ctx, t.s.sql(lockLongDue, len(ids)), args, func(r row) error {
		var id identity.MessageID
		var creation nullTime
		if err := r.Scan(fixed(id[:]), &creation.seconds, &creation.nanos); err != nil {
			return err
		}
		seconds, nanos := timeArgs(creation.timestamp())
		results = append(results, []any{id[:], seconds, nanos, true, reason})
		dead = append(dead, id)
		outcomes[backlogKey{service, id}] = store.BacklogOutcome{Reason: reason}
		return nil
	})
	if err != nil || len(dead) == 0 {
		return 0, err
	}
	if _, err := t.insert(ctx, insertResults, insertResultRow, results); err != nil {
		return 0, err
	}
	if err := t.bury(ctx, service, dead, outcomes); err != nil {
		return 0, err
	}
	return int64(len(dead)), t.deleteBacklog(ctx, keysOf(service, dead))
}
