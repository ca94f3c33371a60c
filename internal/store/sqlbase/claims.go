package sqlbase

import (
	"context"
	"crypto/rand"
	"slices"
	"strings"
	"time"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
)

const (
	// claimCandidates reads one range of by_due, in order.
	claimCandidates = `SELECT service, message_id, size FROM service_backlog {index by_due}
		WHERE service = ? AND due_us <= {now} ORDER BY due_us LIMIT ?`

	// claimBacklog changes rows by ranges of PRIMARY. What another server claimed first is not due any more.
	claimBacklog = `UPDATE service_backlog {index PRIMARY} SET claim_token = ?, claim_owner = ?, attempts = attempts + 1,
		due_us = {now} + ? WHERE service = ? AND message_id IN ({list}) AND due_us <= {now}`

	// claimedBacklog reads ranges of PRIMARY.
	claimedBacklog = `SELECT message_id, attempts, header, data, data IS NULL FROM service_backlog {index PRIMARY}
		WHERE service = ? AND message_id IN ({list}) AND claim_token = ?`

	// lockClaimed locks rows by ranges of PRIMARY, in its order.
	lockClaimed = `SELECT message_id, creation_seconds, creation_nanos FROM service_backlog {index PRIMARY}
		WHERE service = ? AND message_id IN ({list}) AND claim_owner = ? ORDER BY message_id {lock}`

	// retryBacklog changes rows by ranges of PRIMARY. {cases} is a WHEN for each row.
	retryBacklog = `UPDATE service_backlog {index PRIMARY} SET claim_token = NULL, claim_owner = NULL,
		due_us = {now} + CASE message_id {list} END WHERE service = ? AND message_id IN ({list})`

	// releaseBacklog changes rows by a range of by_owner.
	releaseBacklog = `UPDATE service_backlog {index by_owner} SET claim_token = NULL, claim_owner = NULL, due_us = {now}
		WHERE claim_owner = ?`

	// claimTries bounds how often a claim that others were faster at is tried again.
	claimTries = 4
)

// ClaimBacklog returns messages of services that are due, for the owner to work on, about the oldest first and in turn
// over the services. Until the lease ends nobody else gets them; after that they are due again, so that a claim dies with
// its holder. The payload of one call is bounded by Config.MaxFetchBytes. Attempts counts the times that they were
// claimed before.
func (s *Store) ClaimBacklog(ctx context.Context, owner string, services []string, limit int,
	lease time.Duration) (claimed []store.BacklogMessage, err error) {
	defer s.op("ClaimBacklog", &err)()
	if len(services) == 0 || limit <= 0 {
		return nil, nil
	}
	for range claimTries {
		candidates, err := s.claimCandidates(ctx, services, min(limit, maxList))
		if err != nil || len(candidates) == 0 {
			return nil, err
		}
		claimed, err := s.claim(ctx, owner, candidates, lease)
		if err != nil || len(claimed) > 0 {
			return claimed, err
		}
	}
	return nil, nil
}

