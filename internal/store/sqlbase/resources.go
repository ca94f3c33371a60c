package sqlbase

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
)

const (
	usageColumns = `scope, pid, process_start_seconds, process_start_nanos, client_seconds, client_nanos,
		mean_user_cpu, max_user_cpu, mean_system_cpu, max_system_cpu, mean_resident_mib, max_resident_mib,
		process_terminated, mean_fds, max_fds`

	insertUsage    = `INSERT INTO resource_usage (client_id, server_us, nonce, ` + usageColumns + `) VALUES {rows} {ignore scope}`
	insertUsageRow = `(?, {now}, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`

	// fetchUsage reads one range of PRIMARY, in order.
	fetchUsage = `SELECT server_us, nonce, ` + usageColumns + ` FROM resource_usage {index PRIMARY}
		WHERE client_id = ? AND server_us >= ? AND server_us < ? AND (server_us > ? OR nonce > ?)
		ORDER BY server_us, nonce LIMIT ?`
)

// AddResourceUsage stores reports at the store's time. Those of clients that are not known are store.ErrUnknownClient.
func (s *Store) AddResourceUsage(ctx context.Context, records []store.ResourceUsage) (errs []error, err error) {
	defer s.op("AddResourceUsage", &err)()
	errs = make([]error, len(records))
	ids := make([]identity.ClientID, len(records))
	for i, rec := range records {
		ids[i] = rec.ClientID
	}
	known, err := s.knownClients(ctx, ids)
	if err != nil {
		return nil, err
	}
	var rows [][]any
	for i := range records {
		if !known[records[i].ClientID] {
			errs[i] = store.ErrUnknownClient
			continue
		}
		rows = append(rows, usageRow(&records[i]))
	}
	if len(rows) == 0 {
		return errs, nil
	}
	return errs, s.write(ctx, func(t session) error {
		_, err := t.insert(ctx, insertUsage, insertUsageRow, rows)
		return err
	})
}

func (s *Store) knownClients(ctx context.Context, ids []identity.ClientID) (map[identity.ClientID]bool, error) {
	known := make(map[identity.ClientID]bool, len(ids))
	for chunk := range slices.Chunk(sortedClients(slices.Values(ids)), maxList) {
		found, err := s.read().clientIDs(ctx, s.sql(existingClients, len(chunk)), clientArgs(chunk)...)
		if err != nil {
			return nil, err
		}
		for _, id := range found {
			known[id] = true
		}
	}
	return known, nil
}

func usageRow(u *store.ResourceUsage) []any {
	startSeconds, startNanos := timeArgs(u.ProcessStart)
	clientSeconds, clientNanos := timeArgs(u.ClientTime)
	return []any{
		u.ClientID[:], rand.Int64(), cutName(u.Scope), u.PID, startSeconds, startNanos, clientSeconds, clientNanos,
		number(u.MeanUserCPU), number(u.MaxUserCPU), number(u.MeanSystemCPU), number(u.MaxSystemCPU),
		u.MeanResidentMiB, u.MaxResidentMiB, u.Terminated, u.MeanFDs, u.MaxFDs,
	}
}

// number replaces what SQL has no literal for, which only a broken client sends.
func number(f float32) float64 {
	if math.IsNaN(float64(f)) || math.IsInf(float64(f), 0) {
		return 0
	}
	return float64(f)
}

// FetchResourceUsage returns reports of a client with start <= time < end, in the order of time and nonce, limit at most.
// Of those at start it leaves out what is not after a nonce: a page begins with time and nonce of the last report of the
// page before, and the first with start and -1.
func (s *Store) FetchResourceUsage(ctx context.Context, id identity.ClientID, start, end time.Time, after int64,
	limit int) (records []store.ResourceUsage, err error) {
	defer s.op("FetchResourceUsage", &err)()
	from := start.UnixMicro()
	args := []any{id[:], from, end.UnixMicro(), from, after, limit}
	err = s.read().query(ctx, s.sql(fetchUsage), args, func(r row) error {
		u := store.ResourceUsage{ClientID: id}
		var at int64
		var processStart, clientTime nullTime
		err := r.Scan(&at, &u.Nonce, &u.Scope, &u.PID, &processStart.seconds, &processStart.nanos, &clientTime.seconds, &clientTime.nanos,
			&u.MeanUserCPU, &u.MaxUserCPU, &u.MeanSystemCPU, &u.MaxSystemCPU, &u.MeanResidentMiB, &u.MaxResidentMiB,
			&u.Terminated, &u.MeanFDs, &u.MaxFDs)
		u.ServerTime, u.ProcessStart, u.ClientTime = fromMicros(at), processStart.timestamp(), clientTime.timestamp()
		records = append(records, u)
		return err
	})
	return records, err
}
