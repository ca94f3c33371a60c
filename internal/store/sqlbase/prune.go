package sqlbase

import (
	"context"
	"errors"
	"time"

	"github.com/farspeak/farspeak/internal/store"
)

// expiring is a table whose rows leave by their age, oldest first. All its statements read one range of its index by_time.
type expiring struct {
	keep   func(store.Retention) time.Duration
	nth    string // the time of the n-th row that is too old
	upTo   string // deletes rows up to a time
	tooOld string // deletes rows older than an age
}

var expiringTables = []expiring{
	{
		keep:   func(r store.Retention) time.Duration { return r.Contacts },
		nth:    `SELECT contact_us FROM client_contacts {index by_time} WHERE contact_us < {now} - ? ORDER BY contact_us LIMIT 1 OFFSET ?`,
		upTo:   `{delete client_contacts by_time} WHERE contact_us <= ?`,
		tooOld: `{delete client_contacts by_time} WHERE contact_us < {now} - ?`,
	}, {
		keep:   func(r store.Retention) time.Duration { return r.Results },
		nth:    `SELECT processed_us FROM message_results {index by_time} WHERE processed_us < {now} - ? ORDER BY processed_us LIMIT 1 OFFSET ?`,
		upTo:   `{delete message_results by_time} WHERE processed_us <= ?`,
		tooOld: `{delete message_results by_time} WHERE processed_us < {now} - ?`,
	}, {
		keep:   func(r store.Retention) time.Duration { return r.DeadLetters },
		nth:    `SELECT failed_us FROM dead_letters {index by_time} WHERE failed_us < {now} - ? ORDER BY failed_us LIMIT 1 OFFSET ?`,
		upTo:   `{delete dead_letters by_time} WHERE failed_us <= ?`,
		tooOld: `{delete dead_letters by_time} WHERE failed_us < {now} - ?`,
	}, {
		keep:   func(r store.Retention) time.Duration { return r.ResourceUsage },
		nth:    `SELECT server_us FROM resource_usage {index by_time} WHERE server_us < {now} - ? ORDER BY server_us LIMIT 1 OFFSET ?`,
		upTo:   `{delete resource_usage by_time} WHERE server_us <= ?`,
		tooOld: `{delete resource_usage by_time} WHERE server_us < {now} - ?`,
	}, {
		keep:   func(r store.Retention) time.Duration { return r.Servers },
		nth:    `SELECT heartbeat_us FROM servers {index by_time} WHERE heartbeat_us < {now} - ? ORDER BY heartbeat_us LIMIT 1 OFFSET ?`,
		upTo:   `{delete servers by_time} WHERE heartbeat_us <= ?`,
		tooOld: `{delete servers by_time} WHERE heartbeat_us < {now} - ?`,
	}, {
		keep:   func(r store.Retention) time.Duration { return r.TicketKeys },
		nth:    `SELECT created_us FROM ticket_keys {index by_time} WHERE created_us < {now} - ? ORDER BY created_us LIMIT 1 OFFSET ?`,
		upTo:   `{delete ticket_keys by_time} WHERE created_us <= ?`,
		tooOld: `{delete ticket_keys by_time} WHERE created_us < {now} - ?`,
	},
}

// Prune deletes rows that are older than the retention says, about limit of each table and the oldest first, and dead letters
// that are too many. It returns how many (G-22). Call it again while it deletes any. Many servers may prune at the same time.
func (s *Store) Prune(ctx context.Context, keep store.Retention, limit int) (deleted int64, err error) {
	defer s.op("Prune", &err)()
	limit = max(limit, 1)
	for _, table := range expiringTables {
		n, err := s.expire(ctx, table, keep, limit)
		deleted += n
		if err != nil {
			return deleted, err
		}
	}
	for _, prune := range []func(context.Context, store.Retention, int) (int64, error){
		s.pruneDead, s.pruneBroadcasts, s.pruneClients, s.pruneFiles,
	} {
		n, err := prune(ctx, keep, limit)
		deleted += n
		if err != nil {
			return deleted, err
		}
	}
	return deleted, nil
}

// expire deletes about limit rows of a table: up to the time of the limit-th, or all that are too old when there are fewer.
// A DELETE with a LIMIT would do, if every database had one.
func (s *Store) expire(ctx context.Context, table expiring, keep store.Retention, limit int) (int64, error) {
	age := table.keep(keep)
	if age <= 0 {
		return 0, nil
	}
	statement, arg := s.sql(table.tooOld), age.Microseconds()
	var upTo int64
	err := s.read().one(ctx, s.sql(table.nth), []any{arg, limit - 1}, &upTo)
	switch {
	case err == nil:
		statement, arg = s.sql(table.upTo), upTo
	case !errors.Is(err, store.ErrNotFound):
		return 0, err
	}
	var deleted int64
	err = s.writeAlone(ctx, func(t session) error {
		var err error
		deleted, err = t.exec(ctx, statement, arg)
		return err
	})
	return deleted, err
}
