package sqlbase

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
)

const (
	dueColumns = `client_id, message_id, seq, service, message_type, attempts, size, header,
		CASE WHEN size <= 4096 THEN data END, data IS NULL`

	// dueTogether reads ranges of PRIMARY, in its order. Data over inlineData bytes is left for largeData.
	dueTogether = `SELECT ` + dueColumns + ` FROM client_messages {index PRIMARY}
		WHERE client_id IN ({list}) AND due_us <= {now}`
	// dueAlone reads one range of PRIMARY, in its order.
	dueAlone = `SELECT ` + dueColumns + ` FROM client_messages {index PRIMARY} WHERE client_id = ? AND due_us <= {now}`

	dueOfServices = ` AND service IN ({list})`
	dueInOrder    = ` ORDER BY client_id, seq LIMIT ?`

	// largeData reads ranges of by_message.
	largeData = `SELECT message_id, data FROM client_messages {index by_message} WHERE message_id IN ({list})`

	// inlineData is the size of a message in bytes up to which the first query reads its data.
	inlineData = 4096
	// maxDueRows bounds the rows of one call of DueMessages; clients share it evenly.
	maxDueRows = 2000
	// A query for n clients together reads at most rowsTogether + n * rowsEach rows. That is plenty while clients are
	// up to date; when it is not, a few of them have long queues, and those that it cut off are read one by one.
	rowsTogether = 100
	rowsEach     = 4
)

// DueMessages returns what is due for clients, each client's in the order of insertion. The payload of one call is bounded
// by Config.MaxFetchBytes and the rows by maxDueRows; what that cuts off is said by More. Clients share both evenly.
func (s *Store) DueMessages(ctx context.Context,
	requests []store.DueRequest) (_ map[identity.ClientID]*store.DueMessages, err error) {
	defer s.op("DueMessages", &err)()
	found := make(map[identity.ClientID]*dueQueue, len(requests))
	share := max(1, maxDueRows/max(1, len(requests)))
	for _, r := range requests {
		if found[r.ClientID] != nil || r.Limit <= 0 || (r.Services != nil && len(r.Services) == 0) {
			continue
		}
		found[r.ClientID] = &dueQueue{client: r.ClientID, services: r.Services, limit: min(r.Limit, share)}
	}
	var alone []*dueQueue
	for _, group := range byServices(found) {
		left, err := s.readTogether(ctx, group)
		if err != nil {
			return nil, err
		}
		alone = append(alone, left...)
	}
	if err := s.readAlone(ctx, alone); err != nil {
		return nil, err
	}
	if err := s.readLarge(ctx, takeWithin(found, s.cfg.MaxFetchBytes)); err != nil {
		return nil, err
	}
	answer := make(map[identity.ClientID]*store.DueMessages, len(found))
	for id, q := range found {
		answer[id] = q.messages()
	}
	return answer, nil
}

// dueQueue is what is asked and found for one client.
type dueQueue struct {
	client   identity.ClientID
	services []string // nil for all
	limit    int

	found []*dueRow
	taken int // of found
	more  bool
}

type dueRow struct {
	message store.PendingMessage
	header  []byte // until the data is there; then nil
	size    int
}

// byServices groups queues that ask for the same services, in the order of clients.
func byServices(queues map[identity.ClientID]*dueQueue) map[string][]*dueQueue {
	groups := make(map[string][]*dueQueue)
	for _, id := range sortedClients(maps.Keys(queues)) {
		q := queues[id]
		key := ""
		if q.services != nil {
			key = fmt.Sprintf("%q", slices.Sorted(slices.Values(q.services))) // names are the client's, with any bytes
		}
		groups[key] = append(groups[key], q)
	}
	return groups
}

// readTogether reads queues that ask for the same services with one query for many clients, and returns those that are
// left to be read one by one.
func (s *Store) readTogether(ctx context.Context, group []*dueQueue) (left []*dueQueue, err error) {
	for chunk := range slices.Chunk(group, maxList) {
		if len(chunk) == 1 {
			left = append(left, chunk[0])
			continue
		}
		cut, err := s.readChunk(ctx, chunk)
		if err != nil {
			return nil, err
		}
		left = append(left, chunk[cut:]...)
	}
	return left, nil
}