// claimCandidates picks rows that are due, in turn over the services.
func (s *Store) claimCandidates(ctx context.Context, services []string, limit int) ([]backlogKey, error) {
	type candidate struct {
		backlogKey
		size int
	}
	var parts []statement
	queues := make(map[string][]candidate)
	for _, service := range slices.Compact(slices.Sorted(slices.Values(services))) {
		parts = append(parts, statement{s.sql(claimCandidates), []any{service, limit}})
	}
	for _, part := range s.union(parts) {
		err := s.read().query(ctx, part.text, part.args, func(r row) error {
			var c candidate
			err := r.Scan(&c.service, fixed(c.id[:]), &c.size)
			queues[c.service] = append(queues[c.service], c)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	var picked []backlogKey
	budget := s.cfg.MaxFetchBytes
	for i := 0; len(picked) < limit; i++ {
		before := len(picked)
		for _, service := range sortedKeys(queues) {
			if i >= len(queues[service]) || len(picked) == limit {
				continue
			}
			c := queues[service][i]
			if budget -= c.size; budget < 0 && len(picked) > 0 {
				return picked, nil
			}
			picked = append(picked, c.backlogKey)
		}
		if len(picked) == before {
			break
		}
	}
	return picked, nil
}

// claim takes rows that nobody took meanwhile, and returns them in the order of keys.
func (s *Store) claim(ctx context.Context, owner string, keys []backlogKey,
	lease time.Duration) ([]store.BacklogMessage, error) {
	token := make([]byte, 16)
	rand.Read(token)
	found := make(map[backlogKey]store.BacklogMessage)
	err := byService(keys, func(service string, ids []identity.MessageID) error {
		args := append([]any{token, cut(owner, maxAddress), lease.Microseconds(), service}, messageArgs(ids)...)
		return s.writeAlone(ctx, func(t session) error {
			_, err := t.exec(ctx, s.sql(claimBacklog, len(ids)), args...)
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	err = byService(keys, func(service string, ids []identity.MessageID) error {
		args := append(append([]any{service}, messageArgs(ids)...), token)
		return s.claimReader().query(ctx, s.sql(claimedBacklog, len(ids)), args, func(r row) error {
			m := store.BacklogMessage{Service: service}
			var err error
			m.Message, err = scanMessage(r, fixed(m.ID[:]), &m.Attempts)
			m.Attempts-- // this claim
			found[backlogKey{service, m.ID}] = m
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	var claimed []store.BacklogMessage
	for _, key := range keys {
		if m, ok := found[key]; ok {
			claimed = append(claimed, m)
		}
	}
	return claimed, nil
}

// claimReader reads through the pool that wrote, which on a replicated database may be another host's.
func (s *Store) claimReader() session { return session{s: s, q: s.cfg.Writer, again: true} }

// FinishBacklog records what became of messages that the owner claimed. A claim that is another's by now is left alone.
func (s *Store) FinishBacklog(ctx context.Context, owner string, outcomes []store.BacklogOutcome) (err error) {
	defer s.op("FinishBacklog", &err)()
	if len(outcomes) == 0 {
		return nil
	}
	byKey := make(map[backlogKey]store.BacklogOutcome, len(outcomes))
	keys := make([]backlogKey, len(outcomes))
	for i, o := range outcomes {
		keys[i] = backlogKey{o.Service, o.ID}
		byKey[keys[i]] = o
	}
	var gone int64
	err = s.write(ctx, func(t session) error {
		gone = 0
		return byService(keys, func(service string, ids []identity.MessageID) error {
			n, err := t.finish(ctx, cut(owner, maxAddress), service, ids, byKey)
			gone += n
			return err
		})
	})
	if err == nil {
		s.backlog.added(-gone)
	}
	return err
}

// finish applies the outcomes of one service and returns how many messages left the backlog.
func (t session) finish(ctx context.Context, owner, service string, ids []identity.MessageID,
	outcomes map[backlogKey]store.BacklogOutcome) (int64, error) {
	var results [][]any
	var gone, dead, again []identity.MessageID
	args := append(append([]any{service}, messageArgs(ids)...), owner)
	err := t.query(ctx, t.s.sql(lockClaimed, len(ids)), args, func(r row) error {
		var id identity.MessageID
		var creation nullTime
		if err := r.Scan(fixed(id[:]), &creation.seconds, &creation.nanos); err != nil {
			return err
		}
		o := outcomes[backlogKey{service, id}]
		switch {
		case o.Dead:
			dead = append(dead, id)
			gone = append(gone, id)
		case o.Done:
			gone = append(gone, id)
		default:
			again = append(again, id)
		}
		if o.Dead || (o.Done && o.Keep) {
			seconds, nanos := timeArgs(creation.timestamp())
			results = append(results, []any{id[:], seconds, nanos, o.Dead, reasonOf(o)})
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	if _, err := t.insert(ctx, insertResults, insertResultRow, results); err != nil {
		return 0, err
	}
	if err := t.bury(ctx, service, dead, outcomes); err != nil {
		return 0, err
	}
	if len(gone) > 0 {
		if err := t.deleteBacklog(ctx, keysOf(service, gone)); err != nil {
			return 0, err
		}
	}
	return int64(len(gone)), t.retryLater(ctx, service, again, outcomes)
}

func reasonOf(o store.BacklogOutcome) string {
	if o.Dead {
		return cut(o.Reason, maxReason)
	}
	return ""
}

func keysOf(service string, ids []identity.MessageID) []backlogKey {
	keys := make([]backlogKey, len(ids))
	for i, id := range ids {
		keys[i] = backlogKey{service, id}
	}
	return keys
}

// retryLater gives claims back, each with a time of its own until it is due again.
func (t session) retryLater(ctx context.Context, service string, ids []identity.MessageID,
	outcomes map[backlogKey]store.BacklogOutcome) error {
	if len(ids) == 0 {
		return nil
	}
	var args []any
	for i := range ids {
		args = append(args, ids[i][:], outcomes[backlogKey{service, ids[i]}].RetryIn.Microseconds())
	}
	args = append(append(args, service), messageArgs(ids)...)
	text := strings.Replace(t.s.sql(retryBacklog), "{list}", strings.Repeat("WHEN ? THEN ? ", len(ids)), 1)
	_, err := t.exec(ctx, strings.Replace(text, "{list}", placeholders(len(ids)), 1), args...)
	return err
}

// ReleaseBacklog gives back what the owner has claimed; it is due at once.
func (s *Store) ReleaseBacklog(ctx context.Context, owner string) (err error) {
	defer s.op("ReleaseBacklog", &err)()
	return s.writeAlone(ctx, func(t session) error {
		_, err := t.exec(ctx, s.sql(releaseBacklog), cut(owner, maxAddress))
		return err
	})
}
