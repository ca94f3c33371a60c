package sqlbase

import (
	"context"
	"encoding/binary"
	"errors"
	"time"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
)

const (
	// endedBroadcast scans broadcasts, which this keeps small.
	endedBroadcast = `SELECT broadcast_id FROM broadcasts WHERE created_us < {now} - ? AND NOT (` + isActive + `)
		ORDER BY created_us LIMIT 1`

	// sentTo reads one range of by_broadcast.
	sentTo = `SELECT client_id FROM broadcast_sent {index by_broadcast} WHERE broadcast_id = ? LIMIT ?`

	// deleteSent looks up rows in PRIMARY.
	deleteSent = `{delete broadcast_sent PRIMARY client_id} AND broadcast_id = ?`

	// The statements that follow delete ranges of PRIMARY.
	deleteBroadcastLabels = `{delete broadcast_labels PRIMARY} WHERE broadcast_id = ?`
	deleteBroadcast       = `DELETE FROM broadcasts WHERE broadcast_id = ?`

	// lostClients reads one range of by_last_contact, in order.
	lostClients = `SELECT client_id FROM clients {index by_last_contact} WHERE last_contact_us < {now} - ? AND blacklisted = 0
		ORDER BY last_contact_us LIMIT ?`

	// lockLost locks rows by ranges of PRIMARY.
	lockLost = `SELECT client_id FROM clients {index PRIMARY} WHERE client_id IN ({list}) AND last_contact_us < {now} - ?
		ORDER BY client_id {lock}`

	// lostGenerations reads all of PRIMARY of file_chunks without its data.
	lostGenerations = `SELECT DISTINCT c.service, c.name, c.generation FROM file_chunks c
		LEFT JOIN files f ON f.service = c.service AND f.name = c.name AND f.generation = c.generation
		WHERE f.name IS NULL AND c.generation < ? LIMIT ?`

	// lastChunk reads the end of one range of PRIMARY.
	lastChunk = `SELECT COALESCE(MAX(chunk), -1) FROM file_chunks WHERE service = ? AND name = ? AND generation = ?`

	// abandonedAfter is how long an upload may take before what it has stored counts as left behind.
	abandonedAfter = 24 * time.Hour
	// lostReason is the result of messages to a client that is deleted.
	lostReason = "Client was removed: no contact within the retention time."
)

// ofClient deletes what belongs to clients, looked up in PRIMARY of each table.
var ofClient = []string{
	`{delete client_labels PRIMARY client_id}`,
	`{delete client_services PRIMARY client_id}`,
	`{delete client_contacts PRIMARY client_id}`,
	`{delete resource_usage PRIMARY client_id}`,
	`{delete broadcast_sent PRIMARY client_id}`,
	`{delete clients PRIMARY client_id}`,
}

// maxLostClients bounds the clients that one transaction deletes: each may have a long history.
const maxLostClients = 50

// pruneBroadcasts deletes one broadcast that ended long ago: first whom it was sent to, then itself.
func (s *Store) pruneBroadcasts(ctx context.Context, keep store.Retention, limit int) (int64, error) {
	if keep.Broadcasts <= 0 {
		return 0, nil
	}
	var id identity.BroadcastID
	err := s.read().one(ctx, s.sql(endedBroadcast), []any{keep.Broadcasts.Microseconds()}, fixed(id[:]))
	if errors.Is(err, store.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	clients, err := s.read().clientIDs(ctx, s.sql(sentTo), id[:], min(limit, maxList))
	if err != nil {
		return 0, err
	}
	var deleted int64
	err = s.write(ctx, func(t session) error {
		var err error
		if len(clients) > 0 {
			deleted, err = t.exec(ctx, s.sql(deleteSent, len(clients)), append(clientArgs(clients), id[:])...)
			return err
		}
		if _, err = t.exec(ctx, s.sql(deleteBroadcastLabels), id[:]); err != nil {
			return err
		}
		deleted, err = t.exec(ctx, s.sql(deleteBroadcast), id[:])
		return err
	})
	return deleted, err
}

// pruneClients deletes clients that have not been in contact for long, and what belongs to them.
func (s *Store) pruneClients(ctx context.Context, keep store.Retention, limit int) (int64, error) {
	if keep.Clients <= 0 {
		return 0, nil
	}
	age := keep.Clients.Microseconds()
	ids, err := s.read().clientIDs(ctx, s.sql(lostClients), age, min(limit, maxLostClients))
	if err != nil || len(ids) == 0 {
		return 0, err
	}
	if _, err := s.DeletePending(ctx, ids, lostReason); err != nil {
		return 0, err
	}
	var deleted int64
	err = s.write(ctx, func(t session) error {
		deleted = 0
		lost, err := t.clientIDs(ctx, s.sql(lockLost, len(ids)), append(clientArgs(ids), age)...)
		if err != nil || len(lost) == 0 {
			return err
		}
		for _, template := range ofClient {
			n, err := t.exec(ctx, s.sql(template, len(lost)), clientArgs(lost)...)
			if err != nil {
				return err
			}
			deleted += n
		}
		return nil
	})
	return deleted, err
}

// pruneFiles deletes chunks that no file names and that no upload under way can still need.
func (s *Store) pruneFiles(ctx context.Context, _ store.Retention, limit int) (int64, error) {
	now, err := s.read().now(ctx)
	if err != nil {
		return 0, err
	}
	before := make([]byte, 16)
	binary.BigEndian.PutUint64(before, uint64(now-abandonedAfter.Microseconds()))
	var lost []fileVersion
	err = s.read().query(ctx, s.sql(lostGenerations), []any{before, limit}, func(r row) error {
		var f fileVersion
		err := r.Scan(&f.service, &f.name, &f.generation)
		lost = append(lost, f)
		return err
	})
	if err != nil {
		return 0, err
	}
	var deleted int64
	for _, f := range lost {
		var last int64
		if err := s.read().one(ctx, s.sql(lastChunk), f.args(), &last); err != nil {
			return deleted, err
		}
		if err := s.removeChunks(ctx, f, last+1); err != nil {
			return deleted, err
		}
		deleted += last + 1
	}
	return deleted, nil
}