// readChunk reads queues and returns the index of the first that was cut off.
func (s *Store) readChunk(ctx context.Context, chunk []*dueQueue) (cut int, err error) {
	ids := make([]identity.ClientID, len(chunk))
	index := make(map[identity.ClientID]int, len(chunk))
	for i, q := range chunk {
		ids[i], index[q.client] = q.client, i
	}
	limit := rowsTogether + rowsEach*len(chunk)
	query := s.dueQuery(dueTogether, clientArgs(ids), chunk[0].services, limit)
	rows := 0
	err = s.read().query(ctx, query.text, query.args, func(r row) error {
		d, err := scanDue(r)
		if err != nil {
			return err
		}
		rows++
		cut = index[d.message.ClientID]
		chunk[cut].found = append(chunk[cut].found, d)
		return nil
	})
	if err != nil || rows < limit {
		return len(chunk), err
	}
	chunk[cut].found = nil
	return cut, nil
}

// readAlone reads each queue for itself.
func (s *Store) readAlone(ctx context.Context, queues []*dueQueue) error {
	var parts []statement
	index := make(map[identity.ClientID]*dueQueue, len(queues))
	for _, q := range queues {
		index[q.client] = q
		parts = append(parts, s.dueQuery(dueAlone, []any{q.client[:]}, q.services, q.limit))
	}
	for _, part := range s.union(parts) {
		err := s.read().query(ctx, part.text, part.args, func(r row) error {
			d, err := scanDue(r)
			if err == nil {
				q := index[d.message.ClientID]
				q.found = append(q.found, d)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// statement is an expanded statement and its arguments.
type statement struct {
	text string
	args []any
}

// dueQuery completes dueTogether or dueAlone.
func (s *Store) dueQuery(template string, clients []any, services []string, limit int) statement {
	args, lists := clients, []int{}
	if template == dueTogether {
		lists = append(lists, len(clients))
	}
	if services != nil {
		template += dueOfServices
		args = append(args, stringArgs(services)...)
		lists = append(lists, len(services))
	}
	return statement{s.sql(template+dueInOrder, lists...), append(args, limit)}
}

// union joins statements to as few as the dialect allows.
func (s *Store) union(parts []statement) []statement {
	if s.dialect.UnionParts <= 1 {
		return parts
	}
	var joined []statement
	for chunk := range slices.Chunk(parts, s.dialect.UnionParts) {
		texts := make([]string, len(chunk))
		var args []any
		for i, part := range chunk {
			texts[i] = "(" + part.text + ")"
			args = append(args, part.args...)
		}
		joined = append(joined, statement{strings.Join(texts, " UNION ALL "), args})
	}
	return joined
}

func scanDue(r row) (*dueRow, error) {
	var (
		d            dueRow
		header, data sql.RawBytes
		absent       bool
	)
	m := &d.message
	err := r.Scan(fixed(m.ClientID[:]), fixed(m.ID[:]), &m.Seq, &m.Service, &m.Type, &m.Attempts, &d.size,
		&header, &data, &absent)
	if err != nil {
		return nil, err
	}
	switch {
	case absent:
		m.Encoded = joinMessage(header, nil)
	case d.size <= inlineData:
		m.Encoded = joinMessage(header, present(data))
	default:
		d.header = slices.Clone([]byte(header))
	}
	return &d, nil
}

// takeWithin takes messages of all clients in turn, each client's in order, until the budget is used up; the first is
// always taken. It returns those whose data is still to be read.
func takeWithin(found map[identity.ClientID]*dueQueue, budget int) map[identity.MessageID]*dueRow {
	large := make(map[identity.MessageID]*dueRow)
	open := make([]*dueQueue, 0, len(found))
	for _, q := range found {
		q.more = len(q.found) >= q.limit
		q.found = q.found[:min(q.limit, len(q.found))]
		open = append(open, q)
	}
	first := true
	for len(open) > 0 {
		open = slices.DeleteFunc(open, func(q *dueQueue) bool {
			if q.taken == len(q.found) {
				return true
			}
			d := q.found[q.taken]
			if d.size > budget && !first {
				q.more = true
				return true
			}
			first = false
			budget -= d.size
			q.taken++
			if d.header != nil {
				large[d.message.ID] = d
			}
			return false
		})
	}
	return large
}

func (s *Store) readLarge(ctx context.Context, large map[identity.MessageID]*dueRow) error {
	for chunk := range slices.Chunk(sortedMessages(maps.Keys(large)), maxList) {
		err := s.read().query(ctx, s.sql(largeData, len(chunk)), messageArgs(chunk), func(r row) error {
			var id identity.MessageID
			var data sql.RawBytes
			if err := r.Scan(fixed(id[:]), &data); err != nil {
				return err
			}
			large[id].message.Encoded = joinMessage(large[id].header, present(data))
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// messages returns what was taken, without what was completed meanwhile.
func (q *dueQueue) messages() *store.DueMessages {
	due := &store.DueMessages{More: q.more}
	for _, d := range q.found[:q.taken] {
		if d.message.Encoded != nil {
			due.Messages = append(due.Messages, &d.message)
		}
	}
	return due
}
