package sqlbase

import (
	"context"

	"github.com/farspeak/farspeak/internal/store"
)

const (
	// ticketKeys reads one range of by_time, from its end.
	ticketKeys = `SELECT key_id, key_bytes, created_us FROM ticket_keys {index by_time}
		ORDER BY created_us DESC, key_id DESC LIMIT ?`

	insertTicketKey    = `INSERT INTO ticket_keys (key_id, key_bytes, created_us) VALUES {rows}`
	insertTicketKeyRow = `(?, ?, {now})`
)

// TicketKeys returns the newest TLS session ticket keys, the newest first.
func (s *Store) TicketKeys(ctx context.Context, max int) (keys []store.TicketKey, err error) {
	defer s.op("TicketKeys", &err)()
	err = s.read().query(ctx, s.sql(ticketKeys), []any{max}, func(r row) error {
		var key store.TicketKey
		var created int64
		err := r.Scan(fixed(key.ID[:]), fixed(key.Key[:]), &created)
		key.Created = fromMicros(created)
		keys = append(keys, key)
		return err
	})
	return keys, err
}

// AddTicketKey adds a key for all servers. store.ErrConflict says that its ID is taken.
func (s *Store) AddTicketKey(ctx context.Context, key store.TicketKey) (err error) {
	defer s.op("AddTicketKey", &err)()
	return s.writeAlone(ctx, func(t session) error {
		_, err := t.insert(ctx, insertTicketKey, insertTicketKeyRow, [][]any{{key.ID[:], key.Key[:]}})
		return err
	})
}
