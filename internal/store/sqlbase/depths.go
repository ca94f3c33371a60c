package sqlbase

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/farspeak/farspeak/internal/identity"
)

const (
	// countQueues reads ranges of PRIMARY.
	countQueues = `SELECT client_id, COUNT(*) FROM client_messages {index PRIMARY} WHERE client_id IN ({list}) GROUP BY client_id`

	// maxQueueDepths bounds the clients whose depth is remembered.
	maxQueueDepths = 100_000
	// recountFull is how long a full queue stays full without being counted again.
	recountFull = time.Second
)

// queueDepths remembers how many messages wait for clients, so that most inserts need not count. A count is good until
// half of the room that it left has been filled by this process; other processes may fill the rest.
type queueDepths struct {
	mu     sync.Mutex
	counts map[identity.ClientID]queueDepth
}

type queueDepth struct {
	room    int64 // inserts that need no new count
	full    bool
	counted time.Time
}

// fullQueues returns the clients that have as many messages waiting as they may.
func (s *Store) fullQueues(ctx context.Context, rows []*pending,
	targets map[identity.ClientID]target) (map[identity.ClientID]bool, error) {
	limit := s.cfg.MaxPendingPerClient
	if limit == 0 {
		return nil, nil
	}
	wanted := make(map[identity.ClientID]int64)
	for _, p := range rows {
		if p == nil {
			continue
		}
		if _, known := targets[p.client]; known {
			wanted[p.client]++
		}
	}
	full, unknown := s.queues.check(wanted)
	for chunk := range slices.Chunk(sortedClients(slices.Values(unknown)), maxList) {
		counts := make(map[identity.ClientID]int64, len(chunk))
		err := s.read().query(ctx, s.sql(countQueues, len(chunk)), clientArgs(chunk), func(r row) error {
			var id identity.ClientID
			var n int64
			err := r.Scan(fixed(id[:]), &n)
			counts[id] = n
			return err
		})
		if err != nil {
			return nil, err
		}
		for _, id := range chunk {
			if s.queues.counted(id, counts[id], int64(min(limit, 1<<62))) {
				full[id] = true
			}
		}
	}
	return full, nil
}

// check returns which clients are full as far as is remembered, and which must be counted.
func (q *queueDepths) check(wanted map[identity.ClientID]int64) (full map[identity.ClientID]bool,
	unknown []identity.ClientID) {
	q.mu.Lock()
	defer q.mu.Unlock()
	full = make(map[identity.ClientID]bool)
	for id, n := range wanted {
		depth, ok := q.counts[id]
		switch {
		case ok && depth.full && time.Since(depth.counted) < recountFull:
			full[id] = true
		case ok && !depth.full && depth.room >= n:
		default:
			unknown = append(unknown, id)
		}
	}
	return full, unknown
}

// counted remembers a count and says whether the queue is full.
func (q *queueDepths) counted(id identity.ClientID, n, limit int64) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.counts == nil || len(q.counts) >= maxQueueDepths {
		q.counts = make(map[identity.ClientID]queueDepth) // forgetting costs counts, nothing else
	}
	depth := queueDepth{room: (limit - n) / 2, full: n >= limit, counted: time.Now()}
	q.counts[id] = depth
	return depth.full
}

// added takes inserted messages from the room of their clients.
func (q *queueDepths) added(rows []*pending) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, p := range rows {
		if depth, ok := q.counts[p.client]; ok {
			depth.room--
			q.counts[p.client] = depth
		}
	}
}
