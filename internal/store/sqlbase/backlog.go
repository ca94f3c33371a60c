package sqlbase

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
)

const (
	insertBacklog = `INSERT INTO service_backlog (service, message_id, due_us, attempts, created_us,
		creation_seconds, creation_nanos, size, header, data) VALUES {rows} {ignore attempts}`
	insertBacklogRow = `(?, ?, {now} + ?, ?, {now}, ?, ?, ?, ?, ?)`

	// backlogIDs reads ranges of by_message.
	backlogIDs = `SELECT service, message_id FROM service_backlog {index by_message} WHERE message_id IN ({list})`

	// deleteBacklog looks up rows in PRIMARY.
	deleteBacklog = `{delete service_backlog PRIMARY message_id} AND service = ?`

	// countBacklog reads by_due alone.
	countBacklog = `SELECT COUNT(*) FROM (SELECT 1 FROM service_backlog {index by_due} LIMIT ?) AS counted`

	// backlogStatus reads all of by_due, and nothing else.
	backlogStatus = `SELECT service, COUNT(*), SUM(size), MIN(created_us), {now} FROM service_backlog {index by_due}
		GROUP BY service ORDER BY service`

	// recountBacklog is how long a count of the backlog is good, at least. A count that takes long is good for longer.
	recountBacklog       = time.Second
	recountBacklogFactor = 50
)

// backlogKey names a row of the backlog.
type backlogKey struct {
	service string
	id      identity.MessageID
}

// backlogRow is a message on its way into the backlog, or to the dead letters.
type backlogRow struct {
	backlogKey
	message store.BacklogMessage
	payload payload
}

// AddBacklog stores messages whose processing failed for now; they fall due after a time. It answers for each:
// store.ErrQueueFull when the backlog holds max messages or more (0 means no bound), store.ErrInvalid, or success. One
// that is there already, or whose result is known, is left as it is and is a success.
func (s *Store) AddBacklog(ctx context.Context, messages []store.BacklogMessage, dueIn time.Duration,
	max uint64) (errs []error, err error) {
	defer s.op("AddBacklog", &err)()
	errs = make([]error, len(messages))
	var rows []*backlogRow
	for i, m := range messages {
		row, err := newBacklogRow(m)
		if err != nil {
			errs[i] = err
			continue
		}
		rows = append(rows, row)
	}
	if len(rows) == 0 {
		return errs, nil
	}
	full, err := s.backlogFull(ctx, max)
	if err != nil {
		return nil, err
	}
	if full {
		return errs, s.refuseBacklog(ctx, messages, errs)
	}
	var added int64
	err = s.write(ctx, func(t session) error {
		var err error
		added, err = t.addBacklog(ctx, rows, dueIn)
		return err
	})
	if err != nil {
		return nil, err
	}
	s.backlog.added(added)
	return errs, nil
}

func newBacklogRow(m store.BacklogMessage) (*backlogRow, error) {
	if m.Service == "" {
		return nil, fmt.Errorf("%w: message for no service", store.ErrInvalid)
	}
	if err := checkName("service", m.Service); err != nil {
		return nil, err
	}
	p, err := encodeMessage(m.Message)
	if err != nil {
		return nil, err
	}
	return &backlogRow{backlogKey{m.Service, m.ID}, m, p}, nil
}

func compareBacklog(a, b *backlogRow) int {
	if a.service != b.service {
		if a.service < b.service {
			return -1
		}
		return 1
	}
	return compareMessages(a.id, b.id)
}

func (t session) addBacklog(ctx context.Context, rows []*backlogRow, dueIn time.Duration) (int64, error) {
	rows = slices.SortedFunc(slices.Values(rows), compareBacklog)
	args := make([][]any, len(rows))
	ids := make([]identity.MessageID, len(rows))
	services := make(map[identity.MessageID][]string)
	for i, row := range rows {
		seconds, nanos := timeArgs(row.message.Message.GetCreationTime())
		args[i] = []any{
			row.service, row.id[:], dueIn.Microseconds(), row.message.Attempts, seconds, nanos,
			row.payload.size, row.payload.header, row.payload.dataArg(),
		}
		ids[i] = row.id
		services[row.id] = append(services[row.id], row.service)
	}
	added, err := t.insert(ctx, insertBacklog, insertBacklogRow, args)
	if err != nil {
		return 0, err
	}
	// After the insert, for the reason that insertPending gives.
	known, err := t.completed(ctx, sortedMessages(slices.Values(ids)))
	if err != nil {
		return 0, err
	}
	var keys []backlogKey
	for _, id := range known {
		for _, service := range services[id] {
			keys = append(keys, backlogKey{service, id})
		}
	}
	return added - int64(len(known)), t.deleteBacklog(ctx, keys)
}

