package sqlbase

import (
	"context"
	"time"

	"github.com/farspeak/farspeak/internal/store"
)

const (
	// upsertServer leaves the time of the start as it was first told.
	upsertServer = `INSERT INTO servers (server_id, address, version, sessions, draining, heartbeat_us, started_us, handover_key)
		VALUES {rows} {upsert server_id: address version sessions draining heartbeat_us handover_key}`
	upsertServerRow = `(?, ?, ?, ?, ?, ?, ?, ?)`

	// handoverKey reads one range of by_address, from its end.
	handoverKey = `SELECT handover_key FROM servers {index by_address} WHERE address = ? ORDER BY started_us DESC LIMIT 1`

	// listServers scans the few rows of servers.
	listServers = `SELECT server_id, address, version, sessions, draining, heartbeat_us FROM servers
		WHERE heartbeat_us > {now} - ? ORDER BY server_id`

	// removeServer deletes one row by PRIMARY.
	removeServer = `DELETE FROM servers WHERE server_id = ?`
)

// Heartbeat says that a server is up, and returns the store's time.
func (s *Store) Heartbeat(ctx context.Context, info store.ServerInfo) (now time.Time, err error) {
	defer s.op("Heartbeat", &err)()
	us, err := s.read().now(ctx)
	if err != nil {
		return time.Time{}, err
	}
	row := []any{
		cut(info.ID, maxAddress), cut(info.Address, maxAddress), cut(info.Version, maxAddress), info.Sessions, info.Draining, us,
		us - info.Uptime.Microseconds(), present(info.HandoverKey),
	}
	err = s.writeAlone(ctx, func(t session) error {
		_, err := t.insert(ctx, upsertServer, upsertServerRow, [][]any{row})
		return err
	})
	return fromMicros(us), err
}

// ListServers returns the servers whose last heartbeat is younger than maxAge.
func (s *Store) ListServers(ctx context.Context, maxAge time.Duration) (list []store.ServerInfo, err error) {
	defer s.op("ListServers", &err)()
	err = s.read().query(ctx, s.sql(listServers), []any{maxAge.Microseconds()}, func(r row) error {
		var info store.ServerInfo
		var heartbeat int64
		err := r.Scan(&info.ID, &info.Address, &info.Version, &info.Sessions, &info.Draining, &heartbeat)
		info.Heartbeat = fromMicros(heartbeat)
		list = append(list, info)
		return err
	})
	return list, err
}

// HandoverKey returns the key of the server that was started last of those that gave an address; it is empty when there is
// none, or one that is handed nothing.
func (s *Store) HandoverKey(ctx context.Context, address string) (key []byte, err error) {
	defer s.op("HandoverKey", &err)()
	err = s.read().query(ctx, s.sql(handoverKey), []any{cut(address, maxAddress)}, func(r row) error { return r.Scan(&key) })
	return key, err
}

// RemoveServer forgets a server that has ended.
func (s *Store) RemoveServer(ctx context.Context, id string) (err error) {
	defer s.op("RemoveServer", &err)()
	return s.writeAlone(ctx, func(t session) error {
		_, err := t.exec(ctx, s.sql(removeServer), cut(id, maxAddress))
		return err
	})
}
