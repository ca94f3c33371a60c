package sqlbase

import (
	"context"
	"database/sql"
	"maps"
	"slices"
	"strings"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
)

const (
	// dueMessages reads one range of PRIMARY, in order. Data over inlineData bytes is left for largeData.
	dueMessages = `SELECT client_id, message_id, service, message_type, attempts, size, header,
		CASE WHEN size <= 4096 THEN data END, data IS NULL
		FROM client_messages {index PRIMARY} WHERE client_id = ? AND due_us <= {now}`
	dueOfServices = ` AND service IN ({list})`
	dueInOrder    = ` ORDER BY client_id, seq LIMIT ?`

	// largeData reads ranges of by_message.
	largeData = `SELECT message_id, data FROM client_messages {index by_message} WHERE message_id IN ({list})`

	// inlineData is the size of a message in bytes up to which the first query reads its data.
	inlineData = 4096
	// maxDueRows bounds the rows of one call of DueMessages; clients share it evenly.
	maxDueRows = 2000
)

// DueMessages returns what is due for clients, each client's in the order of insertion. The payload of one call is bounded
// by Config.MaxFetchBytes and the rows by maxDueRows; what that cuts off is said by More. Clients share both evenly.
func (s *Store) DueMessages(ctx context.Context, requests []store.DueRequest) (_ map[identity.ClientID]*store.DueMessages, err error) {
	defer s.op("DueMessages", &err)()
	found := make(map[identity.ClientID]*dueQueue, len(requests))
	share := max(1, maxDueRows/max(1, len(requests)))
	var parts []statement
	for _, r := range requests {
		if found[r.ClientID] != nil || r.Limit <= 0 || (r.Services != nil && len(r.Services) == 0) {
			continue
		}
		q := &dueQueue{limit: min(r.Limit, share)}
		found[r.ClientID] = q
		parts = append(parts, s.duePart(r, q.limit))
	}
	if err := s.readDue(ctx, parts, found); err != nil {
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

// statement is an expanded statement and its arguments.
type statement struct {
	text string
	args []any
}

func (s *Store) duePart(r store.DueRequest, limit int) statement {
	text, args := dueMessages, []any{r.ClientID[:]}
	if r.Services != nil {
		text += dueOfServices
		args = append(args, stringArgs(r.Services)...)
		return statement{s.sql(text+dueInOrder, len(r.Services)), append(args, limit)}
	}
	return statement{s.sql(text + dueInOrder), append(args, limit)}
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

// dueQueue is what was found for one client.
type dueQueue struct {
	limit int
	found []*dueRow
	taken int // of found
	more  bool
}

type dueRow struct {
	message store.PendingMessage
	header  []byte // until the data is there; then nil
	size    int
}

func (s *Store) readDue(ctx context.Context, parts []statement, found map[identity.ClientID]*dueQueue) error {
	for _, part := range s.union(parts) {
		err := s.read().query(ctx, part.text, part.args, func(r row) error {
			d, err := scanDue(r)
			if err == nil {
				q := found[d.message.ClientID]
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

func scanDue(r row) (*dueRow, error) {
	var (
		d            dueRow
		header, data sql.RawBytes
		absent       bool
	)
	m := &d.message
	err := r.Scan(fixed(m.ClientID[:]), fixed(m.ID[:]), &m.Service, &m.Type, &m.Attempts, &d.size, &header, &data, &absent)
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
