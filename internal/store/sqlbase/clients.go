package sqlbase

import (
	"context"
	"database/sql"
	"errors"
	"math"
	"slices"
	"time"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
)

const (
	clientColumns = `client_id, client_key, blacklisted, first_contact_us, last_contact_us, last_contact_address,
		clock_seconds, clock_nanos, streaming_to`

	// holder reads one range of by_address: the server that holds the session of a client. Servers that come back after a
	// crash have the address of the one before and none of its sessions, so it must not have started after the contact.
	holder = `FROM servers {index by_address} WHERE address = streaming_to AND started_us <= last_contact_us`

	// seenColumns add the last heartbeat of the holder. A session writes nothing to its client while it lasts.
	seenColumns = clientColumns + `, (SELECT MAX(heartbeat_us) ` + holder + `)`

	// getClients reads ranges of PRIMARY.
	getClients = `SELECT ` + seenColumns + ` FROM clients {index PRIMARY} WHERE client_id IN ({list})`

	// listClients reads one range of PRIMARY, in order.
	listClients = `SELECT ` + seenColumns + ` FROM clients {index PRIMARY} WHERE client_id > ? ORDER BY client_id LIMIT ?`

	// listClientIDs reads one range of PRIMARY, in order.
	listClientIDs = `SELECT client_id FROM clients {index PRIMARY}
		WHERE client_id > ? AND blacklisted <= ?
			AND (last_contact_us > ? OR (streaming_to <> '' AND EXISTS (SELECT 1 ` + holder + ` AND heartbeat_us > ?)))
		ORDER BY client_id LIMIT ?`

	// blacklistClient changes one row by PRIMARY.
	blacklistClient = `UPDATE clients SET blacklisted = 1 WHERE client_id = ?`

	// clientStreamingTo reads one row by PRIMARY.
	clientStreamingTo = `SELECT streaming_to FROM clients WHERE client_id = ? {lock}`
)

// GetClients returns the clients among ids that are known, with their labels.
func (s *Store) GetClients(ctx context.Context,
	ids []identity.ClientID) (_ map[identity.ClientID]*store.Client, err error) {
	defer s.op("GetClients", &err)()
	clients := make(map[identity.ClientID]*store.Client, len(ids))
	for chunk := range slices.Chunk(sortedClients(slices.Values(ids)), maxList) {
		err := s.read().query(ctx, s.sql(getClients, len(chunk)), clientArgs(chunk), func(r row) error {
			c, err := scanSeen(r)
			if err == nil {
				clients[c.ID] = c
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return clients, s.read().addLabels(ctx, clients)
}

// ListClients returns clients with IDs after the given one, in order, with their labels.
func (s *Store) ListClients(ctx context.Context, after identity.ClientID, limit int) (_ []*store.Client, err error) {
	defer s.op("ListClients", &err)()
	var list []*store.Client
	byID := make(map[identity.ClientID]*store.Client)
	err = s.read().query(ctx, s.sql(listClients), []any{after[:], limit}, func(r row) error {
		c, err := scanSeen(r)
		if err == nil {
			list = append(list, c)
			byID[c.ID] = c
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return list, s.read().addLabels(ctx, byID)
}

// ListClientIDs returns IDs after the given one, in order, of clients that were seen later than a time; blacklisted ones
// only when asked for.
func (s *Store) ListClientIDs(ctx context.Context, after identity.ClientID, limit int, includeBlacklisted bool,
	seenAfter time.Time) (ids []identity.ClientID, err error) {
	defer s.op("ListClientIDs", &err)()
	since := int64(math.MinInt64)
	if !seenAfter.IsZero() {
		since = seenAfter.UnixMicro()
	}
	return s.read().clientIDs(ctx, s.sql(listClientIDs), after[:], includeBlacklisted, since, since, limit)
}

// BlacklistClient sets the flag of a client and returns where its session is held, empty when nowhere. An unknown client
// is no error and is not created.
func (s *Store) BlacklistClient(ctx context.Context, id identity.ClientID) (streamingTo string, err error) {
	defer s.op("BlacklistClient", &err)()
	err = s.write(ctx, func(t session) error {
		streamingTo = ""
		if err := t.one(ctx, s.sql(clientStreamingTo), []any{id[:]}, &streamingTo); err != nil {
			return err
		}
		_, err := t.exec(ctx, s.sql(blacklistClient), id[:])
		return err
	})
	if errors.Is(err, store.ErrNotFound) {
		return "", nil
	}
	return streamingTo, err
}

// one reads a single row; without one it is store.ErrNotFound.
func (t session) one(ctx context.Context, statement string, args []any, dest ...any) error {
	found := false
	err := t.query(ctx, statement, args, func(r row) error {
		found = true
		return r.Scan(dest...)
	})
	if err == nil && !found {
		return store.ErrNotFound
	}
	return err
}

// scanSeen scans seenColumns.
func scanSeen(r row) (*store.Client, error) {
	var heartbeat sql.NullInt64 // NULL where nobody holds a session
	c, err := scanClient(r, &heartbeat)
	if err != nil {
		return nil, err
	}
	c.LastSeen = c.LastContact
	if held := fromMicros(heartbeat.Int64); c.StreamingTo != "" && held.After(c.LastSeen) {
		c.LastSeen = held
	}
	return c, nil
}

func scanClient(r row, more ...any) (*store.Client, error) {
	var (
		c           store.Client
		first, last int64
		clock       nullTime
		key         sql.RawBytes
	)
	dest := []any{
		fixed(c.ID[:]), &key, &c.Blacklisted, &first, &last, &c.LastContactAddress,
		&clock.seconds, &clock.nanos, &c.StreamingTo,
	}
	if err := r.Scan(append(dest, more...)...); err != nil {
		return nil, err
	}
	c.Key = slices.Clone([]byte(key))
	c.FirstContact, c.LastContact, c.LastClock = fromMicros(first), fromMicros(last), clock.timestamp()
	return &c, nil
}