func (t session) deleteBacklog(ctx context.Context, keys []backlogKey) error {
	return byService(keys, func(service string, ids []identity.MessageID) error {
		_, err := t.exec(ctx, t.s.sql(deleteBacklog, len(ids)), append(messageArgs(ids), service)...)
		return err
	})
}

// byService calls do for each service in order, with up to maxList of its messages in order.
func byService(keys []backlogKey, do func(service string, ids []identity.MessageID) error) error {
	ids := make(map[string][]identity.MessageID)
	for _, key := range keys {
		ids[key.service] = append(ids[key.service], key.id)
	}
	for _, service := range sortedKeys(ids) {
		for chunk := range slices.Chunk(sortedMessages(slices.Values(ids[service])), maxList) {
			if err := do(service, chunk); err != nil {
				return err
			}
		}
	}
	return nil
}

// refuseBacklog says ErrQueueFull for what the backlog does not hold, and has no result, already.
func (s *Store) refuseBacklog(ctx context.Context, messages []store.BacklogMessage, errs []error) error {
	known := make(map[identity.MessageID]bool)
	for _, m := range messages {
		known[m.ID] = false
	}
	ids := sortedMessages(maps.Keys(known))
	for chunk := range slices.Chunk(ids, maxList) {
		err := s.read().query(ctx, s.sql(backlogIDs, len(chunk)), messageArgs(chunk), func(r row) error {
			var key backlogKey
			err := r.Scan(&key.service, fixed(key.id[:]))
			known[key.id] = true
			return err
		})
		if err != nil {
			return err
		}
	}
	completed, err := s.read().completed(ctx, ids)
	if err != nil {
		return err
	}
	for _, id := range completed {
		known[id] = true
	}
	for i, m := range messages {
		if errs[i] == nil && !known[m.ID] {
			errs[i] = store.ErrQueueFull
		}
	}
	return nil
}

// BacklogStatus returns depth and age of the backlog of each service that has one.
func (s *Store) BacklogStatus(ctx context.Context) (list []store.BacklogStatus, err error) {
	defer s.op("BacklogStatus", &err)()
	err = s.read().query(ctx, s.sql(backlogStatus), nil, func(r row) error {
		var status store.BacklogStatus
		var oldest, now int64
		err := r.Scan(&status.Service, &status.Depth, &status.Bytes, &oldest, &now)
		status.Oldest = time.Duration(max(0, now-oldest)) * time.Microsecond
		list = append(list, status)
		return err
	})
	return list, err
}

// backlogDepth remembers a count of the backlog, so that adding to it need not count.
type backlogDepth struct {
	mu    sync.Mutex
	count int64
	next  time.Time // of the count
}

func (d *backlogDepth) added(n int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.count += n
}

// backlogFull says whether the backlog holds max messages. Only what this process adds is known between counts.
func (s *Store) backlogFull(ctx context.Context, limit uint64) (bool, error) {
	if limit == 0 {
		return false, nil
	}
	bound := int64(min(limit, 1<<62))
	if count, fresh := s.backlog.known(); fresh {
		return count >= bound, nil
	}
	started := time.Now()
	var count int64
	if err := s.read().one(ctx, s.sql(countBacklog), []any{bound}, &count); err != nil {
		return false, err
	}
	s.backlog.counted(count, time.Since(started))
	return count >= bound, nil
}

func (d *backlogDepth) known() (count int64, fresh bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.count, time.Now().Before(d.next)
}

func (d *backlogDepth) counted(n int64, took time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.count = n
	d.next = time.Now().Add(max(recountBacklog, recountBacklogFactor*took))
}
